//! The load: sessions that follow each other, so many at once, until time is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::client::Resumption;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::door::{self, Door, Session, Wire};
use super::ledger::Ledger;
use super::letter::Letter;
use crate::support::Guest;

const MAIL: &str = "MAIL FROM:<alice@sender.test>\r\n";
const RCPT: &str = "RCPT TO:<bob@example.org>\r\n";

/// What every session of a load does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub door: Door,
    /// Octets of a message.
    pub size: usize,
    /// Messages of a session.
    pub messages: usize,
    pub recipients: usize,
    pub commands: Commands,
    /// Sessions at a time.
    pub at_once: usize,
}

/// Whether a client awaits the reply to each command (RFC 2920 for the other way).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    OneByOne,
    Pipelined,
}

/// How long everything of a load took: each message, or each handshake.
///
/// A message begins with its MAIL, the first one of a session with the connection, and
/// ends with the reply to its final dot.
pub type Latencies = Vec<Duration>;

/// # Errors
/// The first session that did not go as it should.
pub async fn send(
    load: Load,
    address: SocketAddr,
    ledger: &Arc<Ledger>,
    until: Instant,
) -> io::Result<Latencies> {
    let tls = door::connector(Resumption::disabled());
    let mut clients = JoinSet::new();
    for _ in 0..load.at_once {
        let (tls, ledger) = (tls.clone(), Arc::clone(ledger));
        clients.spawn(async move {
            let mut letter = Letter::new(load.size);
            let mut latencies = Latencies::new();
            while Instant::now() < until {
                session(load, address, &tls, &ledger, &mut letter, &mut latencies).await?;
            }
            io::Result::Ok(latencies)
        });
    }
    join(clients).await
}

/// One session of a load; adds how long its messages took to `latencies`.
///
/// # Errors
/// What did not go as it should.
pub async fn session(
    load: Load,
    address: SocketAddr,
    tls: &TlsConnector,
    ledger: &Ledger,
    letter: &mut Letter,
    latencies: &mut Latencies,
) -> io::Result<()> {
    let mut began = Instant::now();
    let mut session = load.door.enter(address, tls).await?;
    for _ in 0..load.messages {
        let number = ledger.issue();
        deliver(load, &mut session, letter.numbered(number)).await?;
        ledger.acknowledge(number);
        latencies.push(began.elapsed());
        began = Instant::now();
    }
    session.dialogue(&[("QUIT", "221")]).await
}

pub async fn deliver(load: Load, session: &mut Session, letter: &[u8]) -> io::Result<()> {
    let mut commands = vec![(MAIL, "250")];
    commands.resize(load.recipients + 1, (RCPT, "250"));
    commands.push(("DATA\r\n", "354"));
    if load.commands == Commands::Pipelined {
        let group: String = commands.iter().map(|(command, _)| *command).collect();
        session.send(group.as_bytes()).await?;
    }
    for (command, code) in commands {
        if load.commands == Commands::OneByOne {
            session.send(command.as_bytes()).await?;
        }
        expect(session, code, command).await?;
    }
    session.send(letter).await?;
    expect(session, "250", "the final dot").await
}

async fn expect(session: &mut Session, code: &str, to: &str) -> io::Result<()> {
    let reply = session.reply().await?;
    if reply.starts_with(code) {
        return Ok(());
    }
    let to = to.trim_end();
    Err(io::Error::other(format!("`{reply}` to {to}")))
}

/// What a load of handshakes came to.
#[derive(Debug, Default)]
pub struct Handshakes {
    pub latencies: Latencies,
    pub resumed: usize,
}

/// TLS from the first octet, the greeting and QUIT, with what `tls` remembers.
///
/// # Errors
/// The first handshake that failed.
pub async fn hand_shake(
    at_once: usize,
    address: SocketAddr,
    tls: &TlsConnector,
    until: Instant,
) -> io::Result<Handshakes> {
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let tls = tls.clone();
        clients.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let kind = visit(address, &tls).await?;
                took.push((began.elapsed(), kind));
            }
            io::Result::Ok(took)
        });
    }
    let took = join(clients).await?;
    let resumed = took
        .iter()
        .filter(|(_, kind)| *kind == Some(HandshakeKind::Resumed));
    Ok(Handshakes {
        resumed: resumed.count(),
        latencies: took.into_iter().map(|(latency, _)| latency).collect(),
    })
}

async fn visit(address: SocketAddr, tls: &TlsConnector) -> io::Result<Option<HandshakeKind>> {
    let stream = door::hand_shake(door::connect(address).await?, tls).await?;
    let kind = stream.get_ref().1.handshake_kind();
    let mut guest = Guest::new(Box::new(stream) as Box<dyn Wire>);
    door::welcome(&mut guest).await?;
    guest.dialogue(&[("QUIT", "221")]).await?;
    Ok(kind)
}

async fn join<T: 'static>(mut clients: JoinSet<io::Result<Vec<T>>>) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(client) = clients.join_next().await {
        all.extend(client.unwrap()?);
    }
    Ok(all)
}
