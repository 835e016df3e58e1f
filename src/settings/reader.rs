//! Finds the value of each setting among what the sources gave, and gathers
//! everything that is wrong with them. It reads no file but those of secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::file::read_text;
use super::list::files_in_list;
use super::secret::{MASK, without_passwords};
use super::{Problem, Problems, Spec, Value};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In this TOML file.
    File(PathBuf),
}

impl Origin {
    /// The name of a setting as it is written there.
    pub fn spell(&self, key: &str) -> String {
        match self {
            Self::Flag => format!("--{}", key.replace('_', "-")),
            Self::Environment => format!("PORTCULLIS_{}", key.to_ascii_uppercase()),
            Self::File(_) => key.to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {path:?}"),
        }
    }
}

/// A value as it was given, or why it cannot even be read as text.
struct Given {
    origin: Origin,
    text: Result<String, String>,
}

/// The given values, and what is wrong with them.
#[derive(Default)]
pub struct Reader {
    given: BTreeMap<String, Given>,
    known: Vec<String>,
    files: Vec<PathBuf>,
    problems: Problems,
}

impl Reader {
    /// A reader in which these settings have the value of their example.
    pub fn of_examples<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> Self {
        let mut reader = Self::default();
        for spec in specs {
            reader.give(Origin::Flag, spec.key, Ok(spec.example.to_owned()));
        }
        reader
    }

    /// Takes a value from a source, or the reason why it is not text. The
    /// first to give a setting wins: the strongest source gives first.
    pub fn give(&mut self, origin: Origin, key: &str, text: Result<String, String>) {
        self.given
            .entry(key.to_owned())
            .or_insert(Given { origin, text });
    }

    /// Where the key has its value from, and its text if it is text. Reading a
    /// setting takes its value away: ask before.
    pub fn given(&self, key: &str) -> Option<(&Origin, Option<&str>)> {
        let given = self.given.get(key)?;
        Some((&given.origin, given.text.as_deref().ok()))
    }

    /// The value of a setting; `None` when there was a problem with it, which
    /// is then noted.
    pub fn read<T: Value>(&mut self, spec: &Spec) -> Option<T> {
        match self.value(spec) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn value<T: Value>(&mut self, spec: &Spec) -> Result<T, Problem> {
        self.known.push(spec.key.to_owned());
        let mut given = self.given.remove(spec.key);
        if spec.secret {
            given = self.secret(spec, given)?;
        }
        let Some(Given { origin, text }) = given else {
            return match spec.default {
                Some(default) => T::parse(default).map_err(|what| Problem::of(spec, what)),
                None => T::unset().ok_or_else(|| Problem::of(spec, "is required")),
            };
        };
        let refuse = |value: Option<&str>, what| Problem {
            origin: Some(origin.clone()),
            value: value.map(str::to_owned),
            ..Problem::of(spec, what)
        };
        let text = text.map_err(|what| refuse(None, what))?;
        let text = if spec.secret { &text } else { text.trim() };
        if !spec.secret {
            self.files.extend(files_in_list(text).map(PathBuf::from));
        }
        T::parse(text).map_err(|what| match (text, spec.secret) {
            ("", _) => refuse(
                Some(""),
                "is empty: give a value or leave it unset".to_owned(),
            ),
            (_, true) => refuse(Some(MASK), what),
            (_, false) => match without_passwords(text) {
                shown if shown == text => refuse(Some(text), what),
                // What is wrong may quote a part of it.
                shown => refuse(
                    Some(&shown),
                    "takes no user and password before an @".to_owned(),
                ),
            },
        })
    }

    /// A secret as it was given, or else from the file that `<NAME>_FILE` names.
    fn secret(&mut self, spec: &Spec, given: Option<Given>) -> Result<Option<Given>, Problem> {
        let key = format!("{}_file", spec.key);
        let named = self.given.remove(&key);
        self.known.push(key);
        let Some(Given { origin, text }) = named else {
            return Ok(given);
        };
        let refuse = |value, what| Problem {
            variable: format!("{}_FILE", spec.variable()),
            origin: Some(origin.clone()),
            value,
            what,
            example: Some("/run/secrets/portcullis"),
        };
        if given.is_some() {
            let what = format!("and {} are both set: keep one", spec.variable());
            return Err(refuse(None, what));
        }
        let path = text.map_err(|what| refuse(None, what))?;
        self.from_file(&path);
        let content = read_text(&path).map_err(|error| {
            let what = format!("names a file that cannot be read: {error}");
            refuse(Some(path), what)
        })?;
        let secret = content.strip_suffix('\n').unwrap_or(&content);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        let text = Ok(secret.to_owned());
        Ok(Some(Given { origin, text }))
    }

    /// Remembers that settings are read from this file.
    pub fn from_file(&mut self, path: impl Into<PathBuf>) {
        self.files.push(path.into());
    }

    /// The files that settings have been read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Notes a problem that a source had as a whole.
    pub fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Everything that was wrong, once every section is read: what nobody
    /// asked for is unknown, and never ignored.
    pub fn finish(self) -> Problems {
        let Self {
            given,
            known,
            mut problems,
            ..
        } = self;
        for (key, Given { origin, .. }) in given {
            let what = if known.contains(&key) {
                "may not be set here".to_owned()
            } else if let Some(near) = nearest(&key, known.iter().map(String::as_str)) {
                format!("is unknown; did you mean {}?", origin.spell(near))
            } else {
                "is unknown".to_owned()
            };
            problems.push(Problem {
                variable: origin.spell(&key),
                origin: Some(origin),
                // It may be a secret under a misspelt name.
                value: None,
                what,
                example: None,
            });
        }
        problems
    }
}

/// The known name that a misspelt one most likely meant, if any is near.
pub fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let key = key.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&key, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .min()
        .map(|(_, name)| name)
}
