//! Real milters: opendkim, and one that does as it is told.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Daemon, free_address, run, wait_for};

/// Debian's own has Debian's modules; another one may come first in PATH.
const PYTHON: &str = "/usr/bin/python3";

/// opendkim for `example.com`, with a key of its own and no use for DNS.
pub struct Opendkim {
    pub address: SocketAddr,
    pub daemon: Daemon,
}

impl Opendkim {
    /// Signs for clients that have signed in, verifies for all others.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let settings = folder.path().join("opendkim.conf");
        fs::write(&settings, opendkim_conf(folder.path(), address)).unwrap();
        let mut command = Command::new("opendkim");
        command.arg("-f").arg("-x").arg(&settings);
        Self {
            address,
            daemon: Daemon::start(command, folder, address),
        }
    }

    /// The message with a signature of `example.com` that was made without a milter.
    pub fn signed_elsewhere(&self, message: &str) -> String {
        self.dkim_elsewhere("sign", "key.pem", message)
    }

    /// Whether others than opendkim find a signature of `example.com` good.
    pub fn is_good_elsewhere(&self, message: &str) -> bool {
        self.dkim_elsewhere("verify", "keys", message) == "pass\n"
    }

    fn dkim_elsewhere(&self, what: &str, file: &str, message: &str) -> String {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/dkim_elsewhere.py"
        );
        let file = self.daemon.folder().join(file).display().to_string();
        let arguments = [script, what, &file];
        let patience = Duration::from_secs(30);
        let finished = run(PYTHON, &arguments, message.as_bytes(), patience);
        finished.assert_success().stdout
    }
}

/// Writes the key, too. `TestPublicKeys` stands in for DNS.
fn opendkim_conf(folder: &Path, address: SocketAddr) -> String {
    let key = folder.join("key.pem").display().to_string();
    let keys = folder.join("keys").display().to_string();
    let openssl = |arguments: &[&str]| {
        let finished = run("openssl", arguments, b"", Duration::from_secs(30));
        finished.assert_success().stdout
    };
    openssl(&["genrsa", "-out", &key, "2048"]);
    let public = openssl(&["rsa", "-in", &key, "-pubout"]);
    let public: String = public.lines().filter(|l| !l.starts_with("--")).collect();
    let record = format!("s._domainkey.example.com v=DKIM1; k=rsa; p={public}\n");
    fs::write(&keys, record).unwrap();
    format!(
        "Socket inet:{}@{}\n\
         Domain example.com\n\
         Selector s\n\
         KeyFile {key}\n\
         RequireSafeKeys no\n\
         Mode sv\n\
         Canonicalization simple/simple\n\
         TestPublicKeys {keys}\n\
         InternalHosts 192.0.2.99\n\
         AlwaysAddARHeader yes\n\
         AuthservID mx.example.org\n\
         Syslog no\n",
        address.port(),
        address.ip()
    )
}

/// The milter of `judge.py`.
pub struct Pymilter {
    pub address: SocketAddr,
    pub daemon: Daemon,
}

impl Pymilter {
    pub fn start(options: &[&str]) -> Self {
        let address = free_address();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/judge.py");
        let mut command = Command::new(PYTHON);
        command
            .arg(script)
            .arg(address.port().to_string())
            .args(options);
        Self {
            address,
            daemon: Daemon::start(command, tempfile::tempdir().unwrap(), address),
        }
    }

    /// What it was told, by name; up to the end of the connection.
    #[track_caller]
    pub fn told(&self) -> Vec<(String, Value)> {
        let closed = wait_for(Duration::from_secs(10), || {
            let log = self.daemon.log();
            log.ends_with("[\"close\"]\n").then_some(log)
        });
        let log = closed.unwrap_or_else(|| panic!("no end in {}", self.daemon.log()));
        let events = log.lines().map(|line| {
            let mut event: Vec<Value> =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}"));
            let name = event.remove(0).as_str().unwrap().to_owned();
            (name, Value::from(event))
        });
        events.collect()
    }
}
