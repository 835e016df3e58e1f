//! The words between the machine and the loop: rules, events, steps, and what
//! they carry.

use std::sync::Arc;

use crate::policy::{Mode, Standing, Verdict};
use crate::smtp::command::{AuthLine, Bdat, Command, CommandError, Mail, Rcpt, Verb};
use crate::smtp::dot::{BareNewline, BodyOffence};
use crate::smtp::ehlo::Keywords;
use crate::smtp::line::LineOffence;
use crate::smtp::parameters::RcptParameters;
use crate::smtp::path::{ForwardPath, HeloName, ReversePath};
use crate::smtp::reply::Reply;

use crate::session::refusal::Refusal;

/// What the machine must know of settings and surroundings.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Our name in greeting and EHLO reply.
    pub hostname: String,
    /// Stands in the greeting.
    pub session_id: String,
    /// What MAIL demands on this listener.
    pub demand: Demand,
    /// What the backend offered at the last probe.
    pub backend: Arc<Keywords>,
    /// Verbs that are off unless named in `COMMANDS_ALLOW`.
    pub allowed: Vec<Verb>,
    /// Largest message, octets.
    pub max_size: u64,
    /// Most recipients of one message, as announced.
    pub recipients_max: usize,
    /// Most recipients of one message that are taken whatever `mode` says.
    pub recipients_cap: usize,
    /// Most protocol errors of one session.
    pub errors_max: u32,
    /// Commands that move no mail, between two messages, before they are errors.
    pub junk_max: u32,
    /// Whether errors end a session.
    pub mode: Mode,
    /// What is done about a bare CR or LF in a body.
    pub newline: BareNewline,
    /// Whether bodies are scanned before the backend sees them.
    pub bodies: Bodies,
}

/// What becomes of a body first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// It goes to the backend as it arrives.
    Relayed,
    /// It is kept until scanners have judged it.
    Judged,
}

/// What must have happened before MAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Nothing,
    /// TLS.
    Tls,
    /// TLS, then AUTH (RFC 6409 4.3).
    TlsAndAuth,
}

/// Whether the client's side of the wire is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Plain text.
    Clear,
    /// Inside TLS.
    Encrypted,
}

/// What lay in the buffer behind a command line when it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the client waits for the reply.
    Nothing,
    /// More octets: the client pipelines.
    Octets,
}

impl Behind {
    /// What lay there.
    pub fn of(octets: bool) -> Self {
        if octets { Self::Octets } else { Self::Nothing }
    }
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client has been admitted.
    Opened,
    /// The client spoke before it was greeted.
    SpokeFirst,
    /// A line came that is no line.
    Offence(LineOffence),
    /// A command line came and was parsed.
    Command(Result<Command, CommandError>, Behind),
    /// A line came in answer to a challenge.
    AuthLine(Result<AuthLine, CommandError>, Behind),
    /// The TLS handshake is done.
    Upgraded,
    /// Policy has spoken.
    Judged(Verdict),
    /// The backend was to be opened.
    Connected(Result<Link, Unavailable>),
    /// The backend was asked.
    Answered(Result<Reply, Lost>),
    /// A body or a chunk was to be moved.
    Moved(Moved),
    /// A body or a chunk was to be kept.
    Spooled(Spooled),
    /// Scanners and policy have spoken about the body that is kept.
    Weighed(Weighed),
    /// A refused chunk has been read and thrown away.
    Discarded,
    /// The client took longer than allowed.
    TimedOut,
    /// The client kept us waiting, and its place is needed.
    MustLeave,
    /// The client has gone.
    Gone,
    /// The process is stopping and the session is at rest.
    Draining,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer, then read a command.
    Answer(Answer),
    /// Read a command.
    Listen,
    /// Say this 334, then read one AUTH line.
    Challenge(Reply),
    /// Say this 220, hang up towards the backend, shake hands with the client.
    Upgrade(Reply),
    /// Ask limits and policy.
    Judge(Question),
    /// Open the backend and introduce the client.
    Connect,
    /// Send one command to the backend and await one reply.
    Exchange(Command),
    /// Send one AUTH line to the backend and await one reply.
    ExchangeAuth(AuthLine),
    /// Say this 354, then relay a body up to its end and await the reply.
    RelayBody(Reply),
    /// Relay one BDAT command with its octets and await the reply.
    RelayChunk(Bdat),
    /// Say this 354, then keep a body up to its end.
    SpoolBody(Reply),
    /// Keep the octets of one BDAT command.
    SpoolChunk(Bdat),
    /// Have the body that is kept judged.
    Weigh,
    /// Deliver the body that is kept and await the reply.
    DeliverBody,
    /// Read this many octets and throw them away.
    Discard(u64),
    /// Nothing more: hang up.
    End(Ending),
}

/// What limits and policy are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// May the client begin another message?
    Message,
    /// May this recipient be offered to the backend?
    Recipient(Standing, ForwardPath),
    /// May the client try to sign in, or say more in the midst of it?
    SignIn,
    /// The backend has refused a sign-in: may the client stay?
    FailedSignIn,
}

/// What a command that the client has pipelined will lead to, if all before it is
/// taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// What is asked first; only a [`Verdict::Pass`] leads on.
    pub question: Option<Question>,
    /// What the backend is told.
    pub command: Command,
}

/// A reply to the client, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ours, and good.
    Own(Reply),
    /// Ours, a refusal.
    Refused(Refusal),
    /// The backend's word, passed on.
    Backend(Reply),
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this last answer.
    Said(Answer),
    /// Closed at once, without a word, for this reason.
    Cut(Refusal),
    /// The client has gone already.
    Gone,
}

/// The backend is gone or talks nonsense; its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// An open backend.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it offers to this client.
    pub keywords: Arc<Keywords>,
    /// Whether a later connection could be told who signed in.
    pub relogin: Relogin,
}

/// Whether the backend believes `XCLIENT LOGIN=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relogin {
    /// It does.
    Possible,
    /// It does not.
    Impossible,
}

/// Why the backend could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It cannot be reached or broke off.
    Gone,
    /// TLS towards it failed and is demanded.
    Tls,
    /// It has no connection to spare.
    Busy,
    /// It refused this client with a 4xx or 5xx.
    Refused(Reply),
}

/// How moving a body or a chunk ended. Unless `Answered`, the backend's
/// connection is closed and it has seen no end of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// All was sent; this is the backend's reply.
    Answered(Reply),
    /// The body broke a rule; it has been read to its true end.
    Offence(BodyOffence),
    /// The body is too large; it has been read to its true end.
    TooLarge,
    /// Too large, and no end in sight.
    Endless,
    /// The backend spoke before the end; the body has been read to its end.
    Interrupted(Reply),
    /// The backend is gone; the body has been read to its true end.
    Lost,
    /// The client fell silent or was too slow.
    TooSlow,
    /// The client has gone.
    Gone,
    /// The client has gone from a body that broke a rule.
    GoneFrom(BodyOffence),
}

/// How keeping a body or a chunk ended. The backend has not seen any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spooled {
    /// It is kept.
    Kept,
    /// It broke a rule; it has been read to its true end.
    Offence(BodyOffence),
    /// It is too large; it has been read to its true end.
    TooLarge,
    /// There is no room for it; it has been read to its true end.
    NoRoom,
    /// Too large, and no end in sight.
    Endless,
    /// The client fell silent or was too slow.
    TooSlow,
    /// The client has gone.
    Gone,
    /// The client has gone from a body that broke a rule.
    GoneFrom(BodyOffence),
}

/// What is to become of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weighed {
    /// It is delivered.
    Pass,
    /// It is refused.
    Refuse(Refusal),
}

/// The client's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it calls itself.
    pub name: HeloName,
    /// Which verb it used.
    pub protocol: Protocol,
}

/// HELO or EHLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
}

/// Who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name, where the mechanism shows it.
    pub login: Option<String>,
    pub(super) relogin: Relogin,
}

/// Sender and recipients that the backend has taken (RFC 5321 2.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The MAIL command as the client gave it.
    pub mail: Mail,
    /// The recipients.
    pub recipients: Vec<ForwardPath>,
    /// What was asked for each of them, in the same order (RFC 3461).
    pub parameters: Vec<RcptParameters>,
}

impl Envelope {
    /// The reverse-path.
    pub fn from(&self) -> &ReversePath {
        &self.mail.from
    }

    /// A recipient that the backend has taken.
    pub(super) fn add(&mut self, rcpt: Rcpt) {
        if self.recipients.is_empty() {
            // Most messages have no other, and many sessions wait with one.
            self.recipients.reserve_exact(1);
            self.parameters.reserve_exact(1);
        }
        self.recipients.push(rcpt.to);
        self.parameters.push(rcpt.parameters);
    }
}
