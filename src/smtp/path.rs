//! Mailboxes, domains, address literals and the two kinds of path (RFC 5321 4.1.2).
//!
//! Must never print an octet it did not understand: what one server reads as
//! a local address must not be a foreign one for the next.

mod domain;
mod literal;
mod local_part;

pub use domain::Domain;
pub use literal::AddressLiteral;
pub use local_part::LocalPart;

use std::fmt;

/// Longest mailbox in octets as printed: a path of 256 without its brackets
/// (RFC 5321 4.5.3.1.3).
const MAILBOX_MAX: usize = 254;

/// Longest path with a source route in octets: the longest command line of
/// RFC 5321 4.5.3.1.4 has no room for more.
const ROUTED_PATH_MAX: usize = 512;

const HELO_NAME_MAX: usize = 255;

/// Why a text is not the address it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(pub &'static str);

/// What a client calls itself: a domain, an address literal, or a sloppy name
/// made of harmless characters. 1..=255 octets of ASCII graphic characters
/// other than `()<>,;"\@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(String);

impl HeloName {
    /// Takes the name as it stands behind HELO or EHLO.
    ///
    /// # Errors
    /// When it is empty, too long or holds another character.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let harmless = |octet: u8| octet.is_ascii_graphic() && !br#"()<>,;"\@"#.contains(&octet);
        if text.is_empty() || text.len() > HELO_NAME_MAX {
            return Err(AddressError("a name of 1 to 255 octets is due"));
        }
        if !text.bytes().all(harmless) {
            return Err(AddressError("forbidden character in the name"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name of a machine that knows no better one.
    pub fn localhost() -> Self {
        Self("localhost".to_owned())
    }

    /// The name as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `<>` or a mailbox. A source route is parsed, checked, and never printed
/// (RFC 5321 F.2); `MAIL` keeps none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: no bounce may be sent.
    Null,
    /// Where bounces go.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses a path with its angle brackets.
    ///
    /// # Errors
    /// When it is neither `<>` nor a mailbox in brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let inside = inside_brackets(text)?;
        if inside.is_empty() {
            return Ok(Self::Null);
        }
        let (_route, mailbox) = routed_mailbox(inside)?;
        Ok(Self::Mailbox(mailbox))
    }

    /// The mailbox, unless the path is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

/// `<postmaster>` without a domain, or a mailbox with the route it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// Always accepted (RFC 5321 4.5.1).
    Postmaster,
    /// A recipient.
    Mailbox {
        /// The hosts of a source route, mostly none (RFC 5321 C).
        route: Vec<Domain>,
        /// The destination.
        mailbox: Mailbox,
    },
}

impl ForwardPath {
    /// Parses a path with its angle brackets.
    ///
    /// # Errors
    /// When it is neither `<postmaster>` nor a mailbox in brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let inside = inside_brackets(text)?;
        if inside.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        let (route, mailbox) = routed_mailbox(inside)?;
        let path = Self::Mailbox { route, mailbox };
        // Canonical quoting may have made it longer than what came in.
        if path.width() > ROUTED_PATH_MAX {
            return Err(AddressError("path too long"));
        }
        Ok(path)
    }

    /// Octets of the printed form.
    fn width(&self) -> usize {
        match self {
            Self::Postmaster => "<postmaster>".len(),
            Self::Mailbox { route, mailbox } => {
                let hosts = route.iter().map(|host| host.as_str().len() + "@,".len());
                "<>".len() + hosts.sum::<usize>() + mailbox.width()
            }
        }
    }

    /// The mailbox, unless it is `<postmaster>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox { mailbox, .. } => Some(mailbox),
        }
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        match self {
            Self::Postmaster => true,
            Self::Mailbox { route, mailbox } => {
                route.iter().all(Domain::is_ascii) && mailbox.is_ascii()
            }
        }
    }
}

/// `local@domain`, 254 octets at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    /// What only the destination may interpret.
    pub local: LocalPart,
    /// The destination.
    pub domain: MailDomain,
}

impl Mailbox {
    /// Parses a mailbox without angle brackets.
    ///
    /// # Errors
    /// When a part of it is malformed, or the whole is too long.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = LocalPart::split(text)?;
        let domain = domain
            .strip_prefix('@')
            .ok_or(AddressError("a domain is due"))?;
        let mailbox = Self {
            local,
            domain: MailDomain::parse(domain)?,
        };
        if mailbox.width() > MAILBOX_MAX {
            return Err(AddressError("address too long"));
        }
        Ok(mailbox)
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.is_ascii()
    }

    /// Octets of the printed form.
    fn width(&self) -> usize {
        let domain = match &self.domain {
            MailDomain::Domain(domain) => domain.as_str().len(),
            MailDomain::Literal(literal) => literal.to_string().len(),
        };
        self.local.width() + "@".len() + domain
    }
}

/// What stands behind the `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MailDomain {
    /// A name.
    Domain(Domain),
    /// An address in square brackets.
    Literal(AddressLiteral),
}

impl MailDomain {
    /// Parses a domain or an address literal.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with('[') {
            AddressLiteral::parse(text).map(Self::Literal)
        } else {
            Domain::parse(text).map(Self::Domain)
        }
    }

    /// Whether it can be sent without SMTPUTF8; a literal always can.
    pub fn is_ascii(&self) -> bool {
        match self {
            Self::Domain(domain) => domain.is_ascii(),
            Self::Literal(_) => true,
        }
    }
}

/// Splits the path off the front of a MAIL or RCPT argument: `<` up to the
/// first `>` outside a quoted string and outside an address literal. Finding
/// the extent is all it does; the parsers above judge what is inside.
pub(super) fn split_path(text: &str) -> Option<(&str, &str)> {
    enum Place {
        Plain,
        Quoted,
        Escaped,
        Literal,
    }
    let mut place = Place::Plain;
    for (at, octet) in text.bytes().enumerate() {
        place = match (place, octet) {
            (Place::Plain, b'>') => return text.split_at_checked(at + 1),
            (Place::Plain, b'"') => Place::Quoted,
            (Place::Plain, b'[') => Place::Literal,
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted, b'"') | (Place::Literal, b']') => Place::Plain,
            (Place::Escaped, _) => Place::Quoted,
            (place, _) => place,
        };
    }
    None
}

fn inside_brackets(path: &str) -> Result<&str, AddressError> {
    if path.len() > ROUTED_PATH_MAX {
        return Err(AddressError("path too long"));
    }
    path.strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .ok_or(AddressError("angle brackets are due"))
}

/// `@one,@two:local@domain` (RFC 5321 4.1.2 A-d-l). A mailbox cannot begin
/// with `@`, and no domain holds `:`, so the route is never in doubt.
fn routed_mailbox(inside: &str) -> Result<(Vec<Domain>, Mailbox), AddressError> {
    if !inside.starts_with('@') {
        return Ok((Vec::new(), Mailbox::parse(inside)?));
    }
    let (hosts, mailbox) = inside
        .split_once(':')
        .ok_or(AddressError("source route without a mailbox"))?;
    let route = hosts
        .split(',')
        .map(|host| {
            let name = host
                .strip_prefix('@')
                .ok_or(AddressError("bad source route"))?;
            Domain::parse(name)
        })
        .collect::<Result<_, _>>()?;
    Ok((route, Mailbox::parse(mailbox)?))
}

/// Whether a character beyond ASCII may stand in an address (RFC 6531 3.3,
/// narrowed): nothing that breaks a line, hides, or reorders what a human or
/// a log sees.
pub(super) fn is_harmless_unicode(c: char) -> bool {
    let deceptive = matches!(c,
        // soft hyphen, Arabic letter mark
        '\u{ad}' | '\u{61c}'
        // zero-width space, left-to-right and right-to-left mark
        | '\u{200b}' | '\u{200e}' | '\u{200f}'
        // line and paragraph separator, embeddings and overrides
        | '\u{2028}'..='\u{202e}'
        // word joiner, invisible operators, isolates, deprecated formatting
        | '\u{2060}'..='\u{206f}'
        // byte order mark, interlinear annotation
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        // tags
        | '\u{e0000}'..='\u{e007f}');
    let noncharacter = matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    !c.is_ascii() && !c.is_control() && !c.is_whitespace() && !deceptive && !noncharacter
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => {
                f.write_str("<")?;
                mailbox.fmt(f)?;
                f.write_str(">")
            }
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, mailbox) = match self {
            Self::Postmaster => return f.write_str("<postmaster>"),
            Self::Mailbox { route, mailbox } => (route, mailbox),
        };
        f.write_str("<")?;
        for (nth, host) in route.iter().enumerate() {
            write!(f, "{}@{host}", if nth == 0 { "" } else { "," })?;
        }
        if !route.is_empty() {
            f.write_str(":")?;
        }
        mailbox.fmt(f)?;
        f.write_str(">")
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.local.fmt(f)?;
        f.write_str("@")?;
        self.domain.fmt(f)
    }
}

impl fmt::Display for MailDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => domain.fmt(f),
            Self::Literal(literal) => literal.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
