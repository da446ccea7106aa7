//! The wires of a lab: a network namespace with a bridge, and a tap for each node.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::harness::{printed, wait_for};
use crate::node::Connection;

const BRIDGE: &str = "bridge";
/// The first two numbers of all addresses; they mean something in the lab's own namespace only.
const NETWORK: &str = "10.77.0";
/// How long the end of what runs there may take.
const END_MAX: Duration = Duration::from_secs(20);

/// The network of one lab.
///
/// Its name follows from the lab's directory, and all that runs in the lab runs in its namespace. So whoever comes after a
/// crash finds all that is left, without a record that could be missing or old.
#[derive(Clone, Debug)]
pub struct Network {
    namespace: String,
}

impl Network {
    /// The network of the lab in a directory, whether it is there or not.
    ///
    /// # Errors
    /// The directory is not there.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let digest = Sha256::digest(dir.canonicalize()?.as_os_str().as_encoded_bytes());
        let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { namespace: format!("lab-{short}") })
    }

    /// Whether networks like this can be made here.
    #[must_use]
    pub fn is_allowed() -> bool {
        // Of several tests of one process each asks for itself.
        static PROBES: AtomicU32 = AtomicU32::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let probe = Self { namespace: format!("lab-probe-{}-{number}", std::process::id()) };
        let made = probe.make().and_then(|()| probe.connect(1));
        let _ = probe.remove();
        made.is_ok()
    }

    /// Makes it.
    ///
    /// # Errors
    /// It is there already, or the kernel or the right to make it is missing.
    pub fn make(&self) -> io::Result<()> {
        ip(&["netns", "add", &self.namespace])?;
        self.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        self.ip(&["link", "set", BRIDGE, "up"])
    }

    /// Makes the wire of node `number`, from 1.
    ///
    /// # Errors
    /// It is there already, or the kernel has no taps.
    pub fn connect(&self, number: u32) -> io::Result<Connection> {
        let tap = tap(number);
        self.ip(&["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", BRIDGE])?;
        self.ip(&["link", "set", &tap, "up"])?;
        Ok(self.connection(number))
    }

    /// How node `number` is connected.
    #[must_use]
    pub fn connection(&self, number: u32) -> Connection {
        Connection {
            namespace: self.namespace.clone(),
            tap: tap(number),
            address: format!("{NETWORK}.{number}/24"),
        }
    }

    /// Cuts the wire of a node, or mends it.
    ///
    /// # Errors
    /// It is not there.
    pub fn set_connected(&self, number: u32, is_connected: bool) -> io::Result<()> {
        // The tap itself stays up: a node whose own end fails would need a new one.
        let tap = tap(number);
        let link = ["link", "set", &tap];
        if is_connected {
            self.ip(&[&link[..], &["master", BRIDGE]].concat())
        } else {
            self.ip(&[&link[..], &["nomaster"]].concat())
        }
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// `ip` cannot be run.
    pub fn is_there(&self) -> io::Result<bool> {
        let listed = output(Command::new("ip").args(["netns", "list"]))?;
        Ok(listed.lines().any(|line| line.split(' ').next() == Some(&self.namespace)))
    }

    /// Whether a process runs in it.
    ///
    /// # Errors
    /// It is not there.
    pub fn holds(&self, process: Pid) -> io::Result<bool> {
        Ok(self.processes()?.contains(&process))
    }

    /// Ends all that runs in it, and removes it; nothing where it is not there.
    ///
    /// # Errors
    /// Something in it does not end.
    pub fn remove(&self) -> io::Result<()> {
        if !self.is_there()? {
            return Ok(());
        }
        let ended = wait_for(END_MAX, || {
            let left = self.processes().ok()?;
            for process in &left {
                match kill(*process, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => eprintln!("process {process} cannot be ended: {error}"),
                }
            }
            left.is_empty().then_some(())
        });
        ended.ok_or_else(|| io::Error::other(format!("not all in {} ends", self.namespace)))?;
        // With it go the bridge and the taps.
        ip(&["netns", "delete", &self.namespace])
    }

    fn processes(&self) -> io::Result<Vec<Pid>> {
        let listed = output(Command::new("ip").args(["netns", "pids", &self.namespace]))?;
        Ok(listed.lines().filter_map(|line| line.trim().parse().ok()).map(Pid::from_raw).collect())
    }

    fn ip(&self, args: &[&str]) -> io::Result<()> {
        let inside = ["-n", &self.namespace];
        ip(&[&inside, args].concat())
    }
}

fn tap(number: u32) -> String {
    format!("tap{number}")
}

fn ip(args: &[&str]) -> io::Result<()> {
    output(Command::new("ip").args(args)).map(drop)
}

fn output(command: &mut Command) -> io::Result<String> {
    let ran = command.output()?;
    if !ran.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", printed(&ran).trim())));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}
