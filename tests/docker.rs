//! What comes with the image: settings file, compose files, alerts, dashboard and
//! systemd unit, held against the program, promtool, Prometheus' own grammar and
//! systemd.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use portcullis::config::{self, SECTIONS};
use portcullis::settings::Spec;
use serde_json::{Value, json};
use support::{Finished, Options, Portcullis, Postfix, Redis, Smtp, between, letter, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

fn place(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "docker", name]
        .iter()
        .collect()
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(place(name)).unwrap()
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> Finished {
    support::run(program, arguments, b"", PATIENCE)
}

#[track_caller]
fn yaml(name: &str) -> Value {
    const TO_JSON: &str =
        "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let text = read(name);
    let json = support::run("python3", &["-c", TO_JSON], text.as_bytes(), PATIENCE);
    serde_json::from_str(&json.assert_success().stdout).unwrap()
}

/// Settings that the file itself may hold, section by section.
fn sections() -> impl Iterator<Item = (&'static str, Vec<&'static Spec>)> {
    let file = |spec: &&Spec| spec.key != "config";
    SECTIONS
        .iter()
        .map(move |section| (section.about, section.specs.iter().filter(file).collect()))
        .filter(|(_, specs): &(_, Vec<_>)| !specs.is_empty())
}

/// `docker/portcullis.toml` as it should be. A line that begins with `#` and no
/// blank is a setting at its default.
fn annotated() -> String {
    let mut text = String::from(
        "# Settings of Portcullis. PORTCULLIS_CONFIG names this file; a variable\n\
         # PORTCULLIS_<NAME> or a flag is stronger than what stands here.\n\
         #\n\
         # Lines like #this_one = \"5min\" show the default. Made from the program by\n\
         # UPDATE_DOCKER=1 cargo test --test docker\n",
    );
    for (about, specs) in sections() {
        let title = about.trim_end_matches('.');
        write!(text, "\n\n# ==== {title} ====\n").unwrap();
        for spec in specs {
            text.push('\n');
            for line in wrapped(spec.doc) {
                writeln!(text, "# {line}").unwrap();
            }
            describe(spec, &mut text);
        }
    }
    text
}

fn describe(spec: &Spec, text: &mut String) {
    let key = spec.key;
    let example = written(spec.example);
    match spec.default {
        None if spec.required => writeln!(text, "{key} = {example}").unwrap(),
        default => {
            if default != Some(spec.example) {
                writeln!(text, "# Example: {key} = {example}").unwrap();
            }
            if spec.secret {
                writeln!(text, "# Or in a file: {key}_file = \"/run/secrets/{key}\"").unwrap();
            }
            if let Some(default) = default {
                writeln!(text, "#{key} = {}", written(default)).unwrap();
            }
        }
    }
}

/// A value in TOML: numbers and booleans as such, all else as a string.
fn written(value: &str) -> String {
    match value {
        "true" | "false" => value.to_owned(),
        _ if value.parse::<i64>().is_ok() => value.to_owned(),
        _ => format!("{value:?}"),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 78;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

#[test]
fn the_annotated_file_explains_the_settings_that_exist() {
    if env::var_os("UPDATE_DOCKER").is_some() {
        fs::write(place("portcullis.toml"), annotated()).unwrap();
        return;
    }
    assert!(
        read("portcullis.toml") == annotated(),
        "docker/portcullis.toml is not made from this program; to update it run\n\
         UPDATE_DOCKER=1 cargo test --test docker"
    );
}

#[test]
fn what_the_annotated_file_shows_are_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let file = folder.path().join("portcullis.toml");
        fs::write(&file, text).unwrap();
        let flags = [
            ("config", file.to_str().unwrap()),
            ("domains", "example.org"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = config::load(flags, []);
        config.unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    };
    let as_shipped = annotated();
    let said = as_shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    let said: Vec<&str> = said.collect();
    let (silent, said) = (load(&as_shipped), load(&said.join("\n")));
    assert_eq!(format!("{said:?}"), format!("{silent:?}"));
}

const COMPOSE: [&str; 3] = [
    "compose.yaml",
    "compose.scanners.yaml",
    "compose.monitoring.yaml",
];

#[test]
fn the_compose_files_give_settings_that_the_program_takes() {
    let mut environment = Vec::new();
    for name in COMPOSE {
        let compose = yaml(name);
        let given = compose["services"]["portcullis"]["environment"].clone();
        for (variable, value) in given.as_object().unwrap() {
            assert!(variable.starts_with("PORTCULLIS_"), "{name}: {variable}");
            let value = value.as_str().unwrap_or_else(|| panic!("{name}: {value}"));
            environment.push((OsString::from(variable), OsString::from(value)));
        }
    }
    let config = config::load([], environment);
    assert!(config.is_ok(), "{}", config.unwrap_err());
}

#[test]
fn the_compose_files_name_files_volumes_and_networks_that_exist() {
    let mut base = yaml(COMPOSE[0]);
    for name in COMPOSE {
        let compose = yaml(name);
        for (service, said) in compose["services"].as_object().unwrap() {
            for volume in said["volumes"].as_array().into_iter().flatten() {
                let source = volume.as_str().unwrap().split(':').next().unwrap();
                let known = match source.strip_prefix('.') {
                    Some(_) => place(source).exists(),
                    None => compose["volumes"].get(source).is_some(),
                };
                assert!(known, "{name}: {service} mounts {source}");
            }
            for network in said["networks"].as_object().into_iter().flatten() {
                let known = compose["networks"].get(network.0).is_some();
                assert!(known, "{name}: {service} is in {network:?}");
            }
        }
    }
    // Only loopback is published: an example must not open a mail server to the world.
    for port in base["services"]["portcullis"]["ports"]
        .take()
        .as_array()
        .unwrap()
    {
        assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{port}");
    }
    let guard = &base["services"]["portcullis"];
    assert_eq!(guard["read_only"], true);
    assert_eq!(guard["cap_drop"], json!(["ALL"]));
    // Postfix believes the word of one address: it must be Portcullis'.
    let address = guard["networks"]["mail"]["ipv4_address"].as_str().unwrap();
    let built = base["services"]["postfix"]["build"]["dockerfile_inline"].as_str();
    let trusted = format!("'smtpd_authorized_xclient_hosts = {address}'");
    assert!(built.unwrap().contains(&trusted), "{trusted}");
}

/// The PromQL of every panel and every variable, Grafana's own words replaced.
fn dashboard() -> Vec<String> {
    let text = read("grafana/dashboards/portcullis.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
    let panels = targets.flatten().map(|target| target["expr"].as_str());
    panels
        .map(|query| query.unwrap().replace("$__rate_interval", "5m"))
        .collect()
}

fn alerts() -> Vec<String> {
    let rules = yaml("prometheus/alerts.yml");
    let rules = rules
        .pointer("/groups/0/rules")
        .unwrap()
        .as_array()
        .unwrap();
    let queries = rules.iter().map(|rule| rule["expr"].as_str().unwrap());
    queries.map(str::to_owned).collect()
}

#[test]
fn prometheus_takes_the_rules_the_configuration_and_every_panel() {
    for (check, file) in [
        ("rules", "prometheus/alerts.yml"),
        ("config", "prometheus/prometheus.yml"),
    ] {
        run("promtool", &["check", check, place(file).to_str().unwrap()]).assert_success();
    }
    assert_eq!(alerts().len(), 6);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panels.yml");
    let queries = dashboard().into_iter().enumerate();
    let rules: Vec<Value> = queries
        .map(|(number, query)| json!({"record": format!("panel:{number}"), "expr": query}))
        .collect();
    // JSON is YAML.
    let rules = json!({"groups": [{"name": "panels", "rules": rules}]});
    fs::write(&file, rules.to_string()).unwrap();
    run("promtool", &["check", "rules", file.to_str().unwrap()]).assert_success();
}

#[test]
fn the_alerts_come_when_they_should_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.yml");
    let series = |name: &str, values: &str| json!({"series": name, "values": values});
    let fires = |minutes: u32, alert: &str, labels: Value, annotations: Value| {
        json!({
            "eval_time": format!("{minutes}m"),
            "alertname": alert,
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
        })
    };
    let calm = |minutes: u32, alert: &str| json!({"eval_time": format!("{minutes}m"), "alertname": alert, "exp_alerts": []});
    let rules = yaml("prometheus/alerts.yml");
    let annotations = |place: usize, words: &[(&str, &str)]| {
        let mut said = rules["groups"][0]["rules"][place]["annotations"].to_string();
        for (name, word) in words {
            said = said.replace(&format!("{{{{ $labels.{name} }}}}"), word);
            said = said.replace(&format!("{{{{ ${name} }}}}"), word);
        }
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let test = json!({
        "rule_files": [place("prometheus/alerts.yml").to_str().unwrap()],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series(r#"up{job="portcullis", instance="a"}"#, "1 1 1 0x20"),
                series(r#"portcullis_backend_up{instance="a", backend="smtp://b:25"}"#, "1 0x20"),
                series(r#"portcullis_scanner_up{instance="a", scanner="rspamd"}"#, "1 0x20"),
                series(r#"portcullis_redis_up{instance="a", server="r:6379"}"#, "1x20"),
                series(r#"portcullis_places_taken{instance="a"}"#, "20 90x20"),
                series(r#"portcullis_sessions_max{instance="a"}"#, "100x21"),
                series(
                    r#"portcullis_certificate_expiry_timestamp_seconds{instance="a", certificate="far"}"#,
                    "2000000000x90",
                ),
            ],
            "alert_rule_test": [
                calm(4, "PortcullisDown"),
                fires(6, "PortcullisDown",
                    json!({"job": "portcullis", "instance": "a", "severity": "critical"}),
                    annotations(0, &[("instance", "a")])),
                calm(5, "PortcullisBackendDown"),
                fires(6, "PortcullisBackendDown",
                    json!({"instance": "a", "severity": "critical"}),
                    annotations(1, &[("instance", "a")])),
                calm(6, "PortcullisOneBackendDown"),
                fires(6, "PortcullisServiceDown",
                    json!({"scanner": "rspamd", "instance": "a", "severity": "warning"}),
                    annotations(3, &[("instance", "a"), ("scanner", "rspamd"), ("server", "")])),
                calm(80, "PortcullisCertificateExpires"),
                calm(5, "PortcullisFull"),
                fires(6, "PortcullisFull",
                    json!({"instance": "a", "severity": "warning"}),
                    annotations(5, &[("instance", "a"), ("value", "90")])),
            ],
        }, {
            "interval": "1m",
            "input_series": [
                series(r#"portcullis_backend_up{instance="a", backend="smtp://b:25"}"#, "1 0x20"),
                series(r#"portcullis_backend_up{instance="a", backend="smtp://c:25"}"#, "1x11 0x9"),
                series(r#"portcullis_backend_up{instance="b", backend="smtp://b:25"}"#, "1x21"),
            ],
            "alert_rule_test": [
                // One server that can be used is enough.
                calm(5, "PortcullisOneBackendDown"),
                fires(6, "PortcullisOneBackendDown",
                    json!({"backend": "smtp://b:25", "instance": "a", "severity": "warning"}),
                    annotations(2, &[("instance", "a"), ("backend", "smtp://b:25")])),
                calm(16, "PortcullisBackendDown"),
                fires(17, "PortcullisBackendDown",
                    json!({"instance": "a", "severity": "critical"}),
                    annotations(1, &[("instance", "a")])),
                calm(17, "PortcullisOneBackendDown"),
            ],
        }, {
            "interval": "1m",
            "input_series": [series(
                r#"portcullis_certificate_expiry_timestamp_seconds{instance="a", certificate="near"}"#,
                "1000000x90",
            )],
            "alert_rule_test": [
                calm(59, "PortcullisCertificateExpires"),
                fires(60, "PortcullisCertificateExpires",
                    json!({"certificate": "near", "instance": "a", "severity": "warning"}),
                    annotations(4, &[
                        ("certificate", "near"),
                        ("value | humanizeDuration", "11d 12h 46m 40s"),
                    ])),
            ],
        }],
    });
    fs::write(&file, test.to_string()).unwrap();
    run("promtool", &["test", "rules", file.to_str().unwrap()]).assert_success();
}

/// The series that a scrape can hold: every family under the names of its samples,
/// and the labels seen.
struct Scrape {
    names: BTreeSet<String>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Scrape {
    fn of(text: &str) -> Self {
        let mut names = BTreeSet::new();
        for line in text.lines() {
            let Some(family) = line.strip_prefix("# TYPE ") else {
                continue;
            };
            let (family, kind) = family.split_once(' ').unwrap();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                "info" => &["_info"],
                _ => &[""],
            };
            names.extend(suffixes.iter().map(|suffix| format!("{family}{suffix}")));
        }
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            let keys = rest.split("=\"").map(|part| part.rsplit(['"', ',']).next());
            labels
                .entry(name.to_owned())
                .or_default()
                .extend(keys.flatten().map(str::to_owned));
        }
        Self { names, labels }
    }
}

/// The metrics in a query, each with what follows it up to the next one.
fn metrics(query: &str) -> Vec<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    query
        .split(word)
        .filter(|word| word.starts_with("portcullis_"))
        .collect()
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_in_a_real_scrape() {
    let (postfix, redis) = (Postfix::start(Options::default()), Redis::start());
    let url = redis.url();
    // Nobody answers as the scanner: its metrics are there all the same.
    let settings = [
        ("REDIS", url.as_str()),
        ("CLAMAV", "127.0.0.1:1"),
        ("SCAN_FAIL", "open"),
    ];
    let portcullis = Portcullis::before(&postfix, &settings);
    let mut client = Smtp::greeted(portcullis.mx);
    client.start_tls();
    client.ask("MAIL FROM:<ann@sender.test>", "250");
    client.ask("RCPT TO:<victim@example.com>", "550");
    client.ask("RSET", "250");
    let message = letter("scraped");
    let reply = client.deliver("ann@sender.test", "bob@example.org", message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    client.ask("QUIT", "221");
    let scraped = wait_for(PATIENCE, || {
        let text = portcullis.metrics();
        text.contains(r#"outcome="delivered"} 1"#).then_some(text)
    });
    let scrape = Scrape::of(&scraped.unwrap());

    for query in alerts().iter().chain(&dashboard()) {
        for metric in metrics(query) {
            assert!(scrape.names.contains(metric), "{metric} in `{query}`");
        }
        // Labels that it groups by, of the one metric that such a query has.
        let used = metrics(query);
        let (Some(by), &[metric]) = (between(query, " by (", ")"), used.as_slice()) else {
            continue;
        };
        let Some(known) = scrape.labels.get(metric) else {
            continue;
        };
        for label in by.split(", ") {
            assert!(known.contains(label), "{metric} has no {label}: `{query}`");
        }
    }
}

/// The unit with the program under test in the place of the installed one.
fn unit(folder: &tempfile::TempDir) -> String {
    let unit = read("portcullis.service");
    let installed = "ExecStart=/usr/local/bin/portcullis";
    assert!(unit.contains(installed));
    let here = format!("ExecStart={}", env!("CARGO_BIN_EXE_portcullis"));
    let file = folder.path().join("portcullis.service");
    fs::write(&file, unit.replace(installed, &here)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit(&folder);
    let verified = run("systemd-analyze", &["verify", &unit]).assert_success();
    assert!(
        !verified.output().contains("portcullis"),
        "{}",
        verified.output()
    );
    // Threshold in tenths.
    let arguments = ["security", "--offline=true", "--threshold=20", &unit];
    let judged = run("systemd-analyze", &arguments).assert_success();
    println!("{}", judged.stdout.lines().last().unwrap());
}

#[test]
fn the_unit_names_settings_that_exist() {
    let unit = read("portcullis.service");
    let variables = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=PORTCULLIS_"));
    let names: Vec<&str> = variables
        .filter_map(|line| line.split('=').next())
        .collect();
    assert!(!names.is_empty());
    for name in names {
        let mut specs = SECTIONS.iter().flat_map(|section| section.specs);
        assert!(specs.any(|spec| spec.name() == name), "{name}");
    }
}
