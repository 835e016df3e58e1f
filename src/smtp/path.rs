//! Mailboxes, domains, address literals and the two kinds of path (RFC 5321 4.1.2).

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a client calls itself: a domain, an address literal, or a sloppy name
/// made of harmless characters. 1..=255 octets of ASCII graphic characters
/// other than `()<>,;"\@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(String);

/// `<>` or a mailbox. A source route is parsed, checked, and never printed
/// (RFC 5321 F.2); `MAIL` keeps none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    Null,
    Mailbox(Mailbox),
}

/// `<postmaster>` without a domain, or a mailbox with the route it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    Postmaster,
    Mailbox {
        route: Vec<Domain>,
        mailbox: Mailbox,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    pub local: LocalPart,
    pub domain: MailDomain,
}

/// The content of a local part, unquoted. Printed as a dot-string if it is
/// one, otherwise as a quoted string. 1..=64 octets (UTF-8 counted in octets).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalPart(String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MailDomain {
    Domain(Domain),
    Literal(AddressLiteral),
}

/// Labels of letters, digits, hyphen, underscore or non-ASCII (RFC 6531),
/// 1..=63 octets each, 1..=255 in all, no trailing dot. Spelling is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain(String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressLiteral {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    General { tag: String, content: String },
}
