# What a host's operator and its apps have, made before an upgrade (`make`) and looked for after it
# (`look`), and again after a rollback (`look later`). A line a check on standard output, as in checks.sh.
set -u

report() { printf '%s\t%s\t%s\n' "$1" "$2" "$(printf %s "$3" | tr '\n\t' '  ')"; }
kept() { # NAME FILE
	if sudo grep -qx "$MARK" "$2"; then report ok "$1" "$2"; else report bad "$1" "$2 is gone, or not as it was"; fi
}

MARK='# testboot-vm: an operator wrote this'
OWN=/etc/testboot-vm.conf
# Every base has it.
CHANGED=/etc/testboot/update.conf
DATA=/var/lib/testboot-vm/data
HOME_DATA=/var/home/testboot-vm/data
# What the newer system wrote is there for the older one too.
LATER=/var/lib/testboot-vm/later

case $1 in
make)
	sudo mkdir -p "${DATA%/*}" "${HOME_DATA%/*}"
	for file in $OWN $DATA $HOME_DATA; do
		echo "$MARK" | sudo tee "$file" >/dev/null
	done
	echo "$MARK" | sudo tee -a $CHANGED >/dev/null
	kept "a file of the operator's" $OWN
	;;
look)
	kept "a file of the operator's" $OWN
	kept "a file that the operator changed" $CHANGED
	kept "data in /var" $DATA
	kept "data in /var/home" $HOME_DATA
	if [ "${2:-}" = later ]; then
		kept "data of the newer system in /var" $LATER
	else
		echo "$MARK" | sudo tee $LATER >/dev/null
	fi
	;;
esac
