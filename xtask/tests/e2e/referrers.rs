//! What is attached to images: other programs find it, validators pass it, and it says what is so.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Workspace, judge, sha256};
use crate::testing::{Registry, program};

const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
const SPDX: &str = "application/spdx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";
const EPOCH: &str = "1700000000";

/// An app with a module of others.
fn with_module() -> Workspace {
    let workspace = Workspace::with_standin();
    workspace.write("apps/hello/extra.go", "package main\n\nimport _ \"example.com/Extra/lib\"\n");
    let go_mod = fs::read_to_string(workspace.path("apps/hello/go.mod")).unwrap();
    workspace.write("apps/hello/go.mod", &format!("{go_mod}\nrequire example.com/Extra/lib v1.2.3\n"));
    workspace.write("apps/hello/vendor/example.com/Extra/lib/lib.go", "package lib\n");
    workspace.write(
        "apps/hello/vendor/modules.txt",
        "# example.com/Extra/lib v1.2.3\n## explicit\nexample.com/Extra/lib\n",
    );
    workspace
}

/// Builds at a time, and gives the report.
fn json_at(workspace: &Workspace, arguments: &str) -> Value {
    let output =
        workspace.command(&format!("{arguments} --json")).env("SOURCE_DATE_EPOCH", EPOCH).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The documents that oras finds attached to an image, by their kind.
fn documents(image: &str) -> Vec<(String, Value)> {
    let found = judge("oras", &format!("discover --plain-http --format json {image}"));
    let found: Value = serde_json::from_str(&found).unwrap();
    let repository = image.rsplit_once([':', '@']).unwrap().0.trim_end_matches("@sha256");
    let referrers = found["referrers"].as_array().unwrap();
    let document = |referrer: &Value| {
        let digest = referrer["digest"].as_str().unwrap();
        let manifest = judge("oras", &format!("manifest fetch --plain-http {repository}@{digest}"));
        assert_eq!(sha256(manifest.as_bytes()), digest);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let layer = &manifest["layers"][0];
        let blob = layer["digest"].as_str().unwrap();
        let document = judge("oras", &format!("blob fetch --plain-http --output - {repository}@{blob}"));
        assert_eq!(manifest["subject"]["digest"].as_str().unwrap(), subject(image));
        (manifest["artifactType"].as_str().unwrap().to_owned(), serde_json::from_str(&document).unwrap())
    };
    let mut documents: Vec<(String, Value)> = referrers.iter().map(document).collect();
    documents.sort_by(|a, b| a.0.cmp(&b.0));
    documents
}

fn subject(image: &str) -> String {
    judge("crane", &format!("digest {image}")).trim_end().to_owned()
}

/// What a validator says of a document, or that it has nothing to say.
fn validate(workspace: &Workspace, document: &Value) -> Result<(), String> {
    let (name, validator, arguments): (&str, &str, &[&str]) = match document.get("spdxVersion") {
        Some(_) => ("sbom.spdx.json", "pyspdxtools", &["--infile"]),
        None => ("sbom.cdx.json", "python", &[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/sbom.py")]),
    };
    let path = workspace.path("..").join(name);
    fs::write(&path, document.to_string()).unwrap();
    let output = Command::new(program(validator)).args(arguments).arg(&path).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// Validators pass an SBOM, and none with a planted fault.
fn assert_valid(workspace: &Workspace, document: &Value, faults: &[(&str, Value)]) {
    assert_eq!(validate(workspace, document), Ok(()));
    for (pointer, wrong) in faults {
        let mut faulty = document.clone();
        *faulty.pointer_mut(pointer).unwrap() = wrong.clone();
        assert!(validate(workspace, &faulty).is_err(), "{pointer} is {wrong}, and it passes");
    }
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {list}"))
}

#[test]
fn an_image_has_its_sboms_and_its_provenance_beside_it() {
    let workspace = with_module();
    for registry in [Registry::docker(), Registry::with_referrers()] {
        let image = format!("{}/me/os:t", registry.address());
        let build = format!("build --base oci:../standin:t --app-version v1 --to {image}");
        let report = json_at(&workspace, &build);
        assert_eq!(report["pushed"]["attached"], 3);
        let digest = report["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let documents = documents(&image);
        let kinds: Vec<&str> = documents.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, [SPDX, CYCLONEDX, PROVENANCE]);
        let [(_, spdx), (_, cyclonedx), (_, provenance)] = &documents[..] else { panic!("{kinds:?}") };

        assert_valid(
            &workspace,
            cyclonedx,
            &[
                ("/specVersion", json!("0.9")),
                ("/components/0/type", json!("thing")),
                ("/serialNumber", json!("1")),
            ],
        );
        assert_eq!(cyclonedx["metadata"]["component"]["hashes"][0]["content"], hex);
        assert_eq!(cyclonedx["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
        let components = &cyclonedx["components"];
        let base = report["base"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(named(components, "base")["hashes"][0]["content"], base);
        let module = named(components, "example.com/Extra/lib");
        assert_eq!(module["purl"], "pkg:golang/example.com/extra/lib@v1.2.3");
        let layer = report["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "hello");
        let of_layer = named(components, "layer hello")["hashes"][0]["content"].as_str().unwrap();
        assert_eq!(format!("sha256:{of_layer}"), layer.unwrap()["digest"].as_str().unwrap());
        // The program is the one that is in the image, and Go says the same of it.
        let binary = workspace.path("../hello");
        let exported = Command::new(program("sh"))
            .args([
                "-c",
                &format!("'{}' export {image} - | tar -xO usr/bin/hello", program("crane").display()),
            ])
            .output()
            .unwrap();
        fs::write(&binary, &exported.stdout).unwrap();
        let of_file = named(components, "/usr/bin/hello")["hashes"][0]["content"].as_str().unwrap();
        assert_eq!(format!("sha256:{of_file}"), sha256(&exported.stdout));
        let info = judge("go", &format!("version -m -json {}", binary.display()));
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["Deps"][0]["Path"], "example.com/Extra/lib");
        let go = format!("go{}", named(components, "stdlib")["version"].as_str().unwrap());
        assert_eq!(info["GoVersion"], go.as_str());

        assert_valid(
            &workspace,
            spdx,
            &[
                ("/packages/0/SPDXID", json!("image")),
                ("/relationships/0/relatedSpdxElement", json!("SPDXRef-nothing")),
                ("/packages/0/checksums/0/checksumValue", json!("abc")),
            ],
        );
        assert_eq!(spdx["packages"][0]["checksums"][0]["checksumValue"], hex);
        assert_eq!(spdx["packages"].as_array().unwrap().len(), 1 + components.as_array().unwrap().len());
        assert_eq!(named(&spdx["packages"], "example.com/Extra/lib")["versionInfo"], "v1.2.3");
        let of_program = |what: &str| named(&spdx["packages"], what)["SPDXID"].clone();
        let built = json!({
            "spdxElementId": of_program("hello"),
            "relationshipType": "GENERATES",
            "relatedSpdxElement": of_program("/usr/bin/hello"),
        });
        assert!(spdx["relationships"].as_array().unwrap().contains(&built), "{spdx}");

        assert_eq!(provenance["subject"][0]["digest"]["sha256"], hex);
        assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
        let made_of = &provenance["predicate"]["buildDefinition"]["resolvedDependencies"];
        assert_eq!(named(made_of, "base")["digest"]["sha256"], base);
        assert_eq!(named(made_of, "example.com/Extra/lib")["uri"], "pkg:golang/example.com/extra/lib@v1.2.3");
        let temporary = workspace.path("..").display().to_string();
        for (kind, document) in &documents {
            assert!(!document.to_string().contains(&temporary), "{kind} names a folder of this machine");
        }

        // Again, it is the same, and `inspect` shows it.
        assert_eq!(json_at(&workspace, &build)["pushed"]["attached"], 0);
        assert_eq!(self::documents(&image), documents);
        let shown = workspace.json(&format!("inspect {image}"));
        assert_eq!(shown["referrers"].as_array().unwrap().len(), 3);
        let text = workspace.ok(&format!("inspect {image}"));
        assert_eq!(text.lines().filter(|line| line.starts_with("referrer ")).count(), 3, "{text}");
    }
}

#[test]
fn a_packed_disk_names_the_image_it_is_of() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let system = format!("{image}:debian-13-v1");
    let digest = workspace.json(&format!("build --base oci:../standin:t --to {system}"))["digest"].clone();
    let system_hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    fs::write(workspace.path("../os.raw"), vec![7; 1 << 20]).unwrap();
    let target = format!("{image}:debian-13-raw-v1");
    let report = json_at(&workspace, &format!("pack ../os.raw --from {system} --to {target}"));
    let packed = &report["packed"][0];
    assert_eq!(packed["pushed"]["attached"], 3);
    let documents = documents(&target);
    let [(_, spdx), (_, cyclonedx), (_, provenance)] = &documents[..] else { panic!("{documents:?}") };
    assert_valid(&workspace, cyclonedx, &[("/bomFormat", json!("x"))]);
    assert_valid(&workspace, spdx, &[("/spdxVersion", json!("SPDX-9"))]);
    let components = &cyclonedx["components"];
    assert_eq!(named(components, "/disk/os.raw")["hashes"][0]["content"], packed["sha256"]);
    let of_image = named(components, &image);
    assert_eq!(of_image["hashes"][0]["content"], system_hex);
    // The link in it is the serial number of the image's own SBOM.
    let link = of_image["externalReferences"][0]["url"].as_str().unwrap();
    let [_, (_, of_system), _] = &self::documents(&system)[..] else { panic!("{system}") };
    let serial = of_system["serialNumber"].as_str().unwrap().replace("urn:uuid:", "urn:cdx:");
    assert_eq!(link, format!("{serial}/1"));
    let made_of = &provenance["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(named(made_of, &image)["digest"]["sha256"], system_hex);
}
