//! Moves one message body from the client to the backend as it arrives.
//!
//! Its buffers do not grow with the body, and the one for reading is given back
//! while nothing comes; no read while a write waits. The backend sees the end of a
//! message only when the client sent it and every octet before it was in order:
//! otherwise its connection is closed, and the client's body is read on to its true
//! end before anything is replied.

mod chunk;
mod deliver;
mod front;
mod keep;

pub(super) use chunk::{discard, relay_chunk};
pub(super) use deliver::deliver;
pub(super) use keep::{Kept, keep, keep_chunk};

use std::time::Duration;

use tokio::time::{Instant, timeout};

use front::{Form, Front};

use super::client::{Client, ClientError};
use super::machine::Moved;
use crate::backend::{Conversation, Lost};
use crate::limits::Meter;
use crate::smtp::command::Bdat;
use crate::smtp::dot::{BareNewline, Recoder};
use crate::smtp::reply::Reply;

/// Octets that are read at a time.
const BUFFER: usize = 16 * 1024;

/// The same, of a client that has sent more than [`BUFFER`] at once.
const LARGE_BUFFER: usize = 64 * 1024;

/// Whatever comes is the body's, if its length is not told.
const ALL: u64 = u64::MAX;

/// Whoever is silent for longer gives back the buffer for reading.
const PROMPT: Duration = Duration::from_secs(1);

/// A refused body is read on to its end up to this many times `MAX_SIZE`.
const PATIENCE_FACTOR: u64 = 4;

/// How long a backend that broke off mid-body is searched for a last word.
const LAST_WORD: Duration = Duration::from_millis(500);

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Largest body, octets.
    pub(super) max_size: u64,
    /// Longest line without its CRLF, octets.
    pub(super) line_max: Option<usize>,
    /// What is done about a bare CR or LF.
    pub(super) newline: BareNewline,
    /// Longest pause.
    pub(super) pause_max: Duration,
    /// Slowest pace, octets a second; 0 for none.
    pub(super) rate_min: u64,
    /// Before the pace is measured.
    pub(super) grace: Duration,
}

/// How a body went.
pub(super) struct Relayed {
    /// How it ended.
    pub(super) moved: Moved,
    /// Octets of content that the client sent.
    pub(super) octets: u64,
}

/// Keeps the client to its pace. Only time spent waiting for it counts.
pub(super) struct Pace {
    /// Sees to it that a slow body holds no place that is needed; `None`: somebody
    /// else does.
    meter: Option<Meter>,
    /// Longest pause.
    pause_max: Duration,
    /// Octets a second; 0 for none.
    rate_min: u64,
    /// What is saved at most.
    credit_max: Duration,
    /// How long it may still be waited for: octets earn it, and no more is
    /// saved than the grace and one pause, or a fast start would buy hours.
    credit: Duration,
    octets: u64,
}

impl Pace {
    pub(super) fn new(limits: &Limits, meter: Option<Meter>) -> Self {
        Self {
            meter,
            pause_max: limits.pause_max,
            rate_min: limits.rate_min,
            credit_max: limits.grace.saturating_add(limits.pause_max),
            credit: limits.grace,
            octets: 0,
        }
    }

    /// How long the next octet may take.
    pub(super) fn patience(&self) -> Duration {
        match self.rate_min {
            0 => self.pause_max,
            _ => self.credit.min(self.pause_max),
        }
    }

    /// So long it has been waited for.
    pub(super) fn pay(&mut self, waited: Duration) {
        self.credit = self.credit.saturating_sub(waited);
    }

    fn earn(&mut self, octets: u64) {
        if let Some(meter) = &self.meter {
            meter.came(octets);
        }
        self.octets = self.octets.saturating_add(octets);
        let nanoseconds = octets.saturating_mul(1_000_000_000);
        if let Some(nanoseconds) = nanoseconds.checked_div(self.rate_min) {
            let earned = Duration::from_nanos(nanoseconds);
            self.credit = self.credit.saturating_add(earned).min(self.credit_max);
        }
    }

    /// A chunk begins; what came with its command has not been waited for.
    ///
    /// # Errors
    /// [`Moved::TooSlow`] when it comes too late.
    fn begin_chunk(&mut self, client: &Client, bdat: Bdat) -> Result<(), Moved> {
        if self.patience().is_zero() {
            return Err(Moved::TooSlow);
        }
        let here = chunk::of_chunk(client, bdat.size).len();
        self.earn(u64::try_from(here).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Waits for octets of the client, of which so many at most are still the body's:
    /// what lies behind them earns nothing yet. May be dropped without loss. Replies go
    /// out first: the client may wait for them before it sends a chunk (RFC 2920 3.2).
    async fn fill(&mut self, client: &mut Client, left: u64) -> Result<(), Moved> {
        let (start, before) = (Instant::now(), client.buffered().len());
        let patience = self.patience();
        let wait = self.meter.as_ref().map(Meter::waits);
        let filled = tokio::select! {
            biased;
            filled = patiently(client, patience) => filled,
            () = must_leave(self.meter.as_ref()) => Err(ClientError::TimedOut),
        };
        drop(wait);
        self.pay(start.elapsed());
        match filled {
            Ok(()) => {
                let came = client.buffered().len().saturating_sub(before);
                self.earn(u64::try_from(came).unwrap_or(u64::MAX).min(left));
                Ok(())
            }
            Err(ClientError::TimedOut) => Err(Moved::TooSlow),
            Err(ClientError::Gone(_) | ClientError::Closed) => Err(Moved::Gone),
        }
    }
}

/// Gives back the buffer for reading where more does not come at once.
async fn patiently(client: &mut Client, patience: Duration) -> Result<(), ClientError> {
    let mut filled = timeout(patience.min(PROMPT), more(client)).await;
    if filled.is_err() && patience > PROMPT {
        client.shrink();
        filled = timeout(patience.saturating_sub(PROMPT), more(client)).await;
    }
    filled.unwrap_or(Err(ClientError::TimedOut))
}

async fn must_leave(meter: Option<&Meter>) {
    match meter {
        Some(meter) => meter.must_leave().await,
        None => std::future::pending().await,
    }
}

async fn more(client: &mut Client) -> Result<(), ClientError> {
    client.flush().await?;
    client.fill().await
}

/// The way to the backend, until something closes it.
enum Outlet<'a> {
    Open(&'a mut Option<Conversation>),
    Closed(Moved),
}

impl<'a> Outlet<'a> {
    fn to(backend: &'a mut Option<Conversation>) -> Self {
        let mut outlet = Self::Open(backend);
        if let Self::Open(Some(conversation)) = &outlet
            && !conversation.is_settled()
        {
            // A reply that is due would be taken for the one to the message.
            outlet.close(Moved::Lost);
        }
        outlet
    }

    fn close(&mut self, why: Moved) {
        if let Self::Open(slot) = self {
            // Dropped, not quit: the backend must see the connection break.
            slot.take();
            *self = Self::Closed(why);
        }
    }

    /// The client sends no more of a body.
    fn broken_off(&mut self, moved: Moved) -> Moved {
        self.close(Moved::Gone);
        match (moved, &*self) {
            (Moved::Gone, Self::Closed(Moved::Offence(offence))) => Moved::GoneFrom(*offence),
            (moved, _) => moved,
        }
    }

    /// Hears what the backend has said already, before octets go out that would
    /// make it look like the answer to them.
    async fn listen_first(&mut self) {
        let word = tokio::select! {
            biased;
            word = self.early_word() => Some(word),
            () = std::future::ready(()) => None,
        };
        match word {
            Some(word) => self.close(word),
            // Its end would pass for the answer to what goes out now.
            None if self.is_being_told() => {
                let word = timeout(LAST_WORD, self.early_word()).await;
                self.close(word.unwrap_or(Moved::Lost));
            }
            None => {}
        }
    }

    fn is_being_told(&self) -> bool {
        match self {
            Self::Open(Some(conversation)) => conversation.has_begun_to_speak(),
            Self::Open(None) | Self::Closed(_) => false,
        }
    }

    async fn write(&mut self, octets: &[u8]) {
        let Self::Open(slot) = self else { return };
        let Some(conversation) = slot.as_mut() else {
            return self.close(Moved::Lost);
        };
        if octets.is_empty() {
            return;
        }
        if let Err(error) = conversation.write(octets).await {
            tracing::debug!(%error, "backend broke off inside a message");
            // It may have said why before it hung up.
            let word = timeout(LAST_WORD, conversation.next_reply()).await;
            self.close(
                word.ok()
                    .and_then(Result::ok)
                    .map_or(Moved::Lost, Moved::Interrupted),
            );
        }
    }

    /// What the backend says while the body is still coming. Never returns
    /// when there is nobody to listen to.
    async fn early_word(&mut self) -> Moved {
        match self {
            Self::Open(slot) => match slot.as_mut() {
                Some(conversation) => early(conversation.next_reply().await),
                None => Moved::Lost,
            },
            Self::Closed(_) => std::future::pending().await,
        }
    }

    /// The end: the reply to the message, or why there is none.
    async fn outcome(mut self, last: Last) -> Moved {
        if let Self::Open(slot) = &mut self {
            let reply = match (slot.as_mut(), last) {
                (Some(conversation), Last::Yes) => conversation.final_reply().await,
                (Some(conversation), Last::No) => conversation.chunk_reply().await,
                (None, _) => Err(Lost::Closed),
            };
            match reply {
                Ok(reply) => return Moved::Answered(reply),
                Err(error) => {
                    tracing::warn!(%error, "backend broke off before its reply to a message");
                    self.close(Moved::Lost);
                }
            }
        }
        match self {
            Self::Closed(why) => why,
            Self::Open(_) => Moved::Lost,
        }
    }
}

/// Whether a message ends here.
#[derive(Clone, Copy)]
enum Last {
    Yes,
    No,
}

fn early(reply: Result<Reply, Lost>) -> Moved {
    reply.map_or(Moved::Lost, Moved::Interrupted)
}

/// Relays what follows a 354 up to CRLF . CRLF (RFC 5321 4.1.1.4), `trace` before it.
pub(super) async fn relay(
    client: &mut Client,
    backend: &mut Option<Conversation>,
    limits: &Limits,
    mut pace: Pace,
    trace: &[u8],
) -> Relayed {
    let mut outlet = Outlet::to(backend);
    let mut recoder = Recoder::new(limits.newline, limits.line_max);
    let mut wire = Vec::new();
    if !trace.is_empty() {
        let begins = |octets: &[u8]| Front::of(octets, Form::Data, true);
        let front = match look(client, &mut outlet, &mut pace, ALL, begins).await {
            Ok(front) => front,
            Err(moved) => return Relayed { moved, octets: 0 },
        };
        let octets = client.buffered().get(..front.separator).unwrap_or_default();
        if recoder.recode(octets, &mut wire).as_is {
            wire.extend_from_slice(octets);
        }
        client.take(front.separator);
        recoder.insert(trace, &mut wire);
        if front.parted {
            recoder.insert(b"\r\n", &mut wire);
        }
    }
    loop {
        let input = client.buffered();
        let recoded = recoder.recode(input, &mut wire);
        if let Some(offence) = recoder.offence() {
            outlet.close(Moved::Offence(offence));
        }
        if recoder.size() > limits.max_size {
            outlet.close(Moved::TooLarge);
        }
        if recoded.ended {
            outlet.listen_first().await;
        }
        if recoded.as_is {
            let octets = input.get(..recoded.taken).unwrap_or_default();
            outlet.write(octets).await;
        } else if recoded.taken > 0 {
            outlet.write(&wire).await;
            wire.clear();
        }
        client.take(recoded.taken);
        if recoded.ended {
            break;
        }
        if pace.octets > limits.max_size.saturating_mul(PATIENCE_FACTOR) {
            outlet.close(Moved::Endless);
            return Relayed {
                moved: Moved::Endless,
                octets: recoder.size(),
            };
        }
        client.reserve(room(recoded.taken));
        // What it may still hold, the trace, is shorter.
        if wire.is_empty() && wire.capacity() > BUFFER {
            wire = Vec::new();
        }
        if let Err(moved) = wait(client, &mut outlet, &mut pace, ALL).await {
            return Relayed {
                moved: outlet.broken_off(moved),
                octets: recoder.size(),
            };
        }
    }
    client.shrink();
    Relayed {
        moved: outlet.outcome(Last::Yes).await,
        octets: recoder.size(),
    }
}

/// Waits for as much of a message as it takes to know how it begins.
async fn look(
    client: &mut Client,
    outlet: &mut Outlet<'_>,
    pace: &mut Pace,
    left: u64,
    begins: impl Fn(&[u8]) -> Option<Front>,
) -> Result<Front, Moved> {
    loop {
        if let Some(front) = begins(client.buffered()) {
            return Ok(front);
        }
        client.reserve(BUFFER);
        if let Err(moved) = wait(client, outlet, pace, left).await {
            return Err(outlet.broken_off(moved));
        }
    }
}

/// How much is to be read next, after so much has come at once.
fn room(came: usize) -> usize {
    if came >= BUFFER { LARGE_BUFFER } else { BUFFER }
}

/// Waits for more of the client, and listens to the backend meanwhile.
async fn wait(
    client: &mut Client,
    outlet: &mut Outlet<'_>,
    pace: &mut Pace,
    left: u64,
) -> Result<(), Moved> {
    let word = tokio::select! {
        biased;
        filled = pace.fill(client, left) => return filled,
        word = outlet.early_word() => word,
    };
    outlet.close(word);
    Ok(())
}
