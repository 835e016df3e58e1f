//! What of a journal goes to the last events, besides the log.

use super::super::events::{self, Key, Told};
use super::{Envelope, ForwardPath, Journal, metrics};

impl Journal {
    /// Tells whoever watches of a refusal; `reply` is as the log shows it.
    pub(super) fn note(
        &self,
        reason: &'static str,
        mode: metrics::Mode,
        reply: &str,
        envelope: Option<&Envelope>,
        recipient: Option<&ForwardPath>,
    ) {
        events::get().note(self.key(reason, mode), || Told {
            session: self.id,
            client: self.addresses.ip(self.client.ip()),
            helo: self.helo().map(str::to_owned),
            from: self.sender(envelope),
            to: recipient.map(|recipient| self.to(recipient)),
            reply: reply.to_owned(),
        });
    }

    /// What is refused here, and to whom.
    pub(super) fn key(&self, reason: &'static str, mode: metrics::Mode) -> Key {
        Key {
            client: self.client.ip(),
            at: self.subject,
            reason,
            mode,
        }
    }
}
