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

use portcullis::limits::shared::Sharing;
use portcullis::limits::{Limits, Rate, Settings};
use portcullis::policy::Mode;
use portcullis::settings::{LogAddresses, Networks, Value};

/// `SESSIONS_MAX` by default, ten times over.
const CLIENTS: u32 = 100_000;

/// Stated in `src/limits/mod.rs`, octets.
const OF_A_SESSION: u64 = 300;

/// The same of what comes to it where limits are shared.
const OF_A_SHARED_SESSION: u64 = 700;

/// What the allocator may take besides.
const SLACK: u64 = 1 << 20;

/// A figure of proc_pid_status(5), in octets.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// Each in a /64, a /48 and a /32 of its own, with names as long as they get.
fn client(number: u32) -> IpAddr {
    let network = (0x2000_0000 + u128::from(number)) << 96;
    IpAddr::V6(Ipv6Addr::from(network | 0xabcd_ef01 << 64 | 1))
}

#[test]
fn sessions_cost_what_is_stated_though_no_two_share_a_network() {
    let settings = Settings {
        conn_rate: Rate::OFF,
        // Nobody is there, but what is held would be told to it.
        redis: Sharing::parse("redis://127.0.0.1:1/0").unwrap(),
        ..Settings::default()
    };
    let nobody = Networks::default();
    let limits = Limits::new(&settings, &nobody, Mode::Enforce, LogAddresses::Full);
    let mut permits = Vec::with_capacity(CLIENTS as usize);
    let before = memory("VmRSS:");
    for number in 0..CLIENTS {
        permits.push(limits.admit(client(number)).unwrap());
    }
    let grown = memory("VmHWM:").saturating_sub(before);
    println!("{} octets a session", grown / u64::from(CLIENTS));
    assert_eq!(limits.census().networks, 3 * CLIENTS as usize);
    assert!(
        grown <= OF_A_SESSION * u64::from(CLIENTS) + SLACK,
        "{grown}"
    );
    let before = memory("VmRSS:");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        for (number, permit) in (0..CLIENTS).zip(&mut permits) {
            let admitted = limits.admit_by_all(client(number), permit).await;
            assert_eq!(admitted, Ok(()));
        }
    });
    let grown = memory("VmHWM:").saturating_sub(before);
    println!(
        "{} octets more where limits are shared",
        grown / u64::from(CLIENTS)
    );
    assert!(
        grown <= OF_A_SHARED_SESSION * u64::from(CLIENTS) + SLACK,
        "{grown}"
    );
    drop(permits);
    assert_eq!(limits.census().networks, 0);
}
