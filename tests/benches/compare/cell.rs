//! One peer in one round: what it did, and what that cost.

use std::time::{Duration, Instant};

use rustls::client::Resumption;

use super::door;
use super::generator::{self, Latencies};
use super::peers::Peer;
use super::scenario::{HANDSHAKES_AT_ONCE, Handshake, Work};
use super::sink::Sink;

/// Nobody waits that long for work to be done: who does, waits for a timer, such as
/// that of the delayed acknowledgement.
const STALL: Duration = Duration::from_millis(39);

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Messages or handshakes of a second.
    pub rate: f64,
    /// Microseconds of the peer's processes for each.
    pub cpu: Option<f64>,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// The part of them that took as long as a stall.
    pub stalled: f64,
    /// The part of the handshakes that were resumed.
    pub resumed: f64,
}

impl Cell {
    /// Lets `peer` work for `time`, and until its last sessions have ended.
    ///
    /// # Errors
    /// What went wrong in a session, or with a message.
    pub async fn measure(
        work: Work,
        peer: &Peer,
        sink: &Sink,
        time: Duration,
    ) -> Result<Self, String> {
        let address = peer.doors.at(work.door()).unwrap();
        let before = peer.processes.map(|processes| processes.cpu());
        let began = Instant::now();
        let until = began + time;
        let (latencies, resumed) = match work {
            Work::Messages(load) => {
                let sent = generator::send(load, address, &sink.ledger, until).await;
                (sent.map_err(|error| error.to_string())?, 0)
            }
            Work::Handshakes(handshake) => {
                let resumption = match handshake {
                    Handshake::Full => Resumption::disabled(),
                    Handshake::Resumed => Resumption::in_memory_sessions(256),
                };
                let tls = door::connector(resumption);
                let done = generator::hand_shake(HANDSHAKES_AT_ONCE, address, &tls, until).await;
                let done = done.map_err(|error| error.to_string())?;
                (done.latencies, done.resumed)
            }
        };
        let took = began.elapsed();
        // What is left to do once the client has gone.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let settled = sink.ledger.settle()?;
        if matches!(work, Work::Messages(_)) && settled != latencies.len() {
            return Err(format!("{} sent, {settled} in the ledger", latencies.len()));
        }
        let cpu = peer
            .processes
            .zip(before)
            .map(|(processes, before)| processes.cpu().saturating_sub(before));
        Ok(Self::of(latencies, took, cpu, resumed))
    }

    fn of(mut latencies: Latencies, took: Duration, cpu: Option<Duration>, resumed: usize) -> Self {
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let stalled = latencies
            .iter()
            .filter(|latency| **latency >= STALL)
            .count();
        Self {
            rate: count / took.as_secs_f64(),
            cpu: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
            stalled: stalled as f64 / count,
            resumed: resumed as f64 / count,
        }
    }
}

/// Milliseconds, of latencies in order.
pub fn percentile(latencies: &[Duration], percent: usize) -> f64 {
    let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
    let latency = latencies.get(at).copied().unwrap_or_default();
    latency.as_secs_f64() * 1e3
}
