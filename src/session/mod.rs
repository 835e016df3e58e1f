//! One client connection: the product on a page.
//!
//! [`serve`] is a loop: the machine says what to do next, one arm does it, and
//! what came of it goes back to the machine. No rule of the protocol lives
//! here; logging does.

mod admit;
mod body;
mod client;
mod content;
mod deeds;
mod door;
pub mod events;
mod group;
mod id;
mod journal;
mod judge;
pub mod machine;
mod message;
pub mod offer;
pub mod refusal;
mod service;
mod settings;
mod trace;

pub use door::{Arrival, DoorLog, knock};
pub use id::SessionId;
pub use service::{Court, Listener, Service};
pub use settings::{AllowedVerb, BodyLineMax, LineMax, Settings};

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::backend::Conversation;
use crate::limits::{Attempt, Permit, Place};
use crate::metrics::Admission::{Busy, FailedHandshake};
use crate::metrics::Presence;
use crate::policy::Mode;
use crate::smtp::command::Command;
use crate::smtp::path::ForwardPath;
use crate::smtp::reply::Reply;
use admit::{Addresses, Admitted, NotAdmitted, Source, admit};
use body::Limits;
use client::{Client, ClientError, Line, Silence};
use group::Group;
use journal::Journal;
use machine::{Answer, Ending, Event, Machine, Privacy, Step};
use message::{Chunks, Kept};
use refusal::Refusal;

/// Serves one client from its first octet to its last.
pub fn serve(service: Arc<Service>, arrival: Arrival) -> impl Future<Output = ()> + Send {
    // What a future is made with takes up room in it to its end.
    let arrival = Box::new(arrival);
    async move {
        let Some((_presence, mut session)) = welcome(&service, arrival).await else {
            return;
        };
        let ending = session.run().await;
        Box::pin(session.finish(ending)).await;
    }
}

/// Up to the greeting; `None`: there will be none.
async fn welcome(service: &Service, arrival: Box<Arrival>) -> Option<(Presence, Session<'_>)> {
    let Arrival { caller, place } = *arrival;
    let (id, listener) = (SessionId::next(), caller.listener);
    let mut journal = Journal::new(id, listener, caller.peer, service.log_addresses);
    let admitted = tokio::select! {
        biased;
        () = place.called() => None,
        admitted = timeout(
            *service.settings.timeout_handshake,
            Box::pin(admit(service, caller, &mut journal)),
        ) => Some(admitted),
    };
    match admitted {
        Some(Ok(Ok(admitted))) => {
            let presence = journal.admitted();
            let session = Session::new(service, id, listener, admitted, place, journal);
            return Some((presence, session));
        }
        Some(Ok(Err(NotAdmitted::Failed(reason)))) => journal.cut_off(FailedHandshake, &reason),
        Some(Ok(Err(NotAdmitted::TurnedAway))) => {}
        Some(Err(_)) => journal.cut_off(FailedHandshake, &"no handshake in time"),
        None if place.closing() => journal.cut_off(Busy, &"shutting down"),
        None => journal.cut_off(Busy, &"places run out"),
    }
    None
}

/// How long the last reply may take to be written and read.
const FAREWELL: Duration = Duration::from_secs(10);

struct Session<'a> {
    service: &'a Service,
    id: SessionId,
    client: Client,
    addresses: Addresses,
    source: Source,
    place: Place,
    /// Counts the connection out when the session is over.
    _permit: Permit,
    /// The sign-in that the backend is to decide upon.
    attempt: Attempt,
    machine: Machine,
    limits: Limits,
    backend: Option<Conversation>,
    group: Group,
    chunks: Chunks,
    kept: Kept,
    journal: Journal,
    /// The recipient that is being decided upon.
    recipient: Option<ForwardPath>,
    /// Messages begun so far; part of their ids.
    messages: u32,
    /// Errors that the client has been held up for.
    errors: u32,
    /// Refusals in a row.
    refusals: u32,
    /// Messages refused for what stands in them.
    bad_bodies: u32,
    /// Whether a recipient was let pass because the backend knows the client.
    relies_on_introduction: bool,
    /// What the machine had got done when we last looked.
    done: u32,
    /// Whether an offence was met.
    offended: bool,
}

impl<'a> Session<'a> {
    fn new(
        service: &'a Service,
        id: SessionId,
        listener: Listener,
        admitted: Admitted,
        place: Place,
        journal: Journal,
    ) -> Self {
        let rules = service.rules(id, listener);
        let limits = service.body_limits(rules.max_size);
        let chunks = Chunks::new(&limits, &place);
        let privacy = if listener == Listener::Tls {
            Privacy::Encrypted
        } else {
            Privacy::Clear
        };
        Self {
            service,
            id,
            client: admitted.client,
            addresses: admitted.addresses,
            source: admitted.source,
            place,
            _permit: admitted.permit,
            attempt: Attempt::default(),
            machine: Machine::new(rules, privacy),
            limits,
            backend: None,
            group: Group::default(),
            chunks,
            kept: Kept::Nothing,
            journal,
            recipient: None,
            messages: 0,
            errors: 0,
            refusals: 0,
            bad_bodies: 0,
            relies_on_introduction: false,
            done: 0,
            offended: false,
        }
    }

    /// What is rare and large lives in a box while it lasts: a session that waits
    /// for a command, as most do, shall be small.
    async fn run(&mut self) -> Ending {
        let opened = self.open().await;
        let mut step = self.machine.advance(opened);
        loop {
            let challenged = matches!(step, Step::Challenge(_));
            let event = match step {
                Step::Answer(answer) => self.answer(answer).await,
                Step::Listen => self.listen().await,
                Step::Challenge(reply) => self.challenge(&reply).await,
                Step::Upgrade(reply) => Box::pin(self.upgrade(&reply)).await,
                Step::Judge(question) => self.judge(question).await,
                Step::Connect => Box::pin(self.connect()).await,
                Step::Exchange(command) => self.exchange(&command).await,
                Step::ExchangeAuth(line) => self.exchange_auth(&line).await,
                Step::RelayBody(reply) => Box::pin(self.relay_body(&reply)).await,
                Step::RelayChunk(bdat) => Box::pin(self.relay_chunk(bdat)).await,
                Step::SpoolBody(reply) => Box::pin(self.spool_body(&reply)).await,
                Step::SpoolChunk(bdat) => Box::pin(self.spool_chunk(bdat)).await,
                Step::Weigh => Box::pin(self.weigh()).await,
                Step::DeliverBody => Box::pin(self.deliver_body()).await,
                Step::Discard(octets) => Box::pin(self.discard(octets)).await,
                Step::End(ending) => return ending,
            };
            step = self.machine.advance(event);
            if matches!(step, Step::Answer(_) | Step::Challenge(_) | Step::End(_)) {
                // It is the client's turn: others need not wait for it.
                self.attempt = Attempt::default();
            }
            if self.machine.envelope().is_none() {
                self.kept = Kept::Nothing;
                self.relies_on_introduction = false;
            }
            if !self.machine.has_link() {
                // Nobody needs it any more, and it holds a seat.
                self.backend = None;
            }
            if challenged && matches!(step, Step::End(_)) {
                // The backend waits for an AUTH line; a QUIT would be one.
                self.backend = None;
            }
        }
    }

    /// The pause before the greeting (`GREET_DELAY`): who speaks in it has not
    /// read RFC 5321 3.1, as spam engines have not.
    async fn open(&mut self) -> Event {
        let delay = self.service.settings.greet_delay;
        if delay.is_zero() {
            return Event::Opened;
        }
        // It is we who keep the client waiting.
        self.place.works();
        match self.client.silence(delay).await {
            Silence::Kept => Event::Opened,
            Silence::Broken if self.service.policy.mode == Mode::Monitor => {
                self.would_refuse(&Refusal::EarlyTalker);
                Event::Opened
            }
            Silence::Broken => Event::SpokeFirst,
            Silence::Gone => Event::Gone,
        }
    }

    async fn finish(&mut self, ending: Ending) {
        self.count_offence(&ending);
        // First the backend: a client that does not read must not hold it.
        let goodbye = self.backend.take().map(Conversation::quit);
        let farewell = async {
            if let Ending::Said(answer) = &ending {
                let _ = self.client.say(&self.reply(answer.clone())).await;
                self.client.close_gently().await;
            }
        };
        let farewell = timeout(FAREWELL, farewell);
        match goodbye {
            Some(goodbye) => drop(tokio::join!(goodbye, farewell)),
            None => drop(farewell.await),
        }
        self.journal.ended(&ending, self.recipient.take().as_ref());
    }

    async fn answer(&mut self, answer: Answer) -> Event {
        self.journal
            .knows(self.machine.hello(), self.machine.identity());
        self.note_what_came_of_it(&answer);
        self.journal.answered(
            &answer,
            self.machine.envelope(),
            self.recipient.take().as_ref(),
        );
        if !self.machine.in_transaction() {
            self.journal.no_transaction();
        }
        // Commands pipelined behind it hear the same, and are no errors.
        if let Answer::Refused(Refusal::Body(_)) = answer
            && self.machine.errors() > self.errors
        {
            self.bad_bodies = self.bad_bodies.saturating_add(1);
        }
        self.offended |= matches!(&answer, Answer::Refused(refusal) if refusal.is_offence());
        if self.machine.done() > self.done {
            self.done = self.machine.done();
            self.place.done();
        }
        if let Err(event) = self.hold_up(&answer).await {
            return event;
        }
        let reply = self.reply(answer);
        // Who does not read keeps us waiting too.
        self.place.waits();
        let said = tokio::select! {
            biased;
            said = self.client.say(&reply) => said,
            () = self.place.must_leave() => return Event::MustLeave,
        };
        self.place.works();
        match said {
            Ok(()) => self.listen().await,
            Err(error) => trouble(&error),
        }
    }

    /// Why the client was called.
    fn summons(&self) -> Event {
        if self.place.closing() {
            Event::Draining
        } else {
            Event::MustLeave
        }
    }

    /// Every refusal carries the session's id, so that a bounce leads to the log.
    fn reply(&self, answer: Answer) -> Reply {
        let mut reply = match answer {
            Answer::Own(reply) | Answer::Backend(reply) => reply,
            Answer::Refused(refusal) => refusal.reply(),
        };
        if matches!(reply.code(), 400..) {
            reply.append(&format!(" [{}]", self.id));
        }
        reply
    }

    async fn listen(&mut self) -> Event {
        if self.place.closing() && self.machine.at_rest() {
            return Event::Draining;
        }
        let line = match self.client.command_here() {
            Some(line) => line,
            None => match self.await_line().await {
                Ok(line) => line,
                Err(event) => return event,
            },
        };
        match line.says {
            Err(offence) => {
                self.journal.command(None);
                Event::Offence(offence)
            }
            Ok(command) => {
                self.journal
                    .command(command.as_ref().ok().map(Command::verb));
                if let Ok(command) = &command {
                    self.note_whose_mail(command);
                }
                Event::Command(command, line.behind)
            }
        }
    }

    /// Keeps the place only as long as nobody needs it more.
    ///
    /// # Errors
    /// What happened instead.
    async fn await_line(&mut self) -> Result<Line<Command>, Event> {
        let command = *self.service.settings.timeout_command;
        let in_chunks = self.machine.awaits_chunk();
        // One command's time, and twice that for all of them up to something done. A
        // message that comes in chunks has its own clock.
        let patience = if in_chunks {
            self.place.waits_in_body();
            command
        } else {
            let in_all = command.saturating_mul(2);
            let patience = command.min(in_all.saturating_sub(self.place.idled()));
            self.place.waits();
            patience
        };
        let line = loop {
            self.client.set_patience(match in_chunks {
                true => patience.min(self.chunks.patience()),
                false => patience,
            });
            tokio::select! {
                biased;
                line = self.client.command() => break line,
                () = self.place.called() => {}
            }
            if !self.place.closing() {
                return Err(Event::MustLeave);
            }
            if self.machine.at_rest() {
                return Err(Event::Draining);
            }
        };
        self.place.works();
        line.map_err(|error| trouble(&error))
    }
}

fn trouble(error: &ClientError) -> Event {
    match error {
        ClientError::TimedOut => Event::TimedOut,
        ClientError::Gone(_) | ClientError::Closed => Event::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, B, R>(_function: impl FnOnce(A, B) -> R) -> usize {
        size_of::<R>()
    }

    /// Thousands of sessions wait at any time: whatever is large and rare belongs into
    /// a box, and what is moved must not keep its old place.
    #[test]
    fn a_session_is_small() {
        let size = size_of_result(serve);
        assert!(size <= 2800, "{size} octets");
    }
}
