//! What a guest asks for at its first boot: NoCloud's files, over HTTP on the loopback interface.
//!
//! Source: cloud-init, "NoCloud": the address comes by SMBIOS, and all four files are asked for.

use std::io;

use super::http::{Answer, Server};

/// Who may log in: a user, by this key alone, who is root by sudo.
pub(super) const USER: &str = "testboot";

/// The files, served until this process ends.
pub(super) struct Seed {
    server: Server,
}

impl Seed {
    /// Serves a seed that lets the owner of `public_key` in.
    pub(super) fn serve(public_key: &str) -> io::Result<Seed> {
        let user_data = user_data(public_key);
        let server = Server::start(move |path| match path {
            "/meta-data" => Answer::Text("instance-id: testboot-vm\nlocal-hostname: testboot\n".to_owned()),
            "/user-data" => Answer::Text(user_data.clone()),
            // There is nothing to say, which is another answer than that there is no such file.
            "/network-config" | "/vendor-data" => Answer::Text(String::new()),
            _ => Answer::NotFound,
        })?;
        Ok(Seed { server })
    }

    /// The serial number of a machine that is to ask here.
    pub(super) fn serial(&self) -> String {
        format!("ds=nocloud;s=http://{}/", self.server.for_guests())
    }
}

fn user_data(public_key: &str) -> String {
    format!(
        "#cloud-config\nusers:\n  - name: {USER}\n    shell: /bin/sh\n    lock_passwd: true\n    \
         sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n    ssh_authorized_keys: [\"{}\"]\n",
        public_key.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::super::guest::get;
    use super::*;

    #[test]
    fn all_four_files_are_there() {
        let seed = Seed::serve("ssh-ed25519 KEY comment\n").unwrap();
        let get = |path: &str| get(seed.server.address, path).unwrap();
        for path in ["/network-config", "/vendor-data"] {
            assert_eq!(get(path), (200, String::new()));
        }
        let (code, text) = get("/user-data");
        assert_eq!(code, 200);
        insta::assert_snapshot!(text, @r#"
        #cloud-config
        users:
          - name: testboot
            shell: /bin/sh
            lock_passwd: true
            sudo: "ALL=(ALL) NOPASSWD:ALL"
            ssh_authorized_keys: ["ssh-ed25519 KEY comment"]
        "#);
        assert!(get("/meta-data").1.starts_with("instance-id: "));
        assert_eq!(get("/other").0, 404);
        assert_eq!(seed.serial(), format!("ds=nocloud;s=http://10.0.2.2:{}/", seed.server.address.port()));
    }
}
