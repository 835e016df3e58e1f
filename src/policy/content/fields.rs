//! The header fields that tell of a judgement, and those a sender may have
//! forged to look like one.

use std::collections::HashSet;

use super::{Change, Edits, Opinion, Place, Scanner, Settings, Word};

/// Spam filters write these, and mailboxes sort by them.
const SPAM_FIELDS: &[&str] = &["X-Spam", "X-Spam-*", "X-Spamd-*", "X-Rspamd-*"];

/// Virus filters write these.
const VIRUS_FIELDS: &[&str] = &["X-Virus", "X-Virus-*"];

const OWN_FIELDS: &str = "X-Portcullis-*";

/// Where a field is folded, in octets; RFC 5322 2.1.1 recommends 78.
const FOLD: usize = 76;

/// The width of the white space that begins a folded line.
const TAB: usize = 8;

/// Longest list of rules in `X-Spam-Status`, in octets.
const RULES_MAX: usize = 2000;

/// What is changed in a message of which the scanners said this. First the
/// scanners' own changes, then our fields, which therefore stand in front.
pub(super) fn edits(settings: &Settings, opinions: &[Opinion]) -> Edits {
    let said = |scanners: &[Scanner]| opinions.iter().any(|o| scanners.contains(&o.scanner));
    let mut remove = vec![OWN_FIELDS];
    let spam = spam_fields(settings, opinions);
    if said(&[Scanner::Spamassassin, Scanner::Rspamd]) || !spam.is_empty() {
        remove.extend(SPAM_FIELDS);
    }
    if said(&[Scanner::Clamav]) {
        remove.extend(VIRUS_FIELDS);
    }
    if opinions.is_empty() {
        remove.clear();
    }
    let asked = opinions.iter().flat_map(|opinion| opinion.changes.clone());
    let told = spam.into_iter().chain(scan_field(opinions));
    // Each one is put before those that are there already.
    let told = told.collect::<Vec<_>>().into_iter().rev();
    Edits {
        remove,
        changes: in_order(asked.collect()).into_iter().chain(told).collect(),
    }
}

/// The changes so that every index means the field that its scanner meant: all
/// scanners count the fields of the message as it came, so none may find it
/// with fields of another one's, or without those that another one had deleted.
fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| match change {
        Change::Set { .. } => (0, 0),
        Change::Delete {
            index: Some(index @ 1..),
            ..
        } => (1, u32::MAX - index),
        Change::Delete { .. } => (2, 0),
        Change::Add { .. } => (3, 0),
    });
    let mut deleted = HashSet::new();
    changes.retain(|change| match change {
        Change::Delete { name, index } => deleted.insert((name.to_ascii_lowercase(), *index)),
        _ => true,
    });
    changes
}

/// `X-Spam-Flag`, `X-Spam-Score` and `X-Spam-Status`, if there is a score or a mark.
fn spam_fields(settings: &Settings, opinions: &[Opinion]) -> Vec<Change> {
    let highest = super::highest_score(opinions);
    let tags: [super::Decision; 2] = [
        super::score_tags(settings, opinions),
        super::quarantine_tags(settings, opinions),
    ];
    let is_spam = tags.iter().any(Option::is_some)
        || highest.is_some_and(|(_, score)| settings.spam_reject.is_reached(score));
    if !is_spam && highest.is_none() {
        return Vec::new();
    }
    let (flag, answer) = if is_spam {
        ("YES", "Yes")
    } else {
        ("NO", "No")
    };
    let mut fields = vec![first("X-Spam-Flag", flag.to_owned())];
    let mut words = vec![format!("{answer}, ")];
    if let Some((scanner, score)) = highest {
        fields.push(first("X-Spam-Score", format!("{score:.1}")));
        words.push(format!("score={score:.1} "));
        if let Some(points) = settings.spam_tag.points() {
            words.push(format!("required={points:.1} "));
        }
        words.extend(tests(opinions, scanner));
        words.push(format!("scanner={scanner} "));
    }
    words.extend(opinions.iter().filter_map(|opinion| match opinion.word {
        Word::Quarantine(_) => Some(format!("quarantine={} ", opinion.scanner)),
        _ => None,
    }));
    fields.push(first(
        "X-Spam-Status",
        fold("X-Spam-Status: ".len(), &words),
    ));
    fields
}

/// `tests=A,B,C ` in pieces that may stand on lines of their own.
fn tests(opinions: &[Opinion], scanner: Scanner) -> Vec<String> {
    let rules = opinions.iter().find_map(|opinion| match &opinion.word {
        Word::Score { rules, .. } if opinion.scanner == scanner => Some(rules),
        _ => None,
    });
    let mut pieces = Vec::new();
    let mut length = 0;
    for rule in rules.into_iter().flatten() {
        let rule = rule.replace([' ', '\t', ','], "_");
        let rule = printable(&rule, FOLD - TAB - "tests=,".len());
        length += rule.len() + 1;
        if length > RULES_MAX {
            pieces.push("...,".to_owned());
            break;
        }
        pieces.push(format!("{rule},"));
    }
    match pieces.last_mut() {
        Some(last) => {
            last.pop();
            last.push(' ');
        }
        None => pieces.push("none ".to_owned()),
    }
    if let Some(first) = pieces.first_mut() {
        first.insert_str(0, "tests=");
    }
    pieces
}

/// `X-Portcullis-Scan`: which scanners did not judge the message, and which
/// would have had it refused if `MODE=monitor` did not deliver it all the same.
fn scan_field(opinions: &[Opinion]) -> Option<Change> {
    let state = |opinion: &Opinion| match opinion.word {
        _ if opinion.has_failed() => Some("failed"),
        Word::Unscanned => Some("unscanned"),
        Word::Infected(_) => Some("infected"),
        Word::Refuse { .. } => Some("refused"),
        Word::Defer { .. } => Some("deferred"),
        _ => None,
    };
    let told = |opinion| Some((state(opinion)?, opinion));
    let mut words: Vec<_> = opinions
        .iter()
        .filter_map(told)
        .map(|(state, opinion)| format!("{}={state}; ", opinion.scanner))
        .collect();
    let last = words.last_mut()?;
    last.truncate(last.trim_end_matches([';', ' ']).len());
    Some(first(
        "X-Portcullis-Scan",
        fold("X-Portcullis-Scan: ".len(), &words),
    ))
}

fn first(name: &str, value: String) -> Change {
    Change::Add {
        place: Place::First,
        name: name.to_owned(),
        value,
    }
}

/// Joins words, which carry the space behind them if one belongs there, into
/// lines that begin behind `taken` octets of name.
fn fold(taken: usize, words: &[String]) -> String {
    let mut value = String::new();
    let mut column = taken;
    for word in words {
        if !value.is_empty() && column + word.trim_end().len() > FOLD {
            value.truncate(value.trim_end().len());
            value.push_str("\r\n\t");
            column = TAB;
        }
        value.push_str(word);
        column += word.len();
    }
    value.truncate(value.trim_end().len());
    value
}

/// The text in printable ASCII, everything else `?`, no longer than `max` octets.
pub(super) fn printable(text: &str, max: usize) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().map(printable).take(max).collect()
}
