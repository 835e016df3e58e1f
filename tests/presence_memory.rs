//! What it costs to know who is here, with clients that have no network in common.
//!
//! One test alone in its process, because it measures the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

use std::net::{IpAddr, Ipv6Addr};

use portcullis::limits::{Limits, Rate, Settings};
use portcullis::policy::Mode;
use portcullis::settings::{LogAddresses, Networks};

/// `SESSIONS_MAX` by default, ten times over.
const CLIENTS: u32 = 100_000;

/// Stated in `src/limits/mod.rs`, octets.
const OF_A_SESSION: u64 = 300;

/// What the allocator may take besides.
const SLACK: u64 = 1 << 20;

/// A figure of proc_pid_status(5), in octets.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn sessions_cost_what_is_stated_though_no_two_share_a_network() {
    let settings = Settings {
        conn_rate: Rate::OFF,
        ..Settings::default()
    };
    let nobody = Networks::default();
    let limits = Limits::new(&settings, &nobody, Mode::Enforce, LogAddresses::Full);
    let mut permits = Vec::with_capacity(CLIENTS as usize);
    let before = memory("VmRSS:");
    for number in 0..CLIENTS {
        // Each in a /64, a /48 and a /32 of its own.
        let client = Ipv6Addr::from((0x2000_0000 + u128::from(number)) << 96 | 1);
        permits.push(limits.admit(IpAddr::V6(client)).unwrap());
    }
    let grown = memory("VmHWM:").saturating_sub(before);
    println!("{} octets a session", grown / u64::from(CLIENTS));
    assert_eq!(limits.census().networks, 3 * CLIENTS as usize);
    assert!(
        grown <= OF_A_SESSION * u64::from(CLIENTS) + SLACK,
        "{grown}"
    );
    drop(permits);
    assert_eq!(limits.census().networks, 0);
}
