//! The milter client before real milters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use portcullis::policy::content::{Change, Opinion, Place, Scanner, Word};
use portcullis::scan::{Message, Milter, MilterAddress, ScanError};
use portcullis::settings::Value;
use portcullis::tls::TlsDetails;
use serde_json::json;
use support::{Opendkim, Pymilter, content_of, hold, message, milters};
use tokio::time::timeout;

const LETTER: &str = "From: alice@example.com\r\nTo: bob@example.org\r\nSubject: \ttest\r\n folded\r\nX-Old: 1\r\nX-Old: 2\r\n\r\nHello,\r\n\r\n.\r\nbye\r\n";
const TRACE: &[u8] = b"Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org with ESMTP;\r\n\tTue, 24 Nov 2026 10:00:00 +0000\r\n";

/// Longer than any of these filters takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn recipients(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn milter(address: SocketAddr) -> Milter {
    Milter::new(MilterAddress::parse(&format!("inet:{address}")).unwrap(), 0)
}

/// What the filter at `address` says of `content` that bob is sent.
async fn opinion(address: SocketAddr, content: impl AsRef<[u8]>) -> Result<Opinion, ScanError> {
    let (body, bob) = (hold(content).await, recipients(&["bob@example.org"]));
    let milter = milter(address);
    let message = message(&body, &bob, TRACE);
    let scanned = timeout(PATIENCE, milter.scan(&message)).await.unwrap();
    scanned.map(|(opinion, _)| opinion)
}

fn doing(what: &[&str]) -> String {
    let fields = what.iter().map(|what| format!("X-Do: {what}\r\n"));
    fields.collect::<String>() + LETTER
}

/// The printed reply of a refusal.
fn reply(word: &Word) -> String {
    match word {
        Word::Refuse { reply } | Word::Defer { reply } => {
            reply.as_ref().map_or(String::new(), ToString::to_string)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn libmilter_is_told_everything() {
    let pymilter = Pymilter::start(&[]);
    let tls = TlsDetails {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        sni: None,
        resumed: false,
    };
    let body = hold(LETTER).await;
    let both = recipients(&["bob@example.org", "carol@example.org"]);
    let message = Message {
        user: Some("alice"),
        protocol: "ESMTPSA",
        tls: Some(&tls),
        ..message(&body, &both, TRACE)
    };
    let (opinion, _) = milter(pymilter.address).scan(&message).await.unwrap();
    let nothing = Opinion {
        scanner: Scanner::Milter(0),
        word: Word::Clean,
        changes: Vec::new(),
    };
    assert_eq!(opinion, nothing);

    let told = pymilter.told();
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    let steps = [
        "negotiate",
        "connect",
        "hello",
        "envfrom",
        "envrcpt",
        "envrcpt",
        "data",
        "header",
        "header",
        "header",
        "header",
        "header",
        "eoh",
        "body",
        "eom",
        "close",
    ];
    assert_eq!(names, steps);
    let of = |name: &str| -> Vec<_> {
        let these = told.iter().filter(|(other, _)| other == name);
        these.map(|(_, data)| data.clone()).collect()
    };
    let connect = &of("connect")[0];
    assert_eq!(connect[0], "[192.0.2.1]");
    assert_eq!(connect[1], json!(["192.0.2.1", 4711]));
    assert_eq!(of("hello"), [json!(["client.example"])]);
    assert_eq!(of("envfrom"), [json!(["<alice@example.com>"])]);
    let paths = [json!(["<bob@example.org>"]), json!(["<carol@example.org>"])];
    assert_eq!(of("envrcpt"), paths);
    // Not our trace field, one space taken off and not the tab, folded with LF.
    let fields = [
        json!(["From", "alice@example.com"]),
        json!(["To", "bob@example.org"]),
        json!(["Subject", "\ttest\n folded"]),
        json!(["X-Old", "1"]),
        json!(["X-Old", "2"]),
    ];
    assert_eq!(of("header"), fields);
    assert_eq!(of("body"), [json!([18, "Hello,\r\n\r\n.\r\nbye\r\n"])]);
    let macros = &of("eom")[0][0];
    for (name, value) in [
        ("j", "mx.example.org"),
        ("i", "7f3a"),
        ("{client_addr}", "192.0.2.1"),
        ("{client_port}", "4711"),
        ("{daemon_name}", "mx.example.org"),
        ("{tls_version}", "TLSv1.3"),
        ("{cipher}", "TLS_AES_256_GCM_SHA384"),
        ("{auth_authen}", "alice"),
        ("{mail_addr}", "alice@example.com"),
        ("{mail_host}", "example.com"),
        ("{rcpt_addr}", "carol@example.org"),
    ] {
        assert_eq!(macros[name], value, "{name} in {macros}");
    }
}

#[tokio::test]
async fn libmilter_over_every_kind_of_client_address() {
    for (client, name, address) in [
        (
            Some("[2001:db8::7]:25"),
            "[IPv6:2001:db8::7]",
            "2001:db8::7",
        ),
        (Some("[::ffff:192.0.2.7]:25"), "[192.0.2.7]", "192.0.2.7"),
        (None, "unknown", ""),
    ] {
        let pymilter = Pymilter::start(&[]);
        let (body, bob) = (hold(LETTER).await, recipients(&["bob@example.org"]));
        let message = Message {
            client: client.map(|client| client.parse().unwrap()),
            ..message(&body, &bob, TRACE)
        };
        let (opinion, _) = milter(pymilter.address).scan(&message).await.unwrap();
        assert_eq!(opinion.word, Word::Clean);
        let told = pymilter.told();
        let (_, connect) = told.iter().find(|(name, _)| name == "connect").unwrap();
        assert_eq!(connect[0], name);
        match client {
            Some(_) => assert_eq!(connect[1][0], address),
            None => assert!(connect[1].is_null(), "{connect}"),
        }
    }
}

#[tokio::test]
async fn libmilter_gets_the_macros_that_it_asks_for() {
    let pymilter = Pymilter::start(&["symbols"]);
    opinion(pymilter.address, LETTER).await.unwrap();
    let told = pymilter.told();
    let of = |name: &str| told.iter().find(|(other, _)| other == name).unwrap();
    let (_, connect) = of("connect");
    assert_eq!(connect[2], json!({"j": "mx.example.org"}));
    assert_eq!(of("eoh").1[0]["r"], "ESMTP");
}

#[tokio::test]
async fn libmilter_that_answers_nothing_but_the_end_is_not_waited_for() {
    let pymilter = Pymilter::start(&["quiet"]);
    let content = doing(&["add"]) + &"line\r\n".repeat(100_000);
    let opinion = opinion(pymilter.address, content).await.unwrap();
    assert_eq!(opinion.word, Word::Clean);
    assert_eq!(opinion.changes.len(), 1);
    let told = pymilter.told();
    // It did not want this one.
    assert!(told.iter().all(|(name, _)| name != "hello"));
    let chunks = told.iter().filter(|(name, _)| name == "body");
    let octets = chunks.map(|(_, data)| data[0].as_u64().unwrap());
    assert_eq!(octets.sum::<u64>(), 600_018);
}

#[tokio::test]
async fn libmilter_may_skip_the_rest_of_a_body() {
    let pymilter = Pymilter::start(&[]);
    let content = doing(&["skip"]) + &"line\r\n".repeat(100_000);
    let opinion = opinion(pymilter.address, content).await.unwrap();
    assert_eq!(opinion.word, Word::Clean);
    let chunks = pymilter.told();
    let chunks: Vec<_> = chunks.iter().filter(|(name, _)| name == "body").collect();
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].1[0], 65_535);
}

#[tokio::test]
async fn libmilter_changes_are_taken_over() {
    let pymilter = Pymilter::start(&[]);
    let content = doing(&["progress", "add", "insert", "change", "delete", "replace"]);
    let (body, bob) = (hold(content).await, recipients(&["bob@example.org"]));
    let message = message(&body, &bob, TRACE);
    let (opinion, new_body) = milter(pymilter.address).scan(&message).await.unwrap();
    assert_eq!(opinion.word, Word::Clean);
    let added = |place, name: &str, value: &str| Change::Add {
        place,
        name: name.into(),
        value: value.into(),
    };
    let expected = [
        added(Place::Last, "X-Added", "one\r\n\ttwo"),
        added(Place::First, "X-First", "here"),
        Change::Set {
            name: "Subject".into(),
            index: 1,
            value: "changed".into(),
        },
        Change::Delete {
            name: "X-Old".into(),
            index: Some(2),
        },
    ];
    assert_eq!(opinion.changes, expected);
    let new_body = content_of(&new_body.unwrap()).await;
    assert!(new_body == b"new\r\n".repeat(30_000));
}

#[tokio::test]
async fn libmilter_refusals_at_every_stage() {
    let pymilter = Pymilter::start(&[]);
    let milter = milter(pymilter.address);
    let body = hold(LETTER).await;
    let bob = recipients(&["bob@example.org"]);
    let refused = recipients(&["bob@example.org", "refused@example.org"]);
    let alone = recipients(&["refused@example.org"]);
    let worded = recipients(&["worded@example.org", "bob@example.org"]);
    let plain = message(&body, &bob, TRACE);
    let wordless = Word::Refuse { reply: None };
    let word = async |message: Message<'_>| {
        let scanned = timeout(PATIENCE, milter.scan(&message)).await.unwrap();
        scanned.unwrap().0.word
    };

    let at_hello = Message {
        hello: "refused.example",
        ..plain
    };
    assert_eq!(word(at_hello).await, wordless);
    let at_mail = Message {
        sender: "later@example.com",
        ..plain
    };
    assert_eq!(word(at_mail).await, Word::Defer { reply: None });
    let accepted = Message {
        sender: "accepted@example.com",
        ..plain
    };
    assert_eq!(word(accepted).await, Word::Clean);
    assert_eq!(word(message(&body, &alone, TRACE)).await, wordless);
    assert_eq!(
        reply(&word(message(&body, &refused, TRACE)).await),
        "550 5.7.1 A content filter refuses <refused@example.org>, so nobody was sent the message\r\n"
    );
    assert_eq!(
        reply(&word(message(&body, &worded, TRACE)).await),
        "550 5.1.1 No such person\r\n"
    );
}

#[tokio::test]
async fn libmilter_verdicts_at_the_end() {
    let pymilter = Pymilter::start(&[]);
    let word = async |what: &[&str]| opinion(pymilter.address, doing(what)).await.unwrap().word;
    assert_eq!(word(&["reject"]).await, Word::Refuse { reply: None });
    assert_eq!(
        reply(&word(&["reply"]).await),
        "554-5.7.1 100% certain\r\n554 5.7.1 of it\r\n"
    );
    assert_eq!(
        reply(&word(&["discard"]).await),
        "554 5.7.1 Message refused by a content filter\r\n"
    );
    assert_eq!(
        word(&["quarantine"]).await,
        Word::Quarantine("looks odd".to_owned())
    );
    // What was asked for before a refusal does not matter any more.
    let refused = opinion(pymilter.address, doing(&["add", "reject"])).await;
    assert!(refused.unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_filter_that_insists_on_changing_recipients_is_told_apart() {
    let pymilter = Pymilter::start(&["insist"]);
    let error = milter(pymilter.address).ping().await.unwrap_err();
    assert!(error.to_string().contains("recipients"), "{error}");
}

#[tokio::test]
async fn the_first_refusal_of_several_filters_decides() {
    let (one, two) = (Pymilter::start(&[]), Pymilter::start(&[]));
    let address = |address| MilterAddress::parse(&format!("inet:{address}")).unwrap();
    let nobody = support::free_address();
    let milters = milters(vec![
        address(one.address),
        address(nobody),
        address(two.address),
        address(one.address),
    ]);
    let (body, bob) = (
        hold(doing(&["add"])).await,
        recipients(&["bob@example.org"]),
    );
    let opinions = milters.scan(&message(&body, &bob, TRACE)).await.opinions;
    let scanners: Vec<_> = opinions.iter().map(|opinion| opinion.scanner).collect();
    assert_eq!(scanners, [0, 1, 2, 3].map(Scanner::Milter));
    assert!(matches!(&opinions[1].word, Word::Failed(why) if why.contains("refused")));
    assert!([0, 2, 3].iter().all(|at| opinions[*at].changes.len() == 1));

    let body = hold(doing(&["reject"])).await;
    let opinions = milters.scan(&message(&body, &bob, TRACE)).await.opinions;
    assert_eq!(opinions.len(), 1);
}

/// It was shown what came, not what the first one made of it.
#[tokio::test]
async fn of_two_filters_that_write_a_body_the_second_undoes_nothing() {
    let (one, two) = (Pymilter::start(&[]), Pymilter::start(&[]));
    let address = |address| MilterAddress::parse(&format!("inet:{address}")).unwrap();
    let milters = milters(vec![address(one.address), address(two.address)]);
    let (body, bob) = (
        hold(doing(&["replace"])).await,
        recipients(&["bob@example.org"]),
    );
    let findings = milters.scan(&message(&body, &bob, TRACE)).await;
    assert_eq!(findings.opinions[0].word, Word::Clean);
    let second = &findings.opinions[1].word;
    assert!(
        matches!(second, Word::Failed(why) if why.contains("another milter")),
        "{second:?}"
    );
    assert!(findings.new_body.is_some());
}

#[tokio::test]
async fn opendkim_notes_that_a_message_has_no_signature() {
    let opendkim = Opendkim::start();
    let version = milter(opendkim.address).ping().await.unwrap();
    assert_eq!(version, "milter protocol version 6");
    let opinion = opinion(opendkim.address, LETTER).await.unwrap();
    assert_eq!(opinion.word, Word::Clean);
    let [Change::Add { place, name, value }] = opinion.changes.as_slice() else {
        panic!("{opinion:?}");
    };
    assert_eq!(
        (*place, name.as_str()),
        (Place::First, "Authentication-Results")
    );
    assert!(value.starts_with("mx.example.org; dkim=none"), "{value}");
}

/// A body of several packets, with folded fields and octets beyond ASCII.
fn long_letter() -> String {
    LETTER.to_owned() + &"a line of a long body, \u{e4}\r\n".repeat(10_000)
}

/// What opendkim finds out about signatures in a message from a stranger.
async fn authentication_results(opendkim: &Opendkim, content: &str) -> String {
    let opinion = opinion(opendkim.address, content).await.unwrap();
    match opinion.changes.as_slice() {
        [Change::Add { value, .. }] => value.clone(),
        other => panic!("{other:?}\n{}", opendkim.daemon.log()),
    }
}

/// Not an octet of fields and body is lost or added on the way to a filter.
#[tokio::test]
async fn opendkim_verifies_what_was_signed_elsewhere() {
    let opendkim = Opendkim::start();
    let signed = opendkim.signed_elsewhere(&long_letter());
    assert!(signed.starts_with("DKIM-Signature:"), "{signed}");
    let good = authentication_results(&opendkim, &signed).await;
    assert!(good.contains("dkim=pass"), "{good}");
    for (from, to) in [("bye", "buy"), ("\ttest\r\n folded", "\ttest\r\n  folded")] {
        let bad = authentication_results(&opendkim, &signed.replace(from, to)).await;
        assert!(bad.contains("dkim=fail"), "{bad}");
    }
}

/// A client that has signed in is told by the macros; the field that comes back can
/// be put in as it is.
#[tokio::test]
async fn opendkim_signs_for_a_client_that_has_signed_in() {
    let opendkim = Opendkim::start();
    let content = long_letter();
    let (body, bob) = (hold(&content).await, recipients(&["bob@example.org"]));
    let message = Message {
        user: Some("alice"),
        protocol: "ESMTPA",
        ..message(&body, &bob, TRACE)
    };
    let (signed, _) = milter(opendkim.address).scan(&message).await.unwrap();
    let [Change::Add { name, value, .. }] = signed.changes.as_slice() else {
        panic!("{signed:?}\n{}", opendkim.daemon.log());
    };
    assert_eq!(name, "DKIM-Signature");
    let signed = format!("{name}: {value}\r\n{content}");
    assert!(opendkim.is_good_elsewhere(&signed), "{value}");
    assert!(!opendkim.is_good_elsewhere(&signed.replace("bye", "buy")));
}
