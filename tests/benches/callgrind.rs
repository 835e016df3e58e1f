//! Instructions that the program spends on a message, its own, not the kernel's, as
//! valgrind's callgrind counts them: a figure that other work on the machine does not
//! touch. `cargo bench --bench callgrind`.
//!
//! Each kind of session is held so many times, and twice as many times by a second
//! process; the difference knows nothing of the end. Counting begins anew after some
//! sessions of the kind: to seed the generator of random numbers takes as many
//! instructions as the clock wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub, dead_code)]

#[path = "compare/door.rs"]
mod door;
#[path = "compare/generator.rs"]
mod generator;
#[path = "compare/ledger.rs"]
mod ledger;
#[path = "compare/letter.rs"]
mod letter;
#[path = "compare/sink.rs"]
mod sink;
#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::client::Resumption;

use door::Door;
use generator::{Commands, Load};
use letter::Letter;
use sink::Sink;
use support::{Authority, Certificate, free_address, wait_for};

/// Sessions of the first process; the second has twice as many.
const SESSIONS: usize = 40;

/// Before they are counted.
const WARM_UP: usize = 8;

/// The program is some fifty times slower than by itself.
const PATIENCE: Duration = Duration::from_secs(120);

const LOAD: Load = Load {
    door: Door::Plain,
    size: 4 << 10,
    messages: 1,
    recipients: 1,
    commands: Commands::OneByOne,
    at_once: 1,
};

fn kinds() -> [(&'static str, Load); 5] {
    let ten = Load {
        messages: 10,
        ..LOAD
    };
    let pipelined = Load {
        recipients: 5,
        commands: Commands::Pipelined,
        ..ten
    };
    [
        ("plain, one message", LOAD),
        ("plain, ten messages", ten),
        ("pipelined, five recipients, ten messages", pipelined),
        (
            "STARTTLS, one message",
            Load {
                door: Door::StartTls,
                ..LOAD
            },
        ),
        (
            "implicit TLS, ten messages",
            Load {
                door: Door::Tls,
                ..ten
            },
        ),
    ]
}

#[tokio::main]
async fn main() {
    let valgrind = Command::new("valgrind").arg("--version").output();
    let Ok(version) = valgrind else {
        eprintln!("valgrind counts the instructions, and it is not installed (package valgrind)");
        std::process::exit(69);
    };
    let authority = Authority::new("Counting authority");
    let certificate = authority.sign("mx.portcullis.test");
    let version = String::from_utf8_lossy(&version.stdout);
    println!(
        "{}, {SESSIONS} sessions, 4 KiB a message:\n",
        version.trim()
    );
    println!("| session | instructions of a message |");
    println!("|---|---|");
    for (name, load) in kinds() {
        let once = count(load, SESSIONS, &certificate).await;
        let twice = count(load, 2 * SESSIONS, &certificate).await;
        let of_message = (twice - once) / (SESSIONS * load.messages) as f64;
        println!("| {name} | {of_message:.0} |");
    }
}

/// All instructions of a process that serves so many sessions, one after the other.
async fn count(load: Load, sessions: usize, certificate: &Certificate) -> f64 {
    let sink = Sink::start().await;
    let program = Counted::start(sink.address, certificate);
    let address = match load.door {
        Door::Plain | Door::StartTls => program.mx,
        Door::Tls => program.tls,
    };
    let tls = door::connector(Resumption::disabled());
    let mut letter = Letter::new(load.size);
    let mut sent = Vec::new();
    for number in 0..WARM_UP + sessions {
        if number == WARM_UP {
            program.count_anew();
        }
        generator::session(load, address, &tls, &sink.ledger, &mut letter, &mut sent)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", program.log()));
    }
    assert_eq!(sink.ledger.settle(), Ok(sent.len()));
    program.end()
}

/// The program under callgrind.
struct Counted {
    mx: SocketAddr,
    tls: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
}

impl Counted {
    fn start(sink: SocketAddr, certificate: &Certificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mx, tls) = (free_address(), free_address());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=counts"])
            .arg(env!("CARGO_BIN_EXE_portcullis"))
            .env("PORTCULLIS_HOSTNAME", "mx.portcullis.test")
            .env("PORTCULLIS_BACKEND", sink.to_string())
            .env("PORTCULLIS_DOMAINS", "example.org")
            .env("PORTCULLIS_LISTEN", mx.to_string())
            .env("PORTCULLIS_LISTEN_TLS", tls.to_string())
            .env("PORTCULLIS_LISTEN_SUBMISSION", "off")
            .env("PORTCULLIS_ADMIN", "off")
            .env("PORTCULLIS_TLS_CERT", &certificate.chain)
            .env("PORTCULLIS_TLS_KEY", &certificate.key)
            .env("PORTCULLIS_CLIENT_INFO", "none")
            .env("PORTCULLIS_LIMIT_EXEMPT", "127.0.0.1")
            .env("PORTCULLIS_LOG_FORMAT", "json")
            // Not one more in the longer of two runs.
            .env("PORTCULLIS_BACKEND_PROBE_INTERVAL", "1h")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut counted = Self {
            mx,
            tls,
            child,
            folder,
        };
        // It knows what the sink can before it listens.
        let up = wait_for(PATIENCE, || {
            let gone = counted.child.try_wait().unwrap().is_some();
            let listens = [mx, tls].iter().all(|at| TcpStream::connect(at).is_ok());
            (gone || listens).then_some(listens)
        });
        assert!(up == Some(true), "does not listen:\n{}", counted.log());
        counted
    }

    fn count_anew(&self) {
        let process = self.child.id().to_string();
        let mut control = Command::new("callgrind_control");
        let told = control.args(["--zero", &process]).output().unwrap();
        assert!(told.status.success(), "{told:?}");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        read(&self.file("log"))
    }

    /// Stops it, which makes callgrind write down what it has counted.
    fn end(mut self) -> f64 {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let ended = wait_for(PATIENCE, || self.child.try_wait().unwrap());
        assert!(
            ended.is_some_and(|status| status.success()),
            "{ended:?}\n{}",
            self.log()
        );
        let counts = read(&self.file("counts"));
        let mut totals = counts
            .lines()
            .filter_map(|line| line.strip_prefix("totals: "));
        totals.next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
