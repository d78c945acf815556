//! The image that a Containerfile starts from, looked at before minutes are spent on a build.

use anyhow::{Context, Result, bail};

use crate::hint::WithHint;
use crate::oci::base::BaseError;
use crate::oci::{Base, Document, Manifest, Platform, Reference};
use crate::registry::Client;

/// The upstream for this machine, or None where the registry says that there is none. What comes
/// back is a bootc image for this platform, whose layers a host takes.
pub(super) fn inspect(image: &Reference, registry: &Client) -> Result<Option<Base>> {
    let reading = || format!("reading the upstream {image}");
    match registry.document(image).with_context(reading)? {
        Some(document) => check(document, image, registry).with_context(reading).map(Some),
        None => Ok(None),
    }
}

fn check(document: Document, image: &Reference, registry: &Client) -> Result<Base> {
    let host = Platform::host();
    let manifest: Manifest = match document {
        Document::Manifest(manifest) => manifest,
        Document::Index(index) => {
            let descriptor = index.select(host).hint(elsewhere(host))?;
            match registry.document_by_digest(image, descriptor)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => bail!("{} is an index inside an index", descriptor.digest),
            }
        }
    };
    let config = registry.config(image, &manifest.config)?;
    Base::new(manifest, config, host).own_hint(|error| match error {
        BaseError::NotBootable => {
            "name a bootc image, such as quay.io/centos-bootc/centos-bootc:stream10".to_owned()
        }
        BaseError::Platform { .. } => elsewhere(host),
        BaseError::Config(_) | BaseError::LayerType { .. } | BaseError::FinalDiffId(_) => {
            "whoever publishes it has to mend it; '--from REF' stands another image in".to_owned()
        }
    })
}

fn elsewhere(host: Platform) -> String {
    format!("name one for {host} with '--from', or make the base on another machine")
}

/// Whether a Containerfile starts an image from the upstream that it is given. Source:
/// Containerfile(5), FROM: instructions are of any case, and options may come before the image.
pub(super) fn starts_from_upstream(containerfile: &str) -> bool {
    containerfile.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM"))
            && words.any(|word| {
                ["$UPSTREAM", "${UPSTREAM}", "${UPSTREAM:"].iter().any(|name| word.starts_with(name))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containerfile_has_to_start_from_its_upstream() {
        for good in [
            "ARG UPSTREAM\nFROM ${UPSTREAM}\n",
            "ARG UPSTREAM\nFROM golang AS tools\n  from --platform=linux/amd64 $UPSTREAM as base\n",
            "ARG UPSTREAM=x\nFROM ${UPSTREAM:-y}",
        ] {
            assert!(starts_from_upstream(good), "{good}");
        }
        for bad in ["", "FROM scratch", "ARG UPSTREAM\nFROM quay.io/x/y:z\n", "# FROM ${UPSTREAM}\nFROM x\n"]
        {
            assert!(!starts_from_upstream(bad), "{bad}");
        }
    }
}
