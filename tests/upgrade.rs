//! From one process to the next: side by side on shared ports, by sockets that
//! systemd hands over, and from root to a user without privileges.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Authority, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{between, free_address, letter, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at once.
const CLIENTS: usize = 4;

/// Clients deliver messages, each on a connection of its own, while `upgrade`
/// runs and for a while after. A connection that is refused or reset, or any
/// other answer than the one due, fails the test, and so does a message that
/// was taken and does not arrive.
fn under_load(server: SocketAddr, postfix: &Postfix, upgrade: impl FnOnce()) {
    let (done, delivered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (done, delivered) = (&done, &delivered);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let message = letter(&format!("upgrade-{client}-{number}-end"));
                    let mut smtp = Smtp::greeted(server);
                    let reply =
                        smtp.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
                    assert!(reply.starts_with("250"), "{reply}");
                    delivered.fetch_add(1, Ordering::Relaxed);
                    let _ = smtp.try_send(b"QUIT\r\n");
                    smtp.rest();
                }
            });
        }
        let more = |count: usize| {
            let before = delivered.load(Ordering::Relaxed);
            let reached = || delivered.load(Ordering::Relaxed) >= before + count;
            wait_for(PATIENCE, || reached().then_some(())).expect("clients are stuck");
        };
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(20);
            upgrade();
            more(20);
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = upgraded {
            std::panic::resume_unwind(panic);
        }
    });
    let delivered = delivered.load(Ordering::Relaxed);
    let arrived = postfix.messages(delivered);
    let subjects: std::collections::BTreeSet<String> = arrived
        .iter()
        .filter_map(|message| {
            between(&String::from_utf8_lossy(message), "upgrade-", "-end").map(str::to_owned)
        })
        .collect();
    println!("{delivered} messages delivered, {} arrived", subjects.len());
    assert!(subjects.len() >= delivered);
}

#[test]
fn a_new_process_takes_over_beside_the_old_one_and_nothing_is_refused_or_lost() {
    let postfix = Postfix::start(Options::default());
    let mut old = Portcullis::before(&postfix, &[]);
    let address = old.mx;
    let listen = address.to_string();
    let mut new = None;
    under_load(address, &postfix, || {
        let started = Portcullis::before(&postfix, &[("LISTEN", &listen)]);
        started.log_with("portcullis is up");
        old.terminate();
        assert_eq!(old.ended(PATIENCE), Some(0));
        new = Some(started);
    });
    let new = new.unwrap();
    assert!(new.log().contains("another listener is there too"));
    let accepted = r#"portcullis_connections_total{listener="mx",result="accepted"}"#;
    assert!(new.metric(accepted) > 0.0, "{}", new.metrics());
}

#[test]
fn a_process_that_cannot_start_takes_no_client_from_the_one_that_runs() {
    let backend = Scripted::start(&[]);
    let running = Portcullis::guarding(backend.address, &[]);
    let address = backend.address.to_string();
    let listen = running.mx.to_string();
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", &address),
        ("DOMAINS", "example.org"),
        ("LISTEN", &listen),
        ("LISTEN_TLS", "off"),
        ("LISTEN_SUBMISSION", "off"),
        ("ADMIN", "off"),
        ("TLS_CERT", "/nonexistent.pem"),
        ("TLS_KEY", "/nonexistent.key"),
    ]);
    assert_eq!(finished.status.code(), Some(78), "{}", finished.output());
    for _ in 0..5 {
        Smtp::greeted(running.mx);
    }
}

/// The program as systemd starts it: `socket` as its descriptor 3, and a place
/// for notices.
struct Activated {
    child: Child,
    notices: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Activated {
    fn start(socket: &TcpListener, backend: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (place, log) = (folder.path().join("notify"), folder.path().join("log"));
        let notices = UnixDatagram::bind(&place).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = std::fs::File::create(log).unwrap();
        let handed: OwnedFd = socket.try_clone().unwrap().into();
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\"";
        let child = Command::new("/bin/sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_portcullis")])
            .env_clear()
            .env("NOTIFY_SOCKET", &place)
            .env("PORTCULLIS_BACKEND", backend.to_string())
            .env("PORTCULLIS_DOMAINS", "example.org")
            .env("PORTCULLIS_HOSTNAME", "mx.portcullis.test")
            .env(
                "PORTCULLIS_LISTEN",
                socket.local_addr().unwrap().to_string(),
            )
            .env("PORTCULLIS_LISTEN_TLS", "off")
            .env("PORTCULLIS_LISTEN_SUBMISSION", "off")
            .env("PORTCULLIS_ADMIN", "off")
            .env("PORTCULLIS_LIMIT_EXEMPT", "127.0.0.1")
            .current_dir(folder.path())
            .stdin(Stdio::from(handed))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            notices,
            folder,
        }
    }

    #[track_caller]
    fn expect_notice(&self, text: &str) {
        let mut buffer = [0; 512];
        let length = self.notices.recv(&mut buffer);
        let length = length.unwrap_or_else(|error| panic!("no {text}: {error}\n{}", self.log()));
        let notice = String::from_utf8_lossy(&buffer[..length]);
        assert!(notice.contains(text), "{notice}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    #[track_caller]
    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let ended = wait_for(PATIENCE, || self.child.try_wait().unwrap());
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}",
            self.log()
        );
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_socket_that_systemd_keeps_goes_from_one_process_to_the_next() {
    let postfix = Postfix::start(Options::default());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let first = Activated::start(&socket, postfix.address);
    first.expect_notice("READY=1");
    assert!(
        first.log().contains("takes over a socket"),
        "{}",
        first.log()
    );
    let address = socket.local_addr().unwrap();
    let mut second = None;
    under_load(address, &postfix, || {
        // One after the other, as `systemctl restart` does it: clients wait meanwhile.
        first.stop();
        let started = Activated::start(&socket, postfix.address);
        started.expect_notice("READY=1");
        second = Some(started);
    });
    second.unwrap().stop();
}

#[test]
fn systemd_hears_when_it_is_ready_reloads_and_stops() {
    let backend = Scripted::start(&[]);
    let socket = TcpListener::bind(free_address()).unwrap();
    let program = Activated::start(&socket, backend.address);
    program.expect_notice("READY=1");
    program.signal(Signal::SIGHUP);
    program.expect_notice("RELOADING=1");
    program.expect_notice("READY=1");
    program.signal(Signal::SIGTERM);
    program.expect_notice("STOPPING=1");
}

/// The user ids of all threads: real, effective, saved, and for files.
fn users(process: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut users: Vec<_> = threads
        .map(|thread| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            let ids = between(&status, "Uid:", "\n").unwrap().trim().to_owned();
            let capabilities = between(&status, "CapEff:\t", "\n").unwrap();
            format!("{ids} {capabilities}")
        })
        .collect();
    users.sort();
    users.dedup();
    users
}

fn readable(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn root_binds_and_then_becomes_the_user_in_every_thread() {
    let backend = Scripted::start(&[]);
    let authority = Authority::new("Test");
    readable(authority.path(), 0o755);
    let certificate = authority.sign("mx.portcullis.test");
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("RUN_AS", "54321:54322"),
            ("TLS_CERT", certificate.chain.to_str().unwrap()),
            ("TLS_KEY", certificate.key.to_str().unwrap()),
            ("TLS_DIR", authority.path().to_str().unwrap()),
        ],
    );
    let ids = ["54321"; 4].join("\t");
    let expected = format!("{ids} 0000000000000000");
    assert_eq!(users(portcullis.id()), [expected]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.start_tls();
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    client.ask("NOOP", "250");
}

/// What is told at a start by root, for nobody, with certificates that are no good.
#[track_caller]
fn does_not_start(certificates: &[(&str, &str)]) -> String {
    let listen = free_address().to_string();
    let settings = [
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("LISTEN", &listen),
        ("LISTEN_TLS", "off"),
        ("LISTEN_SUBMISSION", "off"),
        ("ADMIN", "off"),
        ("RUN_AS", "nobody"),
    ];
    let finished = Portcullis::run_to_end(&[&settings, certificates].concat());
    let output = finished.output();
    assert_eq!(finished.status.code(), Some(78), "{output}");
    output
}

#[test]
fn a_key_that_the_user_may_not_read_is_told_at_the_start() {
    let authority = Authority::new("Test");
    readable(authority.path(), 0o755);
    let certificate = authority.sign("mx.portcullis.test");
    readable(&certificate.key, 0o600);
    let output = does_not_start(&[
        ("TLS_CERT", certificate.chain.to_str().unwrap()),
        ("TLS_KEY", certificate.key.to_str().unwrap()),
        ("TLS_DIR", authority.path().to_str().unwrap()),
    ]);
    assert!(output.contains("Permission denied"), "{output}");
}

#[test]
fn folders_that_the_user_may_list_and_not_enter_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mx = folder.path().join("mx.portcullis.test");
    std::fs::create_dir(&mx).unwrap();
    readable(folder.path(), 0o744);
    let output = does_not_start(&[("TLS_DIR", folder.path().to_str().unwrap())]);
    let told = format!("cannot read {}: Permission denied", mx.display());
    assert!(output.contains(&told), "{output}");
}
