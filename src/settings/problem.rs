//! What is wrong with the configuration, told so that it can be put right.

use std::fmt;

use super::clean::Clean;
use super::{Origin, Spec};

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The environment variable of the setting, or an unknown name as it was written.
    pub variable: String,
    /// Where the value stands; `None` when it stands nowhere.
    pub origin: Option<Origin>,
    /// The bad value, `***` for a secret; `None` when there is none to show.
    pub value: Option<String>,
    /// What is wrong, as the rest of a sentence.
    pub what: String,
    /// A good value.
    pub example: Option<&'static str>,
}

impl Problem {
    /// A problem of a setting as a whole, for instance that it is missing.
    pub fn of(spec: &Spec, what: impl Into<String>) -> Self {
        Self {
            variable: spec.variable(),
            origin: None,
            value: None,
            what: what.into(),
            example: Some(spec.example),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Clean(&self.variable))?;
        if let Some(value) = &self.value {
            write!(f, "=\"{}\"", Clean(value))?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, " {}", Clean(&self.what))?;
        match self.example {
            Some(example) => write!(f, "; example: {}={example:?}", self.variable),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with the configuration, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|problem| writeln!(f, "{problem}"))
    }
}
