//! Runs the scripts of workflows' jobs as GitHub's runners do, without what only GitHub has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Workspace, copy};

/// A file of `.github`, as JSON.
pub(crate) fn read(path: &str) -> Value {
    let path = repository().join(".github").join(path);
    serde_yaml_ng::from_str(&fs::read_to_string(&path).unwrap()).unwrap()
}

/// The workflows by name.
pub(crate) fn workflows() -> BTreeMap<String, Value> {
    let files = fs::read_dir(repository().join(".github/workflows")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.trim_end_matches(".yml").to_owned(), read(&format!("workflows/{name}")))).collect()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A job that runs scripts, as `workflow/job`.
pub(crate) fn jobs_with_scripts() -> BTreeSet<String> {
    let mut jobs = BTreeSet::new();
    for (workflow, content) in workflows() {
        for (name, job) in content["jobs"].as_object().unwrap() {
            let steps = job["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
            if steps.iter().any(|step| step["run"].is_string()) {
                jobs.insert(format!("{workflow}/{name}"));
            }
        }
    }
    jobs
}

/// A runner with a workspace as its checkout.
pub(crate) struct Runner<'a> {
    workspace: &'a Workspace,
    /// What expressions are, such as `inputs.distro`. An expression that is missing is an error.
    pub(crate) values: BTreeMap<String, String>,
    /// The jobs that were run, as `workflow/job`.
    pub(crate) done: BTreeSet<String>,
}

/// Programs that need GitHub, Sigstore or another machine: they say how they were called. `cargo xtask`
/// is the binary under test, but for building it and for the tests themselves.
const STANDINS: [(&str, &str); 5] = [
    (
        "cargo",
        "case \"$1 $2\" in\n\"build --locked\" | \"xtask test\") ;;\n\"xtask \"*) shift; exec \"$XTASK\" \"$@\" ;;\n*) exit 9 ;;\nesac\n",
    ),
    ("cosign", "[ \"$1\" != login ] || cat >/dev/null\n"),
    ("gh", "[ \"$1 $2\" != 'pr list' ] || echo 0\n"),
    ("rustup", ""),
    ("sudo", ""),
];

impl<'a> Runner<'a> {
    pub(crate) fn new(workspace: &'a Workspace) -> Runner<'a> {
        copy(&repository().join(".github"), &workspace.path(".github"));
        for (name, script) in STANDINS {
            let path = format!("../standins/{name}");
            workspace
                .write(&path, &format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>\"${{0%/*}}/calls\"\n{script}"));
            fs::set_permissions(workspace.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Runner { workspace, values: BTreeMap::new(), done: BTreeSet::new() }
    }

    pub(crate) fn set(&mut self, values: &[(&str, &str)]) {
        self.values.extend(values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    }

    /// What the stand-ins were called with since this was asked for.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = self.workspace.path("../standins/calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        fs::write(calls, "").unwrap();
        text.lines().filter(|line| !line.starts_with("cargo ")).map(str::to_owned).collect()
    }

    /// Runs a job's scripts, and gives what they wrote to the summary. Its outputs are values then.
    pub(crate) fn run(&mut self, workflow: &str, job: &str) -> String {
        let content = read(&format!("workflows/{workflow}.yml"));
        // With a shell that is named, a pipe fails with any of its programs.
        assert_eq!(content["defaults"]["run"]["shell"], "bash", "{workflow}");
        let definition = &content["jobs"][job];
        for file in ["output", "summary"] {
            self.workspace.write(&format!("../runner/{file}"), "");
        }
        self.run_steps(&format!("{workflow}/{job}"), &definition["steps"]);
        for (name, value) in definition["outputs"].as_object().into_iter().flatten() {
            let value = self.expand(value);
            self.values.insert(format!("needs.{job}.outputs.{name}"), value);
        }
        self.done.insert(format!("{workflow}/{job}"));
        fs::read_to_string(self.workspace.path("../runner/summary")).unwrap()
    }

    /// What a job says of a value that stops it.
    pub(crate) fn failure(&self, workflow: &str, job: &str, (name, value): (&str, &str)) -> String {
        let mut values = self.values.clone();
        values.insert(name.to_owned(), value.to_owned());
        let runner = Runner { workspace: self.workspace, values, done: BTreeSet::new() };
        let steps = &read(&format!("workflows/{workflow}.yml"))["jobs"][job]["steps"];
        let scripts = steps.as_array().unwrap().iter().filter(|step| step["run"].is_string());
        let failed = scripts.map(|step| runner.execute(step)).find(|output| !output.status.success());
        let output = failed.unwrap_or_else(|| panic!("{job} succeeds with {value}"));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs the scripts of an action of this repository.
    pub(crate) fn run_action(&mut self, action: &str) {
        self.run_steps(action, &read(&format!("actions/{action}/action.yml"))["runs"]["steps"]);
    }

    fn run_steps(&mut self, owner: &str, steps: &Value) {
        for step in steps.as_array().unwrap().iter().filter(|step| step["run"].is_string()) {
            self.run_step(owner, step);
        }
    }

    fn run_step(&mut self, job: &str, step: &Value) {
        let output = self.execute(step);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{job}: {}\n{stdout}{stderr}", step["run"]);
        if let Some(id) = step["id"].as_str() {
            for line in fs::read_to_string(self.file("output")).unwrap().lines() {
                let (key, value) = line.split_once('=').unwrap();
                self.values.insert(format!("steps.{id}.outputs.{key}"), value.to_owned());
            }
        }
    }

    /// Runs a step's script to its end.
    fn execute(&self, step: &Value) -> Output {
        let script = step["run"].as_str().unwrap();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
        self.workspace.prepare(&mut command);
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            command.env(name, self.expand(value));
        }
        command.env("GITHUB_OUTPUT", self.file("output")).env("GITHUB_STEP_SUMMARY", self.file("summary"));
        let path = std::env::var("PATH").unwrap();
        let standins = self.workspace.path("../standins");
        command.env("PATH", format!("{}:{path}", standins.display())).env("GITHUB_ACTOR", "somebody");
        command.env("XTASK", env!("CARGO_BIN_EXE_xtask"));
        command.output().unwrap()
    }

    /// A file that GitHub reads after each step.
    fn file(&self, name: &str) -> PathBuf {
        self.workspace.path(&format!("../runner/{name}"))
    }

    /// A text with its expressions replaced.
    fn expand(&self, text: &Value) -> String {
        let mut rest = text.as_str().unwrap();
        let mut expanded = String::new();
        while let Some((before, after)) = rest.split_once("${{") {
            let (expression, after) = after.split_once("}}").unwrap();
            let value = self.values.get(expression.trim());
            expanded += before;
            expanded += value.unwrap_or_else(|| panic!("nothing is known of `{}`", expression.trim()));
            rest = after;
        }
        expanded + rest
    }
}
