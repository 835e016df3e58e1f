//! The log: what is written, in which form, and the one place that sets it up.
//!
//! Logging must never make a session wait: a line that finds the queue to
//! stdout full is dropped and counted.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, registry};

use crate::settings::{self, LogAddresses, Value, choice};

mod line;
mod queue;
#[cfg(test)]
mod tests;

use line::LineForm;
pub use queue::Guard;

settings::section! {
    /// What is logged, and how.
    pub struct Settings {
        /// Form of the log on stdout: `json` (one object a line) or `text`.
        /// Unset: `text` on a terminal, else `json`.
        log_format: Option<LogFormat>, example "json";
        /// What is logged: `error`, `warn`, `info`, `debug`, `trace` or `off`,
        /// for single modules too.
        log_level: LogLevel = "info", example "info,portcullis::session=debug";
        /// How client and mail addresses are logged: `full`; `masked`, only
        /// the network, the first letter and the domain; `hashed`, the same
        /// address alike until the next start; or `none`.
        log_addresses: LogAddresses = "full", example "masked";
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Readable columns.
    Text,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        choice(text, &[("json", Self::Json), ("text", Self::Text)])
    }
}

/// Which events are logged, as `tracing_subscriber`'s filter reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl Value for LogLevel {
    fn parse(text: &str) -> Result<Self, String> {
        // The filter takes a lone word that is no level for a module, and
        // `inof` would then silently log nothing at all.
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
        for directive in text.split(',') {
            let whole = directive.contains('=') || directive.contains('[');
            if !whole && !is_level(directive) {
                return Err(format!(
                    "holds {directive:?}, not one of {}",
                    LEVELS.join(", ")
                ));
            }
        }
        filter(text).map_err(|error| format!("is no log filter: {error}"))?;
        Ok(Self(text.to_owned()))
    }
}

/// Values of fields in it are plain text: a pattern of some dots takes seconds to get
/// ready.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(text)
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The writer's thread does not start.
    #[error("cannot start the log writer: {0}")]
    Thread(#[from] io::Error),
    /// The process logs already.
    #[error("the log is already set up")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the events of the whole process to stdout from now on. Dropping the
/// guard waits, not for ever, until everything is written.
///
/// # Errors
/// The writer's thread does not start, or the process logs already.
pub fn init(settings: &Settings) -> Result<Guard, LogError> {
    let terminal = io::stdout().is_terminal();
    let form = match (settings.log_format, terminal) {
        (Some(LogFormat::Json), _) | (None, false) => LineForm::Json,
        (Some(LogFormat::Text), false) => LineForm::Plain,
        (Some(LogFormat::Text) | None, true) => LineForm::Coloured,
    };
    let (queue, guard) = queue::start(io::stdout(), form)?;
    let (subscriber, filter) = subscriber(&settings.log_level, form, queue);
    tracing::subscriber::set_global_default(subscriber)?;
    // Only the first to set a log up gets here.
    let _ = FILTER.set(filter);
    Ok(guard)
}

/// What decides which events are logged.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logs by another `LOG_LEVEL` from now on, if there is a log.
pub(super) fn follow(settings: &Settings) {
    if let (Some(handle), Ok(new)) = (FILTER.get(), filter(&settings.log_level.0)) {
        // It fails only when the log is gone.
        let _ = handle.reload(new);
    }
}

fn subscriber<W>(
    level: &LogLevel,
    form: LineForm,
    writer: W,
) -> (impl Subscriber + Send + Sync, Handle<EnvFilter, Registry>)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .fmt_fields(form)
        .event_format(form)
        .with_writer(writer);
    // It has been read before.
    let filter = filter(&level.0).unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    (registry().with(filter).with(lines), handle)
}
