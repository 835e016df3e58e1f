//! What Portcullis offers in reply to EHLO: an allow-list, never a copy.
//!
//! (what the backend offers) intersected with (what Portcullis implements),
//! plus STARTTLS, SIZE, PIPELINING and LIMITS, which are its own.

use crate::smtp::command::{Mechanism, Verb};
use crate::smtp::ehlo::Keywords;

use super::machine::{Privacy, Rules};

/// Extensions without parameters that pass if the backend has them.
const PLAIN: [&str; 4] = ["8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"];

/// A keyword without parameters.
const NONE: [&str; 0] = [];

/// The keywords of the EHLO reply for a client on a line with this privacy.
pub(super) fn keywords(rules: &Rules, privacy: Privacy) -> Keywords {
    let mut offer = Keywords::default();
    offer.insert("PIPELINING", NONE);
    offer.insert("SIZE", [rules.max_size.to_string()]);
    for keyword in PLAIN
        .into_iter()
        .filter(|keyword| rules.backend.contains(keyword))
    {
        offer.insert(keyword, NONE);
    }
    if chunking(rules) {
        offer.insert("CHUNKING", NONE);
    }
    match privacy {
        Privacy::Clear => offer.insert("STARTTLS", NONE),
        Privacy::Encrypted => {
            let mechanisms = mechanisms(rules);
            if !mechanisms.is_empty() {
                offer.insert("AUTH", mechanisms.iter().map(Mechanism::to_string));
            }
            if rules.backend.contains("REQUIRETLS") {
                offer.insert("REQUIRETLS", NONE);
            }
        }
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

/// The SASL mechanisms that work through a proxy that ends TLS: channel
/// binding (`-PLUS`, RFC 5802) and client certificates (EXTERNAL) do not.
pub(super) fn mechanisms(rules: &Rules) -> Vec<Mechanism> {
    rules
        .backend
        .auth_mechanisms()
        .into_iter()
        .filter(|mechanism| {
            !mechanism.as_str().ends_with("-PLUS") && mechanism.as_str() != "EXTERNAL"
        })
        .collect()
}

/// Whether a verb that is off by default has been allowed.
pub(super) fn allows(rules: &Rules, verb: Verb) -> bool {
    rules.allowed.contains(&verb)
}

#[cfg(test)]
mod tests;
