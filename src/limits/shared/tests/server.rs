//! A redis-server of its own for a test.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::RedisResult;
use tempfile::TempDir;

pub(super) struct Server {
    child: Child,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(super) fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self {
            child: launch(port, &options, &folder),
            port,
            options,
            folder,
        };
        server.wait_until_it_answers();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Asks it something on a connection of its own.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut redis::Connection) -> RedisResult<T>) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        ask(&mut client.get_connection().unwrap()).unwrap()
    }

    pub(super) fn command(&self, words: &str) {
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        self.ask(|redis| command.exec(redis));
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after `kill`, with nothing remembered.
    pub(super) fn restart(&mut self) {
        self.child = launch(self.port, &self.options, &self.folder);
        self.wait_until_it_answers();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    fn wait_until_it_answers(&mut self) {
        let start = Instant::now();
        let client = redis::Client::open(self.url()).unwrap();
        loop {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "redis-server ended"
            );
            let asked = client
                .get_connection_with_timeout(Duration::from_secs(1))
                .map(|mut redis| redis::cmd("PING").exec(&mut redis));
            match asked {
                Ok(_) => return,
                // It is there and wants a password.
                Err(error) if !error.is_io_error() => return,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, options: &[String], folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder.path())
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is not installed")
}

/// A port below those that the kernel gives to outgoing connections, which this
/// process has not handed out before.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(131);
    for _ in 0..20_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(12_000 + start.wrapping_add(step) % 20_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
