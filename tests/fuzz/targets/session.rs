//! The session machine under any events: its six invariants, the relay guard, and
//! that nobody but the backend takes a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::policy::{Mode, Standing, Verdict};
use portcullis::session::machine::*;
use portcullis::smtp::command::{AuthLine, Command, Rcpt, Verb};
use portcullis::smtp::parameters::RcptParameters;
use portcullis::smtp::path::ForwardPath;
use portcullis::smtp::reply::Reply;
use portcullis_fuzz::backend::Connection;
use portcullis_fuzz::events::{client, consent, fitting, rules, stray, verdict};
use portcullis_fuzz::take_octet;

/// More steps than any one command needs that a client gives.
const STEPS_MAX: u32 = 16;

/// A machine, what it was last told to do, and what it must not forget.
struct Session {
    machine: Machine,
    rules: Rules,
    step: Step,
    backend: Option<Connection>,
    /// As it stood when the client last had the word.
    envelope: Option<Envelope>,
    /// Octets of the chunks that we keep.
    kept: u64,
    /// The last command, and how many steps came of it.
    verb: Option<Verb>,
    steps: u32,
    /// The recipient that policy last let pass.
    passed: Option<ForwardPath>,
    /// How far a message is that its sender has ended.
    message: Option<Message>,
    /// Whether the sign-in can be told to another connection.
    relogin: Relogin,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Ended,
    Passed,
    /// On its way to the backend.
    Sent,
}

fn heard(event: &Event) -> Option<&Reply> {
    match event {
        Event::Answered(Ok(reply))
        | Event::Moved(Moved::Answered(reply) | Moved::Interrupted(reply))
        | Event::Connected(Err(Unavailable::Refused(reply))) => Some(reply),
        _ => None,
    }
}

fn is_done(event: &Event) -> bool {
    matches!(event, Event::Answered(Ok(reply)) if reply.is_positive_completion())
}

/// Verbs behind which a client must wait (RFC 2920 3.1).
fn must_wait(verb: Verb) -> bool {
    use Verb::{Auth, Data, Ehlo, Expn, Helo, Noop, StartTls, Vrfy};
    matches!(
        verb,
        Data | Ehlo | Helo | StartTls | Auth | Noop | Vrfy | Expn
    )
}

/// A recipient of ours in whatever way a backend may read it.
fn is_ours(path: &ForwardPath) -> bool {
    let Some(mailbox) = path.mailbox() else {
        return true;
    };
    let printed = mailbox.to_string().to_ascii_lowercase();
    printed
        .strip_suffix("@example.org")
        .is_some_and(|local| !local.contains(['@', '%', '!', '\u{ff20}', '\u{ff05}', '\u{ff01}']))
}

impl Session {
    fn new(rules: Rules, privacy: Privacy) -> Self {
        let mut session = Self {
            machine: Machine::new(rules.clone(), privacy),
            rules,
            step: Step::Listen,
            backend: None,
            envelope: None,
            kept: 0,
            verb: None,
            steps: 0,
            passed: None,
            message: None,
            relogin: Relogin::Impossible,
        };
        session.advance(Event::Opened);
        session
    }

    fn advance(&mut self, event: Event) {
        let before = self.step.clone();
        let hello = self.machine.hello().cloned();
        let identity = self.machine.identity().cloned();
        self.happened(&before, &event);
        let step = self.machine.advance(event.clone());
        match &before {
            Step::End(_) => assert_eq!(step, Step::End(Ending::Gone), "invariant 6"),
            _ => self.check_step(&before, &event, &step),
        }
        self.check_hello(hello.as_ref(), &before, &event);
        if identity.is_none() && self.machine.identity().is_some() {
            self.check_sign_in(&before, &event);
        }
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "it does not come to an end");
        if self.rules.mode == Mode::Enforce {
            assert!(self.machine.errors() <= self.rules.errors_max + 1);
        }
        match step {
            Step::Answer(_) | Step::Listen => self.rest(),
            Step::End(_) => {}
            _ => assert!(
                self.machine.envelope().is_none()
                    || self.machine.envelope() == self.envelope.as_ref(),
                "invariant 2"
            ),
        }
        self.step = step;
    }

    /// What the event means to the backend and to the message.
    fn happened(&mut self, before: &Step, event: &Event) {
        let chunk = match before {
            Step::RelayChunk(bdat) => Some(*bdat),
            _ => None,
        };
        let open = match (before, event, &mut self.backend) {
            (Step::Connect, Event::Connected(Ok(link)), backend) => {
                *backend = Some(Connection::new(link));
                true
            }
            (Step::Exchange(command), Event::Answered(Ok(reply)), Some(backend)) => {
                backend.answered(command, reply)
            }
            (Step::ExchangeAuth(_), Event::Answered(Ok(reply)), _) => reply.code() != 421,
            (
                Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody,
                Event::Moved(Moved::Answered(reply)),
                Some(backend),
            ) => backend.had(chunk, reply),
            (_, Event::Moved(_) | Event::Answered(Err(Lost)) | Event::Upgraded, _) => false,
            _ => true,
        };
        if !open {
            self.backend = None;
        }
        match (before, event) {
            (Step::Judge(Question::Recipient(_, path)), Event::Judged(Verdict::Pass)) => {
                self.passed = Some(path.clone());
            }
            (Step::Weigh, Event::Weighed(Weighed::Pass)) => self.message = Some(Message::Passed),
            (Step::SpoolChunk(bdat), Event::Spooled(Spooled::Kept)) => self.kept += bdat.size,
            (Step::Answer(_) | Step::Listen, event) => {
                self.verb = match event {
                    Event::Command(Ok(command), _) => Some(command.verb()),
                    _ => None,
                };
                self.steps = 0;
            }
            (Step::Challenge(_), Event::AuthLine(..)) => self.steps = 0,
            _ => {}
        }
    }

    fn check_step(&mut self, before: &Step, event: &Event, step: &Step) {
        let idle = matches!(before, Step::Answer(_) | Step::Listen);
        let waits = match (before, event) {
            (Step::Challenge(_), Event::AuthLine(_, Behind::Octets)) => true,
            (_, Event::Command(Ok(command), Behind::Octets)) => idle && must_wait(command.verb()),
            _ => false,
        };
        assert!(!waits || matches!(step, Step::End(_)), "invariant 5");
        let sends = matches!(before, Step::Exchange(Command::Data))
            && matches!(event, Event::Answered(Ok(reply)) if reply.code() == 354);
        match step {
            Step::Answer(answer) => self.check_answer(answer, before, event),
            Step::End(Ending::Said(Answer::Own(said))) => {
                assert_eq!((said.code(), self.verb), (221, Some(Verb::Quit)));
            }
            Step::End(Ending::Said(Answer::Backend(said))) => assert!(said.code() >= 400),
            Step::End(_) | Step::Listen | Step::Discard(_) => {}
            Step::Challenge(said) => {
                assert_eq!((heard(event), said.code()), (Some(said), 334));
                assert_eq!(self.verb, Some(Verb::Auth));
            }
            Step::Upgrade(_) => assert_eq!(self.verb, Some(Verb::StartTls)),
            Step::Judge(Question::Recipient(standing, _)) => {
                let signed_in = self.machine.identity().is_some();
                assert_eq!(*standing == Standing::Authenticated, signed_in);
            }
            Step::Judge(_) => {}
            Step::Connect => {
                assert!(self.backend.is_none(), "one connection at a time");
                let lost = self.machine.identity().is_some();
                assert!(!lost || self.relogin == Relogin::Possible);
            }
            Step::Exchange(command) => self.check_command(command),
            // Whatever is not the end of it is a guess, and asked about first.
            Step::ExchangeAuth(line) => assert!(match before {
                Step::Challenge(_) => *line == AuthLine::Cancel,
                Step::Judge(Question::SignIn) => {
                    let passed = matches!(event, Event::Judged(Verdict::Pass));
                    passed == (*line != AuthLine::Cancel)
                }
                _ => false,
            }),
            Step::RelayBody(said) => {
                assert!(sends && heard(event) == Some(said), "invariant 1");
                self.send(Bodies::Relayed, None);
            }
            Step::DeliverBody => {
                assert!(sends, "invariant 1");
                let transaction = self.backend.as_ref().unwrap().transaction().unwrap();
                transaction.assert_is(self.machine.envelope().unwrap());
                self.send(Bodies::Judged, Some(Message::Passed));
            }
            Step::RelayChunk(bdat) => {
                self.backend.as_ref().unwrap().assert_may_have(*bdat);
                self.send(Bodies::Relayed, None);
                self.message = self.message.filter(|_| bdat.last);
            }
            Step::SpoolBody(said) => {
                assert_eq!((said.code(), self.kept), (354, 0));
                self.keep();
                self.message = Some(Message::Ended);
            }
            Step::SpoolChunk(bdat) => {
                self.keep();
                assert!(self.kept + bdat.size <= self.rules.max_size);
                self.message = bdat.last.then_some(Message::Ended);
            }
            Step::Weigh => assert_eq!(self.message, Some(Message::Ended)),
        }
    }

    /// The one way of a message to the backend, and it is taken once.
    fn send(&mut self, bodies: Bodies, message: Option<Message>) {
        assert_eq!((self.rules.bodies, self.message), (bodies, message));
        self.message = Some(Message::Sent);
    }

    fn keep(&self) {
        assert_eq!((self.rules.bodies, self.message), (Bodies::Judged, None));
        let envelope = self.machine.envelope().unwrap();
        assert!(!envelope.recipients.is_empty());
    }

    fn check_command(&self, command: &Command) {
        let backend = self.backend.as_ref().expect("an open connection");
        backend.assert_may_hear(command);
        match command {
            Command::Rcpt(rcpt) => self.check_recipient(rcpt),
            Command::Data if self.rules.bodies == Bodies::Judged => {
                assert_eq!(self.message, Some(Message::Passed), "invariant 1");
            }
            Command::Data => assert_eq!(self.verb, Some(Verb::Data)),
            Command::Auth(_) => {
                assert_eq!(self.machine.privacy(), Privacy::Encrypted);
                assert!(self.machine.identity().is_none());
            }
            _ => {}
        }
    }

    /// The relay guard: strangers reach our recipients only. A connection may be
    /// told again of those that were taken.
    fn check_recipient(&self, rcpt: &Rcpt) {
        let signed_in = self.machine.identity().is_some();
        assert!(signed_in || is_ours(&rcpt.to), "{rcpt:?}");
        let known = match (&self.envelope, self.message) {
            (Some(envelope), Some(Message::Passed)) => envelope.recipients.as_slice(),
            _ => self.passed.as_slice(),
        };
        let mut known = known.iter().map(ForwardPath::mailbox);
        assert!(known.any(|mailbox| mailbox == rcpt.to.mailbox()));
        let transaction = self.backend.as_ref().and_then(Connection::transaction);
        let transaction = transaction.expect("a transaction");
        assert!(transaction.recipients() < self.rules.recipients_cap);
        assert!(rcpt.to.is_ascii() || transaction.smtputf8());
        let plain = rcpt.parameters == RcptParameters::default();
        assert!(plain || self.rules.backend.contains("DSN"), "{rcpt:?}");
    }

    /// Invariant 4, and that only the backend takes a message.
    fn check_answer(&self, answer: &Answer, before: &Step, event: &Event) {
        let said = match answer {
            Answer::Refused(refusal) => return assert!(refusal.reply().code() >= 400),
            Answer::Backend(said) if said.code() >= 400 => return,
            Answer::Own(said) | Answer::Backend(said) => said,
        };
        assert!((200..300).contains(&said.code()));
        let asked_for = match (answer, before) {
            (Answer::Own(_), Step::SpoolChunk(bdat)) => {
                matches!(event, Event::Spooled(Spooled::Kept)) && !bdat.last
            }
            (Answer::Own(_), _) => {
                let ours = [Verb::Ehlo, Verb::Helo, Verb::Noop, Verb::Rset];
                self.verb.is_none_or(|verb| ours.contains(&verb))
            }
            (_, Step::Exchange(Command::Auth(_))) => said.code() == 235,
            (_, Step::ExchangeAuth(line)) => said.code() == 235 && *line != AuthLine::Cancel,
            (_, Step::Exchange(command)) => {
                let theirs = [Verb::Mail, Verb::Rcpt, Verb::Vrfy];
                self.verb == Some(command.verb()) && theirs.contains(&command.verb())
            }
            // Before the end of the message a good word means nothing.
            (_, Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody) => {
                matches!(event, Event::Moved(Moved::Answered(_)))
            }
            _ => false,
        };
        assert!(asked_for, "invariant 4: {answer:?} to {before:?}");
        let theirs = matches!(answer, Answer::Backend(_));
        assert!(!theirs || heard(event) == Some(said), "an invented word");
        let taken = theirs && self.message == Some(Message::Sent);
        assert!(self.message.is_none() || taken, "nobody took it");
    }

    /// Invariant 2, the hello: an open backend has heard it first.
    fn check_hello(&self, known: Option<&Hello>, before: &Step, event: &Event) {
        let Some(hello) = self.machine.hello().filter(|hello| Some(*hello) != known) else {
            return;
        };
        match before {
            Step::Exchange(Command::Ehlo(name) | Command::Helo(name)) => {
                assert_eq!(name, &hello.name);
                let hangs_up = heard(event).is_some_and(|said| said.code() == 421);
                let is_gone = hangs_up || matches!(event, Event::Answered(Err(Lost)));
                assert!(is_done(event) || (is_gone && !self.machine.has_link()));
            }
            _ => assert!(self.backend.is_none(), "invariant 2"),
        }
    }

    fn check_sign_in(&mut self, before: &Step, event: &Event) {
        let asked = matches!(
            before,
            Step::Exchange(Command::Auth(_)) | Step::ExchangeAuth(AuthLine::Response(_))
        );
        assert!(asked && heard(event).is_some_and(|said| said.code() == 235));
        assert_eq!(self.machine.privacy(), Privacy::Encrypted);
        self.relogin = self.backend.as_ref().unwrap().relogin();
    }

    /// Where the client has the word: the transaction here is the one that the
    /// backend has open, and there is none there that is not here.
    fn rest(&mut self) {
        let open = self.backend.as_ref().and_then(Connection::transaction);
        match (self.machine.envelope(), open) {
            (Some(envelope), Some(transaction)) => {
                transaction.assert_is(envelope);
                assert!(!self.machine.at_rest());
                let octets = match self.rules.bodies {
                    Bodies::Relayed => transaction.octets(),
                    Bodies::Judged => self.kept,
                };
                assert_eq!(self.machine.octets(), octets);
            }
            (None, None) => self.kept = 0,
            (here, there) => panic!("invariant 2: {here:?} here, {there:?} there"),
        }
        if matches!(self.step, Step::Upgrade(_)) {
            let kept = self.machine.hello().is_some() || self.machine.identity().is_some();
            assert!(!kept && self.backend.is_none(), "invariant 3");
        }
        self.envelope = self.machine.envelope().cloned();
        self.message = None;
    }

    /// A backend that takes every connection and loses it at the first word, or
    /// takes every envelope and loses the connection before the message.
    fn lose(&mut self, takes_envelopes: bool) {
        loop {
            let event = match &self.step {
                Step::Exchange(Command::Data) => Event::Answered(Err(Lost)),
                Step::Exchange(_) | Step::ExchangeAuth(_) if !takes_envelopes => {
                    Event::Answered(Err(Lost))
                }
                Step::RelayBody(_) | Step::RelayChunk(_) | Step::DeliverBody => {
                    Event::Moved(Moved::Lost)
                }
                step => match consent(step) {
                    Some(consent) => consent,
                    None => break,
                },
            };
            self.advance(event);
        }
    }

    /// Looks ahead as the loop does where a client pipelines: what was foreseen
    /// passes the guard, and is what the machine then says if all is taken.
    fn pipeline(&mut self, data: &mut &[u8]) {
        let mut group = Vec::new();
        for _ in 0..take_octet(data) % 4 + 1 {
            let Event::Command(Ok(command), behind) = client(take_octet(data), data) else {
                break;
            };
            let Some(foreseen) = self.machine.foresee(&command, behind, group.len()) else {
                break;
            };
            match (&foreseen.command, &foreseen.question) {
                (Command::Rcpt(rcpt), Some(question)) if verdict(question) == Verdict::Pass => {
                    assert!(self.machine.identity().is_some() || is_ours(&rcpt.to));
                }
                (Command::Rcpt(_), Some(_)) => break,
                (Command::Data, None) => assert_eq!(self.rules.bodies, Bodies::Relayed),
                _ => panic!("{foreseen:?}"),
            }
            group.push((command, behind, foreseen));
            // A client waits behind DATA, or the machine foresees nothing.
            if matches!(group.last(), Some((Command::Data, ..))) {
                break;
            }
        }
        for (command, behind, foreseen) in group {
            self.advance(consent(&self.step).unwrap());
            assert!(matches!(self.step, Step::Answer(Answer::Backend(_))));
            self.advance(Event::Command(Ok(command), behind));
            if let Some(question) = foreseen.question {
                assert_eq!(self.step, Step::Judge(question));
                self.advance(Event::Judged(Verdict::Pass));
            }
            assert_eq!(self.step, Step::Exchange(foreseen.command));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (steer, backend) = (take_octet(&mut data), take_octet(&mut data));
    let privacy = if steer & 32 == 0 {
        Privacy::Encrypted
    } else {
        Privacy::Clear
    };
    let mut session = Session::new(rules(steer, backend), privacy);
    while !data.is_empty() {
        let over = matches!(session.step, Step::End(_));
        match (take_octet(&mut data), consent(&session.step)) {
            (0..200, Some(consent)) => session.advance(consent),
            (200..208, _) => session.pipeline(&mut data),
            (at @ 208..212, _) => session.lose(at < 210),
            (254.., _) => session.advance(stray(&mut data)),
            _ => session.advance(fitting(&session.step, &mut data)),
        }
        if over {
            break;
        }
    }
});
