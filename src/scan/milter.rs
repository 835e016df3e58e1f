//! Milters: the content filters that Sendmail and Postfix ask, asked the same way.
//!
//! Portcullis speaks version 6 of the protocol, and down to version 2 with
//! filters that know no better. It has no milter crate under it: the one that
//! exists (miltr-client) cannot send macros, caps packets at 64 KiB and panics
//! where a connection should be kept.
//!
//! What differs from a mail server that asks its filters:
//!
//! - Filters are asked once the message is complete, all steps in a row on a
//!   connection of its own. Each filter sees the message as it was received,
//!   without the changes of those before it.
//! - Changes of sender and recipients are not offered. A filter that insists
//!   on them cannot be used: it hangs up at the negotiation. One that makes such
//!   a change all the same, as rspamd may, has failed at that message.
//! - A recipient that a filter refuses has been taken by the backend already.
//!   The message is then refused to all of its recipients with the filter's
//!   reply, for good or for now, so that the sender learns of it.
//! - A discarded message is refused (554 5.7.1): Portcullis swallows nothing.
//! - A quarantined message is not held back: it is tagged.
//! - Our trace header field is hidden from filters and not counted by them, as
//!   Sendmail and Postfix do. The indices of [`Change`]s count it.
//! - The longest packet that libmilter takes is 65535 octets: a header field
//!   beyond that is shown cut off. A header section beyond 1 MiB is refused.
//!
//! [`Change`]: crate::policy::content::Change

mod address;
mod changes;
mod dialogue;
mod fields;
mod macros;
mod new_body;
pub mod packet;
mod refusal;
mod terms;

pub use address::MilterAddress;

use super::{Message, ScanError};
use crate::policy::content::{Opinion, Scanner};
use crate::spool::Body;
use crate::tls::Stream;
use dialogue::Dialogue;

/// One filter.
#[derive(Clone, Debug)]
pub struct Milter {
    address: MilterAddress,
    position: u8,
}

impl Milter {
    /// The filter at `address`, which stands at `position` (from 0) in `MILTERS`.
    pub fn new(address: MilterAddress, position: u8) -> Self {
        Self { address, position }
    }

    /// Where it listens.
    pub fn address(&self) -> &MilterAddress {
        &self.address
    }

    /// How opinions name it.
    pub fn scanner(&self) -> Scanner {
        Scanner::Milter(self.position)
    }

    /// Asks it about a message. Beside its opinion comes the body (CRLF lines) that
    /// it wants in the place of the message's own. The deadline is the caller's.
    ///
    /// # Errors
    /// [`ScanError`] when it is down, does not keep to the protocol, or writes a
    /// body that cannot be held.
    pub async fn scan(&self, message: &Message<'_>) -> Result<(Opinion, Option<Body>), ScanError> {
        self.scan_on(self.address.connect().await?, message).await
    }

    /// Asks it on a connection that is open already and of no use afterwards.
    ///
    /// # Errors
    /// As [`Milter::scan`].
    pub async fn scan_on(
        &self,
        connection: Box<dyn Stream>,
        message: &Message<'_>,
    ) -> Result<(Opinion, Option<Body>), ScanError> {
        let mut dialogue = Dialogue::open(connection).await?;
        let (word, wishes) = dialogue.judge(message).await?;
        dialogue.quit().await;
        let opinion = Opinion {
            scanner: self.scanner(),
            word,
            changes: wishes.changes,
        };
        Ok((opinion, wishes.body))
    }

    /// Whether it is there and content with what is offered; says which version
    /// of the protocol it speaks. The deadline is the caller's.
    ///
    /// # Errors
    /// [`ScanError`] when it is down or does not keep to the protocol.
    pub async fn ping(&self) -> Result<String, ScanError> {
        let dialogue = Dialogue::open(self.address.connect().await?).await?;
        let version = dialogue.version();
        dialogue.quit().await;
        Ok(format!("milter protocol version {version}"))
    }
}
