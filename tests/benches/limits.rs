//! What the limits cost: one check, by what the tables know of the client, from one
//! thread and from two at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]
#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use divan::{Bencher, black_box};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use portcullis::limits::{Charge, LimitMemory, Limits, Rate, Settings};
use portcullis::policy::{Finding, Mode};
use portcullis::settings::{LogAddresses, Networks, Value};

const THREADS: [usize; 2] = [1, 2];

/// Checks of a sample: enough to drown the clock, and page faults.
const CHECKS: u32 = 10_000;

const MILLION: u32 = 1_000_000;

fn main() {
    divan::main();
}

/// Limits that a bench does not run into, in `memory`; `rate` counts everything.
fn limits(rate: &str, memory: usize) -> Limits {
    let rate = Rate::parse(rate).unwrap();
    let settings = Settings {
        conn_rate: rate,
        msg_rate: rate,
        rcpt_rate: rate,
        auth_fail_rate: rate,
        limit_memory: LimitMemory(memory),
        ..Settings::default()
    };
    Limits::new(
        &settings,
        &Networks::default(),
        Mode::Enforce,
        LogAddresses::Full,
    )
}

const WIDE: &str = "1000/s burst 2000000000";

/// Whoever is charged is remembered for an hour.
const LONG: &str = "1/h burst 700";

const DEFAULT_MEMORY: usize = 16 << 20;

/// Room for a million in every table.
const AMPLE_MEMORY: usize = 512 << 20;

/// Numbers in an order that no cache can guess, each once in four thousand million.
fn scattered() -> impl Fn() -> u32 + Sync {
    let next = AtomicU32::new(0);
    move || {
        next.fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9E37_79B1)
    }
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

/// A /64 network of its own for each number, 65,536 of them in a /32.
fn v6(number: u32) -> IpAddr {
    Ipv6Addr::from(0x2000_u128 << 112 | u128::from(number) << 80 | 1).into()
}

fn hot() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 7).into()
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn hot_key(bencher: Bencher) {
    let limits = limits(WIDE, DEFAULT_MEMORY);
    bencher.bench(|| now(limits.charge(black_box(hot()), Charge::Message)));
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn hot_key_refused(bencher: Bencher) {
    let limits = limits("1/day burst 1", DEFAULT_MEMORY);
    bencher.bench(|| now(limits.charge(black_box(hot()), Charge::Message)));
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn new_v4_key(bencher: Bencher) {
    newcomers(bencher, &limits(WIDE, DEFAULT_MEMORY), v4);
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn new_v6_key(bencher: Bencher) {
    newcomers(bencher, &limits(WIDE, DEFAULT_MEMORY), v6);
}

/// Sets of slots are searched in vain, and everybody's bucket decides.
#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn new_v4_key_before_full_tables(bencher: Bencher) {
    newcomers(bencher, &limits(LONG, DEFAULT_MEMORY), v4);
}

/// A million have been there before, so all pages of the tables are in use.
fn newcomers(bencher: Bencher, limits: &Limits, key: fn(u32) -> IpAddr) {
    let number = scattered();
    for _ in 0..MILLION {
        let _ = now(limits.charge(key(number()), Charge::Message));
    }
    bencher
        .with_inputs(|| key(number()))
        .bench_values(|client| now(limits.charge(client, Charge::Message)));
}

/// A million keys, all remembered, in an order of no use to the cache.
struct Crowd {
    limits: Limits,
    key: fn(u32) -> IpAddr,
}

impl Crowd {
    fn new(key: fn(u32) -> IpAddr) -> Self {
        let limits = limits(LONG, AMPLE_MEMORY);
        for number in 0..MILLION {
            let _ = now(limits.charge(key(number), Charge::Message));
        }
        Self { limits, key }
    }

    fn bench(&self, bencher: Bencher) {
        let number = scattered();
        bencher
            .with_inputs(|| (self.key)(number() % MILLION))
            .bench_values(|client| now(self.limits.charge(client, Charge::Message)));
    }
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn known_v4_key_among_a_million(bencher: Bencher) {
    static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(v4));
    CROWD.bench(bencher);
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn known_v6_key_among_a_million(bencher: Bencher) {
    static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(v6));
    CROWD.bench(bencher);
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn banned(bencher: Bencher) {
    let limits = limits("1/day burst 1", DEFAULT_MEMORY);
    while now(limits.auth_failed(hot())).is_ok() {}
    assert!(matches!(limits.admit(hot()), Err(Finding::Banned { .. })));
    bencher.bench(|| limits.admit(black_box(hot())).is_err());
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn admit_and_drop_one_client(bencher: Bencher) {
    let limits = limits(WIDE, DEFAULT_MEMORY);
    bencher.bench(|| drop(limits.admit(black_box(hot()))));
}

#[divan::bench(threads = THREADS, sample_size = CHECKS)]
fn admit_and_drop_many_clients(bencher: Bencher) {
    let (limits, number) = (limits(WIDE, DEFAULT_MEMORY), scattered());
    bencher
        .with_inputs(|| v4(number()))
        .bench_values(|client| drop(limits.admit(client)));
}

/// For comparison: one bucket a client, no wider networks, no bans, and memory that
/// grows with every key.
mod governor_alone {
    use super::*;

    fn limiter() -> DefaultKeyedRateLimiter<IpAddr> {
        let rate = std::num::NonZeroU32::new(1_000_000).unwrap();
        RateLimiter::keyed(Quota::per_second(rate))
    }

    #[divan::bench(threads = THREADS, sample_size = CHECKS)]
    fn hot_key(bencher: Bencher) {
        let limiter = limiter();
        bencher.bench(|| limiter.check_key(&black_box(hot())).is_ok());
    }

    #[divan::bench(threads = THREADS, sample_size = CHECKS)]
    fn new_v4_key(bencher: Bencher) {
        let (limiter, number) = (limiter(), scattered());
        bencher
            .with_inputs(|| v4(number()))
            .bench_refs(|client| limiter.check_key(client).is_ok());
    }

    #[divan::bench(threads = THREADS, sample_size = CHECKS)]
    fn known_v4_key_among_a_million(bencher: Bencher) {
        let (limiter, number) = (limiter(), scattered());
        for number in 0..MILLION {
            let _ = limiter.check_key(&v4(number));
        }
        bencher
            .with_inputs(|| v4(number() % MILLION))
            .bench_refs(|client| limiter.check_key(client).is_ok());
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
