//! What an idle session costs: ten thousand clients that have said EHLO and wait, in
//! plain text and inside TLS, before the release build of the program. Where the limit
//! of file descriptors is too low for so many, they are as many as it bears.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use support::{Guest, Portcullis, Scripted, connect_from, trusting_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const SESSIONS: u64 = 10_000;

/// `SESSIONS_MAX`: the sessions are less than 80 % of it, so that nobody is hurried.
const PLACES: u64 = 13_000;

/// Connections that are being opened at a time.
const AT_ONCE: usize = 100;

/// Clients of one address; the range of ports of one is 28,232 by default.
const OF_ADDRESS: usize = 5_000;

const SETTINGS: &[(&str, &str)] = &[
    ("SESSIONS_MAX", "13000"),
    ("BACKEND_CONN_MAX", "off"),
    ("TIMEOUT_COMMAND", "1h"),
    ("LOG_LEVEL", "warn"),
];

/// A stream of either kind.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

type Session = Guest<Box<dyn Wire>>;

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Tls,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "TLS 1.3",
        }
    }

    async fn open(
        self,
        portcullis: Doors,
        number: usize,
        tls: TlsConnector,
    ) -> io::Result<Session> {
        let host = u8::try_from(number / OF_ADDRESS).unwrap();
        let source = Ipv4Addr::new(127, 0, 1, host + 1);
        let wire: Box<dyn Wire> = match self {
            Self::Plain => Box::new(connect_from(source, portcullis.mx).await?),
            Self::Tls => {
                let stream = connect_from(source, portcullis.tls).await?;
                let name = ServerName::try_from("mx.portcullis.test").unwrap();
                Box::new(tls.connect(name, stream).await?)
            }
        };
        let mut session = Guest::new(wire);
        let greeting = session.reply().await?;
        if !greeting.starts_with("220") {
            return Err(io::Error::other(greeting));
        }
        session.dialogue(&[("EHLO client.test", "250")]).await?;
        Ok(session)
    }
}

#[derive(Clone, Copy)]
struct Doors {
    mx: SocketAddr,
    tls: SocketAddr,
}

async fn open_all(kind: Kind, doors: Doors, count: usize) -> Vec<Session> {
    let tls = TlsConnector::from(Arc::new(trusting_config()));
    let mut opening: JoinSet<io::Result<Session>> = JoinSet::new();
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        if opening.len() >= AT_ONCE {
            open.push(opening.join_next().await.unwrap().unwrap().unwrap());
        }
        opening.spawn(kind.open(doors, number, tls.clone()));
    }
    while let Some(session) = opening.join_next().await {
        open.push(session.unwrap().unwrap());
    }
    open
}

/// KiB of a session, and how long it took to open them all.
async fn measure(kind: Kind, count: usize) -> (f64, Duration) {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, SETTINGS);
    let doors = Doors {
        mx: portcullis.mx,
        tls: portcullis.tls,
    };
    let (before, began) = (portcullis.resident(), Instant::now());
    let mut sessions = open_all(kind, doors, count).await;
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let with = portcullis.resident();
    for session in &mut sessions {
        // Held, not only opened.
        session.dialogue(&[("NOOP", "250")]).await.unwrap();
    }
    let octets = with.saturating_sub(before) as f64;
    (octets / 1024.0 / count as f64, took)
}

/// Raises the limit of file descriptors, which the program inherits, as far as may be,
/// and says how many sessions that serves without stress: where it cannot be raised
/// the program gives two thirds of it to clients.
fn sessions() -> usize {
    let wanted = 2 * PLACES + 1000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)) {
        Ok(()) => wanted,
        Err(_) => {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
            hard
        }
    };
    let places = (limit.saturating_sub(128) / 3 * 2).min(PLACES);
    usize::try_from((places * 77 / 100).min(SESSIONS)).unwrap()
}

#[tokio::main]
async fn main() {
    let count = sessions();
    println!("| {count} idle sessions | KiB of a session | opened in |");
    println!("|---|---|---|");
    for kind in [Kind::Plain, Kind::Tls] {
        let (kibibytes, took) = measure(kind, count).await;
        println!("| {} | {kibibytes:.1} | {took:.1?} |", kind.name());
    }
}
