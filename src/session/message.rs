//! The message that is under way: chunk by chunk, or kept for scanners.

use std::time::{Duration, Instant};

use super::body::{Limits, Pace};
use crate::limits::Place;
use crate::policy::content::Edits;
use crate::smtp::bdat::ChunkChecker;
use crate::smtp::header::Parter;
use crate::spool;

/// The message that is kept for scanners.
pub(super) enum Kept {
    Nothing,
    /// It is coming.
    Coming(Box<spool::Writer>),
    /// It is here, and may be delivered so.
    Whole(Box<Plan>),
}

/// How a message is delivered.
pub(super) struct Plan {
    pub(super) body: spool::Body,
    pub(super) edits: Edits,
    /// In the place of its own body.
    pub(super) new_body: Option<spool::Body>,
}

/// The message that is being relayed or kept, chunk by chunk if it comes so.
pub(super) struct Chunks {
    pub(super) checker: ChunkChecker,
    pub(super) parter: Parter,
    pub(super) began: Instant,
    /// Since when the client owes the next chunk.
    pub(super) idle: Instant,
    pub(super) pace: Pace,
    /// Whether our trace field has gone out.
    pub(super) is_traced: bool,
}

impl Chunks {
    pub(super) fn new(limits: &Limits, place: &Place) -> Self {
        let now = Instant::now();
        Self {
            checker: ChunkChecker::new(),
            parter: Parter::default(),
            began: now,
            idle: now,
            pace: Pace::new(limits, Some(place.meter())),
            is_traced: false,
        }
    }

    /// The next chunk is here. It has been waited for: the place in the spool and
    /// the backend are held between chunks, too.
    pub(super) fn next(&mut self) -> &mut Self {
        self.pace.pay(self.idle.elapsed());
        self
    }

    /// How long the next chunk may still take, whatever comes before it.
    pub(super) fn patience(&self) -> Duration {
        self.pace.patience().saturating_sub(self.idle.elapsed())
    }
}
