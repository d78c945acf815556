//! Files to layers.

pub(crate) mod enable;
