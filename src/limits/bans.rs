//! Who is banned, for how long, and how often it has been.
//!
//! The source is banned, never an account. A ban doubles when it is repeated
//! within a day of its end. The table is bounded; one that is full takes no
//! further ban. The rates go on deciding then, that of failed sign-ins before the
//! backend hears of the next one; offences are only counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;
use ipnet::IpNet;

/// How long a ban is remembered after its end, and how long one may last.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Octets that a ban costs at worst: entry and control byte in a table that has
/// just doubled, and half of that again while it moves.
pub(super) const OCTETS: usize = 3 * (size_of::<(IpNet, Ban)>() + 1);

/// What a source was banned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanReason {
    /// More failed sign-ins than `AUTH_FAIL_RATE`.
    AuthFailures,
    /// More connections that its own limits refused than `FLOOD_RATE`.
    Flood,
    /// More sessions that ended over a protocol offence than `OFFENCE_RATE`.
    Offences,
    /// Another instance has banned it.
    Elsewhere,
}

impl BanReason {
    /// The short name, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthFailures => "auth-failures",
            Self::Flood => "flood",
            Self::Offences => "offences",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl fmt::Display for BanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One ban, in force or remembered.
#[derive(Clone, Copy, Debug)]
pub struct Ban {
    /// Until when.
    pub until: Instant,
    /// How many there were in a row.
    pub strikes: u32,
    /// What for.
    pub reason: BanReason,
}

/// The bans.
pub(super) struct Bans {
    table: DashMap<IpNet, Ban, RandomState>,
    /// Kept beside the table, whose own count asks every shard.
    count: AtomicUsize,
    most: usize,
    /// How long a first ban lasts, milliseconds.
    first: AtomicU64,
    start: Instant,
    /// When room was made last, in seconds since the start.
    room_made: AtomicU64,
}

/// How often at most room is made in a table that is full, seconds: it reads the
/// whole table.
const MAKE_ROOM: u64 = 5;

impl Bans {
    /// Bans of `first` at least, in `octets` of memory.
    pub(super) fn new(first: Duration, octets: usize) -> Self {
        Self {
            table: DashMap::default(),
            count: AtomicUsize::new(0),
            most: octets / OCTETS,
            first: AtomicU64::new(milliseconds(first)),
            start: Instant::now(),
            room_made: AtomicU64::new(0),
        }
    }

    /// From now on a first ban lasts that long; those in force stay as they are.
    pub(super) fn last(&self, first: Duration) {
        self.first.store(milliseconds(first), Ordering::Relaxed);
    }

    pub(super) fn first(&self) -> Duration {
        Duration::from_millis(self.first.load(Ordering::Relaxed))
    }

    /// How long the source is still banned.
    pub(super) fn left(&self, source: &IpNet, now: Instant) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let left = self.table.get(source)?.until.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// Bans a source and says for how long; `None` when it is banned already,
    /// when bans are off or the table is full.
    pub(super) fn ban(&self, source: IpNet, reason: BanReason, now: Instant) -> Option<Duration> {
        let first = self.first();
        if first.is_zero() {
            return None;
        }
        if self.is_full() {
            self.make_room(now);
        }
        match self.table.entry(source) {
            Entry::Vacant(vacant) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= self.most {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                let ban = Ban {
                    until: later(now, first),
                    strikes: 1,
                    reason,
                };
                vacant.insert(ban);
                Some(first)
            }
            Entry::Occupied(mut occupied) => {
                let old = *occupied.get();
                if old.until > now {
                    return None;
                }
                let strikes = if forgotten(&old, now) {
                    1
                } else {
                    old.strikes.saturating_add(1)
                };
                let length = length(first, strikes);
                occupied.insert(Ban {
                    until: later(now, length),
                    strikes,
                    reason,
                });
                Some(length)
            }
        }
    }

    /// Whether a source would be banned that is not known yet. May make room for it.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        if self.is_full() {
            self.make_room(now);
        }
        !self.first().is_zero() && !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.most
    }

    /// Takes over what all instances together say of a source: how long it is
    /// banned from now.
    pub(super) fn learn(&self, source: IpNet, reason: BanReason, left: Duration, now: Instant) {
        // Redis has no business banning for longer than we would.
        let left = left.min(self.first().max(DAY));
        if let Some(mut ban) = self.table.get_mut(&source)
            && ban.until > now
        {
            ban.until = later(now, left);
            return;
        }
        self.ban(source, reason, now);
        if let Some(mut ban) = self.table.get_mut(&source) {
            ban.until = later(now, left);
        }
    }

    /// Forgets all about a source; whether it was banned.
    pub(super) fn lift(&self, source: &IpNet, now: Instant) -> bool {
        let Some((_, ban)) = self.table.remove(source) else {
            return false;
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        ban.until > now
    }

    /// Forgets what is over for a day, one shard of the table at a time.
    pub(super) fn sweep(&self, now: Instant) {
        self.keep(|ban| !forgotten(ban, now));
    }

    /// Forgets all about everybody.
    pub(super) fn forget(&self) {
        self.keep(|_| false);
    }

    /// Forgets all bans that are over: those in force need the room.
    fn make_room(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_secs();
        let last = self.room_made.load(Ordering::Relaxed);
        if last == 0 || since.saturating_sub(last) >= MAKE_ROOM {
            self.room_made.store(since.max(1), Ordering::Relaxed);
            self.keep(|ban| ban.until > now);
        }
    }

    fn keep(&self, keep: impl Fn(&Ban) -> bool) {
        let mut gone = 0;
        self.table.retain(|_, ban| {
            let keep = keep(ban);
            if !keep {
                gone += 1;
            }
            keep
        });
        if gone > 0 {
            self.count.fetch_sub(gone, Ordering::Relaxed);
            self.table.shrink_to_fit();
        }
    }

    /// The bans in force.
    pub(super) fn list(&self, now: Instant) -> Vec<(IpNet, Ban)> {
        let bans = self
            .table
            .iter()
            .map(|entry| (*entry.key(), *entry.value()));
        bans.filter(|(_, ban)| ban.until > now).collect()
    }
}

/// `first`, doubled with each repetition up to a day.
fn length(first: Duration, strikes: u32) -> Duration {
    let doubled = 1_u32
        .checked_shl(strikes.saturating_sub(1))
        .and_then(|factor| first.checked_mul(factor));
    doubled.unwrap_or(DAY).min(first.max(DAY))
}

/// The longest ban that is counted: a century, where `Instant` has an end too.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn later(now: Instant, length: Duration) -> Instant {
    now + length.min(LONGEST)
}

fn forgotten(ban: &Ban, now: Instant) -> bool {
    now.checked_duration_since(ban.until)
        .is_some_and(|since| since >= DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn source(host: u8) -> IpNet {
        format!("192.0.2.{host}/32").parse().unwrap()
    }

    fn bans(first: Duration) -> Bans {
        Bans::new(first, 1 << 20)
    }

    #[test]
    fn a_ban_doubles_when_repeated_and_stops_at_a_day() {
        let (bans, mut now) = (bans(HOUR), Instant::now());
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            let length = bans.ban(source(1), BanReason::Flood, now).unwrap();
            assert_eq!(length, hours * HOUR);
            assert_eq!(bans.left(&source(1), now), Some(length));
            now += length;
            assert_eq!(bans.left(&source(1), now), None);
        }
    }

    #[test]
    fn a_changed_length_counts_from_the_next_ban() {
        let (bans, now) = (bans(HOUR), Instant::now());
        bans.ban(source(1), BanReason::Flood, now);
        bans.last(HOUR / 2);
        assert_eq!(bans.left(&source(1), now), Some(HOUR));
        let length = bans.ban(source(2), BanReason::Flood, now);
        assert_eq!(length, Some(HOUR / 2));
    }

    #[test]
    fn an_offence_during_a_ban_does_not_lengthen_it() {
        let (bans, now) = (bans(HOUR), Instant::now());
        bans.ban(source(1), BanReason::Flood, now);
        let later = now + HOUR / 4;
        assert_eq!(bans.ban(source(1), BanReason::Flood, later), None);
        assert_eq!(bans.left(&source(1), later), Some(HOUR * 3 / 4));
        assert_eq!(bans.left(&source(1), now + HOUR), None);
    }

    #[test]
    fn a_day_of_peace_wipes_the_slate() {
        let (bans, now) = (bans(HOUR), Instant::now());
        bans.ban(source(1), BanReason::Flood, now);
        let later = now + HOUR + DAY;
        assert_eq!(bans.ban(source(1), BanReason::Flood, later), Some(HOUR));
    }

    #[test]
    fn a_full_table_takes_no_further_ban_until_it_is_swept() {
        let (bans, now) = (Bans::new(HOUR, OCTETS * 2), Instant::now());
        assert!(bans.ban(source(1), BanReason::Flood, now).is_some());
        assert!(bans.ban(source(2), BanReason::Flood, now).is_some());
        assert_eq!(bans.ban(source(3), BanReason::Flood, now), None);
        assert!(bans.left(&source(1), now).is_some());
        bans.sweep(now + HOUR + DAY);
        let later = now + HOUR + DAY;
        assert!(bans.ban(source(3), BanReason::Flood, later).is_some());
        assert_eq!(bans.list(later).len(), 1);
    }

    #[test]
    fn a_ban_that_is_lifted_is_forgotten_with_its_strikes_and_makes_room() {
        let (bans, now) = (Bans::new(HOUR, OCTETS), Instant::now());
        bans.ban(source(1), BanReason::Flood, now);
        assert!(bans.lift(&source(1), now) && !bans.lift(&source(1), now));
        assert_eq!(bans.left(&source(1), now), None);
        assert_eq!(bans.ban(source(1), BanReason::Flood, now), Some(HOUR));
        assert!(!bans.lift(&source(1), now + HOUR));
    }

    #[test]
    fn what_the_others_say_of_a_ban_counts() {
        let (bans, now) = (bans(HOUR), Instant::now());
        bans.learn(source(1), BanReason::Elsewhere, HOUR / 2, now);
        assert_eq!(bans.left(&source(1), now), Some(HOUR / 2));
        bans.ban(source(2), BanReason::Flood, now);
        bans.learn(source(2), BanReason::Flood, 4 * HOUR, now);
        assert_eq!(bans.left(&source(2), now), Some(4 * HOUR));
    }

    #[test]
    fn a_full_table_forgets_the_bans_that_are_over() {
        let (bans, now) = (Bans::new(HOUR, OCTETS * 2), Instant::now());
        bans.ban(source(1), BanReason::Flood, now);
        bans.ban(source(2), BanReason::Flood, now + HOUR / 2);
        let later = now + HOUR;
        assert!(bans.ban(source(3), BanReason::Flood, later).is_some());
        assert!(bans.left(&source(2), later).is_some());
    }

    #[test]
    fn no_time_means_no_bans() {
        let (bans, now) = (bans(Duration::ZERO), Instant::now());
        assert_eq!(bans.ban(source(1), BanReason::Flood, now), None);
        assert_eq!(bans.left(&source(1), now), None);
    }

    #[test]
    fn a_ban_that_never_ends_is_no_panic() {
        let (bans, now) = (bans(Duration::MAX), Instant::now());
        assert!(bans.ban(source(1), BanReason::Flood, now).is_some());
        bans.learn(source(2), BanReason::Elsewhere, Duration::MAX, now);
        assert!(bans.left(&source(1), now + 3 * DAY).is_some());
        assert!(bans.left(&source(2), now + 3 * DAY).is_some());
    }

    #[test]
    fn a_ban_longer_than_a_day_is_not_shortened() {
        let (bans, now) = (bans(3 * DAY), Instant::now());
        assert_eq!(bans.ban(source(1), BanReason::Flood, now), Some(3 * DAY));
        let later = now + 3 * DAY;
        assert_eq!(bans.ban(source(1), BanReason::Flood, later), Some(3 * DAY));
    }
}
