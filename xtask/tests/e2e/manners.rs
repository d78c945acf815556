//! What a terminal's user gets beside results: manual pages that a reader understands.

use std::fs;
use std::process::Command;

use crate::harness::Workspace;
use crate::testing::program;

#[test]
fn manual_pages_are_read_without_a_warning() {
    let workspace = Workspace::new();
    let mut command = workspace.command("man ../pages");
    // What is set here does not show in them.
    let output = command.env("IMAGE", "ghcr.io/somebody/secret").output().unwrap();
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let mut texts = String::new();
    for page in stdout.lines() {
        let page = workspace.path("").join(page);
        let output = Command::new(program("groff"))
            .args(["-man", "-Tutf8", "-ww", "-rLL=100n"])
            .arg(&page)
            .env("GROFF_NO_SGR", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        // Bold is a letter over itself.
        let text = String::from_utf8(output.stdout).unwrap();
        texts += &text.chars().filter(|c| *c != '\u{8}').collect::<String>();
    }
    assert_eq!(stdout.lines().count(), fs::read_dir(workspace.path("../pages")).unwrap().count());
    assert!(!texts.contains("secret"));
    for part in ["cargo xtask vm test --upgrade\n", "cargo xtask disk qcow2\n", "BBAASSEE__DDIISSTTRROO"] {
        assert!(texts.contains(part), "no {part:?} in {texts}");
    }
}
