//! What the limits cost: one check, by what the tables know of the client, from one
//! thread and from two at once.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]
#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use divan::{Bencher, black_box};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use portcullis::limits::{Charge, LimitMemory, Limits, Rate, Settings};
use portcullis::policy::Finding;
use portcullis::settings::{LogAddresses, Networks, Value};

const THREADS: [usize; 2] = [1, 2];

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
    Limits::new(&settings, &Networks::default(), LogAddresses::Full)
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

#[divan::bench(threads = THREADS)]
fn hot_key(bencher: Bencher) {
    let limits = limits(WIDE, DEFAULT_MEMORY);
    bencher.bench(|| limits.charge(black_box(hot()), Charge::Message));
}

#[divan::bench(threads = THREADS)]
fn hot_key_refused(bencher: Bencher) {
    let limits = limits("1/day burst 1", DEFAULT_MEMORY);
    bencher.bench(|| limits.charge(black_box(hot()), Charge::Message));
}

#[divan::bench(threads = THREADS)]
fn new_v4_key(bencher: Bencher) {
    let (limits, number) = (limits(WIDE, DEFAULT_MEMORY), scattered());
    bencher.bench(|| limits.charge(v4(number()), Charge::Message));
}

#[divan::bench(threads = THREADS)]
fn new_v6_key(bencher: Bencher) {
    let (limits, number) = (limits(WIDE, DEFAULT_MEMORY), scattered());
    bencher.bench(|| limits.charge(v6(number()), Charge::Message));
}

/// Full tables: the sets are searched in vain, and everybody's bucket decides.
#[divan::bench(threads = THREADS)]
fn new_v4_key_before_full_tables(bencher: Bencher) {
    let (limits, number) = (limits(LONG, DEFAULT_MEMORY), scattered());
    for _ in 0..MILLION {
        let _ = limits.charge(v4(number()), Charge::Message);
    }
    bencher.bench(|| limits.charge(v4(number()), Charge::Message));
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
            let _ = limits.charge(key(number), Charge::Message);
        }
        Self { limits, key }
    }

    fn charge(&self, number: u32) -> Result<(), Finding> {
        self.limits
            .charge((self.key)(number % MILLION), Charge::Message)
    }
}

#[divan::bench(threads = THREADS)]
fn known_v4_key_among_a_million(bencher: Bencher) {
    static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(v4));
    let (crowd, number) = (&*CROWD, scattered());
    bencher.bench(|| crowd.charge(number()));
}

#[divan::bench(threads = THREADS)]
fn known_v6_key_among_a_million(bencher: Bencher) {
    static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(v6));
    let (crowd, number) = (&*CROWD, scattered());
    bencher.bench(|| crowd.charge(number()));
}

#[divan::bench(threads = THREADS)]
fn banned(bencher: Bencher) {
    let limits = limits("1/day burst 1", DEFAULT_MEMORY);
    while limits.auth_failed(hot()).is_ok() {}
    assert!(matches!(limits.admit(hot()), Err(Finding::Banned { .. })));
    bencher.bench(|| limits.admit(black_box(hot())).is_err());
}

#[divan::bench(threads = THREADS)]
fn admit_and_drop_one_client(bencher: Bencher) {
    let limits = limits(WIDE, DEFAULT_MEMORY);
    bencher.bench(|| drop(limits.admit(black_box(hot()))));
}

#[divan::bench(threads = THREADS)]
fn admit_and_drop_many_clients(bencher: Bencher) {
    let (limits, number) = (limits(WIDE, DEFAULT_MEMORY), scattered());
    bencher.bench(|| drop(limits.admit(v4(number()))));
}

/// For comparison: one bucket a client, no wider networks, no bans, and memory that
/// grows with every key.
mod governor_alone {
    use super::*;

    fn limiter() -> DefaultKeyedRateLimiter<IpAddr> {
        let rate = std::num::NonZeroU32::new(1_000_000).unwrap();
        RateLimiter::keyed(Quota::per_second(rate))
    }

    #[divan::bench(threads = THREADS)]
    fn hot_key(bencher: Bencher) {
        let limiter = limiter();
        bencher.bench(|| limiter.check_key(&black_box(hot())).is_ok());
    }

    #[divan::bench(threads = THREADS)]
    fn new_v4_key(bencher: Bencher) {
        let (limiter, number) = (limiter(), scattered());
        bencher.bench(|| limiter.check_key(&v4(number())).is_ok());
    }

    #[divan::bench(threads = THREADS)]
    fn known_v4_key_among_a_million(bencher: Bencher) {
        let (limiter, number) = (limiter(), scattered());
        for number in 0..MILLION {
            let _ = limiter.check_key(&v4(number));
        }
        bencher.bench(|| limiter.check_key(&v4(number() % MILLION)).is_ok());
    }
}
