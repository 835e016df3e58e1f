//! Other people's scanners before the real listeners: testssl.sh, sslyze and nmap.
//! What they find on somebody's gateway, its admin will be asked about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Act, Authority, Finished, Options, Portcullis, Postfix, Running, Scripted};

/// testssl.sh starts thousands of processes, which takes minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

const NAME: &str = "mx.portcullis.test";

/// Comes from PyPI, not from Debian: `tests/run` puts it beside the build.
const SSLYZE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../tools/bin/sslyze");

/// What testssl.sh may find, since it says nothing about the program.
const ACCEPTED: [(&str, &str); 3] = [
    (
        "cert_revocation",
        "the test's authority publishes no revocations",
    ),
    ("sessionresumption_ticket", HUNG_UP),
    ("sessionresumption_ID", HUNG_UP),
];

const HUNG_UP: &str = "only ever WARN, when it has hung up before a ticket of TLS 1.3 came and \
                       then has none to show; tests/tls.rs sees that sessions are resumed";

/// The program with a certificate that `authority` signed.
fn portcullis(authority: &Authority, backend: SocketAddr) -> Portcullis {
    let certificate = authority.sign(NAME);
    let settings = [
        ("TLS_CERT", certificate.chain.to_str().unwrap()),
        ("TLS_KEY", certificate.key.to_str().unwrap()),
        // A scanner that has got what it wanted may wait to be closed.
        ("TIMEOUT_COMMAND", "20s"),
    ];
    Portcullis::guarding(backend, &settings)
}

/// The ways into TLS, with what both testssl.sh and sslyze are told of them.
fn ways_in(portcullis: &Portcullis) -> [(SocketAddr, &'static [&'static str]); 3] {
    [
        (portcullis.mx, &["--starttls", "smtp"]),
        (portcullis.tls, &[]),
        (portcullis.submission, &["--starttls", "smtp"]),
    ]
}

/// All scans at once; they wait more than they compute.
#[track_caller]
fn run_all(commands: impl IntoIterator<Item = Command>) -> Vec<Finished> {
    let start = |mut command| Running::start(&mut command, b"");
    let running: Vec<_> = commands.into_iter().map(start).collect();
    let finish = |scan: Running| scan.finish(PATIENCE);
    running.into_iter().map(finish).collect()
}

#[track_caller]
fn read_json(file: &Path, scan: &Finished) -> Value {
    let text = std::fs::read(file).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {}", scan.output()))
}

#[test]
fn testssl_finds_nothing() {
    let (authority, backend) = (Authority::new("Test CA"), Scripted::start(&[]));
    let portcullis = portcullis(&authority, backend.address);
    let folder = tempfile::tempdir().unwrap();
    let file = |server: SocketAddr| folder.path().join(server.port().to_string());
    let scan = |(server, how): (SocketAddr, &[&str])| {
        let mut testssl = Command::new("testssl");
        testssl
            // Debian has the engine for GOST ciphers in a package of its own, and
            // testssl.sh would count its absence among its findings.
            .env("NO_ENGINE", "true")
            .args(["--quiet", "--color", "0", "--warnings", "batch"])
            .args(["--nodns", "none", "--ip", "127.0.0.1", "--add-ca"])
            .arg(authority.file())
            .args(["--protocols", "--standard", "--fs", "--server-preference"])
            .args(["--server-defaults", "--vulnerable", "--jsonfile"])
            .arg(file(server))
            .args(how)
            .arg(format!("{NAME}:{}", server.port()));
        testssl
    };
    // The third is the first once more, as far as TLS goes.
    let [mx, tls, _] = ways_in(&portcullis);
    for ((server, _), scan) in [mx, tls].iter().zip(run_all([mx, tls].map(scan))) {
        let findings = read_json(&file(*server), &scan);
        let of = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let findings: Vec<_> = findings.as_array().unwrap().iter().collect();
        let severity = |id: &str| {
            let found = findings.iter().find(|finding| of(finding, "id") == id);
            found.map(|finding| of(finding, "severity"))
        };
        // The scan came to its end and took the program for what it is.
        for id in ["TLS1_3", "cert_chain_of_trust", "cipher_order", "LUCKY13"] {
            assert_eq!(severity(id).as_deref(), Some("OK"), "{id}: {}", scan.stdout);
        }
        assert!(severity("scanTime").is_some(), "{}", scan.output());
        // WARN is its word for a check that could not be done.
        let bad: Vec<_> = findings
            .iter()
            .filter(|finding| !["OK", "INFO", "DEBUG"].contains(&&*of(finding, "severity")))
            .filter(|finding| !ACCEPTED.iter().any(|(id, _)| of(finding, "id") == *id))
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

#[test]
fn sslyze_finds_the_intermediate_profile_of_mozilla() {
    let (authority, backend) = (Authority::new("Test CA"), Scripted::start(&[]));
    let portcullis = portcullis(&authority, backend.address);
    let folder = tempfile::tempdir().unwrap();
    let file = |server: SocketAddr| folder.path().join(server.port().to_string());
    let scan = |(server, how): (SocketAddr, &[&str])| {
        let mut sslyze = Command::new(SSLYZE);
        sslyze
            .args(["--mozilla_config=intermediate", "--certinfo_ca_file"])
            .arg(authority.file())
            .arg("--json_out")
            .arg(file(server))
            .args(how)
            .arg(format!("{NAME}:{}{{127.0.0.1}}", server.port()));
        sslyze
    };
    let ways = ways_in(&portcullis);
    for ((server, _), scan) in ways.iter().zip(run_all(ways.map(scan))) {
        let compliant = format!("{NAME}:{}: OK - Compliant.", server.port());
        assert!(scan.stdout.contains(&compliant), "{}", scan.output());
        let result = &read_json(&file(*server), &scan)["server_scan_results"][0];
        for (check, outcome) in result["scan_result"].as_object().unwrap() {
            assert_ne!(outcome["status"], "ERROR", "{check}: {outcome:#}");
        }
    }
}

fn nmap(server: SocketAddr, scripts: &str, arguments: &str) -> Command {
    let mut nmap = Command::new("nmap");
    nmap.args(["-n", "-Pn", "-sT", "-sV", "--version-light", "-p"])
        .arg(server.port().to_string())
        .args(["--script", scripts, "--script-args", arguments])
        .arg("127.0.0.1");
    nmap
}

/// What one script of nmap has to say, or nothing.
fn said(scan: &Finished, script: &str) -> String {
    let title = format!("{script}:");
    let mut lines = scan.stdout.lines();
    let begins = |line: &&str| line.trim_start_matches(['|', '_', ' ']).starts_with(&title);
    let first = lines.find(begins).unwrap_or_default();
    let more = lines.take_while(|line| line.starts_with("|  ") || line.starts_with("|_ "));
    let all: Vec<_> = std::iter::once(first).chain(more).collect();
    all.join("\n")
}

#[test]
fn nmap_finds_no_relay_no_hole_and_strong_ciphers_only() {
    let postfix = Postfix::start(Options {
        users: &[("ann", "secret")],
        ..Options::default()
    });
    let authority = Authority::new("Test CA");
    let portcullis = portcullis(&authority, postfix.address);
    let scripts = "smtp-open-relay,smtp-commands,smtp-vuln-*,ssl-enum-ciphers,\
                   ssl-ccs-injection,ssl-dh-params,ssl-heartbleed,ssl-poodle,sslv2-drown";
    let scan = |(server, _)| nmap(server, scripts, "");
    let scans = run_all(ways_in(&portcullis).map(scan));
    for scan in &scans {
        let relay = said(scan, "smtp-open-relay");
        assert!(
            relay.contains("doesn't seem to be an open relay")
                || relay.contains("isn't an open relay, authentication needed"),
            "{}",
            scan.output()
        );
        let ciphers = said(scan, "ssl-enum-ciphers");
        assert!(ciphers.contains("least strength: A"), "{}", scan.output());
        assert!(ciphers.contains("cipher preference: server"), "{ciphers}");
        assert!(!ciphers.contains("warnings"), "{ciphers}");
        let commands = said(scan, "smtp-commands");
        assert!(commands.contains("PIPELINING"), "{}", scan.output());
        for unsafe_verb in ["VRFY", "EXPN", "ETRN", "HELP", "XCLIENT", "XFORWARD"] {
            assert!(!commands.contains(unsafe_verb), "{commands}");
        }
        let lines = scan
            .stdout
            .lines()
            .filter(|line| line.contains("VULNERABLE"));
        let holes: Vec<_> = lines
            .filter(|line| !line.contains("NOT VULNERABLE"))
            .collect();
        assert!(holes.is_empty(), "{}", scan.stdout);
    }
    // Not even asked: the guarded server would have taken them all.
    assert!(!postfix.log().contains("heard;"), "{}", postfix.log());
    let bare = run_all([nmap(postfix.address, "smtp-open-relay", "")]);
    let relay = said(&bare[0], "smtp-open-relay");
    assert!(relay.contains("is an open relay"), "{}", bare[0].output());
}

#[test]
fn nmap_finds_no_user_by_vrfy_or_expn() {
    let told: &[Act] = &[Act::Say("250 2.1.5 Ann <ann@example.org>")];
    let backend = Scripted::start(&[("VRFY", told), ("EXPN", told)]);
    let authority = Authority::new("Test CA");
    let portcullis = portcullis(&authority, backend.address);
    let scan = |server| {
        let arguments = "smtp-enum-users.methods={VRFY,EXPN},smtp-enum-users.domain=example.org";
        nmap(server, "smtp-enum-users", arguments)
    };
    let ways = ways_in(&portcullis).map(|(server, _)| server);
    for scan in run_all(ways.map(scan)) {
        let users = said(&scan, "smtp-enum-users");
        assert!(
            users.contains("Couldn't find any accounts"),
            "{}",
            scan.output()
        );
    }
    let bare = run_all([scan(backend.address)]);
    let users = said(&bare[0], "smtp-enum-users");
    assert!(users.contains("root"), "{}", bare[0].output());
}

/// RCPT is answered by the guarded server, which alone knows its users: limits
/// make asking slow, they do not hide the answer.
#[test]
fn nmap_learns_by_rcpt_what_the_guarded_server_tells() {
    let postfix = Postfix::start(Options {
        extra: "virtual_mailbox_maps = inline:{{root@example.org = box/}}",
        ..Options::default()
    });
    let authority = Authority::new("Test CA");
    let portcullis = portcullis(&authority, postfix.address);
    let scan = |server| {
        let arguments = "smtp-enum-users.methods={RCPT},smtp-enum-users.domain=example.org";
        nmap(server, "smtp-enum-users", arguments)
    };
    let scans = run_all([portcullis.mx, postfix.address].map(scan));
    let [guarded, bare] = [0, 1].map(|scan| said(&scans[scan], "smtp-enum-users"));
    assert!(bare.contains("root"), "{}", scans[1].output());
    assert_eq!(guarded, bare);
}
