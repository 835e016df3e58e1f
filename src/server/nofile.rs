//! File descriptors: how many the process may have, and how many sessions
//! that serves.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::crew::processors;
use crate::scan;

/// Descriptors of a session: the client's and the backend's.
const PER_SESSION: u64 = 2;

/// Descriptors more where scanners look at its message: the file in which that waits.
const PER_BODY: u64 = 1;

/// Descriptors of a thread that runs sessions: what its runtime waits by.
const PER_THREAD: u64 = 4;

/// Descriptors for all the rest: listeners, log, timers, probes.
const OTHERS: u64 = 128;

/// Connections to scanners may take this part of a limit that cannot be raised: who
/// allows very many does not have them all at once.
const FOR_SCANS: u64 = 4;

/// Raises `RLIMIT_NOFILE` to what `sessions_max` sessions need at most, and
/// returns how many sessions it serves; fewer than asked for are warned of.
/// Accepting more would take the descriptors with which those inside are served.
pub fn places(sessions_max: u32, scan: &scan::Settings) -> usize {
    let need = Need::new(sessions_max, scan, processors());
    let wanted = need.wanted(sessions_max);
    let served = match raise(wanted) {
        Ok(limit) => need.served_by(limit),
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

/// What descriptors are needed for.
struct Need {
    per_session: u64,
    scans: u64,
    others: u64,
}

impl Need {
    fn new(sessions_max: u32, scan: &scan::Settings, threads: usize) -> Self {
        let scanners = scan.scanners() as u64;
        let per_scanner = u64::from(scan.scan_concurrency.get()).min(sessions_max.into());
        Self {
            per_session: PER_SESSION + if scanners > 0 { PER_BODY } else { 0 },
            scans: per_scanner * scanners,
            others: OTHERS + PER_THREAD * threads as u64,
        }
    }

    fn wanted(&self, sessions_max: u32) -> u64 {
        u64::from(sessions_max) * self.per_session + self.scans + self.others
    }

    /// How many clients a limit serves: half of them may have all that a session
    /// needs at once, and one more hears 451 and may try again.
    fn served_by(&self, limit: u64) -> u64 {
        let scans = self.scans.min(limit / FOR_SCANS);
        let left = limit.saturating_sub(self.others + scans);
        left / (self.per_session + 1) * 2
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Value;

    fn need(sessions_max: u32, change: impl FnOnce(&mut scan::Settings)) -> Need {
        let mut settings = scan::Settings::default();
        change(&mut settings);
        Need::new(sessions_max, &settings, 2)
    }

    fn two_scanners(settings: &mut scan::Settings) {
        settings.clamav = Value::parse("127.0.0.1:3310").unwrap();
        settings.milters = Value::parse("inet:127.0.0.1:8891").unwrap();
    }

    #[test]
    fn scanners_need_a_file_for_each_message_and_connections_of_their_own() {
        assert_eq!(need(10_000, |_| ()).wanted(10_000), 20_000 + 128 + 8);
        let need = need(10_000, two_scanners);
        assert_eq!(need.wanted(10_000), 30_000 + 2 * 32 + 128 + 8);
    }

    #[test]
    fn what_is_wanted_serves_all_that_are_wanted() {
        for sessions_max in [1, 10, 1000, 10_000, u32::MAX] {
            for change in [|_: &mut scan::Settings| (), two_scanners] {
                let need = need(sessions_max, change);
                let served = need.served_by(need.wanted(sessions_max));
                assert!(
                    served + 1 >= sessions_max.into(),
                    "{served} of {sessions_max}"
                );
            }
        }
    }

    #[test]
    fn of_a_limit_that_is_too_low_two_thirds_are_for_clients_or_half_with_scanners() {
        assert_eq!(need(10_000, |_| ()).served_by(1036), 600);
        assert_eq!(need(10_000, two_scanners).served_by(1100), 450);
    }

    #[test]
    fn a_concurrency_without_bound_leaves_most_of_the_limit_to_sessions() {
        let need = need(10_000, |settings| {
            two_scanners(settings);
            settings.scan_concurrency = std::num::NonZeroU16::MAX;
        });
        assert_eq!(need.wanted(10_000), 50_136);
        assert_eq!(need.served_by(20_136), (20_000 - 5034) / 4 * 2);
    }
}
