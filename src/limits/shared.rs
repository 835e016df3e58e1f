//! Limits shared by all instances, kept in Redis (or Valkey).
//!
//! A check is one script run by Redis in one round trip, by Redis's clock. It
//! never delays a client beyond a deadline of milliseconds: late, wrong or no
//! answers mean `None`, and then the local limits, which have admitted the
//! client already, are all there is. This file asks; `keep_alive` holds the
//! connection. Neither knows what a limit is for.
//!
//! Keys, each with a time to live:
//!
//! ```text
//! portcullis:bucket:<key>      when the bucket is full again        until then
//! portcullis:count:<key>       instance -> change:places            40 leases
//! portcullis:alive:<instance>  a heartbeat                          1 lease
//! portcullis:ban:<key>         strikes so far                       the ban
//! portcullis:strikes:<key>     strikes so far                       a day after the ban
//! ```
//!
//! A user of Redis's access control needs no more than `~portcullis:*` and
//! `+evalsha +script|load +time +get +set +del +exists +pttl +pexpire +incr
//! +hget +hgetall +hset +hdel` (`+select` for a database other than 0).
//!
//! Keys are not hashed to one slot: this is for a single server, with or
//! without replicas, not for Redis Cluster.

mod breaker;
mod keep_alive;
mod ping;
mod places;
mod question;
mod taken;
#[cfg(test)]
mod tests;
mod url;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, ScriptInvocation};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::timeout;

use breaker::{Breaker, Change};
pub use ping::PingError;
use places::{Place, Places};
use question::millis;
pub use question::{Charge, Count, Ruling};
use taken::Taken;

use crate::metrics::{self, Question};
pub use url::{RedisUrl, Sharing};

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("shared/admit.lua")));
static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("shared/publish.lua")));
static BAN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("shared/ban.lua")));

/// Forgets a ban and its strikes. KEYS as for a ban; returns {bans forgotten}.
static LIFT: LazyLock<Script> = LazyLock::new(|| {
    Script::new("local ban = redis.call('DEL', KEYS[1]) redis.call('DEL', KEYS[2]) return {ban}")
});

/// How long strikes are remembered after the ban they led to.
const STRIKES_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// A count that no instance touches is forgotten after so many leases. It is
/// written anew twice in that time while it is held.
const COUNT_LEASES: u32 = 40;

/// Counts that wait for being written. What does not fit makes everything be
/// written anew.
const CHANGED_MAX: usize = 1024;

/// How patient the sharing is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest wait for a ruling. A round trip takes 0.1 ms on one machine and
    /// below 1 ms within a site, so an answer that is not there after 5 ms is
    /// rather not coming; a client does not notice 5 ms.
    pub deadline: Duration,
    /// An instance that did not say for so long that it is alive is dead, and
    /// holds no places.
    pub lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(5),
            lease: Duration::from_secs(15),
        }
    }
}

/// Figures for metrics; the counters only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Questions sent to Redis.
    pub asked: u64,
    /// Of these, without an answer in time.
    pub late: u64,
    /// Of these, answered by an error or nonsense, or broken off.
    pub failed: u64,
    /// Questions not even sent: there was no connection, or the breaker was open.
    pub skipped: u64,
    /// Whether the next question would be sent.
    pub available: bool,
}

/// Why there was no ruling.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("unintelligible answer: {0:?}")]
    Nonsense(Vec<i64>),
}

/// The limits that all instances share.
///
/// Nothing is asked before [`keep_alive`](Self::keep_alive) runs.
pub struct Shared {
    url: RedisUrl,
    timing: Timing,
    /// What this process is called in Redis. It takes another name whenever
    /// Redis may be wrong about it: what stood under the old one dies with it.
    instance: AtomicU64,
    /// Kept by `keep_alive`.
    connection: ArcSwapOption<MultiplexedConnection>,
    breaker: Breaker,
    places: Places,
    /// Keys of counts whose copy in Redis is out of date.
    changed: mpsc::Sender<String>,
    to_publish: Mutex<mpsc::Receiver<String>>,
    /// The copies in Redis cannot be mended one by one.
    disturbed: AtomicBool,
    /// Wakes `keep_alive` when Redis is in trouble.
    alarm: Notify,
    /// The last trouble, for the log.
    trouble: ArcSwapOption<Trouble>,
    asked: AtomicU64,
    late: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl Shared {
    /// Prepares; connects to nothing yet.
    pub fn new(url: &RedisUrl, timing: Timing) -> Self {
        let (changed, to_publish) = mpsc::channel(CHANGED_MAX);
        Self {
            url: url.clone(),
            timing,
            instance: AtomicU64::new(random()),
            connection: ArcSwapOption::empty(),
            breaker: Breaker::new(),
            places: Places::default(),
            changed,
            to_publish: Mutex::new(to_publish),
            disturbed: AtomicBool::new(false),
            alarm: Notify::new(),
            trouble: ArcSwapOption::empty(),
            asked: AtomicU64::new(0),
            late: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    /// Asks whether the source `banned` is banned, charges all buckets and takes
    /// a place in every count: all of it or nothing, in this order. One round
    /// trip.
    ///
    /// `None` when there is no answer within the deadline, or Redis was not
    /// asked because it is away: the local limits decide.
    ///
    /// After `Pass` **and after `None`** the places are held until
    /// [`leave`](Self::leave) is called: a session that was admitted while Redis
    /// was away is counted once it is back.
    pub async fn admit(
        &self,
        banned: &str,
        charges: &[Charge],
        counts: &[Count],
    ) -> Option<Ruling> {
        let taken = Taken::new(self, counts);
        let ruling = self.rule(banned, charges, &taken.places).await;
        match ruling {
            Some(Ruling::Pass) => taken.keep(),
            Some(_) => taken.refused(),
            None => taken.keep_unheard(),
        }
        ruling
    }

    /// Like [`admit`](Self::admit), for what takes no place: messages,
    /// recipients, failures.
    pub async fn charge(&self, banned: &str, charges: &[Charge]) -> Option<Ruling> {
        self.rule(banned, charges, &[]).await
    }

    /// Gives back one place in each of these counts. Does not wait: Redis learns
    /// of it when it can.
    pub fn leave(&self, counts: &[String]) {
        for key in counts {
            if self.places.give_back(key).is_some() {
                self.publish_later(key);
            }
        }
    }

    /// Bans a source in all instances, and says for how long from now. The ban
    /// doubles with each strike, from `first` up to `longest`; strikes are
    /// forgotten a day after the last ban. A source that is banned already gets
    /// no further strike. `None` when Redis is away.
    pub async fn ban(&self, key: &str, first: Duration, longest: Duration) -> Option<Duration> {
        let mut invocation = BAN.prepare_invoke();
        invocation
            .key(format!("portcullis:ban:{key}"))
            .key(format!("portcullis:strikes:{key}"))
            .arg(millis(first))
            .arg(millis(longest))
            .arg(millis(STRIKES_MEMORY));
        let read = |answer: &[i64]| match answer {
            [left] => Some(Duration::from_millis(u64::try_from(*left).ok()?)),
            _ => None,
        };
        self.ask(&invocation, read).await
    }

    /// Lifts a ban and forgets the strikes of its source. Whether there was one;
    /// `None` when Redis is away.
    pub async fn lift(&self, key: &str) -> Option<bool> {
        let mut invocation = LIFT.prepare_invoke();
        invocation
            .key(format!("portcullis:ban:{key}"))
            .key(format!("portcullis:strikes:{key}"));
        let read = |answer: &[i64]| match answer {
            [bans] => Some(*bans > 0),
            _ => None,
        };
        self.ask(&invocation, read).await
    }

    /// Where it is shared; shown without a password.
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// How the sharing goes.
    pub fn health(&self) -> Health {
        Health {
            asked: self.asked.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            available: self.connection.load().is_some() && !self.breaker.is_open(),
        }
    }

    async fn rule(
        &self,
        banned: &str,
        charges: &[Charge],
        places: &[(&Count, Place)],
    ) -> Option<Ruling> {
        let mut invocation = ADMIT.prepare_invoke();
        invocation
            .key(format!("portcullis:ban:{banned}"))
            .arg(self.instance())
            .arg(millis(self.count_life()))
            .arg(charges.len());
        for charge in charges {
            let (cost, size) = charge.cost_and_size();
            invocation
                .key(format!("portcullis:bucket:{}", charge.key))
                .arg(cost)
                .arg(size);
        }
        for (count, place) in places {
            invocation
                .key(count_key(&count.key))
                .arg(count.max)
                .arg(place.count.saturating_sub(1))
                .arg(place.change);
        }
        let read = |answer: &[i64]| Ruling::read(answer, charges.len(), places.len());
        self.ask(&invocation, read).await
    }

    /// One question, if the breaker lets it through, answered in time or not at all.
    async fn ask<T>(
        &self,
        invocation: &ScriptInvocation<'_>,
        read: impl FnOnce(&[i64]) -> Option<T>,
    ) -> Option<T> {
        let connection = self.connection.load_full();
        let Some(connection) = connection.filter(|_| self.breaker.lets_through()) else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            tally(Question::Skipped);
            return None;
        };
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut connection = MultiplexedConnection::clone(&connection);
        let answer = invocation.invoke_async::<Vec<i64>>(&mut connection);
        let trouble = match timeout(self.timing.deadline, answer).await {
            Ok(Ok(answer)) => match read(&answer) {
                Some(answer) => {
                    self.breaker.succeeded();
                    tally(Question::Answered);
                    return Some(answer);
                }
                None => Trouble::Nonsense(answer),
            },
            Ok(Err(error)) => Trouble::Redis(error),
            Err(_) => Trouble::Late(self.timing.deadline),
        };
        let (counter, question) = match trouble {
            Trouble::Late(_) => (&self.late, Question::Late),
            Trouble::Redis(_) | Trouble::Nonsense(_) => (&self.failed, Question::Failed),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tally(question);
        let broken = matches!(&trouble, Trouble::Redis(error) if error.is_unrecoverable_error());
        self.trouble.store(Some(Arc::new(trouble)));
        if self.breaker.failed() == Change::Opened || broken {
            self.alarm.notify_one();
        }
        None
    }

    fn publish_later(&self, key: &str) {
        if self.changed.try_send(key.to_owned()).is_err() {
            self.disturbed.store(true, Ordering::Relaxed);
        }
    }

    fn instance(&self) -> String {
        instance_name(self.instance.load(Ordering::SeqCst))
    }

    fn count_life(&self) -> Duration {
        self.timing.lease.saturating_mul(COUNT_LEASES)
    }
}

fn tally(question: Question) {
    metrics::get().redis_questions.of(question).inc();
}

fn count_key(key: &str) -> String {
    format!("portcullis:count:{key}")
}

fn instance_name(instance: u64) -> String {
    format!("{instance:016x}")
}

fn random() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}
