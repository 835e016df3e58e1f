//! One request and its answer on a fresh connection that the other side closes
//! behind it. The answer is heard even while the request is still being
//! written: a scanner that has seen enough says so and hangs up.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::ScanError;
use crate::settings::clean::Clean;

/// How long one half of an exchange may still take once the other is over. An
/// answer has been sent before the hang-up, so it is here or never; a request
/// that is answered is written by now, or will not be taken.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Longest piece of an unexpected answer that is repeated, in characters.
const QUOTE_MAX: usize = 80;

/// An answer, and what it is an answer to.
#[derive(Debug)]
pub(super) struct Heard {
    /// Never empty.
    pub(super) answer: Vec<u8>,
    /// How much of the request there was to judge by.
    pub(super) said: Said,
}

/// How much of a request was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// All of it.
    Whole,
    /// The other side did not take the rest.
    Part,
}

/// Says the request and returns the answer, whichever is done first.
///
/// # Errors
/// When the connection broke before an answer, and when the answer has more
/// than `limit` octets.
pub(super) async fn hear(
    reader: impl AsyncRead + Unpin,
    saying: impl Future<Output = io::Result<()>>,
    limit: u64,
) -> Result<Heard, ScanError> {
    let hearing = answer(reader, limit);
    tokio::pin!(saying, hearing);
    tokio::select! {
        biased;
        said = &mut saying => match said {
            Ok(()) => Ok(Heard { answer: hearing.await?, said: Said::Whole }),
            Err(error) => match timeout(LAST_WORD, hearing).await {
                Ok(Ok(answer)) => Ok(Heard { answer, said: Said::Part }),
                _ => Err(error.into()),
            },
        },
        heard = &mut hearing => {
            let answer = heard?;
            let said = match timeout(LAST_WORD, saying).await {
                Ok(Ok(())) => Said::Whole,
                _ => Said::Part,
            };
            Ok(Heard { answer, said })
        }
    }
}

/// Everything up to the other side's end, which is never nothing.
async fn answer(reader: impl AsyncRead + Unpin, limit: u64) -> Result<Vec<u8>, ScanError> {
    let mut answer = Vec::new();
    let mut reader = reader.take(limit.saturating_add(1));
    let ended = reader.read_to_end(&mut answer).await;
    if reader.limit() == 0 {
        return Err(ScanError::Protocol("its answer has no end".to_owned()));
    }
    match ended {
        // Behind an answer a reset is only a rude goodbye; whether the answer
        // is whole its reader can tell.
        Ok(_) | Err(_) if !answer.is_empty() => Ok(answer),
        Ok(_) => Err(ScanError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed without an answer",
        ))),
        Err(error) => Err(error.into()),
    }
}

/// An error that shows the beginning of what came instead of an answer.
pub(super) fn nonsense(what: &str, answer: &[u8]) -> ScanError {
    ScanError::Protocol(quoted(what, answer))
}

/// An error for an answer that says that the scanner failed.
pub(super) fn reported(answer: &[u8]) -> ScanError {
    ScanError::Reported(quoted("reports", answer))
}

fn quoted(what: &str, answer: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(answer)
        .chars()
        .take(QUOTE_MAX)
        .collect();
    format!("{what}: {}", Clean(text.trim_end()))
}

#[cfg(test)]
pub(super) mod scripted;
#[cfg(test)]
mod tests;
