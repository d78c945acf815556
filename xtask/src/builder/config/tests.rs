//! Configs as people write them: what is made of each, and all that is wrong with it, by line.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::testing::program;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuPzHxsJb1uwG0e3uqbKHCqGv2Lz7D5jCeqXyb3UHsd me@here";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("f", text.as_bytes(), &[]).map_err(|problems| problems.to_string())
}

/// What is said of `text`, in the table that is named.
fn said(table: &str, text: &str) -> String {
    match parse(&format!("[{table}]\n{text}")) {
        Ok(_) => String::new(),
        Err(problems) => problems.lines().skip(1).map(|line| format!("{}\n", line.trim())).collect(),
    }
}

/// That `text` is refused on its line, by words that have `expected` in them; or taken, where that is empty.
fn check(table: &str, text: &str, expected: &str) {
    let said = said(table, text);
    let is_expected = if expected.is_empty() { said.is_empty() } else { said.contains(expected) };
    assert!(is_expected, "{text}: {said}");
    assert!(said.is_empty() || said.contains("hint: "), "{text}: {said}");
}

#[test]
fn all_that_is_wrong_is_told_with_its_line() {
    insta::assert_snapshot!(
        parse(
            r#"name = "mine"

[[customizations.user]]
nmae = "devops"

[[customizations.user]]
name = "root"
key = 7
groups = ["wheel",
          "Big One"]
uid = 0

[customizations]
hostname = "host"

[customizations.kernel]
append = "quiet init=/bin/sh a'b"
name = "kernel-debug"

[customizations.disk]
type = "mbr"
[[customizations.disk.partitions]]
type = "lvm"
mountpoint = "/"
"#
        )
        .unwrap_err(),
        @r#"
    what disks are told has 13 problems
      f:1: 'name' is not a key that is read here
        hint: remove it: the image has a name and a version
      f:3: a user has no name
        hint: add 'name = "..."'
      f:4: 'customizations.user.nmae' is not a key that is read here
        hint: did you mean 'name'?
      f:8: 'customizations.user.key' is not a string
        hint: make it a string
      f:10: `Big One` is no name of a group
        hint: use lower-case letters, digits, '_' and '-', a letter or '_' first, at most 31
      f:11: the uid 0 is not between 1000 and 60000: others are the system's
        hint: choose one there, or leave it out
      f:14: 'customizations.hostname' is not a key that is read here
        hint: it belongs to the image, where upgrades can change it: configs/os or base/
      f:17: `init=/bin/sh` is the boot loader's own: the disk would not boot
        hint: remove it: it is set when the disk is made
      f:17: `a'b` has a character that boot loaders treat differently
        hint: use printable ASCII without quotes, `\`, `$` and backticks
      f:18: 'customizations.kernel.name' is not a key that is read here
        hint: remove it: the kernel is the image's
      f:21: 'type' cannot be `mbr`
        hint: choose one of gpt, dos
      f:22: it has no minsize
        hint: add 'minsize = "20 GiB"'
      f:24: 'customizations.disk.partitions.mountpoint' is not a key that is read here
        hint: remove it; there are type, minsize, part_type, name, logical_volumes
    "#
    );
}

#[test]
fn a_blueprint_is_read_and_written_alike() {
    let text = format!(
        r#"
[[customizations.user]]
name = "devops"
description = "who cares"
password = "$6$saltsalt${}"
key = """
{ED25519}
"""
home = "/home/other"
shell = "/bin/sh"
groups = ["wheel"]
uid = 1500
gid = 2000

[[customizations.group]]
name = "data"
gid = 2000

[customizations.kernel]
append = "console=ttyS0   quiet"

[customizations.disk]
type = "gpt"
minsize = "20 GiB"
[[customizations.disk.partitions]]
mountpoint = "/"
fs_type = "ext4"
label = "root"
minsize = "10 GiB"
[[customizations.disk.partitions]]
type = "lvm"
name = "vg"
minsize = 1073741824
[[customizations.disk.partitions.logical_volumes]]
name = "data"
mountpoint = "/var/lib/data"
fs_type = "xfs"
minsize = "1 GB"
[[customizations.disk.partitions.logical_volumes]]
fs_type = "swap"
minsize = "1 GiB"
[[customizations.disk.partitions]]
type = "btrfs"
minsize = "1 TiB"
[[customizations.disk.partitions.subvolumes]]
name = "log"
mountpoint = "/var/log"

[customizations.installer]
unattended = true
sudo-nopasswd = ["devops"]
[customizations.installer.modules]
enable = ["org.fedoraproject.Anaconda.Modules.Users"]

[customizations.iso]
volume_id = "OS"
application_id = "os"
publisher = "me"
"#,
        "x".repeat(86)
    );
    let config = parse(&text).unwrap();
    let blueprint = config.blueprint().unwrap();
    assert_eq!(parse(&blueprint).unwrap(), config, "{blueprint}");
    // Every value that was written is there.
    for value in
        ["who cares", "/home/other", "1500", "console=ttyS0 quiet", "21474836480", "1000000000", "swap"]
    {
        assert!(blueprint.contains(value), "{value} in {blueprint}");
    }
    assert!(!blueprint.contains("me@here"), "{blueprint}");
    let kickstart = "[customizations.installer.kickstart]\ncontents = \"\"\"\ntext\nreboot\n\"\"\"\n";
    let config = parse(kickstart).unwrap();
    assert_eq!(parse(&config.blueprint().unwrap()).unwrap(), config);
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn users_have_names_that_every_system_takes() {
    for (name, expected) in [
        ("devops", ""),
        ("_a-b_9", ""),
        ("", "is no name of a user"),
        ("Devops", "is no name"),
        ("9lives", "is no name"),
        ("a b", "is no name"),
        ("a:b", "is no name"),
        ("a/../b", "is no name"),
        ("-rf", "is no name"),
        ("\\u0000", "control character"),
        ("a\\nb", "line break"),
        ("abcdefghijabcdefghijabcdefghijab", "is no name"),
    ] {
        check("[customizations.user]", &format!("name = \"{name}\""), expected);
    }
    check("customizations.user", "name = \"a\"", "is not a list of tables");
    let two = |uids: [u32; 2], names: [&str; 2]| {
        let user =
            |at: usize| format!("[[customizations.user]]\nname = \"{}\"\nuid = {}\n", names[at], uids[at]);
        parse(&(user(0) + &user(1))).err().unwrap_or_default()
    };
    assert_eq!(two([1000, 1001], ["a", "b"]), "");
    assert!(two([1000, 1000], ["a", "b"]).contains("f:4: `b` has the uid of another user"));
    assert!(two([1000, 1001], ["a", "a"]).contains("f:4: there are two users `a`"));
}

#[test]
fn fields_of_users_are_checked() {
    for (line, expected) in [
        ("home = \"/home/a/\"", ""),
        ("home = \"/usr/share/a\"", "could not be written to"),
        ("home = \"/home/../etc\"", "could not be written to"),
        ("shell = \"bash\"", "no path of a shell"),
        ("shell = \"/bin/bash:x\"", "no path of a shell"),
        ("description = \"a:b\"", "no ':'"),
        ("uid = 999", "is not between 1000 and 60000"),
        ("uid = 99999999999999999999", "not TOML"),
        ("uid = \"1000\"", "not a whole number"),
        ("gid = 0", "is not between 1 and 60000"),
        ("groups = \"wheel\"", "not a list of strings"),
        ("groups = [\"a\", 1]", "not a list of strings"),
        ("expiredate = 1", "not a key that is read here"),
        ("shel = \"/bin/sh\"", "did you mean 'shell'?"),
    ] {
        check("[customizations.user]", &format!("name = \"a\"\n{line}"), expected);
    }
    check(
        "[customizations.user]",
        &format!("name = \"root\"\nkey = \"{ED25519}\""),
        "sshd does not let root in",
    );
    check("[customizations.group]", "gid = 5", "a group has no name");
}

#[test]
fn passwords_are_hashes_that_osbuild_takes_for_such() {
    for (password, expected) in [
        (format!("$6$salt${}", "a".repeat(86)), ""),
        (format!("$6$rounds=5000$salt${}", "a".repeat(86)), ""),
        (format!("$5$salt${}", "a".repeat(43)), ""),
        (format!("$2b$12${}", "a".repeat(53)), ""),
        (format!("$2b$99${}", "a".repeat(53)), "not whole"),
        (format!("$6$salt${}", "a".repeat(85)), "not whole"),
        (format!("$6$salt${}:", "a".repeat(85)), "not whole"),
        (format!("$6$rounds=5000${}", "a".repeat(86)), "not whole"),
        (format!("$y$j9T$salt${}", "a".repeat(43)), "taken for a plain password"),
        (format!("$1$salt${}", "a".repeat(22)), "taken for a plain password"),
        ("secret".to_owned(), "written as its hash"),
        ("$ecret".to_owned(), "written as its hash"),
        (String::new(), "written as its hash"),
        ("!".to_owned(), "written as its hash"),
    ] {
        check("[customizations.user]", &format!("name = \"a\"\npassword = \"{password}\""), expected);
        let said = said("[customizations.user]", &format!("name = \"a\"\npassword = \"{password}\""));
        assert!(password.len() < 6 || !said.contains(&password), "a secret is not repeated: {said}");
    }
}

#[test]
fn mountpoints_are_those_that_bootc_hosts_can_have() {
    for (mountpoint, expected) in [
        ("/", ""),
        ("/boot", ""),
        ("/var/lib/data", ""),
        ("/var/log", ""),
        ("/var", "ostree keeps it beside the deployments"),
        ("/var/home", "links at the top"),
        ("/var/roothome/x", "links at the top"),
        ("/var/run", "it is a link"),
        ("/home", "a link into /var"),
        ("/usr/local", "a link into /var"),
        ("/usr", "read-only"),
        ("/etc", "upgrades merge it"),
        ("/boot/efi", "the boot loader's"),
        ("/sysroot", "ostree's own"),
        ("/tmp", "made at each boot"),
        ("/data", "no such folder"),
        ("var/lib", "is not a mountpoint"),
        ("/var/../etc", "is not a mountpoint"),
        ("/var//lib", "is not a mountpoint"),
        ("/var/lib/", "is not a mountpoint"),
        ("", "is not a mountpoint"),
    ] {
        let line = format!("mountpoint = \"{mountpoint}\"\nminsize = \"1 GiB\"");
        check("[customizations.filesystem]", &line, expected);
        check("[customizations.disk.partitions]", &line, expected);
    }
    let twice = "[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = 1\n".repeat(2);
    assert!(parse(&twice).unwrap_err().contains("two file systems for `/`"));
    let both = "[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = 1\n[customizations.disk]\n";
    assert!(parse(both).unwrap_err().contains("beside [customizations.disk]"));
}

#[test]
fn sizes_are_osbuilds() {
    let bytes = |size: &str| {
        let config = parse(&format!("[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = {size}"));
        match config.map(|config| config.storage) {
            Ok(Storage::FileSystems(file_systems)) => Some(file_systems[0].least),
            Ok(Storage::Unsaid | Storage::Partitions(_)) | Err(_) => None,
        }
    };
    for (size, expected) in [
        ("\"20 GiB\"", Some(20 << 30)),
        ("\"20GB\"", Some(20_000_000_000)),
        ("\"2 TiB\"", Some(2 << 40)),
        ("1048576", Some(1 << 20)),
        ("\"1048576\"", Some(1 << 20)),
        ("\"0 GiB\"", None),
        ("0", None),
        ("-1", None),
        ("1.5", None),
        ("\"1.5 GiB\"", None),
        ("\"20 gib\"", None),
        ("\"99999999 TiB\"", None),
        ("\"99999999999999999999\"", None),
        ("\"\"", None),
    ] {
        assert_eq!(bytes(size), expected, "{size}");
    }
    check("[customizations.filesystem]", "mountpoint = \"/\"", "it has no minsize");
    check("[customizations.filesystem]", "minsize = 5", "a file system has no mountpoint");
    let swap = "minsize = 1\nfs_type = \"swap\"\nmountpoint = \"/\"";
    check("[customizations.disk.partitions]", swap, "swap has a mountpoint");
    check(
        "[customizations.disk.partitions]",
        "minsize = 1\nmountpoint = \"/\"\nsubvolumes = []",
        "not a key that is read here",
    );
}

#[test]
fn kernel_arguments_leave_the_boot_to_ostree() {
    for (argument, expected) in [
        ("quiet console=ttyS0,115200n8 a.b=c*d[0]", ""),
        ("root=/dev/sda1", "the boot loader's own"),
        ("ostree=/x", "the boot loader's own"),
        ("ro", "the boot loader's own"),
        ("init=/bin/sh", "the boot loader's own"),
        ("a='b'", "treat differently"),
        ("a=\\\"b", "treat differently"),
        ("a=$b", "treat differently"),
        ("ä=b", "treat differently"),
        ("a\\nb", "line break"),
        ("a\\u0007", "control character"),
    ] {
        check("customizations.kernel", &format!("append = \"{argument}\""), expected);
    }
    let arguments = |line: &str| KernelArguments::parse(line).0;
    let usual = arguments("console=tty0 console=ttyS0 quiet");
    for (additions, expected) in [
        ("", "console=tty0 console=ttyS0 quiet"),
        ("console=ttyS1", "quiet console=ttyS1"),
        ("x=1 console=a console=b", "quiet x=1 console=a console=b"),
        ("consol=1", "console=tty0 console=ttyS0 quiet consol=1"),
    ] {
        assert_eq!(usual.with(&arguments(additions)).to_string(), expected);
    }
}

#[test]
fn a_format_adds_arguments_only() {
    assert_eq!(
        additions("ami.toml", b"[customizations.kernel]\nappend = \"a=1\"").unwrap().to_string(),
        "a=1"
    );
    assert_eq!(additions("ami.toml", b"").unwrap(), KernelArguments::default());
    let error = additions("ami.toml", b"[[customizations.user]]\nname = \"a\"").unwrap_err().to_string();
    assert!(error.contains("ami.toml:1: 'customizations.user' is not a key"), "{error}");
}

#[test]
fn a_kickstart_stands_alone() {
    let kickstart = "[customizations.installer.kickstart]\ncontents = \"text\"\n";
    for (with, expected) in [
        ("[[customizations.user]]\nname = \"a\"\n", "there are users or groups beside a kickstart"),
        ("[[customizations.group]]\nname = \"a\"\n", "there are users or groups beside a kickstart"),
        ("[customizations.installer]\nunattended = true\n", "there is 'unattended' beside a kickstart"),
        (
            "[customizations.installer]\nsudo-nopasswd = [\"a\"]\n",
            "there is 'sudo-nopasswd' beside a kickstart",
        ),
    ] {
        let error = parse(&format!("{with}{kickstart}")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    check("customizations.installer.kickstart", "contents = \"  \"", "the kickstart is empty");
    check("customizations.installer.kickstart", "", "the kickstart has no contents");
}

#[test]
fn what_is_no_config_is_refused() {
    let refuse = |bytes: &[u8]| Config::parse("f", bytes, &[]).unwrap_err().to_string();
    for (bytes, expected) in [
        (&b"# ok\n\xff\xfe"[..], "f:2: it is not UTF-8 text"),
        (b"a = 1\nb = \"\0\"", "f:2: it is not TOML"),
        (b"[customizations\n", "f:1: it is not TOML"),
        (b"[customizations]\n\n[[customizations.user]]\nname = \"dev", "f:4: it is not TOML"),
        (b"[a]\n[a]\n", "f:2: it is not TOML"),
        (b"customizations = 1", "f:1: 'customizations' is not a table"),
        (b"[customizations]\nuser = \"a\"", "f:2: 'customizations.user' is not a list of tables"),
        (b"[[customizations.kernel]]", "f:1: 'customizations.kernel' is not a table"),
    ] {
        let said = refuse(bytes);
        assert!(said.contains(expected) && said.contains("hint: "), "{said}");
    }
    // Nothing is deep enough, or long enough, to end the process.
    refuse(format!("a = {}", "[".repeat(500_000)).as_bytes());
    refuse(format!("a{} = 1", ".a".repeat(300_000)).as_bytes());
    assert!(refuse(&vec![b'#'; (1 << 20) + 1]).contains("larger than 1 MiB"));
}

#[test]
fn keys_that_are_given_go_to_the_users_or_make_one() {
    let key: PublicKey = ED25519.parse().unwrap();
    let users = |text: &str| {
        let config = Config::parse("f", text.as_bytes(), std::slice::from_ref(&key)).unwrap();
        let users = config.users.iter();
        users
            .map(|user| format!("{} {} {}", user.name, user.keys.len(), user.groups.join(",")))
            .collect::<Vec<_>>()
    };
    assert_eq!(users(""), ["devops 1 wheel"]);
    assert_eq!(users("[customizations.kernel]\nappend = \"quiet\""), ["devops 1 wheel"]);
    assert_eq!(
        users("[[customizations.user]]\nname = \"a\"\n[[customizations.user]]\nname = \"b\""),
        ["a 1 ", "b 1 "]
    );
    assert_eq!(
        users(&format!("[[customizations.user]]\nname = \"a\"\nkey = \"{ED25519}\"")),
        ["a 1 "],
        "not twice"
    );
    let placeholder = "[[customizations.user]]\nname = \"a\"\nkey = \"ssh-ed25519 AAAA... replace-me\"";
    assert_eq!(users(placeholder), ["a 1 "]);
    assert!(parse(placeholder).unwrap_err().contains("f:3: the ssh key is a placeholder"));
    let root = format!("[[customizations.user]]\nname = \"root\"\npassword = \"$2b$12${}\"", "a".repeat(53));
    assert_eq!(users(&root), ["root 0 ", "devops 1 wheel"]);
    assert_eq!(parse(&root).unwrap().logins(), "who can log in: root (password)");
    assert!(parse("").unwrap().logins().starts_with("no login is baked in"));
}

#[test]
fn what_stands_for_a_key_is_no_key() {
    for text in [
        "ssh-ed25519 AAAA... replace-me",
        "ssh-rsa AAAAB3...",
        "<your public key>",
        "YOUR_SSH_PUBLIC_KEY",
        "ssh-ed25519 REPLACE_ME",
        "ssh-rsa AAAA… user@example.com",
        &ED25519.replace("me@here", "changeme"),
        &format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}", "A".repeat(43)),
    ] {
        assert_eq!(text.parse::<PublicKey>(), Err(key::BadKey::Placeholder), "{text}");
    }
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----";
    assert_eq!(key::keys(private), Err(key::BadKey::Private));
    let error =
        parse(&format!("[[customizations.user]]\nname = \"a\"\nkey = \"\"\"{private}\"\"\"")).unwrap_err();
    assert!(error.contains("it is a private key") && !error.contains("b3BlbnNz"), "{error}");
    assert_eq!(key::keys("# none\n\n"), Err(key::BadKey::None));
    assert_eq!(key::keys("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA"), Err(key::BadKey::Rfc4716));
    assert_eq!("ssh-dss AAAA me".parse::<PublicKey>(), Err(key::BadKey::Old("ssh-dss".to_owned())));
    let options = format!("command=\"x\" {ED25519}");
    assert!(matches!(options.parse::<PublicKey>(), Err(key::BadKey::Type(_))));
    assert_eq!(key::keys(&format!("# mine\n{ED25519}\n\n{ED25519}\n")).map(|keys| keys.len()), Ok(2));
}

/// Whether ssh-keygen reads a line as a key.
fn keygen_reads(line: &str) -> bool {
    let mut keygen = Command::new(program("ssh-keygen"));
    keygen.args(["-l", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut keygen = keygen.spawn().unwrap();
    writeln!(keygen.stdin.take().unwrap(), "{line}").unwrap();
    keygen.wait().unwrap().success()
}

#[test]
fn keys_are_read_as_ssh_keygen_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bits) in
        [("ed25519", "256"), ("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")]
    {
        let path = dir.path().join(format!("{kind}{bits}"));
        let mut keygen = Command::new(program("ssh-keygen"));
        keygen.args(["-q", "-t", kind, "-b", bits, "-N", "", "-f"]).arg(&path);
        assert!(keygen.status().unwrap().success());
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let line = line.trim();
        assert!(line.parse::<PublicKey>().is_ok() && keygen_reads(line), "{line}");

        // What is cut off, or has more, or another type.
        let (name, rest) = line.split_once(' ').unwrap();
        let blob = STANDARD.decode(rest.split(' ').next().unwrap()).unwrap();
        let longer = [&blob[..], &[0]].concat();
        let shortened =
            [blob.len() - 1, blob.len() / 2, 24, 19, 4, 3, 0].map(|length| blob[..length].to_vec());
        for other in [longer].into_iter().chain(shortened) {
            let line = format!("{name} {}", STANDARD.encode(other));
            assert_eq!(line.parse::<PublicKey>().is_ok(), keygen_reads(&line), "{line}");
        }
        let other = if kind == "rsa" { "ssh-ed25519" } else { "ssh-rsa" };
        let line = format!("{other} {rest}");
        assert!(line.parse::<PublicKey>().is_err() && !keygen_reads(&line), "{line}");
    }
    let path = dir.path().join("short");
    let mut keygen = Command::new(program("ssh-keygen"));
    keygen.args(["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f"]).arg(&path);
    assert!(keygen.status().unwrap().success());
    let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    assert_eq!(line.trim().parse::<PublicKey>(), Err(key::BadKey::Short { bits: 1024 }));
}
