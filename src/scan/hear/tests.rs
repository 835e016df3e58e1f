//! What counts as an answer.

use tokio::io::{AsyncWriteExt, duplex};
use tokio::time::Instant;

use super::*;

async fn said() -> io::Result<()> {
    Ok(())
}

#[tokio::test]
async fn answer_may_fill_its_limit_and_not_more() {
    for (length, limit, fits) in [(1, 1, true), (9, 10, true), (10, 10, true), (11, 10, false)] {
        let (mut scanner, reader) = duplex(64);
        scanner.write_all(&vec![b'x'; length]).await.unwrap();
        drop(scanner);
        assert_eq!(hear(reader, said(), limit).await.is_ok(), fits, "{length}");
    }
}

#[tokio::test]
async fn end_without_an_answer_is_an_error() {
    let (scanner, reader) = duplex(64);
    drop(scanner);
    let heard = hear(reader, said(), 10).await;
    assert!(matches!(heard, Err(ScanError::Io(_))), "{heard:?}");
}

/// Such as a body whose file cannot be read: the scanner waits for more of it.
#[tokio::test(start_paused = true)]
async fn request_that_cannot_be_said_is_not_waited_for_long() {
    let (_scanner, reader) = duplex(64);
    let began = Instant::now();
    let unsayable = async { Err(io::Error::other("unreadable")) };
    let heard = hear(reader, unsayable, 10).await;
    assert_eq!(heard.unwrap_err().to_string(), "unreadable");
    assert!(began.elapsed() <= LAST_WORD);
}

#[tokio::test(start_paused = true)]
async fn answer_counts_although_the_request_could_not_be_said() {
    let (mut scanner, reader) = duplex(64);
    scanner.write_all(b"too large").await.unwrap();
    drop(scanner);
    let unsayable = async { Err(io::ErrorKind::BrokenPipe.into()) };
    let heard = hear(reader, unsayable, 10).await.unwrap();
    assert_eq!(heard.answer, b"too large");
    assert_eq!(heard.said, Said::Part);
}

#[test]
fn quotes_little_and_cleanly() {
    let error = nonsense(
        "what",
        &[b"\x1b[2J\r\n\0\xff".as_slice(), &[b'x'; 5000]].concat(),
    );
    let text = error.to_string();
    assert!(
        text.starts_with("what: \\u{1b}[2J\\r\\n\\u{0}\u{fffd}x"),
        "{text}"
    );
    assert!(text.len() < 150, "{text}");
}
