//! ClamAV: asks clamd whether a message carries malware (INSTREAM, clamd(8)).
//!
//! One connection per message, as clamd closes it behind its answer. A trace
//! header field goes first, whatever the backend is told: clamd looks for
//! attachments only in what begins like mail, and the first octets would
//! otherwise be the sender's.

use std::io;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::hear::{Said, hear, nonsense, reported};
use super::{Message, ScanError, ServiceAddress};
use crate::policy::content::{Opinion, Scanner, Word};
use crate::settings::clean::Clean;

/// An answer is one short line.
const ANSWER_MAX: u64 = 4 * 1024;

/// What clamd says when a stream is longer than its `StreamMaxLength`.
const TOO_LARGE: &str = "INSTREAM size limit exceeded. ERROR";

/// A clamd.
#[derive(Clone, Debug)]
pub struct Clamav {
    address: ServiceAddress,
}

impl Clamav {
    /// The clamd that listens at `address`. Connects to nothing yet.
    pub fn new(address: ServiceAddress) -> Self {
        Self { address }
    }

    /// Has one message scanned.
    ///
    /// # Errors
    /// When clamd cannot be reached, breaks off or is unintelligible, and
    /// [`ScanError::TooLarge`] when the message is beyond its `StreamMaxLength`.
    pub async fn scan(&self, message: &Message<'_>) -> Result<Opinion, ScanError> {
        let (reader, mut writer) = tokio::io::split(self.address.connect().await?);
        let saying = async {
            writer.write_all(b"zINSTREAM\0").await?;
            write_chunk(&mut writer, Bytes::copy_from_slice(message.hop)).await?;
            let mut body = message.body.reader();
            while let Some(piece) = body.next().await? {
                write_chunk(&mut writer, piece).await?;
            }
            writer.write_all(&0_u32.to_be_bytes()).await?;
            writer.flush().await
        };
        let heard = hear(reader, saying, ANSWER_MAX).await?;
        let word = word(&heard.answer)?;
        if word == Word::Clean && heard.said == Said::Part {
            let what = "calls clean what it has not seen all of";
            return Err(ScanError::Protocol(what.to_owned()));
        }
        Ok(Opinion {
            scanner: Scanner::Clamav,
            word,
            changes: Vec::new(),
        })
    }

    /// Asks whether clamd is there. Returns its answer, `PONG`.
    ///
    /// # Errors
    /// When it cannot be reached or answers anything else.
    pub async fn ping(&self) -> Result<String, ScanError> {
        let (reader, mut writer) = tokio::io::split(self.address.connect().await?);
        let saying = async {
            writer.write_all(b"zPING\0").await?;
            writer.flush().await
        };
        match hear(reader, saying, ANSWER_MAX).await?.answer.as_slice() {
            b"PONG\0" => Ok("PONG".to_owned()),
            other => Err(nonsense("no PONG but", other)),
        }
    }
}

/// A chunk is its length in network byte order, then its octets. One without
/// octets would end the stream.
async fn write_chunk(writer: &mut (impl AsyncWrite + Unpin), octets: Bytes) -> io::Result<()> {
    if octets.is_empty() {
        return Ok(());
    }
    let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
    let length = length.to_be_bytes();
    writer.write_all_buf(&mut length.chain(octets)).await
}

/// Reads `stream: OK`, `stream: <name> FOUND` or `<what> ERROR`, with the NUL
/// that ends the answer to a `z` command. No I/O.
///
/// # Errors
/// When it reports a failure or is unintelligible, and [`ScanError::TooLarge`].
pub fn word(answer: &[u8]) -> Result<Word, ScanError> {
    let Some(line) = answer.strip_suffix(b"\0") else {
        return Err(nonsense("its answer is cut off", answer));
    };
    let line = String::from_utf8_lossy(line);
    if line == TOO_LARGE {
        return Err(ScanError::TooLarge);
    }
    let verdict = line.strip_prefix("stream: ");
    let found = verdict.and_then(|verdict| verdict.strip_suffix(" FOUND"));
    match (verdict, found) {
        (Some("OK"), _) => Ok(Word::Clean),
        (_, Some(name)) if !name.trim().is_empty() => {
            Ok(Word::Infected(Clean(name.trim()).to_string()))
        }
        _ if line.ends_with(" ERROR") => Err(reported(line.as_bytes())),
        _ => Err(nonsense("unintelligible answer", line.as_bytes())),
    }
}

#[cfg(test)]
mod tests;
