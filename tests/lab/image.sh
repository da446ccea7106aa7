#!/bin/sh
# Makes the disk of a node for tests: image.sh IMAGE. A Debian with systemd as PID 1, git, NFS, and an agent that runs
# what the host hands in through a shared directory.
set -eu

image=${1:?usage: image.sh IMAGE}
here=$(cd "$(dirname "$0")" && pwd)
packages=systemd,systemd-sysv,dbus,git,ca-certificates,procps,iproute2,kmod,nfs-common,nfs-kernel-server
disk_mib=1500
nodes_max=9
# What of the kernel's modules NFS needs, on either side.
modules="fs/nfs fs/nfs_common fs/nfsd fs/lockd fs/fscache fs/netfs net/sunrpc net/dns_resolver crypto lib"

work=$(cd "$(dirname "$image")" && mktemp -d "$PWD/image-XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$work/root.tar"
mkdir "$work/root"
tar -C "$work/root" -xf "$work/root.tar"
rm "$work/root.tar"

root=$work/root
echo '/dev/ubda / ext4 defaults 0 1' >"$root/etc/fstab"
{
    echo '127.0.0.1 localhost'
    echo '10.77.0.1 server'
    for n in $(seq "$nodes_max"); do echo "10.77.0.$((n + 1)) node$n"; done
} >"$root/etc/hosts"
install -D -m 755 -t "$root/usr/local/lib/lab" "$here/agent" "$here/network"
install -m 644 -t "$root/etc/systemd/system" "$here/lab.mount" "$here/lab.service" "$here/lab-network.service"
install -d "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../lab.service ../lab-network.service "$root/etc/systemd/system/multi-user.target.wants/"
kernel=$(linux.uml --version)
install -d "$root/lib/modules/$kernel"
for part in $modules; do
    [ ! -e "/usr/lib/uml/modules/$kernel/kernel/$part" ] ||
        (cd "/usr/lib/uml/modules/$kernel" && cp -r --parents "kernel/$part" "$root/lib/modules/$kernel/")
done
cp "/usr/lib/uml/modules/$kernel"/modules.builtin* "/usr/lib/uml/modules/$kernel/modules.order" "$root/lib/modules/$kernel/"
chroot "$root" depmod "$kernel"
# What a node said before it lost its power is wanted afterwards.
install -d "$root/var/log/journal"
# A node is a server of NFS, or its client, once somebody says so.
for unit in nfs-server.service nfs-blkmap.service rpcbind.service rpcbind.socket nfs-client.target; do
    rm -f "$root"/etc/systemd/system/*.wants/"$unit"
done
# What a node for an hour does not need, and what would compete with its one processor.
for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
truncate -s "${disk_mib}M" "$work/image"
mkfs.ext4 -q -F -E lazy_itable_init=1,nodiscard -d "$root" "$work/image"
mv "$work/image" "$image"
