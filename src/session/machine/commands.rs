//! What the machine does when a client gives a command.

use crate::session::offer;
use crate::session::refusal::Refusal;
use crate::smtp::command::{Auth, Command, Mail, Rcpt, Verb};
use crate::smtp::parameters::{Body, MailParameters, Submitter};
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;

use super::foresight::recipient_question;
use super::{
    Answer, Asked, Behind, Demand, Ending, Greeted, Guess, Hello, Line, Machine, Pending, Phase,
    Privacy, Protocol, Question, Relogin, Step, Wish, end, own,
};

impl Machine {
    pub(super) fn command(&mut self, phase: Phase, command: Command, behind: Behind) -> Step {
        let verb = command.verb();
        if behind == Behind::Octets && ends_group(verb) {
            return end(Refusal::Pipelined(verb));
        }
        if moves_no_mail(&command) {
            self.junk = self.junk.saturating_add(1);
            if self.junk > self.rules.junk_max
                && let Some(ending) = self.count_error()
            {
                return Step::End(ending);
            }
        }
        match command {
            Command::Ehlo(name) => self.hello_command(
                phase,
                Hello {
                    name,
                    protocol: Protocol::Esmtp,
                },
            ),
            Command::Helo(name) => self.hello_command(
                phase,
                Hello {
                    name,
                    protocol: Protocol::Smtp,
                },
            ),
            Command::StartTls => self.starttls(phase),
            Command::Auth(auth) => self.auth(phase, auth),
            Command::Mail(mail) => self.mail(phase, mail),
            Command::Rcpt(rcpt) => self.rcpt(phase, rcpt),
            Command::Data => self.data(phase),
            Command::Bdat(bdat) => self.bdat(phase, bdat),
            Command::Rset => self.rset(phase),
            Command::Noop => self.own(phase, 250, [2, 0, 0], "OK"),
            Command::Quit => {
                let text = format!("{} closing connection", self.rules.hostname);
                Step::End(Ending::Said(own(221, [2, 0, 0], &text)))
            }
            Command::Vrfy(_) | Command::Expn(_) | Command::Etrn(_) | Command::Help(_) => {
                self.optional(phase, command)
            }
        }
    }

    /// RFC 5321 4.1.4: a hello ends any transaction. The client's reply is
    /// ours; an open backend hears the new name first and may refuse it.
    fn hello_command(&mut self, phase: Phase, hello: Hello) -> Step {
        let known = matches!(&phase, Phase::Greeted(greeted) if greeted.hello == hello);
        if let Some(link) = self.link.as_ref().filter(|_| !known) {
            // A backend without keywords was greeted with HELO, for want of EHLO.
            let command = match link.keywords.iter().next() {
                Some(_) => Command::Ehlo(hello.name.clone()),
                None => Command::Helo(hello.name.clone()),
            };
            return self.await_with(phase, Pending::Hello(hello), Step::Exchange(command));
        }
        self.greet(phase, hello)
    }

    pub(super) fn greet(&mut self, phase: Phase, hello: Hello) -> Step {
        let identity = phase.identity().cloned();
        let reply = match hello.protocol {
            Protocol::Smtp => Reply::new(250, None, &self.rules.hostname),
            Protocol::Esmtp => {
                offer::keywords(&self.rules, self.privacy).to_reply(&self.rules.hostname)
            }
        };
        self.answer(
            Phase::Greeted(Greeted { hello, identity }),
            Answer::Own(reply),
        )
    }

    /// RFC 3207.
    fn starttls(&mut self, phase: Phase) -> Step {
        match (self.privacy, &phase) {
            (Privacy::Encrypted, _) => self.refuse(phase, Refusal::Sequence("Already encrypted")),
            (Privacy::Clear, Phase::Mail(..) | Phase::Chunks(..)) => {
                self.refuse(phase, Refusal::Sequence("Not inside a mail transaction"))
            }
            (Privacy::Clear, Phase::Start | Phase::Greeted(_) | Phase::Failed(..)) => {
                let Answer::Own(reply) = own(220, [2, 0, 0], "Ready to start TLS") else {
                    return end(Refusal::BackendNonsense);
                };
                self.await_with(Phase::Start, Pending::Upgrade, Step::Upgrade(reply))
            }
        }
    }

    /// RFC 4954 4.
    fn auth(&mut self, phase: Phase, auth: Auth) -> Step {
        if self.privacy == Privacy::Clear {
            return self.refuse(phase, Refusal::AuthNeedsTls);
        }
        match &phase {
            Phase::Start => self.refuse(phase, Refusal::Sequence("Say EHLO first")),
            Phase::Mail(..) | Phase::Chunks(..) => {
                self.refuse(phase, Refusal::Sequence("Not inside a mail transaction"))
            }
            Phase::Greeted(greeted) | Phase::Failed(greeted, _) if greeted.identity.is_some() => {
                self.refuse(phase, Refusal::Sequence("Already authenticated"))
            }
            Phase::Greeted(_) | Phase::Failed(..) => {
                if offer::mechanisms(&self.rules).contains(&auth.mechanism) {
                    let phase = phase.without_transaction();
                    self.ask(phase, Asked::SignIn(auth), Question::SignIn)
                } else {
                    self.refuse(phase, Refusal::Mechanism)
                }
            }
        }
    }

    fn mail(&mut self, phase: Phase, mail: Mail) -> Step {
        match phase {
            Phase::Start => self.refuse(phase, Refusal::Sequence("Say HELO or EHLO first")),
            Phase::Mail(..) | Phase::Chunks(..) => {
                self.refuse(phase, Refusal::Sequence("Sender already given"))
            }
            Phase::Greeted(greeted) | Phase::Failed(greeted, _) => {
                let objection = self.demand(&greeted).or_else(|| self.mail_objection(&mail));
                let phase = Phase::Greeted(greeted);
                match objection {
                    Some(refusal) => self.refuse_transaction(phase, refusal),
                    None => self.ask(phase, Asked::Message(mail), Question::Message),
                }
            }
        }
    }

    fn demand(&self, greeted: &Greeted) -> Option<Refusal> {
        match (self.rules.demand, self.privacy) {
            (Demand::Tls | Demand::TlsAndAuth, Privacy::Clear) => Some(Refusal::TlsRequired),
            (Demand::TlsAndAuth, Privacy::Encrypted) if greeted.identity.is_none() => {
                Some(Refusal::AuthRequired)
            }
            _ => None,
        }
    }

    fn mail_objection(&self, mail: &Mail) -> Option<Refusal> {
        let MailParameters {
            size,
            body,
            smtputf8,
            ret,
            envid,
            auth: _,
            requiretls,
        } = &mail.parameters;
        let needs = [
            (
                "8BITMIME",
                matches!(body, Some(Body::SevenBit | Body::EightBitMime)),
            ),
            ("BINARYMIME", matches!(body, Some(Body::BinaryMime))),
            ("SMTPUTF8", *smtputf8),
            ("DSN", ret.is_some() || envid.is_some()),
            ("REQUIRETLS", *requiretls),
        ];
        if let Some((keyword, _)) = needs
            .into_iter()
            .find(|(keyword, needed)| *needed && !self.offers(keyword))
        {
            return Some(Refusal::NotOffered(keyword));
        }
        if size.is_some_and(|size| size > self.rules.max_size) {
            return Some(Refusal::TooLarge);
        }
        let ascii = match &mail.from {
            ReversePath::Null => true,
            ReversePath::Mailbox(mailbox) => mailbox.is_ascii(),
        };
        (!ascii && !smtputf8).then_some(Refusal::NeedsSmtpUtf8)
    }

    fn rcpt(&mut self, phase: Phase, rcpt: Rcpt) -> Step {
        match &phase {
            Phase::Mail(greeted, envelope) => {
                let taken = envelope.recipients.len();
                if let Some(refusal) = self.rcpt_objection(&envelope.mail, taken, &rcpt) {
                    return self.refuse(phase, refusal);
                }
                let question = recipient_question(greeted, &rcpt);
                self.ask(phase, Asked::Recipient(rcpt), question)
            }
            Phase::Failed(_, answer) => {
                let answer = answer.clone();
                self.answer(phase, answer)
            }
            Phase::Start | Phase::Greeted(_) | Phase::Chunks(..) => {
                self.refuse(phase, Refusal::Sequence("Say MAIL first"))
            }
        }
    }

    pub(super) fn offers(&self, extension: &str) -> bool {
        offer::offers(&self.rules, self.privacy, extension)
    }

    fn rset(&mut self, phase: Phase) -> Step {
        let done = own(250, [2, 0, 0], "OK");
        match phase {
            Phase::Mail(..) | Phase::Chunks(..) => self.clear(phase.without_transaction(), done),
            Phase::Start | Phase::Greeted(_) | Phase::Failed(..) => {
                self.answer(phase.without_transaction(), done)
            }
        }
    }

    /// Resets the backend's transaction, then gives `answer`.
    pub(super) fn clear(&mut self, phase: Phase, answer: Answer) -> Step {
        if self.link.is_none() {
            return self.answer(phase, answer);
        }
        self.await_with(phase, Pending::Clear(answer), Step::Exchange(Command::Rset))
    }

    fn optional(&mut self, phase: Phase, command: Command) -> Step {
        let verb = command.verb();
        if !offer::allows(&self.rules, verb) {
            return self.refuse(phase, Refusal::Disabled(verb));
        }
        match phase {
            Phase::Start => self.refuse(phase, Refusal::Sequence("Say HELO or EHLO first")),
            _ => self.with_link(phase, Wish::Pass(command)),
        }
    }

    pub(super) fn with_link(&mut self, phase: Phase, wish: Wish) -> Step {
        if self.link.is_some() {
            return self.send(phase, wish, Line::Standing);
        }
        match phase.identity() {
            Some(identity) if identity.relogin == Relogin::Impossible => end(Refusal::SignInLost),
            _ => self.await_with(phase, Pending::Connect(wish), Step::Connect),
        }
    }

    pub(super) fn send(&mut self, phase: Phase, wish: Wish, line: Line) -> Step {
        match wish {
            Wish::Mail(mail) => match self.printable(&phase, &mail) {
                Some(printed) => self.await_with(
                    phase,
                    Pending::Mail(mail, line),
                    Step::Exchange(Command::Mail(printed)),
                ),
                None => self.refuse_transaction(phase, Refusal::BackendChanged),
            },
            Wish::Auth(auth) => {
                let guess = Guess::new(&auth);
                self.await_with(
                    phase,
                    Pending::Auth(guess),
                    Step::Exchange(Command::Auth(auth)),
                )
            }
            Wish::Pass(command) => self.await_with(phase, Pending::Pass, Step::Exchange(command)),
            Wish::Again => self.mail_again(phase),
        }
    }

    /// The MAIL command for the backend: only parameters that it lists now.
    /// `None` when one that carries meaning would be lost.
    pub(super) fn printable(&self, phase: &Phase, mail: &Mail) -> Option<Mail> {
        let keywords = self.link.as_ref().map(|link| &link.keywords)?;
        let given = &mail.parameters;
        let body = match given.body {
            Some(Body::SevenBit) | None => given.body.filter(|_| keywords.contains("8BITMIME")),
            Some(Body::EightBitMime) if keywords.contains("8BITMIME") => given.body,
            Some(Body::EightBitMime | Body::BinaryMime) => return None,
        };
        let lost = (given.smtputf8 && !keywords.contains("SMTPUTF8"))
            || (given.requiretls && !keywords.contains("REQUIRETLS"));
        if lost {
            return None;
        }
        // RFC 4954 5: the word of a client that is not authenticated is worth nothing.
        let auth = given
            .auth
            .clone()
            .filter(|_| keywords.contains("AUTH"))
            .map(|submitter| match phase.identity() {
                Some(_) => submitter,
                None => Submitter::Unknown,
            });
        let size = given.size.filter(|_| keywords.contains("SIZE"));
        // They only matter to delivery reports (RFC 3461 4.3, 4.4).
        let reports = keywords.contains("DSN");
        Some(Mail {
            from: mail.from.clone(),
            parameters: MailParameters {
                size,
                body,
                auth,
                ret: given.ret.filter(|_| reports),
                envid: given.envid.clone().filter(|_| reports),
                ..given.clone()
            },
        })
    }
}

/// The RCPT command for the backend. No server obeys a source route any more
/// and RFC 5321 appendix F.2 lets it be left out: it is.
pub(super) fn without_route(rcpt: &Rcpt) -> Rcpt {
    let to = match &rcpt.to {
        ForwardPath::Postmaster => ForwardPath::Postmaster,
        ForwardPath::Mailbox { mailbox, .. } => ForwardPath::Mailbox {
            route: Vec::new(),
            mailbox: mailbox.clone(),
        },
    };
    Rcpt {
        to,
        parameters: rcpt.parameters.clone(),
    }
}

/// Commands that a client may send without end and that cost it nothing.
fn moves_no_mail(command: &Command) -> bool {
    match command {
        Command::Ehlo(_)
        | Command::Helo(_)
        | Command::Rset
        | Command::Noop
        | Command::Vrfy(_)
        | Command::Expn(_)
        | Command::Etrn(_)
        | Command::Help(_) => true,
        Command::Bdat(bdat) => bdat.size == 0 && !bdat.last,
        Command::StartTls
        | Command::Auth(_)
        | Command::Mail(_)
        | Command::Rcpt(_)
        | Command::Data
        | Command::Quit => false,
    }
}

/// RFC 2920 3.1; AUTH by RFC 4954 4, STARTTLS by RFC 3207 4.
/// QUIT is missing: it ends the session whatever follows.
fn ends_group(verb: Verb) -> bool {
    match verb {
        Verb::Ehlo
        | Verb::Helo
        | Verb::StartTls
        | Verb::Auth
        | Verb::Data
        | Verb::Noop
        | Verb::Vrfy
        | Verb::Expn => true,
        Verb::Mail
        | Verb::Rcpt
        | Verb::Bdat
        | Verb::Rset
        | Verb::Etrn
        | Verb::Help
        | Verb::Quit => false,
    }
}
