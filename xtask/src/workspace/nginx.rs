//! nginx's configuration files, as far as their structure goes; `nginx -t` knows the directives.

use super::files::SourceFile;
use super::problem::Problems;

/// A directive: its name and arguments, and the directives in its braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NginxError {
    #[error("line {0}: a quote is left open")]
    Quote(usize),
    #[error("line {0}: `{{` is left open")]
    Open(usize),
    #[error("line {0}: `}}` closes nothing")]
    Close(usize),
    #[error("line {line}: no `;` after `{directive}`")]
    Semicolon { line: usize, directive: String },
    #[error("line {line}: `{found}` without a directive before it")]
    NoDirective { line: usize, found: char },
}

impl NginxError {
    pub(super) fn hint(&self) -> String {
        match self {
            NginxError::Quote(_) => "close the quote".to_owned(),
            NginxError::Open(_) => "write the missing `}`".to_owned(),
            NginxError::Close(_) => "remove it".to_owned(),
            NginxError::Semicolon { .. } => "end each directive with `;`".to_owned(),
            NginxError::NoDirective { found, .. } => format!("remove the `{found}`"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    Semicolon,
}

/// Reads a hand-written file and looks for what nginx accepts but nobody means.
pub(super) fn check(file: &SourceFile, problems: &mut Problems) -> Vec<Directive> {
    let Some(text) = file.text(problems) else { return Vec::new() };
    match parse(text) {
        Ok(directives) => {
            check_aliases(file, &directives, problems);
            directives
        }
        Err(error) => {
            problems.add(&file.path, &error, error.hint());
            Vec::new()
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Directive>, NginxError> {
    // The open blocks, outermost first; the first is the file, which no directive opens.
    let mut file = Vec::new();
    let mut open: Vec<Directive> = Vec::new();
    let mut words = Vec::new();
    let mut first_line = 0;
    for (line, token) in tokens(text)? {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    first_line = line;
                }
                words.push(word);
            }
            Token::Semicolon | Token::Open if words.is_empty() => {
                let found = if token == Token::Open { '{' } else { ';' };
                return Err(NginxError::NoDirective { line, found });
            }
            Token::Semicolon => {
                let directive =
                    Directive { line: first_line, words: std::mem::take(&mut words), block: None };
                into_block(&mut open, &mut file).push(directive);
            }
            Token::Open => {
                let words = std::mem::take(&mut words);
                open.push(Directive { line: first_line, words, block: Some(Vec::new()) });
            }
            Token::Close => {
                if !words.is_empty() {
                    return Err(NginxError::Semicolon { line: first_line, directive: words.join(" ") });
                }
                let closed = open.pop().ok_or(NginxError::Close(line))?;
                into_block(&mut open, &mut file).push(closed);
            }
        }
    }
    if !words.is_empty() {
        return Err(NginxError::Semicolon { line: first_line, directive: words.join(" ") });
    }
    match open.last() {
        Some(directive) => Err(NginxError::Open(directive.line)),
        None => Ok(file),
    }
}

/// Where the next directive goes.
fn into_block<'a>(open: &'a mut [Directive], file: &'a mut Vec<Directive>) -> &'a mut Vec<Directive> {
    match open.last_mut() {
        Some(directive) => directive.block.get_or_insert_default(),
        None => file,
    }
}

/// Splits a file as nginx does. Source: nginx, src/core/ngx_conf_file.c, ngx_conf_read_token().
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, NginxError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_ascii_whitespace() => (),
            // A comment starts where a word would; inside of a word, `#` is as good as a letter.
            '#' => while chars.next_if(|&c| c != '\n').is_some() {},
            '{' => tokens.push((line, Token::Open)),
            '}' => tokens.push((line, Token::Close)),
            ';' => tokens.push((line, Token::Semicolon)),
            '"' | '\'' => {
                let start = line;
                let mut word = String::new();
                loop {
                    match chars.next().ok_or(NginxError::Quote(start))? {
                        end if end == c => break,
                        '\\' => word.extend(escaped(&mut chars)),
                        other => word.push(other),
                    }
                }
                line += word.matches('\n').count();
                tokens.push((start, Token::Word(word)));
            }
            first => {
                let mut word = String::new();
                let mut next = Some(first);
                while let Some(c) = next {
                    match c {
                        '\\' => word.extend(escaped(&mut chars)),
                        // The brace of `${name}` opens no block.
                        '$' if chars.next_if_eq(&'{').is_some() => word.push_str("${"),
                        c => word.push(c),
                    }
                    // A `}` ends a variable's name, and within a word it closes nothing.
                    next = chars.next_if(|&c| !c.is_ascii_whitespace() && !matches!(c, ';' | '{'));
                }
                tokens.push((line, Token::Word(word)));
            }
        }
    }
    Ok(tokens)
}

/// What stands for `\` and the character after it: the quoted character, or both.
fn escaped(chars: &mut impl Iterator<Item = char>) -> Vec<char> {
    match chars.next() {
        Some(c @ ('"' | '\'' | '\\')) => vec![c],
        Some('t') => vec!['\t'],
        Some('r') => vec!['\r'],
        Some('n') => vec!['\n'],
        Some(c) => vec!['\\', c],
        None => vec!['\\'],
    }
}

/// A location without a slash at its end that has an alias with one gives away the alias's
/// parent: `/files../x` matches `location /files`, and becomes `/srv/files/../x`.
fn check_aliases(file: &SourceFile, directives: &[Directive], problems: &mut Problems) {
    for directive in directives {
        let Some(block) = &directive.block else { continue };
        if let Some(path) = prefix_location(directive).filter(|path| !path.ends_with('/')) {
            for (line, alias) in aliases(block).into_iter().filter(|(_, alias)| alias.ends_with('/')) {
                let message = format!(
                    "line {line}: `alias {alias}` in `location {path}` gives away its parent folder, as {path}../"
                );
                problems.add(&file.path, message, format!("write 'location {path}/'"));
            }
        }
        check_aliases(file, block, problems);
    }
}

/// The path of a location that matches by its start.
fn prefix_location(directive: &Directive) -> Option<&str> {
    let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
    match words[..] {
        ["location", "=" | "~" | "~*", ..] => None,
        ["location", "^~", path] => Some(path),
        // nginx takes modifier and path without a blank in between, too.
        ["location", path] if path.starts_with(['=', '~', '@']) => None,
        ["location", path] => Some(path.strip_prefix("^~").unwrap_or(path)),
        _ => None,
    }
}

/// The aliases of a location: in its block, and in blocks there that are not locations.
fn aliases(block: &[Directive]) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for directive in block {
        match (directive.words.first().map(String::as_str), &directive.block) {
            (Some("alias"), None) => {
                found.extend(directive.words.get(1).map(|path| (directive.line, path.as_str())));
            }
            (Some("location"), _) => (),
            (_, Some(inner)) => found.extend(aliases(inner)),
            (_, None) => (),
        }
    }
    found
}

/// The arguments of a file's outermost locations, in one form: `= /x`, `/x/`.
pub(super) fn locations(directives: &[Directive]) -> impl Iterator<Item = (usize, String)> {
    directives.iter().filter(|directive| directive.words.first().is_some_and(|word| word == "location")).map(
        |directive| {
            let arguments = directive.words[1..].join(" ");
            let arguments = arguments.strip_prefix("^~").map(str::trim_start).unwrap_or(&arguments);
            (directive.line, arguments.to_owned())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(directives: &[Directive]) -> String {
        let one = |directive: &Directive| match &directive.block {
            Some(block) => format!("{}{{{}}}", directive.words.join("|"), shown(block)),
            None => format!("{};", directive.words.join("|")),
        };
        directives.iter().map(one).collect()
    }

    #[test]
    fn structure() {
        let check = |text: &str, expected: &str| {
            let found = match parse(text) {
                Ok(directives) => shown(&directives),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "for {text}");
        };
        check("a b c;d;", "a|b|c;d;");
        check("# x { ; \"\na b#c; # {", "a|b#c;");
        check("http { server { listen 80; } }", "http{server{listen|80;}}");
        check("a{b{}c;}", "a{b{}c;}");
        check(r#"log "x; } 'y" 'a"b' "q\"q";"#, r#"log|x; } 'y|a"b|q"q;"#);
        check(r"location ~ ^/a\.b$ { }", r"location|~|^/a\.b${}");
        check("set $x ${y}z; if ($a) { b; }", "set|$x|${y}z;if|($a){b;}");
        check("a;\n\"b", "line 2: a quote is left open");
        check("a;\nb {\nc;", "line 2: `{` is left open");
        check("a;\n}", "line 2: `}` closes nothing");
        check("a {\nb c\n}", "line 2: no `;` after `b c`");
        check("a", "line 1: no `;` after `a`");
        check(";", "line 1: `;` without a directive before it");
        check("a {\n{ } }", "line 2: `{` without a directive before it");
        check("\"a\nb\" c;\n}", "line 3: `}` closes nothing");
    }

    #[test]
    fn aliases_that_leak() {
        let check = |text: &str, lines: &[usize]| {
            let file = SourceFile { path: "x.location.conf".into(), bytes: text.into() };
            let mut problems = Problems::default();
            super::check(&file, &mut problems);
            let expected: Vec<String> = lines.iter().map(|line| format!("line {line}: ")).collect();
            assert_eq!(problems.0.len(), expected.len(), "for {text}: {problems}");
            for (problem, expected) in problems.0.iter().zip(expected) {
                assert!(problem.message.starts_with(&expected), "for {text}: {problems}");
            }
        };
        check("location /f { alias /srv/f/; }", &[1]);
        check("location \"/f\" {\n  alias '/srv/f/';\n}", &[2]);
        check("location ^~ /f { alias /srv/f/; }", &[1]);
        check("location ^~/f { alias /srv/f/; }", &[1]);
        check("http { server { location /f { if ($x) { alias /a/; } } } }", &[1]);
        check("location / {\n location /f {\n alias /a/; }\n location /g { alias /b/; } }", &[3, 4]);
        check("location /f/ { alias /srv/f/; }", &[]);
        check("location /f { alias /srv/f; }", &[]);
        check("location = /f { alias /srv/f/; }", &[]);
        check("location =/f { alias /srv/f/; }", &[]);
        check("location ~ /f { alias /srv/f/; }", &[]);
        check("location /f { location /f/g/ { alias /srv/f/; } }", &[]);
        check("# location /f { alias /srv/f/; }", &[]);
    }
}
