//! Files to layers. What a host would drop or misplace is refused here, before a byte is
//! written.

pub(crate) mod path;
pub(crate) mod rules;
pub(crate) mod tree;
pub(crate) mod write;
