//! A good client beside a flood: connections of 200 addresses, far more than the limits
//! allow, while one client goes on sending at its own pace.
//!
//! The flood comes at a fixed rate, so that it does not take whatever the peer leaves of
//! the processors. It shares them with the peer, though, as no real flood would.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::cell::percentile;
use super::door::{self, Door};
use super::generator::{self, Commands, Load};
use super::ledger::Ledger;
use super::letter::Letter;
use super::peers::{House, Kind, Limits, Peer};
use super::report;
use super::results::{Results, median};
use super::sink::Sink;
use crate::support::{connect_from, flood};

pub const NAME: &str = "flood";

/// Names of the figures.
pub const CPU: &str = "flood: CPU us of an abusive connection";
pub const SLOWED: &str = "flood: p99 with to without";

/// Connections of a tick of the clock, and of a second.
const OF_TICK: usize = 20;
const TICK: Duration = Duration::from_millis(10);

/// Between two messages of the good client, so that it stays within the limits itself.
const PACE: Duration = Duration::from_millis(20);

/// Messages of the good client's session: a new session every two seconds.
const GOOD: Load = Load {
    door: Door::Plain,
    size: 4 << 10,
    messages: 100,
    recipients: 1,
    commands: Commands::OneByOne,
    at_once: 1,
};

fn abusers() -> Vec<Ipv4Addr> {
    (1..=200)
        .map(|host| Ipv4Addr::new(127, 0, 1, host))
        .collect()
}

/// One round of one peer.
struct Round {
    cpu: f64,
    alone: f64,
    beside: f64,
}

/// Fills in the figures and returns the table.
pub async fn measure(
    kinds: &[Kind],
    house: &House,
    sink: &Sink,
    rounds: usize,
    time: Duration,
    results: &mut Results,
) -> String {
    let able = kinds.iter().filter(|kind| kind.has_limits());
    let peers: Vec<Peer> = able.map(|kind| kind.start(house, Limits::On)).collect();
    let mut measured: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
    let mut failures = String::new();
    for _ in 0..rounds {
        for (peer, measured) in peers.iter().zip(&mut measured) {
            match round(peer, sink, time).await {
                Ok(round) => measured.push(round),
                Err(error) => failures.push_str(&format!("\n{}: {error}.\n", peer.kind.name())),
            }
        }
    }
    let mut rows = Vec::new();
    for (peer, rounds) in peers.iter().zip(&measured) {
        let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
        let slowed = of(|round| round.beside / round.alone);
        for (name, figure) in [(CPU, of(|round| round.cpu)), (SLOWED, slowed)] {
            if let Some(figure) = figure {
                results.add_figure(name, peer.kind, figure);
            }
        }
        let figures = [
            of(|round| round.cpu),
            of(|round| round.alone),
            of(|round| round.beside),
        ];
        let mut row = vec![peer.kind.name().to_owned()];
        row.extend(figures.into_iter().chain([slowed]).map(report::figure));
        rows.push(row);
    }
    let heads = [
        "",
        "CPU µs of an abusive connection",
        "good client's p99 ms alone",
        "beside the flood",
        "slowed",
    ];
    let table = report::table(&heads.map(str::to_owned), &rows);
    let rate = OF_TICK as f64 / TICK.as_secs_f64();
    format!(
        "### A good client beside {rate:.0} connections per second of 200 addresses\n\n{table}\n\
         HAProxy counts with a stick table; nginx mail has no limits; those of Postfix and \
         Haraka come after the greeting.\n{failures}"
    )
}

async fn round(peer: &Peer, sink: &Sink, time: Duration) -> Result<Round, String> {
    let address = peer.doors.plain.unwrap();
    let processes = peer.processes.unwrap();
    let text = |error: io::Error| error.to_string();

    let before = processes.cpu();
    let alone = good_client(address, &sink.ledger, time)
        .await
        .map_err(text)?;
    let quiet = processes.cpu() - before;

    // Spends what the abusers are allowed, which with HAProxy is 60 connections each.
    let sources = abusers();
    flood(address, &sources, sources.len() * 62, 32).await;
    let toll = flood(address, &sources, sources.len(), 32).await;
    // A rate lets in one more every now and then: Portcullis eight a second of a /24.
    if toll.let_in * 20 > sources.len() {
        return Err(format!("abusers are still let in: {toll:?}"));
    }

    let before = processes.cpu();
    let began = Instant::now();
    let flooding = tokio::spawn(flood_until(address, began + time));
    let beside = good_client(address, &sink.ledger, time)
        .await
        .map_err(text)?;
    let connections = flooding.await.unwrap();
    let spent = (processes.cpu() - before).saturating_sub(quiet);

    let settled = sink.ledger.settle()?;
    if settled != alone.len() + beside.len() {
        return Err(format!("{settled} messages in the ledger"));
    }
    Ok(Round {
        cpu: spent.as_secs_f64() * 1e6 / connections as f64,
        alone: percentile(&alone, 99),
        beside: percentile(&beside, 99),
    })
}

/// How long its messages took, in order of that; the first of a session, which is late
/// by the connection, among them.
async fn good_client(
    address: SocketAddr,
    ledger: &Ledger,
    time: Duration,
) -> io::Result<Vec<Duration>> {
    let tls = door::connector(Resumption::disabled());
    let mut letter = Letter::new(GOOD.size);
    let mut latencies = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = Instant::now() + time;
    while Instant::now() < until {
        let mut session = GOOD.door.enter(address, &tls).await?;
        for _ in 0..GOOD.messages {
            pace.tick().await;
            let began = Instant::now();
            let number = ledger.issue();
            generator::deliver(GOOD, &mut session, letter.numbered(number)).await?;
            ledger.acknowledge(number);
            latencies.push(began.elapsed());
            if Instant::now() >= until {
                break;
            }
        }
        session.dialogue(&[("QUIT", "221")]).await?;
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// The connections that were made.
async fn flood_until(address: SocketAddr, until: Instant) -> usize {
    let sources = abusers();
    let mut sources = sources.iter().cycle().copied();
    let mut visits = JoinSet::new();
    let mut clock = interval(TICK);
    let mut made = 0;
    while Instant::now() < until {
        clock.tick().await;
        for source in sources.by_ref().take(OF_TICK) {
            made += 1;
            visits.spawn(async move {
                // One word or the end: who is let in all the same does not stay.
                if let Ok(mut stream) = connect_from(source, address).await {
                    let _ = stream.read(&mut [0; 512]).await;
                }
            });
        }
        while visits.try_join_next().is_some() {}
    }
    visits.join_all().await;
    made
}
