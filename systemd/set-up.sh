#!/bin/sh
# Finds what Bottega needs on this machine, says what is missing and why, and installs it.
#
#   set-up.sh            install and start what is missing (Debian or Ubuntu; root, or sudo)
#   set-up.sh --check    change nothing; exit status 1 if something is missing
#
# An engine that answers on DOCKER_HOST, or else on the usual socket, is used as it is.
set -eu

docker_socket=/var/run/docker.sock
docker_log=${BOTTEGA_DOCKERD_LOG:-/var/log/bottega-dockerd.log}
engine_wait_seconds=60
apt_lock_wait_seconds=300
apt_update_attempts=10
log_lines_shown=20

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing_packages=
missing_reasons=

main() {
    mode=install
    case "$#:${1-}" in
    0:) ;;
    1:--check) mode=check ;;
    *) fail "usage: set-up.sh [--check]" ;;
    esac

    look_for_tools
    engine=$(engine_state)
    look_for_engine

    if [ -z "$missing_packages" ] && [ "$engine" = answers ]; then
        say "everything is here"
        return
    fi
    printf '%s' "$missing_reasons" >&2
    if [ "$mode" = check ]; then
        [ -z "$missing_packages" ] || say "to install: apt-get install --no-install-recommends$missing_packages"
        exit 1
    fi
    case "$engine" in
    refuses) fail "the socket $docker_socket refuses $(id -un); run: sudo usermod -aG docker $(id -un), then log in again" ;;
    elsewhere) fail "nothing answers on DOCKER_HOST=$DOCKER_HOST; start that engine, or unset DOCKER_HOST to use this machine's own" ;;
    esac
    [ -z "$missing_packages" ] || install_packages
    [ "$(engine_state)" = answers ] || start_engine
    say "everything is here now"
}

say() { echo "set-up: $*"; }

fail() {
    echo "set-up: $*" >&2
    exit 1
}

# need PACKAGE WHY: notes that a package is missing.
need() {
    missing_packages="$missing_packages $1"
    missing_reasons="${missing_reasons}set-up: $1 is missing: $2
"
}

# Debian alone packages User-Mode Linux, and for x86 alone; elsewhere the tests say what they skip.
has_uml_package() { grep -qx ID=debian /etc/os-release 2>/dev/null && [ "$(uname -m)" = x86_64 ]; }

has() { command -v "$1" >/dev/null 2>&1; }

look_for_tools() {
    has git || need git "repositories are read and cut with it"
    [ -s /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates "package indexes are reached over TLS"
    has cc || has gcc || need gcc "Rust links with it"
    [ -e /usr/include/stdlib.h ] || ! on_debian || need libc6-dev "Rust links against the C library"
    has systemd-analyze || need systemd "its systemd-analyze checks the unit files; nothing of it is started"
    has mmdebstrap || need mmdebstrap "it makes the Debian roots of the base images"
    has linux.uml || ! has_uml_package || need user-mode-linux "nodes with a systemd of their own are made with it, for tests"
    has ip || need iproute2 "the networks of those nodes are made with it"
    has mkfs.ext4 || need e2fsprogs "the disks of those nodes are made with it"
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
        need debian-archive-keyring "it proves that a Debian root is Debian's"
    [ "$(id -u)" = 0 ] || has newuidmap || need uidmap "mmdebstrap needs it when it does not run as root"
}

look_for_engine() {
    case "$engine" in
    silent)
        if ! has dockerd; then
            need docker.io "environments are built and tested in containers"
            if ! under_systemd && [ -z "$(ls /sys/fs/cgroup 2>/dev/null)" ]; then
                need cgroupfs-mount "no cgroup hierarchy is mounted, and containers need one"
            fi
        else
            missing_reasons="${missing_reasons}set-up: no Docker Engine answers on $docker_socket: dockerd does not run
"
        fi
        ;;
    refuses)
        missing_reasons="${missing_reasons}set-up: the Docker Engine's socket $docker_socket refuses $(id -un)
"
        ;;
    elsewhere)
        missing_reasons="${missing_reasons}set-up: no Docker Engine answers on DOCKER_HOST=$DOCKER_HOST
"
        ;;
    esac
}

on_debian() { [ -e /etc/debian_version ]; }

under_systemd() { [ -d /run/systemd/system ]; }

# answers; or silent (none here), refuses (no permission), elsewhere (DOCKER_HOST names one that does not answer).
engine_state() {
    if ping_engine "${DOCKER_HOST:-unix://$docker_socket}"; then
        echo answers
    elif [ -n "${DOCKER_HOST-}" ]; then
        echo elsewhere
    elif [ -S "$docker_socket" ] && { [ ! -r "$docker_socket" ] || [ ! -w "$docker_socket" ]; }; then
        echo refuses
    else
        echo silent
    fi
}

# ping_engine HOST: true if an engine answers there; perl is in every Debian, the others are for elsewhere.
ping_engine() {
    case "$1" in
    unix://*) [ -S "${1#unix://}" ] || return 1 ;;
    esac
    case "$1" in
    unix://* | tcp://*)
        if has perl; then
            perl -e '
                use IO::Socket::INET; use IO::Socket::UNIX;
                alarm 10;
                my ($kind, $where) = $ARGV[0] =~ m{^(unix|tcp)://(.*?)/?$} or exit 1;
                my $socket = $kind eq "unix" ? IO::Socket::UNIX->new(Peer => $where)
                                             : IO::Socket::INET->new(PeerAddr => $where);
                $socket or exit 1;
                print $socket "GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";
                $socket->flush;
                exit((<$socket> // "") =~ m{^HTTP/1\.\d 200} ? 0 : 1);' "$1" 2>/dev/null && return 0
        fi
        ;;
    esac
    if has docker; then
        DOCKER_HOST=$1 timeout 10 docker version >/dev/null 2>&1
        return
    fi
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    has sudo || return 1
    [ -t 0 ] || sudo -n true 2>/dev/null
}

install_packages() {
    has apt-get || fail "this machine has no apt-get; install by your own package manager:$missing_packages"
    can_be_root || fail "neither root nor sudo here; ask an administrator to run: apt-get install --no-install-recommends$missing_packages"
    say "installing$missing_packages"
    if ! packages_known || ! apt_install; then
        apt_update
        apt_install || fail "apt-get could not install$missing_packages; its messages are above"
    fi
}

# Whether apt's lists name a candidate for every missing package.
packages_known() {
    for package in $missing_packages; do
        case "$(apt-cache policy "$package" 2>/dev/null)" in
        *"Candidate: (none)"* | "") return 1 ;;
        esac
    done
}

apt_install() {
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout="$apt_lock_wait_seconds" -o Dpkg::Use-Pty=0 $missing_packages >/dev/null
}

# Old versions of apt do not wait for the lock of the lists by themselves.
apt_update() {
    attempt=1
    until as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq -o DPkg::Lock::Timeout="$apt_lock_wait_seconds"; do
        [ "$attempt" -lt "$apt_update_attempts" ] ||
            fail "apt-get update failed $attempt times; its messages are above"
        attempt=$((attempt + 1))
        sleep 3
    done
}

start_engine() {
    can_be_root || fail "neither root nor sudo here; ask an administrator to start dockerd"
    if under_systemd; then
        say "starting docker by systemd"
        as_root systemctl start docker || fail "systemctl start docker failed; see: journalctl -u docker"
        wait_for_engine ""
    else
        say "starting dockerd; its log is $docker_log"
        ! has cgroupfs-mount || [ -n "$(ls /sys/fs/cgroup 2>/dev/null)" ] || as_root cgroupfs-mount
        # A session of its own, so that Ctrl-C in this terminal does not reach it.
        # shellcheck disable=SC2016 # expanded by the inner shell
        dockerd_process=$(as_root sh -c 'setsid dockerd </dev/null >>"$0" 2>&1 & echo $!' "$docker_log") ||
            fail "dockerd could not be started; see $docker_log"
        wait_for_engine "$docker_log"
    fi
}

# wait_for_engine LOG: until root sees an answer, then gives this user access.
wait_for_engine() {
    waited=0
    until ping_as_root; do
        if [ "$waited" -ge "$engine_wait_seconds" ] || { [ -n "$1" ] && ! as_root kill -0 "$dockerd_process" 2>/dev/null; }; then
            [ -z "$1" ] || as_root tail -n "$log_lines_shown" "$1" >&2
            fail "no engine answers on $docker_socket after $waited s${1:+; the last lines of $1 are above}"
        fi
        sleep 1
        waited=$((waited + 1))
    done
    if [ "$(engine_state)" = refuses ]; then
        say "adding $(id -un) to the group docker (as powerful as root), and to its socket until the next login"
        as_root usermod -aG docker "$(id -un)"
        as_root chown "$(id -un)" "$docker_socket"
    fi
}

ping_as_root() {
    case "$(engine_state)" in
    answers | refuses) return 0 ;;
    *) return 1 ;;
    esac
}

main "$@"
