#!/bin/sh
# What a real build refuses, tried on its stand-ins in a finished base: what a step may leave, and
# what may be called wrongly. All of it is taken back.
set -eu
told=/usr/share/standin/faults

# What is done first, what is called then, what takes the first back.
tell() {
	sh -euc "$1"
	code=0
	said=$(sh -c "$2" 2>&1) || code=$?
	sh -euc "$3"
	printf '%s: %s %s\n' "$1${1:+; }$2" $code "$(printf '%s\n' "${said:-nothing}" | paste -sd ';' -)" >>$told
}
leaves() { tell "$1" "bootc container lint --fatal-warnings" "$2"; }
calls() { tell "" "$1" ""; }

leaves : :
leaves "echo x >/var/log/x" "rm /var/log/x"
leaves "mkdir /var/lib/x" "rmdir /var/lib/x"
leaves ": >/var/lib/nginx/x" "rm /var/lib/nginx/x"
leaves "mkdir /run/x" "rmdir /run/x"
leaves ": >/tmp/x" "rm /tmp/x"
leaves "mkdir /boot/x" "rmdir /boot/x"
leaves "mkdir /usr/etc" "rmdir /usr/etc"
leaves "rm /var/run; mkdir /var/run" "rmdir /var/run; ln -s /run /var/run"
leaves "echo x:x:976:976::/:/bin/sh >>/etc/passwd" "sed -i '/^x:/d' /etc/passwd"
leaves "echo x:x:976: >>/etc/group" "sed -i '/^x:/d' /etc/group"
leaves "rm /ostree" "ln -s sysroot/ostree /ostree"
leaves "touch \$(printf '/usr/share/\\377')" "rm \$(printf '/usr/share/\\377')"

calls "bootc container lint"
calls "dnf -y install nginx-light"
calls "dnf install jq"
calls "dnf -y install"
calls "dnf -y --quick install jq"
calls "dnf -y install --setopt=weak_deps=False jq"
calls "dnf -y remove jq"
calls "dnf clean everything"
calls "setsebool -P httpd_can_network_connect=1"
calls "setsebool -P -N httpd_can_network=1"
calls "setsebool -P -N httpd_can_network_connect=yes"
calls "firewall-offline-cmd --set-default-zone=public"
calls "firewall-offline-cmd --set-default-zone=open"
calls "firewall-offline-cmd --zone=open --list-services"
calls "firewall-offline-cmd --zone=public --add-port=8080/tcp"
zone=/etc/firewalld/zones/public.xml
tell "sed -i s/https/htps/ $zone" "firewall-offline-cmd --check-config" "sed -i s/htps/https/ $zone"
tell "sed -i s,/zone,zone, $zone" "firewall-offline-cmd --check-config" "sed -i '\$s,<zone,</zone,' $zone"
