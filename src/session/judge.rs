//! Collects the facts that a question of the machine needs, and asks limits
//! and policy.
//!
//! In `MODE=monitor` what they find is logged and nothing comes of it, but for
//! one thing: where the backend takes the proxy for the client it cannot guard
//! its relay itself, and to try limits must not open it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::admit::Source;
use super::deeds::while_read;
use super::machine::{Answer, Ending, Event, Question};
use super::refusal::Refusal;
use crate::backend::Introduction;
use crate::limits::Charge;
use crate::policy::{self, Finding, Mode, Stage, Verdict};

/// Errors that are not held up: everybody makes some.
const FREE_ERRORS: u32 = 2;

/// Refusals in a row that are not held up: a list may hold many dead addresses.
const FREE_REFUSALS: u32 = 50;

/// The pause before each further one: they cost work, though they are no errors.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// The first pause of a client in error; each further error doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

impl Session<'_> {
    pub(super) async fn judge(&mut self, question: Question) -> Event {
        let verdict = match self.group.verdict(&question) {
            Some(verdict) => verdict,
            None => self.verdict(&question).await,
        };
        if let Question::Recipient(..) = question {
            self.watch_the_number_of_recipients();
        }
        Event::Judged(self.in_force(verdict))
    }

    /// What limits and policy say; asked twice, limits count twice.
    pub(super) async fn verdict(&mut self, question: &Question) -> Verdict {
        let limits = Arc::clone(&self.service.limits);
        let client = self.client_address();
        let counted = match (client, question) {
            (None, _) => Ok(()),
            (Some(client), Question::Message) => limits.charge(client, Charge::Message).await,
            (Some(client), Question::Recipient(..)) => {
                limits.charge(client, Charge::Recipient).await
            }
            (Some(client), Question::SignIn) => {
                let attempt = Box::pin(limits.may_sign_in(client)).await;
                attempt.map(|attempt| self.attempt = attempt)
            }
            (Some(client), Question::FailedSignIn) => limits.auth_failed(client).await,
        };
        let verdict = match question {
            Question::Recipient(standing, recipient) => {
                let stage = Stage::Recipient {
                    client,
                    standing: *standing,
                    recipient,
                };
                policy::judge(&self.service.policy, &stage)
            }
            Question::Message | Question::SignIn | Question::FailedSignIn => Verdict::Pass,
        };
        // A limit is temporary: it must not hide a refusal for good.
        match (verdict, counted) {
            (Verdict::Pass, Err(finding)) => Verdict::Refuse(finding),
            (verdict, _) => verdict,
        }
    }

    /// The client's address; none where a balancer does not name it.
    pub(super) fn client_address(&self) -> Option<IpAddr> {
        match self.source {
            Source::Client => Some(self.addresses.0.ip()),
            Source::Balancer => None,
        }
    }

    /// The verdict that counts under `MODE`.
    fn in_force(&mut self, verdict: Verdict) -> Verdict {
        match (verdict, self.service.policy.mode) {
            (Verdict::Refuse(Finding::ForeignDomain | Finding::HiddenRoute), Mode::Monitor)
                if !self.backend_knows_the_client() =>
            {
                verdict
            }
            (Verdict::Refuse(finding), Mode::Monitor) => {
                self.relies_on_introduction |=
                    matches!(finding, Finding::ForeignDomain | Finding::HiddenRoute);
                self.would_refuse(&Refusal::Policy(finding));
                Verdict::Pass
            }
            (verdict, _) => verdict,
        }
    }

    pub(super) fn backend_knows_the_client(&self) -> bool {
        self.backend.as_ref().is_some_and(|conversation| {
            matches!(
                conversation.introduction,
                Introduction::Xclient | Introduction::Proxy
            )
        })
    }

    pub(super) fn would_refuse(&mut self, refusal: &Refusal) {
        self.journal
            .would_refuse(refusal, self.machine.envelope(), self.recipient.as_ref());
    }

    /// Only `MODE=monitor` lets more come than `RCPT_MAX`.
    fn watch_the_number_of_recipients(&mut self) {
        let most = usize::try_from(self.service.settings.rcpt_max.get()).unwrap_or(usize::MAX);
        let taken = self
            .machine
            .envelope()
            .map_or(0, |envelope| envelope.recipients.len());
        if taken >= most {
            self.would_refuse(&Refusal::TooManyRecipients);
        }
    }

    /// Holds up the reply to a client in error: a little, then longer and
    /// longer up to `TARPIT`. It costs a timer, and a place; so not under stress.
    ///
    /// # Errors
    /// What happened instead: it does not read, or its place is needed.
    pub(super) async fn hold_up(&mut self, answer: &Answer) -> Result<(), Event> {
        let errors = self.machine.errors();
        let before = std::mem::replace(&mut self.errors, errors);
        let erred = errors > before;
        match answer {
            Answer::Own(_) => {}
            Answer::Backend(reply) if reply.code() < 400 => self.refusals = 0,
            Answer::Backend(_) | Answer::Refused(_) => {
                self.refusals = self.refusals.saturating_add(1);
            }
        }
        let settings = &self.service.settings;
        if self.service.policy.mode == Mode::Monitor {
            // One command may make two.
            if before <= settings.error_max && errors > settings.error_max {
                self.would_refuse(&Refusal::TooManyErrors);
            }
            return Ok(());
        }
        let for_errors = match errors.checked_sub(FREE_ERRORS + 1) {
            Some(doublings) if erred => 1_u32
                .checked_shl(doublings)
                .and_then(|factor| FIRST_PAUSE.checked_mul(factor))
                .unwrap_or(Duration::MAX),
            _ => Duration::ZERO,
        };
        let for_refusals = if self.refusals > FREE_REFUSALS {
            REFUSAL_PAUSE
        } else {
            Duration::ZERO
        };
        let pause = for_errors.max(for_refusals).min(settings.tarpit);
        if pause.is_zero() || self.place.stressed() {
            return Ok(());
        }
        Box::pin(while_read(&self.place, self.client.flush())).await?;
        // Who asks for nothing but refusals keeps us waiting, though not for a command.
        let meter = self.place.meter();
        let _waiting = meter.waits();
        tokio::select! {
            () = self.place.called() => if !self.place.closing() {
                return Err(Event::MustLeave);
            },
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }

    /// Counts a session that is over as one offence if it met any, however it ended.
    pub(super) fn count_offence(&self, ending: &Ending) {
        let last = match ending {
            Ending::Said(Answer::Refused(refusal)) | Ending::Cut(refusal) => Some(refusal),
            Ending::Said(Answer::Own(_) | Answer::Backend(_)) | Ending::Gone => None,
        };
        let offended = self.offended
            || self.only_erred()
            || match last {
                // Of what stands in messages some may have been.
                Some(Refusal::TooManyErrors) => self.has_erred(),
                last => last.is_some_and(Refusal::is_offence),
            };
        if let Some(client) = self.client_address().filter(|_| offended) {
            self.service.limits.offended(client);
        }
    }

    /// Whether it got nothing done and made half of the errors that end a session, or
    /// more: who tries one bad thing after another knows when to hang up. What works
    /// makes one or two, which are always free.
    fn only_erred(&self) -> bool {
        self.machine.done() == 0 && self.has_erred()
    }

    /// Whether it made so many errors besides those that stand in messages.
    fn has_erred(&self) -> bool {
        let many = self.service.settings.error_max.div_ceil(2);
        let errors = self.machine.errors().saturating_sub(self.bad_bodies);
        errors >= many.max(FREE_ERRORS + 1)
    }
}
