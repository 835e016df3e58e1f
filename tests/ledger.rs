//! The bookkeeping of the comparing benchmark: its load and its sink agree, and a
//! message that is changed, lost, doubled or made up does not go unnoticed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
// The benchmark uses the rest of these files.
#![allow(clippy::string_slice, unreachable_pub, dead_code)]

#[path = "benches/compare/door.rs"]
mod door;
#[path = "benches/compare/generator.rs"]
mod generator;
#[path = "benches/compare/ledger.rs"]
mod ledger;
#[path = "benches/compare/letter.rs"]
mod letter;
#[path = "benches/compare/sink.rs"]
mod sink;
mod support;

use std::time::{Duration, Instant};

use door::Door;
use generator::{Commands, Load};
use letter::Letter;
use sink::Sink;
use support::Smtp;

const LOAD: Load = Load {
    door: Door::Plain,
    size: 4096,
    messages: 3,
    recipients: 2,
    commands: Commands::OneByOne,
    at_once: 4,
};

/// Tells the sink this message; the code of its reply.
fn tell(sink: &Sink, wire: &[u8]) -> String {
    let mut client = Smtp::greeted(sink.address);
    client.open_data("alice@sender.test", "bob@example.org");
    client.send(wire);
    client.reply()[..3].to_owned()
}

/// A message that is on its way, and acknowledged beforehand.
fn acknowledged(sink: &Sink) -> Vec<u8> {
    let number = sink.ledger.issue();
    sink.ledger.acknowledge(number);
    Letter::new(LOAD.size).numbered(number).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn load_and_sink_agree() {
    let sink = Sink::start().await;
    for (commands, size) in [
        (Commands::OneByOne, 4096),
        (Commands::Pipelined, 4096),
        (Commands::OneByOne, 1 << 20),
    ] {
        let load = Load {
            commands,
            size,
            ..LOAD
        };
        let until = Instant::now() + Duration::from_millis(200);
        let sent = generator::send(load, sink.address, &sink.ledger, until).await;
        let sent = sent.unwrap().len();
        assert!(sent >= load.at_once * load.messages, "{load:?}: {sent}");
        assert_eq!(sink.ledger.settle(), Ok(sent), "{load:?}");
    }
}

#[test]
fn a_letter_has_the_size_that_is_asked_for_and_lines_that_begin_with_dots() {
    for size in 1000..1200 {
        let mut letter = Letter::new(size);
        let wire = letter.numbered(7);
        assert_eq!(wire.len(), size + 3);
        let content = wire.strip_suffix(b".\r\n").unwrap();
        assert_eq!(letter::number_of(content), Ok(7));
        let text = String::from_utf8(content.to_vec()).unwrap();
        assert!(text.contains("\r\n.."));
        // No line is an end, and none breaks the transparency.
        assert!(
            text.lines()
                .all(|line| !line.starts_with('.') || line.starts_with(".."))
        );
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_changed_octet() {
    let sink = Sink::start().await;
    let mut wire = acknowledged(&sink);
    let at = wire.len() - 100;
    wire[at] ^= 1;
    assert_eq!(tell(&sink, &wire), "554");
    let problem = sink.ledger.settle().unwrap_err();
    assert!(problem.contains("another digest"), "{problem}");
    assert!(problem.contains("is lost"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_dot_that_was_not_put_back() {
    let sink = Sink::start().await;
    let wire = acknowledged(&sink);
    let text = String::from_utf8(wire)
        .unwrap()
        .replacen("\r\n..", "\r\n.x", 1);
    assert_eq!(tell(&sink, text.as_bytes()), "554");
    assert!(sink.ledger.settle().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_lost_message() {
    let sink = Sink::start().await;
    drop(acknowledged(&sink));
    let problem = sink.ledger.settle().unwrap_err();
    assert_eq!(problem, "message 0 was acknowledged and is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_doubled_message() {
    let sink = Sink::start().await;
    let wire = acknowledged(&sink);
    assert_eq!(tell(&sink, &wire), "250");
    assert_eq!(tell(&sink, &wire), "250");
    let problem = sink.ledger.settle().unwrap_err();
    assert_eq!(problem, "message 0 arrived 2 times");
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_message_of_another_account() {
    let sink = Sink::start().await;
    let wire = acknowledged(&sink);
    assert_eq!(tell(&sink, &wire), "250");
    assert_eq!(sink.ledger.settle(), Ok(1));
    assert_eq!(tell(&sink, &wire), "554");
    let problem = sink.ledger.settle().unwrap_err();
    assert_eq!(problem, "message 0 was never sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_acknowledged_may_be_lost() {
    let sink = Sink::start().await;
    sink.ledger.issue();
    assert_eq!(sink.ledger.settle(), Ok(0));
}
