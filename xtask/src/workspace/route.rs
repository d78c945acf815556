//! Which paths nginx passes on to an app, and the configuration that says so.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::num::ParseIntError;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::name::AppName;

/// Where nginx.conf looks for the apps' files, relative to the image's root.
pub(crate) const NGINX_APPS: &str = "usr/share/nginx/apps";
/// The ends of the names of the files there: read in `http`, and in the default `server`.
pub(crate) const UPSTREAM_CONF: &str = ".upstream.conf";
pub(crate) const LOCATION_CONF: &str = ".location.conf";

/// Ports below this one need a privilege, which no app has.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// The ports that the base keeps free of outgoing connections.
/// Source: base/shared/rootfs/usr/lib/sysctl.d/97-testboot.conf, net.ipv4.ip_local_reserved_ports.
const RESERVED_BY_BASE: RangeInclusive<u16> = 8000..=9999;

/// Where an app listens on the loopback interface, and the paths that are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) port: Port,
    /// In the order of app.toml.
    pub(crate) prefixes: Vec<UrlPrefix>,
}

/// A port that an app can listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port(u16);

/// The start of a URL's path, whole segments only: `/x` stands for `/x` and `/x/...`, not for
/// `/xy`; `/` stands for everything that no longer prefix does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UrlPrefix(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("port {0} is not one that an app can listen on: those below 1024 are the system's")]
    Port(u16),
    #[error("route `{0}` does not start with `/`")]
    NoSlash(String),
    #[error("route `{0}` ends with `/`")]
    TrailingSlash(String),
    #[error("route `{0}` has an empty segment, `.` or `..`")]
    Segment(String),
    #[error("route `{route}` has the character {character:?}")]
    Character { route: String, character: char },
}

/// Why a text is not a port for an app.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error("a port is a number from 1024 to 65535: {0}")]
    Number(#[from] ParseIntError),
    #[error("{0}; {hint}", hint = .0.hint())]
    Route(#[from] RouteError),
}

impl RouteError {
    pub(super) fn hint(&self) -> String {
        match self {
            RouteError::Port(_) => "choose one from 8000 to 9999".to_owned(),
            RouteError::NoSlash(route) => format!("write \"/{route}\""),
            RouteError::TrailingSlash(route) => {
                format!("write \"{}\": what is below it belongs to it", route.trim_end_matches('/'))
            }
            RouteError::Segment(_) => "write it as the client asks for it, like \"/a/b\"".to_owned(),
            RouteError::Character { .. } => "use letters, digits, `-`, `.`, `_` and `~`".to_owned(),
        }
    }
}

impl Port {
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    /// Those that bases keep free, in the order in which new apps get them.
    pub(crate) fn for_apps() -> impl Iterator<Item = Port> {
        let (start, end) = RESERVED_BY_BASE.into_inner();
        // The usual one for a web app comes first.
        (8080..=end).chain(start..8080).map(Port)
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Port, PortError> {
        Ok(text.parse::<u16>()?.try_into()?)
    }
}

impl TryFrom<u16> for Port {
    type Error = RouteError;

    fn try_from(number: u16) -> Result<Port, RouteError> {
        if number < FIRST_UNPRIVILEGED { Err(RouteError::Port(number)) } else { Ok(Port(number)) }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl UrlPrefix {
    /// The path that has an app's name.
    pub(crate) fn of(app: &AppName) -> UrlPrefix {
        UrlPrefix(format!("/{app}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPrefix {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<UrlPrefix, RouteError> {
        let route = text.to_owned();
        let Some(rest) = text.strip_prefix('/') else { return Err(RouteError::NoSlash(route)) };
        // RFC 3986, section 2.3: what is never percent-encoded means the same to nginx and to
        // every client. None of it means anything in nginx's own syntax.
        let is_unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if let Some(character) = rest.chars().find(|&c| c != '/' && !is_unreserved(c)) {
            return Err(RouteError::Character { route, character });
        }
        if rest.is_empty() {
            return Ok(UrlPrefix(route));
        }
        if rest.ends_with('/') && !rest.ends_with("//") && rest != "/" {
            return Err(RouteError::TrailingSlash(route));
        }
        if rest.split('/').any(|segment| ["", ".", ".."].contains(&segment)) {
            return Err(RouteError::Segment(route));
        }
        Ok(UrlPrefix(route))
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Route {
    /// What nginx reads in `http`: where the app is.
    pub(crate) fn upstream_conf(&self, app: &AppName) -> String {
        // A connection is given up before the app does so (60 s), lest a request meets its end.
        format!(
            "upstream {} {{\n    server 127.0.0.1:{};\n    keepalive 16;\n    keepalive_timeout 30s;\n}}\n",
            upstream(app),
            self.port
        )
    }

    /// What nginx reads in the default `server`: which paths are the app's.
    ///
    /// A prefix location of nginx knows no segments, so a path gets two: one for itself, one for
    /// what is below it.
    pub(crate) fn location_conf(&self, app: &AppName) -> String {
        let mut text = String::new();
        for location in self.locations() {
            let pass = format!("proxy_pass http://{};", upstream(app));
            // Writing to a String cannot fail.
            writeln!(text, "location {location} {{\n    {pass}\n}}").ok();
        }
        text
    }

    /// The arguments of the `location` directives that the app's paths need.
    pub(super) fn locations(&self) -> Vec<String> {
        let locations = |prefix: &UrlPrefix| match prefix.as_str() {
            "/" => vec!["/".to_owned()],
            path => vec![format!("= {path}"), format!("{path}/")],
        };
        self.prefixes.iter().flat_map(locations).collect()
    }
}

/// The sysctl.d file that keeps outgoing connections off the apps' ports, where the base's own
/// file does not do so. It replaces the base's setting, so it has to be read after it.
pub(crate) fn reserved_ports_conf(ports: impl IntoIterator<Item = Port>) -> Option<String> {
    let further: BTreeSet<u16> =
        ports.into_iter().map(Port::number).filter(|port| !RESERVED_BY_BASE.contains(port)).collect();
    if further.is_empty() {
        return None;
    }
    let ports: Vec<String> = further.iter().map(u16::to_string).collect();
    let (first, last) = RESERVED_BY_BASE.into_inner();
    Some(format!("net.ipv4.ip_local_reserved_ports = {first}-{last},{}\n", ports.join(",")))
}

fn upstream(app: &AppName) -> String {
    format!("app_{app}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16, prefixes: &[&str]) -> Route {
        Route {
            port: port.try_into().unwrap(),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn prefixes() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<UrlPrefix>() {
                Ok(prefix) => prefix.to_string(),
                Err(error) => format!("{error}; {}", error.hint()),
            };
            assert_eq!(shown, expected, "for {text}");
        };
        check("/", "/");
        check("/health", "/health");
        check("/api/v1.2/~a_b-c", "/api/v1.2/~a_b-c");
        check("", "route `` does not start with `/`; write \"/\"");
        check("x", "route `x` does not start with `/`; write \"/x\"");
        check("/x/", "route `/x/` ends with `/`; write \"/x\": what is below it belongs to it");
        for bad in ["//", "/a//b", "/a//", "/.", "/..", "/a/../b"] {
            let hint = "write it as the client asks for it, like \"/a/b\"";
            check(bad, &format!("route `{bad}` has an empty segment, `.` or `..`; {hint}"));
        }
        for character in ['{', '}', ';', '"', '\'', '$', '#', ' ', '\n', '\\', '%', '?', 'ä', '*'] {
            let route = format!("/a{character}");
            let hint = "use letters, digits, `-`, `.`, `_` and `~`";
            check(&route, &format!("route `{route}` has the character {character:?}; {hint}"));
        }
    }

    #[test]
    fn ports() {
        for bad in [0, 22, 80, 443, 1023] {
            assert_eq!(Port::try_from(bad), Err(RouteError::Port(bad)));
        }
        for good in [1024, 8080, 65535] {
            assert_eq!(Port::try_from(good), Ok(Port(good)));
        }
        assert_eq!(reserved_ports_conf([Port(8000), Port(9999)]), None);
        assert_eq!(
            reserved_ports_conf([Port(8080), Port(3000), Port(10000)]).unwrap(),
            "net.ipv4.ip_local_reserved_ports = 8000-9999,3000,10000\n"
        );
    }

    #[test]
    fn files_for_nginx() {
        let app: AppName = "web-admin".parse().unwrap();
        let route = route(8081, &["/", "/admin"]);
        insta::assert_snapshot!(route.upstream_conf(&app), @r#"
        upstream app_web-admin {
            server 127.0.0.1:8081;
            keepalive 16;
            keepalive_timeout 30s;
        }
        "#);
        insta::assert_snapshot!(route.location_conf(&app), @r#"
        location / {
            proxy_pass http://app_web-admin;
        }
        location = /admin {
            proxy_pass http://app_web-admin;
        }
        location /admin/ {
            proxy_pass http://app_web-admin;
        }
        "#);
    }
}
