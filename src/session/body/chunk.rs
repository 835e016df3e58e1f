//! Moves one chunk of a message (RFC 3030 2), or reads one on that is refused.
//!
//! The bounds are those of a whole body; pace and byte rules run over all chunks.

use super::front::{Form, Front};
use super::{Last, Limits, Outlet, Pace, Relayed, look, room, wait};
use crate::backend::Conversation;
use crate::session::client::Client;
use crate::session::machine::Moved;
use crate::smtp::bdat::ChunkChecker;
use crate::smtp::command::{Bdat, Command};

/// Relays one chunk (RFC 3030 2), `trace` before its octets. `checker` and `pace`
/// know the chunks before it.
pub(in crate::session) async fn relay_chunk(
    client: &mut Client,
    backend: &mut Option<Conversation>,
    bdat: Bdat,
    checker: &mut ChunkChecker,
    pace: &mut Pace,
    trace: &[u8],
) -> Relayed {
    let mut outlet = Outlet::to(backend);
    if let Err(moved) = pace.begin_chunk(client, bdat) {
        outlet.close(Moved::Gone);
        return Relayed { moved, octets: 0 };
    }
    let mut left = bdat.size;
    let mut wire = Vec::new();
    if trace.is_empty() {
        write_bdat(bdat, &mut wire);
    } else {
        let size = usize::try_from(bdat.size).unwrap_or(usize::MAX);
        let begins = |octets: &[u8]| {
            let chunk = octets.get(..size).unwrap_or(octets);
            Front::of(chunk, Form::Chunk, chunk.len() < size)
        };
        // No separator leads a chunk.
        let front = match look(client, &mut outlet, pace, left, begins).await {
            Ok(front) => front,
            Err(moved) => return Relayed { moved, octets: 0 },
        };
        let parting: &[u8] = if front.parted { b"\r\n" } else { b"" };
        let ours = u64::try_from(trace.len() + parting.len()).unwrap_or(u64::MAX);
        let size = bdat.size.saturating_add(ours);
        write_bdat(Bdat { size, ..bdat }, &mut wire);
        wire.extend_from_slice(trace);
        wire.extend_from_slice(parting);
    }
    loop {
        let octets = of_chunk(client, left);
        let here = octets.len();
        checker.check(octets);
        left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
        if left == 0 && bdat.last {
            checker.finish();
        }
        if let Some(offence) = checker.offence() {
            outlet.close(Moved::Offence(offence));
        }
        outlet.listen_first().await;
        if wire.is_empty() {
            outlet.write(octets).await;
        } else {
            wire.extend_from_slice(octets);
            outlet.write(&wire).await;
            wire = Vec::new();
        }
        client.take(here);
        if left == 0 {
            break;
        }
        client.reserve(room(here));
        if let Err(moved) = wait(client, &mut outlet, pace, left).await {
            return Relayed {
                moved: outlet.broken_off(moved),
                octets: bdat.size.saturating_sub(left),
            };
        }
    }
    client.shrink();
    let last = if bdat.last { Last::Yes } else { Last::No };
    let moved = match outlet.outcome(last).await {
        Moved::Answered(reply) if reply.is_not_understood() => {
            // It takes the octets for commands, and owes replies to them.
            backend.take();
            Moved::Interrupted(reply)
        }
        moved => moved,
    };
    Relayed {
        moved,
        octets: bdat.size,
    }
}

/// What has come of a chunk of which so many octets are left.
pub(super) fn of_chunk(client: &Client, left: u64) -> &[u8] {
    let buffered = client.buffered();
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    buffered.get(..left).unwrap_or(buffered)
}

fn write_bdat(bdat: Bdat, wire: &mut Vec<u8>) {
    wire.extend_from_slice(format!("{}\r\n", Command::Bdat(bdat)).as_bytes());
}

/// Reads `octets` and throws them away.
///
/// # Errors
/// [`Moved::Gone`] or [`Moved::TooSlow`].
pub(in crate::session) async fn discard(
    client: &mut Client,
    limits: &Limits,
    octets: u64,
) -> Result<(), Moved> {
    // No octet of it is worth a place: the caller sees to that.
    let mut pace = Pace::new(limits, None);
    let mut left = octets;
    loop {
        let here = of_chunk(client, left).len();
        client.take(here);
        left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
        if left == 0 {
            return Ok(());
        }
        pace.fill(client, left).await?;
    }
}
