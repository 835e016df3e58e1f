//! `portcullis check` and `explain` as an admin runs them: the real program beside
//! real servers that are well, dead, or trust the proxy too much.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Act, Authority, Clamd, Finished, Learns, Options, Portcullis, Postfix, Pymilter, Redis, Rspamd,
    Scripted, Spamd, free_address,
};
use time::OffsetDateTime;

const DOMAINS: (&str, &str) = ("DOMAINS", "example.org");
const BACKEND_NAME: &str = "backend.portcullis.test";

/// What `check --json` has found.
struct Checked {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Checked {
    #[track_caller]
    fn run(words: &[&str], settings: &[(&str, &str)]) -> Self {
        let words = [&["check", "--json"], words].concat();
        let Finished {
            status,
            stdout,
            stderr,
        } = Portcullis::run_with(&words, settings);
        let object: Value = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        Self {
            code: status.code(),
            findings: object["findings"].as_array().unwrap().clone(),
        }
    }

    /// The findings must have one about `what` in this state that says all of `texts`.
    #[track_caller]
    fn has(&self, what: &str, state: &str, texts: &[&str]) -> &Self {
        let found = self.findings.iter().any(|finding| {
            let text = finding["text"].as_str().unwrap();
            finding["what"] == what
                && finding["state"] == state
                && texts.iter().all(|part| text.contains(part))
        });
        assert!(found, "no {state} {what} {texts:?} in {:#?}", self.findings);
        self
    }

    #[track_caller]
    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{:#?}", self.findings);
        self
    }
}

/// Settings that guard `backend` live.
#[track_caller]
fn live(backend: impl ToString, settings: &[(&str, &str)]) -> Checked {
    let backend = backend.to_string();
    let all = [&[("BACKEND", backend.as_str()), DOMAINS], settings].concat();
    Checked::run(&["--live"], &all)
}

/// Neither was a message begun, nor does one wait.
#[track_caller]
fn nothing_arrived(postfix: &Postfix) {
    let log = postfix.log();
    for sign in ["message-id=", "status=", " data="] {
        assert!(!log.contains(sign), "{log}");
    }
}

#[test]
fn a_backend_that_is_told_of_strangers_is_seen_to_refuse_them() {
    let authority = Authority::new("check");
    let certificate = authority.sign(BACKEND_NAME);
    let postfix = Postfix::start(Options {
        certificate: Some(&certificate),
        ..Options::default()
    });
    let ca = authority.file();
    let settings = [
        ("BACKEND_TLS", "verify"),
        ("BACKEND_TLS_CA", ca.to_str().unwrap()),
        ("BACKEND_TLS_NAME", BACKEND_NAME),
        ("RELAY", "backend"),
    ];
    live(postfix.address, &settings)
        .ends_with(0)
        .has("settings", "ok", &[])
        .has("backend authorities", "ok", &[])
        .has("backend", "ok", &["XCLIENT", "8BITMIME"])
        .has("backend TLS", "ok", &["TLSv1.3"])
        .has(
            "submission",
            "warning",
            &["offers no AUTH:", "LISTEN_SUBMISSION=off"],
        )
        .has(
            "backend certificate",
            "ok",
            &[BACKEND_NAME, "CN=check", "it verifies"],
        )
        .has("client address", "ok", &["XCLIENT", "ADDR", "(127.0.0.1)"])
        .has("relay guard", "warning", &["RELAY=backend"])
        .has(
            "open relay",
            "ok",
            &["itself refuses", "192.0.2.1", "554 5.7.1"],
        );
    let wrapped = format!("smtps://{}", postfix.wrapped);
    live(wrapped, &settings)
        .ends_with(0)
        .has("backend certificate", "ok", &["it verifies"])
        .has("open relay", "ok", &["itself refuses"]);
    assert!(
        postfix
            .log()
            .contains("reject: RCPT from unknown[192.0.2.1]")
    );
    nothing_arrived(&postfix);
}

#[test]
fn a_backend_that_trusts_the_proxy_is_shut_by_the_guard_alone() {
    let postfix = Postfix::start(Options {
        learns: Learns::Nothing,
        ..Options::default()
    });
    live(postfix.address, &[])
        .ends_with(0)
        .has("relay guard", "ok", &["on"])
        .has("backend TLS", "warning", &["plain text"])
        .has(
            "client address",
            "ok",
            &["Received", "(127.0.0.1)", "for everybody"],
        )
        .has(
            "open relay",
            "ok",
            &["would take", "RELAY=guard is what keeps the relay shut"],
        )
        .has("mail to DOMAINS", "ok", &["postmaster@example.org"]);
    live(postfix.address, &[("RELAY", "backend")])
        .ends_with(1)
        .has("relay guard", "warning", &["off", "RELAY=backend"])
        .has(
            "open relay",
            "error",
            &["THE RELAY IS OPEN", "RELAY=backend"],
        );
    // It would take everybody for the proxy, so the guard stays.
    live(postfix.address, &[("MODE", "monitor")])
        .ends_with(0)
        .has("relay guard", "warning", &["MODE=monitor"])
        .has(
            "open relay",
            "ok",
            &["RELAY=guard is what keeps the relay shut"],
        );
    live(postfix.address, &[("CLIENT_INFO", "none")]).has(
        "client address",
        "warning",
        &["never learns"],
    );
    live(postfix.address, &[("CLIENT_INFO", "xclient")])
        .ends_with(78)
        .has("client address", "error", &["no XCLIENT"]);
    nothing_arrived(&postfix);
    // It takes XCLIENT, and would not learn by it who a client is.
    let offer = Act::Say("250-old.test\r\n250 XCLIENT NAME HELO");
    let nameless = Scripted::start(&[("EHLO", &[offer])]);
    live(nameless.address, &[]).has("client address", "ok", &["Received", "for everybody"]);
    live(nameless.address, &[("CLIENT_INFO", "xclient")])
        .ends_with(78)
        .has("client address", "error", &["no XCLIENT ADDR"]);
}

#[test]
fn monitoring_opens_the_relay_of_a_backend_that_takes_mail_from_strangers() {
    let postfix = Postfix::start(Options {
        extra: "mynetworks = 0.0.0.0/0",
        ..Options::default()
    });
    live(postfix.address, &[]).ends_with(0).has(
        "open relay",
        "ok",
        &["192.0.2.1", "RELAY=guard is what keeps the relay shut"],
    );
    for off in [("RELAY", "backend"), ("MODE", "monitor")] {
        let setting = format!("{}={}", off.0, off.1);
        live(postfix.address, &[off]).ends_with(1).has(
            "open relay",
            "error",
            &["THE RELAY IS OPEN", "192.0.2.1", &setting],
        );
    }
    nothing_arrived(&postfix);
}

#[test]
fn a_proxy_header_carries_the_stranger() {
    let postfix = Postfix::start(Options {
        learns: Learns::ByProxyHeader,
        ..Options::default()
    });
    live(
        postfix.address,
        &[("CLIENT_INFO", "proxy-v2"), ("RELAY", "backend")],
    )
    .ends_with(0)
    .has("client address", "ok", &["PROXY header"])
    .has("open relay", "ok", &["itself refuses", "192.0.2.1"]);
}

#[test]
fn tells_what_verifying_the_backend_would_find() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let certificate = authority.sign(BACKEND_NAME);
    let postfix = Postfix::start(Options {
        certificate: Some(&certificate),
        ..Options::default()
    });
    live(postfix.address, &[]).ends_with(0).has(
        "backend certificate",
        "ok",
        &[BACKEND_NAME, "would refuse it", "UnknownIssuer"],
    );
    let ca = other.file();
    let settings = [
        ("BACKEND_TLS", "verify"),
        ("BACKEND_TLS_CA", ca.to_str().unwrap()),
    ];
    live(postfix.address, &settings)
        .ends_with(69)
        .has("backend", "error", &["did not verify"])
        .has(
            "backend certificate",
            "error",
            &[BACKEND_NAME, "verify refuses it"],
        );
}

#[test]
fn a_dead_backend_and_a_silent_one_are_told_in_time() {
    let (silent, dead) = (
        Scripted::start(&[("greeting", &[Act::Silence])]),
        free_address(),
    );
    let began = Instant::now();
    live(
        format!("{dead}, {}", silent.address),
        &[("TIMEOUT_BACKEND_CONNECT", "1s")],
    )
    .ends_with(69)
    .has("backend", "error", &[&dead.to_string(), "refused"])
    .has(
        "backend",
        "error",
        &[&silent.address.to_string(), "in time"],
    );
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_refusal_for_another_reason_proves_nothing() {
    let greylisting = Scripted::start(&[("RCPT", &[Act::Say("450 4.7.1 come back later")])]);
    live(greylisting.address, &[("RELAY", "backend")])
        .ends_with(0)
        .has("open relay", "warning", &["not clearly", "come back later"]);
    let blocking = Scripted::start(&[("RCPT", &[Act::Say("554 5.7.1 you are on a list")])]);
    live(blocking.address, &[("RELAY", "backend")]).has(
        "open relay",
        "warning",
        &["not clearly", "on a list"],
    );
    let demanding = Scripted::start(&[("MAIL", &[Act::Say("530 5.7.0 sign in first")])]);
    live(demanding.address, &[("RELAY", "backend")]).has(
        "open relay",
        "ok",
        &["itself refuses", "sign in first"],
    );
    let wants_tls = Scripted::start(&[
        ("EHLO", &[Act::Say("250-old.test\r\n250 STARTTLS")]),
        ("MAIL", &[Act::Say("530 5.7.0 encrypt first")]),
    ]);
    live(
        wants_tls.address,
        &[("RELAY", "backend"), ("BACKEND_TLS", "off")],
    )
    .has("backend TLS", "ok", &["BACKEND_TLS=off"])
    .has("backend certificate", "warning", &["cannot be seen"])
    .has("open relay", "warning", &["not clearly"]);
    let leaving = Scripted::start(&[("RCPT", &[Act::Close])]);
    live(leaving.address, &[])
        .ends_with(69)
        .has("open relay", "error", &["cannot be found out"]);
}

/// Anybody can say that he is the boss.
#[test]
fn a_backend_that_relays_for_whoever_claims_to_be_one_of_us_is_found() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_relay_restrictions =\n\
                smtpd_recipient_restrictions = check_sender_access inline:{example.org=OK}, \
                reject_unauth_destination",
        ..Options::default()
    });
    live(postfix.address, &[("RELAY", "backend")])
        .ends_with(1)
        .has("open relay", "error", &["THE RELAY IS OPEN", "192.0.2.1"]);
    nothing_arrived(&postfix);
}

/// That it relays nothing for the null sender says nothing about the others.
#[test]
fn a_backend_that_minds_the_null_sender_alone_is_found_open() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_relay_restrictions =\n\
                smtpd_recipient_restrictions = check_sender_access inline:{example.com=OK}, \
                reject_unauth_destination",
        ..Options::default()
    });
    live(postfix.address, &[("RELAY", "backend")])
        .ends_with(1)
        .has("open relay", "error", &["THE RELAY IS OPEN"]);
    nothing_arrived(&postfix);
}

/// That it lets nobody pretend to be one of its own says nothing about the others.
#[test]
fn a_backend_that_minds_forged_senders_is_not_held_to_be_shut_for_it() {
    let postfix = Postfix::start(Options {
        extra: "smtpd_relay_restrictions =\n\
                smtpd_recipient_restrictions = check_sender_access inline:{example.org=REJECT}, \
                check_recipient_access static:{450 4.7.1 come back later}, reject",
        ..Options::default()
    });
    live(postfix.address, &[("RELAY", "backend")])
        .ends_with(0)
        .has("open relay", "warning", &["not clearly", "come back later"]);
}

#[test]
fn a_backend_that_refuses_strangers_mail_to_us_is_told_of() {
    let domains = ("DOMAINS", "example.org, elsewhere.test, *.example.net");
    // Nobody has a name there, whatever the address.
    let nameless = Postfix::start(Options {
        extra: "smtpd_client_restrictions = reject_unknown_client_hostname",
        ..Options::default()
    });
    live(nameless.address, &[domains]).ends_with(0).has(
        "mail to DOMAINS",
        "warning",
        &[
            "the outside address 192.0.2.1",
            "postmaster@elsewhere.test",
            "postmaster@example.org",
            "cannot find your hostname",
        ],
    );
    let other = Postfix::start(Options {
        extra: "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
        ..Options::default()
    });
    live(other.address, &[domains]).ends_with(0).has(
        "mail to DOMAINS",
        "warning",
        &["postmaster@elsewhere.test (554 5.7.1"],
    );
    live(other.address, &[("DOMAINS", "example.org")])
        .ends_with(0)
        .has(
            "mail to DOMAINS",
            "ok",
            &["postmaster@example.org", "192.0.2.1"],
        );
    nothing_arrived(&other);
}

#[test]
fn a_backend_that_breaks_at_tls_is_told_of() {
    let broken = Scripted::start(&[
        ("EHLO", &[Act::Say("250-old.test\r\n250 STARTTLS")]),
        ("STARTTLS", &[Act::Say("454 4.7.0 TLS not available")]),
    ]);
    live(broken.address, &[])
        .ends_with(0)
        .has("backend TLS", "warning", &["breaks", "plain text"])
        .has("open relay", "ok", &["RELAY=guard"]);
    live(broken.address, &[("BACKEND_TLS", "encrypt")])
        .ends_with(69)
        .has("backend", "error", &["TLS"]);
}

#[test]
fn scanners_and_redis_are_asked_whether_they_are_there() {
    let backend = Scripted::start(&[]);
    let (spamd, clamd, rspamd) = (Spamd::start(&[]), Clamd::start(""), Rspamd::start(""));
    let (pymilter, redis) = (Pymilter::start(&[]), Redis::start());
    let check = |spamd: String, clamd: String, rspamd: String, milter: String, redis: &str| {
        let milter = format!("inet:{milter}");
        let settings = [
            ("SPAMASSASSIN", spamd.as_str()),
            ("CLAMAV", clamd.as_str()),
            ("RSPAMD", rspamd.as_str()),
            ("MILTERS", &milter),
            ("REDIS", redis),
        ];
        live(backend.address, &settings)
    };
    check(
        spamd.address.to_string(),
        clamd.address.to_string(),
        format!("http://{}", rspamd.address),
        pymilter.address.to_string(),
        &redis.url(),
    )
    .ends_with(0)
    .has("scanner", "ok", &["spamassassin"])
    .has("scanner", "ok", &["clamav"])
    .has("scanner", "ok", &["rspamd"])
    .has("scanner", "ok", &["milter"])
    .has("redis", "ok", &[&redis.url()])
    .has("spool", "ok", &[]);
    let nobody = || free_address().to_string();
    let password = format!("redis://:geheim@{}/0", nobody());
    let checked = check(
        nobody(),
        nobody(),
        format!("http://{}", nobody()),
        nobody(),
        &password,
    );
    checked
        .ends_with(69)
        .has("scanner", "error", &["spamassassin"])
        .has("scanner", "error", &["clamav"])
        .has("scanner", "error", &["rspamd"])
        .has("scanner", "error", &["milter"])
        .has("redis", "error", &["counts for itself"]);
    assert!(!format!("{:?}", checked.findings).contains("geheim"));
}

#[test]
fn bad_files_and_bad_settings_are_told_at_once() {
    let authority = Authority::new("check");
    let days = |days| OffsetDateTime::now_utc() + time::Duration::days(days);
    let (mine, foreign) = (
        authority.sign("mx.portcullis.test"),
        authority.sign("b.test"),
    );
    let expired = authority.sign_until("old.test", days(-1));
    let ending = authority.sign_until("soon.test", days(3));
    let early = authority.sign_from("early.test", days(1));
    let pair = |chain: &Path, key: &Path, more: &[(&str, &str)]| {
        let given = [
            ("BACKEND", "127.0.0.1:25"),
            DOMAINS,
            ("TLS_CERT", chain.to_str().unwrap()),
            ("TLS_KEY", key.to_str().unwrap()),
        ];
        Checked::run(&[], &[&given, more].concat())
    };
    let good = pair(&mine.chain, &mine.key, &[("SESSIONS_MAX", "100")]);
    good.ends_with(0)
        .has("certificate", "ok", &["mx.portcullis.test"])
        .has("hostname", "ok", &["mx.portcullis.test"])
        .has("sessions", "ok", &[]);
    pair(&ending.chain, &ending.key, &[])
        .ends_with(0)
        .has("certificate", "warning", &["renew it soon"])
        .has(
            "certificate",
            "warning",
            &["none is for mx.portcullis.test"],
        );
    pair(&early.chain, &early.key, &[]).ends_with(0).has(
        "certificate",
        "warning",
        &["early.test", "not valid before"],
    );
    let bad = [
        ("TARPIT", "30"),
        ("SPOOL_DIR", "/no/such/folder"),
        ("CLAMAV", "127.0.0.1:3310"),
        ("BACKEND_TLS_CA", "/no/such/ca.pem"),
        ("SESSIONS_MAX", "4000000000"),
    ];
    pair(&mine.chain, &foreign.key, &bad)
        .ends_with(78)
        .has("settings", "error", &["PORTCULLIS_TARPIT", "no unit"])
        .has("spool", "error", &["/no/such/folder"])
        .has("backend authorities", "error", &["/no/such/ca.pem"])
        .has("sessions", "warning", &["SESSIONS_MAX"])
        .has("certificate", "error", &["does not fit"]);
    pair(
        &mine.chain,
        &mine.key,
        &[("BACKEND_TLS_NAME", "https://old")],
    )
    .ends_with(78)
    .has(
        "settings",
        "error",
        &["BACKEND_TLS_NAME", "https://old", "mail.example.org"],
    );
    pair(&expired.chain, &expired.key, &[]).ends_with(78).has(
        "certificate",
        "error",
        &["expired on"],
    );
    Checked::run(
        &[],
        &[("BACKEND", "127.0.0.1:25"), ("DOMAINS", "@/no/such/file")],
    )
    .ends_with(78)
    .has("settings", "error", &["/no/such/file"])
    .has(
        "certificate",
        "warning",
        &["self-signed", "fill /", "/certs"],
    );
    Checked::run(
        &[],
        &[
            ("BACKEND", "127.0.0.1:25"),
            DOMAINS,
            ("TLS_DIR", "no/such/folder"),
        ],
    )
    .ends_with(78)
    .has("certificate", "error", &["/no/such/folder: No such file"]);
}

#[test]
fn a_proxy_header_that_is_believed_of_everybody_is_warned_of() {
    let check = |trusted| {
        let given = [
            ("BACKEND", "127.0.0.1:25"),
            DOMAINS,
            ("PROXY_TRUSTED", trusted),
        ];
        Checked::run(&[], &given)
    };
    check("0.0.0.0/0, ::/0").ends_with(0).has(
        "PROXY header",
        "warning",
        &["PROXY_TRUSTED", "every address"],
    );
    let some = check("10.0.0.1");
    assert!(!format!("{:?}", some.findings).contains("PROXY_TRUSTED"));
}

#[test]
fn files_are_looked_at_as_the_user_whom_root_becomes() {
    let authority = Authority::new("check");
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(authority.path(), 0o755);
    let mine = authority.sign("mx.portcullis.test");
    let as_nobody = || {
        let given = [
            ("BACKEND", "127.0.0.1:25"),
            DOMAINS,
            ("TLS_CERT", mine.chain.to_str().unwrap()),
            ("TLS_KEY", mine.key.to_str().unwrap()),
            ("RUN_AS", "nobody"),
        ];
        Checked::run(&[], &given)
    };
    as_nobody()
        .ends_with(0)
        .has("certificate", "ok", &["mx.portcullis.test"])
        .has("sessions", "ok", &[]);
    readable(&mine.key, 0o600);
    as_nobody().ends_with(78).has(
        "certificate",
        "error",
        &["mx.portcullis.test.key", "Permission denied"],
    );
}

#[test]
fn people_read_one_line_for_each_finding() {
    let checked = Portcullis::run_with(&["check"], &[("BACKEND", "127.0.0.1:25")]);
    assert_eq!(checked.status.code(), Some(78));
    let mut lines = checked.stdout.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("error    settings     PORTCULLIS_DOMAINS"),
        "{first}"
    );
    // The certificate is one; few file descriptors may be another.
    let last = lines.next_back().unwrap();
    assert!(last.starts_with("errors: 1, warnings: "), "{last}");
    assert!(!checked.stdout.contains('\u{1b}') && checked.stderr.is_empty());
}

#[test]
fn explains_settings_good_and_bad() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, "rcpt_max = 7\nmsg_rate = \"often\"\n").unwrap();
    let settings = [
        ("CONFIG", file.to_str().unwrap()),
        ("BACKEND", "127.0.0.1:25"),
        DOMAINS,
        ("REDIS", "redis://:geheim@127.0.0.1:1/0"),
    ];
    let explained = Portcullis::run_with(&["explain", "--drain=2s", "--json"], &settings);
    assert_eq!(explained.status.code(), Some(78));
    assert!(
        explained.stderr.contains("PORTCULLIS_MSG_RATE=\"often\""),
        "{}",
        explained.stderr
    );
    let array: Value = serde_json::from_str(&explained.stdout).unwrap();
    let array = array.as_array().unwrap();
    let of = |name: &str| {
        array
            .iter()
            .find(|setting| setting["name"] == name)
            .unwrap()
    };
    let says = |name: &str, value: &str, origin: &str| {
        let setting = of(name);
        assert_eq!(
            (&setting["value"], &setting["origin"]),
            (&value.into(), &origin.into())
        );
        assert_eq!(setting["variable"], format!("PORTCULLIS_{name}"));
    };
    says("DRAIN", "2s", "flag");
    says("BACKEND", "127.0.0.1:25", "environment");
    says("RCPT_MAX", "7", "file");
    says("MSG_RATE", "often", "file");
    says("TLS_MIN", "1.2", "default");
    says("REDIS", "***", "environment");
    assert_eq!(of("RCPT_MAX")["file"], file.to_str().unwrap());
    assert_eq!(of("TLS_CERT")["value"], Value::Null);

    let people = Portcullis::run_with(&["explain"], &settings[1..]);
    assert_eq!(people.status.code(), Some(0));
    let line = people
        .stdout
        .lines()
        .find(|line| line.contains("PORTCULLIS_REDIS "));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words, ["PORTCULLIS_REDIS", "***", "environment"]);
    assert!(!people.output().contains("geheim") && !explained.output().contains("geheim"));
}
