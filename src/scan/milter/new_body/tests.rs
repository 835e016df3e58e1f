//! Which new bodies are kept, and as what.

use super::*;
use crate::spool::{Settings, Spool, SpoolError};

async fn message(content: &[u8]) -> Body {
    let mut writer = Spool::new(&Settings::default()).unwrap().begin();
    writer.write(content).await.unwrap();
    writer.finish().await.unwrap()
}

async fn kept(pieces: &[&[u8]]) -> Result<Vec<u8>, ScanError> {
    let mut new = NewBody::begin(&message(b"old").await);
    for piece in pieces {
        new.write(piece).await?;
    }
    let (mut reader, mut kept) = (new.finish().await?.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        kept.extend_from_slice(&piece);
    }
    Ok(kept)
}

#[tokio::test]
async fn has_crlf_lines_only() {
    for (pieces, strict) in [
        (&[b"".as_slice()][..], ""),
        (&[b"a", b"b"], "ab\r\n"),
        (&[b"a\r", b"\nb\r", b"c\n"], "a\r\nb\r\nc\r\n"),
        // A line end that stands alone would be a smuggled end of message.
        (&[b"a\n.\nb\r.\r"], "a\r\n.\r\nb\r\n.\r\n"),
    ] {
        let kept = kept(pieces).await.unwrap();
        assert_eq!(kept, strict.as_bytes(), "{pieces:?}");
    }
}

#[tokio::test]
async fn one_that_cannot_be_sent_is_no_reason_to_pass_the_old_one() {
    let error = kept(&[b"a", b"b\0"]).await.unwrap_err();
    assert!(matches!(error, ScanError::Reported(_)), "{error}");
}

#[tokio::test]
async fn may_be_so_much_longer_than_the_message_and_no_more() {
    let mut new = NewBody::begin(&message(b"old").await);
    let line = [b"x".repeat(1024 * 1024 - 2).as_slice(), b"\r\n"].concat();
    for _ in 0..GROWTH_MAX / 1024 / 1024 {
        new.write(&line).await.unwrap();
    }
    new.write(b"a\n").await.unwrap();
    assert!(matches!(new.write(b"b").await, Err(ScanError::Reported(_))));
}

/// Its room is that of all bodies: memory first, then disk, then none.
#[tokio::test]
async fn takes_up_room_of_the_spool_and_gives_it_back() {
    let spool = Spool::new(&Settings {
        spool_memory: crate::settings::Size(8 * 1024),
        spool_buffer: crate::settings::Size(4 * 1024),
        spool_disk: crate::settings::Size(64 * 1024),
        ..Settings::default()
    })
    .unwrap();
    let mut writer = spool.begin();
    writer.write(b"old").await.unwrap();
    let message = writer.finish().await.unwrap();
    let own = spool.memory_used();

    let mut new = NewBody::begin(&message);
    new.write(&b"line\n".repeat(10_000)).await.unwrap();
    let body = new.finish().await.unwrap();
    assert_eq!(body.len(), 60_000);
    assert_eq!(spool.disk_used(), 60_000);
    drop(body);
    assert_eq!((spool.memory_used(), spool.disk_used()), (own, 0));

    let mut new = NewBody::begin(&message);
    let long = b"line\n".repeat(20_000);
    let error = new.write(&long).await.unwrap_err();
    assert!(
        matches!(error, ScanError::Spool(SpoolError::Full)),
        "{error}"
    );
    assert_eq!((spool.memory_used(), spool.disk_used()), (own, 0));
}
