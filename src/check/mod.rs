//! `portcullis check`: looks for what is wrong before clients find out.
//!
//! It asks and reports. It serves nobody, binds nothing, changes nothing and
//! delivers nothing: the open-relay probe ends before DATA.

mod files;
mod live;
mod relay;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::json;

use crate::config::Parts;
use crate::config::command_line::Depth;
use crate::settings::Problems;
use crate::settings::clean::Clean;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// What was found, for people; it may repeat words of strangers.
    pub text: String,
}

/// How something is that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// It works; somebody should know.
    Warning,
    /// It must be mended.
    Bad(Fault),
}

/// What must be mended, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Something outside does not answer.
    Unavailable,
    /// Settings, or the files that they name.
    Configuration,
    /// Strangers could send mail anywhere.
    OpenRelay,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(what, State::Good, text)
    }

    fn warning(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(what, State::Warning, text)
    }

    fn bad(fault: Fault, what: &'static str, text: impl Into<String>) -> Self {
        Self::new(what, State::Bad(fault), text)
    }

    fn new(what: &'static str, state: State, text: impl Into<String>) -> Self {
        Self {
            what,
            state,
            text: text.into(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad(_) => "error",
        })
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst fault; `None` when nothing must be mended.
    pub fn worst(&self) -> Option<Fault> {
        let faults = self
            .findings
            .iter()
            .filter_map(|finding| match finding.state {
                State::Bad(fault) => Some(fault),
                State::Good | State::Warning => None,
            });
        faults.max()
    }

    /// One object with the array `findings`, and a line end.
    pub fn json(&self) -> String {
        let finding = |finding: &Finding| {
            json!({
                "what": finding.what,
                "state": finding.state.to_string(),
                "text": finding.text,
            })
        };
        let findings: Vec<_> = self.findings.iter().map(finding).collect();
        format!("{}\n", json!({ "findings": findings }))
    }

    fn count(&self, counted: fn(&State) -> bool) -> usize {
        let states = self.findings.iter().map(|finding| &finding.state);
        states.filter(|state| counted(state)).count()
    }
}

/// For people: one line for each finding, and a sum.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.findings.iter().map(|finding| finding.what.len());
        let width = widths.max().unwrap_or(0);
        for Finding { what, state, text } in &self.findings {
            writeln!(f, "{state:7}  {what:width$}  {}", Clean(text))?;
        }
        let errors = self.count(|state| matches!(state, State::Bad(_)));
        let warnings = self.count(|state| *state == State::Warning);
        writeln!(f, "errors: {errors}, warnings: {warnings}")
    }
}

/// Looks at the settings that could be read and at their files, and with
/// [`Depth::Live`] at the servers that they name.
pub async fn run(parts: Parts, problems: Problems, depth: Depth) -> Report {
    let mut findings = files::look_at(&parts, &problems);
    if depth == Depth::Live {
        findings.extend(live::look_at(parts).await);
    }
    Report { findings }
}
