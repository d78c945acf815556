//! Packed disks on their way into a registry, and what is said of them.

use anyhow::Result;
use serde::Serialize;

use super::build::Made;
use super::disk::OutputReport;
use super::pack::{Candidate, order};
use super::versions::Untagged;
use super::{Session, origin};
use crate::hint::hinted;
use crate::oci::{DiffId, Digest, ImageName, MediaType, Reference};
use crate::pack::{self, Delivered, PackedDisk, Readers};
use crate::progress::human_bytes;
use crate::registry::{Client, Pushed, Until};
use crate::report::PushReport;

/// One packed disk. Keys may be added, none renamed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PackedReport {
    /// Where it is: a registry reference, or `oci:DIR:TAG`.
    pub(super) reference: String,
    pub(super) digest: Digest,
    #[serde(flatten)]
    pub(super) disk: OutputReport,
    pub(super) layer: LayerReport,
    /// Where it was pushed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pushed: Option<PushReport>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerReport {
    digest: Digest,
    diff_id: DiffId,
    media_type: MediaType,
    /// Of what is sent and fetched, in bytes.
    size: u64,
}

impl PackedReport {
    pub(super) fn new<T>(reference: String, disk: OutputReport, delivered: &Delivered<T>) -> PackedReport {
        let PackedDisk { layer, diff_id, .. } = &delivered.disk;
        let layer = LayerReport {
            digest: layer.digest,
            diff_id: *diff_id,
            media_type: layer.media_type.clone(),
            size: layer.size,
        };
        PackedReport { reference, digest: delivered.document.blob().digest(), disk, layer, pushed: None }
    }

    /// It without what this run had to do for it.
    pub(super) fn lasting(&self) -> PackedReport {
        let mut lasting = self.clone();
        if let Some(pushed) = &mut lasting.pushed {
            pushed.cost = None;
        }
        lasting
    }
}

/// Packs the disks of an image that `dist` has made straight into its repository, where they get no
/// tag yet.
pub(super) fn send(
    disks: &[OutputReport],
    (made, name): (&Made, &ImageName),
    session: &Session,
    registry: &Client,
) -> Result<(Vec<PackedReport>, Vec<Untagged>)> {
    if disks.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let origin = origin::of_image(name, Some((&made.target).into()), registry)?;
    let orders = disks.iter().map(|report| {
        let tag = made.disk_tag(report.format);
        let target = made.repository.tagged(&tag);
        let sha256 = Some(format!("sha256:{}", report.sha256).parse()?);
        let candidate = Candidate { report: report.clone(), sha256, origin: origin.clone(), tag: Some(tag) };
        let (order, disk) = order(candidate, Readers::OfToday)?;
        Ok((order, disk, target))
    });
    let orders: Vec<_> = orders.collect::<Result<_>>()?;
    let sent = orders.into_iter().map(|(order, disk, target)| {
        let delivered = order.to_registry((&target, Until::Stored), registry, &session.progress)?;
        Ok(sent(target, disk, &delivered, session))
    });
    sent.collect()
}

/// A disk that was sent: what is said of it, and what has to have a tag.
pub(super) fn sent(
    target: Reference,
    disk: OutputReport,
    delivered: &Delivered<Pushed>,
    session: &Session,
) -> (PackedReport, Untagged) {
    let mut report = PackedReport::new(target.to_string(), hashed(disk, &delivered.disk), delivered);
    report.pushed = Some(said(&target, &delivered.outcome, session));
    (report, untagged(target, delivered))
}

pub(super) fn untagged<T>(tag: Reference, delivered: &Delivered<T>) -> Untagged {
    let facts = &delivered.disk.facts;
    let (format, platform) = (facts.format, facts.origin.platform);
    Untagged { tag, format, platform, document: delivered.document.clone() }
}

/// A disk's report with the digest that packing it has found out.
pub(super) fn hashed(disk: OutputReport, packed: &PackedDisk) -> OutputReport {
    OutputReport { sha256: packed.facts.sha256.hex(), ..disk }
}

pub(super) fn said(target: &Reference, pushed: &Pushed, session: &Session) -> PushReport {
    session.progress.line(match pushed.unchanged {
        true => format!("{target} is already {}", pushed.digest),
        false => format!("sent {target}: {}", human_bytes(pushed.sent_bytes)),
    });
    PushReport::new(&target.to_string(), pushed)
}

/// What `pull` and `inspect` say of an image that is no packed disk.
pub(super) fn not_packed(error: pack::NotPacked, name: &ImageName) -> anyhow::Error {
    let hint = match error {
        pack::NotPacked::Another => {
            "'cargo xtask inspect' shows what it is; 'podman pull' and 'skopeo copy' bring images of other kinds"
        }
        pack::NotPacked::Missing(_)
        | pack::NotPacked::Annotation { .. }
        | pack::NotPacked::Layers(_)
        | pack::NotPacked::MediaType(_)
        | pack::NotPacked::LayerSize { .. }
        | pack::NotPacked::Config(_)
        | pack::NotPacked::DiffId { .. } => "it is damaged or hostile: pack the disk again",
    };
    hinted(anyhow::Error::from(error).context(format!("reading {name}")), hint)
}
