//! Shared limits against a real redis-server, which every test has for itself.

mod counts;
mod faults;
mod pace;
mod rates;
mod server;

use std::ops::Deref;
use std::time::Instant;

use redis::Commands;
use tokio::task::JoinHandle;

use super::*;
use crate::settings::Value;
use server::Server;

/// So patient that a busy machine does not fail a test that is not about time.
const PATIENT: Timing = Timing {
    deadline: Duration::from_secs(2),
    lease: Duration::from_secs(15),
};

/// What an instance of Portcullis has of this room.
struct Instance {
    shared: Arc<Shared>,
    alive: JoinHandle<()>,
}

impl Instance {
    fn new(url: &str, timing: Timing) -> Self {
        let shared = Arc::new(Shared::new(&RedisUrl::parse(url).unwrap(), timing));
        let alive = tokio::spawn(Arc::clone(&shared).keep_alive());
        Self { shared, alive }
    }

    async fn connected(url: &str, timing: Timing) -> Self {
        let instance = Self::new(url, timing);
        eventually("connected", || instance.health().available).await;
        instance
    }

    async fn take(&self, key: &str, max: u32) -> Option<Ruling> {
        let count = Count {
            key: key.to_owned(),
            max,
        };
        self.admit("nobody", &[], &[count]).await
    }

    fn give_back(&self, key: &str) {
        self.leave(&[key.to_owned()]);
    }
}

impl Deref for Instance {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.alive.abort();
    }
}

fn charge(key: &str, period: Duration, burst: u32, cost: u32) -> Charge {
    Charge {
        key: key.to_owned(),
        period,
        burst,
        cost,
    }
}

/// Waits up to ten seconds for something to become true.
async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(30), "not {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Takes a place as soon as there is one.
async fn eventually_takes(instance: &Instance, key: &str, max: u32) {
    let start = Instant::now();
    loop {
        let ruling = instance.take(key, max).await;
        if ruling == Some(Ruling::Pass) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "still {ruling:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What Redis knows of the places of a count, instance by instance.
fn places_of(server: &Server, key: &str) -> Vec<u32> {
    let held: Vec<String> = server.ask(|redis| redis.hvals(count_key(key)));
    let places = |value: &String| value.split_once(':').unwrap().1.parse().unwrap();
    held.iter().map(places).collect()
}
