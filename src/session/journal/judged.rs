//! What the log says of messages that scanners have judged, or could not.

use std::time::Instant;

use super::shown::one_line;
use super::{Journal, milliseconds};
use crate::metrics::Outcome;
use crate::policy::Mode;
use crate::policy::content::{ContentVerdict, Judgement, Opinion};
use crate::session::machine::{Envelope, Spooled};
use crate::session::refusal::Refusal;
use crate::settings::LogAddresses;

impl Journal {
    /// Logs what scanners said of a message, and what comes of it.
    pub(in crate::session) fn weighed(
        &self,
        id: &str,
        opinions: &[Opinion],
        judgement: &Judgement,
        began: Instant,
        mode: Mode,
    ) {
        // A scanner's own words may name a mailbox.
        let full = self.addresses == LogAddresses::Full;
        let said: Vec<_> = opinions
            .iter()
            .map(|opinion| match full {
                true => opinion.to_string(),
                false => opinion.brief(),
            })
            .collect();
        let finding = judgement.finding.as_ref().map(|finding| match full {
            true => finding.to_string(),
            false => finding.label().to_owned(),
        });
        let (verdict, refused) = match judgement.verdict {
            ContentVerdict::Pass => ("pass", false),
            ContentVerdict::Tag => ("tag", false),
            ContentVerdict::Defer(_) => ("defer", true),
            ContentVerdict::Refuse(_) => ("refuse", true),
        };
        tracing::info!(
            session = %self.id,
            id,
            said = said.join("; "),
            finding,
            verdict,
            would = (refused && mode == Mode::Monitor).then_some("refuse"),
            milliseconds = milliseconds(began),
            "scanned"
        );
    }

    /// Logs a message that was refused for its content.
    pub(in crate::session) fn refused_message(
        &mut self,
        envelope: &Envelope,
        octets: u64,
        began: Instant,
        refusal: &Refusal,
    ) {
        self.forget_message();
        let reply = Some(self.ours(refusal));
        self.line_of_message(envelope, octets, began, reply, Outcome::Refused);
    }

    /// Logs a message that could not be kept for the scanners.
    pub(in crate::session) fn lost_message(
        &mut self,
        envelope: &Envelope,
        octets: u64,
        began: Instant,
        spooled: Spooled,
    ) {
        self.forget_message();
        let (outcome, refusal) = match spooled {
            Spooled::Kept => return,
            Spooled::Offence(offence) => (Outcome::Refused, Some(Refusal::Body(offence))),
            Spooled::TooLarge | Spooled::Endless => (Outcome::Refused, Some(Refusal::TooLarge)),
            Spooled::NoRoom => (Outcome::NoRoom, Some(Refusal::NoRoom)),
            Spooled::TooSlow => (Outcome::ClientTooSlow, Some(Refusal::TooSlow)),
            Spooled::Gone | Spooled::GoneFrom(_) => (Outcome::ClientGone, None),
        };
        let reply = refusal.map(|refusal| one_line(&refusal.reply()));
        self.line_of_message(envelope, octets, began, reply, outcome);
    }
}
