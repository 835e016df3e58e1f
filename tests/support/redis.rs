//! A Redis of its own for one test.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use super::{Daemon, Portcullis, free_address};

/// How often something is tried for which Redis must not be late.
const ATTEMPTS: usize = 5;

pub struct Redis {
    pub daemon: Daemon,
    address: SocketAddr,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Self {
        Self::start_at(free_address())
    }

    /// For one that comes back.
    #[track_caller]
    pub fn start_at(address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &address.port().to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder.path());
        Self {
            daemon: Daemon::start(command, folder, address),
            address,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// All keys with their remaining life in milliseconds; -1: for ever.
    pub fn keys(&self) -> Vec<(String, i64)> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        let life = |key: String| {
            let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
            (key, left)
        };
        keys.into_iter().map(life).collect()
    }
}

/// Has `attempt` made with instances that ask a Redis, each time with fresh ones. They
/// wait a few milliseconds for it, and then each goes by what it knows itself: on a busy
/// machine that happens. An attempt that failed after it has shown nothing, and is made
/// again.
pub fn with_redis_in_time<const N: usize>(
    start: impl Fn(&Redis) -> [Portcullis; N],
    attempt: impl Fn(&Redis, &mut [Portcullis; N]),
) {
    for left in (0..ATTEMPTS).rev() {
        let redis = Redis::start();
        let mut instances = start(&redis);
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(&redis, &mut instances)));
        let Err(failure) = outcome else {
            return;
        };
        let late = |it: &mut Portcullis| it.runs() && redis_questions(it, "late") > 0.0;
        let was_late = instances.iter_mut().any(late);
        if left == 0 || !was_late {
            resume_unwind(failure);
        }
        println!("Redis was late");
    }
}

/// How many questions to Redis have had this result.
pub fn redis_questions(portcullis: &Portcullis, result: &str) -> f64 {
    let name = "portcullis_redis_questions_total";
    portcullis.metric(&format!("{name}{{result=\"{result}\"}}"))
}
