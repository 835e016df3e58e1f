//! What the client's side of the wire holds back, looks at before its turn, and never
//! loses.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::smtp::command::Verb;

fn client(input: &str) -> Client {
    let mut client = Client::new(Box::new(tokio::io::empty()), 1000, Duration::from_secs(1));
    client.input.extend_from_slice(input.as_bytes());
    client
}

fn verb(line: Line<Command>) -> (Result<Verb, ()>, Behind) {
    let command = line.says.map_err(drop).and_then(|says| says.map_err(drop));
    (command.map(|command| command.verb()), line.behind)
}

#[test]
fn commands_looked_at_come_in_their_turn_and_once() {
    let mut client = client("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nNO");
    assert_eq!(
        client.command_here().map(verb),
        Some((Ok(Verb::Mail), Behind::Octets))
    );
    let looked_at = |client: &mut Client, nth| {
        let (command, behind) = client.upcoming(nth)?;
        Some((command.verb(), behind))
    };
    for _ in 0..2 {
        assert_eq!(
            looked_at(&mut client, 0),
            Some((Verb::Rcpt, Behind::Octets))
        );
        assert_eq!(
            looked_at(&mut client, 1),
            Some((Verb::Data, Behind::Octets))
        );
        assert_eq!(looked_at(&mut client, 2), None);
    }
    client.input.extend_from_slice(b"OP\r\n");
    for expected in [
        (Ok(Verb::Rcpt), Behind::Octets),
        (Ok(Verb::Data), Behind::Octets),
        (Ok(Verb::Noop), Behind::Nothing),
    ] {
        assert_eq!(client.command_here().map(verb), Some(expected));
    }
    assert!(client.command_here().is_none());
}

/// Keeps what is written until it is flushed, and cannot flush while its socket is
/// full, as it is with TLS.
#[derive(Default)]
struct Reluctant {
    kept: Vec<u8>,
    free: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Reluctant {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Reluctant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.free.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let kept = std::mem::take(&mut self.kept);
        self.sent.lock().unwrap().extend(kept);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_flush_that_was_dropped_is_made_up_for() {
    let stream = Reluctant::default();
    let (free, sent) = (Arc::clone(&stream.free), Arc::clone(&stream.sent));
    let mut client = Client::new(Box::new(stream), 1000, Duration::from_secs(1));
    client.say(&Reply::new(250, None, "OK")).await.unwrap();
    tokio::select! {
        biased;
        _ = client.flush() => panic!("it waits"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(*sent.lock().unwrap(), b"");
    free.store(true, Ordering::Relaxed);
    client.flush().await.unwrap();
    assert_eq!(*sent.lock().unwrap(), b"250 OK\r\n");
}

#[test]
fn what_is_no_command_ends_the_look_ahead_and_is_still_heard() {
    let mut client = client("RCPT TO:<c@d.test>\r\nbare\nNOOP\r\nRSET\r\n");
    assert!(client.upcoming(0).is_some());
    assert!(client.upcoming(1).is_none());
    assert_eq!(
        client.command_here().map(verb),
        Some((Ok(Verb::Rcpt), Behind::Octets))
    );
    let heard = client.command_here().map(|line| line.says.map(drop));
    assert_eq!(heard, Some(Err(LineOffence::BareLf)));
}

#[test]
fn no_more_than_so_many_are_looked_at() {
    let lines = LOOK_AHEAD / "NOOP AB\r\n".len();
    let mut client = client(&"NOOP AB\r\n".repeat(2 * lines));
    for _ in 0..2 {
        let seen = (0..).take_while(|nth| client.upcoming(*nth).is_some());
        assert_eq!(seen.count(), lines + 1);
        let heard = std::iter::from_fn(|| client.command_here()).take(lines + 1);
        assert_eq!(heard.count(), lines + 1);
        client
            .input
            .extend_from_slice("NOOP AB\r\n".repeat(lines + 5).as_bytes());
    }
}
