//! What is in an image, and how it hangs together: the part of an SBOM that is the same in every
//! form.

use super::buildinfo::{BuildInfo, Module};
use super::purl;
use crate::oci::{Descriptor, Digest, Timestamp};

/// An image or a packed disk, and all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// The image's own time: nothing says when its SBOM was made.
    pub(crate) created: Timestamp,
    /// The image that all of it is about.
    pub(crate) subject: Part,
    pub(crate) parts: Vec<Part>,
    pub(crate) relations: Vec<Relation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: PartId,
    pub(crate) kind: PartKind,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) digest: Option<Digest>,
    /// Source: the package URL specification.
    pub(crate) purl: Option<String>,
    /// As go.sum has it; it is no digest of a file.
    pub(crate) go_sum: Option<String>,
}

/// Tells the parts of one inventory apart; letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartId(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    /// What hosts boot, or what holds a disk.
    Image,
    Base,
    /// One of ours.
    Layer,
    File,
    /// A Go program; its file is another part.
    Program,
    Module,
}

/// How one part has to do with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) from: PartId,
    pub(crate) link: Link,
    pub(crate) to: PartId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Contains,
    /// An image begins with the layers of its base.
    DescendsFrom,
    DependsOn,
    /// A disk is made from an image.
    MadeFrom,
    /// A program is built into a file.
    BuiltInto,
}

/// An image as others name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// In a registry, without a tag; a folder's name is nobody's business.
    pub(crate) repository: Option<String>,
    pub(crate) digest: Digest,
}

/// One of our layers, and the files in it, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerFiles {
    pub(crate) name: String,
    pub(crate) descriptor: Descriptor,
    pub(crate) files: Vec<(String, Digest)>,
}

/// A Go program of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) app: String,
    /// In the image, from its root.
    pub(crate) path: String,
    pub(crate) info: BuildInfo,
}

/// A disk's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskFile {
    pub(crate) path: String,
    pub(crate) digest: Digest,
}

impl PartId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Inventory {
    fn new(image: &Named, version: Option<&str>, created: Option<Timestamp>) -> Inventory {
        let id = PartId("image".to_owned());
        let subject = Part { version: version.map(str::to_owned), ..image_part(id, PartKind::Image, image) };
        let created = created.unwrap_or(Timestamp::EPOCH);
        Inventory { created, subject, parts: Vec::new(), relations: Vec::new() }
    }

    /// A system: a base, our layers with their files, and the programs among these.
    pub(crate) fn of_image(
        (image, base): (&Named, &Named),
        (version, created): (Option<&str>, Option<Timestamp>),
        layers: &[LayerFiles],
        programs: &[Program],
    ) -> Inventory {
        let mut inventory = Inventory::new(image, version, created);
        let root = inventory.subject.id.clone();
        let base = inventory.add(|id| image_part(id, PartKind::Base, base), PartKind::Base);
        inventory.relate(&root, Link::DescendsFrom, &base);
        for layer in layers {
            let name = format!("layer {}", layer.name);
            let id = inventory.add_plain(PartKind::Layer, &name, Some(layer.descriptor.digest));
            inventory.relate(&root, Link::Contains, &id);
            for (path, digest) in &layer.files {
                let file = inventory.add_plain(PartKind::File, path, Some(*digest));
                inventory.relate(&id, Link::Contains, &file);
            }
        }
        for program in programs {
            inventory.add_program(&root, program, version);
        }
        inventory
    }

    /// A packed disk: its file, and the image that was installed on it, where that is known.
    pub(crate) fn of_disk(
        packed: &Named,
        (version, created): (Option<&str>, Option<Timestamp>),
        file: &DiskFile,
        system: Option<&Named>,
    ) -> Inventory {
        let mut inventory = Inventory::new(packed, version, created);
        let root = inventory.subject.id.clone();
        let disk = inventory.add_plain(PartKind::File, &file.path, Some(file.digest));
        inventory.relate(&root, Link::Contains, &disk);
        if let Some(system) = system {
            let system = inventory.add(|id| image_part(id, PartKind::Image, system), PartKind::Image);
            inventory.relate(&disk, Link::MadeFrom, &system);
        }
        inventory
    }

    /// A program with its modules, which it shares with others.
    fn add_program(&mut self, root: &PartId, program: &Program, version: Option<&str>) {
        let BuildInfo { go, main, modules } = &program.info;
        let id = self.add(
            |id| Part {
                version: version.map(str::to_owned),
                purl: Some(purl::golang(main, version)),
                ..plain(id, PartKind::Program, &program.app)
            },
            PartKind::Program,
        );
        self.relate(root, Link::Contains, &id);
        let is_its_file = |part: &&Part| part.kind == PartKind::File && part.name == program.path;
        if let Some(file) = self.parts.iter().find(is_its_file).map(|part| part.id.clone()) {
            self.relate(&id, Link::BuiltInto, &file);
        }
        // The standard library has Go's version, and vulnerabilities of its own.
        let standard = Module {
            path: "stdlib".to_owned(),
            version: Some(go.strip_prefix("go").unwrap_or(go).to_owned()),
            sum: None,
        };
        for module in std::iter::once(&standard).chain(modules) {
            let purl = purl::golang(&module.path, module.version.as_deref());
            let is_it = |part: &&Part| {
                (part.kind, part.purl.as_ref(), &part.go_sum) == (PartKind::Module, Some(&purl), &module.sum)
            };
            let module = match self.parts.iter().find(is_it) {
                Some(part) => part.id.clone(),
                None => self.add(
                    |id| Part {
                        version: module.version.clone(),
                        purl: Some(purl.clone()),
                        go_sum: module.sum.clone(),
                        ..plain(id, PartKind::Module, &module.path)
                    },
                    PartKind::Module,
                ),
            };
            self.relate(&id, Link::DependsOn, &module);
        }
    }

    fn add_plain(&mut self, kind: PartKind, name: &str, digest: Option<Digest>) -> PartId {
        self.add(|id| Part { digest, ..plain(id, kind, name) }, kind)
    }

    fn add(&mut self, part: impl FnOnce(PartId) -> Part, kind: PartKind) -> PartId {
        let number = 1 + self.parts.iter().filter(|part| part.kind == kind).count();
        let id = PartId(format!("{}-{number}", kind.name()));
        self.parts.push(part(id.clone()));
        id
    }

    fn relate(&mut self, from: &PartId, link: Link, to: &PartId) {
        self.relations.push(Relation { from: from.clone(), link, to: to.clone() });
    }
}

impl PartKind {
    fn name(self) -> &'static str {
        match self {
            PartKind::Image => "image",
            PartKind::Base => "base",
            PartKind::Layer => "layer",
            PartKind::File => "file",
            PartKind::Program => "program",
            PartKind::Module => "module",
        }
    }
}

fn plain(id: PartId, kind: PartKind, name: &str) -> Part {
    let name = name.to_owned();
    Part { id, kind, name, version: None, digest: None, purl: None, go_sum: None }
}

fn image_part(id: PartId, kind: PartKind, image: &Named) -> Part {
    let name = image.repository.as_deref().unwrap_or(kind.name());
    let purl = image.repository.as_deref().map(|repository| purl::oci(repository, image.digest));
    Part { digest: Some(image.digest), purl, ..plain(id, kind, name) }
}
