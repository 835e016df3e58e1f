//! The body that a filter writes in the place of the message's own.
//!
//! It comes piece by piece and is kept where the message is: bounded memory,
//! then disk. Must never keep what cannot be sent: lines that do not end in
//! CRLF, or a NUL.

use memchr::memchr;

use crate::scan::ScanError;
use crate::smtp::newline::Newlines;
use crate::spool::{Body, Writer};

/// How many octets longer than the whole message it may be.
const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// A body that is coming.
#[derive(Debug)]
pub(super) struct NewBody {
    writer: Writer,
    newlines: Newlines,
    /// Octets that may still come.
    room: u64,
}

impl NewBody {
    /// Begins one in the place of the body of `message`.
    pub(super) fn begin(message: &Body) -> Self {
        Self {
            writer: message.begin_another(),
            newlines: Newlines::default(),
            room: message.len().saturating_add(GROWTH_MAX),
        }
    }

    /// Takes the next octets in.
    ///
    /// # Errors
    /// When they cannot be sent or kept: the old body must not pass in its place.
    pub(super) async fn write(&mut self, piece: &[u8]) -> Result<(), ScanError> {
        if memchr(0, piece).is_some() {
            return Err(ScanError::Reported("the new body holds a NUL".to_owned()));
        }
        let mut lines = Vec::with_capacity(piece.len());
        self.newlines.convert(piece, &mut lines);
        self.keep(&lines).await
    }

    /// All of it, when the filter has decided.
    ///
    /// # Errors
    /// As [`NewBody::write`].
    pub(super) async fn finish(mut self) -> Result<Body, ScanError> {
        let mut end = Vec::new();
        std::mem::take(&mut self.newlines).finish(&mut end);
        self.keep(&end).await?;
        self.writer.finish().await.map_err(ScanError::Spool)
    }

    async fn keep(&mut self, lines: &[u8]) -> Result<(), ScanError> {
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.room = self
            .room
            .checked_sub(length)
            .ok_or_else(|| ScanError::Reported("new body too long".to_owned()))?;
        self.writer.write(lines).await.map_err(ScanError::Spool)
    }
}

#[cfg(test)]
mod tests;
