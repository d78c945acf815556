//! A check of diagrams. It knows the part of Mermaid that these documents keep to: flowcharts,
//! sequence diagrams and state diagrams of one statement a line. Mermaid itself takes a browser's
//! document model and some hundred packages to say the same.

/// What is wrong with a diagram: the number of its line, from 1, and why.
pub(super) fn problem(text: &str) -> Option<(usize, String)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let statement: fn(&str) -> Result<Nesting, String> = match lines.next() {
        Some((_, "flowchart LR" | "flowchart TD")) => flow,
        Some((_, "sequenceDiagram")) => sequence,
        Some((_, "stateDiagram-v2")) => state,
        other => return Some((1, format!("no kind of diagram: {}", other.unwrap_or_default().1))),
    };
    let mut depth = 0;
    let mut last = 1;
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        match statement(line) {
            Ok(Nesting::Same) => {}
            Ok(Nesting::Opens) => depth += 1,
            Ok(Nesting::Closes) if depth > 0 => depth -= 1,
            Ok(Nesting::Closes) => return Some((at, "an 'end' too many".to_owned())),
            Err(why) => return Some((at, why)),
        }
        last = at;
    }
    (depth > 0).then(|| (last, "an 'end' is missing".to_owned()))
}

/// What a statement does to the blocks around it.
enum Nesting {
    Same,
    Opens,
    Closes,
}

/// `a["text"] -->|label| b & c`, `subgraph name["text"]`, `end`.
fn flow(line: &str) -> Result<Nesting, String> {
    if line == "end" {
        return Ok(Nesting::Closes);
    }
    if let Some(name) = line.strip_prefix("subgraph ") {
        let rest = node(name)?;
        return if rest.is_empty() { Ok(Nesting::Opens) } else { Err(format!("after a subgraph: {rest}")) };
    }
    let mut rest = node(line)?;
    while !rest.is_empty() {
        let after = ["-->", "---", "-.->", "==>", "&"].into_iter().find_map(|arrow| rest.strip_prefix(arrow));
        let after = after.ok_or_else(|| format!("no arrow: {rest}"))?.trim_start();
        let target = match after.strip_prefix('|') {
            Some(label) => {
                let (label, target) = label.split_once('|').ok_or("a label has no end")?;
                check_text(label)?;
                target.trim_start()
            }
            None => after,
        };
        rest = node(target)?;
    }
    Ok(Nesting::Same)
}

/// A node with or without a shape; gives what follows.
fn node(text: &str) -> Result<&str, String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name == "end" {
        return Err(format!("no name of a node: {text}"));
    }
    let shapes = [("[(", ")]"), ("([", "])"), ("[", "]"), ("(", ")"), ("{", "}")];
    let Some((inner, close)) =
        shapes.into_iter().find_map(|(open, close)| Some((rest.strip_prefix(open)?, close)))
    else {
        return Ok(rest.trim_start());
    };
    // A bracket in quotes is text.
    let from = match inner.strip_prefix('"') {
        Some(quoted) => quoted.find('"').ok_or("a quote has no end")? + 2,
        None => 0,
    };
    let at = from + inner[from..].find(close).ok_or_else(|| format!("{name} has no {close}"))?;
    check_text(&inner[..at])?;
    Ok(inner[at + close.len()..].trim_start())
}

/// Text in quotes is free; without them, it has none of the characters that mean something.
fn check_text(text: &str) -> Result<(), String> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let bad: &[char] = if quoted.is_some() { &['"'] } else { &['"', '(', ')', '[', ']', '{', '}', '|'] };
    let inner = quoted.unwrap_or(text);
    if inner.is_empty() || inner.contains(bad) { Err(format!("put into quotes: {text}")) } else { Ok(()) }
}

/// `participant a as Text`, `a->>b: text`, `Note over a: text`, `loop text` to `end`.
fn sequence(line: &str) -> Result<Nesting, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "end" => return Ok(Nesting::Closes),
        "loop" | "alt" | "opt" => return Ok(Nesting::Opens),
        "else" => return Ok(Nesting::Same),
        "participant" if rest.contains(" as ") => return Ok(Nesting::Same),
        _ => {}
    }
    let (head, text) = line.split_once(": ").ok_or_else(|| format!("no text: {line}"))?;
    let sides = head.strip_prefix("Note over ").map(|over| vec![over]).or_else(|| {
        let (from, to) = head.split_once("-->>").or_else(|| head.split_once("->>"))?;
        Some(vec![from, to])
    });
    let sides = sides.ok_or_else(|| format!("no arrow: {line}"))?;
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == ',');
    if text.contains(';') || !sides.iter().all(is_name) {
        Err(format!("a name or a text: {line}"))
    } else {
        Ok(Nesting::Same)
    }
}

/// `[*] --> a`, `a --> b: text`, `state "text" as a`.
fn state(line: &str) -> Result<Nesting, String> {
    if line.starts_with("state \"") && line.contains("\" as ") {
        return Ok(Nesting::Same);
    }
    let (head, _) = line.split_once(": ").unwrap_or((line, ""));
    let (from, to) = head.split_once(" --> ").ok_or_else(|| format!("no arrow: {line}"))?;
    let is_name = |name: &str| name == "[*]" || name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name(from) && is_name(to) { Ok(Nesting::Same) } else { Err(format!("no name of a state: {line}")) }
}
