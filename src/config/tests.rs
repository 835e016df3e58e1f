use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::command_line::{Command, Depth, Misuse, Output, parse};
use super::*;
use crate::server::log::LogFormat;
use crate::settings::LogAddresses;

fn flags(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn variables(given: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    given
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Loads what is given, with the two settings that nothing works without.
fn load_guarding(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Problems> {
    let needed = [("backend", "10.0.0.5:25"), ("domains", "example.org")];
    let needed = needed.map(|(key, value)| (key.to_owned(), value.to_owned()));
    load(flags.into_iter().chain(needed), environment)
}

/// What is wrong with these flags alone.
fn problems_of(given: &[(&str, &str)]) -> String {
    match load(flags(given), []) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_missing_backend_and_missing_domains_are_told_together() {
    let problems = problems_of(&[]);
    assert!(
        problems.contains("PORTCULLIS_BACKEND is required"),
        "{problems}"
    );
    assert!(
        problems.contains("PORTCULLIS_DOMAINS is missing"),
        "{problems}"
    );
    assert_eq!(problems.lines().count(), 2);
}

#[test]
fn no_setting_opens_the_relay_by_accident() {
    let guarding = [("backend", "10.0.0.5:25"), ("domains", "example.org")];
    assert_eq!(problems_of(&guarding), "");
    assert_eq!(
        problems_of(&[("backend", "10.0.0.5:25"), ("relay", "backend")]),
        ""
    );
    for everybody in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8, ::/0",
        "0.0.0.0/1, 128.0.0.0/1",
    ] {
        let [backend, domains] = guarding;
        let problems = problems_of(&[backend, domains, ("relay_nets", everybody)]);
        assert!(problems.contains("open relay"), "{everybody}: {problems}");

        // Anybody may then claim any address, those that are trusted too.
        let claimed = ("proxy_trusted", everybody);
        assert_eq!(problems_of(&[backend, domains, claimed]), "");
        for trusting in [
            ("relay_nets", "10.0.0.0/8"),
            ("limit_exempt", "10.0.0.0/8"),
            ("relay", "backend"),
            ("mode", "monitor"),
        ] {
            let problems = problems_of(&[backend, domains, claimed, trusting]);
            assert!(
                problems.starts_with("PORTCULLIS_PROXY_TRUSTED holds every address"),
                "{everybody} {trusting:?}: {problems}"
            );
            assert!(problems.contains(&trusting.0.to_uppercase()), "{problems}");
        }
    }
    let some = [("proxy_trusted", "10.0.0.1"), ("relay_nets", "10.0.0.0/8")];
    assert_eq!(problems_of(&[&guarding[..], &some].concat()), "");
    let problems = problems_of(&[("backend", "10.0.0.5:25"), ("domains", "*")]);
    assert!(problems.contains("would open a relay"), "{problems}");
}

#[test]
fn half_a_certificate_and_no_ear_at_all_are_refused() {
    let problems = problems_of(&[
        ("backend", "10.0.0.5:25"),
        ("domains", "example.org"),
        ("tls_cert", "/etc/ssl/mx.pem"),
        ("listen", "off"),
        ("listen_tls", "off"),
        ("listen_submission", "off"),
    ]);
    assert!(
        problems.contains("PORTCULLIS_TLS_KEY is missing"),
        "{problems}"
    );
    assert!(problems.contains("PORTCULLIS_LISTEN is off"), "{problems}");
}

#[test]
fn no_two_listeners_have_the_same_address() {
    let guarding = [("backend", "10.0.0.5:25"), ("domains", "example.org")];
    let wrong = |more: &[(&str, &str)]| problems_of(&[&guarding, more].concat());
    for more in [
        [("listen", "[::]:25"), ("listen_tls", "[::]:25")],
        [("listen_submission", "127.0.0.1:9090"), ("listen", "off")],
        [("listen", "10.0.0.2:25, 10.0.0.2:25"), ("admin", "off")],
    ] {
        let problems = wrong(&more);
        assert!(
            problems.contains("another listener"),
            "{more:?}: {problems}"
        );
        assert_eq!(problems.lines().count(), 1, "{more:?}: {problems}");
    }
    let more = [("listen", "127.0.0.1:0"), ("listen_tls", "127.0.0.1:0")];
    assert_eq!(wrong(&more), "", "the system chooses another port for each");
    let more = [("listen", "[::]:25, 127.0.0.1:25"), ("admin", "off")];
    assert_eq!(wrong(&more), "", "the system tells them apart");
}

/// What is wrong when the file holds this, a line each.
fn problems_of_file(content: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    let path = file.path().to_str().unwrap();
    match load_guarding([], variables(&[("PORTCULLIS_CONFIG", path)])) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string().replace(path, "p.toml"),
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let content = "log_format = 'text'\nlog_addresses = 'hashed'\n";
    fs::write(file.path(), content).unwrap();
    let config = file.path().to_str().unwrap();
    let environment = variables(&[
        ("PORTCULLIS_CONFIG", "/no/such/file"),
        ("PORTCULLIS_LOG_ADDRESSES", "masked"),
        ("PORTCULLIS_LOG_FORMAT", "json"),
        ("HOME", "/"),
    ]);
    let flags = flags(&[("config", config), ("log_addresses", "none")]);
    let log = load_guarding(flags.clone(), environment).unwrap().log;
    assert_eq!(log.log_addresses, LogAddresses::None);
    assert_eq!(log.log_format, Some(LogFormat::Json));
    let log = load_guarding(flags, []).unwrap().log;
    assert_eq!(log.log_format, Some(LogFormat::Text));
    assert_eq!(
        load_guarding([], []).unwrap().log.log_addresses,
        LogAddresses::Full
    );
}

#[test]
fn a_file_holds_flat_keys_of_simple_values() {
    assert_eq!(
        problems_of_file("log_level = ['info', 'portcullis=debug']"),
        ""
    );
    let content = "log_level = 7\nlog_format = true\n[log_addresses]\nx = 1";
    let problems = problems_of_file(content);
    assert!(
        problems.contains("LOG_LEVEL=\"7\" (file \"p.toml\") holds"),
        "{problems}"
    );
    assert!(problems.contains("LOG_FORMAT=\"true\" (file \"p.toml\") is not one of json, text"));
    assert!(
        problems.contains("LOG_ADDRESSES (file \"p.toml\") is a table"),
        "{problems}"
    );
    assert_eq!(problems.lines().count(), 3);
    assert!(problems_of_file("log_level = [1]").contains("array of something else"));
    assert!(problems_of_file("log_level = 1.5").contains("is a float: put it in quotes"));
}

#[test]
fn refuses_unknown_keys_in_the_file() {
    let problems = problems_of_file("log_lvel = 'info'\nconfig = '/x'\n[log]\nlevel = 'info'");
    let expected = "config (file \"p.toml\") may not be set here\n\
        log (file \"p.toml\") is unknown\n\
        log_lvel (file \"p.toml\") is unknown; did you mean log_level?\n";
    assert_eq!(problems, expected);
}

#[test]
fn a_broken_file_is_one_problem_that_shows_no_line_of_it() {
    let problems = problems_of_file("log_level = 'info'\nbell_word = hunter2\n");
    assert!(
        problems.starts_with("PORTCULLIS_CONFIG=\"p.toml\" names a file that is not TOML: line 2"),
        "{problems}"
    );
    assert!(!problems.contains("hunter2"), "{problems}");
    let missing = load_guarding(flags(&[("config", "/no/such/file")]), [])
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("PORTCULLIS_CONFIG=\"/no/such/file\" names a file that cannot be read")
    );
}

#[test]
fn text_that_is_not_utf_8_is_a_problem_of_its_variable() {
    let environment = [(
        OsString::from("PORTCULLIS_LOG_LEVEL"),
        OsString::from_vec(vec![0xff]),
    )];
    let problems = load_guarding([], environment).unwrap_err().to_string();
    assert!(
        problems.starts_with("PORTCULLIS_LOG_LEVEL (environment) is not UTF-8"),
        "{problems}"
    );
    let environment = [(
        OsString::from_vec(b"PORTCULLIS_\xff".into()),
        OsString::new(),
    )];
    assert!(
        load_guarding([], environment)
            .unwrap_err()
            .to_string()
            .contains("is unknown")
    );
}

#[test]
fn a_variable_in_lower_case_is_refused() {
    let environment = variables(&[("PORTCULLIS_log_level", "info")]);
    let problems = load_guarding([], environment).unwrap_err().to_string();
    assert!(
        problems.starts_with("PORTCULLIS_log_level (environment) is unknown"),
        "{problems}"
    );
}

fn line(words: &[&str]) -> Result<(Command, Vec<(String, String)>), Misuse> {
    parse(words.iter().map(OsString::from)).map(|line| (line.command, line.flags))
}

#[test]
fn reads_flags_before_and_after_the_command() {
    let expected = flags(&[("log_level", "a=b"), ("log_format", "json")]);
    let words = ["--log-level=a=b", "demo", "--log-format", "json"];
    assert_eq!(line(&words), Ok((Command::Demo, expected)));
    assert_eq!(line(&[]), Ok((Command::Serve, vec![])));
    assert_eq!(
        line(&["--log-level="]),
        Ok((Command::Serve, flags(&[("log_level", "")])))
    );
    assert_eq!(line(&["-h"]), Ok((Command::Help, vec![])));
    assert_eq!(line(&["-V"]), Ok((Command::Version, vec![])));
}

#[test]
fn refuses_a_malformed_command_line() {
    let unknown = |flag: &str, near: Option<&str>| Misuse::UnknownFlag {
        flag: flag.into(),
        near: near.map(str::to_owned),
    };
    for (words, misuse) in [
        (&["serve"][..], Misuse::UnknownCommand("serve".into())),
        (&["demo", "demo"], Misuse::SecondCommand("demo".into())),
        (
            &["--log-lvel=info"],
            unknown("--log-lvel", Some("--log-level")),
        ),
        (
            &["--log_level", "x"],
            unknown("--log_level", Some("--log-level")),
        ),
        (&["-x"], unknown("-x", None)),
        (&["--"], unknown("--", None)),
        (&["--log-level"], Misuse::NoValue("--log-level".into())),
        (
            &["--log-level", "--log-format=json"],
            Misuse::NoValue("--log-level".into()),
        ),
        (
            &["--log-level=a", "--log-level=b"],
            Misuse::Twice("--log-level".into()),
        ),
    ] {
        assert_eq!(line(words), Err(misuse), "{words:?}");
    }
}

#[test]
fn no_two_rooms_have_a_setting_of_the_same_name() {
    let mut keys: Vec<_> = SECTIONS
        .iter()
        .flat_map(|section| section.specs)
        .map(|spec| spec.key)
        .collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all);
}

#[test]
fn every_setting_says_what_it_means() {
    for spec in SECTIONS.iter().flat_map(|section| section.specs) {
        assert!(
            spec.doc.ends_with('.') && !spec.example.is_empty(),
            "{spec:?}"
        );
        assert!(
            help().contains(&spec.flag()) && reference().contains(&spec.name()),
            "{spec:?}"
        );
    }
}

#[test]
fn a_spool_in_the_root_is_refused() {
    let given = [
        ("backend", "10.0.0.5:25"),
        ("domains", "example.org"),
        ("spool_dir", "//"),
    ];
    let problems = problems_of(&given);
    assert!(
        problems.contains("PORTCULLIS_SPOOL_DIR is the root of all files"),
        "{problems}"
    );
}

#[test]
fn a_mark_above_the_refusal_is_refused() {
    let [backend, domains] = [("backend", "10.0.0.5:25"), ("domains", "example.org")];
    let given =
        |tag, reject| problems_of(&[backend, domains, ("spam_tag", tag), ("spam_reject", reject)]);
    let problems = given("6.5", "6");
    assert!(
        problems.contains("PORTCULLIS_SPAM_TAG is above SPAM_REJECT"),
        "{problems}"
    );
}

#[test]
fn check_and_explain_take_what_goes_with_them() {
    let command = |words: &str| {
        let words = words.split(' ').map(OsString::from);
        parse(words).map(|line| line.command)
    };
    let check = |depth, output| Ok(Command::Check { depth, output });
    assert_eq!(command("check"), check(Depth::Files, Output::Lines));
    assert_eq!(
        command("--json check --live"),
        check(Depth::Live, Output::Json)
    );
    let output = Output::Json;
    assert_eq!(command("explain --json"), Ok(Command::Explain { output }));
    assert_eq!(command("explain --live"), Err(Misuse::NotHere("--live")));
    assert_eq!(command("--json"), Err(Misuse::NotHere("--json")));
    assert_eq!(command("demo --live"), Err(Misuse::NotHere("--live")));
    assert_eq!(
        command("check --live --live"),
        Err(Misuse::Twice("--live".into()))
    );
    assert_eq!(
        command("check explain"),
        Err(Misuse::SecondCommand("explain".into()))
    );
}

/// What the explanation says of a setting: value, origin and variable.
fn told(explanation: &Explanation, key: &str) -> (Option<String>, Option<Origin>, String) {
    let mut settings = explanation
        .sections
        .iter()
        .flat_map(|(_, settings)| settings);
    let found = settings.find(|setting| setting.spec.key == key).unwrap();
    (
        found.value.clone(),
        found.origin.clone(),
        found.variable.clone(),
    )
}

#[test]
fn explains_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.toml");
    fs::write(&path, "drain = \"1s\"\nrcpt_max = 7\nerror_max = 3\n").unwrap();
    let environment = variables(&[
        ("PORTCULLIS_CONFIG", path.to_str().unwrap()),
        ("PORTCULLIS_DRAIN", "2s"),
        ("PORTCULLIS_RCPT_MAX", "8"),
    ]);
    let explanation = explain(flags(&[("drain", "3s")]), environment);
    let said = |key| {
        let (value, origin, _) = told(&explanation, key);
        (value.unwrap_or_default(), origin)
    };
    assert_eq!(said("drain"), ("3s".into(), Some(Origin::Flag)));
    assert_eq!(said("rcpt_max"), ("8".into(), Some(Origin::Environment)));
    assert_eq!(
        said("error_max"),
        ("3".into(), Some(Origin::File(path.clone())))
    );
    assert_eq!(said("relay"), ("guard".into(), None));
    let config = path.display().to_string();
    assert_eq!(said("config"), (config, Some(Origin::Environment)));
    assert_eq!(
        told(&explanation, "hostname"),
        (None, None, "PORTCULLIS_HOSTNAME".into())
    );
    // BACKEND and DOMAINS are missing; that keeps nobody from explaining.
    assert_eq!(explanation.problems.0.len(), 2);
}

#[test]
fn explains_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "geheim").unwrap();
    let environment = variables(&[
        ("PORTCULLIS_REDIS", "redis://:geheim@cache/0"),
        ("PORTCULLIS_RSPAMD_PASSWORD_FILE", secret.to_str().unwrap()),
        (
            "PORTCULLIS_RSPAMD",
            "http://user:ge@heim/geheim@scanner:1, x",
        ),
        (
            "PORTCULLIS_MILTERS",
            "inet:[::1]:1, http://user:ge,heim@filter",
        ),
        ("PORTCULLIS_BACKEND", "smtp://user:geheim@old:25"),
        ("PORTCULLIS_REDISS", "geheim"),
    ]);
    let explanation = explain([], environment);
    let text = format!(
        "{explanation}{}{}",
        explanation.json(),
        explanation.problems
    );
    assert!(!text.contains("heim"), "{text}");
    let masked = Some("***".to_owned());
    let origin = Some(Origin::Environment);
    assert_eq!(
        told(&explanation, "rspamd_password"),
        (masked, origin, "PORTCULLIS_RSPAMD_PASSWORD_FILE".into())
    );
    assert_eq!(
        told(&explanation, "rspamd").0.unwrap(),
        "http://***@scanner:1, x"
    );
}
