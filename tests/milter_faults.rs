//! The milter client before a filter that keeps to nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::policy::content::{Opinion, Word};
use portcullis::scan::milter::packet::PACKET_MAX;
use portcullis::scan::{Milter, MilterAddress, ScanError};
use portcullis::settings::Value;
use support::{hold, message, milters};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const LETTER: &str = "Subject: test\r\n\r\nHello\r\n";

/// The steps about `LETTER`, by their octets.
const STEPS: &[u8] = b"OCHMRTLNBE";

/// The client must be through with every fault much sooner.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the filter does about one step.
enum Act {
    /// Sends octets, whatever they are.
    Send(Vec<u8>),
    Nothing,
    HangUp,
    SendAndHangUp(Vec<u8>),
    /// Sends the same octets as long as anybody takes them.
    Flood(Vec<u8>),
    /// Stays connected and reads nothing more.
    Sleep,
}

fn packet(octet: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[octet], data].concat()
}

fn terms(version: u32, actions: u32, protocol: u32) -> Vec<u8> {
    let numbers = [version, actions, protocol].map(u32::to_be_bytes);
    packet(b'O', &numbers.concat())
}

/// What a filter in good order answers.
fn good(step: u8) -> Act {
    match step {
        b'O' => Act::Send(terms(6, 0, 0)),
        b'D' | b'Q' => Act::Nothing,
        _ => Act::Send(packet(b'c', b"")),
    }
}

/// A filter in good order but for what it does at `step`.
fn at(step: u8, octets: &[u8]) -> impl Fn(u8) -> Act + Send + 'static {
    let octets = octets.to_owned();
    move |heard| match heard {
        heard if heard == step => Act::Send(octets.clone()),
        heard => good(heard),
    }
}

/// Serves one connection; tells which packets it got.
async fn filter(act: impl Fn(u8) -> Act + Send + 'static) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while let Some(octet) = next_packet(&mut stream).await {
            heard.push(octet);
            match act(octet) {
                Act::Send(octets) => drop(stream.write_all(&octets).await),
                Act::Nothing => {}
                Act::HangUp => break,
                Act::SendAndHangUp(octets) => {
                    stream.write_all(&octets).await.unwrap();
                    break;
                }
                Act::Flood(octets) => while stream.write_all(&octets).await.is_ok() {},
                Act::Sleep => sleep(PATIENCE * 2).await,
            }
        }
        heard
    });
    (address, served)
}

async fn next_packet(stream: &mut TcpStream) -> Option<u8> {
    let length = stream.read_u32().await.ok()?;
    let mut packet = vec![0; length as usize];
    stream.read_exact(&mut packet).await.ok()?;
    packet.first().copied()
}

fn address(address: SocketAddr) -> MilterAddress {
    MilterAddress::parse(&format!("inet:{address}")).unwrap()
}

/// What the client makes of it, and which packets the filter got.
async fn opinion_of(
    content: impl AsRef<[u8]>,
    act: impl Fn(u8) -> Act + Send + 'static,
) -> (Result<Opinion, ScanError>, Vec<u8>) {
    let (filter, served) = filter(act).await;
    let (body, recipients) = (hold(content).await, ["bob@example.org".to_owned()]);
    let milter = Milter::new(address(filter), 0);
    let message = message(&body, &recipients, b"");
    let opinion = timeout(PATIENCE, milter.scan(&message)).await;
    let heard = timeout(PATIENCE, served).await;
    let opinion = opinion.expect("the client is stuck");
    let opinion = opinion.map(|(opinion, _)| opinion);
    (opinion, heard.expect("the filter is stuck").unwrap())
}

async fn opinion(act: impl Fn(u8) -> Act + Send + 'static) -> Result<Opinion, ScanError> {
    opinion_of(LETTER, act).await.0
}

#[tokio::test]
async fn goes_through_all_steps_and_says_goodbye() {
    let (opinion, heard) = opinion_of(LETTER, good).await;
    assert_eq!(opinion.unwrap().word, Word::Clean);
    // Macros stand before the steps that have any.
    assert_eq!(heard, b"ODCHDMDRTLNBDEQ");
}

#[tokio::test]
async fn a_filter_that_hangs_up_has_failed() {
    for step in STEPS {
        let act = move |heard| match heard {
            heard if heard == *step => Act::HangUp,
            heard => good(heard),
        };
        let error = opinion(act).await.unwrap_err();
        assert!(error.to_string().contains("hung up"), "{error}");
    }
}

#[tokio::test]
async fn a_filter_that_hangs_up_within_a_packet_has_failed() {
    for step in STEPS {
        let act = move |heard| match heard {
            heard if heard == *step => Act::SendAndHangUp(vec![0, 0, 0, 9, b'y']),
            heard => good(heard),
        };
        let result = opinion(act).await;
        assert!(
            matches!(&result, Err(ScanError::Protocol(why)) if why.starts_with("hung up ")),
            "at {}: {result:?}",
            char::from(*step)
        );
    }
}

#[tokio::test]
async fn garbage_is_no_opinion_at_any_step() {
    let too_long = (PACKET_MAX as u32 + 1).to_be_bytes();
    for step in STEPS {
        for garbage in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"220 mx.example.org ESMTP\r\n",
            b"\0\0\0\0",
            b"\xff\xff\xff\xffc",
            &too_long,
            b"\0\0\0\x01Z",
            b"\0\0\0\x02cc",
            b"\0\0\0\x04y55\0",
        ] {
            let result = opinion(at(*step, garbage)).await;
            let error = result.expect_err(&format!("{} at {step}", garbage.escape_ascii()));
            assert!(matches!(error, ScanError::Protocol(_)), "{error:?}");
        }
    }
}

/// As rspamd's: it names recipients whatever is offered, and only a message may show
/// whether it means it.
#[tokio::test]
async fn a_change_of_the_envelope_fails_the_message_alone() {
    let naming_all = |heard| match heard {
        b'O' => Act::Send(terms(6, u32::MAX, 0)),
        heard => good(heard),
    };
    assert_eq!(opinion(naming_all).await.unwrap().word, Word::Clean);
    for (octet, why) in [
        (b'+', "wants to add a recipient, which was not offered"),
        (b'2', "wants to add a recipient, which was not offered"),
        (b'-', "wants to take out a recipient, which was not offered"),
        (b'e', "wants to change the sender, which was not offered"),
    ] {
        let act = move |heard| match heard {
            b'E' => Act::Send(packet(octet, b"<eve@example.org>\0")),
            heard => naming_all(heard),
        };
        match opinion(act).await.unwrap_err() {
            ScanError::Reported(reported) => assert_eq!(reported, why),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_its_step_is_no_opinion() {
    let header = packet(b'h', b"X\0y\0");
    for (steps, answer) in [
        (&b"CHMRTLNB"[..], &header),
        (b"CHMRTLNB", &packet(b'b', b"new")),
        (b"CHMRTLNB", &packet(b'q', b"why\0")),
        (b"CHMRTNE", &packet(b's', b"")),
        (b"CHMRTLNBE", &terms(6, 0, 0)),
        (b"CHMRTLNB", &packet(b'+', b"<eve@example.org>\0")),
        (b"CHMRTLNB", &packet(b'-', b"<bob@example.org>\0")),
        (b"CHMRTLNB", &packet(b'e', b"<eve@example.org>\0")),
        (b"O", &packet(b'c', b"")),
        (b"O", &packet(b'r', b"")),
        (b"O", &terms(1, 0, 0)),
        (b"O", &terms(7, 0, 0)),
    ] {
        for step in steps {
            let result = opinion(at(*step, answer)).await;
            let what = format!("{} at {}", answer.escape_ascii(), char::from(*step));
            assert!(
                matches!(result, Err(ScanError::Protocol(_))),
                "{what}: {result:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_ends_the_dialogue_wherever_it_comes() {
    for step in &STEPS[1..] {
        for (answer, code) in [
            (packet(b'r', b""), "5"),
            (packet(b't', b""), "4"),
            (packet(b'4', b""), "4"),
            (packet(b'f', b""), "4"),
            // Portcullis swallows nothing.
            (packet(b'd', b""), "554 5.7.1"),
            (packet(b'y', b"550 5.7.1 No\0"), "550 5.7.1 No"),
            (packet(b'y', b"421 4.7.0 No\0"), "451 4.7.0 No"),
        ] {
            let (opinion, heard) = opinion_of(LETTER, at(*step, &answer)).await;
            let printed = match opinion.unwrap().word {
                Word::Refuse { reply } => reply.map_or("5".to_owned(), |r| r.to_string()),
                Word::Defer { reply } => reply.map_or("4".to_owned(), |r| r.to_string()),
                other => panic!("{other:?}"),
            };
            assert!(printed.starts_with(code), "{printed}");
            assert_eq!(heard[heard.len() - 2..], [*step, b'Q']);
        }
    }
}

#[tokio::test]
async fn acceptance_ends_the_dialogue_wherever_it_comes() {
    for step in &STEPS[1..] {
        let (opinion, heard) = opinion_of(LETTER, at(*step, &packet(b'a', b""))).await;
        assert_eq!(opinion.unwrap().word, Word::Clean);
        assert_eq!(heard[heard.len() - 2..], [*step, b'Q']);
    }
}

#[tokio::test]
async fn progress_without_end_comes_to_an_end() {
    let act = |heard| match heard {
        b'E' => Act::Flood(packet(b'p', b"")),
        heard => good(heard),
    };
    let error = opinion(act).await.unwrap_err();
    assert!(error.to_string().contains("progress"), "{error}");
}

#[tokio::test]
async fn changes_without_end_come_to_an_end() {
    let flooded_with = |flood: Vec<u8>| {
        opinion(move |heard| match heard {
            b'E' => Act::Flood(flood.clone()),
            heard => good(heard),
        })
    };
    let body = flooded_with(packet(b'b', &[b'x'; 65_535])).await;
    assert!(matches!(body, Err(ScanError::Reported(_))), "{body:?}");
    for flood in [
        packet(b'h', b"X\0y\0"),
        packet(b'm', b"\0\0\0\x01X\0\0"),
        packet(b'h', b"not a name\0y\0"),
    ] {
        // Messages may be written so that a filter wishes this: it is not ill.
        let error = flooded_with(flood).await;
        assert!(matches!(error, Err(ScanError::Reported(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_silent_filter_holds_nobody_beyond_the_deadline() {
    for step in STEPS {
        let reached = Arc::new(Notify::new());
        let tell = Arc::clone(&reached);
        let act = move |heard| match heard {
            heard if heard == *step => {
                tell.notify_one();
                Act::Nothing
            }
            heard => good(heard),
        };
        let (filter, served) = filter(act).await;
        let (body, recipients) = (hold(LETTER).await, ["bob@example.org".to_owned()]);
        let milters = milters(vec![address(filter)]);
        let message = message(&body, &recipients, b"");
        // It is the caller's, and he gives up in the midst of the silence.
        let deadline = async {
            timeout(PATIENCE, reached.notified()).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            opinions = milters.scan(&message) => panic!("{opinions:?}"),
            () = deadline => {}
        }
        // The connection is gone with the one who waited.
        let heard = timeout(PATIENCE, served).await.unwrap().unwrap();
        assert_eq!(heard.last(), Some(step));
    }
}

#[tokio::test]
async fn a_filter_that_stops_reading_holds_nobody_beyond_the_deadline() {
    let act = |heard| match heard {
        // It will not answer pieces of a body.
        b'O' => Act::Send(terms(6, 0, 0x8_0000)),
        b'B' => Act::Sleep,
        heard => good(heard),
    };
    let (filter, served) = filter(act).await;
    let content = format!("{LETTER}{}", "line\r\n".repeat(3_000_000));
    let (body, recipients) = (hold(content).await, ["bob@example.org".to_owned()]);
    let milter = Milter::new(address(filter), 0);
    let message = message(&body, &recipients, b"");
    let start = Instant::now();
    let result = timeout(Duration::from_secs(1), milter.scan(&message)).await;
    assert!(result.is_err() && start.elapsed() < Duration::from_secs(5));
    served.abort();
}

#[tokio::test]
async fn a_word_is_not_lost_to_a_filter_that_reads_no_goodbye() {
    let act = |heard| match heard {
        b'O' => Act::Send(terms(6, 0, 0x8_0000)),
        // Accepts before the body has come.
        b'N' => Act::Send([packet(b'c', b""), packet(b'a', b"")].concat()),
        b'B' => Act::Sleep,
        heard => good(heard),
    };
    let (filter, served) = filter(act).await;
    let content = format!("{LETTER}{}", "line\r\n".repeat(10_000));
    let (body, recipients) = (hold(content).await, ["bob@example.org".to_owned()]);
    let milter = Milter::new(address(filter), 0);
    let message = message(&body, &recipients, b"");
    let opinion = timeout(PATIENCE, milter.scan(&message)).await.unwrap();
    assert_eq!(opinion.unwrap().0.word, Word::Clean);
    served.abort();
}

#[tokio::test]
async fn a_filter_that_is_not_there_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let (body, recipients) = (hold(LETTER).await, ["bob@example.org".to_owned()]);
    let milters = milters(vec![
        address(nobody),
        MilterAddress::parse("unix:/nonexistent/socket").unwrap(),
    ]);
    let opinions = milters
        .scan(&message(&body, &recipients, b""))
        .await
        .opinions;
    assert_eq!(opinions.len(), 2);
    for opinion in opinions {
        assert!(matches!(opinion.word, Word::Failed(_)), "{opinion:?}");
    }
}

#[tokio::test]
async fn an_old_filter_is_spared_what_it_does_not_know() {
    let act = |heard| match heard {
        b'O' => Act::Send(terms(2, 0, 0)),
        heard => good(heard),
    };
    let (opinion, heard) = opinion_of(LETTER, act).await;
    assert_eq!(opinion.unwrap().word, Word::Clean);
    assert_eq!(heard, b"ODCHDMDRLNBEQ");
}

#[tokio::test]
async fn only_the_end_is_sent_to_a_filter_that_wants_nothing_else() {
    let act = |heard| match heard {
        b'O' => Act::Send(terms(6, 0, u32::MAX)),
        heard => good(heard),
    };
    let (opinion, heard) = opinion_of(LETTER, act).await;
    assert_eq!(opinion.unwrap().word, Word::Clean);
    assert_eq!(heard, b"ODEQ");
}

#[tokio::test]
async fn a_header_section_without_end_is_refused() {
    let content = "X-Many: y\r\n".repeat(120_000);
    let act = |heard| match heard {
        // It will not answer fields.
        b'O' => Act::Send(terms(6, 0, 0x80)),
        heard => good(heard),
    };
    let (opinion, heard) = opinion_of(content, act).await;
    let Word::Refuse { reply: Some(reply) } = opinion.unwrap().word else {
        panic!("not refused");
    };
    assert!(reply.to_string().starts_with("552 5.3.4 "), "{reply}");
    assert!(!heard.contains(&b'N'));
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_as_good_as_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut offer = vec![0; length as usize];
        stream.read_exact(&mut offer).await.unwrap();
        stream.write_all(&terms(6, 0, 0)).await.unwrap();
        offer
    });
    let address = MilterAddress::parse(&format!("local:{}", path.display())).unwrap();
    let version = Milter::new(address, 0).ping().await.unwrap();
    assert_eq!(version, "milter protocol version 6");
    assert_eq!(served.await.unwrap()[0], b'O');
}

/// Sessions are tasks that move between threads.
#[tokio::test]
async fn may_be_asked_from_any_thread() {
    let (filter, _served) = filter(good).await;
    let opinions = tokio::spawn(async move {
        let (body, recipients) = (hold(LETTER).await, ["bob@example.org".to_owned()]);
        let milters = milters(vec![address(filter)]);
        milters
            .scan(&message(&body, &recipients, b""))
            .await
            .opinions
    });
    assert_eq!(opinions.await.unwrap().len(), 1);
}
