//! One client connection: the product on a page.
//!
//! [`serve`] is a loop: the machine says what to do next, one arm does it, and
//! what came of it goes back to the machine. No rule of the protocol lives
//! here; logging does.

mod admit;
mod body;
mod client;
mod deeds;
mod id;
mod journal;
pub mod machine;
pub mod offer;
pub mod refusal;
mod settings;
mod trace;

pub use id::SessionId;
pub use settings::{AllowedVerb, BodyLineMax, LineMax, Settings};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, Conversation};
use crate::policy::{self, Stage};
use crate::settings::{LogAddresses, Networks};
use crate::smtp::bdat::ChunkChecker;
use crate::smtp::command::Command;
use crate::smtp::path::ForwardPath;
use crate::tls::{ServerTls, Stream};
pub use admit::turn_away;
use admit::{Addresses, NotAdmitted, Source, admit};
use body::Limits;
use client::{Bound, Client, ClientError, Line};
use journal::Journal;
use machine::{Answer, Demand, Ending, Event, Machine, Moved, Privacy, Rules, Step};

/// On which kind of listener a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// `LISTEN`: plain, STARTTLS offered.
    Mx,
    /// `LISTEN_TLS`: TLS from the first octet (RFC 8314 3.3).
    Tls,
    /// `LISTEN_SUBMISSION`: STARTTLS, then AUTH (RFC 6409).
    Submission,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mx => "mx",
            Self::Tls => "tls",
            Self::Submission => "submission",
        })
    }
}

/// All that sessions share.
pub struct Service {
    /// The settings of this room.
    pub settings: Settings,
    /// Who may send to whom.
    pub policy: policy::Settings,
    /// Peers whose PROXY header is required and believed.
    pub proxy_trusted: Networks,
    /// How addresses are logged.
    pub log_addresses: LogAddresses,
    /// Our name.
    pub hostname: String,
    /// Our certificates.
    pub tls: ServerTls,
    /// The guarded server.
    pub backend: Arc<Backend>,
    /// Cancelled when sessions at rest shall end.
    pub draining: CancellationToken,
}

/// Serves one client from its first octet to its last.
pub async fn serve(
    service: Arc<Service>,
    stream: Box<dyn Stream>,
    listener: Listener,
    peer: SocketAddr,
    local: SocketAddr,
) {
    let id = SessionId::next();
    let mut journal = Journal::new(id, listener, peer, service.log_addresses);
    let admitted = timeout(
        service.settings.timeout_handshake,
        admit(&service, stream, listener, (peer, local), &mut journal),
    );
    match admitted.await {
        Ok(Ok((client, addresses, source))) => {
            let mut session = Session::new(&service, id, client, listener, addresses, journal);
            session.source = source;
            let ending = session.run().await;
            session.finish(ending).await;
        }
        Ok(Err(NotAdmitted(reason))) => journal.cut_off(&reason),
        Err(_) => journal.cut_off(&"no handshake in time"),
    }
}

/// How long the last reply may take to be written and read.
const FAREWELL: Duration = Duration::from_secs(10);

struct Session<'a> {
    service: &'a Service,
    id: SessionId,
    client: Client,
    addresses: Addresses,
    source: Source,
    machine: Machine,
    limits: Limits,
    backend: Option<Conversation>,
    chunks: Chunks,
    journal: Journal,
    /// The recipient that is being decided upon.
    recipient: Option<ForwardPath>,
    /// Messages begun so far; part of their ids.
    messages: u32,
}

/// The BDAT message that is being relayed.
struct Chunks {
    checker: ChunkChecker,
    began: Instant,
}

impl<'a> Session<'a> {
    fn new(
        service: &'a Service,
        id: SessionId,
        client: Client,
        listener: Listener,
        addresses: Addresses,
        journal: Journal,
    ) -> Self {
        let settings = &service.settings;
        let mut backend = service.backend.keywords().unwrap_or_default();
        if settings.body_line_max.0.is_some() {
            // Lines are not counted in chunks.
            backend.remove("CHUNKING");
        }
        let max_size = settings
            .max_size
            .map(|size| size.0)
            .or(backend.size())
            .unwrap_or(settings::SIZE_FALLBACK);
        let rules = Rules {
            hostname: service.hostname.clone(),
            session_id: id.to_string(),
            demand: match (listener, settings.tls_require) {
                (Listener::Submission, _) => Demand::TlsAndAuth,
                (Listener::Mx, true) => Demand::Tls,
                (Listener::Mx | Listener::Tls, _) => Demand::Nothing,
            },
            backend,
            allowed: settings
                .commands_allow
                .iter()
                .map(|allowed| allowed.0)
                .collect(),
            max_size,
            recipients_max: usize::try_from(settings.rcpt_max)
                .unwrap_or(usize::MAX)
                .min(service.backend.recipients_max()),
            errors_max: settings.error_max,
            newline: settings.bare_newline,
        };
        let limits = Limits {
            max_size,
            line_max: settings.body_line_max.0,
            newline: settings.bare_newline,
            pause_max: settings.timeout_data,
            rate_min: settings.data_rate_min,
            grace: settings.data_rate_grace,
        };
        let privacy = if listener == Listener::Tls {
            Privacy::Encrypted
        } else {
            Privacy::Clear
        };
        Self {
            service,
            id,
            client,
            addresses,
            source: Source::Client,
            machine: Machine::new(rules, privacy),
            limits,
            backend: None,
            chunks: Chunks {
                checker: ChunkChecker::new(),
                began: Instant::now(),
            },
            journal,
            recipient: None,
            messages: 0,
        }
    }

    async fn run(&mut self) -> Ending {
        let mut step = self.machine.advance(Event::Opened);
        loop {
            let challenged = matches!(step, Step::Challenge(_));
            let event = match step {
                Step::Answer(answer) => self.answer(&answer).await,
                Step::Listen => self.listen().await,
                Step::Challenge(reply) => self.challenge(&reply).await,
                Step::Upgrade(reply) => self.upgrade(&reply).await,
                Step::Judge(standing, recipient) => {
                    let client = match self.source {
                        Source::Client => Some(self.addresses.0.ip()),
                        Source::Balancer => None,
                    };
                    let stage = Stage::Recipient {
                        client,
                        standing,
                        recipient: &recipient,
                    };
                    let verdict = policy::judge(&self.service.policy, &stage);
                    self.recipient = Some(recipient);
                    Event::Judged(verdict)
                }
                Step::Connect => self.connect().await,
                Step::Exchange(command) => self.exchange(&command).await,
                Step::ExchangeAuth(line) => self.exchange_auth(&line).await,
                Step::RelayBody(reply) => self.relay_body(&reply).await,
                Step::RelayChunk(bdat) => self.relay_chunk(bdat).await,
                Step::Discard(octets) => {
                    match body::discard(&mut self.client, self.limits, octets).await {
                        Ok(()) => Event::Discarded,
                        Err(Moved::TooSlow) => Event::TimedOut,
                        Err(_) => Event::Gone,
                    }
                }
                Step::End(ending) => return ending,
            };
            step = self.machine.advance(event);
            if challenged && matches!(step, Step::End(_)) {
                // The backend waits for an AUTH line; a QUIT would be one.
                self.backend = None;
            }
        }
    }

    async fn finish(mut self, ending: Ending) {
        // First the backend: a client that does not read must not hold it.
        let goodbye = self.backend.take().map(Conversation::quit);
        let farewell = async {
            if let Ending::Said(answer) = &ending {
                let _ = self.say(answer).await;
                self.client.close_gently().await;
            }
        };
        let farewell = timeout(FAREWELL, farewell);
        match goodbye {
            Some(goodbye) => drop(tokio::join!(goodbye, farewell)),
            None => drop(farewell.await),
        }
        self.journal.ended(&ending);
    }

    async fn answer(&mut self, answer: &Answer) -> Event {
        self.journal
            .knows(self.machine.hello(), self.machine.identity());
        self.journal.answered(
            answer,
            self.machine.envelope(),
            self.recipient.take().as_ref(),
        );
        match self.say(answer).await {
            Ok(()) => self.listen().await,
            Err(error) => trouble(&error),
        }
    }

    /// Every refusal carries the session's id, so that a bounce leads to the log.
    async fn say(&mut self, answer: &Answer) -> Result<(), ClientError> {
        let mut reply = match answer {
            Answer::Own(reply) | Answer::Backend(reply) => reply.clone(),
            Answer::Refused(refusal) => refusal.reply(),
        };
        if matches!(reply.code(), 400..) {
            reply.append(&format!(" [{}]", self.id));
        }
        self.client.say(&reply).await
    }

    async fn listen(&mut self) -> Event {
        let line = if self.machine.at_rest() {
            tokio::select! {
                biased;
                () = self.service.draining.cancelled() => return Event::Draining,
                line = self.client.line(Bound::Command) => line,
            }
        } else {
            self.client.line(Bound::Command).await
        };
        match line {
            Err(error) => trouble(&error),
            Ok(Line {
                octets: Err(offence),
                ..
            }) => {
                self.journal.command(None);
                Event::Offence(offence)
            }
            Ok(Line {
                octets: Ok(octets),
                behind,
            }) => {
                let command = Command::parse(&octets);
                self.journal
                    .command(command.as_ref().ok().map(Command::verb));
                Event::Command(command, behind)
            }
        }
    }
}

fn trouble(error: &ClientError) -> Event {
    match error {
        ClientError::TimedOut => Event::TimedOut,
        ClientError::Gone(_) | ClientError::Closed => Event::Gone,
    }
}
