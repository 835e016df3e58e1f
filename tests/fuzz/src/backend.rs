//! One connection to a backend, as a strict backend sees it: what it has taken,
//! and what must not be said to it now.

use std::sync::Arc;

use portcullis::session::machine::{Envelope, Link, Relogin};
use portcullis::smtp::command::{Bdat, Command, Mail, Rcpt};
use portcullis::smtp::ehlo::Keywords;
use portcullis::smtp::parameters::{Body, RcptParameters};
use portcullis::smtp::path::ForwardPath;
use portcullis::smtp::reply::Reply;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    keywords: Arc<Keywords>,
    relogin: Relogin,
    transaction: Option<Transaction>,
}

/// A mail transaction (RFC 5321 3.3), as far as it was taken.
#[derive(Debug)]
pub struct Transaction {
    mail: Mail,
    /// Whether it makes delivery reports.
    reports: bool,
    recipients: Vec<Rcpt>,
    /// Octets of the chunks; `None` before the first.
    chunks: Option<u64>,
}

impl Connection {
    /// As it was opened.
    pub fn new(link: &Link) -> Self {
        Self {
            keywords: link.keywords.clone(),
            relogin: link.relogin,
            transaction: None,
        }
    }

    /// Whether another connection could be told who signed in.
    pub fn relogin(&self) -> Relogin {
        self.relogin
    }

    /// What is open.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Only what it offers, and in the sequence of RFC 5321 4.1.4.
    pub fn assert_may_hear(&self, command: &Command) {
        let known = self.keywords.iter().next().is_some();
        let fits = match (command, &self.transaction) {
            (Command::Ehlo(_), _) => known,
            (Command::Helo(_), _) => !known,
            (Command::Rset | Command::Vrfy(_), _) | (Command::Auth(_), None) => true,
            (Command::Mail(mail), None) => self.offers(mail),
            (Command::Rcpt(rcpt), Some(transaction)) => {
                let has_route =
                    matches!(&rcpt.to, ForwardPath::Mailbox { route, .. } if !route.is_empty());
                let plain = rcpt.parameters == RcptParameters::default();
                transaction.chunks.is_none()
                    && !has_route
                    && (plain || self.keywords.contains("DSN"))
            }
            (Command::Data, Some(transaction)) => {
                transaction.chunks.is_none() && !transaction.recipients.is_empty()
            }
            _ => false,
        };
        assert!(fits, "{command:?} to {self:?}");
    }

    fn offers(&self, mail: &Mail) -> bool {
        let given = &mail.parameters;
        let needs = [
            ("SIZE", given.size.is_some()),
            ("8BITMIME", given.body.is_some()),
            ("SMTPUTF8", given.smtputf8),
            ("DSN", given.ret.is_some() || given.envid.is_some()),
            ("AUTH", given.auth.is_some()),
            ("REQUIRETLS", given.requiretls),
        ];
        given.body != Some(Body::BinaryMime)
            && needs
                .iter()
                .all(|(keyword, needed)| !needed || self.keywords.contains(keyword))
    }

    /// A chunk must not be taken for commands.
    pub fn assert_may_have(&self, chunk: Bdat) {
        let fits = self.keywords.contains("CHUNKING")
            && self.transaction.as_ref().is_some_and(|transaction| {
                !transaction.recipients.is_empty() && transaction.octets() + chunk.size <= 1000
            });
        assert!(fits, "{chunk:?} to {self:?}");
    }

    /// It has answered; `false`: it must not be used any more.
    pub fn answered(&mut self, command: &Command, reply: &Reply) -> bool {
        let done = reply.is_positive_completion();
        match command {
            Command::Mail(mail) if done => {
                self.transaction = Some(Transaction {
                    mail: mail.clone(),
                    reports: self.keywords.contains("DSN"),
                    recipients: Vec::new(),
                    chunks: None,
                });
            }
            Command::Rcpt(rcpt) if done => {
                let transaction = self.transaction.as_mut();
                transaction.unwrap().recipients.push(rcpt.clone());
            }
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset if done => self.transaction = None,
            // Nobody knows what it has kept.
            Command::Rset => return false,
            _ => {}
        }
        reply.code() != 421
    }

    /// It has answered to a message, or to a chunk of one.
    pub fn had(&mut self, chunk: Option<Bdat>, reply: &Reply) -> bool {
        match (chunk, &mut self.transaction) {
            (Some(chunk), Some(transaction)) if !chunk.last || reply.code() >= 400 => {
                if reply.is_positive_completion() {
                    transaction.chunks = Some(transaction.octets() + chunk.size);
                }
            }
            _ => self.transaction = None,
        }
        reply.code() != 421
    }
}

impl Transaction {
    /// Octets of the chunks so far.
    pub fn octets(&self) -> u64 {
        self.chunks.unwrap_or(0)
    }

    /// Those that it has taken.
    pub fn recipients(&self) -> usize {
        self.recipients.len()
    }

    /// Whether addresses may be other than ASCII (RFC 6531 3.4).
    pub fn smtputf8(&self) -> bool {
        self.mail.parameters.smtputf8
    }

    /// Invariant 2: the envelope is what the backend has taken, all of it but what
    /// matters to reports that it does not make.
    pub fn assert_is(&self, envelope: &Envelope) {
        assert_eq!(&self.mail.from, envelope.from());
        let (told, given) = (&self.mail.parameters, &envelope.mail.parameters);
        assert_eq!(told.smtputf8, given.smtputf8);
        assert_eq!(told.requiretls, given.requiretls);
        if self.reports {
            assert_eq!((told.ret, &told.envid), (given.ret, &given.envid));
        }
        let told = self.recipients.iter();
        let told: Vec<_> = told
            .map(|rcpt| (rcpt.to.mailbox(), &rcpt.parameters))
            .collect();
        let plain = RcptParameters::default();
        let given = envelope.recipients.iter().map(ForwardPath::mailbox);
        let asked = envelope.parameters.iter().map(|asked| {
            assert!(self.reports || asked.notify.is_none(), "{asked:?}");
            if self.reports { asked } else { &plain }
        });
        let given: Vec<_> = given.zip(asked).collect();
        assert_eq!(told, given);
    }
}
