//! File descriptors: how many the process may have, and how many sessions
//! that serves.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a session: the client's and the backend's.
const PER_SESSION: u64 = 2;

/// Of a limit that cannot be raised, two thirds are for clients: half of them
/// may hold a backend at once, and one more hears 451 and may try again.
const FOR_CLIENTS: (u64, u64) = (2, 3);

/// Descriptors for all the rest: listeners, log, timers, probes, scanners.
const OTHERS: u64 = 128;

/// Raises `RLIMIT_NOFILE` to what `sessions_max` sessions need at most, and
/// returns how many sessions it serves; fewer than asked for are warned of.
/// Accepting more would take the descriptors with which those inside are served.
pub fn places(sessions_max: u32) -> usize {
    let wanted = u64::from(sessions_max) * PER_SESSION + OTHERS;
    let served = match raise(wanted) {
        Ok(limit) => {
            let (part, whole) = FOR_CLIENTS;
            limit.saturating_sub(OTHERS) / whole * part
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell how many file descriptors there are");
            u64::from(sessions_max)
        }
    };
    let places = u64::from(sessions_max).min(served.max(1));
    if places < u64::from(sessions_max) {
        tracing::warn!(
            sessions_max,
            served = places,
            file_descriptors = wanted,
            "SESSIONS_MAX cannot be served: too few file descriptors (raise `ulimit -n`, LimitNOFILE= or --ulimit nofile)"
        );
    }
    usize::try_from(places).unwrap_or(usize::MAX)
}

/// The limit in force after trying to have `wanted`: the soft limit may be
/// raised to the hard one by anybody, the hard one by root only.
fn raise(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted {
        return Ok(soft);
    }
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    let raised = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    Ok(raised)
}
