#!/bin/sh
# Makes the disk of a node for tests: image.sh IMAGE. A Debian with systemd as PID 1, git, and an agent that runs what
# the host hands in through a shared directory.
set -eu

image=${1:?usage: image.sh IMAGE}
here=$(cd "$(dirname "$0")" && pwd)
packages=systemd,systemd-sysv,dbus,git,ca-certificates,procps
disk_mib=1500

work=$(mktemp -d "$(dirname "$image")/image-XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$work/root.tar"
mkdir "$work/root"
tar -C "$work/root" -xf "$work/root.tar"
rm "$work/root.tar"

root=$work/root
echo '/dev/ubda / ext4 defaults 0 1' >"$root/etc/fstab"
install -D -m 755 "$here/agent" "$root/usr/local/lib/lab/agent"
install -m 644 "$here/lab.mount" "$here/lab.service" "$root/etc/systemd/system/"
install -d "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../lab.service "$root/etc/systemd/system/multi-user.target.wants/"
# What a node for an hour does not need, and what would compete with its one processor.
for unit in e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
truncate -s "${disk_mib}M" "$work/image"
mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -d "$root" "$work/image"
mv "$work/image" "$image"
