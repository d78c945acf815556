//! One image, as a registry serves it, for a guest to upgrade to.
//!
//! Source: OCI distribution specification, "Pull".

use std::io;

use super::http::{Answer, Server};
use crate::builder::LocalImage;
use crate::oci::Digest;

/// What the image is called.
const NAME: &str = "os";
const TAG: &str = "next";

/// A registry that serves until this process ends.
pub(crate) struct Registry {
    server: Server,
}

impl Registry {
    pub(crate) fn serve(image: LocalImage) -> io::Result<Registry> {
        Ok(Registry { server: Server::start(move |path| answer(&image, path))? })
    }

    /// The image's name, for a guest.
    pub(crate) fn image(&self) -> String {
        format!("{}/{NAME}:{TAG}", self.server.for_guests())
    }
}

fn answer(image: &LocalImage, path: &str) -> Answer {
    if matches!(path, "/v2" | "/v2/") {
        return Answer::Text(String::new());
    }
    let named = path.strip_prefix("/v2/").and_then(|path| path.strip_prefix(NAME)?.strip_prefix('/'));
    let Some((kind, reference)) = named.and_then(|path| path.split_once('/')) else {
        return Answer::NotFound;
    };
    let digest: Option<Digest> = reference.parse().ok();
    let manifest = &image.manifest;
    match kind {
        "manifests" if reference == TAG || digest == Some(manifest.blob.digest()) => Answer::Bytes {
            media_type: manifest.media_type.to_string(),
            bytes: manifest.blob.bytes().to_owned(),
        },
        "blobs" => match digest.map(|digest| image.blob(digest)) {
            Some(Ok(Some(file))) => Answer::File(file),
            // Whether it is whole was looked at before.
            Some(Ok(None) | Err(_)) | None => Answer::NotFound,
        },
        _ => Answer::NotFound,
    }
}
