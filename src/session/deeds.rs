//! What the loop does when the machine asks for more than a reply: challenge,
//! upgrade, connect, relay.

use std::time::Instant;

use time::OffsetDateTime;
use tokio::time::timeout;

use super::admit::Source;
use super::body::{self, Pace, Relayed};
use super::client::{ClientError, Line};
use super::machine::{self, Answer, Event, Link, Moved, Protocol, Relogin, Unavailable};
use super::{Chunks, Session, trace, trouble};
use crate::backend::{self, Dialect, Introduction, Lost, OpenError};
use crate::limits::Place;
use crate::smtp::command::{AuthLine, Bdat, Command};
use crate::smtp::reply::Reply;

/// Writes to a client, as a reply to a command is: who does not read keeps us waiting
/// too.
///
/// # Errors
/// What happened instead.
pub(super) async fn while_read(
    place: &Place,
    written: impl Future<Output = Result<(), ClientError>>,
) -> Result<(), Event> {
    place.waits();
    let written = tokio::select! {
        biased;
        written = written => written,
        () = place.must_leave() => return Err(Event::MustLeave),
    };
    place.works();
    written.map_err(|error| trouble(&error))
}

impl Session<'_> {
    pub(super) async fn challenge(&mut self, reply: &Reply) -> Event {
        self.journal.replied(reply);
        if let Err(event) = Box::pin(while_read(&self.place, self.client.say(reply))).await {
            return event;
        }
        self.place.waits();
        let line = tokio::select! {
            biased;
            line = self.client.auth_line() => line,
            () = self.place.called() => return self.summons(),
        };
        self.place.works();
        match line {
            Err(error) => trouble(&error),
            Ok(Line {
                says: Err(offence), ..
            }) => Event::Offence(offence),
            Ok(Line {
                says: Ok(line),
                behind,
            }) => Event::AuthLine(line, behind),
        }
    }

    pub(super) async fn upgrade(&mut self, reply: &Reply) -> Event {
        self.journal.replied(reply);
        // RFC 3207 4.2: the backend must not remember the client either.
        if let Some(conversation) = self.backend.take() {
            tokio::spawn(conversation.quit());
        }
        if let Err(event) = while_read(&self.place, self.client.say_now(reply)).await {
            return event;
        }
        let handshake = timeout(
            *self.service.settings.timeout_handshake,
            self.client.upgrade(&self.service.tls),
        );
        self.place.waits();
        let upgraded = tokio::select! {
            biased;
            upgraded = handshake => upgraded,
            () = self.place.called() => return self.summons(),
        };
        self.place.works();
        match upgraded {
            Ok(Ok(tls)) => {
                self.journal.encrypted(&tls);
                Event::Upgraded
            }
            Ok(Err(error)) => {
                tracing::info!(session = %self.id, %error, "STARTTLS failed");
                Event::Gone
            }
            Err(_) => {
                tracing::info!(session = %self.id, "STARTTLS took too long");
                Event::Gone
            }
        }
    }

    pub(super) async fn connect(&mut self) -> Event {
        let Some(hello) = self.machine.hello() else {
            return Event::Connected(Err(Unavailable::Gone));
        };
        let client = backend::Client {
            ends: match self.source {
                Source::Client => Some(self.addresses),
                Source::Balancer => None,
            },
            hello: hello.name.clone(),
            protocol: match hello.protocol {
                Protocol::Smtp => Dialect::Smtp,
                Protocol::Esmtp => Dialect::Esmtp,
            },
            login: self
                .machine
                .identity()
                .and_then(|identity| identity.login.clone()),
        };
        // What is left of a connection that is of no more use holds a seat.
        self.backend = None;
        let (limits, address) = (&self.service.limits, self.addresses.0.ip());
        let networks = match self.source {
            Source::Client => limits.networks(address),
            // What is allowed to the balancer is not to whom it does not name.
            Source::Balancer => limits.networks_of_all(address),
        };
        let Some(seat) = self.place.sit(&self.service.seats, &networks).await else {
            // The refusal is logged, in a flood not each.
            tracing::debug!(session = %self.id, "BACKEND_CONN_MAX connections to the backend are in use");
            return Event::Connected(Err(Unavailable::Busy));
        };
        match self.service.backend.open(&client).await {
            Ok(mut conversation) => {
                conversation.hold(Box::new(seat));
                let relogin = if conversation.takes_login {
                    Relogin::Possible
                } else {
                    Relogin::Impossible
                };
                let link = Link {
                    keywords: conversation.keywords.clone(),
                    relogin,
                };
                self.backend = Some(conversation);
                if self.relies_on_introduction && !self.backend_knows_the_client() {
                    // It would take everybody for the proxy, and relay.
                    return Event::Connected(Err(Unavailable::Gone));
                }
                Event::Connected(Ok(link))
            }
            Err(OpenError::Refused(reply) | OpenError::Closing(reply)) => {
                Event::Connected(Err(Unavailable::Refused(reply)))
            }
            Err(error) => {
                let said = error.words().map(|reply| self.journal.words(reply));
                let why = error.without_words();
                tracing::warn!(session = %self.id, error = why, said, "no backend for this session");
                Event::Connected(Err(if error.is_tls() {
                    Unavailable::Tls
                } else {
                    Unavailable::Gone
                }))
            }
        }
    }

    pub(super) async fn exchange_auth(&mut self, line: &AuthLine) -> Event {
        let answered = match &mut self.backend {
            Some(conversation) => conversation.exchange_auth(line).await,
            None => Err(Lost::Closed),
        };
        self.answered(answered)
    }

    pub(super) fn answered(&mut self, answered: Result<Reply, Lost>) -> Event {
        Event::Answered(answered.map_err(|error| {
            tracing::info!(session = %self.id, %error, "backend lost");
            self.backend = None;
            machine::Lost
        }))
    }

    pub(super) async fn relay_body(&mut self, reply: &Reply) -> Event {
        self.journal.replied(reply);
        if let Err(event) = while_read(&self.place, self.client.say_now(reply)).await {
            self.backend = None;
            return event;
        }
        let began = Instant::now();
        self.messages = self.messages.saturating_add(1);
        let trace = self.trace();
        let relayed = body::relay(
            &mut self.client,
            &mut self.backend,
            &self.limits,
            Pace::new(&self.limits, Some(self.place.meter())),
            trace.as_bytes(),
        )
        .await;
        self.moved(relayed, began)
    }

    pub(super) async fn relay_chunk(&mut self, bdat: Bdat) -> Event {
        if self.machine.is_first_chunk() {
            self.messages = self.messages.saturating_add(1);
            self.chunks = Chunks::new(&self.limits, &self.place);
        }
        // What follows the trace must be known, and of an empty chunk it is not.
        let trace = if self.chunks.is_traced || (bdat.size == 0 && !bdat.last) {
            String::new()
        } else {
            self.chunks.is_traced = true;
            self.trace()
        };
        let Chunks { checker, pace, .. } = self.chunks.next();
        let relayed = body::relay_chunk(
            &mut self.client,
            &mut self.backend,
            bdat,
            checker,
            pace,
            trace.as_bytes(),
        )
        .await;
        self.chunks.idle = Instant::now();
        match relayed.moved {
            Moved::Answered(ref reply) if !bdat.last && matches!(reply.code(), 200..=299) => {
                Event::Moved(relayed.moved)
            }
            _ => {
                let octets = self.machine.octets().saturating_add(relayed.octets);
                self.moved(Relayed { octets, ..relayed }, self.chunks.began)
            }
        }
    }

    /// A chunk that is refused anyway is no reason to keep a place.
    pub(super) async fn discard(&mut self, octets: u64) -> Event {
        self.place.waits();
        let discarded = tokio::select! {
            biased;
            discarded = body::discard(&mut self.client, &self.limits, octets) => discarded,
            () = self.place.called() => return self.summons(),
        };
        self.place.works();
        match discarded {
            Ok(()) => {
                let came = self.machine.octets().saturating_add(octets);
                self.journal.message_so_far(came);
                Event::Discarded
            }
            Err(Moved::TooSlow) => Event::TimedOut,
            Err(_) => Event::Gone,
        }
    }

    pub(super) fn moved(&mut self, relayed: Relayed, began: Instant) -> Event {
        if let Some(envelope) = self.machine.envelope() {
            self.journal
                .message(envelope, relayed.octets, began, &relayed.moved);
        }
        Event::Moved(relayed.moved)
    }

    /// What the log is to say of mail that is refused, whatever becomes of its
    /// transaction.
    pub(super) fn note_whose_mail(&mut self, command: &Command) {
        match command {
            Command::Mail(mail) if self.machine.envelope().is_none() => {
                self.journal.transaction_of(&mail.from);
            }
            Command::Rcpt(rcpt) => self.recipient = Some(rcpt.to.clone()),
            Command::Data | Command::Bdat(_) => {
                if let Some(envelope) = self.machine.addressed() {
                    self.journal.message_begins(envelope);
                }
            }
            _ => {}
        }
    }

    /// What the log is to say of the message that has begun, if one has.
    pub(super) fn note_what_came_of_it(&mut self, answer: &Answer) {
        match self.machine.envelope() {
            None => self.journal.message_over(Some(answer)),
            Some(_) if self.machine.awaits_chunk() => {
                self.journal.message_so_far(self.machine.octets());
            }
            Some(_) => self.journal.forget_message(),
        }
    }

    /// The trace header field, where the backend learns of the client by it.
    pub(super) fn trace(&self) -> String {
        let by_trace = self
            .backend
            .as_ref()
            .is_some_and(|conversation| conversation.introduction == Introduction::Received);
        if by_trace {
            self.trace_field()
        } else {
            String::new()
        }
    }

    /// The trace header field of the current message.
    pub(super) fn trace_field(&self) -> String {
        let (Some(hello), Some(envelope)) = (self.machine.hello(), self.machine.envelope()) else {
            return String::new();
        };
        let trace = trace::Trace {
            client: self.addresses.0,
            hello,
            privacy: self.machine.privacy(),
            tls: self.journal.tls(),
            identity: self.machine.identity(),
            hostname: &self.service.hostname,
            id: &self.message_id(),
            envelope,
            date: OffsetDateTime::now_utc(),
        };
        trace.field()
    }

    /// The id of the current message.
    pub(super) fn message_id(&self) -> String {
        format!("{}.{}", self.id, self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Places;
    use crate::session::client::Client;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn under_stress_who_does_not_read_must_leave() {
        let places = Places::new(1);
        let place = places.take().unwrap();
        let keeper = tokio::spawn(Arc::clone(&places).keep_order());
        // It takes sixteen octets, and nobody reads them.
        let (ours, theirs) = tokio::io::duplex(16);
        let mut client = Client::new(Box::new(ours), 512, Duration::from_secs(300));
        let go = Reply::new(354, None, "End data with <CRLF>.<CRLF>");
        let written = while_read(&place, client.say_now(&go));
        let written = timeout(Duration::from_secs(20), written).await.unwrap();
        assert!(matches!(written, Err(Event::MustLeave)), "{written:?}");
        keeper.abort();
        drop(theirs);
    }
}
