//! A server of somebody else that runs for one test: a process group of its own,
//! a folder and a log, all gone when it is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::wait_for;

pub struct Daemon {
    name: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Starts `command`, whose output becomes the log in `folder`, and waits until
    /// somebody listens at `address`.
    #[track_caller]
    pub fn start(mut command: Command, folder: tempfile::TempDir, address: SocketAddr) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error} (tests/run installs it)"));
        let mut daemon = Self {
            name,
            folder,
            child,
        };
        let up = wait_for(Duration::from_secs(60), || {
            let gone = daemon.child.try_wait().unwrap().is_some();
            let listens = TcpStream::connect(address).is_ok();
            (gone || listens).then_some(listens && !gone)
        });
        assert!(up == Some(true), "{}: {}", daemon.name, daemon.log());
        daemon
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Freezes it: its sockets stay open and nobody answers there.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it at once, without a goodbye.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.child.wait());
    }

    /// The children of a server that forks share its group.
    fn signal(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A group that has no process left may have given its number away.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}
