//! A real rspamd with the rules of the distribution, offline: one instance per
//! value of `Rspamd`. It reads no `local.d` but its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{free_address, wait_for};

/// Statistics, black lists, maps and hashes ask the network: none of them here.
const OVERRIDES: &str = r#"
filters = "regexp,dkim";
url_tld = "$DBDIR/suffixes";
dns { nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; sockets = 1; }
"#;

/// rspamd takes seconds to read the world's list of public suffixes.
const SUFFIXES: &str = "test\norg\ncom\n";

pub struct Rspamd {
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    main: Child,
}

impl Rspamd {
    /// Starts an instance and waits until it answers. `rules` are Lua, as in
    /// `rspamd.local.lua`.
    pub fn start(rules: &str) -> Self {
        Self::with(rules, &[])
    }

    /// As [`Rspamd::start`], with an admin's own settings: files, named as below
    /// `/etc/rspamd`, and what stands in them.
    pub fn with(rules: &str, own: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let address = free_address();
        let write = |name: &str, text: &str| fs::write(format!("{root}/{name}"), text).unwrap();
        fs::create_dir(format!("{root}/local.d")).unwrap();
        own.iter().for_each(|(name, text)| write(name, text));
        write("suffixes", SUFFIXES);
        write("rules.lua", rules);
        write("overrides.inc", OVERRIDES);
        write(
            "rspamd.conf",
            &format!(
                r#".include "/etc/rspamd/common.conf"
options {{
    pidfile = "$RUNDIR/rspamd.pid";
    .include "/etc/rspamd/options.inc"
    .include(priority=10) "{root}/overrides.inc"
}}
logging {{ type = "file"; filename = "$LOGDIR/rspamd.log"; level = "info"; }}
lua = "{root}/rules.lua";
worker "normal" {{ bind_socket = "{address}"; count = 1; }}
.include(try=true) "$LOCAL_CONFDIR/rspamd.conf.local"
"#
            ),
        );
        // As the leader of a process group of its own it can be stopped with its workers.
        let main = Command::new("rspamd")
            .args(["-f", "-i", "-c", &format!("{root}/rspamd.conf")])
            .args(["--var", &format!("LOCAL_CONFDIR={root}")])
            .args(["--var", &format!("DBDIR={root}")])
            .args(["--var", &format!("RUNDIR={root}")])
            .args(["--var", &format!("LOGDIR={root}")])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(format!("{root}/rspamd.stderr")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start rspamd: {error} (tests/run installs it)"));
        let mut rspamd = Self {
            address,
            folder,
            main,
        };
        rspamd.wait_until_it_answers();
        rspamd
    }

    fn wait_until_it_answers(&mut self) {
        let up = wait_for(Duration::from_secs(60), || {
            let gone = self.main.try_wait().unwrap().is_some();
            let answers = answers(self.address);
            (gone || answers).then_some(answers)
        });
        assert!(up == Some(true), "rspamd did not start\n{}", self.log());
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("rspamd.stderr") + &read("rspamd.log")
    }

    /// Makes it stand still: it accepts connections and says nothing.
    pub fn stop(&self) {
        killpg(self.group(), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub fn cont(&self) {
        killpg(self.group(), Signal::SIGCONT).unwrap();
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.main.id() as i32)
    }
}

impl Drop for Rspamd {
    fn drop(&mut self) {
        let _ = killpg(self.group(), Signal::SIGCONT);
        let _ = kill(self.group(), Signal::SIGTERM);
        let ended = wait_for(Duration::from_secs(3), || {
            self.main.try_wait().ok().flatten()
        });
        if ended.is_none() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            drop(self.main.wait());
        }
    }
}

/// Whether a worker, not only its socket, is there.
fn answers(address: SocketAddr) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("pong"))
    };
    ping().unwrap_or(false)
}
