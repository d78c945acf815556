//! What a guest upgrades itself with.

/// The program that brings a host to another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Updater {
    /// bootc, on hosts of the distros that have it.
    Bootc,
    /// The Debian base's own: base/debian/13/rootfs/usr/sbin/testboot.
    Testboot,
}

/// Prints the name of the one that a guest has.
pub(super) const PROBE: &str =
    "PATH=$PATH:/usr/sbin; basename \"$(command -v bootc || command -v testboot)\"";

/// Registries without TLS. Source: containers-registries.conf(5).
const REGISTRIES: &str = "/etc/containers/registries.conf.d/90-testboot-vm.conf";

impl Updater {
    /// The one that [`PROBE`] printed.
    pub(super) fn parse(text: &str) -> Option<Updater> {
        match text {
            "bootc" => Some(Updater::Bootc),
            "testboot" => Some(Updater::Testboot),
            _ => None,
        }
    }

    /// The command that gets `image`, in a registry that has no TLS, for the next boot.
    pub(super) fn switch(self, image: &str) -> String {
        match self {
            Updater::Bootc => {
                let registry = image.split('/').next().unwrap_or_default();
                format!(
                    "printf '[[registry]]\\nlocation = \"{registry}\"\\ninsecure = true\\n' | sudo tee {REGISTRIES} >/dev/null && sudo bootc switch {image}"
                )
            }
            Updater::Testboot => format!("sudo testboot switch http://{image}"),
        }
    }

    /// The command that makes the next boot one of the system before.
    pub(super) fn rollback(self) -> &'static str {
        match self {
            Updater::Bootc => "sudo bootc rollback",
            Updater::Testboot => "sudo testboot rollback",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_an_operator() {
        let commands =
            |updater: Updater| [updater.switch("10.0.2.2:5000/os:next"), updater.rollback().to_owned()];
        insta::assert_snapshot!(commands(Updater::Testboot).join("\n"), @"
        sudo testboot switch http://10.0.2.2:5000/os:next
        sudo testboot rollback
        ");
        insta::assert_snapshot!(commands(Updater::Bootc).join("\n"), @r#"
        printf '[[registry]]\nlocation = "10.0.2.2:5000"\ninsecure = true\n' | sudo tee /etc/containers/registries.conf.d/90-testboot-vm.conf >/dev/null && sudo bootc switch 10.0.2.2:5000/os:next
        sudo bootc rollback
        "#);
    }

    #[test]
    fn an_updater_is_known_by_its_name() {
        for (text, expected) in
            [("bootc", Some(Updater::Bootc)), ("testboot", Some(Updater::Testboot)), ("", None), (".", None)]
        {
            assert_eq!(Updater::parse(text), expected);
        }
    }
}
