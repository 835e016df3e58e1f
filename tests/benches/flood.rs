//! What an abusive connection costs: CPU time of the program for each one that it
//! refuses with 421 or resets, beside a bare acceptor that closes, or says as much and
//! closes.
//!
//! All four take turns, so that what else the machine does hits them alike.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use nix::unistd::{SysconfVar, sysconf};
use support::{Portcullis, Scripted, connect_from, flood};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 10_000;
const AT_ONCE: usize = 32;

/// Makes this program an acceptor; the value is what it says.
const ACCEPTOR: &str = "BARE_ACCEPTOR";

const REFUSAL: &str = "421 4.7.0 Too many connections; try again in 59 seconds\r\n";

fn abusers() -> Vec<Ipv4Addr> {
    (1..=200)
        .map(|host| Ipv4Addr::new(127, 0, 1, host))
        .collect()
}

/// Somebody who is flooded.
enum Target {
    Portcullis(Box<Portcullis>),
    Acceptor(Acceptor),
}

struct Acceptor {
    child: Child,
    address: SocketAddr,
}

impl Acceptor {
    fn start(says: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .env(ACCEPTOR, says)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            address: line.trim().parse().unwrap(),
            child,
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Target {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Portcullis(portcullis) => portcullis.mx,
            Self::Acceptor(acceptor) => acceptor.address,
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Portcullis(portcullis) => portcullis.id(),
            Self::Acceptor(acceptor) => acceptor.child.id(),
        }
    }

    /// User and system time so far, seconds (proc_pid_stat(5)).
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        // Fields 14 and 15; the first one here is the third.
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        let of_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        ticks as f64 / of_second as f64
    }
}

/// Accepts, says what it was told to, and closes: what a listener cannot do for less.
async fn accept_for_ever(says: String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if !says.is_empty() {
            let _ = stream.write_all(says.as_bytes()).await;
        }
    }
}

/// The same client for all: connects, reads to the end, whatever the end is.
async fn visit_all(server: SocketAddr) {
    let mut visits = JoinSet::new();
    for source in abusers().into_iter().cycle().take(CONNECTIONS) {
        if visits.len() >= AT_ONCE {
            visits.join_next().await.unwrap().unwrap();
        }
        visits.spawn(async move {
            if let Ok(mut stream) = connect_from(source, server).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
    }
    visits.join_all().await;
}

#[tokio::main]
async fn main() {
    if let Ok(says) = env::var(ACCEPTOR) {
        // On a worker, like the program's: what block_on runs must be woken across threads.
        return tokio::spawn(accept_for_ever(says)).await.unwrap();
    }
    let backend = Scripted::start(&[]);
    let common = [
        ("LIMIT_EXEMPT", "127.0.0.1"),
        ("CONN_RATE", "1/day burst 1"),
    ];
    let start = |more: &[(&str, &str)]| {
        let settings = [&common, more].concat();
        Target::Portcullis(Box::new(Portcullis::guarding(backend.address, &settings)))
    };
    let targets = [
        (
            "bare acceptor, closes",
            Target::Acceptor(Acceptor::start("")),
        ),
        (
            "bare acceptor, 421",
            Target::Acceptor(Acceptor::start(REFUSAL)),
        ),
        ("Portcullis, 421", start(&[("FLOOD_RATE", "off")])),
        (
            "Portcullis, banned",
            start(&[("FLOOD_RATE", "1/day burst 1")]),
        ),
    ];
    // Spends what the abusers are allowed: from here on all are refused, or banned.
    for (name, target) in targets
        .iter()
        .filter(|(name, _)| name.starts_with("Portcullis"))
    {
        let sources = abusers();
        flood(target.address(), &sources, sources.len() * 4, AT_ONCE).await;
        let toll = flood(target.address(), &sources, sources.len(), AT_ONCE).await;
        let expected = if name.contains("421") {
            toll.refused
        } else {
            toll.reset
        };
        assert_eq!(expected, sources.len(), "{name}: {toll:?}");
    }

    let mut spent = vec![Vec::new(); targets.len()];
    for _ in 0..ROUNDS {
        for ((_, target), spent) in targets.iter().zip(&mut spent) {
            let before = target.cpu();
            visit_all(target.address()).await;
            spent.push((target.cpu() - before) / CONNECTIONS as f64 * 1e6);
        }
    }
    println!(
        "| {ROUNDS} x {CONNECTIONS} connections | CPU us of a connection | least..most | of the first |"
    );
    println!("|---|---|---|---|");
    let mean = |spent: &[f64]| spent.iter().sum::<f64>() / spent.len() as f64;
    let first = mean(&spent[0]);
    for ((name, _), spent) in targets.iter().zip(&spent) {
        let least = spent.iter().copied().fold(f64::INFINITY, f64::min);
        let most = spent.iter().copied().fold(0.0, f64::max);
        let mean = mean(spent);
        println!(
            "| {name} | {mean:.1} | {least:.1}..{most:.1} | {:.2} |",
            mean / first
        );
    }
}
