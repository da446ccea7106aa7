use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::Environment;

/// Tells systemd how the daemon is; does nothing where systemd did not start it. Cheap to clone.
///
/// A message that cannot be sent is passed over: a daemon never fails because nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    status: String,
    trouble: Option<String>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        let socket = environment.get("NOTIFY_SOCKET").and_then(|address| connect(address).ok());
        let for_us = environment.get("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let microseconds = environment.get("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        let watchdog =
            microseconds.filter(|us| for_us && socket.is_some() && *us > 0).map(Duration::from_micros);
        Self { socket: socket.map(Arc::new), watchdog, said: Arc::default() }
    }

    /// How often [`watchdog`](Self::watchdog) is to be called: half of what systemd tolerates. `None`: never.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|tolerated| tolerated / 2)
    }

    /// It can do its work: to be said after real probes.
    pub fn ready(&self, status: &str) {
        let status = self.with_trouble(Some(status), None);
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// It cannot do its work yet, and waits for what it needs; it will be heard of again within `next`.
    pub fn waiting(&self, status: &str, next: Duration) {
        let status = self.with_trouble(Some(status), None);
        let next = u32::try_from(next.as_micros()).unwrap_or(u32::MAX);
        self.send(&[
            NotifyState::Status(&status),
            NotifyState::ExtendTimeoutUsec(next),
            NotifyState::Watchdog,
        ]);
    }

    /// What it does, in one line for people.
    pub fn status(&self, status: &str) {
        let status = self.with_trouble(Some(status), None);
        self.send(&[NotifyState::Status(&status)]);
    }

    /// What people must know beside every status from now on; `None`: nothing any more.
    pub fn trouble(&self, trouble: Option<String>) {
        let status = self.with_trouble(None, Some(trouble));
        self.send(&[NotifyState::Status(&status)]);
    }

    /// Keeps what is new, and gives the line for people.
    fn with_trouble(&self, status: Option<&str>, trouble: Option<Option<String>>) -> String {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status {
            said.status = status.to_owned();
        }
        if let Some(trouble) = trouble {
            said.trouble = trouble;
        }
        let parts = said.trouble.iter().chain(Some(&said.status).filter(|status| !status.is_empty()));
        one_line(&parts.cloned().collect::<Vec<_>>().join("; "))
    }

    /// Its work loop turns.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Its work loop is at something that takes long and ends by itself: it will be heard of again before the watchdog bites.
    /// Counts before it is ready, too.
    pub fn works_on(&self) {
        let next = self.watchdog.unwrap_or(Duration::MAX);
        let next = u32::try_from(next.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::Watchdog, NotifyState::ExtendTimeoutUsec(next)]);
    }

    /// It reads its configuration again; [`reloaded`](Self::reloaded) ends that.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// What it read holds now, or what held before does.
    pub fn reloaded(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// It ends.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!("cannot tell systemd {message:?}: {error}");
        }
    }
}

/// A line break in a status would begin another assignment.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r', '\0']).collect::<Vec<_>>().join(" ")
}

fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A full queue must not hold the work loop.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..length].to_vec()).expect("text")
    }

    #[test]
    fn says_what_the_protocol_asks_for() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bind");
        let path = path.to_str().expect("text");
        let notifier =
            Notifier::new(&Environment::from([("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "30000000")]));
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(15)));
        let check = |say: &dyn Fn(&Notifier), expected: &str| {
            say(&notifier);
            assert_eq!(received(&listener), expected);
        };
        check(&|n| n.ready("3 slots"), "READY=1\nSTATUS=3 slots\n");
        check(&|n| n.status("a\nSTOPPING=1"), "STATUS=a STOPPING=1\n");
        check(&|n| n.watchdog(), "WATCHDOG=1\n");
        check(&|n| n.works_on(), "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000\n");
        check(&|n| n.trouble(Some("a key is wrong".to_owned())), "STATUS=a key is wrong; a STOPPING=1\n");
        check(&|n| n.status("5 open"), "STATUS=a key is wrong; 5 open\n");
        check(&|n| n.trouble(None), "STATUS=5 open\n");
        check(&Notifier::reloaded, "READY=1\n");
        check(&|n| n.stopping("draining"), "STOPPING=1\nSTATUS=draining\n");
        notifier.reloading();
        assert!(received(&listener).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    }

    #[test]
    fn abstract_sockets_are_reached_too() {
        let name = format!("bottega-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("address");
        let listener = UnixDatagram::bind_addr(&address).expect("bind");
        let path = format!("@{name}");
        Notifier::new(&Environment::from([("NOTIFY_SOCKET", path.as_str())])).watchdog();
        assert_eq!(received(&listener), "WATCHDOG=1\n");
    }

    #[test]
    fn does_nothing_outside_systemd() {
        let check = |environment: Environment| {
            let notifier = Notifier::new(&environment);
            assert_eq!(notifier.watchdog_interval(), None, "{environment:?}");
            notifier.ready("to nobody");
        };
        check(Environment::default());
        check(Environment::from([("NOTIFY_SOCKET", "/nonexistent/socket"), ("WATCHDOG_USEC", "1000")]));
        check(Environment::from([("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]));
    }
}
