//! A document taken apart: its blocks of code, headings, links and code spans, with their lines.

use std::collections::BTreeMap;

/// What follows these words in a comment says why the block below it is not run.
const MARK: &str = "<!-- not run:";

/// One document.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) blocks: Vec<Block>,
    /// As GitHub writes them in addresses: `#add-an-app`.
    pub(super) anchors: Vec<String>,
    pub(super) headings: Vec<(usize, String)>,
    pub(super) links: Vec<(usize, String)>,
    pub(super) spans: Vec<(usize, String)>,
}

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// The line of its fence, from 1.
    pub(super) line: usize,
    /// `sh`, `console`, `mermaid` and so on; empty where nothing is said.
    pub(super) language: String,
    pub(super) text: String,
    /// The reason for which it is not run.
    pub(super) mark: Option<String>,
}

impl Block {
    /// Whether it holds commands.
    pub(super) fn is_commands(&self) -> bool {
        ["sh", "console"].contains(&self.language.as_str())
    }

    /// Its commands, each with its continuation lines.
    pub(super) fn commands(&self) -> Vec<String> {
        let text = self.text.replace("\\\n", " ");
        let lines = text.lines();
        match self.language.as_str() {
            "console" => lines.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect(),
            _ => lines.map(str::to_owned).collect(),
        }
    }
}

pub(super) fn parse(text: &str) -> Document {
    let mut document = Document::default();
    let mut seen = BTreeMap::new();
    // What is neither code nor heading, with as many lines as the document.
    let mut prose = String::new();
    let mut above = "";
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let mut code = String::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
                code += line.get(indent..).unwrap_or_default();
                code.push('\n');
            }
            let mark = above.trim().strip_prefix(MARK).and_then(|rest| rest.strip_suffix("-->"));
            prose += &"\n".repeat(code.lines().count() + 2);
            document.blocks.push(Block {
                line: at + 1,
                language: language.trim().to_owned(),
                text: code,
                mark: mark.map(|reason| reason.trim().to_owned()),
            });
        } else {
            if line.starts_with('#') {
                let heading = line.trim_start_matches('#').trim();
                document.anchors.push(anchor(heading, &mut seen));
                document.headings.push((at + 1, heading.to_owned()));
            }
            prose += line;
            prose.push('\n');
        }
        above = line;
    }
    let rest = take_spans(&prose, &mut document.spans);
    take_links(&rest, &mut document.links);
    document
}

/// A heading's address; the second of the same words gets `-1`.
fn anchor(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let words = heading.to_lowercase().replace(' ', "-");
    let words: String = words.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect();
    let count = seen.entry(words.clone()).or_default();
    *count += 1;
    if *count == 1 { words } else { format!("{words}-{}", *count - 1) }
}

/// Collects what stands between backticks, and gives the text without it.
fn take_spans(prose: &str, spans: &mut Vec<(usize, String)>) -> String {
    let (mut rest, mut line) = (String::new(), 1);
    for (at, part) in prose.split('`').enumerate() {
        if at % 2 == 1 {
            spans.push((line, part.split_whitespace().collect::<Vec<_>>().join(" ")));
            rest += &"\n".repeat(part.matches('\n').count());
        } else {
            rest += part;
        }
        line += part.matches('\n').count();
    }
    rest
}

fn take_links(prose: &str, links: &mut Vec<(usize, String)>) {
    for (at, _) in prose.match_indices("](") {
        let line = prose[..at].matches('\n').count() + 1;
        let target = prose[at + 2..].split(')').next().unwrap();
        links.push((line, target.to_owned()));
    }
}
