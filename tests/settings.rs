//! The configuration as an admin meets it: the README's table, the messages of
//! the real binary and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::process::{Command, Output};
use std::{env, fs};

use portcullis::config;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Runs the binary with these words and no other environment than this.
fn portcullis(words: &[&str], environment: &[(&str, &str)]) -> Output {
    run(BINARY, words, environment)
}

fn run(program: &str, words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(environment.iter().copied());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_readme_explains_the_settings_that_exist() {
    const BEGIN: &str = "<!-- settings:begin -->\n";
    const END: &str = "<!-- settings:end -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect(BEGIN);
    let (table, after) = rest.split_once(END).expect(END);
    if env::var_os("UPDATE_README").is_some() {
        fs::write(
            path,
            [before, BEGIN, &config::reference(), END, after].concat(),
        )
        .unwrap();
        return;
    }
    assert!(
        table == config::reference(),
        "the settings in README.md are not those of the code; to update them run\n\
         UPDATE_README=1 cargo test --test settings"
    );
}

/// Who reads that an attack is defended by a test can run that test.
#[test]
fn the_readme_names_tests_that_exist() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let readme = fs::read_to_string(format!("{root}README.md")).unwrap();
    let (_, rest) = readme.split_once("\n## Security\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let mut named = 0;
    for name in section.split('`').skip(1).step_by(2) {
        if let Some((file, function)) = name.split_once("::").filter(|(_, name)| *name != "…") {
            let path = format!("tests/{file}.rs");
            let text = fs::read_to_string(format!("{root}{path}")).expect(&path);
            let test = format!("fn {function}(");
            assert!(text.contains(&test), "{path} has no {test}");
            named += 1;
        } else if name.ends_with(".txt") {
            let path = format!("tests/{name}");
            assert!(fs::exists(format!("{root}{path}")).unwrap(), "no {path}");
            named += 1;
        }
    }
    assert!(named > 30, "found only {named} names of tests");
}

#[test]
fn bad_settings_exit_78_and_are_all_listed() {
    let environment = [
        ("PORTCULLIS_LOG_FORMAT", "xml"),
        ("PORTCULLIS_LOG_ADDRESES", "full"),
        ("PORTCULLIS_CONFIG", "/no/such/file"),
    ];
    let output = portcullis(&["--log-level=inof"], &environment);
    assert_eq!(output.status.code(), Some(78));
    let stderr = stderr(&output);
    for line in [
        "PORTCULLIS_LOG_FORMAT=\"xml\" (environment) is not one of json, text; example: PORTCULLIS_LOG_FORMAT=\"json\"",
        "PORTCULLIS_LOG_LEVEL=\"inof\" (command line) holds \"inof\"",
        "PORTCULLIS_LOG_ADDRESES (environment) is unknown; did you mean PORTCULLIS_LOG_ADDRESSES?",
        "PORTCULLIS_CONFIG=\"/no/such/file\"",
    ] {
        assert!(stderr.contains(line), "{line}\nis not in\n{stderr}");
    }
    assert!(output.stdout.is_empty());
}

/// It ends at once, for want of a certificate, and has logged by then.
#[test]
fn logs_in_json_off_a_terminal_and_for_people_on_one() {
    let environment = [
        ("PORTCULLIS_BACKEND", "127.0.0.1:25"),
        ("PORTCULLIS_DOMAINS", "example.org"),
        ("PORTCULLIS_LISTEN", "127.0.0.1:0"),
        ("PORTCULLIS_LISTEN_TLS", "off"),
        ("PORTCULLIS_LISTEN_SUBMISSION", "off"),
        ("PORTCULLIS_ADMIN", "off"),
        ("PORTCULLIS_TLS_DIR", "/no/such/folder"),
    ];
    let output = portcullis(&[], &environment);
    assert_eq!(output.status.code(), Some(78));
    let log = String::from_utf8(output.stdout).unwrap();
    let is_json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(!log.is_empty() && log.lines().all(is_json), "{log}");

    let output = run("script", &["-qec", BINARY, "/dev/null"], &environment);
    assert_eq!(output.status.code(), Some(78));
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(log.contains("\x1b[") && !log.lines().any(is_json), "{log}");
}

#[test]
fn a_bad_command_line_exits_64() {
    for words in [
        &["--log-lvel=info"][..],
        &["serve"],
        &["--log-level"],
        &["demo", "-x"],
    ] {
        let output = portcullis(words, &[]);
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(stderr(&output).starts_with("portcullis: "), "{words:?}");
    }
    assert!(stderr(&portcullis(&["--log-lvel=x"], &[])).contains("did you mean --log-level?"));
}

#[test]
fn prints_its_version_whatever_the_configuration() {
    for flag in ["--version", "-V"] {
        let output = portcullis(&[flag], &[("PORTCULLIS_NONSENSE", "1")]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, b"portcullis 0.1.0\n");
    }
}

#[test]
fn help_explains_every_setting() {
    let output = portcullis(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for spec in config::SECTIONS.iter().flat_map(|section| section.specs) {
        assert!(
            help.contains(&spec.flag()) && help.contains(spec.doc),
            "{spec:?}"
        );
    }
}
