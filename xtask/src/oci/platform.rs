//! Platforms that a bootc image exists for.

use std::fmt;
use std::str::FromStr;

/// An architecture that bootc bases are published for, under its Go name, which is also the
/// one in OCI configs.
/// Source: OCI image specification, config.md, "architecture"; Go's GOARCH values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Arch {
    Amd64,
    Arm64,
    Ppc64le,
    S390x,
}

/// An operating system and architecture. The system is always Linux: nothing else boots
/// through ostree, so nothing else can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Platform {
    pub(crate) arch: Arch,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlatformError {
    #[error("platform `{0}` is not one of {list}", list = Arch::ALL.map(|arch| Platform { arch }.to_string()).join(", "))]
    Unknown(String),
}

impl Arch {
    pub(crate) const ALL: [Arch; 4] = [Arch::Amd64, Arch::Arm64, Arch::Ppc64le, Arch::S390x];

    /// The name in OCI configs, in GOARCH, and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
            Arch::Ppc64le => "ppc64le",
            Arch::S390x => "s390x",
        }
    }
}

impl Platform {
    /// The platform with these OCI names, if it is one that can boot.
    pub(crate) fn from_oci(os: &str, arch: &str) -> Option<Platform> {
        let arch = Arch::ALL.into_iter().find(|known| known.name() == arch)?;
        (os == "linux").then_some(Platform { arch })
    }

    /// The platform that this program runs on.
    pub(crate) fn host() -> Platform {
        let arch = match std::env::consts::ARCH {
            "aarch64" => Arch::Arm64,
            "powerpc64" => Arch::Ppc64le,
            "s390x" => Arch::S390x,
            // Anything else that runs this tool can still compose for the common case.
            _ => Arch::Amd64,
        };
        Platform { arch }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        text.split_once('/')
            .and_then(|(os, arch)| Platform::from_oci(os, arch))
            .ok_or_else(|| PlatformError::Unknown(text.to_owned()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.arch.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        for arch in Arch::ALL {
            let platform = Platform { arch };
            assert_eq!(platform.to_string().parse(), Ok(platform));
        }
        for bad in ["amd64", "linux/", "windows/amd64", "linux/amd64/v2", "linux/AMD64"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError::Unknown(bad.to_owned())));
        }
    }
}
