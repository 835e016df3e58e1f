//! Portcullis beside other programs that stand between clients and a mail server:
//! `cargo bench --bench compare`. With `-- --help` it says what may be chosen.
//!
//! Everything runs on loopback: the load and the sink in this process, each peer in its
//! own. All peers take turns within a round, so that what else the machine does hits
//! them alike; figures are medians over the rounds. Of a peer's cost the CPU time of its
//! processes for each message is the figure with the least noise: rates and latencies
//! are also those of the load and the sink, which share the processors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod cell;
mod command_line;
mod door;
mod flood;
mod generator;
mod goals;
mod idle;
mod ledger;
mod letter;
mod peers;
mod processes;
mod report;
mod results;
mod scenario;
mod sink;
#[path = "../../support/mod.rs"]
mod support;

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use cell::Cell;
use command_line::CommandLine;
use peers::{AuthHttp, House, Kind, Limits, Peer};
use results::Results;
use scenario::Scenario;
use sink::Sink;
use support::Authority;

const WARM_UP: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() {
    let line = match CommandLine::read(std::env::args().skip(1)) {
        Ok(line) => line,
        Err(problem) => {
            eprintln!("{problem}");
            std::process::exit(64);
        }
    };
    let scenarios = scenario::all();
    if line.list {
        for scenario in &scenarios {
            println!("{:<20} {}", scenario.name, scenario.title);
        }
        println!("{:<20} KiB of an idle session", idle::NAME);
        println!("{:<20} A good client beside a flood", flood::NAME);
        return;
    }
    raise_descriptors();
    let kinds = installed(&line);
    let authority = Authority::new("Comparing authority");
    let sink = Sink::start().await;
    let house = House {
        sink: sink.address,
        certificate: authority.sign("mx.portcullis.test"),
        auth_http: AuthHttp::start(sink.address).await,
    };
    println!("{}", report::heading(&line.words, line.rounds, &kinds));
    let mut results = Results::default();
    let wanted: Vec<&Scenario> = scenarios
        .iter()
        .filter(|scenario| line.wants(scenario.name))
        .collect();
    if !wanted.is_empty() {
        let peers: Vec<Peer> = kinds
            .iter()
            .map(|kind| kind.start(&house, Limits::Off))
            .collect();
        for scenario in wanted {
            run(scenario, &peers, &sink, &line, &mut results).await;
            println!("{}", report::scenario(scenario, &kinds, &results));
        }
    }
    if line.wants(idle::NAME) {
        let table = idle::measure(&kinds, &house, line.sessions, &mut results).await;
        println!("{table}");
    }
    if line.wants(flood::NAME) {
        let (rounds, time) = (line.rounds, line.time * 3);
        let table = flood::measure(&kinds, &house, &sink, rounds, time, &mut results).await;
        println!("{table}");
    }
    println!("{}", goals::table(&results));
}

/// All rounds of one scenario.
async fn run(
    scenario: &Scenario,
    peers: &[Peer],
    sink: &Sink,
    line: &CommandLine,
    results: &mut Results,
) {
    let able = |peer: &&Peer| peer.doors.at(scenario.work.door()).is_some();
    for peer in peers.iter().filter(able) {
        if let Err(error) = Cell::measure(scenario.work, peer, sink, WARM_UP).await {
            results.add(scenario.name, peer.kind, Err(error));
        }
    }
    for _ in 0..line.rounds {
        for peer in peers.iter().filter(able) {
            if !results.failed(scenario.name, peer.kind) {
                let cell = Cell::measure(scenario.work, peer, sink, line.time).await;
                results.add(scenario.name, peer.kind, cell);
            }
        }
    }
}

/// Those of the peers that are asked for which are installed; the others are named.
fn installed(line: &CommandLine) -> Vec<Kind> {
    let (kinds, missing): (Vec<Kind>, Vec<Kind>) =
        line.peers.iter().partition(|kind| kind.version().is_some());
    for kind in missing {
        eprintln!("left out, because it is not installed: {}", kind.name());
    }
    kinds
}

/// As many file descriptors as may be, of this process and, by inheritance, of the peers.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
