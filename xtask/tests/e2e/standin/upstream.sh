#!/bin/sh
# Makes Debian's root, $1, look like a bootc image of a distro of RPM packages, as far as the build
# of a base can tell.
set -eu
cd "$1"

# What a later dnf brings is not there yet, or is where Debian has it and not where the others do.
rm -r etc/chrony etc/ssh
rm usr/lib/systemd/system/chrony* usr/lib/systemd/system/ssh* usr/lib/systemd/system/rescue-ssh*
find etc/systemd/system -type l \( -name 'chrony*' -o -name 'ssh*' \) -delete
rm usr/lib/sysctl.d/* usr/lib/systemd/journald.conf.d/syslog.conf

# An image has no state, and the accounts of a real one come from sysusers.d, with fixed ids.
rm -r var/log/apt
find boot -mindepth 1 -delete
find var -xdev -type f -delete
sed -n 's/^\([^:]*\):[^:]*:\([0-9]*\):.*/g \1 \2/p' etc/group >usr/lib/sysusers.d/standin.conf
sed -n 's/^\([^:]*\):[^:]*:\([0-9]*\):\([0-9]*\):.*/u \1 \2:\3/p' etc/passwd >>usr/lib/sysusers.d/standin.conf

# As the real ones: a link that an engine mounts over, what a build says of itself, a policy, a root
# for ostree.
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
mkdir -p var/roothome/buildinfo etc/selinux/targeted/active etc/yum.repos.d usr/share/standin sysroot
echo '{}' | tee var/roothome/buildinfo/labels.json >var/roothome/buildinfo/content-sets.json
echo policy >etc/selinux/targeted/active/policy.kern
ln -s sysroot/ostree ostree
echo 'net.core.somaxconn = 128' >usr/lib/sysctl.d/50-default.conf
ln -s ../sysctl.conf etc/sysctl.d/99-sysctl.conf
echo '# For the administrator.' >etc/sysctl.conf

# What no preset names is off, and bootc upgrades by itself.
units=usr/lib/systemd/system
echo 'disable *' >usr/lib/systemd/system-preset/99-default-disable.preset
printf '[Service]\nExecStart=/usr/bin/bootc update --apply\n' >$units/bootc-fetch-apply-updates.service
printf '[Timer]\nOnBootSec=1h\n[Install]\nWantedBy=timers.target\n' >$units/bootc-fetch-apply-updates.timer
mkdir -p $units/default.target.wants
ln -s ../bootc-fetch-apply-updates.timer $units/default.target.wants/
chroot . systemctl --root=/ --quiet preset-all
