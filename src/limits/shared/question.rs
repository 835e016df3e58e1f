//! What is asked of Redis and what it answers, in values. Nothing here knows a
//! connection.

use std::time::Duration;

/// Largest time in a script, in microseconds: 71 years. Three of them are still
/// a whole number in Lua.
const MICROS_MAX: u64 = 1 << 51;

/// One bucket to be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Name of the bucket, short, of printable ASCII, the same in all instances.
    pub key: String,
    /// Time in which one token comes back. Shorter than a microsecond counts as one.
    pub period: Duration,
    /// Tokens that the bucket holds.
    pub burst: u32,
    /// Tokens to be taken; more than `burst` are taken as `burst`.
    pub cost: u32,
}

/// One place to be taken among those that a key may hold at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Name of the count, short, of printable ASCII, the same in all instances.
    pub key: String,
    /// Places in all.
    pub max: u32,
}

/// What all instances together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Everything was charged, every place taken.
    Pass,
    /// A bucket does not hold enough. Nothing was charged.
    Refused {
        /// Which of the charges.
        index: usize,
        /// After this time it does, if nobody else charges it.
        wait: Duration,
    },
    /// A count is full. Nothing was charged.
    TooMany {
        /// Which of the counts.
        index: usize,
    },
    /// The source is banned. Nothing was charged.
    Banned {
        /// For this long.
        left: Duration,
    },
}

impl Charge {
    /// Cost and size of the bucket as the script counts them: time, in
    /// microseconds.
    pub(super) fn cost_and_size(&self) -> (u64, u64) {
        let period = micros(self.period);
        let tokens = |count: u32| period.saturating_mul(count.into()).min(MICROS_MAX);
        (tokens(self.cost.min(self.burst)), tokens(self.burst))
    }
}

impl Ruling {
    /// Reads the answer of `admit.lua` to a question with so many charges and
    /// counts.
    pub(super) fn read(answer: &[i64], charges: usize, counts: usize) -> Option<Self> {
        let [ruling, index, micros] = answer else {
            return None;
        };
        let index = usize::try_from(*index).ok()?;
        let time = Duration::from_micros(u64::try_from(*micros).ok()?);
        match ruling {
            0 => Some(Self::Pass),
            1 if index < charges => Some(Self::Refused { index, wait: time }),
            2 if index < counts => Some(Self::TooMany { index }),
            3 => Some(Self::Banned { left: time }),
            _ => None,
        }
    }
}

/// At least one, and small enough for a script.
fn micros(duration: Duration) -> u64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX);
    micros.clamp(1, MICROS_MAX)
}

/// At least one, and small enough for a script.
pub(super) fn millis(duration: Duration) -> u64 {
    micros(duration).div_ceil(1000)
}
