//! Arguments of the kernel.

use std::fmt;

/// What the builders set, and what would take the disk out of ostree's hands.
const OURS: [&str; 9] =
    ["BOOT_IMAGE", "init", "initrd", "ostree", "ro", "root", "rootflags", "rootfstype", "rw"];

/// Words without blanks, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelArguments(Vec<String>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadArgument {
    #[error("`{0}` is the boot loader's own: the disk would not boot")]
    Ours(String),
    #[error("`{0}` has a character that boot loaders treat differently")]
    Character(String),
}

impl BadArgument {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            BadArgument::Ours(_) => "remove it: it is set when the disk is made",
            BadArgument::Character(_) => "use printable ASCII without quotes, `\\`, `$` and backticks",
        }
    }
}

impl KernelArguments {
    /// The arguments of a line, and what is wrong with others.
    pub(super) fn parse(line: &str) -> (KernelArguments, Vec<BadArgument>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for word in line.split_ascii_whitespace() {
            let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\' | '$' | '`');
            if word.contains(is_odd) {
                bad.push(BadArgument::Character(word.to_owned()));
            } else if OURS.contains(&name(word)) {
                bad.push(BadArgument::Ours(word.to_owned()));
            } else {
                good.push(word.to_owned());
            }
        }
        (KernelArguments(good), bad)
    }

    /// With `additions`, which stand instead of arguments of their names.
    pub(crate) fn with(&self, additions: &KernelArguments) -> KernelArguments {
        let is_replaced = |word: &&String| additions.0.iter().any(|addition| name(addition) == name(word));
        let kept = self.0.iter().filter(|word| !is_replaced(word));
        KernelArguments(kept.chain(&additions.0).cloned().collect())
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

fn name(argument: &str) -> &str {
    argument.split('=').next().unwrap_or(argument)
}
