#!/bin/sh
# Makes a Debian root image-based. Runs inside the root, as /customize.sh, twice:
# after the essential packages (users) and after all packages (everything else).
set -eu
umask 022
cd /
exec >&2 # stdout is the tar.

say() { echo "I: image: $*"; }
fail() { echo "E: image: $*"; exit 1; }

# /etc/passwd and /etc/group from sysusers.d, before a package asks for a user. A package
# that finds its user leaves it alone, so the ids are ours.
make_users() {
	say "making the system users"
	awk -F '"' '
		/^[ug] / {
			# The description is the only quoted field, and may hold spaces.
			gecos = NF > 1 ? $2 : ""
			if (NF > 1) $0 = $1 "-" $3
			n = split($0, f, " ")
			m = split(f[3], id, ":")
			if (m == 1) print f[2] ":*:" id[1] ":" >>"/etc/group"
			if (f[1] != "u") next
			gid = m > 1 ? id[2] : id[1]
			print f[2] ":*:" id[1] ":" gid ":" gecos ":" f[n - 1] ":" f[n] >>"/etc/passwd"
		}' /usr/lib/sysusers.d/10-testboot*.conf
}

# When the newest package was made, which is what its files are dated by. Only files are asked that
# nobody edits; those that dpkg.cfg leaves out are not there.
note_newest_package() {
	mkdir -p /usr/share/testboot
	sed -n 's,^[0-9a-f]\{32\}  ,/,p' /var/lib/dpkg/info/*.md5sums | tr '\n' '\0' |
		xargs -0 stat --format=%Y 2>/dev/null | sort -n | tail -n 1 >/usr/share/testboot/newest-package
	say "its newest package is of $(date -u -d "@$(cat /usr/share/testboot/newest-package)" +%F)"
}

# bootc and ostree look for the kernel and the initramfs beside the modules.
place_kernel() {
	version=$(ls /usr/lib/modules)
	[ -f "/boot/vmlinuz-$version" ] || fail "not exactly one kernel: $version"
	modules=/usr/lib/modules/$version
	mv "/boot/vmlinuz-$version" "$modules/vmlinuz"
	mv "/boot/config-$version" "$modules/config"
	say "making the initramfs of $version"
	# The same initramfs for root and for an ordinary user, who can make neither extended
	# attributes nor device nodes. The kernel brings its own /dev/console and mounts devtmpfs.
	DRACUT_NO_XATTR=1 DRACUT_NO_MKNOD=1 dracut --force --tmpdir /tmp --kver "$version" "$modules/initramfs.img" \
		>/tmp/dracut.log 2>&1 || {
		cat /tmp/dracut.log
		fail "dracut failed"
	}
	find /boot -mindepth 1 -delete
	rm -f /vmlinuz /vmlinuz.old /initrd.img /initrd.img.old
}

# Python believes a compiled file whose source has the same mtime, and an image has only
# mtime 0. /usr is read-only, so no check is needed: without one, imports are faster.
compile_python() {
	say "compiling Python modules"
	python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.*
}

# What no preset names, `preset-all` enables, and Debian names little: there would be two units for
# one port. So what is on, and what is not, is written down, in a list that sorts after ours and
# the apps', and before systemd's.
note_presets() {
	scope=$1
	shift
	{
		echo "# Made from what the packages turn on."
		systemctl --root=/ "$@" --no-legend list-unit-files |
			awk '$2 ~ /^(enabled|disabled)$/ { print substr($2, 1, length($2) - 1), $1 }' | LC_ALL=C sort
	} >"/usr/lib/systemd/$scope-preset/80-testboot-packages.preset"
}

# Services are on by links below /usr: a link in /etc would be merged with the host's.
enable_services() {
	say "enabling services"
	preset=/usr/lib/systemd/system-preset/50-testboot.preset
	for verb in enable disable; do
		# shellcheck disable=SC2046 # One word a unit.
		systemctl --root=/ --quiet preset $(awk -v verb=$verb '$1 == verb { print $2 }' $preset)
	done
	systemctl --root=/ --quiet set-default multi-user.target
	# The file system follows the partition that systemd-repart has grown.
	systemctl --root=/ --quiet add-wants sysinit.target systemd-growfs@var.service
	note_presets system
	note_presets user --global
	for scope in system user; do
		from=/etc/systemd/$scope
		to=/usr/lib/systemd/$scope
		(cd $from && find . -type l) | while read -r link; do
			mkdir -p "$to/${link%/*}"
			mv -f "$from/$link" "$to/$link"
		done
		find $from -mindepth 1 -depth -type d -empty -delete
	done
}

# The pool is named in conf.d, once.
drop_pool() {
	sed -i '/^pool /d' /etc/chrony/chrony.conf
	grep -q '^confdir /etc/chrony/conf.d$' /etc/chrony/chrony.conf || fail "chrony.conf does not read conf.d"
}

# What differs from host to host, or tells of the machine that built the image.
forget_machine() {
	: >/etc/machine-id
	: >/etc/fstab
	rm -f /etc/hostname /etc/.pwd.lock /etc/.resolv.conf.* /etc/ssh/ssh_host_*
	rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
	# The mirror that this build used; debian.sources names Debian's own.
	rm -f /etc/apt/sources.list /etc/apt/apt.conf.d/99mmdebstrap
	ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
}

# /var belongs to the host: directories become tmpfiles.d lines, files are copied from
# /usr/share/factory at the first boot, and what only packaging tools read is dropped.
empty_var() {
	say "turning /var into tmpfiles.d"
	mkdir -p /usr/lib/sysimage /usr/share/factory
	mv /var/lib/dpkg /usr/lib/sysimage/dpkg
	rm -f /usr/lib/sysimage/dpkg/*-old /usr/lib/sysimage/dpkg/lock*
	rm -rf /var/tmp /var/lib/apt /var/lib/pam /var/lib/ucf /var/lib/shells.state
	rm -rf /var/lib/systemd/deb-systemd-helper-* /var/lib/systemd/deb-systemd-user-helper-*
	find /var/cache /var/log ! -type d -delete
	rm -f /var/lib/dbus/machine-id

	# Paths that Debian's own files, or ours, declare already.
	awk '$1 ~ /^[dDvqQLC]/ { sub(/\/$/, "", $2); print $2 }' /usr/lib/tmpfiles.d/*.conf >/tmp/declared
	{
		echo "# Made from the packages' /var."
		find /var -mindepth 1 -printf '%p\t%y\t%m\t%u\t%g\t%l\n' | LC_ALL=C sort |
			awk -F '\t' '
				FILENAME == "/tmp/declared" { declared[$0] = 1; next }
				$1 in declared { next }
				/[ "]/ { print "E: image: tmpfiles.d cannot name " $1 >"/dev/stderr"; exit 1 }
				$2 == "d" { print "d", $1, "0" $3, $4, $5, "-" }
				$2 == "f" { print "C", $1, "0" $3, $4, $5, "-" }
				$2 == "l" { print "L", $1, "-", "-", "-", "-", $6 }
			' /tmp/declared -
	} >/usr/lib/tmpfiles.d/zz-testboot-var.conf
	awk '$1 == "C" { print $2 }' /usr/lib/tmpfiles.d/zz-testboot-var.conf | while read -r file; do
		mkdir -p "/usr/share/factory${file%/*}"
		mv "$file" "/usr/share/factory$file"
	done
	find /var -mindepth 1 -delete
}

# The top of the root as ostree wants it: everything writable is a link into /var or /run.
link_top() {
	for name in home mnt opt srv; do
		rm -rf "/${name:?}"
		ln -s "var/$name" "/$name"
	done
	for name in root media usr/local; do rm -rf "/${name:?}"; done
	ln -s var/roothome /root
	ln -s run/media /media
	ln -s ../var/usrlocal /usr/local
	mkdir /sysroot
	ln -s sysroot/ostree /ostree
	# It would make /home and /srv, and complain that they are links.
	rm /usr/lib/tmpfiles.d/home.conf
	# systemd-tmpfiles does not follow /root to where a credential's key belongs.
	provision=/usr/lib/tmpfiles.d/provision.conf
	sed -i 's, /root, /var/roothome,' $provision
	grep -q ' /var/roothome/.ssh/authorized_keys ' $provision || fail "$provision has changed"
}

case ${MMDEBSTRAP_HOOK:?} in
essential)
	make_users
	;;
customize)
	note_newest_package
	place_kernel
	compile_python
	enable_services
	drop_pool
	forget_machine
	empty_var
	link_top
	find /run /tmp -mindepth 1 -xdev -delete
	rm /customize.sh
	;;
*) fail "unexpected hook: $MMDEBSTRAP_HOOK" ;;
esac
