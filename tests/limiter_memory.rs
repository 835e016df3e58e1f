//! Two million clients pass by the limits: memory stays within `LIMIT_MEMORY`, and
//! whoever was there before them is treated as before.
//!
//! One test alone in its process, because it measures the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::limits::{Charge, Limits, Rate, Settings};
use portcullis::policy::Mode;
use portcullis::settings::{LogAddresses, Networks, Value};

const MILLION: u32 = 1_000_000;

/// What the allocator and the test's own loop may take besides.
const SLACK: u64 = 1 << 20;

const BURST: usize = 20;

/// Nothing that is charged is forgotten while the test runs: the tables fill up.
fn settings() -> Settings {
    let slow = Rate::parse("24/day burst 20").unwrap();
    Settings {
        conn_rate: slow,
        msg_rate: slow,
        rcpt_rate: slow,
        auth_fail_rate: Rate::parse("2/day").unwrap(),
        flood_rate: slow,
        offence_rate: slow,
        ..Settings::default()
    }
}

/// Failed sign-ins that ban.
const FAILURES: usize = 3;

/// Everything that a client can be charged for, short of a ban.
fn charge_all(limits: &Limits, client: IpAddr) {
    drop(limits.admit(client));
    let _ = now(limits.charge(client, Charge::Message));
    let _ = now(limits.charge(client, Charge::Recipient));
    let _ = now(limits.auth_failed(client));
    limits.offended(client);
}

/// A million /64 networks in sixteen /32 networks.
fn v6_spray() -> impl Iterator<Item = IpAddr> {
    (0..MILLION).map(|number| {
        let (wide, narrow) = (u128::from(number % 16), u128::from(number / 16));
        let base = u128::from(Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1));
        Ipv6Addr::from(base | wide << 96 | narrow << 64).into()
    })
}

/// A million addresses in as many /24 networks as there are for them.
fn v4_spray() -> impl Iterator<Item = IpAddr> {
    (0..MILLION).map(|number| {
        let (network, host) = (number % 65_536, number / 65_536);
        Ipv4Addr::from((20 << 24) + (network << 8) + host).into()
    })
}

/// The same for all of them, and on to a ban for every fourth.
fn abuse(limits: &Limits, clients: impl Iterator<Item = IpAddr>) {
    for (number, client) in clients.enumerate() {
        charge_all(limits, client);
        if number.is_multiple_of(4) {
            for _ in 1..FAILURES {
                let _ = now(limits.auth_failed(client));
            }
        }
    }
}

fn messages_left(limits: &Limits, client: IpAddr) -> usize {
    (0..2 * BURST)
        .filter(|_| now(limits.charge(client, Charge::Message)).is_ok())
        .count()
}

/// A figure of proc_pid_status(5), in octets.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn two_million_keys_stay_within_the_bound_and_change_nothing_for_those_before_them() {
    let at_first = memory("VmRSS:");
    let settings = settings();
    let bound = u64::try_from(settings.limit_memory.0).unwrap();
    let limits = Limits::new(
        &settings,
        &Networks::default(),
        Mode::Enforce,
        LogAddresses::Full,
    );

    let clients: [IpAddr; 2] = [
        "192.0.2.7".parse().unwrap(),
        "2001:db8:1:2::7".parse().unwrap(),
    ];
    let offenders: [IpAddr; 2] = [
        "198.51.100.7".parse().unwrap(),
        "2001:db8:9:9::7".parse().unwrap(),
    ];
    let guessers: [IpAddr; 2] = [
        "203.0.113.7".parse().unwrap(),
        "2001:db8:5:5::7".parse().unwrap(),
    ];
    for client in clients {
        charge_all(&limits, client);
    }
    for offender in offenders {
        assert_eq!(messages_left(&limits, offender), BURST);
    }
    for guesser in guessers {
        let failed = (0..FAILURES).map(|_| now(limits.auth_failed(guesser)));
        assert_eq!(failed.filter(Result::is_err).count(), 1);
    }

    std::thread::scope(|scope| {
        scope.spawn(|| abuse(&limits, v6_spray()));
        scope.spawn(|| abuse(&limits, v4_spray()));
    });

    let grown = memory("VmHWM:").saturating_sub(at_first);
    let (census, bans) = (limits.census(), limits.bans().len());
    println!(
        "{} KiB more than before, {} KiB allowed; {census:?}, {bans} bans",
        grown >> 10,
        (bound + SLACK) >> 10,
    );
    assert!(census.crowded > 0, "the tables were never full: {census:?}");
    assert!(bans > 20_000, "the table of bans was never full: {bans}");
    assert_eq!(census.networks, 0, "permits were dropped");
    assert!(grown <= bound + SLACK, "{grown} octets more than before");

    for client in clients {
        assert!(limits.admit(client).is_ok(), "{client}");
        assert_eq!(now(limits.auth_failed(client)), Ok(()), "{client}");
        assert_eq!(messages_left(&limits, client), BURST - 1, "{client}");
    }
    for offender in offenders {
        assert_eq!(messages_left(&limits, offender), 0, "{offender}");
    }
    for guesser in guessers {
        assert!(limits.admit(guesser).is_err(), "{guesser}");
    }
}

/// What needs no other instance is there at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("waits for somebody"),
    }
}
