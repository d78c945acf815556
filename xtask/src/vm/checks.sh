# Looks at a running system, over ssh, as a user who may use sudo. A line a check on standard output:
# `ok` or `bad`, its name, and what was found, with tabs between.
set -u

report() { printf '%s\t%s\t%s\n' "$1" "$2" "$(printf %s "$3" | tr '\n\t' '  ')"; }
equal() { # NAME FOUND EXPECTED
	if [ "$2" = "$3" ]; then report ok "$1" "$2"; else report bad "$1" "$2, and not $3"; fi
}

# Boot may still be under way.
equal "state" "$(sudo systemctl is-system-running --wait)" running
failed=$(systemctl list-units --failed --plain --no-legend --full | awk '{ print $1 }')
equal "failed units" "$failed" ""
equal "boot-complete.target" "$(systemctl is-active boot-complete.target)" active
if [ -e /run/ostree-booted ]; then report ok ostree booted; else report bad ostree "booted some other way"; fi

for folder in /usr /sysroot; do
	if sudo touch $folder/.probe 2>/dev/null; then
		sudo rm -f $folder/.probe
		report bad "$folder" "can be written"
	else
		report ok "$folder" "cannot be written"
	fi
done
for folder in /etc /var; do
	if sudo touch $folder/.probe; then report ok "$folder" "can be written"; else report bad "$folder" "cannot be written"; fi
	sudo rm -f $folder/.probe
done

# What the base sets is what the kernel has.
wrong=$(awk -F '[ \t]*=[ \t]*' '/^[a-z]/ { print $1, $2 }' /usr/lib/sysctl.d/*testboot*.conf | while read -r key value; do
	found=$(sudo sysctl -n "$key" | tr '\t' ' ')
	[ "$found" = "$value" ] || echo "$key is $found, and not $value"
done)
equal "kernel settings" "$wrong" ""
for limit in DefaultLimitNOFILE DefaultTasksMax; do
	expected=$(sed -n "s/^$limit=//p" /usr/lib/systemd/system.conf.d/*testboot*.conf)
	equal "$limit" "$(systemctl show --property=$limit --value)" "$expected"
done
if sudo test -d "/var/log/journal/$(cat /etc/machine-id)"; then
	report ok journal "kept in /var"
else
	report bad journal "not kept in /var"
fi
for option in passwordauthentication permitrootlogin permitemptypasswords; do
	equal "sshd $option" "$(sudo sshd -T | sed -n "s/^$option //p")" no
done
