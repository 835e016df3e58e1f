//! What the machine does when an answer comes that it waited for.

use std::sync::Arc;

use crate::policy::{Finding, Verdict};
use crate::session::refusal::Refusal;
use crate::smtp::command::{AuthLine, Command, CommandError, Rcpt};
use crate::smtp::parameters::RcptParameters;
use crate::smtp::reply::{EnhancedCode, Reply};

use super::commands::without_route;
use super::{
    Answer, Asked, Behind, Ending, Envelope, Event, Guess, Identity, Line, Lost, Machine, Pending,
    Phase, Privacy, Question, Relogin, Step, Unavailable, Weighed, Wish, end,
};

/// More challenges than any mechanism in use sends (SCRAM two, GSSAPI a few).
const AUTH_ROUNDS_MAX: u8 = 16;

/// What a reply of the backend amounts to.
pub(super) enum Class {
    Done,
    More,
    Refused,
    /// 421: it hangs up.
    Closing,
    Nonsense,
}

pub(super) fn class(reply: &Reply) -> Class {
    match reply.code() {
        421 => Class::Closing,
        200..=299 => Class::Done,
        300..=399 => Class::More,
        400..=599 => Class::Refused,
        _ => Class::Nonsense,
    }
}

impl Machine {
    pub(super) fn pending(&mut self, phase: Phase, pending: Pending, event: Event) -> Step {
        match (pending, event) {
            (Pending::Upgrade, Event::Upgraded) => {
                self.privacy = Privacy::Encrypted;
                self.link = None;
                self.state = super::State::Idle(Phase::Start);
                Step::Listen
            }
            (Pending::Judge(asked), Event::Judged(verdict)) => self.judged(phase, asked, verdict),
            (Pending::Connect(wish), Event::Connected(Ok(link))) => {
                self.link = Some(link);
                self.send(phase, wish, Line::Fresh)
            }
            (Pending::Connect(wish), Event::Connected(Err(unavailable))) => {
                self.unavailable(phase, &wish, unavailable)
            }
            (Pending::AuthLine(guess), Event::AuthLine(line, behind)) => {
                self.auth_line(phase, guess, line, behind)
            }
            (Pending::AuthLine(_), Event::Offence(offence)) => end(Refusal::Line(offence)),
            (Pending::Body, Event::Moved(moved)) => self.body_moved(phase, moved),
            (Pending::Chunk(bdat), Event::Moved(moved)) => self.chunk_moved(phase, bdat, moved),
            (Pending::Spool(bdat), Event::Spooled(spooled)) => self.spooled(phase, bdat, spooled),
            (Pending::Weigh, Event::Weighed(Weighed::Pass)) => {
                self.data_for_kept(phase, Line::Standing)
            }
            (Pending::Weigh, Event::Weighed(Weighed::Refuse(refusal))) => {
                self.clear(phase.without_transaction(), Answer::Refused(refusal))
            }
            (Pending::Discard(bdat, answer), Event::Discarded) => {
                self.discarded(phase, bdat, answer)
            }
            (pending, Event::Answered(Ok(reply))) => self.answered(phase, pending, reply),
            (pending, Event::Answered(Err(Lost))) => self.lost_while(phase, pending),
            _ => end(Refusal::BackendNonsense),
        }
    }

    pub(super) fn ask(&mut self, phase: Phase, asked: Asked, question: Question) -> Step {
        self.await_with(phase, Pending::Judge(asked), Step::Judge(question))
    }

    fn judged(&mut self, phase: Phase, asked: Asked, verdict: Verdict) -> Step {
        match (asked, verdict) {
            (Asked::SignInLine(guess, line), Verdict::Pass) => {
                self.await_with(phase, Pending::Auth(guess), Step::ExchangeAuth(line))
            }
            // Even if it is banned: the backend waits for a line.
            (Asked::SignInLine(..), Verdict::Refuse(finding)) => {
                self.cancel_auth(phase, Refusal::SignInLater(finding))
            }
            // The backend waits for a line, and a QUIT would be one.
            (Asked::ToldFailure(..), Verdict::Refuse(finding)) => {
                self.link = None;
                end(Refusal::Policy(finding))
            }
            (Asked::ToldFailure(guess, challenge), Verdict::Pass) => {
                self.await_with(phase, Pending::AuthLine(guess), Step::Challenge(challenge))
            }
            (_, Verdict::Refuse(finding @ Finding::Banned { .. }))
            | (Asked::FailedSignIn(_), Verdict::Refuse(finding)) => end(Refusal::Policy(finding)),
            (Asked::FailedSignIn(reply), Verdict::Pass) => self.not_signed_in(phase, reply),
            (Asked::SignIn(auth), Verdict::Pass) => self.with_link(phase, Wish::Auth(auth)),
            (Asked::SignIn(_), Verdict::Refuse(finding)) => {
                self.refuse(phase, Refusal::SignInLater(finding))
            }
            (Asked::Message(mail), Verdict::Pass) => self.with_link(phase, Wish::Mail(mail)),
            (Asked::Message(_), Verdict::Refuse(finding)) => {
                let answer = Answer::Refused(Refusal::Policy(finding));
                self.answer(phase.failed(&answer), answer)
            }
            (Asked::Recipient(rcpt), Verdict::Pass) => self.offer_recipient(phase, rcpt),
            (Asked::Recipient(_), Verdict::Refuse(finding)) => {
                self.refuse(phase, Refusal::Policy(finding))
            }
        }
    }

    fn not_signed_in(&mut self, phase: Phase, reply: Reply) -> Step {
        match self.count_error() {
            Some(ending) => Step::End(ending),
            None => self.answer(phase, Answer::Backend(reply)),
        }
    }

    fn offer_recipient(&mut self, phase: Phase, rcpt: Rcpt) -> Step {
        match self.rcpt_printable(&rcpt) {
            Some(printed) => {
                let command = Command::Rcpt(printed);
                self.await_with(phase, Pending::Rcpt(rcpt), Step::Exchange(command))
            }
            None => self.refuse(phase, Refusal::BackendChanged),
        }
    }

    /// The RCPT command for the backend; `None` when a parameter that carries
    /// meaning would be lost. ORCPT alone carries none: it is for delivery reports,
    /// and to a server that makes none of them it is not said (RFC 3461 5.2.2).
    pub(super) fn rcpt_printable(&self, rcpt: &Rcpt) -> Option<Rcpt> {
        let reports = self
            .link
            .as_ref()
            .is_some_and(|link| link.keywords.contains("DSN"));
        let printed = without_route(rcpt);
        match rcpt.parameters.notify {
            _ if reports => Some(printed),
            Some(_) => None,
            None => Some(Rcpt {
                parameters: RcptParameters::default(),
                ..printed
            }),
        }
    }

    fn unavailable(&mut self, phase: Phase, wish: &Wish, unavailable: Unavailable) -> Step {
        let answer = match unavailable {
            Unavailable::Gone => Answer::Refused(Refusal::BackendGone),
            Unavailable::Tls => Answer::Refused(Refusal::BackendTls),
            Unavailable::Busy => Answer::Refused(Refusal::BackendBusy),
            // Another took the same envelope: whatever changed, the sender tries again.
            Unavailable::Refused(_) if matches!(wish, Wish::Again) => {
                Answer::Refused(Refusal::BackendGone)
            }
            Unavailable::Refused(reply) => match class(&reply) {
                Class::Refused => Answer::Backend(reply),
                Class::Closing => return closing(reply),
                Class::Done | Class::More | Class::Nonsense => {
                    return end(Refusal::BackendNonsense);
                }
            },
        };
        let phase = match wish {
            Wish::Mail(_) => phase.failed(&answer),
            Wish::Again => phase.without_transaction(),
            Wish::Auth(_) | Wish::Pass(_) => phase,
        };
        self.answer(phase, answer)
    }

    fn answered(&mut self, phase: Phase, pending: Pending, reply: Reply) -> Step {
        match (pending, class(&reply)) {
            // Cleaning up: the answer stands whatever the backend says to it.
            (Pending::Clear(answer), class) => {
                if !matches!(class, Class::Done) {
                    self.link = None;
                }
                self.answer(phase, answer)
            }
            // It had lost patience with an idle connection: no state is lost with it.
            (Pending::Mail(mail, Line::Standing), Class::Closing) => {
                self.link = None;
                self.with_link(phase, Wish::Mail(mail))
            }
            // Nor with this one: we hold the envelope and the body.
            (Pending::DataForKept(Line::Standing), Class::Closing) => {
                self.link = None;
                self.with_link(phase, Wish::Again)
            }
            // Nothing depends on it.
            (Pending::Hello(hello), Class::Closing) => {
                self.lost_while(phase, Pending::Hello(hello))
            }
            (_, Class::Closing) => closing(reply),

            (Pending::Mail(mail, _), Class::Done) => match phase {
                Phase::Greeted(greeted) => {
                    let envelope = Arc::new(Envelope {
                        mail,
                        recipients: Vec::new(),
                        parameters: Vec::new(),
                    });
                    self.answer(Phase::Mail(greeted, envelope), Answer::Backend(reply))
                }
                _ => end(Refusal::BackendNonsense),
            },
            (Pending::Mail(..), Class::Refused) => {
                let answer = Answer::Backend(reply);
                self.answer(phase.failed(&answer), answer)
            }
            (Pending::Rcpt(rcpt), Class::Done) => match phase {
                Phase::Mail(greeted, mut envelope) => {
                    Arc::make_mut(&mut envelope).add(rcpt);
                    self.answer(Phase::Mail(greeted, envelope), Answer::Backend(reply))
                }
                _ => end(Refusal::BackendNonsense),
            },
            (Pending::Data, Class::More) if reply.code() == 354 => {
                self.await_with(phase, Pending::Body, Step::RelayBody(reply))
            }
            (Pending::DataForKept(_), Class::More) if reply.code() == 354 => {
                self.await_with(phase, Pending::Body, Step::DeliverBody)
            }
            (Pending::Data | Pending::DataForKept(_), Class::Refused) => {
                self.clear(phase.without_transaction(), Answer::Backend(reply))
            }
            (Pending::Again(told), Class::Done) => self.tell_again(phase, told),
            // It took the same envelope before: whatever changed, the sender tries again.
            (Pending::Again(_), Class::Refused) => {
                let answer = Answer::Refused(Refusal::BackendGone);
                self.clear(phase.without_transaction(), answer)
            }
            (Pending::Hello(hello), Class::Done) => self.greet(phase, hello),
            // The old hello stands; the transaction is over all the same (RFC 5321 4.1.4).
            (Pending::Hello(_), Class::Refused) => {
                self.clear(phase.without_transaction(), Answer::Backend(reply))
            }

            // Who has learnt it by this need not wait for the refusal.
            (Pending::Auth(guess), Class::More)
                if reply.code() == 334 && guess.is_told_of_failure(&reply) =>
            {
                let asked = Asked::ToldFailure(guess.counted(), reply);
                self.ask(phase, asked, Question::FailedSignIn)
            }
            (Pending::Auth(guess), Class::More) if reply.code() == 334 => {
                self.await_with(phase, Pending::AuthLine(guess), Step::Challenge(reply))
            }
            (Pending::Auth(guess), Class::Done) if reply.code() == 235 => {
                self.signed_in(phase, guess, reply)
            }
            (Pending::Auth(guess), Class::Refused)
                if is_failed_sign_in(&reply) && !guess.is_counted() =>
            {
                self.ask(phase, Asked::FailedSignIn(reply), Question::FailedSignIn)
            }
            (Pending::Auth(_) | Pending::AuthCancel(None), Class::Refused) => {
                self.not_signed_in(phase, reply)
            }
            (Pending::AuthCancel(Some(answer)), Class::Refused) => self.answer(phase, answer),

            (Pending::Pass, Class::Done) | (Pending::Rcpt(_) | Pending::Pass, Class::Refused) => {
                self.answer(phase, Answer::Backend(reply))
            }
            _ => end(Refusal::BackendNonsense),
        }
    }

    fn signed_in(&mut self, phase: Phase, guess: Guess, reply: Reply) -> Step {
        let relogin = match &self.link {
            Some(link) if guess.can_be_told() => link.relogin,
            _ => Relogin::Impossible,
        };
        match phase {
            Phase::Greeted(mut greeted) => {
                self.done = self.done.saturating_add(1);
                greeted.identity = Some(Identity {
                    login: guess.login(),
                    relogin,
                });
                self.answer(Phase::Greeted(greeted), Answer::Backend(reply))
            }
            _ => end(Refusal::BackendNonsense),
        }
    }

    fn auth_line(
        &mut self,
        phase: Phase,
        guess: Guess,
        line: Result<AuthLine, CommandError>,
        behind: Behind,
    ) -> Step {
        if behind == Behind::Octets {
            return end(Refusal::Pipelined(crate::smtp::command::Verb::Auth));
        }
        match line {
            Err(error) => match self.count_error() {
                Some(ending) => Step::End(ending),
                None => self.cancel_auth(phase, Refusal::Command(error)),
            },
            // RFC 4954 4: nothing but a refusal may come of it.
            Ok(AuthLine::Cancel) => {
                let step = Step::ExchangeAuth(AuthLine::Cancel);
                self.await_with(phase, Pending::AuthCancel(None), step)
            }
            Ok(_) if guess.rounds() >= AUTH_ROUNDS_MAX => {
                self.cancel_auth(phase, Refusal::AuthRounds)
            }
            Ok(line) => {
                let asked = Asked::SignInLine(guess.after(&line), line);
                self.ask(phase, asked, Question::SignIn)
            }
        }
    }

    /// Ends the exchange towards the backend (RFC 4954 4), then refuses.
    fn cancel_auth(&mut self, phase: Phase, refusal: Refusal) -> Step {
        let pending = Pending::AuthCancel(Some(Answer::Refused(refusal)));
        self.await_with(phase, pending, Step::ExchangeAuth(AuthLine::Cancel))
    }

    fn lost_while(&mut self, phase: Phase, pending: Pending) -> Step {
        self.link = None;
        match pending {
            // Nothing was lost with it but what was to go anyway.
            Pending::Clear(answer) | Pending::AuthCancel(Some(answer)) => {
                self.answer(phase, answer)
            }
            Pending::Mail(mail, Line::Standing) => self.with_link(phase, Wish::Mail(mail)),
            // The body came slower than the backend has patience between commands.
            Pending::DataForKept(Line::Standing) => self.with_link(phase, Wish::Again),
            pending => self.lost_for_good(phase, pending),
        }
    }

    fn lost_for_good(&mut self, phase: Phase, pending: Pending) -> Step {
        let revivable = phase
            .identity()
            .is_none_or(|identity| identity.relogin == Relogin::Possible);
        match (pending, phase) {
            _ if !revivable => end(Refusal::SignInLost),
            (Pending::Hello(hello), phase) => self.greet(phase, hello),
            (Pending::Rcpt(_) | Pending::Mail(..), phase)
            | (Pending::Pass, phase @ (Phase::Mail(..) | Phase::Chunks(..))) => {
                let answer = Answer::Refused(Refusal::BackendGone);
                let phase = phase.failed(&answer);
                self.answer(phase, answer)
            }
            // What is pipelined behind it hears still what failed before.
            (Pending::Pass, phase @ Phase::Failed(..)) => {
                self.answer(phase, Answer::Refused(Refusal::BackendGone))
            }
            (_, phase) => self.refuse(phase.without_transaction(), Refusal::BackendGone),
        }
    }
}

/// RFC 4954 6: the credentials were refused; not the command, the mechanism, or the
/// want of TLS, and not for now. What is in doubt counts: nobody shall guess uncounted.
fn is_failed_sign_in(reply: &Reply) -> bool {
    let about_credentials = |code: EnhancedCode| (code.subject, code.detail) == (7, 8);
    match reply.code() {
        500..=504 | 530 | 534 | 538 => reply.enhanced().is_some_and(about_credentials),
        500..=599 => true,
        _ => false,
    }
}

/// RFC 5321 3.8: the backend hangs up, so the session ends with its word.
pub(super) fn closing(reply: Reply) -> Step {
    Step::End(Ending::Said(Answer::Backend(reply)))
}
