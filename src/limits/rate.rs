//! A rate as settings write it: `60/min burst 20`, `5/10min`, `off`.
//!
//! It says how fast a bucket refills and how deep it is; it counts nothing.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

use crate::settings::Value;

/// The fastest refill that the tables can count, one token.
pub(super) const FASTEST: Duration = Duration::from_millis(1);

/// The longest time that a bucket may take to be full again.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How much of something a client may do: at most 1,000 a second, and a bucket
/// that is full again within 30 days; or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(Option<Allowance>);

/// A bucket: its depth and how fast it refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Time in which one token comes back.
    pub period: Duration,
    /// Tokens when full.
    pub burst: NonZeroU32,
}

impl Rate {
    /// No bound.
    pub const OFF: Self = Self(None);

    /// The bucket; `None` where the rate is off.
    pub fn allowance(self) -> Option<Allowance> {
        self.0
    }
}

impl Allowance {
    /// The same for a network that holds many clients.
    pub(super) fn times(self, factor: NonZeroU32) -> Self {
        Self {
            period: (self.period / factor.get()).max(FASTEST / 4),
            burst: self.burst.saturating_mul(factor),
        }
    }

    pub(super) fn quota(self) -> Option<Quota> {
        Some(Quota::with_period(self.period)?.allow_burst(self.burst))
    }
}

impl Value for Rate {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::OFF);
        }
        let mut words = text.split_ascii_whitespace();
        let rate = words.next().unwrap_or_default();
        let burst = match (words.next(), words.next(), words.next()) {
            (None, ..) => None,
            (Some("burst"), Some(burst), None) => Some(natural(burst, "burst")?),
            _ => return Err("is not a rate with its burst".to_owned()),
        };
        let (count, span) = rate.split_once('/').ok_or("is not a rate")?;
        let count = natural(count, "count")?;
        let span = match span.as_bytes().first() {
            Some(b'0'..=b'9') => Duration::parse(span)?,
            _ => Duration::parse(&format!("1{span}"))
                .map_err(|_| "has no span of time behind the `/`".to_owned())?,
        };
        let allowance = Allowance {
            period: span / count.get(),
            burst: burst.unwrap_or(count),
        };
        if allowance.period < FASTEST {
            return Err("is above 1000 a second; say `off` if there shall be no bound".to_owned());
        }
        match allowance.period.checked_mul(allowance.burst.get()) {
            Some(whole) if whole <= LONGEST => Ok(Self(Some(allowance))),
            _ => Err("takes more than 30 days to recover".to_owned()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(Allowance { period, burst })) = self else {
            return f.write_str("off");
        };
        // As people write it: the first unit that holds a whole count.
        let units = [("min", 60), ("h", 3600), ("day", 86_400), ("s", 1)];
        let whole = units.into_iter().find_map(|(unit, seconds)| {
            let span = Duration::from_secs(seconds);
            let count = u32::try_from(span.as_nanos().checked_div(period.as_nanos())?).ok()?;
            (span.checked_div(count)? == *period).then_some((count, unit))
        });
        match whole {
            Some((count, unit)) => write!(f, "{count}/{unit} burst {burst}"),
            None => {
                let period = humantime::format_duration(*period);
                write!(f, "1/{period} burst {burst}")
            }
        }
    }
}

fn natural(text: &str, what: &str) -> Result<NonZeroU32, String> {
    let number = u32::parse(text).map_err(|problem| format!("has a {what} that {problem}"))?;
    NonZeroU32::new(number).ok_or_else(|| format!("has a {what} of 0; say `off` for no bound"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_settings_write() {
        for (text, milliseconds, burst) in [
            ("60/min", 1000, 60),
            ("60/min burst 20", 1000, 20),
            ("5/10min", 120_000, 5),
            ("1/s", 1000, 1),
            ("1000/sec burst 1", 1, 1),
            ("24/day", 3_600_000, 24),
            ("600/1h   burst  7", 6000, 7),
        ] {
            let allowance = Rate::parse(text).unwrap().allowance().unwrap();
            assert_eq!(
                allowance.period,
                Duration::from_millis(milliseconds),
                "{text}"
            );
            assert_eq!(allowance.burst.get(), burst, "{text}");
            let again = Rate::parse(&Rate(Some(allowance)).to_string()).unwrap();
            assert_eq!(again.allowance(), Some(allowance), "{text}");
        }
        assert_eq!(Rate::parse("off"), Ok(Rate::OFF));
        for (text, shown) in [
            ("60/min burst 20", "60/min burst 20"),
            ("5/10min", "30/h burst 5"),
            ("1000/h", "1000/h burst 1000"),
            ("1/25h", "1/1day 1h burst 1"),
        ] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), shown);
        }
        assert_eq!(Rate::parse(&Rate::OFF.to_string()), Ok(Rate::OFF));
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for bad in [
            "",
            "60",
            "60/",
            "/min",
            "0/min",
            "60/min burst 0",
            "60/min burst",
            "-1/min",
            "6.5/min",
            "60/min burst 20 30",
            "60/min peak 20",
            "60/0min",
            "60 per min",
            "60/fortnight",
            "1001/s",
            "1/31d",
            "100/day burst 4000",
            "99999999999/min",
        ] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wider_network_has_a_deeper_bucket_that_refills_faster() {
        let client = Rate::parse("60/min burst 20").unwrap().allowance().unwrap();
        let wider = client.times(NonZeroU32::new(8).unwrap());
        assert_eq!(
            (wider.period, wider.burst.get()),
            (Duration::from_millis(125), 160)
        );
    }
}
