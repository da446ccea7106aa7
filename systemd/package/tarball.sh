#!/bin/sh
# Builds the programs statically and packs them with an install.sh: tarball.sh DIRECTORY VERSION. For musl where that
# target is installed (rustup target add x86_64-unknown-linux-musl), else for glibc linked statically.
set -eu

out=${1:?usage: tarball.sh DIRECTORY VERSION}
version=${2:?usage: tarball.sh DIRECTORY VERSION}
here=$(cd "$(dirname "$0")" && pwd)
machine=$(uname -m)

target=$machine-unknown-linux-musl
if ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    echo "tarball.sh: $target is not installed: linked with glibc, statically" >&2
    target=$machine-unknown-linux-gnu
fi
RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS-}" cargo build --release --workspace --bins --target "$target"

name=bottega-$version-$machine
tree=$out/$name
rm -rf "$tree"
"$here/stage.sh" "$tree/root" "${CARGO_TARGET_DIR:-target}/$target/release"
for program in "$tree"/root/usr/bin/*; do
    # What still asks for a library of the host is no static program.
    if LC_ALL=C readelf -d "$program" | grep -q NEEDED; then
        echo "tarball.sh: $program is not linked statically" >&2
        exit 1
    fi
done
install -m 755 "$here/install.sh" "$here/postinst" "$here/prerm" "$here/postrm" "$tree/"
tar --owner=0 --group=0 --sort=name -C "$out" -czf "$out/$name.tar.gz" "$name"
echo "$out/$name.tar.gz"
