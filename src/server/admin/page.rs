//! The status page: what a browser gets for `/`. It shows, it changes nothing.
//!
//! Page, style and script are files of their own so that the content security
//! policy can forbid everything else without a hash that must be kept in step.
//! The script writes what comes from outside as text only, never as HTML.

use hyper::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};

use super::guard;
use super::router::{Answer, JSON, TEXT, full};
use super::status::Status;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing but what this server serves, and nowhere but on its own.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// What the browser is told about every part of the page.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// The page itself.
pub(super) fn html<B>(request: &Request<B>, status: &Status) -> Answer {
    part(request, status, HTML, || include_str!("page.html"))
}

/// Its style.
pub(super) fn css<B>(request: &Request<B>, status: &Status) -> Answer {
    part(request, status, CSS, || include_str!("page.css"))
}

/// Its script.
pub(super) fn script<B>(request: &Request<B>, status: &Status) -> Answer {
    part(request, status, JAVASCRIPT, || include_str!("page.js"))
}

/// Its picture in the browser's tab.
pub(super) fn icon<B>(request: &Request<B>, status: &Status) -> Answer {
    part(request, status, SVG, || include_str!("icon.svg"))
}

/// What it shows.
pub(super) fn data<B>(request: &Request<B>, status: &Status) -> Answer {
    part(request, status, JSON, || status.json().to_string())
}

fn part<B, T: Into<bytes::Bytes>>(
    request: &Request<B>,
    status: &Status,
    kind: &'static str,
    content: impl FnOnce() -> T,
) -> Answer {
    let mut answer = if guard::is_ours(request, &status.facts.load().hostname) {
        full(StatusCode::OK, kind, content())
    } else {
        misdirected()
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// For whoever asks by a name that is not ours (RFC 9110 15.5.20).
pub(super) fn misdirected() -> Answer {
    let text = "ask by IP address, as localhost or by the name in HOSTNAME, from no other page\n";
    full(StatusCode::MISDIRECTED_REQUEST, TEXT, text)
}
