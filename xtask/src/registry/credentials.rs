//! Where credentials come from: the files and helpers of podman and docker, and GITHUB_TOKEN.
//!
//! Looked up when a registry asks, never before.
//! Source: containers/image, docs/containers-auth.json.5.md; docker/cli, config file.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::{Map, Value, json};

use super::error::{RegistryError, Result};
use super::repository::Repository;

/// GitHub's registry, which takes the token that every GitHub workflow has.
/// Source: docs.github.com, "Working with the Container registry".
pub(super) const GHCR: &str = "ghcr.io";
/// Docker Hub's key in docker's files.
/// Source: docker/cli, `registry.IndexServer`.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: Secret,
    },
    /// Exchanged for tokens at the token service, and sent nowhere else.
    Identity(Secret),
}

/// Credentials and the file or variable that they are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) credentials: Credentials,
    pub(super) origin: String,
}

/// The environment to look in.
#[derive(Clone)]
pub(super) struct Lookup {
    variable: Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>,
}

impl Secret {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Lookup {
    /// The environment of this process.
    pub(super) fn system() -> Lookup {
        Lookup::new(|name| std::env::var_os(name))
    }

    pub(super) fn new(variable: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Lookup {
        let non_empty = move |name: &str| variable(name).filter(|value| !value.is_empty());
        Lookup { variable: Arc::new(non_empty) }
    }

    /// The credentials for a repository. Helpers are programs, so this may take a while.
    pub(super) async fn find(&self, repository: &Repository) -> Result<Option<Found>> {
        let (lookup, repository) = (self.clone(), repository.clone());
        let found = tokio::task::spawn_blocking(move || lookup.find_blocking(&repository)).await;
        found.map_err(|error| RegistryError::Runtime(io::Error::other(error)))?
    }

    fn find_blocking(&self, repository: &Repository) -> Result<Option<Found>> {
        for path in self.files() {
            let error = |message: String| RegistryError::Credentials {
                registry: repository.registry().to_owned(),
                origin: path.display().to_string(),
                message,
            };
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(absent) if absent.kind() == io::ErrorKind::NotFound => continue,
                Err(failed) => return Err(error(failed.to_string())),
            };
            // A parser's message would repeat what it read.
            let file: Map<String, Value> =
                serde_json::from_slice(&bytes).map_err(|_| error("it is not JSON".to_owned()))?;
            if let Some(credentials) = in_file(&file, repository).map_err(error)? {
                return Ok(Some(Found { credentials, origin: path.display().to_string() }));
            }
        }
        Ok(self.github_token(repository))
    }

    /// The files to look in, best first.
    fn files(&self) -> Vec<PathBuf> {
        let path = |name: &str| (self.variable)(name).map(PathBuf::from);
        let home = path("HOME");
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return vec![file];
        }
        let config = path("XDG_CONFIG_HOME").or(home.as_ref().map(|home| home.join(".config")));
        let docker = path("DOCKER_CONFIG").or(home.map(|home| home.join(".docker")));
        let files = [
            path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            config.map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
        ];
        files.into_iter().flatten().collect()
    }

    fn github_token(&self, repository: &Repository) -> Option<Found> {
        let text = |name: &str| (self.variable)(name)?.into_string().ok();
        let token = text("GITHUB_TOKEN").filter(|_| repository.registry() == GHCR)?;
        // GitHub looks at the token alone; the name must only not be empty.
        let user = text("GITHUB_ACTOR").unwrap_or_else(|| "token".to_owned());
        let credentials = Credentials::Password { user, password: Secret(token) };
        Some(Found { credentials, origin: "GITHUB_TOKEN".to_owned() })
    }
}

/// The credentials for a repository in one file, whose most specific key wins.
fn in_file(file: &Map<String, Value>, repository: &Repository) -> Result<Option<Credentials>, String> {
    let keys = keys(repository);
    let entry = |section: &str, key: &str| file.get(section).and_then(|section| section.get(key));
    let known = keys.iter().find(|key| entry("credHelpers", key).is_some() || entry("auths", key).is_some());
    let store = file.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty());
    let key = match known {
        Some(key) => key,
        // A store is asked under the name that docker logs in with.
        None if store.is_some() && repository.registry() == "docker.io" => DOCKER_HUB_KEY,
        None if store.is_some() => repository.registry(),
        None => return Ok(None),
    };
    // docker_credential would also take a neighbour's entry for ours, so it is shown ours alone.
    let mut config = json!({"auths": {}, "credHelpers": {}});
    if let Some(auth) = entry("auths", key) {
        config["auths"][key] = auth.clone();
    }
    if let Some(helper) = entry("credHelpers", key) {
        config["credHelpers"][key] = helper.clone();
    }
    if let Some(store) = store {
        config["credsStore"] = json!(store);
    }
    let config = config.to_string();
    match docker_credential::get_credential_from_reader(config.as_bytes(), key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Credentials::Password { user, password: Secret(password) }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credentials::Identity(Secret(token)))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if is_not_found(&stdout) => Ok(None),
        // What a helper wrote may hold a secret, so its output is not repeated.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(format!("`{helper}` failed")),
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err("its credential helper cannot be started".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The names under which a repository's credentials may stand, most specific first.
fn keys(repository: &Repository) -> Vec<String> {
    let registry = repository.registry();
    let whole = format!("{registry}/{}", repository.name());
    let prefixes = std::iter::successors(Some(whole.as_str()), |key| key.rsplit_once('/').map(|(up, _)| up));
    let mut keys: Vec<String> = prefixes.map(str::to_owned).collect();
    // Old versions of docker wrote URLs.
    if registry == "docker.io" {
        keys.extend([DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    } else {
        keys.extend([format!("https://{registry}"), format!("https://{registry}/v1/")]);
        keys.extend([format!("https://{registry}/v2/"), format!("http://{registry}")]);
    }
    keys
}

/// What a helper says when it has nothing, by its protocol.
/// Source: docker/docker-credential-helpers, credentials/error.go.
fn is_not_found(stdout: &str) -> bool {
    stdout.contains("credentials not found")
}
