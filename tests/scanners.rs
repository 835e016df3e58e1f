//! The clients of the scanners before real scanners.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::policy::content::{Change, Opinion, Word};
use portcullis::scan::{
    Clamav, Message, ScanError, ServiceAddress, Spamassassin, SpamdReport, SpamdUser,
};
use portcullis::settings::{Size, Value};
use portcullis::spool::{Body, Settings, Spool};
use portcullis::tls::TlsDetails;
use support::{Clamd, EICAR_NAME, Spamd, attachment, eicar, gtube, zipped};
use tokio::time::timeout;

const TRACE: &[u8] = b"Received: from client.test ([192.0.2.1])\r\n\tby mx.example.org; Tue, 24 Nov 2026 10:00:00 +0000\r\n";

/// Longer than any of these scanners takes for one of these messages.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clamd_finds_eicar_plain_encoded_and_zipped() {
    let clamd = Clamd::start("");
    for clamav in [tcp(clamd.address), unix(&clamd.socket)].map(Clamav::new) {
        assert_eq!(clamav.ping().await.unwrap(), "PONG");
        for spool in [memory(), disk()] {
            let scan = async |content: Vec<u8>| {
                let body = hold(&spool, &content).await;
                clamav.scan(&message(&body)).await.unwrap().word
            };
            let infected = Word::Infected(EICAR_NAME.to_owned());
            assert_eq!(scan(letter("clean")).await, Word::Clean);
            assert_eq!(scan(letter(&eicar())).await, infected);
            assert_eq!(
                scan(attachment("plain", eicar().as_bytes()).into_bytes()).await,
                infected
            );
            assert_eq!(
                scan(attachment("zipped", &zipped(eicar().as_bytes())).into_bytes()).await,
                infected
            );
            assert_eq!(
                scan(attachment("clean", &zipped(b"clean")).into_bytes()).await,
                Word::Clean
            );
            assert_eq!(scan(Vec::new()).await, Word::Clean);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clamd_finds_eicar_behind_twenty_megabytes() {
    let clamd = Clamd::start("");
    let clamav = Clamav::new(tcp(clamd.address));
    let spool = disk();
    let mut content = letter(&"It is only a long letter.\r\n".repeat(750_000));
    let clean = hold(&spool, &content).await;
    content.extend_from_slice(eicar().as_bytes());
    let infected = hold(&spool, &content).await;
    let began = Instant::now();
    assert_eq!(
        clamav.scan(&message(&clean)).await.unwrap().word,
        Word::Clean
    );
    println!("{} octets scanned in {:?}", clean.len(), began.elapsed());
    let word = clamav.scan(&message(&infected)).await.unwrap().word;
    assert_eq!(word, Word::Infected(EICAR_NAME.to_owned()));
}

/// clamd says so and hangs up while the message is still being sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clamd_that_finds_a_message_too_large_is_understood_every_time() {
    let clamd = Clamd::start("StreamMaxLength 1M");
    let spool = disk();
    let body = hold(&spool, &vec![b'x'; 8 << 20]).await;
    let little = hold(&spool, &letter("clean")).await;
    for clamav in [tcp(clamd.address), unix(&clamd.socket)].map(Clamav::new) {
        for _ in 0..50 {
            let refused = timeout(PATIENCE, clamav.scan(&message(&body)))
                .await
                .unwrap();
            assert!(matches!(refused, Err(ScanError::TooLarge)), "{refused:?}");
        }
        assert_eq!(
            clamav.scan(&message(&little)).await.unwrap().word,
            Word::Clean
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clamd_scans_a_hundred_at_once() {
    let clamd = Clamd::start("");
    let spool = disk();
    let mut scans = Vec::new();
    for number in 0..100 {
        let (spool, address) = (spool.clone(), tcp(clamd.address));
        scans.push(tokio::spawn(async move {
            let text = if number % 2 == 0 {
                eicar()
            } else {
                "clean".to_owned()
            };
            let body = hold(&spool, &letter(&text)).await;
            Clamav::new(address)
                .scan(&message(&body))
                .await
                .unwrap()
                .word
        }));
    }
    for (number, scan) in scans.into_iter().enumerate() {
        let infected = matches!(scan.await.unwrap(), Word::Infected(_));
        assert_eq!(infected, number % 2 == 0);
    }
    assert_eq!((spool.memory_used(), spool.disk_used()), (0, 0));
}

/// More messages than the queue of its socket holds as Debian sets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clamd_that_stands_still_is_waited_for_by_a_crowd_at_its_unix_socket() {
    let clamd = Clamd::start("MaxConnectionQueueLength 15");
    clamd.daemon.stop();
    let mut scans = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let clamav = Clamav::new(unix(&clamd.socket));
        scans.spawn(async move {
            let body = hold(&memory(), &letter("clean")).await;
            clamav.scan(&message(&body)).await
        });
    }
    let early = timeout(Duration::from_secs(1), scans.join_next()).await;
    assert!(early.is_err(), "{early:?}");
    clamd.daemon.cont();
    for scan in timeout(PATIENCE, scans.join_all()).await.unwrap() {
        assert_eq!(scan.unwrap().word, Word::Clean);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_clamd_is_waited_for_and_a_killed_one_is_an_error() {
    let mut clamd = Clamd::start("");
    let clamav = Clamav::new(tcp(clamd.address));
    let body = hold(&disk(), &vec![b'x'; 16 << 20]).await;
    let scanned = message(&body);
    clamd.daemon.stop();
    let mut scan = std::pin::pin!(clamav.scan(&scanned));
    assert!(
        timeout(Duration::from_millis(500), &mut scan)
            .await
            .is_err()
    );
    clamd.daemon.cont();
    let word = timeout(PATIENCE, scan).await.unwrap().unwrap().word;
    assert_eq!(word, Word::Clean);

    clamd.daemon.stop();
    let mut scan = std::pin::pin!(clamav.scan(&scanned));
    assert!(
        timeout(Duration::from_millis(500), &mut scan)
            .await
            .is_err()
    );
    clamd.daemon.kill();
    let broken = timeout(PATIENCE, scan).await.unwrap();
    assert!(matches!(broken, Err(ScanError::Io(_))), "{broken:?}");
    let refused = clamav.ping().await;
    assert!(matches!(refused, Err(ScanError::Io(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spamd_scores_clean_mail_low_and_gtube_high() {
    let spamd = Spamd::start(&[]);
    let user = SpamdUser::parse("ann@example.org").unwrap();
    for address in [tcp(spamd.address), unix(&spamd.socket)] {
        let spamassassin = Spamassassin::new(address, Some(user.clone()), SpamdReport::Omitted);
        assert_eq!(spamassassin.ping().await.unwrap(), "PONG");
        for spool in [memory(), disk()] {
            let body = hold(&spool, &letter("Shall we meet at noon?")).await;
            let opinion = spamassassin.scan(&message(&body)).await.unwrap();
            let (score, threshold, rules) = points(&opinion);
            println!("clean: {score} / {threshold} {rules:?}");
            assert!(score < threshold, "{opinion:?}");

            let body = hold(&spool, &letter(&gtube())).await;
            let opinion = spamassassin.scan(&message(&body)).await.unwrap();
            let (score, threshold, rules) = points(&opinion);
            assert!(score >= 1000.0 - 10.0 && threshold == 5.0, "{opinion:?}");
            assert!(rules.iter().any(|rule| rule == "GTUBE"), "{rules:?}");
            assert_eq!(opinion.changes, []);
        }
    }
    let log = spamd.daemon.log();
    assert!(log.contains("ann@example.org"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spamd_report_names_the_same_rules_and_becomes_a_field() {
    let spamd = Spamd::start(&[]);
    let body = hold(&memory(), &letter(&gtube())).await;
    let [plain, reporting] = [SpamdReport::Omitted, SpamdReport::Added]
        .map(|report| Spamassassin::new(tcp(spamd.address), None, report));
    let plain = plain.scan(&message(&body)).await.unwrap();
    let reported = reporting.scan(&message(&body)).await.unwrap();
    let sorted = |opinion: &Opinion| {
        let mut rules = points(opinion).2.to_vec();
        rules.sort();
        rules
    };
    assert_eq!(sorted(&plain), sorted(&reported));
    let [Change::Add { name, value, .. }] = reported.changes.as_slice() else {
        panic!("{reported:?}");
    };
    assert_eq!(name, "X-Spam-Report");
    println!("{value}");
    assert!(value.contains("GTUBE"), "{value}");
    assert!(
        value
            .split("\r\n")
            .skip(1)
            .all(|line| line.starts_with(" *"))
    );
}

/// What a client says of itself and of its message, and what spamd is to know of it.
struct Told {
    hello: &'static str,
    sender: &'static str,
    protocol: &'static str,
    /// What the message begins with.
    first: &'static str,
}

impl Told {
    const fn of(hello: &'static str, sender: &'static str, protocol: &'static str) -> Self {
        Self {
            hello,
            sender,
            protocol,
            first: "",
        }
    }

    const fn with(first: &'static str) -> Self {
        Self {
            first,
            ..Self::of("client.test", "ann@sender.test", "ESMTP")
        }
    }
}

/// The client is who it is and not who it says, it has no name that it has not, and
/// nobody has signed in who has not. The reverse-path counts, which SPF is asked about,
/// and neither what the sender writes below nor what a client says of itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spamd_learns_the_envelope_and_the_client() {
    const TLS: TlsDetails = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: None,
        resumed: false,
    };
    let spamd = Spamd::start(&[
        r"header ENVELOPE_KNOWN EnvelopeFrom =~ /\@sender\.test$/",
        r"header RELAY_KNOWN X-Spam-Relays-Untrusted =~ /^\[[^\]]* envfrom=\S+\@sender\.test /",
        r"header FORGED EnvelopeFrom =~ /forged/",
        r"header FORGED_RELAY X-Spam-Relays-Untrusted =~ /^[^\]]*(?:envfrom|rdns)=\S*forged/",
        r"header CLIENT_KNOWN X-Spam-Relays-Untrusted =~ /^\[ ip=192\.0\.2\.77 rdns= helo=\S+ by=mx\.example\.org /",
        r"header SIGNED_IN X-Spam-Relays-Untrusted =~ /^[^\]]* auth=[^ \]]/",
        r"header TRUSTED X-Spam-Relays-Trusted =~ /\S/",
    ]);
    let spamassassin = Spamassassin::new(tcp(spamd.address), None, SpamdReport::Omitted);
    let forged_hop = "Received: from bank.test (bank.test [198.51.100.7])\r\n\tby mx.example.org with ESMTP id 1;\r\n\tTue, 24 Nov 2026 10:00:00 +0000\r\n";
    for told in [
        Told::of("client.test", "ann@sender.test", "ESMTP"),
        Told::of("client.test", "ann@sender.test", "ESMTPS"),
        Told::of("bank.test", "ann@sender.test", "SMTP"),
        Told::of("Exim.bank.test", "ann@sender.test", "ESMTP"),
        Told::of("bank.test", "Exim@sender.test", "ESMTPS"),
        Told::of("Envelope-From=forged.test", "ann@sender.test", "ESMTP"),
        Told::of("return-path:forged", "ann@sender.test", "SMTP"),
        Told::of("[198.51.100.7]", "ann@sender.test", "ESMTP"),
        Told::of("helo=forged", "helo=forged@sender.test", "ESMTP"),
        Told::of("authenticated", "(authenticated)by@sender.test", "ESMTPS"),
        Told::of("localhost", "with@sender.test", "SMTP"),
        Told::of("x[127.0.0.1]", "[127.0.0.1]@sender.test", "ESMTP"),
        Told::with("X-Envelope-From: <forged@sender.test>\r\n"),
        Told::with("\t(envelope-from <forged@sender.test>)\r\n"),
        Told::with("X-Sender: forged@sender.test\r\nReceived: x (fetchmail)\r\n"),
        Told::with(forged_hop),
    ] {
        let Told {
            hello,
            sender,
            protocol,
            first,
        } = told;
        let content = [first.as_bytes(), &letter("Shall we meet at noon?")].concat();
        let body = hold(&memory(), &content).await;
        for sender in [sender, ""] {
            let message = Message {
                client: Some("192.0.2.77:4711".parse().unwrap()),
                hello,
                sender,
                protocol,
                tls: Some(&TLS).filter(|_| protocol == "ESMTPS"),
                ..message(&body)
            };
            let opinion = spamassassin.scan(&message).await.unwrap();
            let rules = points(&opinion).2;
            let hit = |name: &str| rules.iter().any(|rule| rule == name);
            let of = format!("{hello} {sender} {protocol} {first}: {rules:?}");
            assert_eq!(hit("ENVELOPE_KNOWN"), !sender.is_empty(), "{of}");
            assert_eq!(hit("RELAY_KNOWN"), !sender.is_empty(), "{of}");
            // What stands behind the local part's own "forged" is no forgery.
            let is_own = sender.contains("forged");
            assert!(is_own || !hit("FORGED") && !hit("FORGED_RELAY"), "{of}");
            assert!(hit("CLIENT_KNOWN"), "{of}");
            assert!(!hit("SIGNED_IN") && !hit("TRUSTED"), "{of}");
        }
    }

    let body = hold(&memory(), &letter("Signed in")).await;
    let message = Message {
        client: Some("192.0.2.77:4711".parse().unwrap()),
        protocol: "ESMTPSA",
        tls: Some(&TLS),
        user: Some("ann"),
        ..message(&body)
    };
    let opinion = spamassassin.scan(&message).await.unwrap();
    let rules = points(&opinion).2;
    let hit = |name: &str| rules.iter().any(|rule| rule == name);
    assert!(hit("SIGNED_IN") || hit("TRUSTED"), "{rules:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_spamd_is_waited_for_and_a_killed_one_is_an_error() {
    let mut spamd = Spamd::start(&[]);
    let spamassassin = Spamassassin::new(tcp(spamd.address), None, SpamdReport::Omitted);
    let body = hold(&disk(), &letter(&"A line of many.\r\n".repeat(60_000))).await;
    let scanned = message(&body);
    spamd.daemon.stop();
    let mut scan = std::pin::pin!(spamassassin.scan(&scanned));
    assert!(
        timeout(Duration::from_millis(500), &mut scan)
            .await
            .is_err()
    );
    spamd.daemon.cont();
    let opinion = timeout(PATIENCE, scan).await.unwrap().unwrap();
    assert!(matches!(opinion.word, Word::Score { .. }), "{opinion:?}");

    spamd.daemon.stop();
    let mut scan = std::pin::pin!(spamassassin.scan(&scanned));
    assert!(
        timeout(Duration::from_millis(500), &mut scan)
            .await
            .is_err()
    );
    spamd.daemon.kill();
    let broken = timeout(PATIENCE, scan).await.unwrap();
    assert!(matches!(broken, Err(ScanError::Io(_))), "{broken:?}");
}

fn tcp(address: SocketAddr) -> ServiceAddress {
    ServiceAddress::parse(&address.to_string()).unwrap()
}

fn unix(socket: &Path) -> ServiceAddress {
    ServiceAddress::parse(&format!("unix:{}", socket.display())).unwrap()
}

/// Holds small bodies in memory.
fn memory() -> Spool {
    Spool::new(&Settings::default()).unwrap()
}

/// Holds every body in a file.
fn disk() -> Spool {
    Spool::new(&Settings {
        spool_buffer: Size(0),
        ..Settings::default()
    })
    .unwrap()
}

async fn hold(spool: &Spool, content: &[u8]) -> Body {
    let mut writer = spool.begin();
    for piece in content.chunks(10_000) {
        writer.write(piece).await.unwrap();
    }
    writer.finish().await.unwrap()
}

fn message(body: &Body) -> Message<'_> {
    Message {
        client: None,
        hello: "client.test",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "ann@sender.test",
        recipients: &[],
        id: "test",
        hostname: "mx.example.org",
        trace: TRACE,
        hop: TRACE,
        body,
    }
}

/// A message that nobody could take for spam by its header.
fn letter(text: &str) -> Vec<u8> {
    format!("{HEADER}\r\n{text}\r\n").into_bytes()
}

const HEADER: &str = "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\n\
    From: Ann <ann@sender.test>\r\n\
    To: Bob <bob@example.org>\r\n\
    Subject: Noon\r\n\
    Message-ID: <1@sender.test>\r\n\
    MIME-Version: 1.0\r\n";

#[track_caller]
fn points(opinion: &Opinion) -> (f64, f64, &[String]) {
    match &opinion.word {
        Word::Score {
            score,
            threshold: Some(threshold),
            rules,
        } => (*score, *threshold, rules),
        other => panic!("{other:?}"),
    }
}
