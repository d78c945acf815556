//! systemd's unit files, read by systemd's own rules.

mod file;
mod install;
mod name;

pub(crate) use file::{UnitFile, UnitFileError};
pub(crate) use install::{Install, InstallError};
pub(crate) use name::{UnitKind, UnitName, UnitNameError};

use super::files::SourceFile;
pub(super) use file::words;

/// A unit of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: UnitName,
    pub(crate) source: SourceFile,
    pub(crate) file: UnitFile,
    pub(crate) install: Install,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error(transparent)]
    Name(#[from] UnitNameError),
    #[error("is not UTF-8 text")]
    Encoding,
    #[error(transparent)]
    File(#[from] UnitFileError),
    #[error("[Install]: {0}")]
    Install(#[from] InstallError),
}

impl UnitError {
    pub(super) fn hint(&self) -> String {
        match self {
            UnitError::Name(_) => "name it like hello.service, hello.timer or hello@.service".to_owned(),
            UnitError::Encoding => "save it as UTF-8".to_owned(),
            UnitError::File(error) => error.hint(),
            UnitError::Install(error) => error.hint(),
        }
    }
}

impl Unit {
    /// Reads a unit file; what its `[Install]` asks for is known to make sense.
    pub(crate) fn parse(source: SourceFile) -> Result<Unit, UnitError> {
        let name: UnitName = source.name().parse()?;
        let text = str::from_utf8(&source.bytes).map_err(|_| UnitError::Encoding)?;
        let file = UnitFile::parse(text)?;
        let install = Install::read(&file)?;
        install.of(&name)?;
        Ok(Unit { name, source, file, install })
    }

    /// The programs that `ExecStart=` names, without systemd's prefixes and the arguments.
    pub(crate) fn programs(&self) -> Vec<String> {
        let mut programs = Vec::new();
        for command in self.file.values("Service", "ExecStart") {
            if command.is_empty() {
                programs.clear();
                continue;
            }
            // Source: systemd.service(5), "Special executable prefixes".
            let command = command.trim_start_matches(['@', '-', ':', '+', '!', '|']);
            let words = words(command).unwrap_or_default();
            programs.push(words.into_iter().next().unwrap_or_default());
        }
        programs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_a_service() {
        let programs = |text: &str| {
            let path = "systemd/a.service".into();
            let bytes = format!("[Service]\n{text}").into_bytes();
            Unit::parse(SourceFile { path, bytes }).unwrap().programs()
        };
        assert_eq!(programs("ExecStart=/usr/bin/a -x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=@-/usr/bin/a argv0"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=:!!\"/usr/bin/a\" x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=\\\n  /usr/bin/a \\\n  -x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=/a\nExecStart=\nExecStart=/b\nExecStart=/c"), ["/b", "/c"]);
        assert_eq!(programs(""), [""; 0]);
    }
}
