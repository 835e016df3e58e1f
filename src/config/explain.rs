//! The settings explained, from the same table that reads them.

use std::fmt::Write;

use super::SECTIONS;
use crate::settings::Spec;

/// The settings as a Markdown table, for the README.
pub fn reference() -> String {
    let mut table = String::from("| name | default | meaning | example |\n|---|---|---|---|\n");
    for spec in SECTIONS.iter().flat_map(|section| section.specs) {
        let default = match spec.default {
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
            None => absent(spec).to_owned(),
        };
        let name = if spec.secret {
            format!("`{0}`, `{0}_FILE`", spec.name())
        } else {
            format!("`{}`", spec.name())
        };
        let row = [
            name,
            default,
            spec.doc.to_owned(),
            format!("`{}`", spec.example),
        ];
        let cells = row.map(|cell| cell.replace('|', "\\|"));
        // Writing to a String does not fail.
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

/// What `--help` prints.
pub fn help() -> String {
    let mut help = String::from(USAGE);
    for section in SECTIONS {
        let _ = writeln!(help, "\n{}", section.about);
        for spec in section.specs {
            let default = match spec.default {
                Some("") => "default: empty".to_owned(),
                Some(default) => format!("default: {default}"),
                None => absent(spec).to_owned(),
            };
            let _ = writeln!(help, "  {} {} ({default})", spec.flag(), spec.example);
            let _ = writeln!(help, "      {}", spec.doc);
        }
    }
    help
}

fn absent(spec: &Spec) -> &'static str {
    if spec.required { "required" } else { "none" }
}

const USAGE: &str = "\
Portcullis: a transparent SMTP security proxy

Usage: portcullis [COMMAND] [--SETTING VALUE | --SETTING=VALUE]...

Commands:
  none             guard the mail server
  demo             guard a built-in example server and show what arrives
  healthcheck      ask the process that runs with these settings whether it is
                   ready; exit code 0 if so, else 1 and why
  -h, --help       this text
  -V, --version    name and version

Every setting is a flag, an environment variable (--log-level is
PORTCULLIS_LOG_LEVEL) and a key in the TOML file (log_level); the flag is the
strongest, then the environment, then the file. The value shown is an example.
A secret may also stand in a file that --NAME-file names.

Exit codes: 0 done, 1 failed while running, 64 bad command line, 69 needed
service unavailable, 77 may not bind, 78 bad configuration.
";
