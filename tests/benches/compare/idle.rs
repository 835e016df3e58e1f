//! What a session weighs that waits: many of them are opened, and the resident memory of
//! the peer's processes is compared with what it was before.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::client::Resumption;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::door::{self, Door, Session};
use super::peers::{House, Kind, Limits};
use super::report;
use super::results::Results;

pub const NAME: &str = "idle";

/// Connections that are being opened at a time.
const AT_ONCE: usize = 50;

/// How far a session has come when it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Ehlo,
    Rcpt,
}

const KINDS_OF_SESSION: [(&str, Door, After); 6] = [
    ("plain, EHLO", Door::Plain, After::Ehlo),
    ("plain, RCPT", Door::Plain, After::Rcpt),
    ("STARTTLS, EHLO", Door::StartTls, After::Ehlo),
    ("STARTTLS, RCPT", Door::StartTls, After::Rcpt),
    ("TLS, EHLO", Door::Tls, After::Ehlo),
    ("TLS, RCPT", Door::Tls, After::Rcpt),
];

/// Fills in the figures and returns the table.
pub async fn measure(kinds: &[Kind], house: &House, count: usize, results: &mut Results) -> String {
    let mut failures = String::new();
    let mut rows = Vec::new();
    // Postfix has a process for each session.
    let able = |kind: &&Kind| !matches!(kind, Kind::Direct | Kind::Postfix);
    for &kind in kinds.iter().filter(able) {
        let mut row = vec![kind.name().to_owned()];
        for (name, door, after) in KINDS_OF_SESSION {
            // Memory that was used once stays: each kind of session has a new peer.
            let peer = kind.start(house, Limits::Off);
            let Some((address, processes)) = peer.doors.at(door).zip(peer.processes) else {
                row.push("–".to_owned());
                continue;
            };
            let weigh = async {
                let before = processes.resident();
                let mut sessions = open(count, door, after, address).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                let weight = processes.resident().saturating_sub(before) as f64;
                // Those that are gone weigh nothing.
                still_held(&mut sessions).await?;
                io::Result::Ok(weight / 1024.0 / count as f64)
            };
            match weigh.await {
                Ok(weight) => {
                    results.add_figure(name, kind, weight);
                    row.push(report::figure(Some(weight)));
                }
                Err(error) => {
                    failures.push_str(&format!("\n{}, {name}: {error}.\n", kind.name()));
                    row.push("failed".to_owned());
                }
            }
        }
        rows.push(row);
    }
    let mut heads = vec![String::new()];
    heads.extend(KINDS_OF_SESSION.map(|(name, _, _)| name.to_owned()));
    let table = report::table(&heads, &rows);
    format!(
        "### KiB of an idle session, {count} held at once\n\n{table}\n\
         Postfix has a process for each session and was left out.\n{failures}"
    )
}

async fn open(
    count: usize,
    door: Door,
    after: After,
    address: SocketAddr,
) -> io::Result<Vec<Session>> {
    let tls = door::connector(Resumption::disabled());
    let mut opening = JoinSet::new();
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        if opening.len() >= AT_ONCE
            && let Some(session) = opening.join_next().await
        {
            sessions.push(session.unwrap()?);
        }
        let tls = tls.clone();
        opening.spawn(async move { open_one(door, after, address, &tls).await });
    }
    while let Some(session) = opening.join_next().await {
        sessions.push(session.unwrap()?);
    }
    Ok(sessions)
}

async fn open_one(
    door: Door,
    after: After,
    address: SocketAddr,
    tls: &TlsConnector,
) -> io::Result<Session> {
    let mut session = door.enter(address, tls).await?;
    if after == After::Rcpt {
        let envelope = [
            ("MAIL FROM:<alice@sender.test>", "250"),
            ("RCPT TO:<bob@example.org>", "250"),
        ];
        session.dialogue(&envelope).await?;
    }
    Ok(session)
}

async fn still_held(sessions: &mut [Session]) -> io::Result<()> {
    for session in sessions {
        session.dialogue(&[("NOOP", "250")]).await?;
    }
    Ok(())
}
