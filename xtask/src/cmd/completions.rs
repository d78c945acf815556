//! `completions`: what a shell reads to complete `cargo-xtask`.

use std::io::Write;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::flags::Flags;

/// bash completes `cargo` alone, which knows nothing of `xtask`: for `cargo xtask`, the words are
/// handed on as those of `cargo-xtask`; for anything else, cargo's own completion is asked, if there
/// is one.
const BASH: &str = r#"
_cargo_with_xtask() {
    if [[ ${COMP_WORDS[1]} == xtask ]] && ((COMP_CWORD > 1)); then
        COMP_WORDS=(cargo-xtask "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _cargo-xtask cargo-xtask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    elif declare -F _cargo >/dev/null; then
        _cargo "$@"
    fi
}
complete -F _cargo_with_xtask -o bashdefault -o default cargo
"#;

pub(crate) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Flags::command(), "cargo-xtask", &mut script);
    if shell == Shell::Bash {
        script.extend(BASH.as_bytes());
    }
    std::io::stdout().write_all(&script).context("writing to standard output")
}
