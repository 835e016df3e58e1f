//! The image that people run: built from `docker/Dockerfile`, started with nothing
//! that a cautious administrator would not give it, before a real Postfix.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support::{
    Container, Options, Postfix, Smtp, dot_stuffed, first_difference, free_address, image, letter,
    podman, torture, ulimits, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(60);
const TWENTY_MEGABYTES: usize = 20 * 1024 * 1024;

/// No user of the machine, not the image's own, no capability, nothing to write to
/// but memory: Kubernetes' "restricted" and OpenShift's random users.
const HARDENED: [&str; 6] = [
    "--user=1204857:1204857",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp",
    // Postfix listens on loopback only.
    "--network=host",
];

/// A hardened container on ports of its own.
struct Guard {
    container: Container,
    mx: SocketAddr,
}

impl Guard {
    #[track_caller]
    fn before(postfix: &Postfix, more: &[(&str, &str)]) -> Self {
        let (mx, admin) = (free_address().to_string(), free_address().to_string());
        let backend = postfix.address.to_string();
        let mut settings = vec![
            ("BACKEND", backend.as_str()),
            ("DOMAINS", "example.org"),
            ("HOSTNAME", "mx.portcullis.test"),
            ("LISTEN", &mx),
            ("LISTEN_TLS", "off"),
            ("LISTEN_SUBMISSION", "off"),
            ("ADMIN", &admin),
            ("BACKEND_PROBE_INTERVAL", "1s"),
        ];
        settings.extend(more);
        Self {
            container: Container::start(&HARDENED, &settings),
            mx: mx.parse().unwrap(),
        }
    }

    /// A client that has been greeted, once there is somebody to greet it.
    #[track_caller]
    fn client(&self) -> Smtp {
        let listens = wait_for(PATIENCE, || std::net::TcpStream::connect(self.mx).ok());
        assert!(listens.is_some(), "{}", self.container.log());
        Smtp::greeted(self.mx)
    }
}

#[track_caller]
fn assert_arrived(postfix: &Postfix, message: &[u8]) {
    let arrived = postfix.message();
    let body = arrived
        .windows(message.len())
        .rposition(|part| part == message);
    let tail = &arrived[arrived.len().saturating_sub(message.len())..];
    assert!(body.is_some(), "{:?}", first_difference(message, tail));
}

#[test]
fn the_image_holds_the_program_and_nothing_to_break_in_with() {
    let said = podman(&["image", "inspect", image()], PATIENCE).assert_success();
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    let config = &said[0]["Config"];
    assert_eq!(config["User"], "10001:10001");
    assert_eq!(config["StopSignal"], "SIGTERM");
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.title"], "Portcullis");
    assert_eq!(
        labels["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );
    assert!(labels["org.opencontainers.image.revision"].is_string());
    let test = &said[0]["Healthcheck"]["Test"];
    assert_eq!(test[1], "/usr/local/bin/portcullis", "{}", said[0]);
    let ports = config["ExposedPorts"].as_object().unwrap();
    let ports: Vec<&str> = ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["2525/tcp", "4650/tcp", "5870/tcp", "9090/tcp"]);

    let size = said[0]["Size"].as_u64().unwrap();
    println!("image: {:.1} MB", size as f64 / 1e6);
    assert!(size < 40_000_000, "{size} octets");

    let files = files();
    let expected = |file: &str| {
        ["etc/", "tmp/", "certs/", "var/spool/portcullis/"]
            .iter()
            .any(|known| file.starts_with(known))
            || ["lib/", "lib64/", "usr/lib/"]
                .iter()
                .any(|folder| file.starts_with(folder) && file.contains(".so."))
            || file == "usr/local/bin/portcullis"
            || file == "usr/share/doc/portcullis/LICENSE"
    };
    let strangers: Vec<_> = files.iter().filter(|file| !expected(file)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(files.iter().any(|file| file == "usr/local/bin/portcullis"));
    assert!(files.len() < 40, "{files:?}");
}

/// The files of the image, without the leading slash; folders are left out.
fn files() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    let archive = archive.to_str().unwrap();
    let made = podman(&["create", image()], PATIENCE).assert_success();
    let id = made.stdout.trim();
    podman(&["export", "--output", archive, id], PATIENCE).assert_success();
    podman(&["rm", id], PATIENCE).assert_success();
    let list = support::run("tar", &["-tf", archive], b"", PATIENCE).assert_success();
    let files = list.stdout.lines().filter(|name| !name.ends_with('/'));
    files
        .filter(|name| !name.starts_with("dev/") && !name.starts_with("run/"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn two_settings_are_all_that_is_needed() {
    // Nobody guards here: it must run all the same, and say what it lacks.
    let settings = [("BACKEND", "127.0.0.1:25"), ("DOMAINS", "example.org")];
    let container = Container::start(&["--network=none"], &settings);
    let answer = wait_for(PATIENCE, || {
        let asked = container.podman(&["exec"], &["portcullis", "healthcheck"]);
        (!asked.output().contains("no answer")).then_some(asked)
    });
    let answer = answer.unwrap_or_else(|| panic!("{}", container.log()));
    let said = answer.output();
    assert!(
        !answer.success() && said.contains("backend") && !said.contains("listeners"),
        "{said}\n{}",
        container.log()
    );
}

#[test]
fn names_what_is_missing_and_ends_with_78() {
    let [files, processes] = ulimits();
    let ended = podman(&["run", "--rm", &files, &processes, image()], PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{}", ended.output());
    assert!(
        ended.stderr.contains("PORTCULLIS_BACKEND"),
        "{}",
        ended.stderr
    );
}

#[test]
fn guards_a_postfix_with_nothing_but_memory_to_write_to() {
    let postfix = Postfix::start(Options::default());
    image();
    let began = Instant::now();
    let guard = Guard::before(&postfix, &[]);
    let mut client = guard.client();
    let greeted = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let started = guard.container.inspect(".State.StartedAt.UnixMilli");
    let started = Duration::from_millis(started.parse().unwrap());
    println!(
        "first greeting: {:?} after `podman run`, {:?} after the start of the program",
        began.elapsed(),
        greeted.saturating_sub(started)
    );

    client.start_tls();
    let message = letter("container");
    let reply = client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    assert_arrived(&postfix, message.as_bytes());

    let process = guard.container.inspect(".State.Pid");
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| support::between(&status, name, "\n").unwrap().trim();
    assert!(field("Uid:").starts_with("1204857"), "{status}");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");

    let healthy = || {
        let asked = guard.container.podman(&["healthcheck", "run"], &[]);
        asked.success()
    };
    let well = wait_for(PATIENCE, || healthy().then_some(()));
    assert!(well.is_some(), "{}", guard.container.log());
    drop(postfix);
    let ill = wait_for(PATIENCE, || (!healthy()).then_some(()));
    assert!(ill.is_some(), "healthy without a server to guard");
}

#[test]
fn a_message_under_way_is_finished_when_the_container_is_stopped() {
    let postfix = Postfix::start(Options::default());
    let guard = Guard::before(&postfix, &[]);
    let message = torture("drained", TWENTY_MEGABYTES);
    let wire = dot_stuffed(&message);
    let (first, second) = wire.split_at(wire.len() / 2);

    let mut client = guard.client();
    client.open_data("ann@sender.test", "bob@example.org");
    client.send(first);
    let stopping = guard.container.stopping();
    // It drains as soon as nobody new is let in.
    let shut = wait_for(PATIENCE, || {
        std::net::TcpStream::connect(guard.mx)
            .is_err()
            .then_some(())
    });
    assert!(shut.is_some(), "{}", guard.container.log());
    client.send(second);
    client.expect("250");
    drop(client);

    stopping.finish(PATIENCE).assert_success();
    assert_eq!(guard.container.inspect(".State.ExitCode"), "0");
    assert_arrived(&postfix, &message);
}

#[test]
fn a_message_that_was_cut_off_is_the_senders_to_send_again() {
    for way in ["stopped", "killed"] {
        let postfix = Postfix::start(Options::default());
        let guard = Guard::before(&postfix, &[("DRAIN", "1s")]);
        let message = torture(way, TWENTY_MEGABYTES);
        let wire = dot_stuffed(&message);

        let mut client = guard.client();
        client.open_data("ann@sender.test", "bob@example.org");
        client.send(&wire[..wire.len() / 2]);
        if way == "stopped" {
            guard.container.stopping().finish(PATIENCE).assert_success();
        } else {
            let killed = guard.container.podman(&["kill", "--signal=KILL"], &[]);
            killed.assert_success();
        }
        let reply = client.reply_or_end();
        assert!(!reply.starts_with('2'), "{way}: {reply}");
        drop(client);
        let ended = wait_for(PATIENCE, || {
            (guard.container.inspect(".State.Running") == "false").then_some(())
        });
        assert!(ended.is_some(), "{way}");

        guard.container.start_again();
        let mut client = guard.client();
        let reply = client.deliver("ann@sender.test", "bob@example.org", &message);
        assert!(reply.starts_with("250"), "{way}: {reply}");
        client.ask("QUIT", "221");
        assert_arrived(&postfix, &message);
    }
}
