//! The documents: their commands run, their links lead somewhere, and their flags exist.
//!
//! A block of `sh` or `console` is run, in a workspace of its document's own, unless the line above
//! says `<!-- not run: WHY -->`. In a `console` block, lines behind `$ ` are commands and the others
//! are in what these write, in that order; `...` in them stands for anything.

mod markdown;
mod mermaid;
mod walkthrough;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, available_parallelism};

use crate::harness::Workspace;
use crate::root;
use crate::testing::{Registry, program};
use markdown::{Block, Document};

/// What the documents call a registry on the reader's machine.
const REGISTRY: &str = "localhost:5000";

/// Folders of this repository: a code span that begins with one of them names something in it.
const TOPS: [&str; 6] = ["apps/", "base/", "configs/", "docs/", "systemd/", "xtask/"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and all of docs/, by their paths in the repository.
fn documents() -> BTreeMap<String, Document> {
    let docs = fs::read_dir(repository().join("docs")).unwrap();
    let mut paths: Vec<String> =
        docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap())).collect();
    paths.push("README.md".to_owned());
    let read = |path: String| {
        let text = fs::read_to_string(repository().join(&path)).unwrap();
        (path, markdown::parse(&text))
    };
    paths.into_iter().filter(|path| path.ends_with(".md")).map(read).collect()
}

#[test]
fn what_documents_say_can_be_found() {
    let documents = documents();
    let mut problems = unlinked(&documents);
    for (path, document) in &documents {
        problems.extend(found_problems(path, document, &documents));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_commands_of_documents_run() {
    let documents = documents();
    // None knows of another, so they are run side by side, as many as there are processors.
    let queue = Mutex::new(documents.iter());
    let work = || {
        let next = || queue.lock().unwrap().next();
        std::iter::from_fn(next).filter_map(|(path, document)| run(path, document).err()).collect()
    };
    let count = available_parallelism().unwrap().get();
    let problems: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| -> Vec<String> { worker.join().unwrap() }).collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Documents that README.md does not lead to.
fn unlinked(documents: &BTreeMap<String, Document>) -> Vec<String> {
    let links = &documents["README.md"].links;
    let is_linked = |path: &&String| *path == "README.md" || links.iter().any(|(_, target)| target == *path);
    let missing = documents.keys().filter(|path| !is_linked(path));
    missing.map(|path| format!("README.md: no link to {path}")).collect()
}

/// All that is wrong with a document before anything in it is run.
fn found_problems(path: &str, document: &Document, all: &BTreeMap<String, Document>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |line: usize, what: String| problems.push(format!("{path}:{line}: {what}"));
    for block in &document.blocks {
        match (block.language.as_str(), &block.mark) {
            ("", _) => add(block.line, "a block of code without a language".to_owned()),
            ("mermaid", _) => {
                if let Some((line, why)) = mermaid::problem(&block.text) {
                    add(block.line + line, why);
                }
            }
            (_, Some(_)) if !block.is_commands() => add(block.line, "a mark, and no commands".to_owned()),
            (_, Some(reason)) if reason.is_empty() => add(block.line, "a mark without a reason".to_owned()),
            _ => {}
        }
        for command in block.commands().iter().filter(|_| block.is_commands()) {
            // What stands in a pipe or behind `if` is a command too.
            for part in command.split(['|', ';', '&', '(', ')']) {
                wrong_flags(part.trim()).into_iter().for_each(|what| add(block.line, what));
            }
        }
    }
    for (line, span) in &document.spans {
        wrong_flags(span).into_iter().for_each(|what| add(*line, what));
        let is_path = span.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        let is_here = TOPS.iter().any(|top| span.starts_with(top));
        if is_path && is_here && !repository().join(span).exists() {
            add(*line, format!("no such file: {span}"));
        }
    }
    for (line, link) in &document.links {
        wrong_link(path, link, all).into_iter().for_each(|what| add(*line, what));
    }
    problems
}

/// A link into this repository that leads nowhere.
fn wrong_link(from: &str, link: &str, all: &BTreeMap<String, Document>) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let folder = Path::new(from).parent().unwrap();
    let target = if file.is_empty() { PathBuf::from(from) } else { normal(&folder.join(file)) };
    if !repository().join(&target).exists() && !all.contains_key(target.to_str().unwrap()) {
        return Some(format!("a link to nothing: {link}"));
    }
    let anchor = anchor?;
    let is_there = |document: &Document| document.anchors.iter().any(|there| there == anchor);
    let known = all.get(target.to_str().unwrap()).is_some_and(is_there);
    (!known).then(|| format!("no such heading: {link}"))
}

/// Without `..`, as the documents are listed.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

/// Verbs and flags of a `cargo xtask` that its own help does not have.
fn wrong_flags(command: &str) -> Option<String> {
    let arguments = command.strip_prefix("cargo xtask ")?;
    let words: Vec<&str> = arguments.split_whitespace().take_while(|word| *word != "#").collect();
    let is_verb = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let depth = if words.first() == Some(&"vm") { 2 } else { 1 };
    let verbs: Vec<&str> = words.iter().take(depth).take_while(is_verb).copied().collect();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(&verbs).arg("--help").output().unwrap();
    if !output.status.success() {
        return Some(format!("no such command: {command}"));
    }
    let help = String::from_utf8(output.stdout).unwrap();
    let has = |flag: &str| help.split_whitespace().any(|word| word.trim_end_matches(',') == flag);
    let flags = words.iter().filter(|word| word.len() > 1 && word.starts_with('-'));
    let mut flags = flags.map(|word| word.split('=').next().unwrap());
    let wrong = flags.find(|flag| !has(flag.trim_end_matches(['"', '\'', '`', '.', ','])))?;
    Some(format!("'cargo xtask {}' has no {wrong}", verbs.join(" ")))
}

/// Runs a document's commands, from its top, and says what went wrong first.
fn run(path: &str, document: &Document) -> Result<(), String> {
    let blocks: Vec<&Block> =
        document.blocks.iter().filter(|block| block.is_commands() && block.mark.is_none()).collect();
    if blocks.is_empty() {
        return Ok(());
    }
    let workspace = Workspace::new();
    // What this repository's own settings say.
    fs::copy(repository().join("Cargo.toml"), workspace.path("Cargo.toml")).unwrap();
    workspace.write("../bin/cargo", SHIM);
    fs::set_permissions(workspace.path("../bin/cargo"), PermissionsExt::from_mode(0o755)).unwrap();
    // The base that other tests have made, as a reader's second command finds it.
    fs::create_dir_all(workspace.path("target/base")).unwrap();
    symlink(&root::base().layout.dir, workspace.path("target/base/debian-13")).unwrap();
    let registry = Registry::docker();
    for block in blocks {
        let at = format!("{path}:{}", block.line);
        let text = block.text.replace(REGISTRY, registry.address());
        if block.language == "console" {
            console(&workspace, &text).map_err(|why| format!("{at}: {why}"))?;
        } else {
            bash(&workspace, &text).map_err(|why| format!("{at}: {why}"))?;
        }
    }
    Ok(())
}

/// `cargo xtask` without a build.
const SHIM: &str = "#!/bin/sh\nset -eu\n[ \"$1\" = xtask ]\nshift\nexec \"$XTASK\" \"$@\"\n";

/// Runs a script in the workspace, and gives what it wrote.
fn bash(workspace: &Workspace, script: &str) -> Result<String, String> {
    let mut command = Command::new(program("bash"));
    command.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]);
    workspace.prepare(&mut command);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", workspace.path("../bin").display()));
    command.env("XTASK", env!("CARGO_BIN_EXE_xtask")).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}: {script}{text}", output.status)) }
}

/// Runs each command of a `console` block, and looks for the lines that follow it.
fn console(workspace: &Workspace, text: &str) -> Result<(), String> {
    let text = text.replace("\\\n", " ");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").ok_or_else(|| format!("no command: {line}"))?;
        let output = bash(workspace, command)?;
        let mut written = output.lines();
        while let Some(expected) = lines.next_if(|line| !line.starts_with("$ ")) {
            if !written.any(|line| is_like(line, expected)) {
                return Err(format!("'{expected}' is not in what '{command}' wrote:\n{output}"));
            }
        }
    }
    Ok(())
}

/// Whether a line has the parts of `expected`, which `...` separates, in their order.
fn is_like(line: &str, expected: &str) -> bool {
    let parts: Vec<&str> = expected.trim().split("...").collect();
    let [first, between @ .., last] = &parts[..] else { return line.trim() == expected.trim() };
    let Some(mut rest) = line.trim().strip_prefix(first) else { return false };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn faults_that_are_planted_are_found() {
    let text = fs::read_to_string(repository().join("xtask/tests/e2e/docs/faults.md")).unwrap();
    // Only what is planted may be found: whether the rest is sound, the other tests say.
    let mut all = documents();
    all.insert("docs/faults.md".to_owned(), markdown::parse(&text));
    let mut problems: Vec<String> =
        unlinked(&all).into_iter().filter(|problem| problem.contains("faults")).collect();
    problems.extend(found_problems("docs/faults.md", &all["docs/faults.md"], &all));
    insta::assert_snapshot!(problems.join("\n"), @"
    README.md: no link to docs/faults.md
    docs/faults.md:8: a block of code without a language
    docs/faults.md:13: a mark without a reason
    docs/faults.md:13: 'cargo xtask disk' has no --wrong
    docs/faults.md:18: a mark, and no commands
    docs/faults.md:25: no arrow: -> c
    docs/faults.md:30: put into quotes: one (1)
    docs/faults.md:37: an 'end' is missing
    docs/faults.md:43: no arrow: a -- b
    docs/faults.md:5: no such file: apps/nothing
    docs/faults.md:5: 'cargo xtask list' has no --no-such
    docs/faults.md:5: no such command: cargo xtask no-such-verb
    docs/faults.md:3: a link to nothing: nothing.md
    docs/faults.md:3: no such heading: 015-manual-deployments.md#nowhere
    ");
    let failing = |text: &str| run("x.md", &markdown::parse(text)).unwrap_err();
    insta::assert_snapshot!(failing("# x\n```sh\necho one\nfalse\n```\n"), @"
    x.md:2: exit status: 1: echo one
    false
    one
    ");
    insta::assert_snapshot!(failing("```console\n$ printf 'a\\nb\\n'\na\nc\n```\n"), @r"
    x.md:1: 'c' is not in what 'printf 'a\nb\n'' wrote:
    a
    b
    ");
    run("x.md", &markdown::parse("```console\n$ printf 'one two\\nthree\\n'\no...o\nthree\n$ true\n```\n"))
        .unwrap();
}
