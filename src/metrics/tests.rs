//! What the metrics look like from outside.

use std::time::Duration;

use super::*;

fn lines_of<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.starts_with(start))
        .collect()
}

#[test]
fn every_combination_of_closed_labels_exists_from_the_start() {
    let text = Metrics::new().openmetrics();
    let connections = lines_of(&text, "portcullis_connections_total{");
    assert_eq!(
        connections.len(),
        Listener::ALL.len() * Admission::ALL.len(),
        "{connections:#?}"
    );
    let busy = r#"portcullis_connections_total{listener="submission",result="busy"} 0"#;
    assert!(connections.contains(&busy), "{connections:#?}");
}

#[test]
fn each_child_counts_for_itself() {
    let metrics = Metrics::new();
    for listener in Listener::ALL {
        for (times, admission) in Admission::ALL.iter().enumerate() {
            let child = metrics.connections.of((*listener, *admission));
            child.inc_by(times as u64);
        }
    }
    let text = metrics.openmetrics();
    for listener in Listener::ALL {
        for (times, admission) in Admission::ALL.iter().enumerate() {
            let line = format!(
                "portcullis_connections_total{{listener=\"{listener}\",result=\"{admission}\"}} {times}"
            );
            assert!(text.lines().any(|other| other == line), "{line}");
        }
    }
}

#[test]
fn names_appear_with_their_first_use_and_only_once() {
    let metrics = Metrics::new();
    assert!(lines_of(&metrics.openmetrics(), "portcullis_refusals_total").is_empty());
    for _ in 0..3 {
        metrics.refused("RCPT", "relay-denied", Mode::Enforced);
        metrics.refused("RCPT", "relay-denied", Mode::Would);
    }
    assert_eq!(
        lines_of(&metrics.openmetrics(), "portcullis_refusals_total"),
        [
            r#"portcullis_refusals_total{stage="RCPT",reason="relay-denied",mode="enforced"} 3"#,
            r#"portcullis_refusals_total{stage="RCPT",reason="relay-denied",mode="would"} 3"#,
        ]
    );
}

#[test]
fn names_used_by_many_threads_at_once_are_all_counted() {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let names: Names<2, Counter> = Names::new(["x", "y"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..6400 {
                    names.of([NAMES[round % 8], NAMES[round / 8 % 8]]).inc();
                }
            });
        }
    });
    for x in NAMES {
        for y in NAMES {
            assert_eq!(names.of([x, y]).get(), 400, "{x} {y}");
        }
    }
}

#[test]
fn more_names_than_there_are_places_share_one_child() {
    let names: Names<1, Counter> = Names::new(["name"]);
    for number in 0..2000 {
        names.of([String::leak(number.to_string())]).inc();
    }
    let mut registry = Registry::default();
    registry.register("names", "Names", names);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert_eq!(lines_of(&text, "names_total{").len(), 1025);
    assert!(text.contains("names_total{name=\"other\"} 976\n"), "{text}");
}

#[test]
fn a_configured_name_cannot_break_the_text() {
    let metrics = Metrics::new();
    let up = metrics.backend_up.named("unix:/odd \"path\"\\\n");
    up.of(()).set(1);
    let line = r#"portcullis_backend_up{backend="unix:/odd \"path\"\\\n"} 1"#;
    let text = metrics.openmetrics();
    assert!(text.lines().any(|other| other == line), "{text}");
}

#[test]
fn a_configured_name_has_every_result() {
    let metrics = Metrics::new();
    let scans = metrics.scans.named("clamav");
    scans.of(ScanResult::Infected).inc();
    metrics.scans.named("clamav").of(ScanResult::Infected).inc();
    let text = metrics.openmetrics();
    let lines = lines_of(&text, r#"portcullis_scans_total{scanner="clamav""#);
    assert_eq!(lines.len(), ScanResult::ALL.len());
    let infected = r#"portcullis_scans_total{scanner="clamav",result="infected"} 2"#;
    assert!(lines.contains(&infected), "{lines:#?}");

    metrics.scans.keep(|_| false);
    assert!(lines_of(&metrics.openmetrics(), "portcullis_scans_total").is_empty());
}

#[test]
fn a_duration_falls_into_the_first_bucket_that_holds_it() {
    let metrics = Metrics::new();
    for milliseconds in [0, 1, 2, 250, 251, 601_000] {
        let took = Duration::from_millis(milliseconds);
        metrics.data_seconds.observe(took);
    }
    let text = metrics.openmetrics();
    for (bound, count) in [
        ("0.001", 2),
        ("0.005", 3),
        ("0.1", 3),
        ("0.25", 4),
        ("0.5", 5),
        ("600.0", 5),
        ("+Inf", 6),
    ] {
        let line = format!("portcullis_data_seconds_bucket{{le=\"{bound}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    assert!(text.contains("portcullis_data_seconds_count 6\n"));
    assert!(text.contains("portcullis_data_seconds_sum 601.504\n"));
}

#[test]
fn a_session_is_counted_as_long_as_it_lasts() {
    let metrics = Metrics::new();
    let sessions = metrics.sessions.of(Listener::Tls);
    let presence = metrics.enter(Listener::Tls);
    assert_eq!(sessions.get(), 1);
    drop(presence);
    assert_eq!(sessions.get(), 0);
}

#[test]
fn a_handshake_that_nobody_waits_for_is_abandoned() {
    let metrics = Metrics::new();
    drop(metrics.handshake(Side::Client));
    metrics.handshake(Side::Client).failed();
    metrics
        .handshake(Side::Backend)
        .succeeded(TlsVersion::Tls13);
    let handshakes = &metrics.tls_handshakes;
    for end in [
        (Side::Client, TlsVersion::None, Attempt::Abandoned),
        (Side::Client, TlsVersion::None, Attempt::Failed),
        (Side::Backend, TlsVersion::Tls13, Attempt::Succeeded),
    ] {
        assert_eq!(handshakes.of(end).get(), 1, "{end:?}");
    }
}

#[test]
fn gauges_are_refreshed_before_they_are_read() {
    let metrics = Metrics::new();
    metrics.on_scrape(|metrics| {
        metrics.bans_active.inc();
    });
    assert!(metrics.openmetrics().contains("portcullis_bans_active 1\n"));
    assert!(metrics.openmetrics().contains("portcullis_bans_active 2\n"));
}

#[test]
fn a_failed_reload_shows_until_one_succeeds() {
    let metrics = Metrics::new();
    let well = metrics.reload_successful.of(Reload::Certificates);
    assert_eq!(well.get(), 1);
    metrics.reloaded(Reload::Certificates, Attempt::Failed);
    assert_eq!(well.get(), 0);
    metrics.reloaded(Reload::Certificates, Attempt::Succeeded);
    assert_eq!(well.get(), 1);
}

#[test]
fn the_older_format_names_counters_and_infos_with_their_suffix() {
    let text = Metrics::new().plain();
    for part in [
        "# HELP portcullis_message_bytes_total Octets of message bodies that clients sent.\n# TYPE portcullis_message_bytes_total counter\nportcullis_message_bytes_total 0\n",
        "# TYPE portcullis_build_info gauge\nportcullis_build_info{version=",
        "# TYPE portcullis_data_seconds histogram\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
}
