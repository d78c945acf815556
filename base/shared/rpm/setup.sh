#!/bin/sh
# Makes a base out of a distro's own bootc image that is made of RPM packages: installs what
# packages.list names, puts the tuning in its place and turns services on. A Containerfile runs it
# with base/shared mounted at /run/base, and names the packages that bring further repositories.
set -eu
umask 022

shared=/run/base
rpm=$shared/rpm
preset=usr/lib/systemd/system-preset/50-testboot.preset

fail() {
	echo "base: error: $*" >&2
	exit 1
}

# Before any package: one that finds its user leaves it alone, so the ids are ours.
make_users() {
	for file in "$shared/rootfs" "$rpm/rootfs"; do
		file=$(echo "$file"/usr/lib/sysusers.d/10-testboot*.conf)
		systemd-sysusers "$file"
		awk '$1 == "u" { print $2, $3 }' "$file" | while read -r user id; do
			[ "$(id -u "$user"):$(id -g "$user")" = "$id:$id" ] || fail "the ids of $user are not $id"
		done
	done
}

accounts() {
	getent passwd | sed 's/^\([^:]*\):.*/u \1/'
	getent group | sed 's/^\([^:]*\):.*/g \1/'
}

# A host keeps its own /etc/passwd, so a later image's users come to it by sysusers.d alone. A line
# for a user is one for its group too.
check_accounts() {
	accounts | grep -vxFf /tmp/accounts | while read -r kind name; do
		grep -qsE "^(u!?|$kind)[[:space:]]+${name}[[:space:]]" /usr/lib/sysusers.d/*.conf "$rpm"/rootfs/usr/lib/sysusers.d/*.conf ||
			fail "a package has made $name ($kind), which no sysusers.d file has: give it an id in rpm/rootfs/usr/lib/sysusers.d"
	done
	rm /tmp/accounts
}

install_packages() {
	[ $# = 0 ] || dnf -y install "$@"
	# shellcheck disable=SC2046 # One word a package.
	dnf -y install --setopt=install_weak_deps=False $(sed 's/#.*//' "$rpm/packages.list")
}

# File by file, and not by COPY: that would also give /etc and /usr the modes that these folders
# have in somebody's checkout.
install_files() {
	for rootfs in "$shared/rootfs" "$rpm/rootfs"; do
		(cd "$rootfs" && find . ! -type d) | while read -r file; do
			mode=0644
			[ ! -x "$rootfs/$file" ] || mode=0755
			if [ -L "$rootfs/$file" ]; then
				mkdir -p "/${file%/*}"
				cp -P "$rootfs/$file" "/$file"
			else
				install -D -m "$mode" "$rootfs/$file" "/$file"
			fi
		done
	done
}

# Debian's chrony reads this folder by itself, the others' only where it is told to. The pool is
# named in it, once.
include_chrony() {
	line='confdir /etc/chrony/conf.d'
	sed -i '/^pool /d' /etc/chrony.conf
	grep -qxF "$line" /etc/chrony.conf || printf '\n%s\n' "$line" >>/etc/chrony.conf
}

# Links in /etc are these distros' own convention: an operator's `systemctl disable` works. They
# last, since the preset below /usr says the same to a first boot and to `preset-all`.
enable_services() {
	awk '$1 == "enable" { print $2 }' "/$preset" | while read -r unit; do
		case $unit in
		cloud-*) [ -f "/usr/lib/systemd/system/$unit" ] || continue ;;
		esac
		systemctl --root=/ preset "$unit"
		systemctl --root=/ --quiet is-enabled "$unit" || fail "$unit is not enabled"
	done
	[ -f /usr/lib/systemd/system/cloud-final.service ] || fail "cloud-init has no units"
	# It waits for systemd-timesyncd, and for ever where chronyd keeps the time.
	systemctl --root=/ mask systemd-time-wait-sync.service
}

# -P writes it into the policy, which the host loads; -N, because there is none to reload here.
# Without it, nginx may not connect to the apps behind it.
configure_selinux() {
	store=/etc/selinux/targeted
	# It renames a folder of the store, and overlayfs renames none that is in a lower layer.
	cp -a $store $store.new
	rm -rf $store
	mv $store.new $store
	setsebool -P -N httpd_can_network_connect=1
	grep -qx httpd_can_network_connect=1 $store/active/booleans.local || fail "setsebool has set nothing"
}

configure_firewall() {
	# Setting what is set already is an error.
	[ "$(firewall-offline-cmd --get-default-zone)" = public ] || firewall-offline-cmd --set-default-zone=public
	firewall-offline-cmd --check-config
	open=$(firewall-offline-cmd --zone=public --list-services | tr ' ' '\n' | sort | tr '\n' ' ')
	[ "$open" = "dhcpv6-client http https ssh " ] || fail "the firewall is open to: $open"
}

# What only the installation needed, or what tells of the machine that made the image.
clean() {
	dnf clean all
	rm -rf /var/lib/dnf /var/lib/rhsm /var/log/dnf* /var/log/hawkey* /var/log/rhsm
	# What CentOS's own build says of itself.
	rm -rf /var/roothome/buildinfo
	rm -f /etc/.pwd.lock /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
	find /var/cache /tmp -mindepth 1 -delete
	# The engine's own mounts stay: resolv.conf is one of them where /etc/resolv.conf is a link.
	find /run -xdev -depth -mindepth 1 ! -path "$shared" ! -path "$shared/*" ! -path '/run/secrets*' \
		! -name .containerenv ! -path /run/systemd ! -path '/run/systemd/resolve*' -delete
}

# A host unpacks /var at its installation only, and what packages need there later has to be
# declared. bootc's lint wants a line for every folder, and refuses files.
declare_var() {
	files=$(find /var -xdev -type f)
	[ -z "$files" ] || fail "files in /var, which no upgrade brings to a host: $files"
	awk '$1 ~ /^[dDvqQL]/ { sub(/\/$/, "", $2); print $2 }' /usr/lib/tmpfiles.d/*.conf >/tmp/declared
	{
		echo "# Made from the packages' /var."
		find /var -mindepth 1 -xdev \( -type d -o -type l \) -printf '%p\t%y\t%m\t%u\t%g\t%l\n' | LC_ALL=C sort |
			awk -F '\t' '
				FILENAME == "/tmp/declared" { declared[$0] = 1; next }
				$1 in declared { next }
				/[ "]/ { print "base: error: tmpfiles.d cannot name " $1 >"/dev/stderr"; exit 1 }
				$2 == "d" { print "d", $1, "0" $3, $4, $5, "-" }
				$2 == "l" { print "L", $1, "-", "-", "-", "-", $6 }
			' /tmp/declared -
	} >/usr/lib/tmpfiles.d/zz-testboot-var.conf
	rm /tmp/declared
}

make_users
accounts >/tmp/accounts
install_packages "$@"
check_accounts
install_files
include_chrony
enable_services
configure_selinux
configure_firewall
clean
declare_var
