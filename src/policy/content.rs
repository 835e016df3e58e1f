//! The judgement of a message: what the scanners said becomes one verdict and
//! the header fields that tell of it.
//!
//! The rules stand in one table, the strongest first: a refusal beats a
//! deferral, a deferral beats a mark. A scanner that failed is a fact like any
//! other, so whether mail passes without it is a rule to be read here. A score
//! that is no finite number is a failure of its scanner and is never compared.

use std::fmt;

use crate::settings::{Value, choice};
use crate::smtp::reply::{EnhancedCode, Reply};

pub use crate::smtp::header::{Change, Edits, FieldError, Place};

mod fields;
#[cfg(test)]
mod tests;

crate::settings::section! {
    /// What is done about spam, and about a scanner that gives no answer.
    pub struct Settings {
        /// Score from which a message is marked as spam in its header; `off` for never. `X-Spam-Flag`, `X-Spam-Score` and `X-Spam-Status` tell the score of every message.
        spam_tag: Threshold = "5", example "6.5";
        /// Score from which a message is refused (`550 5.7.1`); `off` for never.
        spam_reject: Threshold = "15", example "12";
        /// When a scanner is down, late or talks nonsense: `tempfail` (`451 4.7.1`, the sender tries again) or `open` (the message passes, and `X-Portcullis-Scan` names the scanner).
        scan_fail: ScanFail = "tempfail", example "open";
    }
}

/// A spam score from which something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold(Option<f64>);

impl Threshold {
    /// The score, always finite; `None` for never.
    pub fn points(self) -> Option<f64> {
        self.0
    }

    fn is_reached(self, score: f64) -> bool {
        self.0.is_some_and(|points| score >= points)
    }
}

impl Value for Threshold {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        // Rust reads `inf`, `nan` and `1e9` as numbers too.
        let is_plain = text
            .bytes()
            .all(|octet| matches!(octet, b'0'..=b'9' | b'.' | b'-'));
        let points = text.parse().ok().filter(|points: &f64| points.is_finite());
        match points {
            Some(points) if is_plain => Ok(Self(Some(points))),
            _ => Err("is neither a score nor off".to_owned()),
        }
    }
}

/// What becomes of a message that a scanner could not judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanFail {
    /// The sender is told to try again.
    Tempfail,
    /// It passes.
    Open,
}

impl Value for ScanFail {
    fn parse(text: &str) -> Result<Self, String> {
        choice(text, &[("tempfail", Self::Tempfail), ("open", Self::Open)])
    }
}

/// What one scanner said.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// Whose opinion it is.
    pub scanner: Scanner,
    /// What it thinks of the message.
    pub word: Word,
    /// What it wants changed if the message is delivered.
    pub changes: Vec<Change>,
}

/// One of the scanners that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scanner {
    /// spamd.
    Spamassassin,
    /// clamd.
    Clamav,
    /// rspamd.
    Rspamd,
    /// The milter at this position (from 0) of `MILTERS`.
    Milter(u8),
}

impl fmt::Display for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spamassassin => f.write_str("spamassassin"),
            Self::Clamav => f.write_str("clamav"),
            Self::Rspamd => f.write_str("rspamd"),
            Self::Milter(position) => write!(f, "milter-{}", u16::from(*position) + 1),
        }
    }
}

/// What a scanner thinks of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// Nothing against it.
    Clean,
    /// Malware, with the scanner's name for it.
    Infected(String),
    /// A spam score.
    Score {
        /// Points; more is worse.
        score: f64,
        /// Where the scanner itself would draw the line.
        threshold: Option<f64>,
        /// The rules hit.
        rules: Vec<String>,
    },
    /// The scanner wants it refused for good.
    Refuse {
        /// In its own words, if it gave some.
        reply: Option<Reply>,
    },
    /// The scanner wants it refused for now.
    Defer {
        /// In its own words, if it gave some.
        reply: Option<Reply>,
    },
    /// The scanner wants it set aside, or marked whatever its score; why.
    Quarantine(String),
    /// The scanner did not look: the message is too large for it.
    Unscanned,
    /// Down, late or talking nonsense; which of them.
    Failed(String),
}

impl Opinion {
    /// An opinion that asks for no change.
    pub fn new(scanner: Scanner, word: Word) -> Self {
        Self {
            scanner,
            word,
            changes: Vec::new(),
        }
    }

    /// What it says, without any words of the scanner's own.
    pub fn brief(&self) -> String {
        match &self.word {
            Word::Quarantine(_) => format!("{} quarantine", self.scanner),
            Word::Failed(_) => format!("{} failed", self.scanner),
            _ => self.to_string(),
        }
    }

    /// The score, if it is a number that can be compared.
    fn score(&self) -> Option<f64> {
        match self.word {
            Word::Score { score, .. } if score.is_finite() => Some(score),
            _ => None,
        }
    }

    fn has_failed(&self) -> bool {
        match self.word {
            Word::Failed(_) => true,
            Word::Score { .. } => self.score().is_none(),
            _ => false,
        }
    }
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.scanner)?;
        match &self.word {
            Word::Clean => f.write_str("clean"),
            Word::Infected(name) => write!(f, "infected {}", fields::printable(name, 100)),
            Word::Score { score, .. } => write!(f, "score {score:.1}"),
            Word::Refuse { .. } => f.write_str("refuse"),
            Word::Defer { .. } => f.write_str("defer"),
            Word::Quarantine(why) => write!(f, "quarantine {}", fields::printable(why, 100)),
            Word::Unscanned => f.write_str("unscanned"),
            Word::Failed(how) => write!(f, "failed {}", fields::printable(how, 200)),
        }
    }
}

/// What becomes of a message, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What becomes of it.
    pub verdict: ContentVerdict,
    /// What decided; `None` if nothing was found.
    pub finding: Option<ContentFinding>,
    /// The changes with which it is delivered, if it is: `MODE=monitor` may
    /// deliver what is refused here.
    pub edits: Edits,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentVerdict {
    /// It is delivered.
    Pass,
    /// It is delivered and marked as spam.
    Tag,
    /// The sender shall try again.
    Defer(Reply),
    /// It is refused for good.
    Refuse(Reply),
}

/// What decided about a message.
#[derive(Clone, Debug, PartialEq)]
pub enum ContentFinding {
    /// Malware of this name.
    Infected(Scanner, String),
    /// A scanner's own refusal.
    Refused(Scanner),
    /// The highest score.
    Spam(Scanner, f64),
    /// A scanner's own deferral.
    Deferred(Scanner),
    /// A scanner's wish to have it set aside or marked; why.
    Quarantined(Scanner, String),
    /// A scanner's failure; which.
    Failed(Scanner, String),
    /// A scanner did not look.
    Unscanned(Scanner),
}

impl ContentFinding {
    /// Its kind in a word, for a metric or a log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Infected(..) => "infected",
            Self::Refused(..) => "refused-by-scanner",
            Self::Spam(..) => "spam",
            Self::Deferred(..) => "deferred-by-scanner",
            Self::Quarantined(..) => "quarantined",
            Self::Failed(..) => "scanner-failed",
            Self::Unscanned(..) => "unscanned",
        }
    }
}

impl fmt::Display for ContentFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infected(scanner, name) => write!(f, "{scanner} found {name}"),
            Self::Refused(scanner) => write!(f, "{scanner} refuses it"),
            Self::Spam(scanner, score) => write!(f, "{scanner} gives it {score:.1}"),
            Self::Deferred(scanner) => write!(f, "{scanner} defers it"),
            Self::Quarantined(scanner, why) => write!(f, "{scanner} quarantines it: {why}"),
            Self::Failed(scanner, how) => write!(f, "{scanner} failed: {how}"),
            Self::Unscanned(scanner) => write!(f, "{scanner} did not look"),
        }
    }
}

/// What a rule decides, if it has an opinion.
type Decision = Option<(ContentVerdict, ContentFinding)>;

/// The strongest first; the first that has an opinion decides.
const RULES: &[fn(&Settings, &[Opinion]) -> Decision] = &[
    infected,
    refused_by_scanner,
    score_refuses,
    deferred_by_scanner,
    failure_defers,
    score_tags,
    quarantine_tags,
    failure_passes,
    unscanned_passes,
];

/// Judges a message by what the scanners said of it.
pub fn judge_content(settings: &Settings, opinions: &[Opinion]) -> Judgement {
    let decision = RULES.iter().find_map(|rule| rule(settings, opinions));
    let (verdict, finding) = match decision {
        Some((verdict, finding)) => (verdict, Some(finding)),
        None => (ContentVerdict::Pass, None),
    };
    let edits = fields::edits(settings, opinions);
    Judgement {
        verdict,
        finding,
        edits,
    }
}

fn infected(_: &Settings, opinions: &[Opinion]) -> Decision {
    opinions.iter().find_map(|opinion| match &opinion.word {
        Word::Infected(name) => {
            let name = fields::printable(name, 100);
            Some((
                refuse(554, &format!("Malware found: {name}")),
                ContentFinding::Infected(opinion.scanner, name),
            ))
        }
        _ => None,
    })
}

fn refused_by_scanner(_: &Settings, opinions: &[Opinion]) -> Decision {
    opinions.iter().find_map(|opinion| match &opinion.word {
        Word::Refuse { reply } => {
            let own = reply.clone().filter(Reply::is_permanent);
            let verdict = own.map_or_else(
                || refuse(550, "Message refused by content filter"),
                ContentVerdict::Refuse,
            );
            Some((verdict, ContentFinding::Refused(opinion.scanner)))
        }
        _ => None,
    })
}

fn score_refuses(settings: &Settings, opinions: &[Opinion]) -> Decision {
    let (scanner, score) = highest_score(opinions)?;
    settings.spam_reject.is_reached(score).then(|| {
        let text = format!("Message refused as spam, score {score:.1}");
        (refuse(550, &text), ContentFinding::Spam(scanner, score))
    })
}

fn deferred_by_scanner(_: &Settings, opinions: &[Opinion]) -> Decision {
    opinions.iter().find_map(|opinion| match &opinion.word {
        Word::Defer { reply } => {
            let own = reply.clone().filter(Reply::is_transient);
            let verdict = own.map_or_else(
                || defer("Message deferred by content filter, try again later"),
                ContentVerdict::Defer,
            );
            Some((verdict, ContentFinding::Deferred(opinion.scanner)))
        }
        _ => None,
    })
}

fn failure_defers(settings: &Settings, opinions: &[Opinion]) -> Decision {
    let finding = failure(opinions).filter(|_| settings.scan_fail == ScanFail::Tempfail)?;
    let verdict = defer("Message cannot be checked at the moment, try again later");
    Some((verdict, finding))
}

fn score_tags(settings: &Settings, opinions: &[Opinion]) -> Decision {
    let (scanner, score) = highest_score(opinions)?;
    let finding = ContentFinding::Spam(scanner, score);
    let is_spam = settings.spam_tag.is_reached(score);
    is_spam.then_some((ContentVerdict::Tag, finding))
}

fn quarantine_tags(_: &Settings, opinions: &[Opinion]) -> Decision {
    opinions.iter().find_map(|opinion| match &opinion.word {
        Word::Quarantine(why) => {
            let why = fields::printable(why, 100);
            let finding = ContentFinding::Quarantined(opinion.scanner, why);
            Some((ContentVerdict::Tag, finding))
        }
        _ => None,
    })
}

fn failure_passes(settings: &Settings, opinions: &[Opinion]) -> Decision {
    let finding = failure(opinions).filter(|_| settings.scan_fail == ScanFail::Open)?;
    Some((ContentVerdict::Pass, finding))
}

fn unscanned_passes(_: &Settings, opinions: &[Opinion]) -> Decision {
    let opinion = opinions
        .iter()
        .find(|opinion| opinion.word == Word::Unscanned)?;
    let finding = ContentFinding::Unscanned(opinion.scanner);
    Some((ContentVerdict::Pass, finding))
}

/// Scanners count differently; the most suspicious one is believed.
fn highest_score(opinions: &[Opinion]) -> Option<(Scanner, f64)> {
    let scores = opinions
        .iter()
        .filter_map(|opinion| Some((opinion.scanner, opinion.score()?)));
    scores.max_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn failure(opinions: &[Opinion]) -> Option<ContentFinding> {
    let opinion = opinions.iter().find(|opinion| opinion.has_failed())?;
    let how = match &opinion.word {
        Word::Failed(how) => fields::printable(how, 200),
        _ => "its score is no number".to_owned(),
    };
    Some(ContentFinding::Failed(opinion.scanner, how))
}

fn refuse(code: u16, text: &str) -> ContentVerdict {
    ContentVerdict::Refuse(Reply::new(code, EnhancedCode::new(5, 7, 1), text))
}

fn defer(text: &str) -> ContentVerdict {
    ContentVerdict::Defer(Reply::new(451, EnhancedCode::new(4, 7, 1), text))
}
