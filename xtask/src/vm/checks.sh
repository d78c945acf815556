# Looks at a running system, over ssh, as a user who may use sudo. A line a check on standard output:
# `ok` or `bad`, its name, and what was found, with tabs between.
set -u

report() { printf '%s\t%s\t%s\n' "$1" "$2" "$(printf %s "$3" | tr '\n\t' '  ')"; }
equal() { # NAME FOUND EXPECTED
	if [ "$2" = "$3" ]; then report ok "$1" "$2"; else report bad "$1" "$2, and not $3"; fi
}
# What a file of the base says, and nothing if there is no such file: that is not what is found.
said() { sed -n "s/^$1=//p" "/usr/lib/systemd/$2"/*testboot*.conf; }

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

# The disk is larger than its image: the partition goes to its end, and the file system with it.
device=$(findmnt --noheadings --nofsroot --output SOURCE --mountpoint /sysroot | head -n 1)
block=/sys/class/block/${device##*/}
whole=$(cat "$(readlink -f "$block")/../size")
end=$(($(cat "$block/start") + $(cat "$block/size")))
files=$(($(stat --file-system --format '%b * %S' /sysroot) / 512))
found="$((files / 2048)) MiB of files on a disk of $((whole / 2048)) MiB, of which $(((whole - end) / 2048)) are in no partition"
if [ $((whole - end)) -le 8192 ] && [ $((files * 100)) -ge $((whole * 85)) ]; then
	report ok "root file system" "$found"
else
	report bad "root file system" "$found"
fi

# What the base sets is what the kernel has.
settings=$(awk -F '[ \t]*=[ \t]*' '/^[a-z]/ { print $1, $2 }' /usr/lib/sysctl.d/*testboot*.conf)
wrong=$(echo "$settings" | while read -r key value; do
	found=$(sudo sysctl -n "$key" | tr '\t' ' ')
	[ "$found" = "$value" ] || echo "'$key' is '$found', and not '$value'"
done)
[ -n "$settings" ] || wrong="nothing sets any"
if [ -z "$wrong" ]; then report ok "kernel settings" "$(echo "$settings" | wc -l) in force"; else report bad "kernel settings" "$wrong"; fi
for limit in DefaultLimitNOFILE DefaultLimitNPROC DefaultTasksMax; do
	equal "$limit" "$(systemctl show --property=$limit --value)" "$(said $limit system.conf.d)"
done
# A process that came of it.
process=$(systemctl show --property=MainPID --value nginx.service)
equal "nginx's open files" "$(sudo awk '/^Max open files/ { print $4 }' "/proc/$process/limits")" "$(said DefaultLimitNOFILE system.conf.d)"
if sudo test -d "/var/log/journal/$(cat /etc/machine-id)"; then
	report ok journal "kept in /var"
else
	report bad journal "not kept in /var"
fi
# journald says at its start what it goes by.
most=$(sudo journalctl --boot --output cat SYSLOG_IDENTIFIER=systemd-journald | sed -n 's/^System Journal .* max \([0-9.]*[A-Z]\).*/\1/p' | tail -n 1)
equal "journal's most" "$most" "$(said SystemMaxUse journald.conf.d)"
sshd=$(sudo sshd -T)
options=$(sudo sed 's/#.*//' /etc/ssh/sshd_config.d/*testboot*.conf | tr '[:upper:]' '[:lower:]' | awk 'NF')
wrong=$(echo "$options" | while read -r option; do
	echo "$sshd" | grep -qix "$option" || echo "not '$option'"
done)
[ -n "$options" ] || wrong="nothing sets any"
if [ -z "$wrong" ]; then report ok sshd "$(echo "$options" | wc -l) options in force"; else report bad sshd "$wrong"; fi

# Another way to nginx, which the firewall is there to keep from the outside: see guest.rs.
sudo systemd-run --quiet --collect --unit=testboot-vm-probe --socket-property=ListenStream=7777 \
	/usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:80
code=$(curl --silent --output /dev/null --max-time 30 --write-out '%{http_code}' http://127.0.0.1:7777/)
if [ "$code" != 000 ]; then report ok "port 7777, inside" "$code"; else report bad "port 7777, inside" "no answer"; fi
