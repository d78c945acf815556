//! Logins: answers to a registry's 401, kept for the requests that follow.
//!
//! Nothing is sent before a registry asks, and credentials go nowhere but to the registry itself or
//! to a token service that belongs to it.
//! Source: distribution/distribution, docs/content/spec/auth/token.md and oauth.md; RFC 7617.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{Credentials, Found, Lookup};
use super::error::{Distrust, RegistryError, Result, Shown};
use super::http::{Http, Pulse};
use super::repository::{Repository, is_loopback};
use super::response::Response;

/// A token service's answer is never larger.
const MAX_TOKEN_BODY: u64 = 1024 * 1024;
/// How long a token lives when nothing is said, and the longest that is believed.
/// Source: distribution/distribution, token.md: "the default is 60 seconds".
const DEFAULT_LIFETIME: u64 = 60;
const LONGEST_LIFETIME: u64 = 3600;
/// Registries whose token service is on another host that is theirs. No rule finds those: what
/// looks like a common domain may be `co.uk` or `azurecr.io`, below which everyone has a name.
/// Source: distribution/distribution, token.md (Docker Hub); docs.gitlab.com, "Authenticate with
/// the container registry", Troubleshooting.
const TOKEN_SERVICES: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// What a request does to which repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<String, Access>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Pull,
    PullPush,
}

pub(super) struct Auth {
    lookup: Lookup,
    /// By the registry's origin. One lock for all: of many requests that are refused at once, one
    /// fetches the token and the others find it.
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    scheme: Scheme,
    /// By repository, since podman's files may have credentials for one.
    credentials: HashMap<String, Option<Found>>,
    tokens: Vec<Token>,
}

#[derive(Clone, PartialEq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, owner: Owner, service: Option<String>, more_scopes: Vec<String> },
}

/// Whose a token service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Registry,
    /// It gets no credentials: whoever can forge one answer could otherwise collect them.
    Stranger,
}

struct Token {
    scopes: Scopes,
    authorization: HeaderValue,
    expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Scopes {
    pub(super) fn pull(repository: &Repository) -> Scopes {
        Scopes(BTreeMap::from([(repository.name().to_owned(), Access::Pull)]))
    }

    pub(super) fn push(repository: &Repository) -> Scopes {
        Scopes(BTreeMap::from([(repository.name().to_owned(), Access::PullPush)]))
    }

    /// A mount reads in one repository and writes in another, with one token.
    pub(super) fn mount(target: &Repository, source: &Repository) -> Scopes {
        let mut scopes = Scopes::pull(source);
        scopes.0.insert(target.name().to_owned(), Access::PullPush);
        scopes
    }

    fn cover(&self, wanted: &Scopes) -> bool {
        wanted.0.iter().all(|(name, access)| self.0.get(name) >= Some(access))
    }

    fn parameters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, access)| match access {
            Access::Pull => format!("repository:{name}:pull"),
            Access::PullPush => format!("repository:{name}:pull,push"),
        })
    }
}

impl Auth {
    pub(super) fn new(lookup: Lookup) -> Auth {
        Auth { lookup, hosts: Mutex::default() }
    }

    /// What to send along, once the registry is known to want something.
    pub(super) async fn authorization(
        &self,
        http: &Http,
        repository: &Repository,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>> {
        let mut hosts = self.hosts.lock().await;
        match hosts.get_mut(&origin(repository)) {
            Some(host) => host.authorization(&self.lookup, http, repository, scopes).await.map(Some),
            None => Ok(None),
        }
    }

    /// The answer to a 401, whose request carried `used`.
    pub(super) async fn answer(
        &self,
        http: &Http,
        repository: &Repository,
        scopes: &Scopes,
        challenges: &[String],
        used: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let scheme = Scheme::choose(repository, challenges)?;
        let mut hosts = self.hosts.lock().await;
        let host = hosts.entry(origin(repository)).or_insert_with(|| Host {
            scheme: scheme.clone(),
            credentials: HashMap::new(),
            tokens: Vec::new(),
        });
        // A token that was refused is not sent again; one that came meanwhile is.
        host.tokens.retain(|token| Some(&token.authorization) != used);
        host.scheme = scheme;
        let authorization = host.authorization(&self.lookup, http, repository, scopes).await?;
        if Some(&authorization) == used {
            return Err(host.refused(&self.lookup, repository).await?);
        }
        Ok(authorization)
    }

    /// Why a registry refuses although everything known was tried.
    pub(super) async fn refused(&self, repository: &Repository) -> Result<RegistryError> {
        let mut hosts = self.hosts.lock().await;
        match hosts.get_mut(&origin(repository)) {
            Some(host) => host.refused(&self.lookup, repository).await,
            None => Ok(RegistryError::NoCredentials { registry: repository.registry().to_owned() }),
        }
    }

    /// Whether the registry asked for a login, and there was none to give.
    pub(super) async fn is_anonymous(&self, repository: &Repository) -> bool {
        let hosts = self.hosts.lock().await;
        let found = hosts.get(&origin(repository)).and_then(|host| host.credentials.get(repository.name()));
        matches!(found, Some(None))
    }
}

impl Host {
    async fn authorization(
        &mut self,
        lookup: &Lookup,
        http: &Http,
        repository: &Repository,
        scopes: &Scopes,
    ) -> Result<HeaderValue> {
        self.tokens.retain(|token| token.expires > Instant::now());
        if let Some(token) = self.tokens.iter().find(|token| token.scopes.cover(scopes)) {
            return Ok(token.authorization.clone());
        }
        let scheme = self.scheme.clone();
        let registry = || repository.registry().to_owned();
        let found = self.found(lookup, repository).await?;
        match (&scheme, found.map(|found| &found.credentials)) {
            (Scheme::Basic, Some(Credentials::Password { user, password })) => {
                basic(http, repository.base(), user, password.reveal())
            }
            (Scheme::Basic, None) => Err(RegistryError::NoCredentials { registry: registry() }),
            (Scheme::Basic, Some(Credentials::Identity(_))) => Err(RegistryError::Challenge {
                registry: registry(),
                message: "the credentials are an identity token, but it wants a password".to_owned(),
            }),
            (Scheme::Bearer { realm, owner: Owner::Stranger, .. }, Some(_)) => Err(RegistryError::Realm {
                registry: registry(),
                realm: Shown::new(realm),
                why: Distrust::NotItsOwn,
            }),
            (Scheme::Bearer { realm, service, more_scopes, .. }, credentials) => {
                let parameters = parameters(service.as_deref(), scopes, more_scopes);
                let mut response = ask(http, realm, parameters, credentials).await?;
                match response.status() {
                    StatusCode::OK => {}
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        return Err(refusal(repository, found));
                    }
                    _ => return Err(response.refused().await),
                }
                let token = Token::parse(&response.read(MAX_TOKEN_BODY).await?, scopes.clone());
                let token = token.map_err(|message| RegistryError::Challenge {
                    registry: registry(),
                    message: format!("{} answers {message}", response.shown()),
                })?;
                let authorization = token.authorization.clone();
                self.tokens.push(token);
                Ok(authorization)
            }
        }
    }

    /// The credentials for a repository. Files are read and helpers asked once.
    async fn found(&mut self, lookup: &Lookup, repository: &Repository) -> Result<Option<&Found>> {
        if !self.credentials.contains_key(repository.name()) {
            let found = lookup.find(repository).await?;
            self.credentials.insert(repository.name().to_owned(), found);
        }
        Ok(self.credentials.get(repository.name()).and_then(Option::as_ref))
    }

    async fn refused(&mut self, lookup: &Lookup, repository: &Repository) -> Result<RegistryError> {
        Ok(refusal(repository, self.found(lookup, repository).await?))
    }
}

impl Scheme {
    /// The scheme to answer with: Bearer before Basic, as a registry that offers both prefers.
    fn choose(repository: &Repository, challenges: &[String]) -> Result<Scheme> {
        let unknown = |message: String| RegistryError::Challenge {
            registry: repository.registry().to_owned(),
            message,
        };
        let mut basic = false;
        for header in challenges {
            let parsed = http_auth::parse_challenges(header)
                .map_err(|_| unknown(format!("`{}` is malformed", header.escape_debug())))?;
            for challenge in parsed {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm =
                        parameter("realm").ok_or_else(|| unknown("`Bearer` without a realm".to_owned()))?;
                    let realm = Url::parse(&realm)
                        .map_err(|_| unknown(format!("`{}` is not a URL", realm.escape_debug())))?;
                    let owner = owner(repository, &realm)?;
                    // Our own scopes are known better than by a registry; those of other kinds are its own.
                    let scope = parameter("scope").unwrap_or_default();
                    let others = scope.split(' ').filter(|s| !s.is_empty() && !s.starts_with("repository:"));
                    let more_scopes = others.map(str::to_owned).collect();
                    return Ok(Scheme::Bearer { realm, owner, service: parameter("service"), more_scopes });
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        if basic { Ok(Scheme::Basic) } else { Err(unknown("neither `Basic` nor `Bearer`".to_owned())) }
    }
}

impl Token {
    fn parse(body: &[u8], scopes: Scopes) -> Result<Token, &'static str> {
        let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| "something else than a token")?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or("without a token")?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "with a token that is no header")?;
        authorization.set_sensitive(true);
        let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).min(LONGEST_LIFETIME);
        // It has to live as long as its last request takes to arrive.
        let expires = Instant::now() + Duration::from_secs(lifetime).mul_f64(0.8);
        Ok(Token { scopes, authorization, expires })
    }
}

fn origin(repository: &Repository) -> String {
    repository.base().origin().ascii_serialization()
}

fn refusal(repository: &Repository, found: Option<&Found>) -> RegistryError {
    let registry = repository.registry().to_owned();
    match found {
        Some(found) => RegistryError::Rejected { registry, origin: found.origin.clone() },
        None => RegistryError::NoCredentials { registry },
    }
}

fn basic(http: &Http, url: &Url, user: &str, password: &str) -> Result<HeaderValue> {
    let request = http.client(url)?.get(url.clone()).basic_auth(user, Some(password));
    let request = request.build().map_err(RegistryError::Setup)?;
    let header = request.headers().get(AUTHORIZATION).cloned();
    header.ok_or(RegistryError::Header { url: Shown::new(url), header: "Authorization" })
}

fn parameters(service: Option<&str>, scopes: &Scopes, more: &[String]) -> Vec<(&'static str, String)> {
    let service = service.map(|service| ("service", service.to_owned()));
    let scopes = scopes.parameters().chain(more.iter().cloned()).map(|scope| ("scope", scope));
    service.into_iter().chain(scopes).collect()
}

/// Asks a token service. A password goes into a header, an identity token into a form; neither
/// follows a redirect.
async fn ask(
    http: &Http,
    realm: &Url,
    parameters: Vec<(&'static str, String)>,
    credentials: Option<&Credentials>,
) -> Result<Response> {
    let client = http.client(realm)?;
    let mut url = realm.clone();
    let (method, builder) = match credentials {
        Some(Credentials::Identity(token)) => {
            let scopes: Vec<&str> = parameters
                .iter()
                .filter(|(key, _)| *key == "scope")
                .map(|(_, value)| value.as_str())
                .collect();
            let service = parameters.iter().find(|(key, _)| *key == "service").map_or("", |(_, value)| value);
            let mut form = realm.clone();
            form.query_pairs_mut()
                .clear()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "bootc-testboot")
                .append_pair("service", service)
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token.reveal());
            let form = form.query().unwrap_or_default().to_owned();
            let builder = client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            (Method::POST, builder.body(form))
        }
        Some(Credentials::Password { user, password }) => {
            url.query_pairs_mut().extend_pairs(parameters);
            (Method::GET, client.get(url.clone()).basic_auth(user, Some(password.reveal())))
        }
        None => {
            url.query_pairs_mut().extend_pairs(parameters);
            (Method::GET, client.get(url.clone()))
        }
    };
    let response = http.dispatch(builder, method, &url, &Pulse::default()).await?;
    if response.status().is_redirection() {
        let to = response.location().map_or_else(|_| response.shown(), |url| Shown::new(&url));
        let why = Distrust::TokenService;
        return Err(RegistryError::Redirect { from: response.shown(), to, why });
    }
    Ok(response)
}

/// Whose a token service is. One that is not encrypted is refused, unless its registry is not
/// either.
fn owner(repository: &Repository, realm: &Url) -> Result<Owner> {
    let base = repository.base();
    let refuse = |why| RegistryError::Realm {
        registry: repository.registry().to_owned(),
        realm: Shown::new(realm),
        why,
    };
    let (Some(home), Some(host)) = (base.host_str(), realm.host_str()) else {
        return Err(refuse(Distrust::NoWebAddress));
    };
    let local = is_loopback(base) && is_loopback(realm);
    let owner = match local || home == host || TOKEN_SERVICES.contains(&(home, host)) {
        true => Owner::Registry,
        false => Owner::Stranger,
    };
    match (realm.scheme(), owner) {
        ("https", owner) => Ok(owner),
        ("http", Owner::Registry) if base.scheme() == "http" => Ok(owner),
        ("http", Owner::Registry | Owner::Stranger) => Err(refuse(Distrust::NotEncrypted)),
        _ => Err(refuse(Distrust::NoWebAddress)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(reference: &str) -> Repository {
        let plain_http = ["plain.lan".parse().unwrap(), "plain.lan:5000".parse().unwrap()];
        Repository::new(&reference.parse().unwrap(), &plain_http).unwrap()
    }

    fn check(reference: &str, challenge: &str, expected: &str) {
        let repository = repository(reference);
        let shown = match Scheme::choose(&repository, &[challenge.to_owned()]) {
            Ok(Scheme::Basic) => "basic".to_owned(),
            Ok(Scheme::Bearer { realm, owner, service, more_scopes }) => {
                format!("{owner:?}: {realm} {} {}", service.unwrap_or_default(), more_scopes.join(","))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(shown.trim(), expected, "for {reference}: {challenge}");
    }

    #[test]
    fn challenges_name_a_token_service() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull""#;
        check("debian", hub, "Registry: https://auth.docker.io/token registry.docker.io");
        check("index.docker.io/debian", hub, "Registry: https://auth.docker.io/token registry.docker.io");
        check(
            "public.ecr.aws/a/b",
            r#"Bearer realm="https://public.ecr.aws/token/",scope="aws""#,
            "Registry: https://public.ecr.aws/token/  aws",
        );
        check("quay.io/a", r#"Basic realm="x""#, "basic");
        check("quay.io/a", r#"Negotiate, bAsic realm="x""#, "basic");
        // The registry, its realm, and whose that is or why it is refused.
        let cases = [
            ("registry.gitlab.com/a/b", "https://gitlab.com/jwt/auth", "Registry"),
            ("quay.io/a", "https://quay.io/v2/auth", "Registry"),
            ("quay.io/a", "https://quay.io:8443/t", "Registry"),
            ("registry.lan:5000/a", "https://registry.lan:5001/t", "Registry"),
            ("localhost:5000/a", "http://127.0.0.1:9/t", "Registry"),
            ("localhost:5000/a", "http://localhost:5000/t", "Registry"),
            ("quay.io/a", "https://evil.example/t", "Stranger"),
            ("quay.io/a", "https://evilquay.io/t", "Stranger"),
            ("quay.io/a", "https://auth.quay.io/t", "Stranger"),
            ("shop.co.uk/a", "https://evil.co.uk/token", "Stranger"),
            ("mine.azurecr.io/a", "https://evil.azurecr.io/t", "Stranger"),
            ("registry.gitlab.com/a", "https://evilgitlab.com/t", "Stranger"),
            ("registry.gitlab.com/a", "https://auth.docker.io/t", "Stranger"),
            ("debian", "https://evil.docker.io/t", "Stranger"),
            ("10.0.0.1/a", "https://10.0.0.2/t", "Stranger"),
            ("localhost:5000/a", "https://evil.example/t", "Stranger"),
            ("plain.lan:5000/a", "http://plain.lan:5001/t", "Registry"),
            ("plain.lan/a", "https://plain.lan/t", "Registry"),
            ("plain.lan/a", "http://evil.lan/t", "which is not encrypted"),
            ("plain.lan:5001/a", "http://plain.lan/t", "which is not encrypted"),
            ("quay.io/a", "http://plain.lan/t", "which is not encrypted"),
            ("quay.io/a", "http://quay.io/t", "which is not encrypted"),
            ("quay.io/a", "http://localhost/t", "which is not encrypted"),
            ("registry.gitlab.com/a", "http://gitlab.com/t", "which is not encrypted"),
            ("localhost:5000/a", "http://evil.example/t", "which is not encrypted"),
            ("quay.io/a", "file:///t", "which is no web address"),
            ("quay.io/a", "ftp://quay.io/t", "which is no web address"),
        ];
        for (reference, realm, expected) in cases {
            let registry = reference.split('/').next().unwrap();
            let realm_shown = Shown::new(&Url::parse(realm).unwrap());
            let expected = match expected.strip_prefix("which") {
                None => format!("{expected}: {realm}"),
                Some(_) => {
                    format!("{registry} sends logins to {realm_shown}, {expected}; no credentials were sent")
                }
            };
            check(reference, &format!(r#"Bearer realm="{realm}""#), &expected);
        }
        let unknown = "quay.io asks for a login that this program does not know: ";
        check("quay.io/a", "Negotiate", &format!("{unknown}neither `Basic` nor `Bearer`"));
        check("quay.io/a", "Bearer service=x", &format!("{unknown}`Bearer` without a realm"));
    }

    #[test]
    fn a_token_serves_what_it_covers() {
        let (a, b) = (repository("quay.io/a"), repository("quay.io/b"));
        let mount = Scopes::mount(&a, &b);
        assert_eq!(mount.parameters().collect::<Vec<_>>(), ["repository:a:pull,push", "repository:b:pull"]);
        assert!(
            mount.cover(&Scopes::pull(&a))
                && mount.cover(&Scopes::push(&a))
                && mount.cover(&Scopes::pull(&b))
        );
        assert!(!mount.cover(&Scopes::push(&b)) && !Scopes::push(&a).cover(&mount));
        // A mount within one repository needs no more than a push.
        assert_eq!(Scopes::mount(&a, &a), Scopes::push(&a));
    }
}
