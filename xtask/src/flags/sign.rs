//! Of signatures.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::oci::{ImageName, Reference};
use crate::sign::Depth;
use crate::workspace::settings::Repository;

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The image: a registry reference, by tag or digest
    #[arg(value_name = "REF", value_parser = in_registry, required_unless_present = "generate_key")]
    image: Option<Reference>,
    /// The private key: one of cosign's, or of ECDSA on P-256 as PKCS#8 in PEM
    #[arg(long, value_name = "FILE", default_value = "cosign.key")]
    pub(crate) key: PathBuf,
    /// Sign the images of an index as well, which is what a host looks at
    #[arg(long)]
    recursive: bool,
    /// Make the key, and the public one beside it (cosign.pub); no file is overwritten
    #[arg(long, conflicts_with_all = ["image", "recursive"])]
    generate_key: bool,
}

/// What `sign` is to do.
pub(crate) enum Signing<'a> {
    Image {
        reference: &'a Reference,
        depth: Depth,
    },
    /// Make a key.
    Key(&'a Path),
}

impl Sign {
    pub(crate) fn order(&self) -> Signing<'_> {
        match &self.image {
            Some(reference) => Signing::Image { reference, depth: depth(self.recursive) },
            None => Signing::Key(&self.key),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The image: a registry reference, by tag or digest
    #[arg(value_name = "REF", value_parser = in_registry)]
    pub(crate) image: Reference,
    /// The public key that it has to be signed with
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The repository that it has to be signed for: where a copy comes from [default: its own]
    #[arg(long, value_name = "NAME")]
    pub(crate) signed_for: Option<Repository>,
    /// Ask for signatures of an index's images as well
    #[arg(long)]
    recursive: bool,
}

impl Verify {
    pub(crate) fn depth(&self) -> Depth {
        depth(self.recursive)
    }
}

fn depth(recursive: bool) -> Depth {
    if recursive { Depth::All } else { Depth::Top }
}

/// An image that signatures can be beside.
fn in_registry(text: &str) -> Result<Reference, String> {
    match text.parse() {
        Ok(ImageName::Registry(reference)) => Ok(reference),
        Ok(ImageName::Layout { .. }) => {
            Err("signatures are beside images in registries: push it, and name it there".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
