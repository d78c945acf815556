//! What users see of the commands, compared with itself: README, help, and what is parsed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

/// The names of all commands that do something, such as `vm run`, with the command.
fn verbs() -> Vec<(String, clap::Command)> {
    fn below(parent: &clap::Command, prefix: &str, verbs: &mut Vec<(String, clap::Command)>) {
        for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = format!("{prefix}{}", command.get_name());
            match command.has_subcommands() {
                true => below(command, &format!("{name} "), verbs),
                false => verbs.push((name, command.clone())),
            }
        }
    }
    let mut verbs = Vec::new();
    below(&Flags::command(), "", &mut verbs);
    verbs
}

/// The words of a line, as a shell has them; quotes are single ones, around whole words.
fn words(line: &str) -> Vec<&str> {
    let line = line.split(" > ").next().unwrap_or_default();
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split(' ').collect() })
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn each_help_has_examples_that_are_understood() {
    for (name, command) in verbs() {
        let help = command.clone().render_long_help().to_string();
        let (_, examples) =
            help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name} has no examples"));
        let own = format!("cargo xtask {name}");
        assert!(examples.contains(&own), "{name}: no example is of it");
        for line in examples.lines().map(str::trim).filter(|line| line.starts_with("cargo xtask ")) {
            let words = words(line);
            if let Err(error) = Flags::try_parse_from([&["cargo xtask"], &words[2..]].concat()) {
                panic!("{name}: {line}: {error}");
            }
        }
    }
}

/// README's table of commands has all that there are, and no others.
#[test]
fn readme_has_a_row_for_each_command() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let verbs: BTreeSet<String> = verbs().into_iter().map(|(name, _)| name).collect();
    let mut rows = BTreeSet::new();
    for cell in readme.lines().filter_map(|line| line.strip_prefix("| `cargo xtask ")?.split(" | ").next()) {
        // `inspect REF`, `tags`: names are in lower-case letters, and what they take is not.
        for code in cell.split('`').step_by(2) {
            let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            rows.insert(code.split(' ').take_while(is_name).take(2).collect::<Vec<_>>().join(" "));
        }
    }
    assert_eq!(rows, verbs);
}
