#!/bin/sh
# Installs what this archive holds, or takes it away again: install.sh [--uninstall]. As root, on a node with systemd.
# A configuration that is there stays.
set -eu

cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || {
    echo "install.sh: run it as root" >&2
    exit 1
}
# What was put there, so that the next archive can take away what it does not hold itself.
installed=/usr/lib/bottega.installed
left() { [ ! -e "$installed" ] || cat "$installed"; }
here() { (cd root && find . ! -type d ! -path './etc/*'); }

case "$#:${1-}" in
0:)
    action=configure
    [ ! -e /usr/bin/bottega ] || action=2
    (cd root && find . ! -type d) | while read -r file; do
        [ "$file" != ./etc/bottega/bottega.toml ] || [ ! -e /etc/bottega/bottega.toml ] || continue
        install -D -m "$(stat -c %a "root/$file")" "root/$file" "/$file.new"
        mv "/$file.new" "/$file"
    done
    left | while read -r file; do [ -e "root/$file" ] || rm -f "/$file"; done
    here >"$installed.new"
    mv "$installed.new" "$installed"
    ./postinst "$action"
    ;;
1:--uninstall)
    ./prerm remove
    { left; here; } | while read -r file; do rm -f "/$file"; done
    rm -f "$installed"
    rmdir /usr/lib/systemd/system/bottega-.slice.d 2>/dev/null || :
    ./postrm remove
    ;;
*)
    echo "usage: install.sh [--uninstall]" >&2
    exit 2
    ;;
esac
