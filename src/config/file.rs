//! The TOML file: flat keys, the names of the settings in lower case.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::settings::{self, Origin, Problem, Reader};

settings::section! {
    /// Where else the configuration is read.
    pub struct Settings {
        /// TOML file with settings, each under its name in lower case.
        config: Option<PathBuf>, example "/etc/portcullis/portcullis.toml";
    }
}

/// Gives the reader what the configuration file holds, if one is named.
pub(super) fn give(reader: &mut Reader) {
    let Some(path) = Settings::read(reader).and_then(|settings| settings.config) else {
        return;
    };
    reader.from_file(&path);
    match read(&path) {
        Ok(table) => {
            for (key, value) in table {
                reader.give(Origin::File(path.clone()), &key, text(value));
            }
        }
        Err(what) => {
            if let Some(problem) = super::problem("config", &what) {
                reader.note(Problem {
                    value: Some(path.display().to_string()),
                    ..problem
                });
            }
        }
    }
}

fn read(path: &Path) -> Result<Table, String> {
    let content = settings::read_text(path)
        .map_err(|error| format!("names a file that cannot be read: {error}"))?;
    content.parse::<Table>().map_err(|error| {
        // Only the message and the place: the line itself may hold a secret.
        let before = error.span().and_then(|span| content.get(..span.start));
        let line = before.map_or(0, |text| text.matches('\n').count()) + 1;
        format!(
            "names a file that is not TOML: line {line}: {}",
            error.message()
        )
    })
}

/// The value as the environment would hold it.
fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
            let items = items.ok_or("is an array of something else than strings")?;
            Ok(items.join(","))
        }
        Value::Table(_) => Err("is a table: settings are flat keys".to_owned()),
        Value::Float(_) | Value::Datetime(_) => {
            Err(format!("is a {}: put it in quotes", value.type_str()))
        }
    }
}
