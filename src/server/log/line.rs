//! One event as one line, in JSON or in text.
//!
//! Whatever a field holds, the line stays one line: control characters are
//! escaped and every value is capped, so no client writes into the log.

use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::clean::{CAP, Clean, is_hidden};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineForm {
    /// A JSON object: timestamp, level, target, then every field.
    Json,
    /// Columns and `field=value`.
    Plain,
    /// The same, with the level in colour.
    Coloured,
}

impl<S, N> FormatEvent<S, N> for LineForm
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        self.begin(&mut line, *metadata.level(), metadata.target())?;
        self.format_fields(line.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line.write_str(fields.as_str())?;
            }
        }
        self.end(&mut line)
    }
}

impl<'writer> FormatFields<'writer> for LineForm {
    fn format_fields<R: RecordFields>(&self, line: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Fields {
            form: *self,
            line,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

impl LineForm {
    fn begin(self, line: &mut impl Write, level: Level, target: &str) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        match self {
            Self::Json => write!(
                line,
                r#"{{"timestamp":"{now}","level":"{level}","target":"{target}""#
            ),
            Self::Plain => write!(line, "{now} {level:<5} {target}"),
            Self::Coloured => {
                let colour = match level {
                    Level::ERROR => "31",
                    Level::WARN => "33",
                    Level::INFO => "32",
                    _ => "2",
                };
                write!(line, "{now} \x1b[{colour}m{level:<5}\x1b[0m {target}")
            }
        }
    }

    fn end(self, line: &mut impl Write) -> fmt::Result {
        line.write_str(if self == Self::Json { "}\n" } else { "\n" })
    }

    /// The line that owns up to lines which found the queue full.
    pub(super) fn dropped(self, lines: u64) -> String {
        let mut line = String::new();
        // Writing to a String does not fail.
        let _ = self.begin(&mut line, Level::WARN, module_path!());
        let _ = write!(
            line,
            "{}",
            match self {
                Self::Json => format!(r#","message":"log lines were dropped","lines":{lines}"#),
                Self::Plain | Self::Coloured => format!(" log lines were dropped lines={lines}"),
            }
        );
        let _ = self.end(&mut line);
        line
    }
}

/// Writes fields one after the other; each brings its own separator, so that
/// the fields of a span can be appended as they are.
struct Fields<'writer> {
    form: LineForm,
    line: Writer<'writer>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn text(&mut self, field: &Field, value: &str) {
        let written = match (self.form, field.name()) {
            (LineForm::Json, name) => self.json(name, |text| text.write_str(value)),
            (_, "message") => write!(self.line, " {}", Clean(value)),
            (_, name) if is_plain_word(value) => write!(self.line, " {name}={}", Clean(value)),
            (_, name) => write!(self.line, " {name}=\"{}\"", Clean(&quoted(value))),
        };
        self.result = self.result.and(written);
    }

    fn json(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut JsonText<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        for piece in [",\"", name, "\":\""] {
            self.line.write_str(piece)?;
        }
        let mut text = JsonText {
            line: &mut self.line,
            room: CAP,
            more: 0,
        };
        value(&mut text)?;
        match text.more {
            0 => self.line.write_char('"'),
            more => write!(self.line, "[{more} more]\""),
        }
    }

    /// Numbers and booleans, which JSON has too.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        let [before, behind] = match self.form {
            LineForm::Json => [",\"", "\":"],
            LineForm::Plain | LineForm::Coloured => [" ", "="],
        };
        for piece in [before, field.name(), behind] {
            self.result = self.result.and_then(|()| self.line.write_str(piece));
        }
        self.result = self.result.and_then(|()| write!(self.line, "{value}"));
    }
}

/// The inside of a JSON string, up to its cap.
struct JsonText<'a, 'writer> {
    line: &'a mut Writer<'writer>,
    /// Characters that still find room, and those that found none.
    room: usize,
    more: usize,
}

impl Write for JsonText<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let as_is = |octet: u8| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
        if text.len() <= self.room && text.bytes().all(as_is) {
            self.room -= text.len();
            return self.line.write_str(text);
        }
        let mut chars = text.chars();
        for c in chars.by_ref().take(self.room) {
            self.room -= 1;
            match c {
                '"' | '\\' => write!(self.line, "\\{c}")?,
                _ if is_hidden(c) => write!(self.line, "\\u{:04x}", u32::from(c))?,
                _ => self.line.write_char(c)?,
            }
        }
        self.more += chars.count();
        Ok(())
    }
}

/// Whether a value needs no quotes to be told from the fields around it.
fn is_plain_word(value: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '=');
    !value.is_empty() && !value.contains(odd)
}

fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match self.form {
            LineForm::Json => {
                let written = self.json(field.name(), |text| write!(text, "{value:?}"));
                self.result = self.result.and(written);
            }
            LineForm::Plain | LineForm::Coloured => self.text(field, &format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows neither infinity nor NaN.
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.text(field, &value.to_string());
        }
    }
}
