//! What rspamd answers to `/checkv2`, read into opinions. No I/O. A member that is
//! read must be one of those that the excerpt keeps.
//!
//! Actions: `reject` and `discard` are refusals (Portcullis never swallows
//! mail), `soft reject` is a deferral, `add header`, `rewrite subject` and
//! actions of an admin's own are marks. `greylist` is none of these: where
//! rspamd's greylisting is at work it says `soft reject`, and `greylist` means
//! that nobody remembers the message, so that it would be deferred for ever.
//! rspamd's own milter delivers it, too. `is_skipped` means nothing: it is true
//! of whatever was decided without all rules, GTUBE's refusal among them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::ScanError;
use crate::policy::content::{Change, Opinion, Place, Scanner, Word};
use crate::smtp::reply::{EnhancedCode, Reply};

/// Most rules that are told of.
const RULES_MAX: usize = 200;

/// Most changes that are taken.
const CHANGES_MAX: usize = 200;

/// Longest text in which rspamd explains itself to the client, characters.
const MESSAGE_MAX: usize = 400;

/// Octets of a text that fit one encoded word of 75 (RFC 2047 2).
const ENCODED_WORD: usize = 45;

/// The opinions that an answer holds: the score, then the action.
///
/// # Errors
/// [`ScanError::Protocol`] if it is no answer of rspamd's.
pub(super) fn opinions(answer: &[u8]) -> Result<Vec<Opinion>, ScanError> {
    let nonsense = |what: &str| ScanError::Protocol(what.to_owned());
    // Octets of the message that are no UTF-8 must not cost the verdict.
    let answer = String::from_utf8_lossy(answer);
    let answer: Map<String, Value> =
        serde_json::from_str(&answer).map_err(|_| nonsense("its answer is no JSON object"))?;
    let opinion = |word| Opinion::new(Scanner::Rspamd, word);
    let action = answer.get("action").and_then(Value::as_str);
    let action = action.ok_or_else(|| nonsense("its answer names no action"))?;
    let score = answer.get("score").and_then(Value::as_f64);
    let score = score.ok_or_else(|| nonsense("its answer has no score"))?;
    let rules = answer.get("symbols").and_then(Value::as_object);
    let rules = rules.into_iter().flat_map(Map::keys).take(RULES_MAX);
    let mut scored = opinion(Word::Score {
        score,
        threshold: answer.get("required_score").and_then(Value::as_f64),
        rules: rules.cloned().collect(),
    });
    if let Some(milter) = answer.get("milter").and_then(Value::as_object) {
        scored.changes = changes(milter);
    }
    let signatures = answer.get("dkim-signature").map(one_or_many);
    // Each comes to stand before the one put in before.
    let signatures = signatures.into_iter().flatten().rev();
    let signatures = signatures.filter_map(signature);
    scored.changes.extend(signatures.take(CHANGES_MAX));
    if let Some(subject) = answer.get("subject").and_then(Value::as_str)
        && action == "rewrite subject"
    {
        scored.changes.push(Change::Set {
            name: "Subject".to_owned(),
            index: 1,
            value: encoded(subject),
        });
    }
    let word = match action {
        "no action" | "greylist" => None,
        "reject" | "discard" => Some(Word::Refuse {
            reply: reply(&answer, 550, EnhancedCode::new(5, 7, 1)),
        }),
        "soft reject" => Some(Word::Defer {
            reply: reply(&answer, 451, EnhancedCode::new(4, 7, 1)),
        }),
        other => Some(Word::Quarantine(other.to_owned())),
    };
    let acted = word.map(opinion);
    Ok(std::iter::once(scored).chain(acted).collect())
}

/// The words that rspamd wants the client to hear.
fn reply(answer: &Map<String, Value>, code: u16, enhanced: EnhancedCode) -> Option<Reply> {
    let text = answer.get("messages")?.get("smtp_message")?.as_str()?;
    let text: String = text.trim().chars().take(MESSAGE_MAX).collect();
    if text.is_empty() {
        return None;
    }
    // An enhanced code at the front of the text is its own choice.
    let own = Reply::new(code, None, &text);
    match own.enhanced() {
        Some(_) => Some(own),
        None => Some(Reply::new(code, enhanced, &text)),
    }
}

/// `remove_headers`, then `add_headers`, in which a value is a text, an
/// object with `value` and `order`, or a list of these. Not: changes of sender
/// and recipients, which were settled with the backend before.
fn changes(milter: &Map<String, Value>) -> Vec<Change> {
    let fields = |key| {
        let fields = milter.get(key).and_then(Value::as_object);
        fields.into_iter().flatten()
    };
    let removed = fields("remove_headers").filter_map(|(name, index)| {
        // One counted from the end is left alone: nothing here counts so.
        let index = index.as_u64().and_then(|index| u32::try_from(index).ok())?;
        Some(Change::Delete {
            name: name.clone(),
            index: Some(index).filter(|index| *index > 0),
        })
    });
    let added = fields("add_headers").flat_map(|(name, value)| {
        let values = one_or_many(value).iter();
        values.filter_map(|value| added(name, value))
    });
    removed.chain(added).take(CHANGES_MAX).collect()
}

fn one_or_many(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        single => std::slice::from_ref(single),
    }
}

/// What rspamd signed the message with, folded as the message is.
fn signature(value: &Value) -> Option<Change> {
    Some(Change::Add {
        place: Place::First,
        name: "DKIM-Signature".to_owned(),
        value: value.as_str()?.to_owned(),
    })
}

/// Its place is its `order` or, by another name, its `index`. An order counted
/// from the end is taken for the end itself: -1, the only one that rspamd's own
/// modules use, means just that.
fn added(name: &str, value: &Value) -> Option<Change> {
    let text = value.as_str().or_else(|| value.get("value")?.as_str())?;
    let order = value.get("order").or_else(|| value.get("index"));
    let order = order.and_then(Value::as_u64);
    let place = order.and_then(|order| u32::try_from(order).ok());
    Some(Change::Add {
        place: place.map_or(Place::Last, Place::At),
        name: name.to_owned(),
        value: text.to_owned(),
    })
}

/// A subject in ASCII: as it is, or in encoded words (RFC 2047).
fn encoded(text: &str) -> String {
    if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) && text.len() < 900 {
        return text.to_owned();
    }
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= ENCODED_WORD => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let encode = |word: &String| format!("=?UTF-8?B?{}?=", STANDARD.encode(word));
    let words: Vec<_> = words.iter().map(encode).collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests;
