//! Attacks from a Dockerfile, and from what a RUN runs: as root, with the engine's usual capabilities.

use std::time::Duration;

use worker::engine::{BuildRequest, EngineFacts};

use super::attack::BuildAttack as A;
use super::attack::Ends::{Built, DiskFull, Failed, Refused, TimedOut};

const MIB: u64 = 1 << 20;

fn soon(request: &mut BuildRequest) {
    request.timeout = Duration::from_secs(6);
}

fn small_disk(request: &mut BuildRequest) {
    request.limits.disk_bytes = 128 * MIB;
}

const LINTER: &str = "linter";
const CAPABILITIES: &str = "the engine's capabilities and seccomp profile";
const DEVICES: &str = "the engine's list of devices, no-new-privileges";
const PARENT: &str = "parent control group";
const WATCH: &str = "watch of the build's layers";
const OWN_GROUP: &str = "read-only mounts of control groups";
const CONTEXT: &str = "the engine looks for nothing outside the context";
const READ_ONLY: &str = "read-only mounts of the engine";

const LIMITS_RAISED: &str = "fork bomb with the limits raised";

/// Whether an engine has what holds an attack.
pub(crate) fn can_be_held(attack: &A, facts: &EngineFacts) -> bool {
    match attack.held_by {
        // Without root it lets builds write whatever groups their user has.
        PARENT if attack.name == LIMITS_RAISED => {
            facts.limits_build_processes && facts.rootless_uid.is_none()
        }
        PARENT => facts.limits_build_processes,
        // Podman tells of no build's layers; it lets builds write the limits of their own control group, above which the
        // slot's holds, and make user namespaces, as runs.
        WATCH | OWN_GROUP => !facts.is_podman,
        _ if attack.name == "user namespaces" => !facts.is_podman,
        _ => true,
    }
}

pub(crate) const ATTACKS: &[A] = &[
    // What the text may not say.
    A::new("forged labels", "LABEL bottega.object=00000000-0000-0000-0000-000000000000", Refused, LINTER)
        .says("line 2: LABEL bottega.object"),
    A::new("forged labels behind a doubled backslash", "RUN x \\\\\nLABEL bottega.object=1", Refused, LINTER)
        .says("two backslashes"),
    A::new("forged labels in a here-document", "RUN <<E\nLABEL bottega.object=1\nE", Refused, LINTER)
        .says("here-document"),
    A::new("forged labels for others' builds", "ONBUILD LABEL bottega.object=1", Refused, LINTER),
    A::new("another base", "FROM alpine", Refused, LINTER).says("none is pulled"),
    A::new("a base by variable", "ARG X=alpine\nFROM ${X}", Refused, LINTER),
    A::new("another parser", "\n# x\nFROM docker.io/x\n# syntax=x", Refused, LINTER),
    A::new("copies from another image", "COPY --from=alpine / /", Refused, LINTER),
    A::new("fetches", "ADD https://example.org/x /x", Refused, LINTER),
    A::new("variables that grow in the engine", "ENV A=$PATH$PATH$PATH$PATH$PATH$PATH$PATH$PATH\nENV B=$A$A$A$A$A$A$A$A\nENV C=$B$B$B$B$B$B$B$B\nENV D=$C$C$C$C$C$C$C$C\nENV E=$D$D$D$D$D$D$D$D", Refused, LINTER),
    A::new("variables by another name", "ENV A=$PATH\nENV \"A\"=$A$A$A$A$A$A$A$A\nENV \\A=$A$A$A$A$A$A$A$A", Refused, LINTER),
    A::new("ports that fill the engine", "EXPOSE 1-65535/tcp\nEXPOSE 1-65535/udp", Refused, LINTER),
    A::new("secret mount", "RUN --mount=type=secret,id=key cat /run/secrets/key", Refused, LINTER),
    A::new("ssh mount", "RUN --mount=type=ssh ssh-add -l", Refused, LINTER),
    A::new("privileges", "RUN --security=insecure mount", Refused, LINTER),
    A::new("the host's network", "RUN --network=host id", Refused, LINTER),
    A::new("volume", "VOLUME /testbed", Refused, LINTER),
    A::new("health check", "HEALTHCHECK --interval=1s CMD echo", Refused, LINTER),
    A::new("invisible characters", "RUN echo \u{202e}x", Refused, LINTER),
    // What its steps may use.
    A::new("fork bomb", "RUN bash -c 'bomb() { bomb | bomb & }; bomb; sleep 600; sleep 600'", TimedOut, PARENT)
        .with(|request| {
            soon(request);
            request.limits.pids_max = 64;
        })
        .says("Resource temporarily unavailable"),
    A::new(
        "thread bomb",
        "RUN python3 -c 'exec(\"import threading, time\\nwhile True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\")'",
        Failed,
        PARENT,
    )
    .with(|request| request.limits.pids_max = 64),
    A::new(
        "memory bomb",
        "RUN python3 -c 'x = [bytearray(1<<20) for i in range(100000)]'",
        Failed,
        "memory limit, no swap",
    )
    .with(|request| request.limits.memory_bytes = 64 * MIB)
    .says("returned a non-zero code: 137"),
    A::new(
        "/dev and /dev/shm bomb",
        "RUN dd if=/dev/zero of=/dev/shm/x bs=1M; dd if=/dev/zero of=/dev/x bs=1M count=999; exit 1",
        Failed,
        "sizes of the engine's mounts, memory limit",
    )
    .says("No space left on device"),
    A::new("disk fill", "RUN cat /dev/zero > /a; cat /dev/zero > /b; sleep 600", DiskFull, WATCH)
        .with(|request| {
            small_disk(request);
            request.timeout = Duration::from_secs(100);
        }),
    A::new(
        "disk fill by many files",
        "RUN for i in $(seq 100000); do head -c 9000000 /dev/zero > /fill$i; done",
        DiskFull,
        WATCH,
    )
    .with(small_disk),
    A::new(
        "disk fill by many layers",
        "RUN head -c 60000000 /dev/zero > /a\nRUN head -c 60000000 /dev/zero > /b\nRUN head -c 60000000 /dev/zero > /c; sleep 600",
        DiskFull,
        WATCH,
    )
    .with(small_disk),
    A::new(
        "inode fill",
        "RUN for i in $(seq 100000); do mkdir /f$i; cd /f$i; seq 5000 | xargs touch; done",
        DiskFull,
        WATCH,
    )
    .with(small_disk),
    A::new("sparse file", "RUN truncate -s 8T /sparse", Failed, "file size limit")
        .says("File size limit exceeded"),
    A::new(
        "many sparse files",
        "RUN for i in $(seq 30); do truncate -s 128M /sparse$i; done; sleep 600",
        DiskFull,
        WATCH,
    )
    .with(small_disk),
    A::new("log flood", "RUN yes flood", TimedOut, "the log's limit, deadline")
        .with(soon)
        .says("bytes cut here"),
    A::new("one endless line", "RUN tr '\\0' x < /dev/zero", TimedOut, "the log's limit, deadline").with(soon),
    A::new("escape sequences and garbage", "RUN printf '\\033]0;owned\\007\\033[2J'; head -c 100000 /dev/urandom; echo; echo end; exit 1", Failed, "the log's limit, stripped before anything is shown")
        .says("\nend\n"),
    A::new(
        "words of the engine",
        "RUN echo 'Successfully built 000000000000'; echo '{\"aux\":{\"ID\":\"sha256:0\"}}'; exit 1",
        Failed,
        "the end is the engine's, not the log's",
    )
    .says("returned a non-zero code: 1"),
    // What they leave running.
    A::new(
        "ignores every signal",
        "RUN trap '' TERM INT HUP; setsid sleep 600 & sleep 600; sleep 600",
        TimedOut,
        "kill by label at the deadline",
    )
    .with(soon),
    A::new(
        "daemon by setsid and double fork",
        "RUN (setsid nohup sh -c 'trap \"\" TERM HUP; sleep 600' >/dev/null 2>&1 &) ; sleep 0.1; echo; echo over",
        Built,
        "its own namespaces",
    )
    .says("\nover\n"),
    A::new("kills everything it sees", "RUN kill -9 -1; exit 3", Failed, "its own namespaces"),
    // What they may do to the kernel.
    A::new(
        "device nodes",
        "RUN mknod /disk b 254 0; mknod /mem c 1 1; chmod 666 /disk /mem; if head -c 1 /disk || head -c 1 /mem; then echo ESCAPED; fi",
        Built,
        DEVICES,
    )
    .says("Operation not permitted")
    .then("head -c 1 /disk >/dev/null 2>&1 || head -c 1 /mem >/dev/null 2>&1 || echo held", "held\n"),
    A::new("setuid programs", "RUN cp $(readlink -f $(command -v id)) /become-root && chmod 6755 /become-root", Built, "no-new-privileges")
        .then("/become-root -u; /become-root -g", "1000\n1000\n"),
    A::new(
        "file capabilities",
        "RUN cp $(readlink -f /bin/cat) /cap && python3 -c 'import os, struct; os.setxattr(\"/cap\", \"security.capability\", struct.pack(\"<IIIII\", 0x2000000, 0xa80425fb, 0, 0, 0))'",
        Built,
        "no-new-privileges",
    )
    .then("/cap /proc/self/status | grep CapEff", "CapEff:\t0000000000000000\n"),
    A::new("mount", "RUN for p in mount unshare nsenter date hostname; do command -v $p >/dev/null || echo ESCAPED, for there is no $p; done; mount -t tmpfs x /mnt && echo ESCAPED; mount --bind /proc /mnt && echo ESCAPED; umount /proc/sys && echo ESCAPED; sleep 0.1; echo; echo over", Built, CAPABILITIES)
        .says("\nover\n"),
    A::new("namespaces", "RUN for p in mount unshare nsenter date hostname; do command -v $p >/dev/null || echo ESCAPED, for there is no $p; done; unshare -m true && echo ESCAPED; nsenter -t 1 -m -u true && echo ESCAPED; sleep 0.1; echo; echo over", Built, CAPABILITIES)
        .says("\nover\n"),
    A::new("user namespaces", "RUN command -v unshare >/dev/null || echo ESCAPED, for there is no unshare; unshare -Ur true && echo ESCAPED; sleep 0.1; echo; echo over", Built, CAPABILITIES).says("\nover\n"),
    A::new("clock", "RUN for p in mount unshare nsenter date hostname; do command -v $p >/dev/null || echo ESCAPED, for there is no $p; done; date -s @0 >/dev/null && echo ESCAPED; sleep 0.1; echo; echo over", Built, CAPABILITIES).says("\nover\n"),
    A::new("host name", "RUN for p in mount unshare nsenter date hostname; do command -v $p >/dev/null || echo ESCAPED, for there is no $p; done; hostname owned && echo ESCAPED; sleep 0.1; echo; echo over", Built, CAPABILITIES).says("\nover\n"),
    A::new(
        "/proc and /sys",
        "RUN for f in /proc/sys/kernel/core_pattern /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /sys/kernel/uevent_helper; do sh -c \"echo b > $f\" && echo ESCAPED $f; done; sleep 0.1; echo; echo over",
        Built,
        READ_ONLY,
    )
    .says("\nover\n"),
    A::new(
        "control groups",
        "RUN for f in $(find /sys/fs/cgroup -name '*max*' -o -name devices.allow -o -name cpuset.cpus); do sh -c \"echo 1 > $f\" && echo ESCAPED $f; done; sleep 0.1; echo; echo over",
        Built,
        OWN_GROUP,
    )
    .says("\nover\n"),
    A::new(
        "release agent",
        "RUN for f in $(find /sys/fs/cgroup -name release_agent); do sh -c \"echo /x > $f\" && echo ESCAPED $f; done; mkdir /m; for c in rdma pids misc; do mount -t cgroup -o $c x /m && echo ESCAPED $c; done; sleep 0.1; echo; echo over",
        Built,
        CAPABILITIES,
    )
    .says("\nover\n"),
    A::new(
        LIMITS_RAISED,
        "RUN for f in $(find /sys/fs/cgroup -name 'pids.max'); do sh -c \"echo max > $f\"; done; bash -c 'bomb() { bomb | bomb & }; bomb; sleep 600; sleep 600'",
        TimedOut,
        PARENT,
    )
    .with(|request| {
        soon(request);
        request.limits.pids_max = 64;
    })
    .says("Resource temporarily unavailable"),
    A::new("core limit", "RUN bash -c 'ulimit -c unlimited; ulimit -c'; bash -c 'kill -SEGV $$'; sleep 0.1; echo; echo over", Built, "core limit 0").says("\n0\n"),
    // What they may see and write of the host.
    A::new(
        "keys of the worker",
        "RUN cat /proc/*/environ | tr '\\0' '\\n' | sort -u; cat /proc/self/mountinfo; ls -la /run /run/secrets /run/credentials /root; ls /var/run/docker.sock && echo ESCAPED; exit 1",
        Failed,
        "nothing of the worker is inside",
    ),
    A::new("a link in the repository to a file of the host", "COPY repo/link /got\nRUN cat /got; exit 1", Failed, CONTEXT),
    A::new("a link in the repository to a directory of the host", "COPY repo/dir/ /got/\nRUN find /got -type f | xargs cat; exit 1", Failed, CONTEXT),
    A::new("..", "COPY ../../../../../../etc/passwd /got", Failed, CONTEXT),
    A::new(
        "links in the image where COPY writes",
        "RUN ln -s /proc/1/root/etc /testbed-1 && ln -s ../../../../../../../../etc /testbed-2\nCOPY repo /testbed-1/bottega-canary\nCOPY repo /testbed-2/bottega-canary\nRUN ls /etc/bottega-canary",
        Built,
        "the engine writes within the image",
    ),
    A::new("forged whiteouts", "RUN touch /.wh.etc /.wh..wh..opq /usr/.wh.bin; sleep 0.1; echo; echo over", Built, "the engine's own reading of layers, or its refusal")
        .says("\nover\n"),
    A::new("odd names", "RUN mkdir /n && cd /n && touch -- \"$(printf 'a\\nb')\" '-rf' \"$(printf '\\377')\" \"$(printf '\\033[2J')\" && ln -s / root && mkfifo pipe; sleep 0.1; echo; echo over", Built, "the engine's archives").says("\nover\n"),
    A::new("300 directories deep", "RUN python3 -c '[(os.mkdir(\"d\"), os.chdir(\"d\")) for os in [__import__(\"os\")] for i in range(300)]'", Built, "the engine's archives"),
    A::new("huge environment", "ENV A=x\nRUN export B=$(head -c 9000000 /dev/zero | tr '\\0' x); /bin/true", Failed, "the kernel's own limit"),
];
