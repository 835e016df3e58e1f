//! The session machine: which event may come now, and what happens next.
//!
//! Pure: no socket, no clock, no log. A loop feeds it events and carries out
//! its steps. Six invariants hold whatever comes:
//!
//! 1. A body goes to the backend only after the backend's own 354 (or, for
//!    BDAT, after its 2xx to MAIL and to at least one RCPT); where bodies are
//!    judged, only after [`Weighed::Pass`] besides.
//! 2. Sender and recipients are taken into the state only after the backend's
//!    2xx, never on the client's word; so is a hello once the backend is open.
//! 3. After STARTTLS nothing from before is kept but the client's address and
//!    its count of errors (RFC 3207 4.2); bytes buffered behind STARTTLS end
//!    the session.
//! 4. A 2xx or 3xx that the machine did not ask for never reaches the client;
//!    it becomes 421 and the end.
//! 5. Bytes buffered behind a verb that must end its pipelined group
//!    (RFC 2920 3.1) end the session.
//! 6. Over is final.
//!
//! An authenticated session lives and dies with its backend connection: the
//! proxy keeps no password, so it could not sign in again. The exception is a
//! backend that believes `XCLIENT LOGIN=`.

mod answers;
mod bodies;
mod commands;
mod foresight;
mod login;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use vocabulary::*;

use std::sync::Arc;

use crate::policy::Mode;
use crate::smtp::command::{Auth, AuthLine, Bdat, Command, CommandError, Mail, Rcpt, Verb};
use crate::smtp::line::LineOffence;
use crate::smtp::reply::{EnhancedCode, Reply};

use super::refusal::Refusal;
use login::Guess;

#[derive(Clone, Debug)]
struct Greeted {
    hello: Hello,
    identity: Option<Identity>,
}

/// How far the conversation with the client is.
#[derive(Clone, Debug)]
enum Phase {
    /// No hello yet.
    Start,
    /// Hello said, no transaction.
    Greeted(Greeted),
    /// MAIL taken by the backend.
    Mail(Greeted, Arc<Envelope>),
    /// At least one BDAT chunk taken; octets so far.
    Chunks(Greeted, Arc<Envelope>, u64),
    /// The transaction broke; what was pipelined behind gets the same answer,
    /// so that no 503 turns a temporary failure into a bounce.
    Failed(Greeted, Answer),
}

impl Phase {
    fn greeted(&self) -> Option<&Greeted> {
        match self {
            Self::Start => None,
            Self::Greeted(greeted)
            | Self::Mail(greeted, _)
            | Self::Chunks(greeted, ..)
            | Self::Failed(greeted, _) => Some(greeted),
        }
    }

    fn without_transaction(self) -> Self {
        match self {
            Self::Start => Self::Start,
            Self::Greeted(greeted)
            | Self::Mail(greeted, _)
            | Self::Chunks(greeted, ..)
            | Self::Failed(greeted, _) => Self::Greeted(greeted),
        }
    }

    fn failed(self, answer: &Answer) -> Self {
        match self {
            Self::Start => Self::Start,
            Self::Greeted(greeted)
            | Self::Mail(greeted, _)
            | Self::Chunks(greeted, ..)
            | Self::Failed(greeted, _) => Self::Failed(greeted, answer.clone()),
        }
    }

    fn identity(&self) -> Option<&Identity> {
        self.greeted().and_then(|greeted| greeted.identity.as_ref())
    }
}

/// What is awaited, and what it was for.
#[derive(Clone, Debug)]
enum Pending {
    Upgrade,
    Connect(Wish),
    Hello(Hello),
    Mail(Mail, Line),
    Judge(Asked),
    Rcpt(Rcpt),
    Data,
    Body,
    Chunk(Bdat),
    /// A body is being kept; `None`: of a DATA command.
    Spool(Option<Bdat>),
    Weigh,
    /// DATA was sent for a body that passed.
    DataForKept(Line),
    /// The envelope of a body that passed is told to another connection: MAIL
    /// was sent, and so many RCPT.
    Again(usize),
    /// A refused chunk is being read; then this is the answer.
    Discard(Bdat, Answer),
    /// RSET was sent to clean up; then this is the answer.
    Clear(Answer),
    Auth(Guess),
    AuthLine(Guess),
    /// `*` was sent; then this is the answer, or the backend's own refusal
    /// where the client itself gave up.
    AuthCancel(Option<Answer>),
    Pass,
}

/// What was asked of limits and policy.
#[derive(Clone, Debug)]
enum Asked {
    Message(Mail),
    Recipient(Rcpt),
    SignIn(Auth),
    /// In the midst of it: this line would go to the backend.
    SignInLine(Guess, AuthLine),
    /// With the backend's refusal.
    FailedSignIn(Reply),
    /// With a challenge that tells of it.
    ToldFailure(Guess, Reply),
}

/// Whether the backend's connection was opened for this very command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It was.
    Fresh,
    /// It stood open, and may have gone stale: the command may be tried anew.
    Standing,
}

/// What an open backend is wanted for.
#[derive(Clone, Debug)]
enum Wish {
    Mail(Mail),
    Auth(Auth),
    Pass(Command),
    /// The envelope once more, for a body that passed.
    Again,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, and it is moved, not stored in bulk"
)]
enum State {
    Opening,
    Idle(Phase),
    Pending(Phase, Pending),
    Over,
}

/// One SMTP session, seen from the middle.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    privacy: Privacy,
    link: Option<Link>,
    errors: u32,
    /// Commands that moved no mail since the last message.
    junk: u32,
    /// Messages taken and sign-ins.
    done: u32,
    state: State,
}

impl Machine {
    /// A session that begins with [`Event::Opened`].
    pub fn new(rules: Rules, privacy: Privacy) -> Self {
        Self {
            rules,
            privacy,
            link: None,
            errors: 0,
            junk: 0,
            done: 0,
            state: State::Opening,
        }
    }

    /// Takes one event; says what to do next. After [`Step::End`] it never says anything else.
    pub fn advance(&mut self, event: Event) -> Step {
        // Whatever does not set a state below leaves the session over.
        match (std::mem::replace(&mut self.state, State::Over), event) {
            (State::Over, _) | (_, Event::Gone) => Step::End(Ending::Gone),
            (_, Event::TimedOut) => end(Refusal::TimedOut),
            (_, Event::MustLeave) => end(Refusal::Shed),
            (State::Pending(..), Event::Draining) => end(Refusal::ShuttingDown),
            (State::Opening, Event::SpokeFirst) => end(Refusal::EarlyTalker),
            (State::Opening, Event::Opened) => {
                let text = format!(
                    "{} ESMTP Portcullis [{}]",
                    self.rules.hostname, self.rules.session_id
                );
                self.answer(Phase::Start, Answer::Own(Reply::new(220, None, &text)))
            }
            (State::Idle(phase), event) => self.idle(phase, event),
            (State::Pending(phase, pending), event) => self.pending(phase, pending, event),
            (State::Opening, _) => end(Refusal::BackendNonsense),
        }
    }

    /// Whether the session may be closed without breaking a transaction.
    pub fn at_rest(&self) -> bool {
        matches!(
            self.state,
            State::Idle(Phase::Start | Phase::Greeted(_) | Phase::Failed(..))
        )
    }

    /// Whether the client's side is encrypted.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// The hello in force.
    pub fn hello(&self) -> Option<&Hello> {
        self.phase()
            .and_then(Phase::greeted)
            .map(|greeted| &greeted.hello)
    }

    /// Who has signed in.
    pub fn identity(&self) -> Option<&Identity> {
        self.phase().and_then(Phase::identity)
    }

    /// The transaction that is open at the backend.
    pub fn envelope(&self) -> Option<&Envelope> {
        match self.phase() {
            Some(Phase::Mail(_, envelope) | Phase::Chunks(_, envelope, _)) => Some(envelope),
            _ => None,
        }
    }

    /// The envelope, to be kept beyond its transaction, once a body may come with it.
    pub fn addressed(&self) -> Option<Arc<Envelope>> {
        match self.phase() {
            Some(Phase::Mail(_, envelope) | Phase::Chunks(_, envelope, _)) => {
                Some(envelope).filter(|envelope| !envelope.recipients.is_empty())
            }
            _ => None,
        }
        .cloned()
    }

    /// Whether a MAIL command has been taken, or refused and what belongs to it may
    /// still come.
    pub fn in_transaction(&self) -> bool {
        matches!(
            self.phase(),
            Some(Phase::Mail(..) | Phase::Chunks(..) | Phase::Failed(..))
        )
    }

    /// Protocol errors so far.
    pub fn errors(&self) -> u32 {
        self.errors
    }

    /// Messages that the backend has taken, and sign-ins.
    pub fn done(&self) -> u32 {
        self.done
    }

    /// Octets of the chunks taken so far in this transaction.
    pub fn octets(&self) -> u64 {
        match self.phase() {
            Some(Phase::Chunks(_, _, octets)) => *octets,
            _ => 0,
        }
    }

    /// Whether no chunk of this transaction has been taken yet.
    pub fn is_first_chunk(&self) -> bool {
        matches!(self.phase(), Some(Phase::Mail(..)))
    }

    /// Whether a message has come in part, and its next chunk is due.
    pub fn awaits_chunk(&self) -> bool {
        matches!(self.phase(), Some(Phase::Chunks(..)))
    }

    /// Whether an open backend is of use.
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    fn phase(&self) -> Option<&Phase> {
        match &self.state {
            State::Idle(phase) | State::Pending(phase, _) => Some(phase),
            State::Opening | State::Over => None,
        }
    }

    fn idle(&mut self, phase: Phase, event: Event) -> Step {
        match event {
            Event::Command(Ok(command), behind) => self.command(phase, command, behind),
            Event::Command(Err(CommandError::ForeignProtocol), _) => {
                Step::End(Ending::Cut(Refusal::Command(CommandError::ForeignProtocol)))
            }
            Event::Command(Err(error), _) => match phase {
                // What is pipelined behind it meant a transaction.
                Phase::Greeted(_) | Phase::Failed(..) if error.verb() == Some(Verb::Mail) => {
                    self.refuse_transaction(phase, Refusal::Command(error))
                }
                _ => self.refuse(phase, Refusal::Command(error)),
            },
            Event::Offence(LineOffence::TooLong) => {
                self.refuse(phase, Refusal::Line(LineOffence::TooLong))
            }
            Event::Offence(LineOffence::TlsHello) => {
                Step::End(Ending::Cut(Refusal::Line(LineOffence::TlsHello)))
            }
            Event::Offence(offence) => end(Refusal::Line(offence)),
            Event::Draining => end(Refusal::ShuttingDown),
            _ => end(Refusal::BackendNonsense),
        }
    }

    fn answer(&mut self, phase: Phase, answer: Answer) -> Step {
        self.state = State::Idle(phase);
        Step::Answer(answer)
    }

    fn own(&mut self, phase: Phase, code: u16, enhanced: [u16; 3], text: &str) -> Step {
        self.answer(phase, own(code, enhanced, text))
    }

    fn refuse(&mut self, phase: Phase, refusal: Refusal) -> Step {
        if refusal.is_error()
            && let Some(ending) = self.count_error()
        {
            return Step::End(ending);
        }
        self.answer(phase, Answer::Refused(refusal))
    }

    /// Refuses MAIL, and all that belongs to it likewise.
    fn refuse_transaction(&mut self, phase: Phase, refusal: Refusal) -> Step {
        let phase = phase.failed(&Answer::Refused(refusal.clone()));
        self.refuse(phase, refusal)
    }

    fn count_error(&mut self) -> Option<Ending> {
        self.errors = self.errors.saturating_add(1);
        (self.errors > self.rules.errors_max && self.rules.mode == Mode::Enforce)
            .then_some(Ending::Said(Answer::Refused(Refusal::TooManyErrors)))
    }

    fn await_with(&mut self, phase: Phase, pending: Pending, step: Step) -> Step {
        self.state = State::Pending(phase, pending);
        step
    }
}

fn end(refusal: Refusal) -> Step {
    Step::End(Ending::Said(Answer::Refused(refusal)))
}

fn own(code: u16, [class, subject, detail]: [u16; 3], text: &str) -> Answer {
    let class = u8::try_from(class).unwrap_or(2);
    Answer::Own(Reply::new(
        code,
        Some(EnhancedCode {
            class,
            subject,
            detail,
        }),
        text,
    ))
}
