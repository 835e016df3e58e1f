//! What Portcullis offers in reply to EHLO: an allow-list, never a copy.
//!
//! (what the backend offers) intersected with (what Portcullis implements),
//! plus STARTTLS, SIZE, PIPELINING and LIMITS, which are its own.

use crate::smtp::command::{Mechanism, Verb};
use crate::smtp::ehlo::Keywords;

use super::machine::{Privacy, Rules};

/// Extensions that may be offered, in the order of the reply.
const EXTENSIONS: [&str; 9] = [
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "SMTPUTF8",
    "CHUNKING",
    "STARTTLS",
    "REQUIRETLS",
];

/// A keyword without parameters.
const NONE: [&str; 0] = [];

/// Whether the EHLO reply for a client on a line with this privacy names the
/// extension.
pub(super) fn offers(rules: &Rules, privacy: Privacy, extension: &str) -> bool {
    match extension {
        "PIPELINING" | "SIZE" => true,
        "8BITMIME" | "ENHANCEDSTATUSCODES" | "DSN" | "SMTPUTF8" => {
            rules.backend.contains(extension)
        }
        "CHUNKING" => chunking(rules),
        "STARTTLS" => privacy == Privacy::Clear,
        "REQUIRETLS" => privacy == Privacy::Encrypted && rules.backend.contains(extension),
        _ => false,
    }
}

/// The keywords of the EHLO reply for a client on a line with this privacy.
pub(super) fn keywords(rules: &Rules, privacy: Privacy) -> Keywords {
    let mut offer = Keywords::default();
    for extension in EXTENSIONS {
        if !offers(rules, privacy, extension) {
            continue;
        }
        match extension {
            "SIZE" => offer.insert(extension, [rules.max_size.to_string()]),
            _ => offer.insert(extension, NONE),
        }
    }
    let mechanisms = mechanisms(rules);
    if privacy == Privacy::Encrypted && !mechanisms.is_empty() {
        offer.insert("AUTH", mechanisms.iter().map(Mechanism::to_string));
    }
    for verb in rules
        .allowed
        .iter()
        .filter(|verb| rules.backend.contains(&verb.to_string()))
    {
        offer.insert(&verb.to_string(), NONE);
    }
    offer.insert("LIMITS", [format!("RCPTMAX={}", rules.recipients_max)]);
    offer
}

/// CHUNKING cannot go with newline repair: a chunk's size is told before its octets are seen.
pub(super) fn chunking(rules: &Rules) -> bool {
    rules.backend.contains("CHUNKING") && rules.newline == crate::smtp::dot::BareNewline::Reject
}

/// The SASL mechanisms that work through a proxy that ends TLS, and tell who signs in.
pub(super) fn mechanisms(rules: &Rules) -> Vec<Mechanism> {
    rules
        .backend
        .auth_mechanisms()
        .into_iter()
        .filter(|mechanism| !mechanism.is_bound_to_tls() && !mechanism.is_anonymous())
        .collect()
}

/// Whether a verb that is off by default has been allowed.
pub(super) fn allows(rules: &Rules, verb: Verb) -> bool {
    rules.allowed.contains(&verb)
}

#[cfg(test)]
mod tests;
