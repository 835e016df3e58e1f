//! What judging costs: `cargo bench --bench scan`.
//!
//! Three times for each message, taken by turns so that all meet the same weather:
//! the scanner asked directly by the library's client (`direct`), a whole transaction
//! with that scanner through the program (`judged`), and one through a program without
//! scanners (`relayed`). `around` is what the program needs around the scanner's own
//! time, `judging` what of that is due to judging; medians over the rounds.
//! Then the most memory that 200 sessions take which send 20 MiB each at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use portcullis::scan::{Clamav, Message, ServiceAddress, Spamassassin, SpamdReport};
use portcullis::settings::Value;
use portcullis::spool::{Body, Settings, Spool};
use support::{
    Clamd, Daemon, Portcullis, Smtp, Spamd, attachment, dot_stuffed, free_address, letter,
    sessions_at_once,
};
use tokio::runtime::Runtime;

const MIB: u64 = 1 << 20;

/// A trace field as the program writes one.
const TRACE: &[u8] = b"Received: from client.test ([127.0.0.1])\r\n\tby mx.portcullis.test (Portcullis) with ESMTP id XZGGGA41ADGQ.2\r\n\tfor <b@example.org>;\r\n\tTue, 24 Nov 2026 12:35:18 +0000\r\n";

fn main() {
    let house = House::new();
    println!("milliseconds:");
    let heads = ["direct", "judged", "relayed", "around", "judging"];
    let heads = heads.map(|head| format!("{head:>10}")).concat();
    println!("{:<13}{:>9}{:>8}{heads}", "scanner", "octets", "rounds");
    let clamd = Clamd::start("");
    let scanner = Direct::Clamav(Clamav::new(tcp(clamd.address)));
    for (size, rounds) in [(0, 300), (100 << 10, 200), (1 << 20, 50), (10 << 20, 10)] {
        let octets: Vec<u8> = (0..size).map(|at| ((at * 7919) >> 8) as u8).collect();
        let message = match size {
            0 => letter("small"),
            _ => attachment("large", &octets),
        };
        house.compare("CLAMAV", clamd.address, &scanner, &message, rounds);
    }
    drop(clamd);

    let spamd = Spamd::start(&[]);
    let spamassassin = Spamassassin::new(tcp(spamd.address), None, SpamdReport::Omitted);
    let scanner = Direct::Spamassassin(spamassassin);
    for (lines, rounds) in [(0, 40), (400, 20)] {
        let text = "A line among many others, for the rules to look at.\r\n".repeat(lines);
        let message = letter("text") + &text;
        house.compare("SPAMASSASSIN", spamd.address, &scanner, &message, rounds);
    }
    drop(spamd);

    let load = sessions_at_once(200, 20 << 20, "64M");
    println!(
        "200 sessions of 20 MiB with SPOOL_MEMORY=64M: {} MiB idle, {} MiB at most, {:.1?}",
        load.idle / MIB,
        load.peak / MIB,
        load.took
    );
}

/// The scanner without the program around it.
enum Direct {
    Clamav(Clamav),
    Spamassassin(Spamassassin),
}

impl Direct {
    async fn scan(&self, message: &Message<'_>) {
        let scanned = match self {
            Self::Clamav(clamav) => clamav.scan(message).await,
            Self::Spamassassin(spamassassin) => spamassassin.scan(message).await,
        };
        scanned.unwrap();
    }
}

/// A backend that takes everything, and what asks scanners directly.
struct House {
    sink: SocketAddr,
    _sink: Daemon,
    runtime: Runtime,
    spool: Spool,
}

impl House {
    fn new() -> Self {
        let sink = free_address();
        let mut command = Command::new("smtp-sink");
        command.args(["-u", "nobody", &sink.to_string(), "100"]);
        Self {
            sink,
            _sink: Daemon::start(command, tempfile::tempdir().unwrap(), sink),
            runtime: Runtime::new().unwrap(),
            spool: Spool::new(&Settings::default()).unwrap(),
        }
    }

    /// Prints medians.
    fn compare(
        &self,
        setting: &str,
        address: SocketAddr,
        scanner: &Direct,
        message: &str,
        rounds: usize,
    ) {
        let address = address.to_string();
        let judged = Portcullis::guarding(self.sink, &[(setting, &address)]);
        let relayed = Portcullis::guarding(self.sink, &[]);
        let mut clients = [Smtp::greeted(judged.mx), Smtp::greeted(relayed.mx)];
        let wire = dot_stuffed(message.as_bytes());
        let body = self.runtime.block_on(self.hold(message.as_bytes()));
        let recipients = ["b@example.org".to_owned()];
        let mut times = Vec::new();
        // The first rounds warm up.
        for round in 0..rounds + 3 {
            let asked = self::message(&body, &recipients);
            let direct = timed(|| self.runtime.block_on(scanner.scan(&asked)));
            let [judged, relayed] = clients.each_mut().map(|client| {
                timed(|| {
                    client.open_data("a@sender.test", "b@example.org");
                    client.send(&wire);
                    client.expect("250");
                })
            });
            if round >= 3 {
                let around = judged - direct;
                times.push([direct, judged, relayed, around, around - relayed]);
            }
        }
        let medians = [0, 1, 2, 3, 4].map(|column| {
            let column = times.iter().map(|times| times[column]).collect();
            format!("{:>10.2}", median(column))
        });
        let (name, octets) = (setting.to_lowercase(), message.len());
        println!("{name:<13}{octets:>9}{rounds:>8}{}", medians.concat());
    }

    async fn hold(&self, content: &[u8]) -> Body {
        let mut writer = self.spool.begin();
        writer.write(content).await.unwrap();
        writer.finish().await.unwrap()
    }
}

/// In milliseconds.
fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1000.0
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn tcp(address: SocketAddr) -> ServiceAddress {
    ServiceAddress::parse(&address.to_string()).unwrap()
}

fn message<'a>(body: &'a Body, recipients: &'a [String]) -> Message<'a> {
    Message {
        client: Some("127.0.0.1:4711".parse().unwrap()),
        hello: "client.test",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "a@sender.test",
        recipients,
        id: "XZGGGA41ADGQ.2",
        hostname: "mx.portcullis.test",
        trace: TRACE,
        hop: TRACE,
        body,
    }
}
