//! Logins.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::testing::{Fault, FaultProxy, Login, Registry, answer, in_environment};

/// A file of podman's with one login, in an environment of its own.
pub(super) fn files(registry: &str, login: &str) -> Lookup {
    use std::ffi::OsString;

    let auth = base64(login);
    let json = json!({"auths": {registry: {"auth": auth}}}).to_string();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("auth.json");
    std::fs::write(&path, json).unwrap();
    Lookup::new(move |name| {
        // The directory lives as long as whoever may look into it.
        (name == "REGISTRY_AUTH_FILE").then(|| OsString::from(dir.path().join("auth.json")))
    })
}

/// RFC 4648, 4.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32, shift: u32| char::from(ALPHABET[(bits >> shift & 63) as usize]);
    text.as_bytes()
        .chunks(3)
        .flat_map(|chunk| {
            let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            let mut digits = [digit(bits, 18), digit(bits, 12), digit(bits, 6), digit(bits, 0)];
            digits[chunk.len() + 1..].fill('=');
            digits
        })
        .collect()
}

#[test]
fn basic_credentials_are_sent_when_asked_for() {
    let login = Login { user: "user", password: "s3cret-word" };
    let registry = Registry::docker_with_login(&login);
    let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
    let target = format!("{}/os/app:v1", proxy.address());
    let image = Image::new(&[b"layer"]);

    let client = client_with(files(proxy.address(), "user:s3cret-word"));
    client.push(&image.push(&target, None)).unwrap();
    assert_whole(&client, &target, &image);
    let seen = proxy.seen();
    let logged_in = |seen: &&crate::testing::Seen| seen.header("authorization").is_some();
    assert_eq!(seen.iter().position(|seen| logged_in(&seen)), Some(1), "nothing before it is asked for");
    assert_eq!(seen.iter().filter(logged_in).count(), seen.len() - 1, "asked once");

    let absent = super::client().push(&image.push(&target, None)).unwrap_err();
    insta::assert_snapshot!(shown(&absent, proxy.address()), @"
    no credentials for HOST
    hint: run 'podman login HOST'
    ");
    let wrong = client_with(files(proxy.address(), "user:s3cret-wrong"));
    let wrong = wrong.push(&image.push(&target, None)).unwrap_err();
    let text = shown(&wrong, proxy.address());
    assert!(!format!("{text}{wrong:?}").contains("s3cret"), "{wrong:?}");
    let text = text.replace(text.split(" from ").nth(1).unwrap().lines().next().unwrap(), "FILE");
    insta::assert_snapshot!(text, @"
    HOST does not accept the credentials from FILE
    hint: run 'podman login HOST'
    ");
}

/// A mock of a token service, and of a registry's gate that asks for its tokens. The registry
/// behind the gate is a real one.
struct Gated {
    tokens: FaultProxy,
    gate: FaultProxy,
    /// Tokens that were given out, and the scopes that they are for.
    issued: Arc<Mutex<Vec<String>>>,
    /// Tokens before this one are no longer taken.
    oldest: Arc<AtomicUsize>,
    _registry: Registry,
}

fn gated(lifetime: u64) -> Gated {
    let registry = Registry::docker();
    let issued: Arc<Mutex<Vec<String>>> = Arc::default();
    let oldest: Arc<AtomicUsize> = Arc::default();
    let given = issued.clone();
    let tokens = FaultProxy::alone(move |seen| {
        let given = given.clone();
        let query = seen.target.clone();
        let basic = seen.header("authorization").map(str::to_owned);
        let is_form = seen.method == "POST";
        Fault::Take(
            usize::MAX,
            Box::new(move |body| {
                let form = String::from_utf8(body).unwrap();
                let known = match is_form {
                    true => {
                        form.contains("grant_type=refresh_token")
                            && form.contains("refresh_token=identity-s3cret")
                    }
                    false => basic.is_none() || basic == Some(format!("Basic {}", base64("user:s3cret"))),
                };
                let asked = if is_form { form } else { query };
                // Without a login, everyone may read.
                let may_push = is_form || basic.is_some();
                if !known {
                    return Some(answer("401 Unauthorized", &[], b""));
                }
                let scopes =
                    reqwest::Url::parse(&format!("http://x/?{}", asked.rsplit('?').next().unwrap())).unwrap();
                let scopes: Vec<String> = scopes
                    .query_pairs()
                    .filter(|(key, _)| key == "scope")
                    .flat_map(|(_, scope)| scope.split(' ').map(str::to_owned).collect::<Vec<_>>())
                    .map(|scope| if may_push { scope } else { scope.replace(",push", "") })
                    .collect();
                let mut given = given.lock().unwrap();
                given.push(scopes.join(" "));
                let token =
                    json!({"token": format!("token-s3cret-{}", given.len() - 1), "expires_in": lifetime});
                Some(answer("200 OK", &[], token.to_string().as_bytes()))
            }),
        )
    });
    let realm = format!("http://{}/token", tokens.address());
    let (given, old) = (issued.clone(), oldest.clone());
    let gate = FaultProxy::before(&registry, move |seen| {
        let name = seen.path().trim_start_matches("/v2/");
        let name = &name[..name.find("/manifests").or(name.find("/blobs")).unwrap_or(0)];
        let mut needs = match seen.method.as_str() {
            "GET" | "HEAD" => vec![format!("repository:{name}:pull")],
            _ => vec![format!("repository:{name}:pull,push")],
        };
        if let Some(from) = seen.target.split("from=").nth(1) {
            let from = from.replace("%2F", "/");
            needs.extend((from != name).then(|| format!("repository:{from}:pull")));
        }
        let number =
            seen.header("authorization").and_then(|header| header.strip_prefix("Bearer token-s3cret-"));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let scopes = number
            .filter(|&number| number >= old.load(Ordering::SeqCst))
            .and_then(|number| given.lock().unwrap().get(number).cloned())
            .unwrap_or_default();
        match needs.iter().all(|need| scopes.split(' ').any(|scope| scope.starts_with(need.as_str()))) {
            true => Fault::Pass,
            false => {
                let challenge = format!(r#"Bearer realm="{realm}",service="test",scope="{}""#, needs[0]);
                Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b""))
            }
        }
    });
    Gated { tokens, gate, issued, oldest, _registry: registry }
}

#[test]
fn one_token_serves_a_push_and_a_second_one_its_mounts() {
    let gated = gated(300);
    let client = client_with(files(gated.gate.address(), "user:s3cret"));
    let (from, target) =
        (format!("{}/base:weekly", gated.gate.address()), format!("{}/os/app:v1", gated.gate.address()));
    let base = Image::new(&[b"one", b"two", b"three"]);
    client.push(&base.push(&from, None)).unwrap();
    let image = Image::new(&[b"one", b"two", b"three", b"app"]);
    let pushed = client.push(&image.push(&target, Some((&from, 3)))).unwrap();
    assert_eq!((pushed.mounted, pushed.uploaded.len()), (3, 2));
    let expected = [
        "repository:base:pull,push",
        "repository:os/app:pull,push",
        "repository:base:pull repository:os/app:pull,push",
    ];
    assert_eq!(*gated.issued.lock().unwrap(), expected);
    // Only the very first request was refused: after it, the registry's ways are known.
    let bare = gated.gate.seen().iter().filter(|seen| seen.header("authorization").is_none()).count();
    assert_eq!(bare, 1);
    assert!(
        gated
            .gate
            .seen()
            .iter()
            .all(|seen| !seen.header("authorization").is_some_and(|h| h.starts_with("Basic")))
    );
    assert_whole(&client, &target, &image);
}

#[test]
fn tokens_are_renewed_when_they_end() {
    // By the clock.
    let short = gated(0);
    let client = client_with(files(short.gate.address(), "user:s3cret"));
    let target = format!("{}/os/app:v1", short.gate.address());
    client.push(&Image::new(&[b"layer"]).push(&target, None)).unwrap();
    let requests = short.gate.seen().len();
    assert_eq!(requests, 7, "one refusal, then six that pass");
    assert_eq!(short.issued.lock().unwrap().len(), 6);

    // Because the registry no longer takes it, in the middle of a push.
    let revoked = gated(300);
    let client = client_with(files(revoked.gate.address(), "user:s3cret"));
    let target = format!("{}/os/app:v1", revoked.gate.address());
    client.push(&Image::new(&[b"one"]).push(&target, None)).unwrap();
    revoked.oldest.store(1, Ordering::SeqCst);
    let image = Image::new(&[b"one", b"two"]);
    client.push(&image.push(&target, None)).unwrap();
    assert_eq!(revoked.issued.lock().unwrap().len(), 2);

    // Never taken: tried once more, then given up.
    revoked.oldest.store(usize::MAX, Ordering::SeqCst);
    let error = client.push(&Image::new(&[b"three"]).push(&target, None)).unwrap_err();
    assert_eq!(revoked.issued.lock().unwrap().len(), 3);
    let error = shown(&error, revoked.gate.address());
    assert!(error.starts_with("HOST does not accept the credentials from /"), "{error}");
}

#[test]
fn identity_tokens_are_exchanged_and_never_sent_to_the_registry() {
    let gated = gated(300);
    let file = tempfile::NamedTempFile::new().unwrap();
    let auths = json!({"auths": {gated.gate.address(): {"identitytoken": "identity-s3cret"}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let path = file.path().as_os_str().to_owned();
    let client = client_with(Lookup::new(move |name| (name == "REGISTRY_AUTH_FILE").then(|| path.clone())));
    let target = format!("{}/os/app:v1", gated.gate.address());
    client.push(&Image::new(&[b"layer"]).push(&target, None)).unwrap();
    assert_eq!(gated.tokens.lines(), ["POST /token"]);
    assert!(!format!("{:?}", gated.gate.seen()).contains("identity-s3cret"));
}

#[test]
fn everyone_may_read_what_is_public() {
    let gated = gated(300);
    let target = format!("{}/os/app:v1", gated.gate.address());
    let image = Image::new(&[b"layer"]);
    client_with(files(gated.gate.address(), "user:s3cret")).push(&image.push(&target, None)).unwrap();
    let client = super::client();
    assert_whole(&client, &target, &image);
    let error = client.push(&Image::new(&[b"other"]).push(&target, None)).unwrap_err();
    insta::assert_snapshot!(shown(&error, gated.gate.address()), @"
    no credentials for HOST
    hint: run 'podman login HOST'
    ");
    let wrong = client_with(files(gated.gate.address(), "user:s3cret-wrong"));
    let error = wrong.document(&target.parse().unwrap()).unwrap_err();
    assert!(!format!("{error:?}{}", shown(&error, "-")).contains("s3cret"), "{error:?}");
    assert!(error.to_string().contains("does not accept the credentials from"), "{error}");
}

#[test]
fn nothing_is_sent_to_a_token_service_elsewhere() {
    for realm in
        ["https://evil.example/token", "http://evil.example/token", "https://127.0.0.1.evil.example/t"]
    {
        let server = FaultProxy::alone(move |_| {
            let challenge = format!(r#"Bearer realm="{realm}",service="x""#);
            Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b""))
        });
        let client = client_with(files(server.address(), "user:s3cret"));
        let error = client.document(&format!("{}/os/app:v1", server.address()).parse().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("no credentials were sent") && text.contains(realm), "{text}");
        assert_eq!(hints(&error).count(), 1, "{text}");
        assert_eq!(server.seen().len(), 1);
        assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
    }
    // Nor does a token service pass a password on.
    let elsewhere = FaultProxy::alone(|_| Fault::Answer(answer("200 OK", &[], br#"{"token":"x"}"#)));
    let location = format!("http://{}/", elsewhere.address());
    let tokens = FaultProxy::alone(move |_| {
        Fault::Answer(answer("307 Temporary Redirect", &[("Location", &location)], b""))
    });
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.address());
    let server = FaultProxy::alone(move |_| {
        Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b""))
    });
    let client = client_with(files(server.address(), "user:s3cret"));
    let error = client.document(&format!("{}/os/app:v1", server.address()).parse().unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("which a token service must not do"), "{error}");
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn storage_that_asks_for_a_login_gets_none() {
    let storage = FaultProxy::alone(|_| {
        Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b""))
    });
    let location = format!("http://{}/signed", storage.address());
    let server = FaultProxy::alone(move |_| {
        Fault::Answer(answer("307 Temporary Redirect", &[("Location", &location)], b""))
    });
    let client = client_with(files(server.address(), "user:s3cret"));
    let error = client.document(&format!("{}/os/app:v1", server.address()).parse().unwrap()).unwrap_err();
    insta::assert_snapshot!(shown(&error, storage.address()), @"
    GET http://HOST/signed: 401 Unauthorized
    hint: the account has no right to do this: ask the repository's owner
    ");
    let seen = [server.seen(), storage.seen()].concat();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
}

#[test]
fn encryption_is_the_default_and_plain_http_is_asked_for() {
    // An address of this machine that is not one of its loopback names.
    let registry = Registry::docker();
    let port = registry.address().rsplit(':').next().unwrap();
    let target = format!("0.0.0.0:{port}/os/app:v1");
    let image = Image::new(&[b"layer"]);
    let error = super::client().push(&image.push(&target, None)).unwrap_err();
    let lines = shown(&error, &format!("0.0.0.0:{port}"));
    insta::assert_snapshot!(lines, @"
    https://HOST/v2/os/app/manifests/v1 cannot be reached: received corrupt message of type InvalidContentType
    hint: if the registry speaks plain HTTP, add '--plain-http HOST'
    ");

    let host = format!("0.0.0.0:{port}").parse().unwrap();
    let plain = client_of(vec![host], Lookup::new(|_| None), timing());
    plain.push(&image.push(&target, None)).unwrap();
    assert_whole(&plain, &target, &image);
    // What is said of one registry is not true of another: this one speaks TLS to those who ask.
    let other = Registry::docker_with_tls();
    let target = format!("{}/os/app:v1", other.address());
    let error = plain.push(&image.push(&target, None)).unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let host = other.address().parse().unwrap();
    let plain = client_of(vec![host], Lookup::new(|_| None), timing());
    let error = plain.push(&image.push(&target, None)).unwrap_err();
    insta::assert_snapshot!(shown(&error, other.address()), @"
    GET http://HOST/v2/os/app/manifests/v1: 400 Bad Request: Client sent an HTTP request to an HTTPS server.
    hint: the registry speaks HTTPS: leave out '--plain-http HOST'
    ");

    let address = registry.address().to_owned();
    drop(registry);
    let error = super::client().push(&image.push(&format!("{address}/os/app:v1"), None)).unwrap_err();
    insta::assert_snapshot!(shown(&error, &address), @"
    http://HOST/v2/os/app/manifests/v1 cannot be reached: Connection refused (os error 111)
    hint: is the registry at HOST running?
    ");
}

#[test]
fn certificates_are_checked() {
    let registry = Registry::docker_with_tls();
    let target = format!("{}/os/app:v1", registry.address());
    let image = Image::new(&[b"layer"]);
    let error = super::client().push(&image.push(&target, None)).unwrap_err();
    insta::assert_snapshot!(shown(&error, registry.address()), @"
    https://HOST/v2/os/app/manifests/v1 cannot be reached: invalid peer certificate: UnknownIssuer
    hint: set SSL_CERT_FILE to the registry's CA certificates
    ");

    let certificate = registry.certificate().display().to_string();
    let variables = [("SSL_CERT_FILE", certificate.as_str()), ("TEST_TARGET", &target)];
    in_environment("registry::tests::auth::with_certificate", &variables);
}

#[test]
#[ignore = "run by `certificates_are_checked`, in an environment of its own"]
fn with_certificate() {
    let target = std::env::var("TEST_TARGET").unwrap();
    let (client, image) = (super::client(), Image::new(&[b"layer"]));
    client.push(&image.push(&target, None)).unwrap();
    assert_whole(&client, &target, &image);

    // A token service elsewhere is asked for what everyone gets. This one knows no tokens at all.
    let realm = format!("https://{}/token", target.split('/').next().unwrap());
    let challenge = format!(r#"Bearer realm="{realm}""#);
    let server = FaultProxy::alone(move |_| {
        Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b""))
    });
    let reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let anonymous = client.document(&reference).unwrap_err().to_string();
    assert!(anonymous.starts_with(&format!("GET {realm}: 404 Not Found")), "{anonymous}");
    let logged_in = client_with(files(server.address(), "user:s3cret"));
    let error = logged_in.document(&reference).unwrap_err();
    let text = shown(&error, server.address()).replace(target.split('/').next().unwrap(), "ELSEWHERE");
    insta::assert_snapshot!(text, @"
    HOST sends logins to https://ELSEWHERE/token, which is not its own; no credentials were sent
    hint: if ELSEWHERE is to be trusted, use 'skopeo copy' between HOST and an OCI layout: it sends them there
    ");
}
