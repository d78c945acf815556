//! `doctor`: what works on this machine, and how to mend the rest.

mod machine;

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use serde_json::json;

use self::machine::State;
use super::Session;
use crate::base::debian;
use crate::base::engine::Engine;
use crate::build;
use crate::builder::Builder;
use crate::hint::WithHint;
use crate::preflight::{self, Need};
use crate::vm::{self, Firmware};

pub(crate) fn run(session: &Session) -> Result<()> {
    let mut needs: Vec<(&str, Need)> = vec![("dist", build::GO)];
    needs.extend(debian::needs().into_iter().map(|need| ("dist on debian-13", need)));
    needs.extend(vm::needs(Firmware::Uefi).into_iter().map(|need| ("vm", need)));
    needs.push(("base", Engine::choose(&session.root).need()));
    for builder in Builder::value_variants() {
        needs.extend(builder.needs().into_iter().map(|need| ("disk", need)));
    }
    needs.extend(super::test::needs().into_iter().map(|need| ("test", need)));
    let mut seen = HashSet::new();
    needs.retain(|(_, need)| seen.insert(need.program));
    let found: Vec<_> =
        needs.iter().map(|(command, need)| (*command, *need, preflight::find(need, &session.root))).collect();
    let workspace = session.workspace();
    let facts = machine::facts(workspace.as_ref().ok(), session);

    let programs: Vec<_> = found
        .iter()
        .map(|(command, need, path)| {
            let hint = path.is_none().then(|| preflight::install_hint(&[*need]));
            json!({"program": need.program, "for": command, "path": path, "hint": hint})
        })
        .collect();
    let problems = workspace.as_ref().err().map(|error| format!("{error:#}"));
    session.print(&json!({"programs": programs, "machine": facts, "workspace": problems}), || {
        let mut text = match &problems {
            None => "ok      workspace: apps, units and configuration are sound\n".to_owned(),
            Some(problems) => format!("error   {problems}\n"),
        };
        for fact in &facts {
            let state = match fact.state {
                State::Ok => "ok     ",
                State::Limited => "limited",
                State::Error => "error  ",
            };
            text += &format!("{state} {}: {}\n", fact.about, fact.text);
            if let Some(hint) = &fact.hint {
                text += &format!("        hint: {hint}\n");
            }
        }
        for (command, need, path) in &found {
            text += &match path {
                Some(path) => format!("ok      {} for {command}: {}\n", need.program, path.display()),
                None => {
                    format!("missing {} for {command}: {}\n", need.program, preflight::install_hint(&[*need]))
                }
            };
        }
        text
    })?;
    let is_sound = workspace.is_ok() && facts.iter().all(|fact| fact.state != State::Error);
    match is_sound {
        true => Ok(()),
        false => Err(anyhow!("the workspace is not sound")).hint("mend what is listed above"),
    }
}
