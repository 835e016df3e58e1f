//! The client's side of the wire: lines in, replies out, deadlines, TLS.
//!
//! A deadline covers a whole line, first octet or last, so that a slow drip
//! buys nothing. Replies are gathered and written when the client's pipelined
//! commands are used up.
//!
//! Commands may be looked at before their turn. They have left the buffer then, so
//! that each is read once, and come before it when it is their turn.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::machine::Behind;
use crate::smtp::command::{AuthLine, Command, CommandError};
use crate::smtp::line::{LineCutter, LineOffence};
use crate::smtp::reply::Reply;
use crate::tls::{HandshakeError, ServerTls, Stream, TlsDetails, read_some, within};

/// Longest AUTH line, octets (RFC 4954 4).
const AUTH_LINE_MAX: usize = 12_288;

/// A larger buffer is given back after a body.
const INPUT_CAPACITY: usize = 2048;

/// No more commands are looked at before their turn once those that are have so many
/// octets.
const LOOK_AHEAD: usize = 4096;

/// Octets of a usual reply.
const REPLY: usize = 64;

/// Replies that wait for company are written at this size at the latest, octets.
const OUTPUT_MAX: usize = 4096;

/// The client is gone, or has used up its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("gone: {0}")]
    Gone(#[from] io::Error),
    #[error("gone")]
    Closed,
    #[error("timed out")]
    TimedOut,
}

/// What a client did while it was to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It waited.
    Kept,
    /// It spoke.
    Broken,
    /// It left.
    Gone,
}

/// A line that came.
pub(super) struct Line<T> {
    /// What it says; or what is wrong with the line.
    pub(super) says: Result<Result<T, CommandError>, LineOffence>,
    /// What lay in the buffer behind it.
    pub(super) behind: Behind,
}

/// Lines that have been looked at before their turn, one at least.
#[derive(Default)]
struct Ahead {
    /// The next one first.
    lines: VecDeque<Line<Command>>,
    /// Octets of these, and of those whose turn has come since there were none.
    octets: usize,
}

/// The connection to a client.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// In a box, since most of the time there is none.
    ahead: Option<Box<Ahead>>,
    output: BytesMut,
    /// Whether the stream may hold octets that it was given: TLS does.
    unflushed: bool,
    cutter: LineCutter,
    line_max: usize,
    patience: Duration,
}

impl Client {
    pub(super) fn new(stream: Box<dyn Stream>, line_max: usize, patience: Duration) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            ahead: None,
            output: BytesMut::new(),
            unflushed: false,
            cutter: LineCutter::new(),
            line_max,
            patience,
        }
    }

    /// The next command. Writes what waits to be written before it waits itself.
    pub(super) fn command(&mut self) -> impl Future<Output = Result<Line<Command>, ClientError>> {
        self.line(Self::command_here)
    }

    /// So long may a line take from now on.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The next line of an AUTH dialogue; otherwise as [`command`](Self::command).
    pub(super) fn auth_line(
        &mut self,
    ) -> impl Future<Output = Result<Line<AuthLine>, ClientError>> {
        debug_assert!(self.ahead.is_none(), "commands come first");
        self.line(|client| client.cut(AUTH_LINE_MAX, AuthLine::parse))
    }

    async fn line<T>(
        &mut self,
        here: impl Fn(&mut Self) -> Option<Line<T>>,
    ) -> Result<Line<T>, ClientError> {
        let mut deadline = None;
        loop {
            if let Some(line) = here(self) {
                return Ok(line);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
            self.flush().await?;
            timeout_at(deadline, self.fill())
                .await
                .map_err(|_| ClientError::TimedOut)??;
        }
    }

    /// The next command, if the whole of it has come already.
    pub(super) fn command_here(&mut self) -> Option<Line<Command>> {
        let Some(ahead) = &mut self.ahead else {
            return self.cut_command();
        };
        let line = ahead.lines.pop_front();
        if ahead.lines.is_empty() {
            self.ahead = None;
        }
        line
    }

    /// The command whose turn comes after so many others, and what is behind it, if
    /// the whole of it has come already and it is one. What is no command line must
    /// never be behind the one before it: neither the octets of a body nor a line of
    /// an AUTH dialogue.
    pub(super) fn upcoming(&mut self, nth: usize) -> Option<(&Command, Behind)> {
        let ahead = self.ahead.as_ref();
        let (lines, octets) = ahead.map_or((0, 0), |ahead| (ahead.lines.len(), ahead.octets));
        if nth == lines && octets < LOOK_AHEAD {
            let before = self.input.len();
            let line = self.cut_command()?;
            let ahead = self.ahead.get_or_insert_default();
            ahead.lines.push_back(line);
            ahead.octets += before.saturating_sub(self.input.len());
        }
        match self.ahead.as_ref()?.lines.get(nth)? {
            Line {
                says: Ok(Ok(command)),
                behind,
            } => Some((command, *behind)),
            _ => None,
        }
    }

    /// `LINE_MAX` bounds it, but for a line that begins with AUTH.
    fn cut_command(&mut self) -> Option<Line<Command>> {
        let max = if begins_with_auth(&self.input) {
            self.line_max.max(AUTH_LINE_MAX)
        } else {
            self.line_max
        };
        self.cut(max, Command::parse)
    }

    fn cut<T>(
        &mut self,
        max: usize,
        parse: impl Fn(&[u8]) -> Result<T, CommandError>,
    ) -> Option<Line<T>> {
        let octets = self.cutter.cut(&mut self.input, max).transpose()?;
        Some(Line {
            says: octets.map(|octets| parse(&octets)),
            behind: Behind::of(!self.input.is_empty()),
        })
    }

    /// Reads what there is into the buffer. May be dropped without loss.
    pub(super) async fn fill(&mut self) -> Result<(), ClientError> {
        match read_some(&mut *self.stream, &mut self.input).await? {
            0 => Err(ClientError::Closed),
            _ => Ok(()),
        }
    }

    /// Waits for so long, and tells whether the client spoke meanwhile.
    pub(super) async fn silence(&mut self, length: Duration) -> Silence {
        if !self.input.is_empty() {
            return Silence::Broken;
        }
        match timeout(length, self.fill()).await {
            Err(_) => Silence::Kept,
            Ok(Ok(())) => Silence::Broken,
            Ok(Err(_)) => Silence::Gone,
        }
    }

    /// Whether the client has left, as far as can be told without waiting. One
    /// that has said more before it closed its end may still listen.
    pub(super) async fn has_left(&mut self) -> bool {
        if !self.input.is_empty() || self.ahead.is_some() {
            return false;
        }
        tokio::select! {
            biased;
            filled = self.fill() => filled.is_err(),
            () = std::future::ready(()) => false,
        }
    }

    /// What has been read and not been taken yet.
    pub(super) fn buffered(&self) -> &[u8] {
        debug_assert!(self.ahead.is_none(), "commands come first");
        &self.input
    }

    /// Takes octets off the front of the buffer.
    pub(super) fn take(&mut self, octets: usize) {
        self.input.advance(octets.min(self.input.len()));
    }

    /// Makes the buffer large, for a body.
    pub(super) fn reserve(&mut self, octets: usize) {
        self.input.reserve(octets.saturating_sub(self.input.len()));
    }

    /// Gives back what a body needed, so that an idle session is small.
    pub(super) fn shrink(&mut self) {
        if self.input.capacity() > INPUT_CAPACITY {
            self.input = BytesMut::from(&*self.input);
        }
    }

    /// Queues a reply.
    pub(super) async fn say(&mut self, reply: &Reply) -> Result<(), ClientError> {
        self.output.reserve(REPLY);
        // Writing to a buffer in memory does not fail.
        let _ = reply.print(&mut self.output);
        if self.output.len() >= OUTPUT_MAX {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Says something at once.
    pub(super) async fn say_now(&mut self, reply: &Reply) -> Result<(), ClientError> {
        self.say(reply).await?;
        self.flush().await
    }

    /// Writes all that is queued. May be dropped and called again without loss.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        if self.output.is_empty() && !self.unflushed {
            return Ok(());
        }
        self.unflushed = true;
        let write = async {
            while !self.output.is_empty() {
                let written = self.stream.write(&self.output).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.output.advance(written);
            }
            self.output = BytesMut::new();
            self.stream.flush().await
        };
        within(self.patience, write)
            .await
            .map_err(|_| ClientError::TimedOut)??;
        self.unflushed = false;
        Ok(())
    }

    /// Shakes hands (RFC 3207). The caller has made sure that nothing is
    /// buffered; what was would be forgotten here all the same. After an
    /// error the client is gone.
    pub(super) async fn upgrade(&mut self, tls: &ServerTls) -> Result<TlsDetails, HandshakeError> {
        let clear = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let (stream, details) = tls.accept(clear).await?;
        *self = Self::new(Box::new(stream), self.line_max, self.patience);
        Ok(details)
    }

    /// Writes what is queued, and that nothing more will come.
    pub(super) async fn close(&mut self) {
        let _ = self.flush().await;
        let _ = timeout(CLOSE_PATIENCE, self.stream.shutdown()).await;
    }

    /// Closes, then reads on for a moment: a connection that is closed over
    /// unread octets is reset, and the reset may overtake the last reply.
    pub(super) async fn close_gently(&mut self) {
        self.close().await;
        let drain = async {
            for _ in 0..LINGER_READS {
                self.input.clear();
                if self.fill().await.is_err() {
                    break;
                }
            }
        };
        let _ = timeout(LINGER, drain).await;
    }
}

/// How long a closed connection is read on.
const LINGER: Duration = Duration::from_secs(1);

/// How many times at most.
const LINGER_READS: u32 = 64;

/// How long a TLS closure alert may take to be written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

fn begins_with_auth(input: &[u8]) -> bool {
    input
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
mod tests;
