//! The status page as an admin meets it, in a real browser; and as those meet it
//! who would like to write on it, read it from another page, or lift their own ban.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use support::{Browser, Portcullis, Redis, Scripted, Smtp};
use support::{http, is_banned, letter, run, wait_for, with_redis_in_time};

/// Where the admin sits, who is under no limit.
const EXEMPT: (&str, &str) = ("LIMIT_EXEMPT", "127.0.0.1");

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 7, 7, 7);

const TOKEN: &str = "jWq3-correct-horse";

/// WebDriver's code of the tabulator key, and the space bar.
const TAB: char = '\u{E004}';
const SPACE: char = ' ';

fn url(portcullis: &Portcullis) -> String {
    format!("http://{}/", portcullis.admin)
}

fn status(portcullis: &Portcullis) -> Value {
    let (status, text) = http::get(portcullis.admin, "/status.json");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect(&text)
}

/// A client that tries to relay, and is told that it must not.
fn relay(portcullis: &Portcullis, from: Ipv4Addr, hello: &str) -> Smtp {
    let mut client = Smtp::connect_from(from, portcullis.mx);
    client.expect("220");
    client.ask(&format!("EHLO {hello}"), "250");
    client.ask("MAIL FROM:<mallory@sender.test>", "250");
    client.ask("RCPT TO:<victim@elsewhere.test>", "550");
    client
}

/// Asks with curl; the status and the text of the answer.
fn curl(arguments: &[&str]) -> (u16, String) {
    let mut all = vec![
        "--silent",
        "--max-time",
        "10",
        "--write-out",
        "\n%{http_code}",
    ];
    all.extend(arguments);
    let finished = run("curl", &all, b"", Duration::from_secs(15)).assert_success();
    let (text, status) = finished.stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), text.to_owned())
}

fn lift(portcullis: &Portcullis, authorization: &str, network: &str) -> (u16, String) {
    let url = format!("http://{}/bans/lift", portcullis.admin);
    curl(&["--header", authorization, "--data", network, &url])
}

/// Has the attacker banned for connecting too often.
fn get_banned(portcullis: &Portcullis) {
    let banned = wait_for(Duration::from_secs(20), || {
        is_banned(ATTACKER, portcullis.mx).then_some(())
    });
    assert!(banned.is_some(), "{}", portcullis.log());
}

const QUICK_BANS: [(&str, &str); 3] = [EXEMPT, ("CONN_RATE", "1/h burst 1"), ("FLOOD_RATE", "2/h")];

#[test]
fn shows_what_passes_what_was_refused_and_who_is_there() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[EXEMPT]);
    let browser = Browser::start();
    browser.screen(1440, 1000, "light");
    browser.open(&url(&portcullis));
    browser.wait("document.getElementById('events').innerText.includes('Nothing has been')");

    let mut client = Smtp::greeted(portcullis.mx);
    let message = letter("page");
    let reply = client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let mut attacker = relay(&portcullis, ATTACKER, "attacker.test");
    attacker.ask("RCPT TO:<other@elsewhere.test>", "550");

    // The page learns of it by itself.
    browser.wait("document.getElementById('events').innerText.includes('2 times')");
    let events = browser.text("events");
    for shown in [
        "relay-denied at RCPT",
        "127.7.7.7",
        "attacker.test",
        "from mallory@sender.test to other@elsewhere.test",
        "550 5.7.1 Relaying denied [",
    ] {
        assert!(events.contains(shown), "{shown} is not in\n{events}");
    }
    assert_eq!(browser.text("sessions"), "2");
    assert_eq!(browser.text("delivered"), "1");
    assert_eq!(browser.text("refused"), "2");
    for (part, shown) in [
        ("hostname", "mx.portcullis.test"),
        ("about", "version 0.1.0, up "),
        ("services", &format!("smtp://{}", backend.address)),
        ("certificates", "self-signed"),
        ("problems", "self-signed"),
        ("busiest", "127.7.7.7\n1"),
        ("reasons", "relay-denied\n2"),
        ("bans", "Nobody"),
        ("limits", "CONN_RATE\n60/min burst 20"),
        ("limits", "BAN_TIME\n1h"),
    ] {
        let text = browser.text(part);
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    assert_eq!(
        browser.run("return document.getElementById('monitor').hidden"),
        true
    );

    // Nobody else was asked for anything, and nothing was forbidden or failed.
    let requests = browser.requests();
    assert!(requests.len() > 4, "{requests:?}");
    let elsewhere: Vec<_> = requests
        .iter()
        .filter(|request| request.starts_with("http") && !request.starts_with(&url(&portcullis)))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(browser.complaints(), serde_json::json!([]));

    drop(portcullis);
    browser.wait("document.getElementById('state').innerText.startsWith('No answer since')");
}

#[test]
fn what_clients_say_stays_text() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[EXEMPT]);
    let evil = "<img/src=x/onerror=alert(1)>";
    let mut client = Smtp::connect_from(ATTACKER, portcullis.mx);
    client.expect("220");
    client.ask("EHLO [IPv6:dead::beef]", "250");
    client.ask(&format!("MAIL FROM:<\"{evil}\"@sender.test>"), "250");
    client.ask(
        &format!("RCPT TO:<\"{evil}<script>alert(2)</script>\"@elsewhere.test>"),
        "550",
    );
    client.ask("</script><script>alert(3)</script>", "500");

    let browser = Browser::start();
    browser.open(&url(&portcullis));
    browser.wait("document.getElementById('events').innerText.includes('relay-denied')");
    let events = browser.text("events");
    assert!(
        events.contains(evil) && events.contains("<script>alert(2)"),
        "{events}"
    );
    let strange = "return document.querySelectorAll('img, iframe, script:not([src])').length";
    assert_eq!(browser.run(strange), 0);
}

#[test]
fn fits_a_phone_and_follows_the_colours_of_the_system() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[EXEMPT]);
    let long = format!("{}.test", "a.very-long-name".repeat(14));
    let _attacker = relay(&portcullis, ATTACKER, &long);
    let browser = Browser::start();
    browser.open(&url(&portcullis));
    for (width, colours) in [
        (320, "light"),
        (320, "dark"),
        (768, "dark"),
        (1920, "light"),
    ] {
        browser.screen(width, 900, colours);
        browser.wait("document.getElementById('events').innerText.includes('relay-denied')");
        let overhang = "return document.documentElement.scrollWidth > innerWidth";
        assert_eq!(browser.run(overhang), false, "{width}");
        // The mean of the three colours of text must differ from that of what is behind.
        let contrast = browser.run(
            "const mean = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3; \
             const style = getComputedStyle(document.body); \
             return mean(style.color) - mean(style.backgroundColor)",
        );
        let contrast = contrast.as_f64().unwrap();
        let is_dark = contrast > 150.0;
        let is_light = contrast < -150.0;
        assert!(
            if colours == "dark" { is_dark } else { is_light },
            "{colours}: {contrast}"
        );
    }
}

#[test]
fn can_be_used_without_a_mouse() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[EXEMPT]);
    let browser = Browser::start();
    browser.open(&url(&portcullis));
    browser.wait("document.getElementById('services').innerText.includes('up')");
    let focused = || browser.run("return document.activeElement.id");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    browser.press(TAB);
    assert_eq!(focused(), "pause");
    assert_eq!(browser.run(outline), "solid");
    browser.press(SPACE);
    assert_eq!(browser.text("state"), "Paused");
    let _attacker = relay(&portcullis, ATTACKER, "attacker.test");
    std::thread::sleep(Duration::from_secs(5));
    assert!(!browser.text("events").contains("relay-denied"));
    browser.press(SPACE);
    browser.wait("document.getElementById('events').innerText.includes('relay-denied')");
    browser.press(TAB);
    assert_eq!(focused(), "events");
    assert_eq!(browser.run(outline), "solid");
}

#[test]
fn monitor_mode_is_loud() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(
        backend.address,
        &[EXEMPT, ("MODE", "monitor"), ("MSG_RATE", "1/h burst 1")],
    );
    let mut client = Smtp::connect_from(ATTACKER, portcullis.mx);
    client.expect("220");
    client.ask("EHLO attacker.test", "250");
    client.ask("MAIL FROM:<mallory@sender.test>", "250");
    client.ask("RSET", "250");
    client.ask("MAIL FROM:<mallory@sender.test>", "250");
    let browser = Browser::start();
    browser.open(&url(&portcullis));
    browser.wait("document.getElementById('events').innerText.includes('let pass: msg-rate')");
    assert!(browser.text("monitor").contains("MONITOR MODE"));
}

#[test]
fn addresses_are_shown_as_the_log_shows_them() {
    let backend = Scripted::start(&[]);
    let mut settings = QUICK_BANS.to_vec();
    settings.push(("LOG_ADDRESSES", "masked"));
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let _attacker = relay(&portcullis, ATTACKER, "attacker.test");
    get_banned(&portcullis);
    let status = status(&portcullis);
    let text = status.to_string();
    assert!(
        !text.contains("127.7.7.7") && !text.contains("victim"),
        "{status:#}"
    );
    assert_eq!(
        status["bans"]["listed"][0]["network"], "127.7.7.0/24",
        "{status:#}"
    );
    assert_eq!(
        status["busiest"][0]["network"], "127.7.7.0/24",
        "{status:#}"
    );
    assert!(text.contains("v***@elsewhere.test"), "{status:#}");
}

#[test]
fn a_flood_of_refusals_counts_on_one_line() {
    let backend = Scripted::start(&[]);
    let settings = [EXEMPT, ("CONN_RATE", "1/h burst 1"), ("FLOOD_RATE", "off")];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..300 {
        let mut client = Smtp::connect_from(ATTACKER, portcullis.mx);
        client.reply_or_end();
    }
    // The last may have been told before it was counted.
    let counted = |status: &Value| status["events"][0]["times"] == 299;
    let seen = wait_for(Duration::from_secs(20), || {
        Some(status(&portcullis)).filter(counted)
    });
    let status = seen.unwrap_or_else(|| status(&portcullis));
    let events = status["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{status:#}");
    assert_eq!(events[0]["times"], 299, "{status:#}");
    assert_eq!(events[0]["reason"], "conn-rate", "{status:#}");
}

#[test]
fn pages_of_others_get_nothing() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("ADMIN_TOKEN", TOKEN)]);
    let authority = portcullis.admin.to_string();
    let url = format!("http://{authority}/status.json");
    let port = portcullis.admin.port();
    for host in [
        format!("evil.test:{port}"),
        format!("127.0.0.1.evil.test:{port}"),
    ] {
        let (status, text) = curl(&["--header", &format!("Host: {host}"), &url]);
        assert_eq!(status, 421, "{text}");
        assert!(!text.contains("events"), "{text}");
    }
    let (status, text) = curl(&["--header", "Origin: http://evil.test", &url]);
    assert_eq!(status, 421, "{text}");
    for host in ["localhost", "MX.Portcullis.test:9090", "[::1]:9090"] {
        let (status, text) = curl(&["--header", &format!("Host: {host}"), &url]);
        assert_eq!(status, 200, "{host}: {text}");
    }
    // Scrapers go by whatever name they have been given.
    let metrics = format!("http://{authority}/metrics");
    assert_eq!(curl(&["--header", "Host: portcullis-1", &metrics]).0, 200);
    let head = curl(&["--head", &format!("http://{authority}/")]).1;
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-security-policy: default-src 'none';"),
        "{head}"
    );
    assert!(!head.contains("access-control-"), "{head}");

    let browser = Browser::start();
    browser.open(&format!("http://evil.test:{port}/"));
    let shown = browser.run("return document.body.innerText").to_string();
    assert!(shown.contains("ask by IP address"), "{shown}");
}

#[test]
fn a_ban_is_shown_and_lifted_by_the_bearer_of_the_token_only() {
    let backend = Scripted::start(&[]);
    let mut settings = QUICK_BANS.to_vec();
    settings.push(("ADMIN_TOKEN", TOKEN));
    let portcullis = Portcullis::guarding(backend.address, &settings);
    get_banned(&portcullis);
    let bans = &status(&portcullis)["bans"];
    assert_eq!(bans["count"], 1, "{bans:#}");
    assert_eq!(bans["listed"][0]["network"], "127.7.7.7", "{bans:#}");
    assert_eq!(bans["listed"][0]["reason"], "flood", "{bans:#}");

    let bearer = format!("Authorization: Bearer {TOKEN}");
    for wrong in ["Authorization: Bearer jWq3-correct-horsf", "X-None: none"] {
        assert_eq!(lift(&portcullis, wrong, "127.7.7.7").0, 401);
    }
    let admin = format!("http://{}/bans/lift", portcullis.admin);
    assert_eq!(curl(&["--header", &bearer, &admin]).0, 405);
    let evil = ["--header", &bearer, "--header", "Origin: http://evil.test"];
    assert_eq!(
        curl(&[&evil[..], &["--data", "127.7.7.7", &admin]].concat()).0,
        421
    );
    let huge = "1".repeat(100_000);
    for nonsense in ["", "everybody", "127.7.7.7/8", &huge] {
        assert_eq!(lift(&portcullis, &bearer, nonsense).0, 400, "{nonsense}");
    }
    assert_eq!(lift(&portcullis, &bearer, "127.8.8.8").0, 404);
    assert!(is_banned(ATTACKER, portcullis.mx));

    let (code, text) = lift(&portcullis, &bearer, "127.7.7.7");
    assert_eq!(
        (code, text.as_str()),
        (200, "127.7.7.7/32 is no longer banned\n")
    );
    assert_eq!(status(&portcullis)["bans"]["count"], 0);
    // Still above its rate, which it is told again.
    let mut client = Smtp::connect_from(ATTACKER, portcullis.mx);
    client.expect("421");
    let log = portcullis.log_with("is no longer banned");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn without_a_token_there_is_nothing_to_lift_bans_with() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    for authorization in ["Authorization: Bearer ", "Authorization: Bearer x"] {
        let (status, text) = lift(&portcullis, authorization, "127.7.7.7");
        assert_eq!((status, text.as_str()), (404, "not found\n"));
    }
}

#[test]
fn a_ban_that_redis_knows_is_lifted_there_too() {
    let backend = Scripted::start(&[]);
    let start = |redis: &Redis| {
        let url = redis.url();
        let mut settings = QUICK_BANS.to_vec();
        settings.extend([("ADMIN_TOKEN", TOKEN), ("REDIS", url.as_str())]);
        let portcullis = Portcullis::guarding(backend.address, &settings);
        portcullis.log_with("limits are shared through Redis");
        [portcullis]
    };
    with_redis_in_time(start, |redis, [portcullis]| {
        get_banned(portcullis);
        let about_bans = || {
            let keys = redis.keys().into_iter().map(|(key, _)| key);
            let is_about = |key: &String| key.contains(":ban:") || key.contains(":strikes:");
            keys.filter(is_about).count()
        };
        let told = wait_for(Duration::from_secs(5), || (about_bans() == 2).then_some(()));
        assert!(told.is_some(), "{:?}", redis.keys());
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let (code, text) = lift(portcullis, &bearer, "127.7.7.7");
        assert_eq!(code, 200, "{text}");
        assert_eq!(about_bans(), 0, "{:?}", redis.keys());
    });
}
