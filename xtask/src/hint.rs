//! Errors that end with what to do about them.

use std::error::Error;
use std::fmt;
use std::io;

/// An error and the command or edit that mends it.
///
/// It shows itself as the error that it holds, so that the chain of causes reads as before.
#[derive(Debug)]
pub(crate) struct Hinted {
    error: Box<dyn Error + Send + Sync>,
    pub(crate) hint: String,
}

/// Adds a hint to whatever went wrong.
pub(crate) trait WithHint<T> {
    type Error;

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;

    /// The hint that the error itself knows.
    fn own_hint(self, hint: impl FnOnce(&Self::Error) -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    type Error = E;

    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.own_hint(|_| hint.into())
    }

    fn own_hint(self, hint: impl FnOnce(&E) -> String) -> anyhow::Result<T> {
        self.map_err(|error| {
            let hint = hint(&error);
            hinted(error, hint)
        })
    }
}

/// `error` with a hint.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    let error = error.into().reallocate_into_boxed_dyn_error_without_backtrace();
    Hinted { error, hint: hint.into() }.into()
}

/// Whether an error, or one of its causes, is a `T`; hints do not hide it.
pub(crate) fn is<T: Error + 'static>(error: &anyhow::Error) -> bool {
    causes(error.as_ref()).any(|cause| match cause.downcast_ref::<Hinted>() {
        Some(hinted) => hinted.error.is::<T>(),
        None => cause.is::<T>(),
    })
}

/// The hints in an error's chain, outermost first, and what helps against a cause that any file can
/// have.
pub(crate) fn hints(error: &anyhow::Error) -> impl Iterator<Item = &str> {
    causes(error.as_ref()).filter_map(|cause| match cause.downcast_ref::<Hinted>() {
        Some(hinted) => Some(hinted.hint.as_str()),
        None => cause.downcast_ref::<io::Error>().and_then(|error| of_file_system(error.kind())),
    })
}

/// An error and its causes. An I/O error passes over the error that it holds when it is asked for
/// its source; here that one comes next.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), cause)
}

/// `error` as an I/O error, for those that want one; its hints are found in there.
pub(crate) fn into_io(error: anyhow::Error) -> io::Error {
    io::Error::other(error.reallocate_into_boxed_dyn_error_without_backtrace())
}

fn of_file_system(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "free some space: 'df -h' shows where it went, and 'rm -r target/dist' frees what can be made again",
        ),
        io::ErrorKind::ReadOnlyFilesystem => Some("write to a place that is not mounted read-only"),
        io::ErrorKind::PermissionDenied => {
            Some("'ls -ld' shows whose it is; an earlier run as root may have made it")
        }
        _ => None,
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_hint_is_found_under_context_and_does_not_show_twice() {
        let error = Err::<(), _>(anyhow!("no go.mod")).hint("run 'go mod init'").context("reading apps/x");
        let error = error.unwrap_err();
        assert_eq!(format!("{error:#}"), "reading apps/x: no go.mod");
        assert_eq!(hints(&error).collect::<Vec<_>>(), ["run 'go mod init'"]);
    }

    #[test]
    fn a_hint_is_found_in_an_io_error() {
        let error = Err::<(), _>(anyhow!("no go.mod")).hint("run 'go mod init'").context("reading apps/x");
        let error = anyhow::Error::from(into_io(error.unwrap_err())).context("writing");
        assert_eq!(hints(&error).collect::<Vec<_>>(), ["run 'go mod init'"]);
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("writing");
        assert_eq!(hints(&full).count(), 1);
    }
}
