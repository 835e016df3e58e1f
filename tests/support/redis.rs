//! A Redis of its own for one test.

use std::net::SocketAddr;
use std::process::Command;

use super::{Daemon, free_address};

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
