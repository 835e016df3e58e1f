//! `portcullis demo`: the proxy before an example server, to be tried at once.
//!
//! Nothing else uses this room. The proxy in it is the real one with the real
//! defaults; only the server behind it is made up.

mod example;

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::server::listen::ListenAddress;
use crate::server::{self, Reread, Rooms, ServeError, Sockets};

pub use example::{LOGIN, PASSWORD};

/// The domain that the example server takes mail for.
pub const DOMAIN: &str = "example.org";

/// A mailbox that the example server does not have.
pub const UNKNOWN_MAILBOX: &str = "nobody";

/// The example server, not running yet.
pub struct Example {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Example {
    /// Takes a bound socket.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever, and logs every message that arrives.
    async fn serve(listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(example::converse(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "example server cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Runs the proxy before the example server until told to stop.
///
/// # Errors
/// As [`server::run`].
pub async fn run(rooms: Rooms, reread: Reread, example: Example) -> Result<(), ServeError> {
    let serving = tokio::spawn(Example::serve(TcpListener::from_std(example.listener)?));
    let port = |list: &[ListenAddress]| list.first().map(|address| address.0.port());
    let settings = &rooms.server;
    let text = invitation(
        port(&settings.listen),
        port(&settings.listen_tls),
        port(&settings.listen_submission),
    );
    // The terminal, if any, is for people; the log goes its own way.
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    // Nobody's mail shall get here by mistake: the ports are not shared.
    let ended = server::run(rooms, reread, Sockets::alone(), std::future::pending()).await;
    serving.abort();
    ended
}

/// The settings that make the proxy guard the example server, as flags.
pub fn flags(backend: SocketAddr) -> Vec<(String, String)> {
    let flag = |key: &str, value: String| (key.to_owned(), value);
    vec![
        flag("backend", backend.to_string()),
        flag("domains", DOMAIN.to_owned()),
    ]
}

/// What to try, for the terminal. Ports are those of the three listeners.
pub fn invitation(mx: Option<u16>, tls: Option<u16>, submission: Option<u16>) -> String {
    let mut text =
        String::from("\nPortcullis guards an example server. Try it from another terminal:\n");
    let mut line = |what: &str, command: String| {
        text.push_str(&format!("\n  {what}\n    {command}\n"));
    };
    if let Some(port) = mx {
        line(
            "a message over STARTTLS",
            format!(
                "swaks --server 127.0.0.1:{port} --tls --from you@{DOMAIN} --to friend@{DOMAIN} --header 'Subject: hello'"
            ),
        );
        line(
            "the same with curl",
            format!(
                "printf 'Subject: hello\\r\\n\\r\\nHi.\\r\\n' | curl -sS -k --ssl-reqd smtp://127.0.0.1:{port} --mail-from you@{DOMAIN} --mail-rcpt friend@{DOMAIN} -T -"
            ),
        );
        line(
            "an attempt to relay, which is refused",
            format!("swaks --server 127.0.0.1:{port} --from you@{DOMAIN} --to victim@example.com"),
        );
    }
    if let Some(port) = tls {
        line(
            "TLS from the first octet",
            format!(
                "swaks --server 127.0.0.1:{port} --tls-on-connect --from you@{DOMAIN} --to friend@{DOMAIN}"
            ),
        );
    }
    if let Some(port) = submission {
        line(
            "submission: signed in, so mail may go anywhere",
            format!(
                "swaks --server 127.0.0.1:{port} --tls --auth-user {LOGIN} --auth-password {PASSWORD} --from you@{DOMAIN} --to anybody@example.com"
            ),
        );
    }
    text.push_str("\nWhat comes in and what is refused is told below; Ctrl-C ends it.\n\n");
    text
}
