//! The test house: real peers, scripted peers and the program itself, each on its
//! own loopback port with its own temporary folder, each gone when it is dropped.
//!
//! Nothing in here skips. A peer that is not installed fails the test that needs
//! it, because a gate that was not tried is not a gate; `tests/run` installs them.

// Every test file compiles its own copy of this module and uses a part of it.
#![allow(dead_code, unused_imports)]

mod account;
pub mod actor;
mod attachments;
mod browser;
mod cable;
mod certs;
mod clamd;
mod client;
mod command;
mod crowd;
mod daemon;
pub mod fickle;
pub mod http;
mod judged;
mod knock;
mod letters;
mod load;
pub mod meant;
mod milters;
mod podman;
mod portcullis;
mod ports;
mod postfix;
mod prometheus;
pub mod readers;
mod redis;
mod rspamd;
mod scanned;
mod scripted;
mod senders;
mod sham;
pub mod smuggler;
mod spamd;
pub mod streams;
mod visitors;

pub use account::Account;
pub use attachments::{attachment, zipped};
pub use browser::Browser;
pub use cable::Cable;
pub use certs::{Authority, Certificate};
pub use clamd::{Clamd, EICAR_NAME, eicar};
pub use client::{Smtp, trusting_config, trusting_config_of};
pub use command::{Finished, Running, run};
pub use crowd::{Guest, Toll, connect_from, flood};
pub use daemon::Daemon;
pub use judged::{Arrived, deliver_in_chunks, fields, heard, spam, wait_until_held};
pub use knock::{first_octets, first_octets_after, is_banned};
pub use letters::{dot_stuffed, first_difference, letter, torture};
pub use load::{Load, sessions_at_once};
pub use milters::{Opendkim, Pymilter};
pub use podman::{Container, image, podman, ulimits};
pub use portcullis::Portcullis;
pub use ports::free_address;
pub use postfix::{Learns, Options, Postfix};
pub use prometheus::Prometheus;
pub use redis::{Redis, redis_questions, with_redis_in_time};
pub use rspamd::Rspamd;
pub use scanned::{content_of, hold, message, milters};
pub use scripted::{Act, Scripted};
pub use senders::{Attempt, Doors, Senders, sent_by_attempt};
pub use sham::{Manner, Sham};
pub use spamd::{Spamd, gtube};
pub use visitors::{Paid, Visit, Visitors};

use std::time::{Duration, Instant};

/// Looks again and again until `look` finds something, or gives up with `None`.
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The text in the middle of `text` that stands between `before` and `after`.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(middle, _)| middle)
}
