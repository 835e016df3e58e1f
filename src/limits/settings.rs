//! The settings that limits obey.

use std::num::NonZeroU32;
use std::time::Duration;

use super::prefix::{PrefixV4, PrefixV6};
use super::rate::Rate;
use super::shared::Sharing;
use crate::settings::{Networks, Size, Value, section};

section! {
    /// How much and how often.
    pub struct Settings {
        /// New connections of a client; above it `421`. Rates are written `60/min`, `60/min burst 20`, `5/10min` or `off`; without a burst, it is the count.
        conn_rate: Rate = "60/min burst 20", example "60/min burst 20";
        /// Connections at once of a client; above it `421`. `off` for no bound.
        conn_max: ConnMax = "20", example "50";
        /// Connections at once in all. Above 80 % of it, clients that keep Portcullis waiting for ten seconds are closed, those that have neither sent a message nor signed in first and sooner; bodies that come faster than 8 KiB/s keep nobody waiting.
        sessions_max: NonZeroU32 = "10000", example "2000";
        /// Connections at once to the guarded servers, all clients together; `off` for no bound. Set it a little below what the old server serves at once (Postfix: `default_process_limit`, 100; Exim: `smtp_accept_max`, 20): a full one turns the probe away too, and counts as down. When they are used up a client waits for 15 s, then hears `451`; the next one goes to the network that has the fewest (`PREFIX_V4`, `PREFIX_V6`, `PREFIX_FACTOR`), or to a client in `LIMIT_EXEMPT`; and clients that have held one for ten seconds without getting anything done, and keep Portcullis waiting or send a body below 8 KiB/s, are closed.
        backend_conn_max: ConnMax = "90", example "18";
        /// Messages of a client, counted at MAIL; above it `450`.
        msg_rate: Rate = "120/min burst 60", example "120/min burst 60";
        /// Recipients of a client, counted at RCPT; above it `452`.
        rcpt_rate: Rate = "600/min burst 200", example "1000/h burst 100";
        /// Failed sign-ins of a client; above it the client is banned, or hears `454` to AUTH if it cannot be. Sign-ins at once wait for each other where more than are left could fail.
        auth_fail_rate: Rate = "5/10min", example "10/h";
        /// Connections of a client that its own limits refused; above it the client is banned.
        flood_rate: Rate = "120/min", example "1000/h";
        /// Sessions of a client that met a protocol offence (too many errors, or half of `ERROR_MAX` and nothing got done; a CR, LF or NUL alone in a command; what must not be pipelined; talking before the greeting; another protocol), however they ended; above it the client is banned. What stands in a message is no offence: users write it, and relays pass it on.
        offence_rate: Rate = "10/10min", example "off";
        /// How long a ban lasts; repeated within a day of its end it doubles, up to a day. Banned clients are reset without a word. `0s` for no bans.
        ban_time: Duration = "1h", example "10min";
        /// Networks outside all limits per client. Loopback is not exempt by itself.
        limit_exempt: Networks = "", example "10.0.0.0/8";
        /// Memory for limits, whatever addresses come. When it is used up nobody is forgotten who is counted, and wider networks decide about newcomers. A session takes 300 octets besides, with `REDIS` 1000.
        limit_memory: LimitMemory = "16M", example "64M";
        /// Width in bits of "a client" in IPv4; /24 networks are counted too.
        prefix_v4: PrefixV4 = "32", example "24";
        /// Width in bits of "a client" in IPv6; /48 and /32 networks are counted too.
        prefix_v6: PrefixV6 = "64", example "56";
        /// How many times as much as the next narrower one a wider network may.
        prefix_factor: Factor = "8", example "16";
        /// Redis or Valkey in which all instances share rates, connections at once and bans; `rediss://` for TLS. When it is slow or gone, each instance's own limits decide. All instances need the same rates.
        #[secret]
        redis: Sharing = "off", example "redis://redis.example.org:6379/0";
    }
}

/// Connections at once of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnMax(pub Option<NonZeroU32>);

impl Value for ConnMax {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        match NonZeroU32::new(u32::parse(text)?) {
            Some(most) => Ok(Self(Some(most))),
            None => Err("would let nobody in; say `off` for no bound".to_owned()),
        }
    }
}

/// A factor of at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(pub NonZeroU32);

impl Value for Factor {
    fn parse(text: &str) -> Result<Self, String> {
        match NonZeroU32::new(u32::parse(text)?) {
            Some(factor) if factor.get() <= 1024 => Ok(Self(factor)),
            _ => Err("is not between 1 and 1024".to_owned()),
        }
    }
}

/// Octets of memory, enough for a few thousand clients at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitMemory(pub usize);

impl Value for LimitMemory {
    fn parse(text: &str) -> Result<Self, String> {
        let Size(octets) = Size::parse(text)?;
        match usize::try_from(octets) {
            Ok(octets) if (1 << 20..=1 << 34).contains(&octets) => Ok(Self(octets)),
            _ => Err("is not between 1M and 16G".to_owned()),
        }
    }
}
