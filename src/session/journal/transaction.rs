//! What the log must know of a mail transaction that the machine no longer has, or
//! never had: who sent it, and the message that has no line yet.

use std::sync::Arc;
use std::time::Instant;

use super::Journal;
use crate::metrics::Outcome;
use crate::session::machine::{Answer, Envelope};
use crate::session::refusal::Refusal;
use crate::smtp::path::ReversePath;

#[derive(Clone)]
pub(super) struct Transaction {
    /// When its MAIL command came.
    pub(super) began: Instant,
    /// Whom that named, taken or not.
    sender: ReversePath,
    /// A message that has begun, with DATA or its first BDAT: whatever breaks it off,
    /// it gets a line.
    message: Option<Message>,
}

#[derive(Clone)]
struct Message {
    envelope: Arc<Envelope>,
    began: Instant,
    octets: u64,
}

impl Journal {
    /// A MAIL command names a sender.
    pub(in crate::session) fn transaction_of(&mut self, sender: &ReversePath) {
        self.transaction = Some(Box::new(Transaction {
            began: Instant::now(),
            sender: sender.clone(),
            message: None,
        }));
    }

    /// What comes now belongs to no MAIL command.
    pub(in crate::session) fn no_transaction(&mut self) {
        self.transaction = None;
    }

    pub(super) fn sender_of_transaction(&self) -> Option<&ReversePath> {
        self.transaction.as_ref().map(|it| &it.sender)
    }

    /// DATA or BDAT came; the first of a message counts.
    pub(in crate::session) fn message_begins(&mut self, envelope: Arc<Envelope>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.message.get_or_insert_with(|| Message {
                envelope,
                began: Instant::now(),
                octets: 0,
            });
        }
    }

    /// So much of the message has come.
    pub(in crate::session) fn message_so_far(&mut self, octets: u64) {
        let transaction = self.transaction.as_mut();
        if let Some(message) = transaction.and_then(|it| it.message.as_mut()) {
            message.octets = octets;
        }
    }

    /// The message has got its line, or has not begun after all.
    pub(in crate::session) fn forget_message(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.message = None;
        }
    }

    /// The transaction is over; `answer` says why, unless the client has gone.
    pub(in crate::session) fn message_over(&mut self, answer: Option<&Answer>) {
        let transaction = self.transaction.as_mut();
        let Some(message) = transaction.and_then(|it| it.message.take()) else {
            return;
        };
        let (outcome, reply) = match answer {
            Some(Answer::Backend(reply)) if matches!(reply.code(), 400..) => {
                (Outcome::RefusedByBackend, Some(self.words(reply)))
            }
            Some(Answer::Refused(refusal)) => (outcome(refusal), Some(self.ours(refusal))),
            // RSET, a hello or QUIT in the place of the rest.
            Some(Answer::Own(_) | Answer::Backend(_)) | None => (Outcome::ClientGone, None),
        };
        let Message {
            envelope,
            began,
            octets,
        } = message;
        self.line_of_message(&envelope, octets, began, reply, outcome);
    }
}

fn outcome(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::BackendGone
        | Refusal::BackendBusy
        | Refusal::BackendTls
        | Refusal::BackendChanged
        | Refusal::BackendNonsense
        | Refusal::SignInLost => Outcome::BackendLost,
        Refusal::TimedOut | Refusal::TooSlow | Refusal::Shed => Outcome::ClientTooSlow,
        Refusal::NoRoom => Outcome::NoRoom,
        _ => Outcome::Refused,
    }
}
