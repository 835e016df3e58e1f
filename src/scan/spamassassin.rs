//! SpamAssassin: asks spamd how much a message looks like spam (SPAMC/1.5, as
//! described in spamd's own PROTOCOL document).
//!
//! One connection per message, as spamd closes it behind its answer.

mod hop;

use tokio::io::AsyncWriteExt;

use super::hear::{Said, hear, nonsense, reported};
use super::{Message, ScanError, ServiceAddress};
use crate::policy::content::{Change, Opinion, Place, Scanner, Word};
use crate::settings::Value;

/// An answer names the rules hit, or describes each in a line or two.
const ANSWER_MAX: u64 = 64 * 1024;

/// Most rules that are taken from one answer.
const RULES_MAX: usize = 200;

/// Longest name of a rule, in octets.
const RULE_MAX: usize = 80;

/// Longest line of a report that is passed on, in octets: a header line may
/// have 998 with everything (RFC 5322 2.1.1).
const REPORT_LINE_MAX: usize = 200;

/// Most lines of a report that are passed on.
const REPORT_LINES_MAX: usize = 100;

/// A spamd.
#[derive(Clone, Debug)]
pub struct Spamassassin {
    address: ServiceAddress,
    user: Option<SpamdUser>,
    report: SpamdReport,
}

/// The user whose preferences spamd loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpamdUser(String);

impl Value for SpamdUser {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 256 || !text.bytes().all(|o| o.is_ascii_graphic()) {
            return Err("is not a user name: printable ASCII without spaces".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether spamd's own account of the rules hit goes into the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpamdReport {
    /// As a field `X-Spam-Report`.
    Added,
    /// Not at all.
    Omitted,
}

impl Value for SpamdReport {
    fn parse(text: &str) -> Result<Self, String> {
        let added = bool::parse(text)?;
        Ok(if added { Self::Added } else { Self::Omitted })
    }
}

impl SpamdReport {
    /// What spamd is asked for: the names of the rules, or a text about them.
    fn verb(self) -> &'static str {
        match self {
            Self::Added => "REPORT",
            Self::Omitted => "SYMBOLS",
        }
    }
}

impl Spamassassin {
    /// The spamd that listens at `address`. Connects to nothing yet.
    pub fn new(address: ServiceAddress, user: Option<SpamdUser>, report: SpamdReport) -> Self {
        Self {
            address,
            user,
            report,
        }
    }

    /// Has one message scored.
    ///
    /// # Errors
    /// When spamd cannot be reached, breaks off, reports a failure or is
    /// unintelligible.
    pub async fn scan(&self, message: &Message<'_>) -> Result<Opinion, ScanError> {
        let mut hop = hop::hop(message);
        let mut body = message.body.reader();
        let first = body.next().await?.unwrap_or_default();
        if matches!(first.first(), Some(b' ' | b'\t')) {
            // It would continue the field.
            hop.push_str("\r\n");
        }
        let head = self.head(message, &hop);
        let (reader, mut writer) = tokio::io::split(self.address.connect().await?);
        let saying = async {
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(hop.as_bytes()).await?;
            writer.write_all(&first).await?;
            while let Some(piece) = body.next().await? {
                writer.write_all(&piece).await?;
            }
            writer.shutdown().await
        };
        let heard = hear(reader, saying, ANSWER_MAX).await?;
        let opinion = self.opinion(&heard.answer)?;
        if heard.said == Said::Part {
            let what = "scores what it has not seen all of";
            return Err(ScanError::Protocol(what.to_owned()));
        }
        Ok(opinion)
    }

    /// Reads a whole answer to a message. No I/O.
    ///
    /// # Errors
    /// When it reports a failure or is unintelligible.
    pub fn opinion(&self, answer: &[u8]) -> Result<Opinion, ScanError> {
        let answer = Answer::parse(answer)?;
        let (rules, changes) = match self.report {
            SpamdReport::Omitted => (rules_of(answer.body.split(',')), Vec::new()),
            SpamdReport::Added => {
                let table = table(&answer.body);
                let names = table.lines().filter_map(rule_of_row);
                (rules_of(names), report(table).into_iter().collect())
            }
        };
        Ok(Opinion {
            scanner: Scanner::Spamassassin,
            word: Word::Score {
                score: answer.score,
                threshold: Some(answer.threshold),
                rules,
            },
            changes,
        })
    }

    /// Asks whether spamd is there. Returns its answer, `PONG`.
    ///
    /// # Errors
    /// When it cannot be reached or answers anything else.
    pub async fn ping(&self) -> Result<String, ScanError> {
        let (reader, mut writer) = tokio::io::split(self.address.connect().await?);
        let saying = async {
            writer.write_all(b"PING SPAMC/1.5\r\n\r\n").await?;
            writer.shutdown().await
        };
        let answer = hear(reader, saying, ANSWER_MAX).await?.answer;
        let text = String::from_utf8_lossy(&answer);
        match status(text.lines().next().unwrap_or_default()) {
            Some((0, "PONG")) => Ok("PONG".to_owned()),
            _ => Err(nonsense("no PONG but", &answer)),
        }
    }

    /// The request up to the message, and what is put before the message.
    fn head(&self, message: &Message<'_>, hop: &str) -> String {
        let envelope = hop::envelope_from(message.sender);
        let before = hop.len().saturating_add(envelope.len());
        let before = u64::try_from(before).unwrap_or(u64::MAX);
        let length = message.body.len().saturating_add(before);
        let user = match &self.user {
            Some(SpamdUser(name)) => format!("User: {name}\r\n"),
            None => String::new(),
        };
        let verb = self.report.verb();
        format!("{verb} SPAMC/1.5\r\nContent-length: {length}\r\n{user}\r\n{envelope}")
    }
}

/// spamd's answer to a message: both numbers are finite.
#[derive(Debug)]
struct Answer {
    score: f64,
    threshold: f64,
    body: String,
}

impl Answer {
    fn parse(answer: &[u8]) -> Result<Self, ScanError> {
        // Some errors come without the empty line.
        let end = memchr::memmem::find(answer, b"\r\n\r\n").unwrap_or(answer.len());
        let (head, rest) = answer.split_at_checked(end).unwrap_or_default();
        let body = rest.strip_prefix(b"\r\n\r\n").unwrap_or_default();
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        match lines.next().and_then(status) {
            Some((0, _)) => {}
            Some((_, what)) => return Err(reported(what.as_bytes())),
            None => return Err(nonsense("no answer of spamd", answer)),
        }
        let (mut length, mut spam) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("Content-length") {
                length = Some(value.trim());
            } else if name.eq_ignore_ascii_case("Spam") {
                spam = Some(value.trim());
            }
        }
        if length.is_some_and(|length| length.parse() != Ok(body.len())) {
            return Err(nonsense("its answer is cut off", answer));
        }
        let spam = spam.ok_or_else(|| nonsense("no score", answer))?;
        let (score, threshold) =
            scores(spam).ok_or_else(|| nonsense("unintelligible score", spam.as_bytes()))?;
        Ok(Self {
            score,
            threshold,
            body: String::from_utf8_lossy(body).into_owned(),
        })
    }
}

/// `SPAMD/1.5 0 EX_OK`: the exit code and what it is called.
fn status(line: &str) -> Option<(u16, &str)> {
    let (_version, rest) = line.strip_prefix("SPAMD/")?.split_once(' ')?;
    let (code, what) = rest.trim_start().split_once(' ')?;
    Some((code.parse().ok()?, what.trim()))
}

/// `True ; 15.3 / 5.0`: points and threshold. Whether it is spam follows from
/// them.
fn scores(value: &str) -> Option<(f64, f64)> {
    let (spam, numbers) = value.split_once(';')?;
    if !["True", "False", "Yes", "No"].contains(&spam.trim()) {
        return None;
    }
    let (score, threshold) = numbers.split_once('/')?;
    // `parse` also takes `inf` and `NaN`.
    let finite = |text: &str| text.trim().parse().ok().filter(|n: &f64| n.is_finite());
    Some((finite(score)?, finite(threshold)?))
}

/// The names that a rule can have, out of those given.
fn rules_of<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_rule = |name: &&str| {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_';
        (1..=RULE_MAX).contains(&name.len()) && name.bytes().all(plain)
    };
    names
        .map(str::trim)
        .filter(is_rule)
        .take(RULES_MAX)
        .map(str::to_owned)
        .collect()
}

/// The rows of a report: one for each rule, below a line of dashes. The last
/// such line, because a preview of the message stands above.
fn table(report: &str) -> &str {
    let below = report.rsplit_once("\n----").map(|(_, below)| below);
    below
        .and_then(|below| below.split_once('\n'))
        .map_or("", |(_, rows)| rows)
}

/// The rule of a row `<points> <rule> <description>`; a row that goes on with
/// the description above has none.
fn rule_of_row(row: &str) -> Option<&str> {
    let mut words = row.split_whitespace();
    let _points: f64 = words.next()?.parse().ok()?;
    words.next()
}

/// The rows as a header field, one on a line, in printable ASCII.
fn report(table: &str) -> Option<Change> {
    let line = |row: &str| {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        let text: String = row.chars().take(REPORT_LINE_MAX).map(printable).collect();
        format!("* {text}")
    };
    let rows = table.lines().map(str::trim_end);
    let lines: Vec<String> = rows
        .filter(|row| !row.is_empty())
        .take(REPORT_LINES_MAX)
        .map(line)
        .collect();
    (!lines.is_empty()).then(|| Change::Add {
        place: Place::First,
        name: "X-Spam-Report".to_owned(),
        value: lines.join("\r\n "),
    })
}

#[cfg(test)]
mod tests;
