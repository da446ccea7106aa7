#!/bin/sh
# A worker as the package runs it, on Docker: its slices, its key, and a container that it goes on with after a restart.
# service.sh PACKAGE.deb, at whose end the machine begins anew, and then service.sh after. Says "test ... ok" of each, as
# libtest does.
set -eu

package=${1:?usage: service.sh PACKAGE.deb | after}
spool=/srv/bottega/spool
unit=bottega-worker@node
ticks=120

ok() { echo "test service::$1 ... ok"; }
fail() {
    echo "test service::$1 ... FAILED"
    journalctl --no-pager -n 60 -u "$unit" -u bottega-worker -u bottega-master -u bottega-janitor
    exit 1
}
# until_true SECONDS NAME COMMAND...
until_true() {
    left=$1 name=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$name"
        sleep 1
    done
}
running() { docker ps --no-trunc --quiet --filter "label=bottega.task=$1"; }
is_running() { [ -n "$(running "$1")" ]; }
is_done() { bottega show --spool "$spool" --json "$1" | grep -q '"state": *"done'; }
# run NAME TICKS
run() {
    runuser -u bottega -- bottega run --spool "$spool" --name "$1" --cores 1 --memory 256MiB openswe-python-3.11 -- \
        sh -c "for i in \$(seq 1 $2); do echo tick \$i of $2; sleep 1; done"
}
# has_said_all NAME TICKS: whether a result has all that it printed; leaves its path in manifest.
has_said_all() {
    manifest=$(find "$spool" -path "*$1*" -name manifest.json | head -n 1)
    [ "$(grep -c "of $2" "$(dirname "$manifest")/output.log")" = "$2" ]
}

if [ "$package" = after ]; then
    [ "$(systemctl show --value --property SoftRebootsCount)" -ge 1 ] || exit 3
    until_true 500 goes_down is_done cut
    has_said_all cut 60 || fail goes_down
    ok goes_down
    exit
fi

dpkg -i "$package"
chown -R bottega:bottega /var/lib/bottega
install -d -o bottega -g bottega /srv/bottega
runuser -u bottega -- bottega init --spool "$spool"
sed -i "s|^# spool = .*|spool = \"$spool\"|; s|^#reserved_disk_gib = .*|reserved_disk_gib = 0.5|
    s|^#build_network = .*|build_network = \"bridge\"|" /etc/bottega/bottega.toml
cp /etc/bottega/bottega.toml /etc/bottega/node.toml
install -d -m 700 /etc/bottega/keys
(umask 077 && echo canary-in-a-credential >/etc/bottega/keys/model.key)
install -D -m 644 /usr/share/doc/bottega/examples/credentials.conf \
    "/etc/systemd/system/bottega-worker@.service.d/credentials.conf"
for version in 253 254; do
    for daemon in master worker@ janitor; do
        install -D -m 644 "/usr/share/doc/bottega/examples/systemd-$version.conf" \
            "/etc/systemd/system/bottega-$daemon.service.d/systemd-$version.conf"
    done
done
systemctl daemon-reload
said=$(systemd-analyze verify --man=no "$unit.service" bottega-master.service bottega-janitor.service 2>&1) || true
[ -z "$said" ] || { echo "$said"; fail reads_its_examples; }
ok reads_its_examples
systemctl start bottega-master "$unit" || fail starts
ok starts
systemctl reload bottega-master "$unit" || fail reloads
ok reloads

prepared=$(systemctl show --property ExecStartPre "$unit")
case "$prepared" in *status=0*) ok prepares ;; *) echo "$prepared"; fail prepares ;; esac
slice=/sys/fs/cgroup/bottega.slice/bottega-slot0.slice
[ "$(cat "$slice/cpuset.cpus")" = 0 ] || fail slices
ok slices
pid=$(systemctl show --value --property MainPID "$unit")
key=/run/credentials/$unit.service/model.key
[ "$(cat "$key")" = canary-in-a-credential ] || fail key
! tr '\0' '\n' <"/proc/$pid/environ" | grep -q canary || fail key
ok key

run long "$ticks"
until_true 240 runs is_running long
container=$(running long)
[ -n "$(find /sys/fs/cgroup/bottega.slice -name "docker-$container.scope")" ] || fail runs_in_its_slice
ok runs_in_its_slice
systemctl restart "$unit" || fail restarts
new=$(systemctl show --value --property MainPID "$unit")
[ "$new" != "$pid" ] && [ "$(running long)" = "$container" ] || fail goes_on
until_true 600 goes_on is_done long
has_said_all long "$ticks" || fail goes_on
grep -q 'started again' "$manifest" || fail goes_on
# Of both processes.
[ "$(journalctl --no-pager --quiet --output cat "CONTAINER=$container" | wc -l)" -ge 2 ] || fail goes_on
ok goes_on

systemctl stop "$unit" || fail drains
[ "$(systemctl show --value --property Result "$unit")" = success ] || fail drains
! grep -rqs canary-in-a-credential "$spool" /var/lib/bottega || fail keeps_its_key_to_itself
! journalctl --no-pager | grep -q canary-in-a-credential || fail keeps_its_key_to_itself
ok keeps_its_key_to_itself

# Who is killed and not started again leaves a container, of which the janitor's unit may know enough to remove it.
systemctl start "$unit"
run zombie 600
until_true 240 removes_zombies is_running zombie
systemctl kill --signal=KILL "$unit"
systemctl stop "$unit"
is_running zombie || fail removes_zombies
systemctl start bottega-janitor || fail removes_zombies
is_not_running() { ! is_running zombie; }
until_true 240 removes_zombies is_not_running
bottega-janitor history | grep -q container || fail removes_zombies
systemctl stop bottega-janitor
runuser -u bottega -- bottega cancel --spool "$spool" zombie
ok removes_zombies

# No package index is reachable here.
for file in bottega node; do
    sed -i 's|^build_network = .*|build_network = "auto"|' "/etc/bottega/$file.toml"
done
echo Bridge >/var/lib/bottega/build-network
systemctl start "$unit" || fail starts_without_an_index
journalctl --no-pager -u "$unit" | grep -q 'builds get the network that was found before' || fail starts_without_an_index
ok starts_without_an_index

# One has one core, and the other, which the target starts after it, the rest.
systemctl stop "$unit" bottega-master
sed -i 's|^#*slots = .*|slots = 1|; s|^#*slot_cores = .*|slot_cores = 1|
    s|^#*slot_memory_gib = .*|slot_memory_gib = 1.0|' /etc/bottega/bottega.toml
systemctl enable --quiet bottega.target bottega-master bottega-worker "$unit"
systemctl start bottega.target
until_true 200 share_the_node systemctl is-active bottega-worker
until_true 200 share_the_node systemctl is-active "$unit"
for worker in "$unit" bottega-worker; do
    said=$(systemctl show --value --property StatusText "$worker")
    case "$said" in "0 of 1 slots at work") ;; *) echo "$worker: $said"; fail share_the_node ;; esac
done
ok share_the_node

# What runs when the machine goes down is handed back, and begins anew when it is up: systemd ends nothing of it before.
systemctl disable --quiet --now "$unit"
sed -i 's|^#*drain_seconds = .*|drain_seconds = 20|' /etc/bottega/bottega.toml
systemctl enable --quiet docker
systemctl reload bottega-worker
run cut 60
until_true 240 is_judged_by_no_end_of_the_engine is_running cut
first=$(running cut)
systemctl restart docker
is_another() { is_running cut && [ "$(running cut)" != "$first" ]; }
until_true 240 is_judged_by_no_end_of_the_engine is_another
ok is_judged_by_no_end_of_the_engine
systemd-run --quiet --on-active=5 systemctl soft-reboot
