#!/bin/sh
# Installs an image on a disk with the image's own programs, by ostree and GRUB, or makes what an
# installer's medium needs of it. It needs no loop device, and mounts nothing that outlives it: it runs
# in mount and PID namespaces of its own.
#
#   ostree.sh enter install
# Standard input: a tar of the image's programs, and below /work of the image's layers: trees/DIGEST is what one
# has, and objects what ostree's repository has of all their files, which are one with those of the trees.
# LAYERS has the digests.
# Standard output: GRUB's boot.img (512 bytes, where there is a BIOS), and behind it its core.img.
#
#   ostree.sh enter medium
# Standard input: a tar of the image's programs.
# Standard output: a tar of the medium's boot loaders, and in root/ of the installer's programs.
#
# What everything is called, and each number that would differ from run to run, is in the environment.
set -eu
umask 022

say() { echo "I: $*"; }
fail() { echo "E: $*"; exit 1; }

# First, on the machine: a root in memory that holds the image's programs.
enter() {
	mount -t tmpfs -o "mode=0755,size=$MEMORY" tmpfs "$ROOT"
	# tar ends well also if an extended attribute is one that cannot be set here, and says so.
	if ! tar --extract --directory "$ROOT" --numeric-owner --same-owner --preserve-permissions \
		--xattrs '--xattrs-include=*' 2>"$ROOT/said" || [ -s "$ROOT/said" ]; then
		cat "$ROOT/said" >&2
		exit 1
	fi
	rm "$ROOT/said"
	mkdir -p "$ROOT/dev" "$ROOT/proc" "$ROOT/tmp" "$ROOT/work"
	for device in null zero urandom; do
		: >"$ROOT/dev/$device"
		mount --bind "/dev/$device" "$ROOT/dev/$device"
	done
	ln -s /proc/self/fd "$ROOT/dev/fd"
	mount -t proc proc "$ROOT/proc"
	if [ -n "${DISK:-}" ]; then
		: >"$ROOT/work/disk.raw"
		mount --bind "$DISK" "$ROOT/work/disk.raw"
	fi
	cp "$0" "$ROOT/work/install.sh"
	exec chroot "$ROOT" sh /work/install.sh "$1"
}

# Then, in that root.
install() {
	cd /work
	export HOME=/work TMPDIR=/tmp
	exec 3>&1 >&2
	# A machine has more than one core, and this does not need the image.
	prepare &
	prepared=$!
	deploy
	add_accounts
	wait "$prepared"
	mkdir sysroot/boot/grub
	mv grub.cfg sysroot/boot/grub/
	fill_root
	[ ! -f boot.img ] || cat boot.img >&3
	[ ! -f core.img ] || cat core.img >&3
}

# An ostree repository with the image in it, and a deployment of that.
deploy() {
	say "committing the image"
	repo=sysroot/ostree/repo
	mkdir sysroot
	ostree admin init-fs --modern sysroot
	ostree admin os-init --sysroot=sysroot "$STATEROOT"
	ostree --repo=$repo config set sysroot.bootloader syslinux
	ostree --repo=$repo config set sysroot.readonly true
	# Paths in the boot entries begin with /boot, which is a directory of the root file system.
	ostree --repo=$repo config set sysroot.bootprefix true
	ostree --repo=$repo config set core.fsync false
	# How much room there is was looked at before; ostree counts what it has already a second time.
	ostree --repo=$repo config set core.min-free-space-percent 0
	# ostree rewrites this file with each deployment; before the first there has to be one.
	mkdir -p sysroot/boot/loader.0 sysroot/boot/syslinux
	ln -s loader.0 sysroot/boot/loader
	ln -s ../loader/syslinux.cfg sysroot/boot/syslinux/syslinux.cfg
	echo "TIMEOUT 10" >sysroot/boot/loader.0/syslinux.cfg

	# As a host commits the next image (/usr/sbin/testboot): each layer alone, of which the host then downloads
	# only what it has not, and all of them as one tree of links to their files.
	mv objects/* $repo/objects/
	for layer in $LAYERS; do
		mkdir -p "trees/$layer"
		ostree --repo=$repo commit --branch="testboot/layer/$layer" --tree="dir=trees/$layer" --link-checkout-speedup \
			--timestamp=@1 >/dev/null || fail "ostree cannot commit the layer $layer"
		ostree --repo=$repo checkout --union --whiteouts --require-hardlinks "testboot/layer/$layer" tree
	done
	commit=$(ostree --repo=$repo commit --branch="$BRANCH" --tree=dir=tree --link-checkout-speedup \
		--timestamp="@$SOURCE_DATE_EPOCH" --add-metadata-string=version="$VERSION" \
		--add-metadata=ostree.bootable=true --add-metadata-string=testboot.config="$CONFIG" \
		--add-metadata-string=testboot.layers="$LAYERS")

	say "deploying $commit"
	# The arguments are words without blanks, and name no files.
	set -f --
	for argument in $KERNEL_ARGUMENTS; do
		set -- "$@" "--karg-append=$argument"
	done
	set +f
	# Only real root may make the deployment immutable: fill_root does it in the disk instead.
	OSTREE_SYSROOT_DEBUG=mutable-deployments ostree admin deploy --sysroot=sysroot --os="$STATEROOT" \
		"--karg=root=UUID=$ROOT_UUID" "$@" "$BRANCH"
	ostree --repo=$repo config unset core.fsync
	ostree --repo=$repo config unset core.min-free-space-percent
}

# Users and groups, by the image's own programs, as its login.defs has it. They are in the host's own
# /etc and /var: upgrades merge the one, and leave the other alone.
add_accounts() {
	[ -n "$ACCOUNTS" ] || return 0
	say "adding users"
	var=$PWD/sysroot/ostree/deploy/$STATEROOT/var
	etc=$PWD/sysroot/ostree/deploy/$STATEROOT/deploy/$commit.0/etc
	while IFS=: read -r kind name rest; do
		case $kind in
		group) add_group "$name" "$rest" ;;
		user) add_user "$name" "$rest" ;;
		key) add_key "$name" "$rest" ;;
		esac
	done <<-END
		$ACCOUNTS
	END
	# What these programs leave for whoever made a mistake.
	for file in passwd group shadow gshadow subuid subgid; do rm -f "$etc/$file-"; done
}

has() { grep -q "^$2:" "$etc/$1"; }

add_group() {
	! has group "$1" || fail "the image has a group $1: remove it from config.toml"
	groupadd --prefix "${etc%/etc}" ${2:+--gid "$2"} "$1"
}

add_user() {
	name=$1
	IFS=: read -r password uid gid groups home shell description <<-END
		$2
	END
	is_administrator=
	wanted=
	for group in $(echo "$groups" | sed 's/,/ /g'); do
		if [ "$group" = "$ADMINISTRATORS" ]; then
			# Debian has another name for them.
			has group "$group" || group=sudo
			is_administrator=yes
		fi
		has group "$group" || fail "$name is to be in group $group, which the image does not have: add a [[customizations.group]]"
		wanted=${wanted:+$wanted,}$group
	done
	set --
	[ -z "$password" ] || set -- "$@" --password "$password"
	[ -z "$uid" ] || set -- "$@" --uid "$uid"
	[ -z "$gid" ] || set -- "$@" --gid "$gid"
	[ -z "$wanted" ] || set -- "$@" --groups "$wanted"
	[ -z "$shell" ] || set -- "$@" --shell "$shell"
	[ -z "$description" ] || set -- "$@" --comment "$description"
	if has passwd "$name"; then
		[ -z "$wanted" ] || set -- "$@" --append
		[ -z "$home" ] || set -- "$@" --home "$home"
		[ $# = 0 ] || usermod --prefix "${etc%/etc}" "$@" "$name"
	else
		useradd --prefix "${etc%/etc}" --no-create-home --home-dir "${home:-/home/$name}" \
			--shell "${shell:-/bin/bash}" "$@" "$name"
		find_user "$name"
		mkdir -p "${place%/*}"
		mkdir "$place"
		[ ! -d "$etc/skel" ] || cp -R "$etc/skel/." "$place"
		chmod 0700 "$place"
		chown -R "$owner" "$place"
	fi
	# Who has no password cannot be asked for it.
	if [ -n "$is_administrator" ] && [ -z "$password" ] && [ -d "$etc/sudoers.d" ]; then
		(umask 0337 && echo "$name ALL=(ALL:ALL) NOPASSWD: ALL" >"$etc/sudoers.d/60-$name")
	fi
}

# What passwd has of a user: OWNER, and the PLACE of the home below the folder that is /var on a host.
find_user() {
	owner=$(sed -n "s/^$1:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p" "$etc/passwd")
	home=$(sed -n "s/^$1:\([^:]*:\)\{4\}\([^:]*\):.*/\2/p" "$etc/passwd")
	case $home in
	/home/*) place=$var$home ;;
	/var/*) place=$var${home#/var} ;;
	*) fail "the home of $1 is $home, where no key can be put" ;;
	esac
}

add_key() {
	find_user "$1"
	mkdir -p "$place/.ssh"
	echo "$2" >>"$place/.ssh/authorized_keys"
	chmod 0700 "$place/.ssh"
	chmod 0600 "$place/.ssh/authorized_keys"
	chown -R "$owner" "$place/.ssh"
}

# All of the disk that is the same for every image.
prepare() {
	make_boot_loader
	partition
	fill_esp
}

# GRUB never changes: it reads the entries that ostree writes, so upgrade and rollback need no more.
make_boot_loader() {
	cat >grub.cfg <<-'END'
		set timeout=1
		serial --unit=0 --speed=115200
		terminal_input console serial
		terminal_output console serial
		syslinux_source /boot/loader/syslinux.cfg
	END
	cat >early.cfg <<-END
		search.fs_uuid $ROOT_UUID root
		set prefix=(\$root)/boot/grub
		configfile /boot/grub/grub.cfg
	END
	modules="part_gpt ext2 search search_fs_uuid normal configfile syslinuxcfg linux serial terminal echo test ls cat
		sleep reboot halt minicmd gzio"
	# shellcheck disable=SC2086 # One word a module.
	grub-mkimage --directory="/usr/lib/grub/$EFI_TARGET" --format="$EFI_TARGET" --prefix=/boot/grub \
		--config=early.cfg --output=efi.img $modules $EFI_MODULES
	[ -n "$BIOS_TARGET" ] || return 0
	cp "/usr/lib/grub/$BIOS_TARGET/boot.img" .
	# shellcheck disable=SC2086 # One word a module.
	grub-mkimage --directory="/usr/lib/grub/$BIOS_TARGET" --format="$BIOS_TARGET" --prefix=/boot/grub \
		--config=early.cfg --output=core.img $modules $BIOS_MODULES
}

partition() {
	printf '%s\n' "$PARTITIONS" | sfdisk --quiet --no-reread --no-tell-kernel disk.raw
}

fill_esp() {
	esp=disk.raw@@$ESP_OFFSET
	mformat -i "$esp" -F -T "$ESP_SECTORS" -h 64 -s 32 -N "$ESP_SERIAL" -v ESP ::
	touch -d "@$SOURCE_DATE_EPOCH" efi.img
	mmd -i "$esp" ::/EFI ::/EFI/BOOT
	mcopy -m -i "$esp" efi.img "::/EFI/BOOT/$EFI_NAME"
}

fill_root() {
	say "writing the root file system"
	find sysroot -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +
	mke2fs -q -F -t ext4 -L root -U "$ROOT_UUID" -m 1 -O verity -d sysroot \
		-E "hash_seed=$HASH_SEED,offset=$ROOT_OFFSET,root_owner=0:0,lazy_itable_init=1" disk.raw "${ROOT_KIB}k"
	# Extents and immutable. Source: Linux, fs/ext4/ext4.h, EXT4_EXTENTS_FL and EXT4_IMMUTABLE_FL.
	debugfs -w -R "set_inode_field /ostree/deploy/$STATEROOT/deploy/$commit.0 flags 0x80010" \
		"disk.raw?offset=$ROOT_OFFSET"
}

# What boots an installer's medium, as a CD and as a disk, and what its initramfs needs besides.
medium() {
	cd /work
	export HOME=/work TMPDIR=/tmp
	exec 3>&1 >&2
	say "making the medium's boot loaders"
	mkdir medium
	cat >early.cfg <<-END
		search.fs_label $VOLUME root
		set prefix=(\$root)/boot/grub
		configfile /boot/grub/grub.cfg
	END
	modules="iso9660 part_gpt part_msdos search search_label normal configfile linux serial terminal echo test regexp
		ls cat sleep reboot halt minicmd gzio"
	# shellcheck disable=SC2086 # One word a module.
	grub-mkimage --directory="/usr/lib/grub/$EFI_TARGET" --format="$EFI_TARGET" --prefix=/boot/grub \
		--config=early.cfg --output=efi.img $modules $EFI_MODULES
	touch -d "@$SOURCE_DATE_EPOCH" efi.img
	mformat -i medium/efi.img -C -T "$ESP_SECTORS" -h 16 -s 32 -N "$ESP_SERIAL" -v ESP ::
	mmd -i medium/efi.img ::/EFI ::/EFI/BOOT
	mcopy -m -i medium/efi.img efi.img "::/EFI/BOOT/$EFI_NAME"
	if [ -n "$BIOS_TARGET" ]; then
		cp "/usr/lib/grub/$BIOS_TARGET/boot_hybrid.img" medium
		# shellcheck disable=SC2086 # One word a module.
		grub-mkimage --directory="/usr/lib/grub/$BIOS_TARGET" --format="$BIOS_TARGET-eltorito" --prefix=/boot/grub \
			--config=early.cfg --output=medium/bios.img $modules $BIOS_MODULES
	fi
	for program in $PROGRAMS; do
		path=$(command -v "$program")
		copy "$path"
		ldd "$path" | sed -n 's,.* => \(/[^ ]*\) .*,\1,p' | while read -r library; do copy "$library"; done
	done
	tar --create --format=gnu --sort=name --directory=medium . >&3
}

# Copies a file below medium/root: in the place that it really is in, since /bin and /lib are links.
copy() {
	directory=$(readlink -f "${1%/*}")
	mkdir -p "medium/root$directory"
	cp --dereference "$1" "medium/root$directory/"
}

"$@"
