//! The settings explained, from the same table that reads them.

use std::ffi::OsString;
use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::{SECTIONS, Section, file, gather, judge};
use crate::settings::clean::Clean;
use crate::settings::secret::{MASK, without_passwords};
use crate::settings::{Origin, Problems, Reader, Spec};

/// Every setting, and where it has its value from.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Section by section, in the order of the reference.
    pub sections: Vec<(&'static Section, Vec<Explained>)>,
    /// What is wrong with them.
    pub problems: Problems,
}

/// One setting as it is given, good or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What it is.
    pub spec: &'static Spec,
    /// Its text, a secret masked; `None` when it has none.
    pub value: Option<String>,
    /// Where it was given; `None` for the default.
    pub origin: Option<Origin>,
    /// The variable that gives it or would: a secret may come from the file that
    /// `<NAME>_FILE` names.
    pub variable: String,
}

/// Explains the settings that [`load`](super::load) would read from the same sources.
pub fn explain(
    flags: impl IntoIterator<Item = (String, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Explanation {
    let mut reader = gather(flags, environment);
    // The file's name is read, and with that taken away, before the file is.
    let own: Vec<Explained> = explained(&reader, file::Settings::SPECS);
    file::give(&mut reader);
    let of = |section: &'static Section| {
        let is_own = section.specs == file::Settings::SPECS;
        let settings = if is_own {
            own.clone()
        } else {
            explained(&reader, section.specs)
        };
        (section, settings)
    };
    let sections = SECTIONS.iter().map(of).collect();
    let (_, problems) = judge(reader);
    Explanation { sections, problems }
}

fn explained(reader: &Reader, specs: &'static [Spec]) -> Vec<Explained> {
    let setting = |spec: &'static Spec| {
        let in_a_file = format!("{}_file", spec.key);
        let in_a_file = reader.given(&in_a_file).filter(|_| spec.secret);
        let variable = match in_a_file {
            Some(_) => format!("{}_FILE", spec.variable()),
            None => spec.variable(),
        };
        let (origin, value) = match reader.given(spec.key).or(in_a_file) {
            Some((origin, _)) if spec.secret => (Some(origin.clone()), Some(MASK.to_owned())),
            Some((origin, text)) => (Some(origin.clone()), text.map(without_passwords)),
            None => (None, spec.default.map(str::to_owned)),
        };
        Explained {
            spec,
            value,
            origin,
            variable,
        }
    };
    specs.iter().map(setting).collect()
}

impl Explanation {
    /// An array with one object for each setting.
    pub fn json(&self) -> String {
        let settings = self.sections.iter().flat_map(|(_, settings)| settings);
        let mut text = Value::from_iter(settings.map(Explained::json)).to_string();
        text.push('\n');
        text
    }
}

impl Explained {
    fn json(&self) -> Value {
        let (origin, file) = match &self.origin {
            None => ("default", None),
            Some(Origin::Flag) => ("flag", None),
            Some(Origin::Environment) => ("environment", None),
            Some(Origin::File(path)) => ("file", Some(path.display().to_string())),
        };
        json!({
            "name": self.spec.name(),
            "value": self.value,
            "origin": origin,
            "file": file,
            "variable": self.variable,
            "default": self.spec.default,
            "meaning": self.spec.doc,
        })
    }

    /// The value as people are shown it.
    fn shown(&self) -> String {
        match self.value.as_deref() {
            Some("") => "(empty)".to_owned(),
            Some(value) => Clean(value).to_string(),
            None if self.origin.is_some() => "(not text)".to_owned(),
            None if self.spec.required => "(missing)".to_owned(),
            None => "(unset)".to_owned(),
        }
    }
}

/// For people: variable, value and origin in columns.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = || self.sections.iter().flat_map(|(_, settings)| settings);
        let width = |of: fn(&Explained) -> usize, most| {
            settings().map(of).filter(|width| width <= most).max()
        };
        let variables = width(|setting| setting.variable.len(), &usize::MAX).unwrap_or(0);
        // A long list of domains must not push all origins off the screen.
        let values = width(|setting| setting.shown().chars().count(), &VALUE_COLUMN).unwrap_or(0);
        for (place, (section, settings)) in self.sections.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            writeln!(f, "{separator}{}", section.about)?;
            for setting in settings {
                let origin = match &setting.origin {
                    Some(origin) => origin.to_string(),
                    None => "default".to_owned(),
                };
                let (variable, value) = (&setting.variable, setting.shown());
                writeln!(f, "  {variable:variables$}  {value:values$}  {origin}")?;
            }
        }
        Ok(())
    }
}

/// Widest column of values, in characters; longer ones stand out.
const VALUE_COLUMN: usize = 32;

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
  check [--live]   look for what is wrong with settings and files; with --live
                   also at the mail server (is it an open relay?), the scanners
                   and Redis; nothing is delivered anywhere
  explain          every setting, its value, and where it comes from
  -h, --help       this text
  -V, --version    name and version

Every setting is a flag, an environment variable (--log-level is
PORTCULLIS_LOG_LEVEL) and a key in the TOML file (log_level); the flag is the
strongest, then the environment, then the file. The value shown is an example.
A secret may also stand in a file that --NAME-file names.
With --json, check prints one object, and explain an array of objects.

Exit codes: 0 done, 1 failed while running (check: the relay is open), 64 bad
command line, 69 needed service unavailable, 77 may not bind, 78 bad
configuration.
";
