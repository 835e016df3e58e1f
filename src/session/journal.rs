//! What a session writes into the log: a line for each message, each refusal,
//! and itself.
//!
//! Never a password, never an AUTH line; addresses as `LOG_ADDRESSES` says;
//! the log itself escapes control characters and caps lengths.

mod judged;
mod note;
mod shown;
mod transaction;

use std::net::SocketAddr;
use std::time::Instant;

use super::id::SessionId;
use super::machine::{Answer, Ending, Envelope, Hello, Identity, Moved};
use super::refusal::Refusal;
use super::{Listener, events};
use crate::metrics::{self, Admission, Outcome, Presence};
use crate::settings::LogAddresses;
use crate::smtp::command::Verb;
use crate::smtp::path::ForwardPath;
use crate::smtp::reply::Reply;
use crate::tls::TlsDetails;
use shown::one_line;
use transaction::Transaction;

/// Recipients that one log line names at most.
const RECIPIENTS_SHOWN: usize = 20;

/// Refusals in a row, without a message delivered between them, that have a line
/// of their own; the session's line tells how many there were. What is pipelined
/// costs a client nothing, and a line costs us a few hundred octets.
const LINES_OF_REFUSALS: u32 = 200;

/// The account of one session.
#[derive(Clone)]
pub(super) struct Journal {
    id: SessionId,
    listener: Listener,
    addresses: LogAddresses,
    client: SocketAddr,
    began: Instant,
    tls: Option<TlsDetails>,
    hello: Option<Hello>,
    user: Option<String>,
    /// What the answer to come is about.
    subject: &'static str,
    /// The verb that has had no final reply yet.
    unanswered: Option<&'static str>,
    // In a box, since most sessions that wait have none.
    transaction: Option<Box<Transaction>>,
    commands: u64,
    messages: u64,
    refusals: u64,
    /// Lines of refusals since the last message.
    lines: u32,
    octets: u64,
}

impl Journal {
    pub(super) fn new(
        id: SessionId,
        listener: Listener,
        client: SocketAddr,
        addresses: LogAddresses,
    ) -> Self {
        Self {
            id,
            listener,
            addresses,
            client,
            began: Instant::now(),
            tls: None,
            hello: None,
            user: None,
            subject: "connect",
            unanswered: None,
            transaction: None,
            commands: 0,
            messages: 0,
            refusals: 0,
            lines: 0,
            octets: 0,
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// The client is let in: a session begins, and ends with what is returned.
    #[must_use = "dropped at once, the session would be over"]
    pub(super) fn admitted(&self) -> Presence {
        self.came(Admission::Accepted);
        metrics::get().enter(self.listener.into())
    }

    /// Counts what became of the connection.
    pub(super) fn came(&self, admission: Admission) {
        let connections = &metrics::get().connections;
        connections.of((self.listener.into(), admission)).inc();
    }

    pub(super) fn client_is(&mut self, client: SocketAddr) {
        self.client = client;
    }

    pub(super) fn encrypted(&mut self, tls: &TlsDetails) {
        self.tls = Some(tls.clone());
        self.hello = None;
    }

    pub(super) fn tls(&self) -> Option<&TlsDetails> {
        self.tls.as_ref()
    }

    /// A command came, or something in its place.
    pub(super) fn command(&mut self, verb: Option<Verb>) {
        self.commands = self.commands.saturating_add(1);
        self.subject = verb.map_or("line", Verb::as_str);
        self.unanswered = Some(self.subject);
    }

    /// Counts a reply to the command. After a 3xx another is to come.
    pub(super) fn replied(&mut self, reply: &Reply) {
        let Some(verb) = self.unanswered else { return };
        metrics::get().replied(verb, reply.code());
        if !matches!(reply.code(), 300..=399) {
            self.unanswered = None;
        }
    }

    pub(super) fn knows(&mut self, hello: Option<&Hello>, identity: Option<&Identity>) {
        if self.hello.as_ref() != hello {
            self.hello = hello.cloned();
        }
        if let (None, Some(identity)) = (&self.user, identity) {
            // Some mechanisms show no name.
            self.user = Some(identity.login.clone().unwrap_or_else(|| "?".to_owned()));
        }
    }

    /// Counts an answer, and logs a refusal, ours or the backend's.
    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        envelope: Option<&Envelope>,
        recipient: Option<&ForwardPath>,
    ) {
        match answer {
            Answer::Own(reply) | Answer::Backend(reply) => self.replied(reply),
            Answer::Refused(refusal) => self.replied(&refusal.reply()),
        }
        let (reason, reply) = match answer {
            Answer::Own(_) => return,
            Answer::Backend(reply) if !matches!(reply.code(), 400..) => return,
            Answer::Backend(reply) => ("backend", self.words(reply)),
            Answer::Refused(refusal) => return self.refused(refusal, envelope, recipient),
        };
        self.refusals = self.refusals.saturating_add(1);
        self.line_of_refusal(reason, &reply, envelope, recipient, None);
    }

    /// Logs a refusal of ours.
    pub(super) fn refused(
        &mut self,
        refusal: &Refusal,
        envelope: Option<&Envelope>,
        recipient: Option<&ForwardPath>,
    ) {
        self.refusals = self.refusals.saturating_add(1);
        let reply = self.ours(refusal);
        self.line_of_refusal(refusal.name(), &reply, envelope, recipient, None);
    }

    /// Logs what `MODE=monitor` lets pass.
    pub(super) fn would_refuse(
        &mut self,
        refusal: &Refusal,
        envelope: Option<&Envelope>,
        recipient: Option<&ForwardPath>,
    ) {
        let reply = self.ours(refusal);
        self.line_of_refusal(refusal.name(), &reply, envelope, recipient, Some("refuse"));
    }

    /// Counts a refusal that is not worth a line.
    pub(super) fn refused_silently(&self, refusal: &Refusal, mode: metrics::Mode) {
        metrics::get().refused(self.subject, refusal.name(), mode);
        events::get().again(&self.key(refusal.name(), mode));
    }

    fn line_of_refusal(
        &mut self,
        reason: &'static str,
        reply: &str,
        envelope: Option<&Envelope>,
        recipient: Option<&ForwardPath>,
        would: Option<&str>,
    ) {
        let (what, mode) = match would {
            None => ("refused", metrics::Mode::Enforced),
            Some(_) => ("let pass", metrics::Mode::Would),
        };
        metrics::get().refused(self.subject, reason, mode);
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_OF_REFUSALS {
            return events::get().again(&self.key(reason, mode));
        }
        self.note(reason, mode, reply, envelope, recipient);
        tracing::info!(
            session = %self.id,
            client = %self.client(),
            helo = self.helo(),
            user = self.user(),
            from = self.sender(envelope),
            to = recipient.map(|recipient| self.to(recipient)),
            at = self.subject,
            reason,
            reply,
            would,
            "{what}"
        );
    }

    /// Logs what became of one message.
    pub(super) fn message(
        &mut self,
        envelope: &Envelope,
        octets: u64,
        began: Instant,
        moved: &Moved,
    ) {
        self.forget_message();
        let outcome = match moved {
            Moved::Answered(reply) if matches!(reply.code(), 200..=299) => {
                self.messages = self.messages.saturating_add(1);
                self.lines = 0;
                Outcome::Delivered
            }
            Moved::Answered(_) | Moved::Interrupted(_) => Outcome::RefusedByBackend,
            Moved::Offence(_) | Moved::TooLarge | Moved::Endless => Outcome::Refused,
            Moved::Lost => Outcome::BackendLost,
            Moved::TooSlow => Outcome::ClientTooSlow,
            Moved::Gone | Moved::GoneFrom(_) => Outcome::ClientGone,
        };
        let reply = match moved {
            Moved::Answered(reply) | Moved::Interrupted(reply) => Some(self.words(reply)),
            Moved::Offence(offence) => Some(one_line(&Refusal::Body(*offence).reply())),
            Moved::TooLarge | Moved::Endless => Some(one_line(&Refusal::TooLarge.reply())),
            Moved::Lost => Some(one_line(&Refusal::BackendGone.reply())),
            Moved::TooSlow => Some(one_line(&Refusal::TooSlow.reply())),
            Moved::Gone | Moved::GoneFrom(_) => None,
        };
        self.line_of_message(envelope, octets, began, reply, outcome);
    }

    fn line_of_message(
        &mut self,
        envelope: &Envelope,
        octets: u64,
        began: Instant,
        reply: Option<String>,
        outcome: Outcome,
    ) {
        self.octets = self.octets.saturating_add(octets);
        self.count(outcome, octets, began);
        let shown = envelope
            .recipients
            .iter()
            .take(RECIPIENTS_SHOWN)
            .map(|path| self.to(path));
        tracing::info!(
            session = %self.id,
            client = %self.client(),
            helo = self.helo(),
            user = self.user(),
            tls = self.tls.as_ref().map(|tls| tls.version),
            cipher = self.tls.as_ref().map(|tls| tls.cipher),
            from = self.from(envelope.from()),
            to = shown.collect::<Vec<_>>().join(" "),
            recipients = envelope.recipients.len(),
            octets,
            reply,
            milliseconds = milliseconds(began),
            outcome = outcome.name(),
            "message"
        );
    }

    fn count(&self, outcome: Outcome, octets: u64, began: Instant) {
        let metrics = metrics::get();
        metrics.messages.of(outcome).inc();
        metrics.message_bytes.inc_by(octets);
        metrics.data_seconds.observe(began.elapsed());
        let mail = self.transaction.as_ref().map_or(began, |it| it.began);
        let seconds = metrics.message_seconds.of(outcome);
        seconds.observe(mail.elapsed());
    }

    /// Logs that a client was closed before a session began.
    pub(super) fn cut_off(&self, admission: Admission, reason: &dyn std::fmt::Display) {
        self.came(admission);
        let (name, why) = (admission.name(), reason.to_string());
        self.note(name, metrics::Mode::Enforced, &why, None, None);
        tracing::info!(
            session = %self.id,
            client = %self.client(),
            listener = %self.listener,
            reason = why,
            milliseconds = milliseconds(self.began),
            "closed before a session began"
        );
    }

    /// Logs the session as a whole.
    pub(super) fn ended(&mut self, ending: &Ending, recipient: Option<&ForwardPath>) {
        let how = match ending {
            Ending::Said(Answer::Own(_)) => "quit",
            Ending::Said(Answer::Backend(_)) => "backend",
            Ending::Said(Answer::Refused(refusal)) | Ending::Cut(refusal) => refusal.name(),
            Ending::Gone => "gone",
        };
        match ending {
            Ending::Said(answer) => {
                self.message_over(Some(answer));
                self.answered(answer, None, recipient);
            }
            Ending::Cut(refusal) => {
                // Without a word, so no reply to a command.
                self.unanswered = None;
                let answer = Answer::Refused(refusal.clone());
                self.message_over(Some(&answer));
                self.answered(&answer, None, recipient);
            }
            Ending::Gone => self.message_over(None),
        }
        let seconds = metrics::get().session_seconds.of(self.listener.into());
        seconds.observe(self.began.elapsed());
        tracing::info!(
            session = %self.id,
            client = %self.client(),
            listener = %self.listener,
            helo = self.helo(),
            user = self.user(),
            tls = self.tls.as_ref().map(|tls| tls.version),
            cipher = self.tls.as_ref().map(|tls| tls.cipher),
            commands = self.commands,
            messages = self.messages,
            refusals = self.refusals,
            octets = self.octets,
            milliseconds = milliseconds(self.began),
            end = how,
            "session"
        );
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
