//! Clients that send one octet a second: they cost the guarded server nothing, and
//! each is gone when its deadline is over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use support::{
    Guest, Options, Portcullis, Postfix, Scripted, Smtp, connect_from, letter, wait_for,
};
use tokio::task::JoinSet;

/// Of each of the four kinds; a thousand in all.
const CLIENTS: usize = 250;

/// TIMEOUT_COMMAND and TIMEOUT_HANDSHAKE.
const DEADLINE: Duration = Duration::from_secs(8);

/// DATA_RATE_GRACE.
const GRACE: Duration = Duration::from_secs(4);

/// A machine that is busy may be late, but not for ever.
const LATENESS: Duration = Duration::from_secs(30);

const SETTINGS: &[(&str, &str)] = &[
    ("TIMEOUT_COMMAND", "8s"),
    ("TIMEOUT_HANDSHAKE", "8s"),
    ("PROXY_TRUSTED", "127.3.0.0/16"),
    // Far from the stress in which deadlines shrink.
    ("SESSIONS_MAX", "3000"),
    // A probe would be one more connection to the backend.
    ("BACKEND_PROBE_INTERVAL", "1h"),
];

/// The start of a ClientHello whose end would come in ten minutes (RFC 8446 4.1.2).
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// What a slow client heard, and how long it was there, connecting included.
type Stay = (String, Duration);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Command,
    Handshake,
    ProxyHeader,
    StartTls,
}

impl Kind {
    async fn stay(self, portcullis: Doors, number: usize) -> Stay {
        let [high, low] = [number / 200, number % 200 + 1].map(|part| u8::try_from(part).unwrap());
        let (network, server, octets): (u8, _, &[u8]) = match self {
            Self::Command => (1, portcullis.mx, b"EHLO "),
            Self::Handshake => (2, portcullis.tls, CLIENT_HELLO),
            Self::ProxyHeader => (3, portcullis.mx, b"PROXY TCP4 192.0.2.1 192.0.2.2 "),
            Self::StartTls => (4, portcullis.mx, CLIENT_HELLO),
        };
        let source = Ipv4Addr::new(127, network, high, low);
        let began = Instant::now();
        let stream = connect_from(source, server).await.unwrap();
        let mut guest = Guest::new(stream);
        if matches!(self, Self::Command | Self::StartTls) {
            let greeting = guest.reply().await.unwrap();
            assert!(greeting.starts_with("220"), "{greeting}");
        }
        if matches!(self, Self::StartTls) {
            let lines = [("EHLO slow.test", "250"), ("STARTTLS", "220")];
            guest.dialogue(&lines).await.unwrap();
        }
        (guest.drip(octets).await, began.elapsed())
    }
}

#[derive(Clone, Copy)]
struct Doors {
    mx: SocketAddr,
    tls: SocketAddr,
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

#[track_caller]
fn assert_gone_by(deadline: Duration, took: Duration) {
    assert!(took < deadline + LATENESS, "was there for {took:?}");
    // Gone for another reason, it would prove nothing of the deadline.
    assert!(took >= deadline, "was gone after {took:?} already");
}

#[test]
fn a_thousand_slow_clients_hold_no_backend_connection_and_are_gone_by_their_deadline() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, SETTINGS);
    portcullis.log_with("backend probed");
    let visits = backend.heard().len();
    let doors = Doors {
        mx: portcullis.mx,
        tls: portcullis.tls,
    };

    let honest = std::thread::spawn(move || {
        // In the midst of them.
        std::thread::sleep(DEADLINE / 2);
        let mut client = Smtp::greeted(doors.mx);
        client.deliver(
            "ann@sender.test",
            "bob@example.org",
            letter("one").as_bytes(),
        )
    });
    let stays = runtime().block_on(async {
        let mut slow = JoinSet::new();
        let kinds = [
            Kind::Command,
            Kind::Handshake,
            Kind::ProxyHeader,
            Kind::StartTls,
        ];
        for kind in kinds {
            for number in 0..CLIENTS {
                slow.spawn(async move { (kind, kind.stay(doors, number).await) });
            }
        }
        slow.join_all().await
    });

    let reply = honest.join().unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(stays.len(), 1000);
    for (kind, (heard, took)) in &stays {
        match kind {
            Kind::Command => assert!(heard.starts_with("421 4.4.2"), "{heard}"),
            // In the handshake and before the header nobody is spoken to.
            Kind::Handshake | Kind::ProxyHeader | Kind::StartTls => {
                assert_eq!(heard, "", "{kind:?}")
            }
        }
        assert_gone_by(DEADLINE, *took);
    }
    let heard = backend.heard();
    assert_eq!(heard.len(), visits + 1, "only the honest one: {heard:#?}");
}

#[test]
fn bodies_slower_than_the_minimum_are_cut_and_never_ended() {
    const BODIES: usize = 50;
    let backend = Scripted::start(&[]);
    let settings = [("DATA_RATE_MIN", "500"), ("DATA_RATE_GRACE", "4s")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mx = portcullis.mx;

    let stays = runtime().block_on(async {
        let mut slow = JoinSet::new();
        for host in 0..BODIES {
            slow.spawn(async move {
                let source = Ipv4Addr::new(127, 4, 0, u8::try_from(host).unwrap() + 1);
                let began = Instant::now();
                let mut guest = Guest::new(connect_from(source, mx).await.unwrap());
                guest.reply().await.unwrap();
                let lines = [
                    ("EHLO slow.test", "250"),
                    ("MAIL FROM:<ann@sender.test>", "250"),
                    ("RCPT TO:<bob@example.org>", "250"),
                    ("DATA", "354"),
                ];
                guest.dialogue(&lines).await.unwrap();
                let heard = guest.drip(b"Subject: slow\r\n\r\n").await;
                (heard, began.elapsed())
            });
        }
        slow.join_all().await
    });

    assert_eq!(stays.len(), BODIES);
    for (heard, took) in &stays {
        assert!(heard.starts_with("421 4.4.2"), "{heard}");
        assert_gone_by(GRACE, *took);
    }
    // All were at the backend; none of their messages may look whole to it.
    let transactions = backend.transactions(BODIES);
    assert_eq!(transactions.len(), BODIES);
    for heard in &transactions {
        assert!(
            heard.contains("DATA\r\n") && !heard.contains("\r\n.\r\n"),
            "{heard}"
        );
    }
    let left = wait_for(Duration::from_secs(10), || {
        let ended = portcullis.log().matches("too-slow").count();
        (ended >= BODIES).then_some(())
    });
    assert!(left.is_some(), "{}", portcullis.log());
}

/// A client that stops inside a body costs no buffer while it waits, however much of
/// it came at once before.
#[test]
fn bodies_that_stand_still_hold_no_buffers() {
    const CLIENTS: usize = 200;
    let backend = Scripted::start(&[]);
    let settings = [("DATA_RATE_GRACE", "5m"), ("BACKEND_CONN_MAX", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let lines = format!(".{}\r\n", "x".repeat(72)).repeat(900);
    let stand_still = || {
        let mut client = Smtp::greeted(portcullis.mx);
        client.open_data("ann@sender.test", "bob@example.org");
        for _ in 0..3 {
            client.send(lines.as_bytes());
        }
        client
    };
    let mut clients = vec![stand_still()];
    let before = portcullis.resident();
    while clients.len() < CLIENTS {
        clients.extend((0..20).map(|_| stand_still()));
        // Those who come next find the memory of those who stand still.
        std::thread::sleep(Duration::from_millis(1500));
    }
    let grown = portcullis.resident().saturating_sub(before) / clients.len() as u64;
    println!("{} KiB for each of them", grown / 1024);
    assert!(grown < 64 << 10, "{grown} octets for each of them");
}

/// Faster than DATA_RATE_MIN, which is for times of plenty.
#[test]
fn under_stress_slow_bodies_free_their_places_and_fast_ones_are_taken() {
    const SLOW: usize = 9;
    // All places are held: patience is shortest.
    let settings = [("SESSIONS_MAX", "10"), ("BACKEND_PROBE_INTERVAL", "1h")];
    let line = format!("{}\r\n", "x".repeat(68));
    for scanner in [("CLAMAV", "off"), ("CLAMAV", "127.0.0.1:1")] {
        let postfix = Postfix::start(Options::default());
        let settings = [&settings[..], &[scanner, ("SCAN_FAIL", "open")]].concat();
        let portcullis = Portcullis::before(&postfix, &settings);
        let enter = || {
            let mut client = Smtp::connect(portcullis.mx);
            let greeting = client.reply_or_end();
            greeting.starts_with("220").then_some(client)
        };
        let begin = || {
            let mut client = wait_for(Duration::from_secs(10), enter).expect("never let in");
            client.ask("EHLO client.test", "250");
            client.open_data("ann@sender.test", "bob@example.org");
            client
        };
        let mut fast = begin();
        let mut slow: Vec<_> = (0..SLOW).map(|_| begin()).collect();
        assert!(enter().is_none(), "a place is left");
        let began = Instant::now();
        let mut newcomer = None;
        while newcomer.is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "nobody is let in\n{}",
                portcullis.log()
            );
            for client in &mut slow {
                // 700 octets a second.
                let _ = client.try_send(line.as_bytes());
            }
            fast.send(line.repeat(60).as_bytes());
            std::thread::sleep(Duration::from_millis(100));
            newcomer = enter();
        }
        println!("{:?}", began.elapsed());
        let mut newcomer = newcomer.unwrap();
        newcomer.ask("EHLO client.test", "250");
        let letter = letter("from a newcomer");
        let reply = newcomer.deliver("ann@sender.test", "bob@example.org", letter.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
        fast.send(b".\r\n");
        fast.expect("250");
        assert_eq!(postfix.messages(2).len(), 2);
        let log = portcullis.log_with("too-slow");
        assert!(log.contains("places run out"), "{log}");
    }
}
