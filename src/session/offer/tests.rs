//! What is offered, before a backend that offers everything and one that offers nothing.

use std::sync::Arc;

use super::*;
use crate::session::machine::Demand;
use crate::smtp::dot::BareNewline;

/// A backend that offers everything, and things that nobody here implements.
fn rules() -> Rules {
    let mut backend = Keywords::new();
    for keyword in ["8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"] {
        backend.insert(keyword, NONE);
    }
    for keyword in ["CHUNKING", "BINARYMIME", "REQUIRETLS", "PIPELINING"] {
        backend.insert(keyword, NONE);
    }
    for keyword in ["STARTTLS", "XFORWARD", "BURL", "VRFY", "ETRN", "X-OWN"] {
        backend.insert(keyword, NONE);
    }
    backend.insert("XCLIENT", ["ADDR", "LOGIN"]);
    backend.insert("SIZE", ["99999999"]);
    backend.insert(
        "AUTH",
        [
            "PLAIN",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256-PLUS",
            "EXTERNAL",
            "ANONYMOUS",
            "LOGIN",
        ],
    );
    Rules {
        hostname: "mx.test".into(),
        session_id: "ID".into(),
        demand: Demand::Nothing,
        backend: backend.into(),
        allowed: Vec::new(),
        max_size: 1000,
        recipients_max: 7,
        bodies: crate::session::machine::Bodies::Relayed,
        recipients_cap: 7,
        junk_max: 100,
        mode: crate::policy::Mode::Enforce,
        errors_max: 5,
        newline: BareNewline::Reject,
    }
}

fn lines(rules: &Rules, privacy: Privacy) -> Vec<String> {
    let mut lines: Vec<String> = keywords(rules, privacy).lines().collect();
    lines.sort();
    lines
}

#[test]
fn offers_in_clear_what_it_implements_and_nothing_else() {
    assert_eq!(
        lines(&rules(), Privacy::Clear),
        [
            "8BITMIME",
            "CHUNKING",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "LIMITS RCPTMAX=7",
            "PIPELINING",
            "SIZE 1000",
            "SMTPUTF8",
            "STARTTLS",
        ]
    );
}

/// RFC 3207 4.2, RFC 4954 4.
#[test]
fn offers_auth_inside_tls_only_and_starttls_outside_only() {
    let inside = lines(&rules(), Privacy::Encrypted);
    assert!(inside.contains(&"AUTH PLAIN SCRAM-SHA-256 LOGIN".to_owned()));
    assert!(inside.contains(&"REQUIRETLS".to_owned()));
    assert!(!inside.contains(&"STARTTLS".to_owned()), "{inside:?}");
    assert_eq!(inside.len(), 10, "{inside:?}");
}

#[test]
fn offers_its_own_alone_before_a_backend_that_offers_nothing() {
    let bare = Rules {
        backend: Keywords::new().into(),
        ..rules()
    };
    assert_eq!(
        lines(&bare, Privacy::Encrypted),
        ["LIMITS RCPTMAX=7", "PIPELINING", "SIZE 1000"]
    );
}

#[test]
fn offers_no_auth_when_every_mechanism_is_tied_to_the_backends_tls() {
    let mut tied = rules();
    Arc::make_mut(&mut tied.backend).insert("AUTH", ["SCRAM-SHA-1-PLUS", "EXTERNAL", "ANONYMOUS"]);
    assert!(!keywords(&tied, Privacy::Encrypted).contains("AUTH"));
}

#[test]
fn offers_no_chunks_where_newlines_are_repaired() {
    let repairing = Rules {
        newline: BareNewline::Normalize,
        ..rules()
    };
    assert!(!keywords(&repairing, Privacy::Clear).contains("CHUNKING"));
}

#[test]
fn offers_an_unsafe_verb_only_when_allowed_and_there() {
    let allowing = Rules {
        allowed: vec![Verb::Etrn, Verb::Expn],
        ..rules()
    };
    let offer = keywords(&allowing, Privacy::Clear);
    assert!(offer.contains("ETRN"));
    assert!(!offer.contains("VRFY"), "there, but not allowed");
    assert!(!offer.contains("EXPN"), "allowed, but not there");
    assert!(allows(&allowing, Verb::Expn) && !allows(&allowing, Verb::Vrfy));
}
