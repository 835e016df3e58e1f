//! clamd's faults, as a scripted one has them.

use std::time::Duration;

use tokio::time::timeout;

use super::super::hear::scripted::{Act, hold, message, peer};
use super::*;

/// The chunk that ends a stream.
const END: &[u8] = &[0; 4];

/// Larger than what the sockets between two processes hold.
const LARGE: usize = 32 << 20;

async fn scan(acts: &[Act], body: &[u8]) -> Result<Word, ScanError> {
    let (address, _task) = peer(acts).await;
    let body = hold(body).await;
    let scan = Clamav::new(address);
    let message = message(b"", &body);
    let opinion = timeout(Duration::from_secs(20), scan.scan(&message)).await;
    opinion.expect("no end of it").map(|opinion| opinion.word)
}

#[tokio::test]
async fn sends_trace_and_body_in_chunks_that_tell_their_length() {
    for (trace, octets) in [
        ("Received: x\r\n", vec![b'x'; 200_000]),
        ("", vec![b'x'; 10]),
        ("Received: x\r\n", vec![]),
        ("", vec![]),
    ] {
        let (address, task) = peer([Act::HearUntil(END), Act::Say(b"stream: OK\0")]).await;
        let body = hold(&octets).await;
        let message = message(trace.as_bytes(), &body);
        let opinion = Clamav::new(address).scan(&message).await.unwrap();
        assert_eq!(
            (opinion.scanner, opinion.word),
            (Scanner::Clamav, Word::Clean)
        );

        let heard = task.await.unwrap();
        let mut rest = heard.strip_prefix(b"zINSTREAM\0").unwrap();
        let mut content = Vec::new();
        while let Some((length, more)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            if length == 0 {
                assert_eq!(more, b"");
            }
            let (chunk, more) = more.split_at(length);
            content.extend_from_slice(chunk);
            rest = more;
        }
        assert_eq!(rest, b"");
        assert!(content == [trace.as_bytes(), &octets].concat());
    }
}

#[test]
fn understands_every_answer() {
    let infected = |name: &str| Word::Infected(name.to_owned());
    for (answer, meant) in [
        ("stream: OK\0", Word::Clean),
        ("stream: Eicar-Test FOUND\0", infected("Eicar-Test")),
        ("stream: A(b:68) FOUND\0", infected("A(b:68)")),
        ("stream: OK FOUND\0", infected("OK")),
        (
            "stream: a\r\n\x1b[2Jb FOUND\0",
            infected("a\\r\\n\\u{1b}[2Jb"),
        ),
    ] {
        assert_eq!(word(answer.as_bytes()).unwrap(), meant);
    }
    let too_large = word(b"INSTREAM size limit exceeded. ERROR\0");
    assert!(matches!(too_large, Err(ScanError::TooLarge)));
}

#[test]
fn takes_nothing_else_for_an_answer() {
    for (answer, complaint) in [
        ("stream: OK", "cut off: stream: OK"),
        ("stream: O", "cut off"),
        ("stream: Eicar FOUND", "cut off"),
        ("stream: OK\n", "cut off"),
        ("stream: OK\0stream: OK\0", "unintelligible"),
        ("stream: FOUND\0", "unintelligible"),
        ("stream:  FOUND\0", "unintelligible"),
        ("stream: \0", "unintelligible"),
        ("OK\0", "unintelligible"),
        ("Eicar FOUND\0", "unintelligible"),
        ("\0", "unintelligible"),
        ("HTTP/1.1 200 OK\r\n\0", "unintelligible"),
        (
            "stream: Can't allocate memory ERROR\0",
            "reports: stream: Can't",
        ),
        ("UNKNOWN COMMAND\0", "unintelligible"),
    ] {
        match word(answer.as_bytes()) {
            Err(ScanError::Protocol(text) | ScanError::Reported(text)) => {
                assert!(text.contains(complaint), "{text}")
            }
            other => panic!("{answer:?}: {other:?}"),
        }
    }
    let Err(ScanError::Protocol(text)) = word(&[b"\x1b\xff".as_slice(), &[b'x'; 4000]].concat())
    else {
        panic!();
    };
    assert!(text.len() < 200 && !text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn hears_an_answer_that_comes_before_the_body_is_read() {
    const TOO_LARGE: Act = Act::Say(b"INSTREAM size limit exceeded. ERROR\0");
    const FOUND: Act = Act::Say(b"stream: Early FOUND\0");
    let large = vec![b'x'; LARGE];
    for before in [Act::Hear(1), Act::Hear(1 << 20)] {
        let word = scan(&[before, TOO_LARGE], &large).await;
        assert!(matches!(word, Err(ScanError::TooLarge)), "{word:?}");
        let word = scan(&[before, FOUND, Act::Pause], &large).await;
        assert_eq!(word.unwrap(), Word::Infected("Early".to_owned()));
        let word = scan(&[before, FOUND, Act::Pause, Act::Reset], &large).await;
        assert_eq!(word.unwrap(), Word::Infected("Early".to_owned()));
    }
}

#[tokio::test]
async fn does_not_believe_clean_of_what_was_not_read() {
    let large = vec![b'x'; LARGE];
    for acts in [
        [Act::Hear(1), Act::Say(b"stream: OK\0")].as_slice(),
        &[Act::Hear(1), Act::Say(b"stream: OK\0"), Act::Pause],
        &[
            Act::Hear(1 << 20),
            Act::Say(b"stream: OK\0"),
            Act::Shut,
            Act::Stall,
        ],
    ] {
        match scan(acts, &large).await {
            Err(ScanError::Protocol(text)) => assert!(text.contains("not seen all"), "{text}"),
            other => panic!("{acts:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn hang_up_at_any_point_is_an_error() {
    for size in [100, LARGE] {
        let octets = vec![b'x'; size];
        for acts in [
            [].as_slice(),
            &[Act::Reset],
            &[Act::Hear(10)],
            &[Act::Hear(14), Act::Reset],
            &[Act::Hear(50)],
            &[Act::HearUntil(END)],
            &[Act::HearUntil(END), Act::Reset],
        ] {
            let word = scan(acts, &octets).await;
            assert!(matches!(word, Err(ScanError::Io(_))), "{acts:?}: {word:?}");
        }
        let word = scan(&[Act::HearUntil(END), Act::Say(b"stream: ")], &octets).await;
        assert!(matches!(word, Err(ScanError::Protocol(_))), "{word:?}");
    }
}

#[tokio::test]
async fn answer_without_end_is_cut_off() {
    for size in [100, LARGE] {
        let word = scan(
            &[Act::Hear(10), Act::Repeat(&[b'x'; 1000])],
            &vec![b'x'; size],
        )
        .await;
        match word {
            Err(ScanError::Protocol(text)) => assert_eq!(text, "its answer has no end"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn scan_that_is_given_up_hangs_up() {
    let (address, task) = peer([Act::HearAll]).await;
    let body = hold(b"x").await;
    let clamav = Clamav::new(address);
    let message = message(b"", &body);
    let given_up = timeout(Duration::from_millis(50), clamav.scan(&message)).await;
    assert!(given_up.is_err());
    let heard = timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
    assert!(heard.ends_with(END));
}

#[tokio::test]
async fn ping_takes_no_other_word() {
    for (answer, good) in [
        (b"PONG\0".as_slice(), true),
        (b"PONG", false),
        (b"PONG\0PONG\0", false),
        (b"stream: OK\0", false),
        (b"", false),
    ] {
        let (address, task) = peer([Act::Hear(6), Act::Say(answer)]).await;
        assert_eq!(
            Clamav::new(address).ping().await.is_ok(),
            good,
            "{answer:?}"
        );
        assert_eq!(task.await.unwrap(), b"zPING\0");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let body = hold(b"x").await;
    for text in ["127.0.0.1:1", "unix:/nonexistent/clamd.socket"] {
        use crate::settings::Value;
        let clamav = Clamav::new(ServiceAddress::parse(text).unwrap());
        let word = clamav.scan(&message(b"", &body)).await;
        assert!(matches!(word, Err(ScanError::Io(_))), "{word:?}");
    }
}
