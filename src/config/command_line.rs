//! The command line: one command, and a flag for every setting.
//!
//! Flags come from the table of settings; whether a value is good is not
//! judged here.

use std::ffi::OsString;

use crate::settings::clean::Clean;
use crate::settings::{Spec, nearest};

use super::SECTIONS;

/// What the binary is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// No command: guard the backend.
    Serve,
    /// Guard a built-in example backend, and show what arrives.
    Demo,
    /// Ask the process that runs with these settings whether it is ready.
    Healthcheck,
    /// Look for what is wrong, without serving anybody.
    Check {
        /// How far to look.
        depth: Depth,
        /// For whom it is printed.
        output: Output,
    },
    /// Print every setting, its value and where it came from.
    Explain {
        /// For whom it is printed.
        output: Output,
    },
    /// Explain the command line.
    Help,
    /// Print name and version.
    Version,
}

/// How far `check` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At settings and files.
    Files,
    /// At the servers that the settings name, too (`--live`).
    Live,
}

/// For whom an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people: aligned lines.
    Lines,
    /// For programs (`--json`).
    Json,
}

/// A command line that has the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The command.
    pub command: Command,
    /// Key of the setting and value, for each flag.
    pub flags: Vec<(String, String)>,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// Not one of the commands.
    #[error("unknown command \"{}\"", Clean(.0))]
    UnknownCommand(String),
    /// Not the first command.
    #[error("more than one command: \"{}\"", Clean(.0))]
    SecondCommand(String),
    /// No setting has this flag.
    #[error("unknown flag {}{}", Clean(.flag), did_you_mean(.near.as_ref()))]
    UnknownFlag {
        /// The flag as it was written.
        flag: String,
        /// The flag that was perhaps meant.
        near: Option<String>,
    },
    /// The last word is a flag, or another flag follows.
    #[error("{0} needs a value")]
    NoValue(String),
    /// `--live` or `--json` where it means nothing.
    #[error("{0} does not go with this command")]
    NotHere(&'static str),
    /// The same flag twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A word that is not UTF-8.
    #[error("\"{}\" is not UTF-8", Clean(.0))]
    NotUtf8(String),
}

fn did_you_mean(near: Option<&String>) -> String {
    near.map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default()
}

/// Reads the words after the program's name. Flags stand before or after the
/// command, as `--name value` or `--name=value`.
///
/// # Errors
/// The first word that does not fit.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<CommandLine, Misuse> {
    let mut words = words.into_iter().map(|word| {
        word.into_string()
            .map_err(|word| Misuse::NotUtf8(word.to_string_lossy().into_owned()))
    });
    let mut command = None;
    let mut depth = Depth::Files;
    let mut output = Output::Lines;
    let mut flags: Vec<(String, String)> = Vec::new();
    while let Some(word) = words.next().transpose()? {
        if let Some(asked) = command_named(&word) {
            match command.replace(asked) {
                Some(_) => return Err(Misuse::SecondCommand(word)),
                None => continue,
            }
        }
        match word.as_str() {
            LIVE if depth == Depth::Files => {
                depth = Depth::Live;
                continue;
            }
            JSON if output == Output::Lines => {
                output = Output::Json;
                continue;
            }
            LIVE | JSON => return Err(Misuse::Twice(word)),
            _ => {}
        }
        if !word.starts_with('-') {
            return Err(Misuse::UnknownCommand(word));
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let key = key_of(flag)?;
        let value = match value {
            Some(value) => value,
            None => match words.next().transpose()? {
                Some(value) if !value.starts_with("--") => value,
                _ => return Err(Misuse::NoValue(flag.to_owned())),
            },
        };
        if flags.iter().any(|(given, _)| *given == key) {
            return Err(Misuse::Twice(flag.to_owned()));
        }
        flags.push((key, value));
    }
    let command = command.unwrap_or(Command::Serve).with(depth, output)?;
    Ok(CommandLine { command, flags })
}

const LIVE: &str = "--live";
const JSON: &str = "--json";

impl Command {
    /// The command with what else was asked for, if it goes with it.
    fn with(self, depth: Depth, output: Output) -> Result<Self, Misuse> {
        match (self, depth, output) {
            (Self::Check { .. }, depth, output) => Ok(Self::Check { depth, output }),
            (_, Depth::Live, _) => Err(Misuse::NotHere(LIVE)),
            (Self::Explain { .. }, _, output) => Ok(Self::Explain { output }),
            (_, _, Output::Json) => Err(Misuse::NotHere(JSON)),
            (other, Depth::Files, Output::Lines) => Ok(other),
        }
    }
}

fn command_named(word: &str) -> Option<Command> {
    match word {
        "demo" => Some(Command::Demo),
        "healthcheck" => Some(Command::Healthcheck),
        "check" => Some(Command::Check {
            depth: Depth::Files,
            output: Output::Lines,
        }),
        "explain" => Some(Command::Explain {
            output: Output::Lines,
        }),
        "--help" | "-h" => Some(Command::Help),
        "--version" | "-V" => Some(Command::Version),
        _ => None,
    }
}

/// The key of the setting that has this flag.
fn key_of(flag: &str) -> Result<String, Misuse> {
    let specs = SECTIONS.iter().flat_map(|section| section.specs);
    let flags: Vec<(String, String)> = specs.flat_map(flags_of).collect();
    if let Some((_, key)) = flags.iter().find(|(known, _)| known == flag) {
        return Ok(key.clone());
    }
    let near = nearest(flag, flags.iter().map(|(known, _)| known.as_str())).map(str::to_owned);
    Err(Misuse::UnknownFlag {
        flag: flag.to_owned(),
        near,
    })
}

/// Flag and key of a setting, and those of its file if it is a secret.
fn flags_of(spec: &Spec) -> Vec<(String, String)> {
    let mut flags = vec![(spec.flag(), spec.key.to_owned())];
    if spec.secret {
        flags.push((
            format!("{}-file", spec.flag()),
            format!("{}_file", spec.key),
        ));
    }
    flags
}
