#!/bin/sh
# Makes what full nodes for tests start from: image.sh DIR, which then has kernel, initrd and disk. A Debian with systemd
# as PID 1, Docker and Podman, and the agent that runs what the host hands in through a shared directory.
set -eu

to=${1:?usage: image.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
suite=trixie
packages=$(tr '\n' ',' <<END
systemd
systemd-sysv
dbus
dbus-user-session
libpam-systemd
udev
procps
git
ca-certificates
linux-image-amd64
initramfs-tools
zstd
docker.io
docker-cli
iptables
nftables
apparmor
podman
crun
catatonit
fuse-overlayfs
uidmap
passt
slirp4netns
aardvark-dns
END
)
disk_mib=12000

work=$(mktemp -d "$to-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
root=$work/root
mkdir "$root"
# The disk and the shared directory need these before anything else is there; all other modules come from the disk.
mmdebstrap --quiet --variant=minbase --include="$packages" \
    --setup-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"' \
    --setup-hook='printf "MODULES=list\nCOMPRESS=zstd\nRESUME=none\n" >"$1/etc/initramfs-tools/conf.d/lab"' \
    --setup-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/usr/share/initramfs-tools/modules.d/lab"' \
    "$suite" - | tar -C "$root" -x
test -x "$root/usr/bin/dockerd" -o -x "$root/usr/sbin/dockerd"

echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
install -D -m 755 "$here/../agent" "$root/usr/local/lib/lab/agent"
install -m 644 "$here/../lab.service" "$here/lab.mount" "$root/etc/systemd/system/"
install -d "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../lab.service "$root/etc/systemd/system/multi-user.target.wants/"
# Engines are started one at a time, by the tests; the rest is what a node for an hour does not need.
for unit in docker.service docker.socket containerd.service podman.service podman.socket podman-restart.service \
    podman-auto-update.timer podman-auto-update.service; do
    rm -f "$root"/etc/systemd/system/*.wants/"$unit"
done
for unit in e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer dpkg-db-backup.timer \
    systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cp "$root"/boot/vmlinuz-* "$work/kernel"
cp "$root"/boot/initrd.img-* "$work/initrd"
rm -rf "$root"/boot/* "$root"/var/cache/apt/* "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
truncate -s "${disk_mib}M" "$work/disk"
mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -d "$root" "$work/disk"
rm -rf "$root"
chmod 755 "$work"
mv "$work" "$to"
