//! What disks are made with, besides their image: users, sizes, arguments of the kernel.
//!
//! `configs/builder/config.toml` is the part of osbuild's blueprints that its builders read for bootc
//! images. All of it is checked before anything starts; a builder then says what it cannot do.
//! Source: osbuild.org, "Blueprint reference"; bootc-image-builder's README.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod account;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod blueprint;
mod files;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod kernel;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod key;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod read;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod storage;

pub(crate) use self::account::{ADMINISTRATORS, Group, User};
pub(crate) use self::files::Configs;
pub(crate) use self::kernel::KernelArguments;
pub(crate) use self::key::PublicKey;
pub(crate) use self::read::Problems;
pub(crate) use self::storage::Storage;

use self::read::{Notes, Section};

/// What one disk is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) users: Vec<User>,
    pub(crate) groups: Vec<Group>,
    pub(crate) kernel: KernelArguments,
    pub(crate) storage: Storage,
    pub(crate) installer: Installer,
    pub(crate) iso: Iso,
}

/// What an installer does; disks that are not installers have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installer {
    pub(crate) kickstart: Option<String>,
    pub(crate) unattended: bool,
    pub(crate) sudo_nopasswd: Vec<String>,
    pub(crate) enable_modules: Vec<String>,
    pub(crate) disable_modules: Vec<String>,
}

/// What an ISO says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Iso {
    pub(crate) volume_id: Option<String>,
    pub(crate) application_id: Option<String>,
    pub(crate) publisher: Option<String>,
}

impl Config {
    /// Reads `file`'s content. `keys` go to all its users, or make one where there are none.
    pub(crate) fn parse(file: &str, bytes: &[u8], keys: &[PublicKey]) -> Result<Config, Problems> {
        read::read(file, bytes, |top, notes| config(top, keys, notes))
    }

    /// With `additions` to the kernel's arguments, which stand instead of those of their names.
    pub(crate) fn with(&self, additions: &KernelArguments) -> Config {
        Config { kernel: self.kernel.with(additions), ..self.clone() }
    }

    /// Who can log in without having been told of by a cloud or a seed.
    pub(crate) fn logins(&self) -> String {
        let logins: Vec<String> = self.users.iter().filter_map(User::login).collect();
        match (logins.is_empty(), &self.installer.kickstart) {
            (false, _) => format!("who can log in: {}", logins.join(", ")),
            (true, Some(_)) => "who can log in: whom the kickstart makes".to_owned(),
            (true, None) => {
                "no login is baked in: keys come through cloud-init at first boot ('--ssh-key FILE' adds one)"
                    .to_owned()
            }
        }
    }
}

fn config(mut top: Section<'_>, keys: &[PublicKey], notes: &mut Notes<'_>) -> Config {
    let section = top.section("customizations", notes);
    top.finish(notes, |key| match key {
        "name" | "description" | "version" | "distro" => {
            Some("remove it: the image has a name and a version")
        }
        "packages" | "modules" | "groups" | "containers" => {
            Some("what is installed comes with the base: base/")
        }
        _ => None,
    });
    match section {
        Some(section) => customizations(section, keys, notes),
        None if keys.is_empty() => Config::default(),
        None => Config { users: vec![User::operator(keys)], ..Config::default() },
    }
}

fn customizations(mut section: Section<'_>, keys: &[PublicKey], notes: &mut Notes<'_>) -> Config {
    let own_users = section.sections("user", notes);
    let accounts_line = own_users.first().map(|user| user.line);
    let mut users = account::users(own_users, keys, notes);
    let groups = section.sections("group", notes);
    let accounts_line = accounts_line.or(groups.first().map(|group| group.line));
    let groups = account::groups(groups, notes);
    let kernel = section.section("kernel", notes).map(|section| kernel(section, notes)).unwrap_or_default();
    let storage = storage(&mut section, notes);
    let installer =
        section.section("installer", notes).map(|section| installer(section, notes)).unwrap_or_default();
    let iso = section.section("iso", notes).map(|section| iso(section, notes)).unwrap_or_default();
    section.finish(notes, |key| match key {
        "sshkey" => Some("write it as 'key' of a [[customizations.user]]"),
        "hostname" | "timezone" | "locale" | "firewall" | "services" | "directories" | "files"
        | "repositories" | "openscap" | "fips" | "rhsm" | "cacerts" | "rpm" => {
            Some("it belongs to the image, where upgrades can change it: configs/os or base/")
        }
        "partitioning_mode" => Some("write the partitions as [customizations.disk]"),
        _ => None,
    });
    if let (Some(_), Some(line)) = (&installer.kickstart, accounts_line) {
        notes.add(
            line,
            "there are users or groups beside a kickstart: osbuild makes them by a kickstart of its own",
            "move them into the kickstart, or remove that",
        );
    } else if users.iter().all(|user| user.name == "root") && !keys.is_empty() {
        users.push(User::operator(keys));
    }
    Config { users, groups, kernel, storage, installer, iso }
}

fn kernel(mut section: Section<'_>, notes: &mut Notes<'_>) -> KernelArguments {
    let mut arguments = KernelArguments::default();
    if let Some(text) = section.string("append", notes) {
        let (good, bad) = KernelArguments::parse(text.value);
        bad.iter().for_each(|bad| notes.add(text.line, bad, bad.hint()));
        arguments = good;
    }
    section.finish(notes, |key| (key == "name").then_some("remove it: the kernel is the image's"));
    arguments
}

fn storage(section: &mut Section<'_>, notes: &mut Notes<'_>) -> Storage {
    let file_systems = section.sections("filesystem", notes);
    let file_systems = storage::file_systems(file_systems, notes);
    let disk = section.section("disk", notes);
    let line = disk.as_ref().map(|disk| disk.line);
    let partitions = disk.map(|disk| storage::partitions(disk, notes));
    if let (Some(line), false) = (line, file_systems.is_empty()) {
        notes.add(
            line,
            "there are [[customizations.filesystem]] beside [customizations.disk]",
            "keep one of them",
        );
    }
    match (partitions, file_systems.is_empty()) {
        (Some(partitions), _) => Storage::Partitions(partitions),
        (None, false) => Storage::FileSystems(file_systems),
        (None, true) => Storage::Unsaid,
    }
}

fn installer(mut section: Section<'_>, notes: &mut Notes<'_>) -> Installer {
    let mut installer = Installer::default();
    let mut with_kickstart = Vec::new();
    if let Some(unattended) = section.boolean("unattended", notes) {
        installer.unattended = unattended;
        with_kickstart.push("unattended");
    }
    for text in section.strings("sudo-nopasswd", notes) {
        let name = account::valid_name(text.value, "user");
        installer.sudo_nopasswd.extend(notes.check(text.line, name, |_| "name a user".to_owned()));
        with_kickstart.push("sudo-nopasswd");
    }
    if let Some(mut kickstart) = section.section("kickstart", notes) {
        match kickstart.lines("contents", notes) {
            Some(text) if text.value.trim().is_empty() => {
                notes.add(text.line, "the kickstart is empty", "write its lines between \"\"\"");
            }
            Some(text) => {
                installer.kickstart = Some(text.value.to_owned());
                for key in with_kickstart {
                    let message =
                        format!("there is '{key}' beside a kickstart: osbuild would write another kickstart");
                    notes.add(text.line, message, format!("put what '{key}' does into the kickstart"));
                }
            }
            None if kickstart.has("contents") => (),
            None => {
                notes.add(kickstart.line, "the kickstart has no contents", "add 'contents = \"\"\"...\"\"\"'")
            }
        }
        kickstart.finish(notes, |_| None);
    }
    if let Some(mut modules) = section.section("modules", notes) {
        let names =
            |texts: Vec<read::Text<'_>>| texts.into_iter().map(|text| text.value.to_owned()).collect();
        installer.enable_modules = names(modules.strings("enable", notes));
        installer.disable_modules = names(modules.strings("disable", notes));
        modules.finish(notes, |_| None);
    }
    section.finish(notes, |_| None);
    installer
}

fn iso(mut section: Section<'_>, notes: &mut Notes<'_>) -> Iso {
    // Source: ECMA-119, 8.4: how long each may be.
    let mut text = |key, most: usize| {
        let text = section.string(key, notes)?;
        let fits = text.value.len() <= most && text.value.is_ascii();
        if !fits {
            notes.add(
                text.line,
                format!("'{key}' has more than {most} characters, or others than ASCII"),
                "shorten it",
            );
        }
        fits.then(|| text.value.to_owned())
    };
    let iso = Iso {
        volume_id: text("volume_id", 32),
        application_id: text("application_id", 128),
        publisher: text("publisher", 128),
    };
    section.finish(notes, |_| None);
    iso
}

/// What a format adds: arguments of the kernel, and nothing else, so that its disks differ in little.
fn additions(file: &str, bytes: &[u8]) -> Result<KernelArguments, Problems> {
    read::read(file, bytes, |mut top, notes| {
        let advice = |_: &str| Some("a format has [customizations.kernel] only: the rest is in config.toml");
        let section = top.section("customizations", notes);
        top.finish(notes, advice);
        let Some(mut section) = section else { return KernelArguments::default() };
        let arguments = section.section("kernel", notes).map(|section| kernel(section, notes));
        section.finish(notes, advice);
        arguments.unwrap_or_default()
    })
}

#[cfg(test)]
mod tests;
