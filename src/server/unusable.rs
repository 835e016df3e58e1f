//! Settings whose values are good, while the files that they name are not: that
//! shows only when they are put to use.

use std::fmt::Display;

use crate::settings::{Problem, Problems, Spec};
use crate::spool::{self, SpoolError};
use crate::tls::{self, TlsError};
use crate::{backend, server};

/// Certificates that clients cannot be shown.
pub(super) fn certificates(settings: &tls::Settings, errors: &[TlsError]) -> Problems {
    let problem = |error| problem(settings.key_of(error), error);
    Problems(errors.iter().map(problem).collect())
}

/// The authorities for the backend's certificate.
pub(super) fn authorities(error: &TlsError) -> Problems {
    Problems(vec![problem("backend_tls_ca", error)])
}

/// The folder of messages that wait for scanners.
pub(super) fn folder(error: &SpoolError) -> Problems {
    Problems(vec![problem("spool_dir", error)])
}

fn problem(key: &'static str, error: &dyn Display) -> Problem {
    let specs: [&[Spec]; 4] = [
        tls::Settings::SPECS,
        backend::Settings::SPECS,
        spool::Settings::SPECS,
        server::Settings::SPECS,
    ];
    let spec = specs.into_iter().flatten().find(|spec| spec.key == key);
    Problem {
        variable: format!("PORTCULLIS_{}", key.to_ascii_uppercase()),
        origin: None,
        value: None,
        what: format!("cannot be used: {error}"),
        example: spec.map(|spec| spec.example),
    }
}

/// All of it, or all that is wrong.
pub(super) fn together<A, B, C>(
    found: (
        Result<A, Problems>,
        Result<B, Problems>,
        Result<C, Problems>,
    ),
) -> Result<(A, B, C), Problems> {
    match found {
        (Ok(a), Ok(b), Ok(c)) => Ok((a, b, c)),
        (a, b, c) => {
            let wrong = [a.err(), b.err(), c.err()].into_iter().flatten();
            Err(Problems(wrong.flat_map(|problems| problems.0).collect()))
        }
    }
}
