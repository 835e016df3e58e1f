//! Keeps a body in the spool until it has been judged.
//!
//! The bounds are those of a body that is relayed. A body that cannot be kept
//! is read on to its true end all the same, so that what follows it is never
//! taken for commands.

use super::chunk::of_chunk;
use super::{ALL, BUFFER, Limits, PATIENCE_FACTOR, Pace, room};
use crate::session::client::Client;
use crate::session::machine::{Moved, Spooled};
use crate::smtp::bdat::ChunkChecker;
use crate::smtp::command::Bdat;
use crate::smtp::dot::Decoder;
use crate::smtp::header::Parter;
use crate::spool::{Body, SpoolError, Writer};

/// How keeping went.
pub(in crate::session) enum Kept {
    /// The body is kept.
    Whole(Body),
    /// Chunks are still to come.
    Part(Writer),
    /// It is not kept; after so many octets of content.
    Lost(Spooled, u64),
}

/// What becomes of the octets, until something goes wrong.
enum Sink {
    Open(Writer),
    Closed(Spooled),
}

impl Sink {
    async fn write(&mut self, octets: &[u8]) {
        let Self::Open(writer) = self else { return };
        if let Err(error) = writer.write(octets).await {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &SpoolError) {
        tracing::warn!(%error, "a message cannot be kept for the scanners");
        self.close(Spooled::NoRoom);
    }

    /// The first reason stands.
    fn close(&mut self, why: Spooled) {
        if let Self::Open(_) = self {
            *self = Self::Closed(why);
        }
    }

    /// The client sends no more of a body.
    fn broken_off(&self, moved: &Moved) -> Spooled {
        match (broken_off(moved), self) {
            (Spooled::Gone, Self::Closed(Spooled::Offence(offence))) => Spooled::GoneFrom(*offence),
            (spooled, _) => spooled,
        }
    }

    async fn finish(self, octets: u64) -> Kept {
        match self {
            Self::Closed(why) => Kept::Lost(why, octets),
            Self::Open(writer) => match writer.finish().await {
                Ok(body) => Kept::Whole(body),
                Err(error) => {
                    tracing::warn!(%error, "a message cannot be kept for the scanners");
                    Kept::Lost(Spooled::NoRoom, octets)
                }
            },
        }
    }
}

/// Keeps what follows a 354 up to CRLF . CRLF (RFC 5321 4.1.1.4).
pub(in crate::session) async fn keep(
    client: &mut Client,
    writer: Writer,
    limits: &Limits,
    mut pace: Pace,
) -> Kept {
    let mut sink = Sink::Open(writer);
    let mut decoder = Decoder::new(limits.newline, limits.line_max);
    let mut content = Vec::with_capacity(BUFFER);
    let (mut parter, mut parted) = (Parter::default(), Vec::new());
    loop {
        let decoded = decoder.decode(client.buffered(), &mut content);
        client.take(decoded.taken);
        if let Some(offence) = decoder.offence() {
            sink.close(Spooled::Offence(offence));
        }
        if decoder.size() > limits.max_size {
            sink.close(Spooled::TooLarge);
        }
        if parter.is_over() {
            sink.write(&content).await;
        } else {
            parter.part(&content, &mut parted);
            if decoded.ended {
                parter.finish(&mut parted);
            }
            sink.write(&parted).await;
        }
        for buffer in [&mut content, &mut parted] {
            if buffer.capacity() > BUFFER {
                *buffer = Vec::new();
            }
            buffer.clear();
        }
        if decoded.ended {
            break;
        }
        if pace.octets > limits.max_size.saturating_mul(PATIENCE_FACTOR) {
            return Kept::Lost(Spooled::Endless, decoder.size());
        }
        client.reserve(room(decoded.taken));
        if let Err(moved) = pace.fill(client, ALL).await {
            return Kept::Lost(sink.broken_off(&moved), decoder.size());
        }
    }
    client.shrink();
    sink.finish(decoder.size()).await
}

/// Keeps the octets of one chunk (RFC 3030 2). `checker`, `parter` and `pace` know
/// the chunks before it.
pub(in crate::session) async fn keep_chunk(
    client: &mut Client,
    writer: Writer,
    bdat: Bdat,
    checker: &mut ChunkChecker,
    parter: &mut Parter,
    pace: &mut Pace,
) -> Kept {
    if let Err(moved) = pace.begin_chunk(client, bdat) {
        return Kept::Lost(broken_off(&moved), 0);
    }
    let mut sink = Sink::Open(writer);
    let mut left = bdat.size;
    loop {
        let octets = of_chunk(client, left);
        let here = octets.len();
        checker.check(octets);
        left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
        let is_last = left == 0 && bdat.last;
        if parter.is_over() {
            sink.write(octets).await;
        } else {
            let mut parted = Vec::with_capacity(here);
            parter.part(octets, &mut parted);
            if is_last {
                parter.finish(&mut parted);
            }
            sink.write(&parted).await;
        }
        client.take(here);
        if is_last {
            checker.finish();
        }
        if let Some(offence) = checker.offence() {
            sink.close(Spooled::Offence(offence));
        }
        if left == 0 {
            break;
        }
        client.reserve(room(here));
        if let Err(moved) = pace.fill(client, left).await {
            return Kept::Lost(sink.broken_off(&moved), bdat.size.saturating_sub(left));
        }
    }
    client.shrink();
    match sink {
        Sink::Open(writer) if !bdat.last => Kept::Part(writer),
        sink => sink.finish(bdat.size).await,
    }
}

fn broken_off(moved: &Moved) -> Spooled {
    match moved {
        Moved::TooSlow => Spooled::TooSlow,
        _ => Spooled::Gone,
    }
}
