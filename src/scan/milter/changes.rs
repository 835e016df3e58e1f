//! The changes of header fields that a filter asks for at the end of a message.
//!
//! Must never let through a change that cannot be printed as it is meant, nor
//! hold more than its bounds.

use super::packet::Answer;
use crate::policy::content::{Change, Place};
use crate::scan::ScanError;
use crate::settings::clean::Clean;

/// Most changes of header fields by one filter in one message.
const CHANGES_MAX: usize = 1000;

/// Most octets of names and values in them.
const HEADER_MAX: usize = 1024 * 1024;

/// Longest reason for a quarantine, in characters.
const REASON_MAX: usize = 200;

/// How the changes of one filter are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    /// Our trace header field, or empty.
    pub(super) trace: &'a [u8],
    /// Values begin with the space behind the colon (`SMFIP_HDR_LEADSPC`).
    pub(super) leading_space: bool,
}

/// What one filter asked for so far.
#[derive(Debug, Default)]
pub(super) struct Changes {
    list: Vec<Change>,
    header_octets: usize,
    asked: usize,
    quarantine: Option<String>,
}

impl Changes {
    /// Takes one more in.
    ///
    /// # Errors
    /// An answer that is no change, or beyond the bounds.
    pub(super) fn take(&mut self, answer: Answer, reading: Reading<'_>) -> Result<(), ScanError> {
        match answer {
            Answer::AddHeader { name, value } => self.header(&name, &value, |name, value| {
                let value = reading.value(value);
                let place = Place::Last;
                Change::Add { place, name, value }
            }),
            Answer::InsertHeader { index, name, value } => {
                self.header(&name, &value, |name, value| {
                    let value = reading.value(value);
                    let place = reading.place(index);
                    Change::Add { place, name, value }
                })
            }
            Answer::ChangeHeader { index, name, value } => {
                self.header(&name, &value, |name, value| {
                    let index = reading.index(&name, index);
                    let value = reading.value(value);
                    match value.is_empty() {
                        true => Change::Delete {
                            name,
                            index: Some(index),
                        },
                        false => Change::Set { name, index, value },
                    }
                })
            }
            Answer::Quarantine(reason) => {
                let reason = String::from_utf8_lossy(&reason);
                let reason = reason.chars().take(REASON_MAX).collect::<String>();
                self.quarantine = Some(Clean(&reason).to_string());
                Ok(())
            }
            Answer::ChangeEnvelope(octet) => {
                let what = match octet {
                    b'+' | b'2' => "add a recipient",
                    b'-' => "take out a recipient",
                    _ => "change the sender",
                };
                // Messages may be written so that it wishes this: that must not
                // take it away from all others.
                Err(ScanError::Reported(format!(
                    "wants to {what}, which was not offered"
                )))
            }
            _ => Err(ScanError::Protocol(
                "an answer that does not fit the end of the message".to_owned(),
            )),
        }
    }

    /// The reason for a quarantine, if one was asked for, and all changes in order.
    pub(super) fn into_parts(self) -> (Option<String>, Vec<Change>) {
        (self.quarantine, self.list)
    }

    /// Adds a change of one field, unless name or value cannot stand in a message.
    fn header(
        &mut self,
        name: &[u8],
        value: &[u8],
        change: impl FnOnce(String, String) -> Change,
    ) -> Result<(), ScanError> {
        self.asked += 1;
        self.header_octets += name.len() + value.len();
        if self.asked > CHANGES_MAX || self.header_octets > HEADER_MAX {
            // A message may be written so that it wishes this, too.
            return Err(ScanError::Reported("too many changes".to_owned()));
        }
        let text = |octets| String::from_utf8_lossy(octets).into_owned();
        match change(text(name), text(value)).checked() {
            Ok(change) => self.list.push(change),
            Err(error) => {
                let field = text(name);
                tracing::warn!(field = %Clean(&field), %error, "a milter's change of a header field was dropped");
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// Filters that do not see the space write none: it belongs to the printing.
    fn value(self, value: String) -> String {
        match value.strip_prefix(' ') {
            Some(rest) if self.leading_space => rest.to_owned(),
            _ => value,
        }
    }

    /// Filters count positions with the server's own trace field as the first.
    /// Without one of ours it will be the backend's, out of reach before all else.
    fn place(self, index: u32) -> Place {
        match (index, self.trace) {
            (0, _) | (1, []) => Place::First,
            (index, []) => Place::At(index - 1),
            (index, _) => Place::At(index),
        }
    }

    /// Filters are not shown our trace field, so they do not count it. 0 means
    /// the first one too, as with Sendmail.
    fn index(self, name: &str, index: u32) -> u32 {
        let is_ours = self
            .trace
            .split(|octet| *octet == b':')
            .next()
            .is_some_and(|ours| ours.eq_ignore_ascii_case(name.as_bytes()));
        index.max(1).saturating_add(u32::from(is_ours))
    }
}

#[cfg(test)]
mod tests;
