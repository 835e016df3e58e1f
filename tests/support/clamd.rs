//! A real clamd that knows one piece of malware: the EICAR test file.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::{Daemon, free_address};

/// What this clamd calls the EICAR test file.
pub const EICAR_NAME: &str = "Eicar-Test.UNOFFICIAL";

/// The EICAR test file, put together here so that no scanner takes this source or
/// the test's program for it.
pub fn eicar() -> String {
    [
        r"X5O!P%@AP[4\PZX54(P^)7CC)7}$",
        "EICAR-STANDARD-",
        "ANTIVIRUS-TEST-FILE!$H+H*",
    ]
    .concat()
}

pub struct Clamd {
    pub address: SocketAddr,
    pub socket: PathBuf,
    pub daemon: Daemon,
}

impl Clamd {
    /// Listens at `address` and at `socket`. `extra` is more lines for `clamd.conf`.
    pub fn start(extra: &str) -> Self {
        Self::start_at(free_address(), extra)
    }

    /// At an address of one's choice, for a clamd that comes back.
    pub fn start_at(address: SocketAddr, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let socket = root.join("clamd.socket");
        for below in ["database", "temporary"] {
            fs::create_dir(root.join(below)).unwrap();
        }
        let hex: String = eicar()
            .bytes()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        fs::write(
            root.join("database/test.ndb"),
            format!("Eicar-Test:0:*:{hex}\n"),
        )
        .unwrap();
        let (port, socket_path, root_path) = (address.port(), socket.display(), root.display());
        let settings = format!(
            "Foreground yes\n\
             User root\n\
             TCPAddr 127.0.0.1\n\
             TCPSocket {port}\n\
             LocalSocket {socket_path}\n\
             DatabaseDirectory {root_path}/database\n\
             TemporaryDirectory {root_path}/temporary\n\
             {extra}\n"
        );
        fs::write(root.join("clamd.conf"), settings).unwrap();
        let mut command = Command::new("clamd");
        command.arg("-c").arg(root.join("clamd.conf"));
        Self {
            address,
            socket,
            daemon: Daemon::start(command, folder, address),
        }
    }
}
