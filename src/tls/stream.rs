//! A byte stream, encrypted or not, that nobody above needs to tell apart.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Anything that octets can be read from and written to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Octets that [`read_some`] reads at a time into a buffer with less room.
const READ: usize = 2048;

/// Reads what there is to the end of `input`; returns how many octets came, 0 at the
/// end of the stream. May be dropped without loss.
///
/// Where `input` is small the octets take the way over the stack: a connection on
/// which nothing comes holds no buffer.
///
/// # Errors
/// Those of the stream.
pub async fn read_some(stream: &mut dyn Stream, input: &mut BytesMut) -> io::Result<usize> {
    if input.capacity().saturating_sub(input.len()) >= READ {
        return stream.read_buf(input).await;
    }
    if input.is_empty() {
        *input = BytesMut::new();
    }
    poll_fn(|context| {
        let mut octets = [MaybeUninit::uninit(); READ];
        let mut octets = ReadBuf::uninit(&mut octets);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut octets))?;
        input.extend_from_slice(octets.filled());
        Poll::Ready(Ok(octets.filled().len()))
    })
    .await
}

/// Gives work so much time, as tokio's `timeout` does, but asks neither a clock nor a
/// timer where it is done at once, as to write mostly is.
///
/// # Errors
/// The time is over.
pub async fn within<F: Future>(patience: Duration, work: F) -> Result<F::Output, Elapsed> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = std::future::ready(()) => {}
    }
    timeout(patience, work).await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn reads_into_small_and_large_buffers_and_keeps_none_empty() {
        let (mut near, mut far) = tokio::io::duplex(10_000);
        let sent: Vec<u8> = (0..=255).cycle().take(9_000).collect();
        far.write_all(&sent).await.unwrap();
        let mut input = BytesMut::new();
        assert_eq!(read_some(&mut near, &mut input).await.unwrap(), READ);
        input.reserve(3 * READ);
        while input.len() < sent.len() {
            assert!(read_some(&mut near, &mut input).await.unwrap() > 0);
        }
        assert_eq!(input, sent);
        drop(far);
        assert_eq!(read_some(&mut near, &mut input).await.unwrap(), 0);
        input = BytesMut::with_capacity(READ / 2);
        assert_eq!(read_some(&mut near, &mut input).await.unwrap(), 0);
        assert_eq!(input.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_so_much_time_and_no_more() {
        let second = Duration::from_secs(1);
        let (at_once, later) = (std::future::ready(1), tokio::time::sleep(second / 2));
        assert_eq!(within(Duration::ZERO, at_once).await, Ok(1));
        assert_eq!(within(second, later).await, Ok(()));
        let never = std::future::pending::<()>();
        assert!(within(second, never).await.is_err());
    }
}
