//! Bodies that are judged before the backend sees them: kept, weighed, delivered.
//!
//! While a body is kept and weighed the backend waits with the envelope in
//! hand; not an octet of a body that is refused ever reaches it.

use std::time::Instant;

use super::Session;
use super::body::{self, Kept as KeptBody, Pace};
use super::deeds::while_read;
use super::machine::{Event, Spooled, Weighed};
use super::message::{Chunks, Kept, Plan};
use super::refusal::Refusal;
use crate::policy::Mode;
use crate::policy::content::{ContentVerdict, Edits, Judgement, judge_content};
use crate::scan::{Findings, Message};
use crate::smtp::command::Bdat;
use crate::smtp::header::{Fit, Gauge};
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;
use crate::spool;

impl Session<'_> {
    pub(super) async fn spool_body(&mut self, reply: &Reply) -> Event {
        self.journal.replied(reply);
        if let Err(event) = while_read(&self.place, self.client.say_now(reply)).await {
            return event;
        }
        let Some(court) = &self.service.court else {
            return Event::Spooled(Spooled::NoRoom);
        };
        let writer = court.spool.begin();
        self.begin_message();
        let pace = Pace::new(&self.limits, Some(self.place.meter()));
        let kept = body::keep(&mut self.client, writer, &self.limits, pace).await;
        self.spooled(kept)
    }

    pub(super) async fn spool_chunk(&mut self, bdat: Bdat) -> Event {
        let Some(court) = &self.service.court else {
            return Event::Spooled(Spooled::NoRoom);
        };
        let writer = match std::mem::replace(&mut self.kept, Kept::Nothing) {
            Kept::Coming(writer) => *writer,
            Kept::Nothing | Kept::Whole(..) => {
                self.begin_message();
                court.spool.begin()
            }
        };
        let Chunks {
            checker,
            parter,
            pace,
            ..
        } = self.chunks.next();
        let kept = body::keep_chunk(&mut self.client, writer, bdat, checker, parter, pace).await;
        self.chunks.idle = Instant::now();
        self.spooled(kept)
    }

    fn begin_message(&mut self) {
        self.messages = self.messages.saturating_add(1);
        self.chunks = Chunks::new(&self.limits, &self.place);
    }

    fn spooled(&mut self, kept: KeptBody) -> Event {
        let spooled = match kept {
            KeptBody::Whole(body) => {
                self.journal.message_so_far(body.len());
                self.kept = Kept::Whole(Box::new(Plan {
                    body,
                    edits: Edits::default(),
                    new_body: None,
                }));
                Spooled::Kept
            }
            KeptBody::Part(writer) => {
                self.kept = Kept::Coming(Box::new(writer));
                Spooled::Kept
            }
            KeptBody::Lost(spooled, octets) => {
                let octets = self.machine.octets().saturating_add(octets);
                if let Some(envelope) = self.machine.envelope() {
                    self.journal
                        .lost_message(envelope, octets, self.chunks.began, spooled);
                }
                spooled
            }
        };
        Event::Spooled(spooled)
    }

    /// Asks all scanners, and policy what to make of their words.
    pub(super) async fn weigh(&mut self) -> Event {
        let trace = self.trace();
        let hop = self.trace_field();
        let (Some(court), Kept::Whole(plan), Some(hello), Some(envelope)) = (
            &self.service.court,
            &self.kept,
            self.machine.hello(),
            self.machine.envelope(),
        ) else {
            return Event::Gone;
        };
        let body = &plan.body;
        if let Fit::Overlong = fit(body).await {
            let refusal = Refusal::HeaderTooLong;
            match self.service.policy.mode {
                Mode::Enforce => {
                    self.journal
                        .refused_message(envelope, body.len(), self.chunks.began, &refusal);
                    return Event::Weighed(Weighed::Refuse(refusal));
                }
                Mode::Monitor => self.journal.would_refuse(&refusal, Some(envelope), None),
            }
        }
        let sender = match envelope.from() {
            ReversePath::Null => String::new(),
            ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        };
        let recipients: Vec<_> = envelope.recipients.iter().map(address).collect();
        let id = self.message_id();
        let message = Message {
            client: self.client_address().map(|_| self.addresses.0),
            hello: hello.name.as_str(),
            protocol: super::trace::protocol(
                hello,
                envelope,
                self.machine.privacy(),
                self.machine.identity(),
            ),
            user: self
                .machine
                .identity()
                .and_then(|identity| identity.login.as_deref()),
            tls: self.journal.tls(),
            sender: &sender,
            recipients: &recipients,
            id: &id,
            hostname: &self.service.hostname,
            trace: trace.as_bytes(),
            hop: hop.as_bytes(),
            body,
        };
        let began = Instant::now();
        let Findings { opinions, new_body } = court.scanners.scan(&message).await;
        let judgement = judge_content(&court.settings, &opinions);
        self.journal
            .weighed(&id, &opinions, &judgement, began, self.service.policy.mode);
        let Judgement {
            verdict,
            finding,
            edits,
        } = judgement;
        let refusal = match verdict {
            ContentVerdict::Pass | ContentVerdict::Tag => None,
            ContentVerdict::Defer(reply) | ContentVerdict::Refuse(reply) => {
                Some(Refusal::Content {
                    finding: finding
                        .as_ref()
                        .map_or("content", |finding| finding.label()),
                    reply,
                })
            }
        };
        let octets = body.len();
        match (refusal, self.service.policy.mode) {
            (Some(refusal), Mode::Enforce) => {
                self.journal
                    .refused_message(envelope, octets, self.chunks.began, &refusal);
                return Event::Weighed(Weighed::Refuse(refusal));
            }
            (Some(refusal), Mode::Monitor) => self.would_refuse(&refusal),
            (None, _) => {}
        }
        if let Kept::Whole(plan) = &mut self.kept {
            (plan.edits, plan.new_body) = (edits, new_body);
        }
        // It will come again, and must not find that it has been here.
        if self.client.has_left().await {
            return Event::Gone;
        }
        Event::Weighed(Weighed::Pass)
    }

    pub(super) async fn deliver_body(&mut self) -> Event {
        let Kept::Whole(plan) = std::mem::replace(&mut self.kept, Kept::Nothing) else {
            return Event::Gone;
        };
        let trace = self.trace();
        let delivered = body::deliver(&mut self.backend, trace.as_bytes(), *plan).await;
        self.moved(delivered, self.chunks.began)
    }
}

/// Whether what scanners want changed in the message can be changed. Otherwise a
/// sender could save forged fields, and a body that a filter replaces, by a
/// header section beyond reason. A body that cannot be read fails at delivery.
async fn fit(body: &spool::Body) -> Fit {
    let (mut reader, mut gauge) = (body.reader(), Gauge::default());
    while let Ok(Some(piece)) = reader.next().await {
        if let Some(fit) = gauge.measure(&piece) {
            return fit;
        }
    }
    Fit::Editable
}

fn address(path: &ForwardPath) -> String {
    match path {
        ForwardPath::Postmaster => "postmaster".to_owned(),
        ForwardPath::Mailbox { mailbox, .. } => mailbox.to_string(),
    }
}
