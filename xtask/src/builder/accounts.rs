//! Users and groups of a config, as lines for the script that has the image's own programs make them.

use super::config::{Config, User};

/// Fields are separated as in passwd(5), none of whose may have a colon: `group:NAME:GID`,
/// `user:NAME:PASSWORD:UID:GID:GROUPS:HOME:SHELL:DESCRIPTION` and `key:NAME:KEY`. What is empty is
/// left to the image.
pub(super) fn lines(config: &Config) -> String {
    let id = |id: Option<u32>| id.map(|id| id.to_string()).unwrap_or_default();
    let mut lines: Vec<String> =
        config.groups.iter().map(|group| format!("group:{}:{}", group.name, id(group.gid))).collect();
    for user in &config.users {
        let User { name, description, password, keys, home, shell, groups, uid, gid } = user;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            "user".to_owned(),
            name.clone(),
            text(password),
            id(*uid),
            id(*gid),
            groups.join(","),
            text(home),
            text(shell),
            text(description),
        ];
        lines.push(fields.join(":"));
        lines.extend(keys.iter().map(|key| format!("key:{name}:{key}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let config = Config::parse(
            "config.toml",
            br#"
            [[customizations.group]]
            name = "data"
            gid = 2000
            [[customizations.user]]
            name = "devops"
            description = "who cares, really"
            groups = ["wheel", "data"]
            uid = 1500
            key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuPzHxsJb1uwG0e3uqbKHCqGv2Lz7D5jCeqXyb3UHsd me@here"
            [[customizations.user]]
            name = "root"
            "#,
            &[],
        );
        insta::assert_snapshot!(lines(&config.unwrap()), @r"
        group:data:2000
        user:devops::1500::wheel,data:::who cares, really
        key:devops:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuPzHxsJb1uwG0e3uqbKHCqGv2Lz7D5jCeqXyb3UHsd
        user:root:::::::
        ");
    }
}
