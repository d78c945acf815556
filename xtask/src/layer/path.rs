//! A path inside a layer.

use std::cmp::Ordering;
use std::fmt;

/// A relative path of plain names, such as `usr/bin/hello`.
///
/// It orders a directory before what is in it, which is the order that a layer's tar needs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayerPathError {
    #[error("`{0}` is not a relative path of plain names")]
    NotPlain(String),
    #[error("`{0}` holds a name that starts with `.wh.`, which deletes files of the base")]
    Whiteout(String),
}

impl LayerPath {
    pub(crate) fn new(path: impl Into<String>) -> Result<LayerPath, LayerPathError> {
        let path = path.into();
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        if !path.split('/').all(is_plain) {
            return Err(LayerPathError::NotPlain(path));
        }
        // OCI image specification, layer.md, "Whiteouts".
        if path.split('/').any(|name| name.starts_with(".wh.")) {
            return Err(LayerPathError::Whiteout(path));
        }
        Ok(LayerPath(path))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories that it is in, outermost first.
    pub(crate) fn parents(&self) -> impl Iterator<Item = LayerPath> {
        self.0.match_indices('/').map(|(end, _)| LayerPath(self.0[..end].to_owned()))
    }

    /// Whether it is `ancestor` or something in it.
    pub(crate) fn is_within(&self, ancestor: &str) -> bool {
        self.0.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Ord for LayerPath {
    fn cmp(&self, other: &LayerPath) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for LayerPath {
    fn partial_cmp(&self, other: &LayerPath) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names() {
        for bad in ["", "/usr", "usr/", "usr//bin", "./usr", "usr/../etc", "a\0b"] {
            assert_eq!(LayerPath::new(bad), Err(LayerPathError::NotPlain(bad.to_owned())), "{bad:?}");
        }
        let whiteout = "usr/.wh.bin";
        assert_eq!(LayerPath::new(whiteout), Err(LayerPathError::Whiteout(whiteout.to_owned())));
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it() {
        // By bytes, `usr-x` and `usr.x` would come between `usr` and `usr/bin`.
        let mut paths = ["usr.x", "usr/bin", "usr-x", "usr"].map(|path| LayerPath::new(path).unwrap());
        paths.sort();
        assert_eq!(paths.each_ref().map(LayerPath::as_str), ["usr", "usr/bin", "usr-x", "usr.x"]);
    }
}
