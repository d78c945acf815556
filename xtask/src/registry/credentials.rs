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

use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xshell::{Shell, cmd};

use super::error::{GHCR, RegistryError, Result};
use super::repository::Repository;
use crate::exec;

/// Docker Hub's key in docker's files.
/// Source: docker/cli, `registry.IndexServer`.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// How long a helper may take: the user may have to unlock a keychain first.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// The user whose secret is an identity token.
/// Source: docs.docker.com, "docker login", Credential helper protocol.
const IDENTITY_USER: &str = "<token>";

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
    variable: Arc<Variable>,
}

type Variable = dyn Fn(&str) -> Option<OsString> + Send + Sync;

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

    /// Where the credentials for a repository come from; helpers are asked.
    pub(super) fn origin(&self, repository: &Repository) -> Result<Option<String>> {
        Ok(self.find_blocking(repository)?.map(|found| found.origin))
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
    // What comes first is docker's order: a helper of the key's own, the file, the store.
    let key = match known {
        Some(key) => key,
        // A store is asked under the name that docker logs in with.
        None if store.is_some() && repository.registry() == "docker.io" => DOCKER_HUB_KEY,
        None if store.is_some() => repository.registry(),
        None => return Ok(None),
    };
    let helper = entry("credHelpers", key).and_then(Value::as_str).filter(|helper| !helper.is_empty());
    if let Some(helper) = helper {
        return ask(helper, key);
    }
    if let Some(auth) = entry("auths", key) {
        // docker_credential would also take a neighbour's entry for ours, so it is shown ours alone.
        let config = json!({"auths": {(key): auth}}).to_string();
        match docker_credential::get_credential_from_reader(config.as_bytes(), key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(Credentials::Password { user, password: Secret(password) }));
            }
            Ok(DockerCredential::IdentityToken(token)) => {
                return Ok(Some(Credentials::Identity(Secret(token))));
            }
            // An empty entry says that the store has them.
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    store.map_or(Ok(None), |store| ask(store, key))
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Asks a helper for the credentials of `server`.
/// Source: docs.docker.com, "docker login", Credential helper protocol.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{helper}");
    let sh = Shell::new().map_err(|error| error.to_string())?;
    let answer =
        exec::ask(cmd!(sh, "{program} get"), server, HELPER_LIMIT).map_err(|error| error.to_string())?;
    // What a helper wrote may hold a secret, so it is not repeated.
    match answer.status.success() {
        true => {
            let answer: HelperAnswer = serde_json::from_str(&answer.stdout)
                .map_err(|_| format!("`{program}` answers with something else than credentials"))?;
            let HelperAnswer { username: user, secret } = answer;
            let secret = Secret(secret);
            Ok(Some(match user == IDENTITY_USER {
                true => Credentials::Identity(secret),
                false => Credentials::Password { user, password: secret },
            }))
        }
        false if is_not_found(&answer.stdout) => Ok(None),
        false => Err(format!("`{program}` failed ({})", answer.status)),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::in_environment;

    /// An environment with a home directory that has these files.
    struct Home {
        dir: tempfile::TempDir,
        variables: Vec<(&'static str, String)>,
    }

    impl Home {
        fn new(files: &[(&str, Value)]) -> Home {
            let dir = tempfile::TempDir::new().unwrap();
            for (name, content) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content.to_string()).unwrap();
            }
            let home = dir.path().display().to_string();
            Home { variables: vec![("HOME", home)], dir }
        }

        fn with(mut self, name: &'static str, value: &str) -> Home {
            self.variables.push((name, value.replace('~', &self.dir.path().display().to_string())));
            self
        }

        /// What is found for a repository: user and password, where they are from, or the error.
        fn check(&self, reference: &str, expected: &str) {
            let variables = self.variables.clone();
            let lookup = Lookup::new(move |name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            });
            let repository = Repository::new(&reference.parse().unwrap(), &[]).unwrap();
            let shown = match lookup.find_blocking(&repository) {
                Ok(Some(Found { credentials: Credentials::Password { user, password }, origin })) => {
                    format!("{user}:{} from {origin}", password.reveal())
                }
                Ok(Some(Found { credentials: Credentials::Identity(token), origin })) => {
                    format!("{} from {origin}", token.reveal())
                }
                Ok(None) => "none".to_owned(),
                Err(error) => error.to_string(),
            };
            let home = self.dir.path().display().to_string();
            assert_eq!(shown.replace(&home, "~"), expected, "for {reference}");
        }
    }

    /// `user:<name>`, as podman and docker write it.
    fn login(name: &str) -> Value {
        json!({"username": "user", "password": name})
    }

    #[test]
    fn the_most_specific_entry_of_the_best_file_wins() {
        const PODMAN: &str = ".config/containers/auth.json";
        const DOCKER: &str = ".docker/config.json";
        Home::new(&[]).check("quay.io/a/b", "none");
        let podman = json!({"auths": {
            "quay.io": login("host"), "quay.io/a": login("owner"), "quay.io/a/b": login("repository"),
            "quay.io/alone/c": login("neighbour"), "ghcr.io/other/x": login("other"), "docker.io": login("hub"),
        }});
        let docker = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "dXNlcjpkb2NrZXI="}, "https://old.example/v1/": login("old"),
            "ghcr.io": {"identitytoken": "identity"}, "broken.example": {"auth": "!"}, "empty.example": {},
        }});
        let home = Home::new(&[(PODMAN, podman.clone()), (DOCKER, docker.clone())]);
        home.check("quay.io/a/b", "user:repository from ~/.config/containers/auth.json");
        home.check("quay.io/a/b/c", "user:repository from ~/.config/containers/auth.json");
        home.check("quay.io/a/c", "user:owner from ~/.config/containers/auth.json");
        home.check("quay.io/ab/c", "user:host from ~/.config/containers/auth.json");
        home.check("quay.io/alone/d", "user:host from ~/.config/containers/auth.json");
        home.check("ghcr.io/mine/x", "identity from ~/.docker/config.json");
        home.check("ghcr.io/other/x", "user:other from ~/.config/containers/auth.json");
        home.check("debian", "user:hub from ~/.config/containers/auth.json");
        home.check("old.example/x", "user:old from ~/.docker/config.json");
        home.check("empty.example/x", "none");
        home.check("quay.io.evil.example/a/b", "none");
        let broken = "the credentials for broken.example in ~/.docker/config.json cannot be read: Unable to decode credential";
        home.check("broken.example/x", broken);

        let run = json!({"auths": {"quay.io": login("run")}});
        let files = [
            ("run/containers/auth.json", run),
            ("own.json", json!({"auths": {}})),
            (PODMAN, podman),
            ("d/config.json", docker),
        ];
        let home = Home::new(&files).with("XDG_RUNTIME_DIR", "~/run").with("DOCKER_CONFIG", "~/d");
        home.check("quay.io/a/b", "user:run from ~/run/containers/auth.json");
        home.check("debian", "user:hub from ~/.config/containers/auth.json");
        home.check("old.example/x", "user:old from ~/d/config.json");
        Home::new(&files).with("REGISTRY_AUTH_FILE", "~/own.json").check("quay.io/a/b", "none");
    }

    #[test]
    fn github_token_is_for_ghcr_alone() {
        let home = Home::new(&[]).with("GITHUB_TOKEN", "t0ken");
        home.check("ghcr.io/o/r", "token:t0ken from GITHUB_TOKEN");
        home.check("quay.io/o/r", "none");
        home.check("ghcr.io.evil.example/o/r", "none");
        home.with("GITHUB_ACTOR", "octocat").check("ghcr.io/o/r", "octocat:t0ken from GITHUB_TOKEN");
        Home::new(&[]).with("GITHUB_TOKEN", "").check("ghcr.io/o/r", "none");
    }

    /// Helpers are found through PATH, which only a process of its own can have changed.
    #[test]
    fn helpers_are_asked() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        in_environment("registry::credentials::tests::with_helpers", &[("PATH", &path)]);
    }

    #[test]
    #[ignore = "run by `helpers_are_asked`, in an environment of its own"]
    fn with_helpers() {
        // Written here, where no other test starts a program while a script is open for writing.
        let path = std::env::var("PATH").unwrap();
        let dir = PathBuf::from(path.split(':').next().unwrap());
        let scripts = [
            ("good", r#"echo "{\"Username\":\"user\",\"Secret\":\"for $server\"}""#),
            ("none", "echo 'credentials not found in native keychain'; exit 1"),
            ("bad", "echo s3cret; echo s3cret >&2; exit 1"),
            ("odd", "echo s3cret"),
            ("identity", r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"identity"}'"#),
        ];
        for (name, script) in scripts {
            let path = dir.join(format!("docker-credential-{name}"));
            fs::write(&path, format!("#!/bin/sh\nserver=$(cat)\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let helpers = json!({
            "quay.io": "good", "none.example": "none", "bad.example": "bad", "odd.example": "odd",
            "gone.example": "gone", "identity.example": "identity",
        });
        let config = json!({"auths": {"quay.io": {}}, "credHelpers": helpers});
        let home = Home::new(&[(".docker/config.json", config)]);
        home.check("quay.io/a", "user:for quay.io from ~/.docker/config.json");
        home.check("none.example/a", "none");
        let failed = |registry: &str, message: &str| {
            format!("the credentials for {registry} in ~/.docker/config.json cannot be read: {message}")
        };
        home.check(
            "bad.example/a",
            &failed("bad.example", "`docker-credential-bad` failed (exit status: 1)"),
        );
        let odd = "`docker-credential-odd` answers with something else than credentials";
        home.check("odd.example/a", &failed("odd.example", odd));
        let gone = "`docker-credential-gone get` could not be started";
        home.check("gone.example/a", &failed("gone.example", gone));
        home.check("identity.example/a", "identity from ~/.docker/config.json");
        home.check("other.example/a", "none");

        let config = json!({"auths": {"quay.io": {}, "ghcr.io": login("file")}, "credsStore": "good"});
        let home = Home::new(&[(".docker/config.json", config)]);
        home.check("ghcr.io/a", "user:file from ~/.docker/config.json");
        home.check("quay.io/a", "user:for quay.io from ~/.docker/config.json");
        home.check("debian", "user:for https://index.docker.io/v1/ from ~/.docker/config.json");
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Secret("s3cret".to_owned());
        let found = Found {
            credentials: Credentials::Password { user: "user".to_owned(), password },
            origin: "x".to_owned(),
        };
        assert!(!format!("{found:?}").contains("s3cret"));
    }
}
