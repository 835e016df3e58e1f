//! Which commands that a client pipelined could be told to the backend with the one
//! on its way, and what must hold of a recipient either way.

use crate::policy::Standing;
use crate::session::refusal::Refusal;
use crate::smtp::command::{Command, Mail, Rcpt};
use crate::smtp::parameters::RcptParameters;

use super::{Behind, Bodies, Foreseen, Greeted, Machine, Pending, Phase, Question, State};

impl Machine {
    pub(super) fn rcpt_objection(&self, mail: &Mail, taken: usize, rcpt: &Rcpt) -> Option<Refusal> {
        if taken >= self.rules.recipients_cap {
            return Some(Refusal::TooManyRecipients);
        }
        let is_ascii = rcpt.to.is_ascii() && rcpt.parameters.is_ascii();
        if !is_ascii && !mail.parameters.smtputf8 {
            return Some(Refusal::NeedsSmtpUtf8);
        }
        (rcpt.parameters != RcptParameters::default() && !self.offers("DSN"))
            .then_some(Refusal::NotOffered("DSN"))
    }

    /// What a command will lead to that the client has pipelined behind the MAIL or
    /// RCPT on its way to the backend, and behind `ahead` more recipients, if all of
    /// them are taken; `None`: nothing that the backend could be told together
    /// with those.
    pub fn foresee(&self, command: &Command, behind: Behind, ahead: usize) -> Option<Foreseen> {
        let State::Pending(phase, pending) = &self.state else {
            return None;
        };
        let (greeted, mail, taken) = match (phase, pending) {
            (Phase::Greeted(greeted), Pending::Mail(mail, _)) => (greeted, mail, 0),
            (Phase::Mail(greeted, envelope), Pending::Rcpt(_)) => {
                let taken = envelope.recipients.len().saturating_add(1);
                (greeted, &envelope.mail, taken)
            }
            _ => return None,
        };
        let taken = taken.saturating_add(ahead);
        match command {
            Command::Rcpt(rcpt) if self.rcpt_objection(mail, taken, rcpt).is_none() => {
                let printed = self.rcpt_printable(rcpt)?;
                Some(Foreseen {
                    question: Some(recipient_question(greeted, rcpt)),
                    command: Command::Rcpt(printed),
                })
            }
            // It ends its group (RFC 2920 3.1).
            Command::Data if behind == Behind::Nothing && taken > 0 => {
                (self.rules.bodies == Bodies::Relayed).then_some(Foreseen {
                    question: None,
                    command: Command::Data,
                })
            }
            _ => None,
        }
    }
}

pub(super) fn recipient_question(greeted: &Greeted, rcpt: &Rcpt) -> Question {
    let standing = match greeted.identity {
        Some(_) => Standing::Authenticated,
        None => Standing::Stranger,
    };
    Question::Recipient(standing, rcpt.to.clone())
}
