#!/bin/sh
# Writes the system that is on an installer's medium onto a disk of this machine. It is the first
# process, in the image's own initramfs, and asks on every console that the kernel has. The kernel's
# command line can answer beforehand:
#   testboot.disk=/dev/vda   the disk, also by a name in /dev/disk
#   testboot.erase=yes       that all which is on it may be lost
#   testboot.then=reboot     what comes afterwards: reboot, poweroff or shell
#
# Beside it, /install/config has the system's NAME, its SIZE in MiB, and the medium's VOLUME name.
# On the medium, or in /install where the boot loader has put them, disk.map and disk.000 and so on are.
# A line of disk.map is a run of MiB on the disk: where it begins, how many there are, their SHA-256.
# The disk.NNN together are these runs, one after the other, in zstd. All that is in no run is zero. The
# first MiB, with the partition table, is the last run: a disk that is half written boots nothing.
#
# shellcheck disable=SC1091,SC2153 # /install/config is made with each medium.
set -eu
export PATH=/usr/sbin:/usr/bin

# How long disks may take to appear, in seconds.
PATIENCE=30

. /install/config

disk='' erase='' then=''

main() {
	mkdir -p /proc /sys /dev /run /medium
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	[ -c /dev/null ] || mount -t devtmpfs dev /dev
	mount -t tmpfs run /run
	mkfifo /run/answer
	consoles=$(cat /sys/class/tty/console/active)
	# Without its first process the kernel would stop, and what was said be lost.
	trap 'fail "the installer ended, which it should not"' EXIT
	say ''
	say "This installs $NAME."

	read_command_line
	find_devices
	find_files
	if [ -n "$disk" ]; then
		await "$disk" || fail "$disk is not there"
		disk=$(readlink -f "$disk")
		disk=${disk##*/}
		problem=$(why_not "$disk")
		[ -z "$problem" ] || fail "/dev/$disk: $problem"
	fi
	if [ "$erase" != yes ]; then
		disk=$(on_consoles choose)
	fi
	udevadm control --exit || true
	write
	verify
	blockdev --rereadpt "/dev/$disk" || true
	umount /medium 2>/dev/null || true
	say "$NAME is on /dev/$disk."
	finish
}

# To all consoles.
say() {
	for console in $consoles; do
		# One that is there may still be nothing that takes text.
		echo "$*" >"/dev/$console" 2>/dev/null || true
	done
}

# Says what is wrong, and leaves a shell to find out more.
fail() {
	say "error: $*"
	say "A shell follows; the machine starts again when it ends."
	trap - EXIT
	then=shell
	finish
}

finish() {
	case $then in
	reboot | poweroff) ;;
	shell)
		on_consoles shell >/dev/null
		then=reboot
		;;
	*)
		on_consoles wait_for_enter >/dev/null
		then=reboot
		;;
	esac
	sync
	# Source: Linux, Documentation/admin-guide/sysrq.rst.
	case $then in
	reboot) echo b >/proc/sysrq-trigger ;;
	poweroff) echo o >/proc/sysrq-trigger ;;
	esac
	# The first process must not end before the machine does.
	while :; do sleep 60; done
}

read_command_line() {
	set -f
	# shellcheck disable=SC2046 # Its words.
	set -- $(cat /proc/cmdline)
	set +f
	for word; do
		case $word in
		testboot.disk=*) disk=${word#*=} ;;
		testboot.erase=*) erase=${word#*=} ;;
		testboot.then=*) then=${word#*=} ;;
		esac
	done
	case $erase in
	'' | yes) ;;
	*) fail "testboot.erase=$erase: it can be 'yes' only" ;;
	esac
	case $then in
	'' | reboot | poweroff | shell) ;;
	*) fail "testboot.then=$then: it can be 'reboot', 'poweroff' or 'shell'" ;;
	esac
	case $disk in
	'') [ -z "$erase" ] || fail "testboot.erase=yes without testboot.disk=DISK: nothing says which disk" ;;
	/dev/*) ;;
	*) disk=/dev/$disk ;;
	esac
	# Nobody is there to press a key, and a medium that is still there would boot again.
	[ -z "$erase" ] || [ -n "$then" ] || then=poweroff
}

# Loads drivers, and gives disks their names.
find_devices() {
	/usr/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1
	udevadm trigger --type=subsystems --action=add
	udevadm trigger --type=devices --action=add
	udevadm settle --timeout=$PATIENCE || true
}

# Waits until a file is there.
await() {
	waited=0
	while [ ! -e "$1" ]; do
		[ $waited -lt $PATIENCE ] || return 1
		waited=$((waited + 1))
		sleep 1
	done
}

# Finds the files to write: in memory, or on the medium.
find_files() {
	files=/install
	[ ! -e $files/disk.map ] || return 0
	files=/medium/install
	modprobe -q isofs || true
	waited=0
	until mount_medium; do
		[ $waited -lt $PATIENCE ] || fail "the medium is not found: no disk or drive has the volume $VOLUME"
		waited=$((waited + 1))
		sleep 1
	done
}

mount_medium() {
	for path in /sys/block/*; do
		if is_medium "${path##*/}"; then
			mount -t iso9660 -o ro "/dev/${path##*/}" /medium && return 0
		fi
	done
	return 1
}

# Whether the volume on a device is this medium's. Source: ECMA-119, 8.4: the primary volume
# descriptor is sector 16, and the volume's name is its bytes 40 to 71.
is_medium() {
	volume=$(dd if="/dev/$1" bs=2048 skip=16 count=1 2>/dev/null | dd bs=1 skip=40 count=32 2>/dev/null | tr -d ' \0')
	[ "$volume" = "$VOLUME" ]
}

# Why a system cannot go onto a disk, if it cannot.
why_not() {
	block=/sys/block/$1
	if [ -z "$1" ] || [ ! -e "$block/device" ]; then
		echo "there is no such disk"
	elif is_medium "$1"; then
		echo "it is the medium that this runs from"
	elif [ "$(cat "$block/ro")" != 0 ]; then
		echo "it is read-only"
	elif [ "$(cat "$block/queue/logical_block_size")" != 512 ]; then
		# The partition table counts in sectors.
		echo "it has sectors of $(cat "$block/queue/logical_block_size") bytes, and $NAME is for those of 512"
	elif [ "$(mebibytes "$1")" -lt "$SIZE" ]; then
		echo "it has $(mebibytes "$1") MiB, and $NAME takes $SIZE"
	elif is_used "$1"; then
		echo "it is in use"
	fi
}

# In units of 512 bytes, whatever sectors the disk has. Source: Linux, Documentation/ABI/stable/sysfs-block.
size() { cat "/sys/block/$1/size"; }
mebibytes() { echo $(($(size "$1") / 2048)); }

# Whether a disk or a partition of it is mounted, or part of a larger device.
is_used() {
	for path in "/sys/block/$1/holders"/* "/sys/block/$1/$1"*/holders/*; do
		[ ! -e "$path" ] || return 0
	done
	while read -r device _; do
		case $device in
		"/dev/$1" | "/dev/$1"[0-9]* | "/dev/$1"p[0-9]*) return 0 ;;
		esac
	done </proc/mounts
	return 1
}

# What people tell a disk by.
describe() {
	echo "/dev/$1  $(mebibytes "$1") MiB  $(cat "/sys/block/$1/device/model" "/sys/block/$1/serial" \
		"/sys/block/$1/device/serial" 2>/dev/null | tr '\n' ' ')"
}

# Runs a function on each console, with its input and output, and gives the line that the first of
# them ends with.
on_consoles() {
	pids=''
	for console in $consoles; do
		(
			exec <"/dev/$console" >"/dev/$console" 2>&1
			"$1"
		) &
		pids="$pids $!"
	done
	read -r answer </run/answer
	for pid in $pids; do
		kill "$pid" 2>/dev/null || true
	done
	echo "$answer"
}

# Asks for the disk, where the command line names none that will do, and whether it may be erased.
choose() {
	named=$disk
	while :; do
		chosen=$named
		# It is asked about once.
		named=
		if [ -z "$chosen" ]; then
			echo
			for path in /sys/block/*; do
				name=${path##*/}
				[ -e "$path/device" ] || continue
				problem=$(why_not "$name")
				echo "  $(describe "$name")${problem:+ ($problem)}"
			done
			printf '%s' "Install on which disk? (Enter: look again) "
			read -r chosen
			chosen=${chosen#/dev/}
			[ -n "$chosen" ] || continue
		fi
		problem=$(why_not "$chosen")
		if [ -n "$problem" ]; then
			echo "/dev/$chosen: $problem"
			continue
		fi
		echo "All that is on this disk will be lost: $(describe "$chosen")"
		printf '%s' "Type 'yes' to erase it: "
		read -r answer
		if [ "$answer" = yes ]; then
			echo "$chosen" >/run/answer
			return
		fi
		echo "Nothing was written."
	done
}

wait_for_enter() {
	printf '%s' "Remove the medium, and press Enter to start from the disk. "
	read -r _
	echo >/run/answer
}

shell() {
	setsid --wait --ctty sh || true
	echo >/run/answer
}

# Says how far it is, in tenths.
progress() {
	tenth=$(($2 * 10 / total))
	if [ $tenth -ne $said ]; then
		said=$tenth
		say "$1: ${tenth}0 %"
	fi
}

write() {
	total=0
	while read -r _ count _; do
		total=$((total + count))
	done <$files/disk.map
	last=$((($(mebibytes "$disk") - 1) << 20))
	say "Writing $total MiB to /dev/$disk"
	# Nothing that was there before is left, nor a partition table at the end. What is mounted after all is
	# refused here.
	erase 0 $((SIZE << 20))
	# A disk need not have whole MiB.
	erase $last $(($(size "$disk") * 512 - last))
	{
		# The shell sees how the last program of a pipe ends, and no other.
		cat $files/disk.[0-9]* | zstd --decompress --stdout --quiet 2>/run/log || : >/run/damaged
	} | {
		written=0 said=0
		while read -r start count _ <&3; do
			dd of="/dev/$disk" bs=1M seek="$start" count="$count" iflag=fullblock conv=notrunc,nocreat 2>/run/dd ||
				fail "/dev/$disk cannot be written: $(cat /run/dd)"
			written=$((written + count))
			progress Writing $written
		done 3<$files/disk.map
	}
	[ ! -e /run/damaged ] || { erase 0 $((1 << 20)) && fail "the medium is damaged: $(cat /run/log)"; }
	sync
}

# Reads from the disk, and not from memory, what was written.
verify() {
	blockdev --flushbufs "/dev/$disk"
	read=0 said=0
	while read -r start count sum <&3; do
		found=$(dd if="/dev/$disk" bs=1M skip="$start" count="$count" 2>/dev/null | sha256sum)
		[ "${found%% *}" = "$sum" ] ||
			{ erase 0 $((1 << 20)) && fail "/dev/$disk does not hold what was written, at MiB $start"; }
		read=$((read + count))
		progress Checking $read
	done 3<$files/disk.map
}

# Makes zeros of so many bytes.
erase() { # START COUNT
	blkdiscard --zeroout --offset "$1" --length "$2" "/dev/$disk" </dev/null >/run/log 2>&1 ||
		fail "/dev/$disk cannot be erased: $(cat /run/log)"
}

main
