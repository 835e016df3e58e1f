//! The dialogue with one filter about one message, on a connection of its own.
//!
//! The message is complete, so all steps follow each other without the client.
//! Deadlines are the caller's: it drops the dialogue when time is up. Must
//! never take an answer for what it is not: what does not fit the step ends
//! the dialogue.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::changes::{Changes, Reading};
use super::fields::{Fields, Front, TooLong};
use super::new_body::NewBody;
use super::packet::{Answer, Command, DATA_MAX};
use super::terms::{Step, Terms};
use super::{macros, refusal};
use crate::policy::content::{Change, Word};
use crate::scan::{Message, ScanError};
use crate::spool::Body;
use crate::tls::Stream;

/// Most "still at it" in a row; one a second would be lavish, and the deadline
/// is sooner.
const PROGRESS_MAX: u32 = 10_000;

/// Room for most answers; grows to the bound of a packet.
const INPUT_CAPACITY: usize = 1024;

/// How long the goodbye may take: the filter's word is known, and must not be
/// lost to a filter that reads nothing any more.
const QUIT_PATIENCE: Duration = Duration::from_secs(1);

/// Why the dialogue ends before the end of the message.
enum End {
    /// The filter has made up its mind.
    Decided(Word),
    Failed(ScanError),
}

impl From<ScanError> for End {
    fn from(error: ScanError) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<TooLong> for End {
    fn from(_: TooLong) -> Self {
        Self::Decided(refusal::of_long_header_section())
    }
}

/// How the dialogue goes on.
#[derive(PartialEq, Eq)]
enum Next {
    /// With the next packet.
    Any,
    /// With the next packet of another kind.
    OtherStep,
}

/// What the filter wants changed.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) changes: Vec<Change>,
    /// In the place of the message's own.
    pub(super) body: Option<Body>,
}

/// A connection on which terms have been agreed.
pub(super) struct Dialogue {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    terms: Terms,
}

impl Dialogue {
    /// Negotiates on a fresh connection.
    pub(super) async fn open(mut stream: Box<dyn Stream>) -> Result<Self, ScanError> {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        Terms::offer().encode(&mut output);
        stream.write_all(&output).await?;
        let answer = read(&mut *stream, &mut input).await?;
        // libmilter hangs up without a word on a server that offers less than
        // its filter insists on.
        let answer = answer.ok_or_else(|| {
            ScanError::Protocol(
                "hung up at the negotiation; does it insist on changing sender or recipients?"
                    .to_owned(),
            )
        })?;
        let terms = Terms::agree(answer).map_err(ScanError::Protocol)?;
        output.clear();
        Ok(Self {
            stream,
            input,
            output,
            terms,
        })
    }

    /// The version of the protocol that was agreed on.
    pub(super) fn version(&self) -> u32 {
        self.terms.version
    }

    /// Tells the filter everything and returns its word and its changes.
    pub(super) async fn judge(
        &mut self,
        message: &Message<'_>,
    ) -> Result<(Word, Wishes), ScanError> {
        match self.tell(message).await {
            Ok(told) => Ok(told),
            Err(End::Decided(word)) => Ok((word, Wishes::default())),
            Err(End::Failed(error)) => Err(error),
        }
    }

    /// Says goodbye. The filter does not answer it.
    pub(super) async fn quit(mut self) {
        self.output.clear();
        Command::Quit.encode(&mut self.output);
        let goodbye = async {
            self.stream.write_all(&self.output).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(QUIT_PATIENCE, goodbye).await;
    }

    async fn tell(&mut self, message: &Message<'_>) -> Result<(Word, Wishes), End> {
        self.tell_envelope(message).await?;
        self.tell_content(message).await?;
        self.send(Step::EndOfBody, Command::EndOfBody, message, None)
            .await?;
        self.conclude(message).await
    }

    async fn tell_envelope(&mut self, message: &Message<'_>) -> Result<(), End> {
        let connect = Command::Connect {
            name: &macros::client_name(message),
            address: message.client,
        };
        self.step(Step::Connect, connect, message).await?;
        self.step(Step::Helo, Command::Helo(message.hello), message)
            .await?;
        let sender = format!("<{}>", message.sender);
        self.step(Step::Mail, Command::Mail(&sender), message)
            .await?;
        for recipient in message.recipients {
            self.tell_recipient(message, recipient).await?;
        }
        self.step(Step::Data, Command::Data, message).await?;
        Ok(())
    }

    /// The backend has taken the recipient already, so there is no way left to
    /// refuse one and deliver to the others: the message is refused to all,
    /// and the sender learns of it.
    async fn tell_recipient(&mut self, message: &Message<'_>, recipient: &str) -> Result<(), End> {
        let path = format!("<{recipient}>");
        self.send(Step::Rcpt, Command::Rcpt(&path), message, Some(recipient))
            .await?;
        match self.next(Step::Rcpt).await {
            Err(End::Decided(word)) if message.recipients.len() > 1 => {
                Err(End::Decided(refusal::of_one_recipient(word, recipient)))
            }
            other => other.map(|_| ()),
        }
    }

    async fn tell_content(&mut self, message: &Message<'_>) -> Result<(), End> {
        let mut reader = message.body.reader();
        let mut fields = Fields::default();
        let mut next = Next::Any;
        loop {
            match fields.next()? {
                Front::Field { name, value } if next == Next::Any => {
                    let value = match value.strip_prefix(b" ") {
                        // Sendmail and Postfix take off one space, not a tab.
                        Some(rest) if !self.terms.has_leading_space() => rest,
                        _ => &value,
                    };
                    let field = Command::Header { name: &name, value };
                    next = self.step(Step::Header, field, message).await?;
                }
                Front::Field { .. } => {}
                Front::Incomplete => match reader.next().await? {
                    Some(piece) => fields.feed(&piece),
                    None => fields.complete(),
                },
                Front::Over => break,
            }
        }
        self.step(Step::EndOfHeader, Command::EndOfHeader, message)
            .await?;

        let mut body = fields.into_rest();
        while self.terms.sends(Step::Body) {
            let more = reader.next().await?;
            body.extend_from_slice(more.as_deref().unwrap_or_default());
            while body.len() >= DATA_MAX || (more.is_none() && !body.is_empty()) {
                let chunk = body.split_to(body.len().min(DATA_MAX));
                let chunk = Command::Body(&chunk);
                if self.step(Step::Body, chunk, message).await? == Next::OtherStep {
                    return Ok(());
                }
            }
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Takes changes in until the filter has decided.
    async fn conclude(&mut self, message: &Message<'_>) -> Result<(Word, Wishes), End> {
        let reading = Reading {
            trace: message.trace,
            leading_space: self.terms.has_leading_space(),
        };
        let mut changes = Changes::default();
        let mut new_body = None;
        loop {
            match self.answer(Step::EndOfBody).await? {
                Answer::Continue | Answer::Accept => {
                    let (quarantine, changes) = changes.into_parts();
                    let body = match new_body {
                        Some(new_body) => Some(NewBody::finish(new_body).await?),
                        None => None,
                    };
                    let word = quarantine.map_or(Word::Clean, Word::Quarantine);
                    return Ok((word, Wishes { changes, body }));
                }
                Answer::ReplaceBody(piece) => {
                    let new_body = new_body.get_or_insert_with(|| NewBody::begin(message.body));
                    new_body.write(&piece).await?;
                }
                answer => match decision(&answer)? {
                    Some(word) => return Err(End::Decided(word)),
                    None => changes.take(answer, reading)?,
                },
            }
        }
    }

    /// Sends one step and takes its answer, so far as the filter wants the one
    /// and gives the other.
    async fn step(
        &mut self,
        step: Step,
        command: Command<'_>,
        message: &Message<'_>,
    ) -> Result<Next, End> {
        self.send(step, command, message, None).await?;
        self.next(step).await
    }

    async fn send(
        &mut self,
        step: Step,
        command: Command<'_>,
        message: &Message<'_>,
        recipient: Option<&str>,
    ) -> Result<(), End> {
        if !self.terms.sends(step) {
            return Ok(());
        }
        self.output.clear();
        let values = macros::values(&self.terms.macros(step), message, recipient);
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let before = command.octet();
            let values = &values;
            Command::Macros { before, values }.encode(&mut self.output);
        }
        command.encode(&mut self.output);
        self.stream.write_all(&self.output).await?;
        Ok(())
    }

    async fn next(&mut self, step: Step) -> Result<Next, End> {
        if !self.terms.sends(step) || !self.terms.awaits(step) {
            return Ok(Next::Any);
        }
        match self.answer(step).await? {
            Answer::Continue => Ok(Next::Any),
            Answer::Skip if matches!(step, Step::Header | Step::Body) => Ok(Next::OtherStep),
            Answer::Accept => Err(End::Decided(Word::Clean)),
            answer => match decision(&answer)? {
                Some(word) => Err(End::Decided(word)),
                None => Err(ScanError::Protocol(format!("wrong answer at {step:?}")).into()),
            },
        }
    }

    /// The next answer that says something.
    async fn answer(&mut self, step: Step) -> Result<Answer, ScanError> {
        for _ in 0..PROGRESS_MAX {
            match read(&mut *self.stream, &mut self.input).await? {
                Some(Answer::Progress) => {}
                Some(answer) => return Ok(answer),
                None => return Err(ScanError::Protocol(format!("hung up at {step:?}"))),
            }
        }
        Err(ScanError::Protocol("progress without end".to_owned()))
    }
}

/// The word of an answer that ends the dialogue against the message.
fn decision(answer: &Answer) -> Result<Option<Word>, ScanError> {
    Ok(match answer {
        Answer::Reject => Some(Word::Refuse { reply: None }),
        Answer::Tempfail | Answer::Shutdown | Answer::ConnectionFailure => {
            Some(Word::Defer { reply: None })
        }
        Answer::Discard => Some(refusal::of_discard()),
        Answer::ReplyCode(text) => match refusal::of_reply_code(text) {
            Some(word) => Some(word),
            None => return Err(ScanError::Protocol("a reply that is no refusal".to_owned())),
        },
        _ => None,
    })
}

/// Reads one answer; `None` when the filter has hung up.
async fn read(stream: &mut dyn Stream, input: &mut BytesMut) -> Result<Option<Answer>, ScanError> {
    loop {
        match Answer::decode(input) {
            Ok(None) => {}
            Ok(answer) => return Ok(answer),
            Err(error) => return Err(ScanError::Protocol(error.to_string())),
        }
        input.reserve(INPUT_CAPACITY);
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}
