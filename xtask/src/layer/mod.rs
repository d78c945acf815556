//! Files to layers. What a host would drop or misplace is refused here, before a byte is
//! written.

pub(crate) mod content;
pub(crate) mod enable;
pub(crate) mod path;
pub(crate) mod rules;
pub(crate) mod tree;
pub(crate) mod write;

pub(crate) use rules::check;
pub(crate) use tree::{FileMode, Node, Tree};
pub(crate) use write::write_tar;
