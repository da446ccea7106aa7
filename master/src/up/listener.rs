use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use tokio::net::UnixDatagram;
use uuid::Uuid;

/// The other end of a daemon's notifications: what systemd would be told, `up` is told.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixDatagram,
    address: String,
}

/// What a daemon said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) ready: bool,
    pub(super) status: Option<String>,
}

/// The longest notification that is read.
const NOTICE_BYTES_MAX: usize = 4096;

impl Listener {
    /// An abstract socket: a path in the state directory could be longer than an address may be.
    pub(super) fn bind(unique: Uuid) -> io::Result<Self> {
        let name = format!("bottega-up-{}", unique.simple());
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, address: format!("@{name}") })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn next(&self) -> Notice {
        let mut bytes = [0; NOTICE_BYTES_MAX];
        match self.socket.recv(&mut bytes).await {
            Ok(length) => parse(&String::from_utf8_lossy(&bytes[..length])),
            // A socket that fails will not say anything any more; the daemon itself is still watched.
            Err(_) => std::future::pending().await,
        }
    }
}

fn parse(text: &str) -> Notice {
    let mut notice = Notice::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => notice.ready = true,
            Some(("STATUS", status)) => notice.status = Some(crate::text::clean_line(status)),
            _ => {}
        }
    }
    notice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hears_what_a_daemon_says() {
        let listener = Listener::bind(Uuid::now_v7()).expect("a socket");
        let environment = systemd::Environment::from([("NOTIFY_SOCKET", listener.address())]);
        let notifier = systemd::Notifier::new(&environment);
        notifier.ready("2 slots");
        assert_eq!(listener.next().await, Notice { ready: true, status: Some("2 slots".to_owned()) });
        notifier.watchdog();
        assert_eq!(listener.next().await, Notice::default());
        notifier.stopping("drain\u{1b}[2Jing");
        assert_eq!(listener.next().await, Notice { ready: false, status: Some("draining".to_owned()) });
    }
}
