//! A change to a header section that a scanner asks for, and what makes it printable.

/// Longest line of a field, octets without CRLF (RFC 5322 2.1.1).
const LINE_MAX: usize = 998;

/// Longest field with its folded lines, octets.
const FIELD_MAX: usize = 64 * 1024;

/// A change to the header section, applied in order at delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Puts a field in.
    Add {
        /// Where among the others.
        place: Place,
        /// Its name.
        name: String,
        /// Its value, folded by CRLF and white space or not at all.
        value: String,
    },
    /// Replaces the nth (from 1) field of that name where it stands; an empty
    /// value deletes it, and one that does not exist is put last.
    Set {
        /// Its name; case does not count.
        name: String,
        /// Which of those with that name.
        index: u32,
        /// Its new value.
        value: String,
    },
    /// Takes fields out.
    Delete {
        /// Their name; case does not count.
        name: String,
        /// The nth (from 1) of that name; `None` and 0 stand for all.
        index: Option<u32>,
    },
}

/// Where a field is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others but the trace header fields of our own.
    First,
    /// After all others.
    Last,
    /// Before the field with this index (from 0), or last if there are not so many.
    At(u32),
}

/// Why a change cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// RFC 5322 3.6.8: printable ASCII without colon.
    #[error("the name is no field name")]
    Name,
    /// A control character, or a line end that is no folding.
    #[error("the value holds a control character or a line end that is no folding")]
    Value,
    /// A folded line of white space, which readers take for the end of the header section.
    #[error("the value holds an empty line")]
    EmptyLine,
    /// A line above 998 octets, or a field beyond reason.
    #[error("the value is too long")]
    TooLong,
}

impl Change {
    /// The change in the form in which it may be printed: folding is CRLF and
    /// white space.
    ///
    /// # Errors
    /// [`FieldError`] if there is no such form.
    pub fn checked(self) -> Result<Self, FieldError> {
        match self {
            Self::Add { place, name, value } => {
                let value = checked_value(checked_name(&name)?, &value)?;
                Ok(Self::Add { place, name, value })
            }
            Self::Set { name, index, value } => {
                let value = checked_value(checked_name(&name)?, &value)?;
                Ok(Self::Set { name, index, value })
            }
            Self::Delete { name, index } => {
                checked_name(&name)?;
                Ok(Self::Delete { name, index })
            }
        }
    }
}

/// RFC 5322 3.6.8, `ftext`.
pub(super) fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

fn checked_name(name: &str) -> Result<&str, FieldError> {
    let fits = !name.is_empty() && name.bytes().all(is_name_octet);
    if fits {
        Ok(name)
    } else {
        Err(FieldError::Name)
    }
}

fn checked_value(name: &str, value: &str) -> Result<String, FieldError> {
    let value = value.trim_end();
    if name.len() + value.len() > FIELD_MAX {
        return Err(FieldError::TooLong);
    }
    let mut lines = Vec::new();
    for (number, line) in value.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_first = number == 0;
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(FieldError::Value);
        }
        if !is_first && !line.starts_with([' ', '\t']) {
            return Err(FieldError::Value);
        }
        if !is_first && line.trim_ascii().is_empty() {
            return Err(FieldError::EmptyLine);
        }
        let before = if is_first { name.len() + ": ".len() } else { 0 };
        if before + line.len() > LINE_MAX {
            return Err(FieldError::TooLong);
        }
        lines.push(line);
    }
    Ok(lines.join("\r\n"))
}
