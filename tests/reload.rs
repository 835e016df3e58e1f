//! What changes while the program runs: certificates by themselves, settings
//! on HUP. Sessions never notice, and what is broken changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Act, Authority, Certificate, Options, Portcullis, Postfix, Scripted, Smtp};
use support::{first_octets, free_address, run, wait_for};

const PATIENCE: Duration = Duration::from_secs(10);

const CERTIFICATES_WELL: &str = r#"portcullis_reload_successful{what="certificates"}"#;
const CONFIG_WELL: &str = r#"portcullis_reload_successful{what="config"}"#;

/// The certificate that openssl is shown, as PEM without white space.
fn shown(server: SocketAddr, name: &str) -> String {
    let server = server.to_string();
    let arguments = ["s_client", "-connect", &server, "-servername", name];
    leaf(&run("openssl", &arguments, b"", PATIENCE).stdout)
}

/// The first certificate of a PEM text without white space.
fn leaf(pem: &str) -> String {
    let body = support::between(pem, "-----BEGIN CERTIFICATE-----", "-----END").unwrap_or("");
    body.split_whitespace().collect()
}

#[track_caller]
fn expect_shown(portcullis: &Portcullis, name: &str, chain: &Path) {
    let wanted = leaf(&fs::read_to_string(chain).unwrap());
    let seen = wait_for(PATIENCE, || {
        (shown(portcullis.tls, name) == wanted).then_some(())
    });
    assert!(
        seen.is_some(),
        "{chain:?} is not shown\n{}",
        portcullis.log()
    );
}

/// `link` leads to `target` from one moment to the next.
fn relink(target: impl AsRef<Path>, link: &Path) {
    let mut new = link.as_os_str().to_owned();
    new.push("-new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

/// The folders of certbot: `live/<name>` holds links to numbered files.
struct Certbot {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Certbot {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("Certbot's"),
        }
    }

    fn live(&self) -> PathBuf {
        self.folder.path().join("live")
    }

    /// Issues the certificate with that number, and the key after it.
    fn renew(&self, name: &str, number: u32) -> Certificate {
        let (archive, live) = (self.folder.path().join("archive"), self.live());
        let (archive, live) = (archive.join(name), live.join(name));
        fs::create_dir_all(&archive).unwrap();
        fs::create_dir_all(&live).unwrap();
        let issued = self.authority.sign(name);
        for (file, from) in [("fullchain", &issued.chain), ("privkey", &issued.key)] {
            fs::copy(from, archive.join(format!("{file}{number}.pem"))).unwrap();
            let target = format!("../../archive/{name}/{file}{number}.pem");
            relink(target, &live.join(format!("{file}.pem")));
        }
        Certificate {
            chain: live.join("fullchain.pem"),
            key: live.join("privkey.pem"),
        }
    }
}

#[test]
fn certificates_that_certbot_renews_are_shown_and_sessions_go_on() {
    let (backend, certbot) = (Scripted::start(&[]), Certbot::new());
    let first = certbot.renew("mx.portcullis.test", 1);
    let live = certbot.live();
    let portcullis = Portcullis::guarding(
        backend.address,
        &[("TLS_DIR", live.to_str().unwrap()), ("TLS_RELOAD", "200ms")],
    );
    expect_shown(&portcullis, "mx.portcullis.test", &first.chain);
    let mut session = Smtp::connect_tls(portcullis.tls);
    session.expect("220");

    let second = certbot.renew("mx.portcullis.test", 2);
    expect_shown(&portcullis, "mx.portcullis.test", &second.chain);
    session.ask("EHLO client.test", "250");

    // A name that comes and goes.
    let other = certbot.renew("other.test", 1);
    expect_shown(&portcullis, "other.test", &other.chain);
    assert!(
        portcullis
            .metrics()
            .contains("live/other.test/fullchain.pem")
    );
    fs::remove_dir_all(live.join("other.test")).unwrap();
    expect_shown(&portcullis, "other.test", &second.chain);
    assert!(
        !portcullis
            .metrics()
            .contains("live/other.test/fullchain.pem")
    );
    assert_eq!(portcullis.metric(CERTIFICATES_WELL), 1.0);
    session.ask("NOOP", "250");
    let (status, ready) = portcullis.ready();
    assert_eq!(status, 200, "{ready}");
}

#[test]
fn a_broken_renewal_keeps_the_old_certificate_says_why_once_and_raises_the_metric() {
    let (backend, certbot) = (Scripted::start(&[]), Certbot::new());
    let first = certbot.renew("mx.portcullis.test", 1);
    let good = fs::read_to_string(&first.chain).unwrap();
    let live = certbot.live();
    let portcullis = Portcullis::guarding(
        backend.address,
        &[("TLS_DIR", live.to_str().unwrap()), ("TLS_RELOAD", "100ms")],
    );
    let stranger = certbot.authority.sign("stranger.test");
    // Through the link: the sandbox would not follow one to elsewhere.
    fs::copy(&stranger.key, &first.key).unwrap();
    let complaint = "does not fit the certificate";
    portcullis.log_with(complaint);
    assert_eq!(portcullis.metric(CERTIFICATES_WELL), 0.0);
    // Looked at several times more, told once.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(portcullis.log().matches(complaint).count(), 1);
    assert_eq!(shown(portcullis.tls, "mx.portcullis.test"), leaf(&good));

    let third = certbot.renew("mx.portcullis.test", 3);
    expect_shown(&portcullis, "mx.portcullis.test", &third.chain);
    let well = wait_for(PATIENCE, || {
        (portcullis.metric(CERTIFICATES_WELL) == 1.0).then_some(())
    });
    assert!(well.is_some());
}

#[test]
fn a_certificate_that_is_not_valid_yet_comes_in_when_it_is() {
    let (backend, authority) = (Scripted::start(&[]), Authority::new("hasty"));
    let first = authority.sign("mx.portcullis.test");
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("TLS_CERT", first.chain.to_str().unwrap()),
            ("TLS_KEY", first.key.to_str().unwrap()),
            ("TLS_RELOAD", "100ms"),
        ],
    );
    let old = leaf(&fs::read_to_string(&first.chain).unwrap());
    let begins = time::OffsetDateTime::now_utc() + Duration::from_secs(5);
    let second = authority.sign_from("mx.portcullis.test", begins);
    let complaint = "is not valid before";
    portcullis.log_with(complaint);
    assert_eq!(portcullis.metric(CERTIFICATES_WELL), 0.0);
    assert_eq!(shown(portcullis.tls, "mx.portcullis.test"), old);

    expect_shown(&portcullis, "mx.portcullis.test", &second.chain);
    assert!(time::OffsetDateTime::now_utc() >= begins.replace_nanosecond(0).unwrap());
    let log = portcullis.log_with("certificates have changed");
    assert_eq!(log.matches(complaint).count(), 1, "{log}");
    assert_eq!(portcullis.metric(CERTIFICATES_WELL), 1.0);
}

#[test]
fn one_that_is_not_valid_yet_is_better_than_none_at_the_start() {
    let (backend, authority) = (Scripted::start(&[]), Authority::new("hasty"));
    let tomorrow = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 60 * 60);
    let early = authority.sign_from("mx.portcullis.test", tomorrow);
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("TLS_CERT", early.chain.to_str().unwrap()),
            ("TLS_KEY", early.key.to_str().unwrap()),
        ],
    );
    expect_shown(&portcullis, "mx.portcullis.test", &early.chain);
    portcullis.log_with("not valid yet");
}

#[test]
fn certificates_as_caddy_keeps_them_are_renewed_on_hup() {
    let (backend, authority) = (Scripted::start(&[]), Authority::new("Caddy's"));
    let first = authority.sign("mx.portcullis.test");
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("TLS_CERT", first.chain.to_str().unwrap()),
            ("TLS_KEY", first.key.to_str().unwrap()),
            ("TLS_RELOAD", "0s"),
        ],
    );
    expect_shown(&portcullis, "mx.portcullis.test", &first.chain);
    let old = leaf(&fs::read_to_string(&first.chain).unwrap());
    // The same files, written over.
    let second = authority.sign("mx.portcullis.test");
    assert_eq!(shown(portcullis.tls, "mx.portcullis.test"), old);
    portcullis.hang_up();
    expect_shown(&portcullis, "mx.portcullis.test", &second.chain);
}

/// Other paths come in with all the rest of a reload, or with none of it.
#[test]
fn certificates_elsewhere_are_judged_before_a_reload_changes_anything() {
    let authority = Authority::new("the mover's");
    let (first, other) = (
        authority.sign("mx.portcullis.test"),
        authority.sign("other.test"),
    );
    let tomorrow = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 60 * 60);
    let early = authority.sign_from("early.test", tomorrow);
    let lines = |chain: &Path, key: &Path, rest: &str| {
        let (chain, key) = (chain.display(), key.display());
        format!("tls_cert = '{chain}'\ntls_key = '{key}'\n{rest}")
    };
    let good = lines(&first.chain, &first.key, "");
    let configured = Configured::start("example.org", &good);
    let portcullis = &configured.portcullis;
    expect_shown(portcullis, "mx.portcullis.test", &first.chain);

    let nowhere = authority.path().join("nowhere");
    let bad = [
        (lines(&nowhere, &first.key, ""), "nowhere"),
        (lines(&other.chain, &first.key, ""), "does not fit"),
        (lines(&early.chain, &early.key, ""), "is not valid before"),
        (
            format!("{good}tls_dir = '{}'", nowhere.display()),
            "cannot read",
        ),
        (String::new(), "no certificate is left"),
    ];
    for (bad, complaint) in &bad {
        let told = "the old ones stay in force";
        let before = portcullis.log().matches(told).count();
        let lines = format!("{bad}\nrcpt_max = 7");
        write(configured.folder.path(), "example.net", &lines);
        portcullis.hang_up();
        let refused = || {
            let log = portcullis.log();
            (log.matches(told).count() > before).then_some(log)
        };
        let log = wait_for(PATIENCE, refused).expect(complaint);
        assert!(log.contains(complaint), "{complaint}\n{log}");
        assert_eq!(portcullis.metric(CONFIG_WELL), 0.0);
        assert_eq!(portcullis.metric(CERTIFICATES_WELL), 1.0);
        expect_shown(portcullis, "mx.portcullis.test", &first.chain);
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let offered = client.ask("EHLO client.test", "250");
        assert!(offered.contains("RCPTMAX=100"), "{complaint}: {offered}");
    }

    configured.reload(
        "example.org",
        &lines(&other.chain, &other.key, "rcpt_max = 7"),
    );
    expect_shown(portcullis, "mx.portcullis.test", &other.chain);
    assert_eq!(portcullis.metric(CERTIFICATES_WELL), 1.0);
}

#[test]
fn the_secret_of_a_kubernetes_pod_is_followed_when_it_is_swapped() {
    let (backend, authority) = (Scripted::start(&[]), Authority::new("cert-manager's"));
    let mount = tempfile::tempdir().unwrap();
    let publish = |dated: &str| {
        let issued = authority.sign("mx.portcullis.test");
        let folder = mount.path().join(dated);
        fs::create_dir(&folder).unwrap();
        fs::copy(&issued.chain, folder.join("tls.crt")).unwrap();
        fs::copy(&issued.key, folder.join("tls.key")).unwrap();
        relink(dated, &mount.path().join("..data"));
    };
    publish("..2026_11_24");
    let (chain, key) = (mount.path().join("tls.crt"), mount.path().join("tls.key"));
    symlink("..data/tls.crt", &chain).unwrap();
    symlink("..data/tls.key", &key).unwrap();
    let portcullis = Portcullis::guarding(
        backend.address,
        &[
            ("TLS_CERT", chain.to_str().unwrap()),
            ("TLS_KEY", key.to_str().unwrap()),
            ("TLS_RELOAD", "200ms"),
        ],
    );
    expect_shown(&portcullis, "mx.portcullis.test", &chain);
    publish("..2026_12_24");
    fs::remove_dir_all(mount.path().join("..2026_11_24")).unwrap();
    expect_shown(&portcullis, "mx.portcullis.test", &chain);
}

/// A program whose settings stand in files.
struct Configured {
    folder: tempfile::TempDir,
    portcullis: Portcullis,
    backend: Option<Scripted>,
}

impl Configured {
    /// `CONFIG` holds these lines; `DOMAINS` come from the file `domains`.
    fn start(domains: &str, lines: &str) -> Self {
        let backend = Scripted::start(&[]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        write(folder.path(), domains, lines);
        let address = backend.address.to_string();
        let portcullis =
            Portcullis::start(&[("BACKEND", &address), ("CONFIG", file.to_str().unwrap())]);
        Self {
            folder,
            portcullis,
            backend: Some(backend),
        }
    }

    /// Changes the files and waits until the program has read them.
    #[track_caller]
    fn reload(&self, domains: &str, lines: &str) {
        let told = "settings are reloaded";
        let before = self.portcullis.log().matches(told).count();
        write(self.folder.path(), domains, lines);
        self.portcullis.hang_up();
        let done = wait_for(PATIENCE, || {
            (self.portcullis.log().matches(told).count() > before).then_some(())
        });
        assert!(done.is_some(), "{}", self.portcullis.log());
    }
}

fn write(folder: &Path, domains: &str, lines: &str) {
    let list = folder.join("domains");
    fs::write(&list, domains).unwrap();
    let text = format!("domains = \"@{}\"\n{lines}", list.display());
    fs::write(folder.join("portcullis.toml"), text).unwrap();
}

#[test]
fn new_sessions_obey_the_new_settings_and_old_ones_those_they_began_with() {
    let configured = Configured::start("example.org", "rcpt_max = 1");
    let portcullis = &configured.portcullis;
    let mut old = Smtp::greeted(portcullis.mx);
    assert!(!portcullis.log().contains("DEBUG"));

    configured.reload("example.net", "rcpt_max = 7\nlog_level = \"debug\"");
    old.ask("MAIL FROM:<ann@sender.test>", "250");
    old.ask("RCPT TO:<bob@example.org>", "250");
    old.ask("RCPT TO:<eve@example.org>", "452");

    let mut new = Smtp::connect(portcullis.mx);
    new.expect("220");
    let offered = new.ask("EHLO client.test", "250");
    assert!(offered.contains("RCPTMAX=7"), "{offered}");
    new.ask("MAIL FROM:<ann@sender.test>", "250");
    new.ask("RCPT TO:<bob@example.org>", "550");
    new.ask("RCPT TO:<bob@example.net>", "250");
    let log = portcullis.log_with("settings are reloaded");
    assert!(log.contains("RCPT_MAX") && log.contains("LOG_LEVEL") && log.contains("DOMAINS"));
    assert_eq!(portcullis.metric(CONFIG_WELL), 1.0);
}

#[test]
fn bad_settings_change_nothing_and_every_problem_is_told() {
    let configured = Configured::start("example.org", "rcpt_max = 1");
    let portcullis = &configured.portcullis;
    let mut old = Smtp::greeted(portcullis.mx);
    write(
        configured.folder.path(),
        "example.net",
        "rcpt_max = \"many\"\nconn_rate = \"often\"\nno_such_thing = 1",
    );
    portcullis.hang_up();
    let log = portcullis.log_with("no_such_thing");
    for problem in ["RCPT_MAX", "CONN_RATE", "no_such_thing"] {
        assert!(log.contains(problem), "{problem}\n{log}");
    }
    assert!(log.contains("the old ones stay in force"));
    assert_eq!(portcullis.metric(CONFIG_WELL), 0.0);
    old.ask("NOOP", "250");
    let mut new = Smtp::greeted(portcullis.mx);
    new.ask("MAIL FROM:<ann@sender.test>", "250");
    new.ask("RCPT TO:<bob@example.org>", "250");
    new.ask("RCPT TO:<eve@example.org>", "452");

    configured.reload("example.org", "rcpt_max = 2");
    assert_eq!(portcullis.metric(CONFIG_WELL), 1.0);
}

#[test]
fn listeners_that_stay_keep_their_sessions_while_others_come_and_go() {
    let (stays, goes, comes) = (free_address(), free_address(), free_address());
    let listen = |other| format!("listen_submission = \"{stays}, {other}\"");
    let configured = Configured::start("example.org", &listen(goes));
    let (mut staying, mut going) = (Smtp::greeted(stays), Smtp::greeted(goes));

    configured.reload("example.org", &listen(comes));
    configured.portcullis.log_with("no longer listening");
    Smtp::greeted(comes);
    Smtp::greeted(stays);
    assert!(TcpStream::connect(goes).is_err());
    // Sessions go on even where their listener does not.
    staying.ask("NOOP", "250");
    going.ask("NOOP", "250");
}

#[test]
fn an_address_that_cannot_be_bound_changes_nothing() {
    let configured = Configured::start("example.org", "listen_submission = \"off\"");
    let portcullis = &configured.portcullis;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let lines = format!("rcpt_max = 3\nlisten_submission = \"{address}\"");
    write(configured.folder.path(), "example.org", &lines);
    portcullis.hang_up();
    portcullis.log_with(&format!("cannot listen on {address}"));
    assert_eq!(portcullis.metric(CONFIG_WELL), 0.0);
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    assert!(
        client
            .ask("EHLO client.test", "250")
            .contains("RCPTMAX=100")
    );
}

#[test]
fn a_backend_that_moves_is_followed_and_readiness_knows_the_new_one() {
    let (old, new) = (Scripted::start(&[]), Scripted::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    let name = |backend: &Scripted| fs::write(&file, format!("backend = \"{}\"", backend.address));
    name(&old).unwrap();
    let portcullis = Portcullis::start(&[
        ("DOMAINS", "example.org"),
        ("CONFIG", file.to_str().unwrap()),
    ]);
    let mut running = Smtp::greeted(portcullis.mx);
    name(&new).unwrap();
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    let mut fresh = Smtp::greeted(portcullis.mx);
    for (client, backend, sender) in [(&mut running, &old, "ann"), (&mut fresh, &new, "eve")] {
        client.ask(&format!("MAIL FROM:<{sender}@sender.test>"), "250");
        let heard = backend.transactions(1);
        assert!(heard[0].contains(sender), "{heard:?}");
    }
    let metrics = portcullis.metrics();
    let shows = |backend: &Scripted| {
        let address = backend.address.to_string();
        let mut lines = metrics.lines();
        lines.any(|line| line.starts_with("portcullis_backend_up{") && line.contains(&address))
    };
    assert!(shows(&new) && !shows(&old), "{metrics}");
    let (status, ready) = portcullis.ready();
    assert_eq!(status, 200, "{ready}");
    assert!(ready.to_string().contains(&new.address.to_string()));
}

#[test]
fn a_backend_that_takes_its_time_is_waited_for_after_a_reload_too() {
    // Longer than a reload waits for it.
    let slow = [
        (
            "greeting",
            &[Act::Wait(Duration::from_secs(7)), Act::Say("220 slow.test")][..],
        ),
        ("EHLO", &[Act::Say("250-slow.test\r\n250 8BITMIME")]),
    ];
    let (old, new) = (Scripted::start(&[]), Scripted::start(&slow));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    let name = |backend: &Scripted| fs::write(&file, format!("backend = \"{}\"", backend.address));
    name(&old).unwrap();
    let portcullis = Portcullis::start(&[
        ("DOMAINS", "example.org"),
        ("CONFIG", file.to_str().unwrap()),
        ("BACKEND_PROBE_INTERVAL", "1h"),
    ]);
    name(&new).unwrap();
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    let offered = wait_for(Duration::from_secs(30), || {
        let mut client = Smtp::connect(portcullis.mx);
        client.expect("220");
        let offer = client.ask("EHLO client.test", "250");
        offer.contains("8BITMIME").then_some(())
    });
    assert!(offered.is_some(), "{}", portcullis.log());
    assert_eq!(portcullis.ready().0, 200);
}

/// Mail in UTF-8 that is sent meanwhile would be refused for good.
#[test]
fn a_reload_while_the_backend_is_down_forgets_nothing_that_it_offers() {
    let patience =
        |text| format!("timeout_backend_reply = \"{text}\"\nbackend_probe_interval = \"1h\"");
    let mut configured = Configured::start("example.org", &patience("1min"));
    configured.portcullis.wait_for_keywords();
    configured.backend.take();
    configured.reload("example.org", &patience("2min"));
    let portcullis = &configured.portcullis;
    portcullis.log_with("does not answer its probe");
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    let offer = client.ask("EHLO client.test", "250");
    assert!(offer.contains("8BITMIME"), "{offer}");
    assert_eq!(portcullis.ready().0, 503, "it is down all the same");
}

#[test]
fn a_backend_that_cannot_be_told_of_clients_as_the_new_settings_have_it_is_told_of() {
    let by = |text| format!("client_info = \"{text}\"\nbackend_probe_interval = \"1h\"");
    let configured = Configured::start("example.org", &by("received"));
    configured.portcullis.wait_for_keywords();
    configured.reload("example.org", &by("xclient"));
    let portcullis = &configured.portcullis;
    portcullis.log_with("offers no XCLIENT ADDR, which CLIENT_INFO demands");
    assert_eq!(portcullis.ready().0, 503);
}

/// Its path stays, what it holds does not.
#[test]
fn a_backends_certificate_that_is_renewed_is_believed_after_a_reload() {
    let authority = Authority::new("the backend's");
    let certificate = authority.sign("backend.portcullis.test");
    let postfix = Postfix::start(Options {
        certificate: Some(&certificate),
        ..Options::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let pinned = folder.path().join("backend.pem");
    fs::copy(Authority::new("the one before").file(), &pinned).unwrap();
    let portcullis = Portcullis::guarding(
        postfix.address,
        &[
            ("BACKEND_TLS", "verify"),
            ("BACKEND_TLS_CA", pinned.to_str().unwrap()),
            ("BACKEND_TLS_NAME", "backend.portcullis.test"),
        ],
    );
    let mail = |expected| {
        Smtp::greeted(portcullis.mx).ask("MAIL FROM:<ann@sender.test>", expected);
    };
    mail("451");

    // What cannot be believed at all changes nothing.
    fs::write(&pinned, "no certificate").unwrap();
    portcullis.hang_up();
    portcullis.log_with("the old ones stay in force");
    assert_eq!(portcullis.metric(CONFIG_WELL), 0.0);

    fs::copy(&certificate.chain, &pinned).unwrap();
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    mail("250");
    assert_eq!(portcullis.ready().0, 200);
}

/// Alerts look at them: what is not asked is not down.
#[test]
fn metrics_tell_only_of_those_that_are_asked_by_the_settings_in_force() {
    let (backend, other) = (Scripted::start(&[]), Scripted::start(&[]));
    let [smtp, other_smtp] = [&backend, &other].map(|one| format!("smtp://{}", one.address));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let nobody = free_address().to_string();
    let rspamd = format!("http://{nobody}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    let write = |backend: &str, clamav: &str, rspamd: &str, listen: &str| {
        let text = format!(
            "backend = \"{backend}\"\nclamav = \"{clamav}\"\nrspamd = \"{rspamd}\"\n\
             listen_submission = \"{listen}\""
        );
        fs::write(&file, text).unwrap();
    };
    write(&smtp, &nobody, "off", "off");
    let portcullis = Portcullis::start(&[
        ("DOMAINS", "example.org"),
        ("CONFIG", file.to_str().unwrap()),
    ]);
    let families = ["backend_up", "scans", "scan_seconds", "scanner_up"];
    let told = || {
        let metrics = portcullis.metrics();
        [&smtp, &other_smtp, "clamav", "rspamd"].map(|name| {
            let is_told = |family: &&&str| {
                let (start, label) = (format!("portcullis_{family}"), format!("=\"{name}\""));
                let mut lines = metrics.lines();
                lines.any(|line| line.starts_with(&start) && line.contains(&label))
            };
            families.iter().filter(is_told).count()
        })
    };
    assert_eq!(told(), [1, 0, 3, 0]);

    // A reload that fails asks nobody in the end.
    write(&other_smtp, "off", &rspamd, &taken);
    portcullis.hang_up();
    portcullis.log_with(&format!("cannot listen on {taken}"));
    assert_eq!(told(), [1, 0, 3, 0]);
    write(&smtp, "off", "off", "off");
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    assert_eq!(told(), [1, 0, 0, 0]);
    write(&other_smtp, "off", &rspamd, "off");
    portcullis.hang_up();
    let follows = || (told() == [0, 1, 0, 3]).then_some(());
    assert!(wait_for(PATIENCE, follows).is_some(), "{:?}", told());
}

/// What a client at that address hears first; `reset` if that is what it is.
fn greeting(source: Ipv4Addr, server: SocketAddr) -> String {
    match first_octets(source, server) {
        Ok(octets) => String::from_utf8(octets).unwrap(),
        Err(ErrorKind::ConnectionReset) => "reset".to_owned(),
        Err(other) => panic!("{source} hears nothing: {other}"),
    }
}

#[test]
fn a_ban_and_what_was_counted_survive_a_reload() {
    let lines = "conn_rate = \"2/h\"\nflood_rate = \"1/h\"\nlimit_exempt = \"127.0.0.1\"\n";
    let configured = Configured::start("example.org", lines);
    let portcullis = &configured.portcullis;
    let (banned, limited) = (Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::new(127, 0, 0, 8));
    let hears = |source| greeting(source, portcullis.mx);
    for expected in ["220", "220", "421", "421"] {
        assert!(hears(banned).starts_with(expected));
    }
    portcullis.log_with("banned");
    assert_eq!(hears(banned), "reset");
    assert!(hears(limited).starts_with("220"));
    assert!(hears(limited).starts_with("220"));

    configured.reload("example.org", &format!("{lines}msg_rate = \"7/h\"\n"));
    assert_eq!(hears(banned), "reset");
    assert!(hears(limited).starts_with("421"));
    // Another rate begins anew; the ban stays.
    configured.reload("example.org", &lines.replace("2/h", "3/h"));
    assert!(hears(limited).starts_with("220"));
    assert_eq!(hears(banned), "reset");
}

#[test]
fn settings_that_need_a_restart_are_named() {
    let configured = Configured::start("example.org", "");
    configured.reload("example.org", "sessions_max = 7\nlimit_memory = \"32M\"");
    let log = configured.portcullis.log_with("need a restart");
    assert!(
        log.contains("SESSIONS_MAX") && log.contains("LIMIT_MEMORY"),
        "{log}"
    );
}
