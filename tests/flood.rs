//! A flood from two hundred addresses before a real Postfix, and one honest client
//! in the midst of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Learns, Options, Portcullis, Postfix, Smtp, Toll};
use support::{between, dot_stuffed, flood, letter};

/// Two thousand attempts a second for ten seconds.
const ATTEMPTS: usize = 20_000;
const WAVE: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 64;

/// Ten /24 networks of twenty abusers each.
const NETWORKS: u8 = 10;
const ABUSERS_OF_NETWORK: u8 = 20;

/// A client's allowance: `CONN_RATE`. A /24 has `PREFIX_FACTOR` times that.
const BURST: f64 = 4.0;
const PER_SECOND: f64 = 0.2;
const FACTOR: f64 = 8.0;

const SETTINGS: &[(&str, &str)] = &[
    // The test house itself looks in from here.
    ("LIMIT_EXEMPT", "127.0.0.1"),
    ("CLIENT_INFO", "proxy-v1"),
    ("CONN_RATE", "12/min burst 4"),
    ("CONN_MAX", "5"),
    ("PREFIX_FACTOR", "8"),
    ("FLOOD_RATE", "30/min burst 10"),
    ("MSG_RATE", "20/s burst 40"),
    ("RCPT_RATE", "20/s burst 40"),
];

/// One message every so often, on a connection that is renewed now and then, as a
/// sending server with a connection cache does: within the allowance, at this pace.
const PACE: Duration = Duration::from_millis(100);
const MESSAGES_OF_CONNECTION: usize = 50;
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// An honest client at work; it fails the test at the first refusal.
struct Honest {
    server: SocketAddr,
    connection: Option<Smtp>,
    sent: usize,
    took: Vec<Duration>,
}

impl Honest {
    fn new(server: SocketAddr) -> Self {
        Self {
            server,
            connection: None,
            sent: 0,
            took: Vec::new(),
        }
    }

    fn send(&mut self) {
        let began = Instant::now();
        if self.sent.is_multiple_of(MESSAGES_OF_CONNECTION) {
            let mut fresh = Smtp::connect_from(HONEST, self.server);
            fresh.expect("220");
            fresh.ask("EHLO honest.test", "250");
            if let Some(mut old) = self.connection.replace(fresh) {
                old.ask("QUIT", "221");
            }
        }
        let connection = self.connection.as_mut().unwrap();
        connection.open_data("ann@sender.test", "bob@example.org");
        connection.send(&dot_stuffed(letter(&format!("n{}", self.sent)).as_bytes()));
        connection.expect("250");
        self.sent += 1;
        self.took.push(began.elapsed());
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
    }

    /// 50th and 99th hundredths of the time that a message took, connecting included;
    /// begins a new series.
    fn percentiles(&mut self) -> String {
        let mut took = std::mem::take(&mut self.took);
        took.sort();
        let at = |hundredth: usize| took[(took.len() - 1) * hundredth / 100];
        format!(
            "{} messages, p50 {:.1?}, p99 {:.1?}",
            took.len(),
            at(50),
            at(99)
        )
    }
}

fn abusers() -> Vec<Ipv4Addr> {
    let networks = 1..=NETWORKS;
    networks
        .flat_map(|network| {
            (1..=ABUSERS_OF_NETWORK).map(move |host| Ipv4Addr::new(127, 0, network, host))
        })
        .collect()
}

/// Each abuser once in every wave.
async fn waves(server: SocketAddr, abusers: &[Ipv4Addr]) -> Toll {
    let (mut toll, mut tide) = (Toll::default(), tokio::time::interval(WAVE));
    for _ in 0..ATTEMPTS / abusers.len() {
        tide.tick().await;
        toll += flood(server, abusers, abusers.len(), AT_ONCE).await;
    }
    toll
}

/// Connections that Postfix had, by the client that the PROXY header named.
fn visits(postfix: &Postfix) -> HashMap<Ipv4Addr, usize> {
    let mut visits = HashMap::new();
    for line in postfix.log().lines() {
        if let Some(client) = between(line, ": connect from unknown[", "]") {
            *visits.entry(client.parse().unwrap()).or_default() += 1;
        }
    }
    visits
}

#[test]
fn a_flood_harms_neither_an_honest_client_nor_the_guarded_server() {
    let postfix = Postfix::start(Options {
        learns: Learns::ByProxyHeader,
        // Or Postfix pauses a second when it has not delivered the last message yet.
        extra: "in_flow_delay = 0",
        ..Options::default()
    });
    let portcullis = Portcullis::before(&postfix, SETTINGS);
    let mut honest = Honest::new(portcullis.mx);
    for _ in 0..2 * MESSAGES_OF_CONNECTION {
        honest.send();
    }
    println!("honest client alone:     {}", honest.percentiles());

    let over = AtomicBool::new(false);
    let (abusers, began) = (abusers(), Instant::now());
    let toll = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) || honest.took.len() < MESSAGES_OF_CONNECTION {
                honest.send();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let flood = || runtime.block_on(waves(portcullis.mx, &abusers));
        let toll = catch_unwind(AssertUnwindSafe(flood));
        println!("{ATTEMPTS} attempts in {:.1?}: {toll:?}", began.elapsed());
        // However the flood ended, or its failure would be waited for for ever.
        over.store(true, Ordering::Relaxed);
        let toll = toll.unwrap_or_else(|panic| resume_unwind(panic));
        sending.join().unwrap();
        toll
    });
    let seconds = began.elapsed().as_secs_f64();
    println!("honest client in flood:  {}", honest.percentiles());

    assert_eq!(toll.let_in + toll.refused + toll.reset, ATTEMPTS);
    assert!(
        toll.served > 0 && toll.refused > 0 && toll.reset > 0,
        "{toll:?}"
    );

    // What each may have had until now, a token begun included.
    let allowance = (BURST + PER_SECOND * seconds).ceil() as usize + 1;
    let of_network = (FACTOR * (BURST + PER_SECOND * seconds)).ceil() as usize + 1;
    let visits = visits(&postfix);
    let mut of_networks: HashMap<[u8; 3], usize> = HashMap::new();
    for abuser in &abusers {
        let count = visits.get(abuser).copied().unwrap_or_default();
        assert!(count <= allowance, "{abuser}: {count} of {allowance}");
        let [a, b, c, _] = abuser.octets();
        *of_networks.entry([a, b, c]).or_default() += count;
    }
    for (network, count) in &of_networks {
        assert!(*count <= of_network, "{network:?}: {count} of {of_network}");
    }
    let had: usize = of_networks.values().sum();
    println!(
        "the guarded server had {had} connections of abusers; allowed were {}",
        of_network * usize::from(NETWORKS)
    );
    assert!(had >= toll.served && had <= toll.let_in, "{had}, {toll:?}");

    assert_eq!(postfix.messages(honest.sent).len(), honest.sent);
    assert_eq!(
        visits[&HONEST],
        honest.sent.div_ceil(MESSAGES_OF_CONNECTION)
    );
}
