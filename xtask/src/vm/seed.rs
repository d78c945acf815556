//! What a guest asks for at its first boot: NoCloud's files, over HTTP on the loopback interface.
//!
//! Source: cloud-init, "NoCloud": the address comes by SMBIOS, and all four files are asked for.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Where a guest of QEMU's user network finds the host's loopback interface.
/// Source: QEMU, "Network emulation", "Using the user mode network stack".
const HOST: &str = "10.0.2.2";
/// A request that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may log in: a user, by this key alone, who is root by sudo.
pub(crate) const USER: &str = "testboot";

/// The files, served until this process ends.
pub(crate) struct Seed {
    address: SocketAddr,
}

impl Seed {
    /// Serves a seed that lets the owner of `public_key` in.
    pub(crate) fn serve(public_key: &str) -> io::Result<Seed> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let user_data: Arc<str> = user_data(public_key).into();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let user_data = user_data.clone();
                // A guest that breaks off asks again.
                std::thread::spawn(move || answer(&stream, &user_data).ok());
            }
        });
        Ok(Seed { address })
    }

    /// The serial number of a machine that is to ask here.
    pub(crate) fn serial(&self) -> String {
        format!("ds=nocloud;s=http://{HOST}:{}/", self.address.port())
    }
}

fn user_data(public_key: &str) -> String {
    format!(
        "#cloud-config\nusers:\n  - name: {USER}\n    shell: /bin/sh\n    lock_passwd: true\n    \
         sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n    ssh_authorized_keys: [\"{}\"]\n",
        public_key.trim()
    )
}

fn answer(stream: &TcpStream, user_data: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(io::Read::take(stream, 64 << 10)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.strip_prefix("GET ").and_then(|rest| rest.split([' ', '?']).next());
    let body = match path {
        Some("/meta-data") => "instance-id: testboot-vm\nlocal-hostname: testboot\n",
        Some("/user-data") => user_data,
        // There is nothing to say, which is another answer than that there is no such file.
        Some("/network-config" | "/vendor-data") => "",
        Some(_) | None => return write!(&*stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    };
    let length = body.len();
    write!(&*stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::super::guest::get;
    use super::*;

    #[test]
    fn all_four_files_are_there() {
        let seed = Seed::serve("ssh-ed25519 KEY comment\n").unwrap();
        let get = |path: &str| get(seed.address, path).unwrap();
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
        assert_eq!(seed.serial(), format!("ds=nocloud;s=http://10.0.2.2:{}/", seed.address.port()));
    }
}
