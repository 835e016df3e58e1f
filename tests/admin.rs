//! The admin server as those who watch meet it: probes of a container, curl,
//! Prometheus; and as those meet it who want to wear it down.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{
    Act, Authority, Certificate, Clamd, Finished, Options, Portcullis, Postfix, Prometheus, Redis,
    Scripted, Smtp, eicar, free_address, http, letter, redis_questions, run, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn curl(server: SocketAddr, path: &str, options: &[&str]) -> Finished {
    let url = format!("http://{server}{path}");
    let mut arguments = vec!["--silent", "--show-error", "--max-time", "5", "--include"];
    arguments.extend(options);
    arguments.push(&url);
    run("curl", &arguments, b"", PATIENCE)
}

/// What curl shows of an answer, in lower case, the header's names being such.
#[track_caller]
fn shown(server: SocketAddr, path: &str, options: &[&str]) -> String {
    let finished = curl(server, path, options).assert_success();
    finished.stdout.to_ascii_lowercase()
}

/// Waits until the readiness page has this status.
#[track_caller]
fn ready_with(portcullis: &Portcullis, status: u16) -> Value {
    let mut last = None;
    let found = wait_for(Duration::from_secs(20), || {
        let (found, body) = portcullis.ready();
        last = Some((found, body.clone()));
        (found == status).then_some(body)
    });
    found.unwrap_or_else(|| panic!("never {status}, but {last:#?}\n{}", portcullis.log()))
}

#[track_caller]
fn assert_only_unmet(body: &Value, unmet: &[(&str, &str)]) {
    assert_eq!(body["ready"], unmet.is_empty(), "{body:#}");
    let conditions = body["conditions"].as_object().unwrap();
    assert_eq!(conditions.len(), 4, "{body:#}");
    for (name, state) in conditions {
        let detail = state["detail"].as_str().unwrap();
        match unmet.iter().find(|(unmet, _)| unmet == name) {
            Some((_, why)) => {
                assert_eq!(state["met"], false, "{body:#}");
                assert!(detail.contains(why), "{body:#}");
            }
            None => assert_eq!(state["met"], true, "{body:#}"),
        }
    }
}

/// Waits until a series has this value, which comes a moment after the reply.
#[track_caller]
fn assert_metric(portcullis: &Portcullis, series: &str, value: f64) {
    let found = wait_for(PATIENCE, || {
        (portcullis.find_metric(series) == Some(value)).then_some(())
    });
    let text = portcullis.metrics();
    assert!(found.is_some(), "{series} is not {value} in\n{text}");
}

fn deliver(portcullis: &Portcullis, recipient: &str) {
    let mut client = Smtp::greeted(portcullis.mx);
    client.start_tls();
    client.ask("EHLO client.test", "250");
    let message = letter("metrics");
    let reply = client.deliver("ann@sender.test", recipient, message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
}

#[test]
fn tells_that_it_lives_and_serves_metrics_to_curl() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let alive = shown(portcullis.admin, "/livez", &[]);
    assert!(
        alive.starts_with("http/1.1 200") && alive.ends_with("alive\n"),
        "{alive}"
    );

    let scrape = shown(portcullis.admin, "/metrics", &[]);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(scrape.contains(kind), "{scrape}");
    assert!(scrape.ends_with("\n# eof\n"), "{scrape}");
    let options = ["--header", "Accept: text/plain;version=0.0.4"];
    let scrape = shown(portcullis.admin, "/metrics", &options);
    let kind = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(
        scrape.contains(kind) && !scrape.contains("# eof"),
        "{scrape}"
    );
}

#[test]
fn answers_head_without_a_body_and_refuses_other_paths_and_methods() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let admin = portcullis.admin;
    for path in ["/livez", "/readyz", "/metrics"] {
        let head = shown(admin, path, &["--head"]);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(
            head.contains("content-length: ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let refused = shown(admin, path, &["--request", method, "--data", "x"]);
            assert!(refused.starts_with("http/1.1 405"), "{refused}");
            assert!(refused.contains("allow: get, head\r\n"), "{refused}");
        }
    }
    for path in [
        "/index.html",
        "/metrics/",
        "/LIVEZ",
        "/../etc/passwd",
        "/livez%00",
    ] {
        let missing = shown(admin, path, &["--path-as-is"]);
        assert!(missing.starts_with("http/1.1 404"), "{path}: {missing}");
    }
    assert!(shown(admin, "/livez?why=not", &[]).starts_with("http/1.1 200"));
}

#[test]
fn counts_what_real_mail_does_and_promtool_finds_no_fault() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    let handshakes =
        r#"portcullis_tls_handshakes_total{side="client",version="1.3",result="succeeded"}"#;
    let accepted = r#"portcullis_connections_total{listener="mx",result="accepted"}"#;
    let before = portcullis.metric(accepted);

    deliver(&portcullis, "bob@example.org");
    deliver(&portcullis, "postmaster@example.org");
    let mut client = Smtp::greeted(portcullis.mx);
    assert_metric(&portcullis, r#"portcullis_sessions{listener="mx"}"#, 1.0);
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<victim@elsewhere.test>", "550 5.7.1");
    client.ask("NONSENSE", "500");
    client.ask("NOOP", "250");
    client.ask("QUIT", "221");
    Smtp::connect_tls(portcullis.tls).expect("220");
    // Plain text where TLS comes first.
    let mut plain = Smtp::connect(portcullis.tls);
    plain.say("EHLO client.test");
    plain.rest();

    for (series, value) in [
        (accepted, before + 3.0),
        (
            r#"portcullis_connections_total{listener="tls",result="accepted"}"#,
            1.0,
        ),
        (
            r#"portcullis_connections_total{listener="tls",result="failed-handshake"}"#,
            1.0,
        ),
        (r#"portcullis_sessions{listener="mx"}"#, 0.0),
        (r#"portcullis_sessions{listener="tls"}"#, 0.0),
        (
            r#"portcullis_session_seconds_count{listener="mx"}"#,
            before + 3.0,
        ),
        (handshakes, 3.0),
        (
            r#"portcullis_tls_handshakes_total{side="client",version="none",result="failed"}"#,
            1.0,
        ),
        (r#"portcullis_commands_total{verb="DATA",class="3xx"}"#, 2.0),
        (r#"portcullis_commands_total{verb="DATA",class="2xx"}"#, 2.0),
        (r#"portcullis_commands_total{verb="MAIL",class="2xx"}"#, 3.0),
        (r#"portcullis_commands_total{verb="RCPT",class="2xx"}"#, 2.0),
        (r#"portcullis_commands_total{verb="RCPT",class="5xx"}"#, 1.0),
        (
            r#"portcullis_commands_total{verb="STARTTLS",class="2xx"}"#,
            2.0,
        ),
        (r#"portcullis_commands_total{verb="line",class="5xx"}"#, 1.0),
        (r#"portcullis_commands_total{verb="NOOP",class="2xx"}"#, 1.0),
        (r#"portcullis_commands_total{verb="QUIT",class="2xx"}"#, 3.0),
        (
            r#"portcullis_refusals_total{stage="RCPT",reason="relay-denied",mode="enforced"}"#,
            1.0,
        ),
        (
            r#"portcullis_refusals_total{stage="line",reason="unknown-verb",mode="enforced"}"#,
            1.0,
        ),
        (r#"portcullis_messages_total{outcome="delivered"}"#, 2.0),
        (r#"portcullis_messages_total{outcome="refused"}"#, 0.0),
        (
            "portcullis_message_bytes_total",
            2.0 * letter("metrics").len() as f64,
        ),
        (
            r#"portcullis_message_seconds_count{outcome="delivered"}"#,
            2.0,
        ),
        ("portcullis_data_seconds_count", 2.0),
        (
            r#"portcullis_backend_connect_seconds_count{result="succeeded"}"#,
            3.0,
        ),
        ("portcullis_log_lines_dropped_total", 0.0),
    ] {
        assert_metric(&portcullis, series, value);
    }
    let up = format!(
        "portcullis_backend_up{{backend=\"smtp://{}\"}}",
        postfix.address
    );
    assert_metric(&portcullis, &up, 1.0);
    let ends = r#"portcullis_certificate_expiry_timestamp_seconds{certificate="self-signed"}"#;
    assert!(portcullis.metric(ends) > 1.7e9);

    let options = ["--header", "Accept: text/plain", "--no-include"];
    let scrape = curl(portcullis.admin, "/metrics", &options).assert_success();
    let checked = run(
        "promtool",
        &["check", "metrics"],
        scrape.stdout.as_bytes(),
        PATIENCE,
    );
    assert_eq!(checked.assert_success().output(), "", "{}", scrape.stdout);
}

#[test]
fn prometheus_scrapes_it_and_answers_queries() {
    let postfix = Postfix::start(Options::default());
    let portcullis = Portcullis::before(&postfix, &[]);
    deliver(&portcullis, "bob@example.org");
    let prometheus = Prometheus::scraping(portcullis.admin);
    prometheus.expect("up", "1");
    prometheus.expect(r#"portcullis_messages_total{outcome="delivered"}"#, "1");
    prometheus.expect(r#"portcullis_build_info{version="0.1.0"}"#, "1");
    prometheus.expect("portcullis_data_seconds_count", "1");
    prometheus.expect("sum(portcullis_backend_up)", "1");
    deliver(&portcullis, "bob@example.org");
    prometheus.expect(r#"portcullis_messages_total{outcome="delivered"}"#, "2");
    prometheus.expect(r#"portcullis_data_seconds_bucket{le="+Inf"}"#, "2");
}

#[test]
fn a_backend_that_goes_is_named_until_it_is_back() {
    let backend = Scripted::start(&[]);
    let address = backend.address;
    let portcullis = Portcullis::guarding(address, &[("BACKEND_PROBE_INTERVAL", "200ms")]);
    assert_only_unmet(&ready_with(&portcullis, 200), &[]);

    drop(backend);
    let gone = format!("smtp://{address} is down");
    assert_only_unmet(&ready_with(&portcullis, 503), &[("backend", &gone)]);
    let up = format!("portcullis_backend_up{{backend=\"smtp://{address}\"}}");
    assert_metric(&portcullis, &up, 0.0);

    let _back = wait_for(PATIENCE, || {
        std::panic::catch_unwind(|| Scripted::start_at(address, &[])).ok()
    });
    assert_only_unmet(&ready_with(&portcullis, 200), &[]);
    assert_metric(&portcullis, &up, 1.0);
}

/// Whoever keeps clients away meanwhile shall not have to wait for the interval.
#[test]
fn a_backend_that_a_client_finds_down_is_looked_at_soon() {
    let backend = Scripted::start(&[]);
    let address = backend.address;
    let portcullis = Portcullis::guarding(address, &[("BACKEND_PROBE_INTERVAL", "1h")]);
    ready_with(&portcullis, 200);
    drop(backend);
    let mut client = Smtp::greeted(portcullis.mx);
    client.ask("MAIL FROM:<ann@sender.test>", "451");
    assert_eq!(portcullis.ready().0, 503);
    let _back = wait_for(PATIENCE, || {
        std::panic::catch_unwind(|| Scripted::start_at(address, &[])).ok()
    });
    ready_with(&portcullis, 200);
}

#[test]
fn one_backend_of_two_is_enough() {
    let backend = Scripted::start(&[]);
    let nobody = free_address();
    let both = format!("{nobody}, {}", backend.address);
    let portcullis = Portcullis::guarding(backend.address, &[("BACKEND", &both)]);
    let ready = ready_with(&portcullis, 200);
    let detail = ready["conditions"]["backend"]["detail"].as_str().unwrap();
    assert!(
        detail.contains(&format!("smtp://{nobody} is down")),
        "{detail}"
    );
}

#[test]
fn a_backend_that_never_greets_is_told_before_it_has_failed() {
    let backend = Scripted::start(&[("greeting", &[Act::Silence])]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let unmet = [("backend", "has not greeted lately")];
    assert_only_unmet(&portcullis.ready().1, &unmet);
}

/// A server that greets every client, and after the first visit says no more.
fn dumbstruck() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut dumb = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"220 dumbstruck.test ESMTP\r\n").unwrap();
            if dumb.is_empty() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                for _ in lines.map_while(Result::ok) {
                    drop(stream.write_all(b"250 fine\r\n"));
                }
            }
            dumb.push(stream);
        }
    });
    address
}

#[test]
fn a_backend_that_hangs_in_its_probe_is_told_before_the_probe_gives_up() {
    let settings = [
        ("BACKEND_PROBE_INTERVAL", "1s"),
        ("TIMEOUT_BACKEND_CONNECT", "1s"),
    ];
    let portcullis = Portcullis::guarding(dumbstruck(), &settings);
    assert_only_unmet(&ready_with(&portcullis, 200), &[]);
    let unmet = [("backend", "has not greeted lately")];
    assert_only_unmet(&ready_with(&portcullis, 503), &unmet);
}

/// The program with this certificate, and the file that it is called by.
fn showing<'a>(certificate: &'a Certificate, backend: &Scripted) -> (Portcullis, &'a str) {
    let chain = certificate.chain.to_str().unwrap();
    let key = certificate.key.to_str().unwrap();
    let settings = [("TLS_CERT", chain), ("TLS_KEY", key)];
    (Portcullis::guarding(backend.address, &settings), chain)
}

#[test]
fn a_certificate_that_expires_while_running_is_told() {
    let backend = Scripted::start(&[]);
    let authority = Authority::new("Test CA");
    let soon = time::OffsetDateTime::now_utc() + time::Duration::seconds(5);
    let certificate = authority.sign_until("mx.portcullis.test", soon);
    let (portcullis, chain) = showing(&certificate, &backend);
    let series =
        format!("portcullis_certificate_expiry_timestamp_seconds{{certificate=\"{chain}\"}}");
    assert_eq!(portcullis.metric(&series), soon.unix_timestamp() as f64);
    let expired = format!("{chain} expired");
    assert_only_unmet(&ready_with(&portcullis, 503), &[("certificate", &expired)]);
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_told() {
    let backend = Scripted::start(&[]);
    let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::days(1);
    let authority = Authority::new("Test CA");
    let certificate = authority.sign_from("mx.portcullis.test", tomorrow);
    let (portcullis, chain) = showing(&certificate, &backend);
    let early = format!("{chain} is not valid before");
    assert_only_unmet(&ready_with(&portcullis, 503), &[("certificate", &early)]);
}

#[test]
fn goes_on_answering_while_it_drains() {
    let postfix = Postfix::start(Options::default());
    let mut portcullis = Portcullis::before(&postfix, &[]);
    let mut client = Smtp::greeted(portcullis.mx);
    client.open_data("ann@sender.test", "bob@example.org");

    portcullis.terminate();
    let draining = ready_with(&portcullis, 503);
    assert_only_unmet(
        &draining,
        &[("listeners", "closed"), ("not_draining", "stopping")],
    );
    assert_eq!(http::get(portcullis.admin, "/livez").0, 200);
    assert_metric(&portcullis, r#"portcullis_sessions{listener="mx"}"#, 1.0);

    client.send(letter("drain").as_bytes());
    client.send(b".\r\n");
    client.expect("250");
    assert_eq!(portcullis.ended(PATIENCE), Some(0));
}

#[test]
fn goes_on_answering_when_all_places_are_taken() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("SESSIONS_MAX", "5")]);
    let _holders: Vec<_> = (0..5).map(|_| Smtp::admitted(portcullis.mx)).collect();
    let busy = r#"portcullis_connections_total{listener="mx",result="busy"}"#;
    let before = portcullis.metric(busy);
    for _ in 0..3 {
        Smtp::connect(portcullis.mx).expect("421 4.7.0");
    }
    assert_metric(&portcullis, busy, before + 3.0);
    assert_metric(&portcullis, "portcullis_sessions_max", 5.0);
    assert_metric(&portcullis, "portcullis_places_taken", 5.0);
    assert_metric(&portcullis, r#"portcullis_sessions{listener="mx"}"#, 5.0);
    assert_only_unmet(&ready_with(&portcullis, 200), &[]);
}

/// One visit from there to its end. Who is banned is reset at any moment of it.
fn knock(source: Ipv4Addr, server: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    if socket.connect(&server.into()).is_ok() {
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"QUIT\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn limits_and_bans_are_counted_one_by_one() {
    let backend = Scripted::start(&[]);
    let settings = [
        ("LIMIT_EXEMPT", "127.0.0.1/32"),
        ("CONN_RATE", "1/h burst 2"),
        ("FLOOD_RATE", "1/h burst 3"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    for _ in 0..10 {
        knock(Ipv4Addr::new(127, 5, 5, 5), portcullis.mx);
    }
    let connections = |result| format!("portcullis_connections_total{{listener=\"mx\",{result}}}");
    let refusals = |labels| format!("portcullis_refusals_total{{stage=\"connect\",{labels}}}");
    for (series, value) in [
        (connections(r#"result="refused-limit""#), 4.0),
        (connections(r#"result="banned""#), 4.0),
        (refusals(r#"reason="conn-rate",mode="enforced""#), 4.0),
        (refusals(r#"reason="banned",mode="enforced""#), 4.0),
        (r#"portcullis_bans_total{reason="flood"}"#.to_owned(), 1.0),
        ("portcullis_bans_active".to_owned(), 1.0),
        ("portcullis_limiter_overflows_total".to_owned(), 0.0),
    ] {
        assert_metric(&portcullis, &series, value);
    }
    let entries = r#"portcullis_limiter_entries{table="buckets"}"#;
    assert!(portcullis.metric(entries) > 0.0, "{}", portcullis.metrics());
}

#[test]
fn redis_is_up_until_it_is_gone_and_every_question_is_counted() {
    let backend = Scripted::start(&[]);
    let mut redis = Redis::start();
    let url = redis.url();
    let settings = [("LIMIT_EXEMPT", "127.0.0.1/32"), ("REDIS", url.as_str())];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let up = format!("portcullis_redis_up{{server=\"{url}\"}}");
    assert_metric(&portcullis, &up, 1.0);
    // On a busy machine an answer may be late.
    let questions = |results: [&str; 2]| {
        let series = results.map(|result| redis_questions(&portcullis, result));
        series.iter().sum::<f64>()
    };
    let visit = || {
        Smtp::connect_from(Ipv4Addr::new(127, 5, 5, 5), portcullis.mx).expect("220");
    };
    visit();
    assert_eq!(questions(["answered", "late"]), 1.0);

    redis.daemon.kill();
    assert_metric(&portcullis, &up, 0.0);
    visit();
    assert_eq!(questions(["failed", "skipped"]), 1.0);
}

#[test]
fn what_scanners_say_and_whether_they_are_asked_is_counted() {
    let backend = Scripted::start(&[]);
    let mut clamd = Clamd::start("");
    let address = clamd.address.to_string();
    let portcullis = Portcullis::guarding(backend.address, &[("CLAMAV", &address)]);
    ready_with(&portcullis, 200);
    let mut client = Smtp::greeted(portcullis.mx);
    let mut reply_to =
        |message: &str| client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
    let infected = format!("{}{}\r\n", letter("malware"), eicar());
    assert!(reply_to(&infected).starts_with("554"));
    assert!(reply_to(&letter("clean")).starts_with("250"));
    let scans =
        |result| format!("portcullis_scans_total{{scanner=\"clamav\",result=\"{result}\"}}");
    let up = r#"portcullis_scanner_up{scanner="clamav"}"#;
    for (series, value) in [
        (scans("infected").as_str(), 1.0),
        (scans("clean").as_str(), 1.0),
        (r#"portcullis_scan_seconds_count{scanner="clamav"}"#, 2.0),
        (r#"portcullis_messages_total{outcome="refused"}"#, 1.0),
        (r#"portcullis_messages_total{outcome="delivered"}"#, 1.0),
        (r#"portcullis_commands_total{verb="DATA",class="3xx"}"#, 2.0),
        (r#"portcullis_commands_total{verb="DATA",class="5xx"}"#, 1.0),
        (up, 1.0),
    ] {
        assert_metric(&portcullis, series, value);
    }

    clamd.daemon.kill();
    // The breaker opens at the third failure.
    for _ in 0..4 {
        assert!(reply_to(&letter("unjudged")).starts_with("451"));
    }
    assert_metric(&portcullis, &scans("failed"), 4.0);
    assert_metric(&portcullis, up, 0.0);
}

#[test]
fn what_monitor_mode_lets_pass_is_counted_as_such() {
    let backend = Scripted::start(&[]);
    let settings = [
        ("MODE", "monitor"),
        ("MSG_RATE", "1/h burst 1"),
        ("LIMIT_EXEMPT", "127.0.0.1"),
    ];
    let portcullis = Portcullis::guarding(backend.address, &settings);
    let mut client = Smtp::connect_from(Ipv4Addr::new(127, 5, 5, 5), portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RSET", "250");
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    let refusals = |mode| {
        format!("portcullis_refusals_total{{stage=\"MAIL\",reason=\"msg-rate\",mode=\"{mode}\"}}")
    };
    assert_metric(&portcullis, &refusals("would"), 1.0);
    assert_eq!(portcullis.metric_or_zero(&refusals("enforced")), 0.0);
}

#[test]
fn survives_requests_that_are_none() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1_000));
    for garbage in [
        b"EHLO client.test\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, this is TLS\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /livez\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        // Closed, perhaps with a reset, or refused; never served.
        match http::exchange(portcullis.admin, garbage) {
            Ok(answer) => {
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains(" 200 "), "{answer}");
            }
            Err(error) => {
                let is_closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(is_closed.contains(&error.kind()), "{error}");
            }
        }
        assert_eq!(http::get(portcullis.admin, "/livez").0, 200);
    }
}

#[test]
fn a_hundred_slow_connections_do_not_stop_the_next_scrape() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[]);
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(portcullis.admin).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x")
                .unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        let began = Instant::now();
        portcullis.metrics();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
    // The oldest had to make room.
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let open = slow.iter().filter(is_open).count();
    assert!(open < 64, "{open} are open");
    assert!(!is_open(&&slow[0]) && is_open(&&slow[99]));
    // And none of them stays for ever.
    let deadline = Duration::from_secs(15);
    for stream in &slow {
        stream.set_read_timeout(Some(deadline)).unwrap();
        let read = (&mut &*stream).read_to_end(&mut Vec::new());
        let late = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!late, "still open after {deadline:?}");
    }
}

/// The names and labels of all series, without values.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut series: Vec<_> = lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, _)| name.to_owned())
        .collect();
    series.sort();
    series
}

/// A session of verbs, names and addresses that nobody has ever heard of.
fn hostile_session(portcullis: &Portcullis, word: &str) {
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    for line in [
        format!("EHLO {word}.test"),
        format!("X{word}"),
        format!("{word} FROM:<a@b>"),
        format!("VRFY {word}"),
        format!("MAIL FROM:<{word}@{word}.test>"),
        format!("RCPT TO:<{word}@{word}.example.net>"),
        format!("RCPT TO:<{word}@example.org> {word}=1"),
        format!("MAIL FROM:<\"{{{word}}}\"@b.test>"),
        format!("NOOP \"}} {word}"),
    ] {
        client.say(&line);
        client.reply();
    }
    client.say("QUIT");
    client.rest();
}

#[test]
fn nothing_that_a_client_says_becomes_a_label() {
    let backend = Scripted::start(&[]);
    let portcullis = Portcullis::guarding(backend.address, &[("LOG_LEVEL", "error")]);
    ready_with(&portcullis, 200);
    let quiet = r#"portcullis_sessions{listener="mx"}"#;
    hostile_session(&portcullis, "zwrkfirst");
    assert_metric(&portcullis, quiet, 0.0);
    let before = series(&portcullis.metrics());
    for number in 0..50 {
        hostile_session(&portcullis, &format!("zwrk{number}"));
    }
    assert_metric(&portcullis, quiet, 0.0);
    let text = portcullis.metrics();
    assert_eq!(series(&text), before);
    assert!(!text.contains("zwrk"), "{text}");
    println!("{} series, {} octets", before.len(), text.len());
}

#[test]
fn healthcheck_tells_by_its_exit_code_and_says_why() {
    let backend = Scripted::start(&[]);
    let address = backend.address.to_string();
    let port = free_address().port();
    let admin = format!("0.0.0.0:{port}");
    let asked = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let settings = [
        ("BACKEND", address.as_str()),
        ("DOMAINS", "example.org"),
        ("ADMIN", &admin),
        ("BACKEND_PROBE_INTERVAL", "200ms"),
    ];
    let nobody = Portcullis::healthcheck(&settings);
    assert_eq!(nobody.status.code(), Some(1), "{}", nobody.output());
    let complaint = format!("no answer from {asked}");
    assert!(nobody.stderr.contains(&complaint), "{}", nobody.output());

    let mut portcullis = Portcullis::start(&settings);
    portcullis.admin = asked.parse().unwrap();
    ready_with(&portcullis, 200);
    let ready = Portcullis::healthcheck(&settings);
    assert_eq!(ready.status.code(), Some(0), "{}", ready.output());
    assert_eq!(ready.stdout, "ready\n");
    // What the program was told by flags, this one need not be told.
    let ready = Portcullis::healthcheck(&[("ADMIN", &admin), ("SPAM_TAG", "no number")]);
    assert_eq!(ready.status.code(), Some(0), "{}", ready.output());

    drop(backend);
    ready_with(&portcullis, 503);
    let unready = Portcullis::healthcheck(&settings);
    assert_eq!(unready.status.code(), Some(1));
    let complaint = format!("portcullis: not ready\nbackend: smtp://{address} is down\n");
    assert_eq!(unready.stderr, complaint);

    let bad = Portcullis::healthcheck(&[("ADMIN", "here")]);
    assert_eq!(bad.status.code(), Some(78), "{}", bad.output());
    let off = Portcullis::healthcheck(&[
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("ADMIN", "off"),
    ]);
    assert_eq!(off.status.code(), Some(1));
    assert!(off.stderr.contains("ADMIN is off"), "{}", off.output());
}

/// Says the same to everybody who connects, then hangs up.
fn parrot(words: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(words);
        }
    });
    address
}

#[test]
fn healthcheck_does_not_wait_for_ever_and_believes_no_stranger() {
    // Connections stay in its backlog: nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
    for (admin, complaint) in [
        (silent.local_addr().unwrap(), "took longer than 3s"),
        (parrot(b"220 mail.test ESMTP\r\n"), "no answer from"),
        (parrot(page), "does not answer like Portcullis: 200 OK"),
        (parrot(endless), "no answer from"),
    ] {
        let admin = admin.to_string();
        let began = Instant::now();
        let finished = Portcullis::healthcheck(&[
            ("BACKEND", "127.0.0.1:1"),
            ("DOMAINS", "example.org"),
            ("ADMIN", &admin),
        ]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
        assert!(finished.stderr.contains(complaint), "{}", finished.output());
        assert!(began.elapsed() < Duration::from_secs(6));
    }
}

#[test]
fn an_admin_port_in_use_is_told_by_address_and_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (mx, tls, submission) = (free_address(), free_address(), free_address());
    let finished = Portcullis::run_to_end(&[
        ("BACKEND", "127.0.0.1:1"),
        ("DOMAINS", "example.org"),
        ("LISTEN", &mx.to_string()),
        ("LISTEN_TLS", &tls.to_string()),
        ("LISTEN_SUBMISSION", &submission.to_string()),
        ("ADMIN", &address),
    ]);
    assert_eq!(finished.status.code(), Some(77), "{}", finished.output());
    let complaint = format!("cannot listen on {address}");
    assert!(
        finished.output().contains(&complaint),
        "{}",
        finished.output()
    );
}
