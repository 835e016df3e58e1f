//! A real spamd that uses the rules of its package and asks nobody on the network.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Daemon, free_address};

/// The line that every SpamAssassin gives a thousand points, put together here so
/// that no scanner takes this source for spam.
pub fn gtube() -> String {
    [
        "XJS*C4JDBQADN1.NSBN3*2IDNEN*",
        "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL",
        "*C.34X",
    ]
    .concat()
}

pub struct Spamd {
    pub address: SocketAddr,
    pub socket: PathBuf,
    pub daemon: Daemon,
}

impl Spamd {
    /// Listens at `address` and at `socket`, with four children. `extra` is more
    /// lines of configuration, such as rules.
    pub fn start(extra: &[&str]) -> Self {
        Self::start_at(free_address(), extra)
    }

    /// At an address of one's choice, for a spamd that comes back.
    pub fn start_at(address: SocketAddr, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // spamd's children are `nobody`.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o777)).unwrap();
        let socket = folder.path().join("spamd.socket");
        let mut command = Command::new("spamd");
        command
            .args(["-L", "-A", "127.0.0.1", "-m", "4", "--username=nobody"])
            .args(["-s", "stderr", "-i"])
            .arg(address.to_string())
            .arg(format!("--socketpath={}", socket.display()))
            .args(extra.iter().map(|line| format!("--cf={line}")))
            .arg("-H")
            .arg(&home);
        Self {
            address,
            socket,
            daemon: Daemon::start(command, folder, address),
        }
    }
}
