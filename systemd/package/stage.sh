#!/bin/sh
# Lays out below ROOT what a package installs: stage.sh ROOT PROGRAMS, with the directory of the built programs. The
# manual and the completions are what the programs say of themselves.
set -eu

root=${1:?usage: stage.sh ROOT PROGRAMS}
programs=${2:?usage: stage.sh ROOT PROGRAMS}
here=$(cd "$(dirname "$0")/.." && pwd)
doc=$root/usr/share/doc/bottega
system=$root/usr/lib/systemd/system

# put MODE TARGET FILE...: a TARGET that ends in / is a directory.
put() {
    mode=$1 target=$root/$2
    shift 2
    case "$target" in
    */) install -d "$target" ;;
    *) install -d "$(dirname "$target")" ;;
    esac
    install -m "$mode" "$@" "$target"
}

rm -rf "$root"
manual=$(mktemp -d)
trap 'rm -rf "$manual"' EXIT
for program in bottega bottega-master bottega-worker bottega-janitor; do
    put 755 usr/bin/ "$programs/$program"
    strip "$root/usr/bin/$program"
    "$programs/$program" __manual "$manual"
done
for page in "$manual"/man/*; do
    gzip -9n "$page"
done
put 644 usr/share/man/man1/ "$manual"/man/*
put 644 usr/share/bash-completion/completions/ "$manual"/completions/bash/*
put 644 usr/share/fish/vendor_completions.d/ "$manual"/completions/fish/*
# Debian's zsh looks in the first of these, others' in the second.
put 644 usr/share/zsh/vendor-completions/ "$manual"/completions/zsh/*
put 644 usr/share/zsh/site-functions/ "$manual"/completions/zsh/*

put 644 usr/lib/systemd/system/ "$here"/units/*.service "$here"/units/*.slice "$here"/units/*.target "$here"/units/*.timer
put 644 usr/lib/systemd/system/bottega-.slice.d/ "$here"/units/bottega-.slice.d/*
put 755 usr/lib/systemd/system-generators/ "$here/units/bottega-generator"
put 644 usr/lib/sysusers.d/bottega.conf "$here/units/sysusers.conf"
put 644 usr/lib/tmpfiles.d/bottega.conf "$here/units/tmpfiles.conf"
put 644 etc/bottega/ "$here/etc/bottega.toml"

put 644 usr/share/doc/bottega/ "$here"/../docs/*.md "$here/../README.md" "$here/package/copyright"
cp -R "$here/units/examples" "$doc/examples"
find "$doc" "$system" -type d -exec chmod 755 {} +
