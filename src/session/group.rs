//! Commands that a client has pipelined go to the backend together (RFC 2920).
//!
//! The machine knows nothing of it: it asks for one exchange after the other, and
//! finds that some have been begun before. Nothing is told to the backend that the
//! machine would not have told it, were everything before it taken; what was told
//! for nothing is refused by the backend, or its connection is closed.

use std::collections::VecDeque;

use super::Session;
use super::machine::{Behind, Event, Question};
use crate::backend::{Conversation, Lost};
use crate::policy::{Mode, Verdict};
use crate::smtp::command::Command;

/// What was found out about pipelined recipients before their turn.
#[derive(Default)]
pub(super) struct Group {
    // In a box, since most sessions never have one.
    #[expect(clippy::box_collection, reason = "a session that waits shall be small")]
    verdicts: Option<Box<VecDeque<(Question, Verdict)>>>,
}

impl Group {
    /// The verdict, if the question has been asked already.
    pub(super) fn verdict(&mut self, question: &Question) -> Option<Verdict> {
        let verdicts = self.verdicts.as_mut()?;
        match verdicts.pop_front() {
            Some((asked, verdict)) if asked == *question => Some(verdict),
            _ => {
                self.verdicts = None;
                None
            }
        }
    }

    fn asked(&mut self, question: Question, verdict: Verdict) {
        let verdicts = self.verdicts.get_or_insert_default();
        verdicts.push_back((question, verdict));
    }
}

impl Session<'_> {
    pub(super) async fn exchange(&mut self, command: &Command) -> Event {
        let sent = self.backend.as_ref().is_some_and(|to| to.has_sent(command));
        // MAIL may be said again over another connection, and its group with it.
        if !sent && !matches!(command, Command::Mail(_) | Command::Rcpt(_)) {
            self.group = Group::default();
        }
        let alone = sent || !self.begins_group(command) || self.client.upcoming(0).is_none();
        let rest = if alone {
            Vec::new()
        } else {
            Box::pin(self.rest_of_group()).await
        };
        let answered = match &mut self.backend {
            Some(backend) if sent => backend.next_of_group().await,
            Some(backend) => backend.exchange_first(command, rest).await,
            None => Err(Lost::Closed),
        };
        self.answered(answered)
    }

    /// Whether others may go to the backend with this command.
    fn begins_group(&self, command: &Command) -> bool {
        let begins = matches!(command, Command::Mail(_) | Command::Rcpt(_));
        let pipelines = |backend: &Conversation| backend.keywords.contains("PIPELINING");
        // MODE=monitor logs each verdict where it falls.
        begins
            && self.service.policy.mode != Mode::Monitor
            && self.backend.as_ref().is_some_and(pipelines)
    }

    /// What the client has pipelined behind a command and goes with it.
    async fn rest_of_group(&mut self) -> Vec<Command> {
        let mut rest = Vec::new();
        let mut before = std::mem::take(&mut self.group);
        while let Some((command, behind)) = self.client.upcoming(rest.len()) {
            let Some(foreseen) = self.machine.foresee(command, behind, rest.len()) else {
                break;
            };
            if let Some(question) = foreseen.question {
                let verdict = match before.verdict(&question) {
                    Some(verdict) => verdict,
                    None => self.verdict(&question).await,
                };
                let passes = verdict == Verdict::Pass;
                self.group.asked(question, verdict);
                if !passes {
                    break;
                }
            }
            rest.push(foreseen.command);
            if behind == Behind::Nothing {
                break;
            }
        }
        rest
    }
}
