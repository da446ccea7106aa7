//! Attacks from inside an evaluation's container. What begins with `try` or `attempt` prints ESCAPED where something
//! worked that must not; `call` also where it failed for another reason than that it is not allowed.

use std::time::Duration;

use worker::engine::ContainerEnd::{DiskFull, Exited, OutOfMemory, TimedOut};
use worker::engine::{EngineFacts, RunRequest};

use super::attack::RunAttack as A;

const MIB: u64 = 1 << 20;

/// Before every Python attack: system calls by number, and a report of what they did. The kernel asks for the right
/// before it looks at the rest, so that any other error means that the right was there.
pub(crate) const PRELUDE: &str = r#"
import ctypes, errno, os, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *args)
    said = errno.errorcode.get(ctypes.get_errno()) if result == -1 else result
    print("held:" if said in ("EPERM", "EACCES", "ENOSYS") else "ESCAPED", name, said, flush=True)
def attempt(name, action):
    try:
        print("ESCAPED", name, action(), flush=True)
    except (OSError, OverflowError) as error:
        print("held:", name, type(error).__name__, errno.errorcode.get(error.errno), flush=True)
"#;

/// Before every attack by bash: `try` says whether a command worked.
pub(crate) const BASH_PRELUDE: &str = "try() { command -v \"$1\" >/dev/null || echo \"ESCAPED, for there is no $1\"; if \"$@\" >/dev/null 2>&1; then echo \"ESCAPED $*\"; else echo \"held: $*\"; fi; }\n";

fn soon(request: &mut RunRequest) {
    request.timeout = Duration::from_secs(3);
}

const NAMESPACES: &str = "its own namespaces";
const CAPABILITIES: &str = "no capabilities";
const SECCOMP: &str = "no capabilities, the engine's seccomp profile";
const NO_NETWORK: &str = "network none";
const READ_ONLY: &str = "read-only mounts of the engine";
const ARCHIVE: &str = "what is copied out is bounded, never unpacked";
const KILL: &str = "kill by container at the deadline";
const LOG: &str = "the log's limit";
const OPEN_FILES: &str = "nofile limit";
const CORE_DUMPS: &str = "core limit 0";

/// Whether an engine has what holds an attack.
pub(crate) fn can_be_held(attack: &A, facts: &EngineFacts) -> bool {
    // Podman's seccomp profile lets processes make user namespaces, and use the session keyring that is theirs alone.
    let lets = facts.is_podman && ["user namespace", "keys of the kernel"].contains(&attack.name);
    // Without root it takes no notice of these before 5.5.
    let ignores =
        facts.is_podman && facts.rootless_uid.is_some() && [OPEN_FILES, CORE_DUMPS].contains(&attack.held_by);
    !lets && !ignores
}

pub(crate) const ATTACKS: &[A] = &[
    // What it may use.
    A::bash("fork bomb", "bomb() { bomb | bomb & }; bomb; sleep 600; sleep 600", "pids limit, deadline")
        .with(|request| {
            soon(request);
            request.limits.pids_max = 64;
        })
        .ends(TimedOut)
        .says("Resource temporarily unavailable"),
    A::python(
        "thread bomb",
        "try:\n while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\nexcept RuntimeError as e: print(e, flush=True)\nos._exit(0)",
        "pids limit",
    )
    .with(|request| request.limits.pids_max = 64)
    .says("can't start new thread"),
    A::python("memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 20))", "memory limit, no swap")
        .with(|request| request.limits.memory_bytes = 64 * MIB)
        .ends(OutOfMemory),
    A::bash(
        "memory bomb in a child, its parent lives on",
        "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))'; echo parent lives; sleep 2",
        "memory limit",
    )
    .with(|request| request.limits.memory_bytes = 64 * MIB)
    .ends(OutOfMemory)
    .says("parent lives"),
    A::bash("/dev/shm bomb", "try dd if=/dev/zero of=/dev/shm/x bs=1M count=999; df /dev/shm", "shm size")
        .with(|request| request.limits.shm_bytes = 8 * MIB)
        .says("100%"),
    A::python(
        "pipe buffers",
        "held = []\ntry:\n while True:\n  r, w = os.pipe(); held.append((r, w)); os.set_blocking(w, False); os.write(w, b'x' * 65536)\nexcept OSError as e: print(e)",
        OPEN_FILES,
    )
    .says("Too many open files"),
    A::python(
        "millions of file descriptors",
        "try: import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)); print('ESCAPED')\nexcept ValueError as e: print(e)\nn = 0\ntry:\n while True: os.dup(0); n += 1\nexcept OSError as e: print(n, e)",
        OPEN_FILES,
    )
    .says("Too many open files"),
    A::bash("disk fill", "cat /dev/zero > /tmp/fill", "disk limit or watch")
        .with(|request| request.limits.disk_bytes = 64 * MIB)
        .ends(DiskFull),
    A::python(
        "inode fill",
        "n = 0\nwhile True:\n os.mkdir('/tmp/%d' % n); os.chdir('/tmp/%d' % n)\n for i in range(5000): os.close(os.open(str(i), os.O_CREAT))\n n += 1",
        "watch of the number of files",
    )
    .with(|request| {
        request.limits.disk_bytes = 128 * MIB;
        request.timeout = Duration::from_secs(100);
    })
    .ends(DiskFull),
    A::bash("CPU hog", "for i in 1 2 3 4; do while :; do :; done & done; wait", "cpuset, deadline")
        .with(|request| {
            soon(request);
            request.limits.cpuset_cpus = "1".to_owned();
        })
        .ends(TimedOut),
    A::python(
        "more cores than given",
        "attempt('affinity', lambda: os.sched_setaffinity(0, {0}))\nprint('cores', sorted(os.sched_getaffinity(0)))",
        "cpuset",
    )
    .with(|request| request.limits.cpuset_cpus = "1".to_owned())
    .says("cores [1]"),
    A::python(
        "real-time priority",
        "attempt('fifo', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))\nattempt('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))",
        CAPABILITIES,
    ),
    // What it prints.
    A::bash("log flood", "yes flood", LOG).with(soon).ends(TimedOut).says("bytes cut here"),
    A::bash("one endless line", "tr '\\0' x < /dev/zero", LOG).with(soon).ends(TimedOut).says("bytes cut here"),
    A::bash(
        "escape sequences for a terminal",
        r"printf '\033]0;owned\007\033[2J\033[31mred\033]52;c;ZWNobw==\007\rover\b\b'",
        "stripped before anything is shown",
    )
    .says("red"),
    A::bash("binary garbage", "head -c 200000 /dev/urandom; echo end", LOG).says("end"),
    A::bash(
        "words of the engine",
        r#"printf '{"stream":"x"}\n[killed after 3 s]\n\001\000\000\000\000\000\000\377x\n'; exit 7"#,
        "the end is the engine's, not the log's",
    )
    .ends(Exited(7)),
    // What it leaves running.
    A::bash(
        "ignores every signal",
        "trap '' TERM INT HUP QUIT USR1 PIPE; echo deaf; while :; do sleep 600; done",
        KILL,
    )
    .with(soon)
    .ends(TimedOut)
    .says("deaf"),
    A::bash(
        "daemon by setsid and double fork",
        "(setsid nohup bash -c 'trap \"\" TERM HUP; sleep 600' >/dev/null 2>&1 &) ; echo over",
        NAMESPACES,
    )
    .says("over"),
    A::bash(
        "daemon that holds the output open",
        "(setsid bash -c 'trap \"\" TERM HUP; echo I stay; sleep 600' &) ; sleep 0.5; exit 5",
        NAMESPACES,
    )
    .ends(Exited(5))
    .says("I stay"),
    A::bash("daemon at the deadline", "(setsid sleep 600 &) ; (setsid sleep 601 &) ; sleep 602", KILL)
        .with(soon)
        .ends(TimedOut),
    A::bash("kills everything it sees", "sleep 600 & kill -9 -1; kill -9 1; exit 3", NAMESPACES)
        .ends(Exited(3)),
    A::python("stops its parent", "os.kill(os.getppid(), signal.SIGSTOP); time.sleep(600)", KILL)
        .with(soon)
        .ends(TimedOut),
    // What is copied out: the requests name /out/it, as file and as output.
    A::bash("output: symbolic link", "ln -s /etc/passwd /out/it", ARCHIVE),
    A::bash("output: link in a part of its path", "rm -rf /out; ln -s /etc /tmp/l; ls /tmp/l/passwd", ARCHIVE),
    A::bash("output: sparse file", "truncate -s 8T /out/it && ls -s /out/it", ARCHIVE).says("0 /out/it"),
    A::bash("output: FIFO", "mkfifo /out/it", ARCHIVE),
    A::python("output: socket", "socket.socket(socket.AF_UNIX).bind('/out/it')", ARCHIVE),
    A::bash("output: zip bomb", "head -c 90000000 /dev/zero | gzip > /out/it; ls -s /out/it", ARCHIVE),
    A::bash("output: tar with .. and absolute names", "cd /tmp; echo x > a; tar -cPf /out/it --transform 's,^,../../../../bottega-canary/,' a", ARCHIVE),
    A::bash(
        "output: directory of links, setuid files and odd names",
        "mkdir /out/it; cd /out/it; ln -s / root; ln -s .. up; cp /bin/true suid; chmod 6777 suid; touch -- $'a\\nb' '-rf' $'\\377' $'\\033[2J'; ln suid hard",
        ARCHIVE,
    ),
    A::python(
        "output: 1000 directories deep",
        "os.mkdir('/out/it'); os.chdir('/out/it')\nfor i in range(1000): os.mkdir('d'); os.chdir('d')",
        ARCHIVE,
    ),
    A::bash("output: device node", "try mknod /out/it b 254 0; try mknod /tmp/c c 1 1", CAPABILITIES),
    A::bash("output: a directory of 20000 files", "mkdir /out/it; cd /out/it; seq 20000 | xargs touch", ARCHIVE),
    // What it may do to the kernel.
    A::bash("mount", "try mount -t tmpfs x /mnt; try mount --bind / /mnt; try umount /proc", CAPABILITIES),
    A::bash("user namespace", "try unshare -Ur id; try unshare -m true; try unshare -n true", SECCOMP),
    A::python(
        "namespaces of others",
        "for n in 'mnt', 'net', 'pid', 'uts', 'ipc':\n call('setns ' + n, 308, os.open('/proc/self/ns/' + n, os.O_RDONLY), 0)",
        SECCOMP,
    ),
    A::bash("chroot", "try chroot / true", CAPABILITIES),
    A::python(
        "clock",
        "call('settimeofday', 164, struct.pack('qq', int(time.time()), 0), None)\ncall('clock_settime', 227, 0, struct.pack('qq', int(time.time()), 0))\ncall('adjtimex', 159, struct.pack('I', 0x8001) + bytes(500))",
        CAPABILITIES,
    ),
    A::python("host name", "attempt('sethostname', lambda: socket.sethostname('owned'))", CAPABILITIES),
    A::python(
        "raw sockets",
        "attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\nattempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))",
        CAPABILITIES,
    ),
    A::python(
        "kernel modules",
        "call('init_module', 175, b'x', 1, b'')\ncall('finit_module', 313, 0, b'', 0)\ncall('delete_module', 176, b'overlay', 0)\ncall('kexec_load', 246, 0, 0, None, 0)",
        SECCOMP,
    ),
    A::python(
        "keys of the kernel",
        "call('keyctl', 250, 0, -3, 1)\ncall('add_key', 248, b'user', b'x', b'y', 1, -3)",
        SECCOMP,
    ),
    A::python("bpf and perf", "call('bpf', 321, 0, struct.pack('IIII', 2, 4, 4, 1) + bytes(112), 128)\ncall('perf_event_open', 298, struct.pack('II', 1, 128) + bytes(120), -1, 0, -1, 0)", SECCOMP),
    A::python("reboot and swap", "call('reboot', 169, 0xfee1dead, 672274793, 0x1234567, None)\nopen('/tmp/acct', 'w').close()\ncall('swapoff', 168, b'/tmp/acct')\ncall('acct', 163, b'/tmp/acct')", CAPABILITIES),
    A::python("kernel log", "call('syslog', 103, 3, ctypes.create_string_buffer(100), 100)\nattempt('kmsg', lambda: open('/dev/kmsg', 'w'))", SECCOMP),
    A::python("open by handle", "call('open_by_handle_at', 304, -100, struct.pack('Ii', 8, 1) + bytes(8), 0)", SECCOMP),
    A::python(
        "io_uring",
        "fd = libc.syscall(425, 4, bytes(120))\nprint('ring' if fd >= 0 else 'held: no ring')\nattempt('network', lambda: socket.create_connection(('1.1.1.1', 53), 2))",
        "network none, whether or not the engine lets rings be made",
    ),
    A::bash(
        "/proc and /sys",
        "try bash -c 'echo x > /proc/sys/kernel/core_pattern'; try bash -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'; try bash -c 'echo b > /proc/sysrq-trigger'; try bash -c 'echo x > /sys/kernel/uevent_helper'; try bash -c 'echo x > /sys/module/overlay/parameters/index'; try bash -c '[ $(head -c 4 /proc/kcore | wc -c) -gt 0 ]'; try bash -c 'echo -1000 > /proc/1/oom_score_adj'",
        READ_ONLY,
    ),
    A::bash(
        "control groups",
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do try mkdir $d/x; done; for f in $(find /sys/fs/cgroup -name '*max*' -o -name 'release_agent' -o -name 'cgroup.procs' -o -name 'devices.allow'); do try bash -c \"echo a > $f\"; done",
        READ_ONLY,
    ),
    A::bash("devices", "try cat /dev/mem; try head -c 1 /dev/vda; try head -c 1 /dev/sda; try head -c 1 /dev/kvm; ls /dev | tr '\\n' ' '", "no devices"),
    A::bash("core dump", "ulimit -c unlimited; ulimit -c; cd /tmp; bash -c 'kill -SEGV $$'; ls /tmp/core* 2>/dev/null && echo ESCAPED; echo over", CORE_DUMPS).says("over"),
    A::bash("huge arguments", "x=$(head -c 5000000 /dev/zero | tr '\\0' x); try /bin/true \"$x\"; X=$x try /bin/true", "the kernel's own limit"),
    A::bash("setuid programs", "for p in $(find / -xdev -perm /6000 -type f 2>/dev/null); do echo $p; done; try su -c true; grep NoNewPrivs /proc/self/status", "no-new-privileges")
        .says("NoNewPrivs:\t1"),
    // Whom it may reach.
    A::python(
        "network",
        "for host in '1.1.1.1', '172.17.0.1', '169.254.169.254', '10.0.0.1':\n attempt(host, lambda: socket.create_connection((host, int(os.environ['HOST_PORT'])), 2))\nattempt('name', lambda: socket.getaddrinfo('example.org', 80))\nattempt('loopback', lambda: socket.create_connection(('127.0.0.1', int(os.environ['HOST_PORT'])), 2))\nattempt('v6', lambda: socket.create_connection(('::1', int(os.environ['HOST_PORT'])), 2))",
        NO_NETWORK,
    ),
    A::python(
        "sockets of the host",
        "def to(path):\n s = socket.socket(socket.AF_UNIX); s.connect(path)\nfor path in '/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock', '/run/systemd/private', '\\0' + os.environ['HOST_NAME']:\n attempt(repr(path), lambda: to(path))",
        "no host path inside, network none",
    ),
    A::bash(
        "keys of the worker",
        "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n' | sort -u; cat /proc/self/mountinfo; find / -xdev -newer /proc/1 -type f 2>/dev/null | head; ls -la /run /run/secrets /run/credentials /root 2>&1; true",
        "nothing of the worker is inside",
    ),
    A::python(
        "debugger on its parent",
        "parent = os.getpid()\nif os.fork() == 0:\n print('attached' if libc.ptrace(16, parent, None, None) == 0 else 'not attached', flush=True); time.sleep(0.2); libc.ptrace(17, parent, None, None); os._exit(0)\nos.wait()\nattempt('host', lambda: os.kill(2 ** 22 - 1, 0))",
        "nothing outside its PID namespace can be named; its equals it may debug",
    ),
];
