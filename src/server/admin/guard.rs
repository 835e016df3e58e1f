//! Who may see the status page, and who may lift a ban.
//!
//! A page of somebody else in the admin's browser must get neither. Its name may
//! be made to resolve to this server (DNS rebinding), so only names that nobody
//! else can own are answered to: addresses, `localhost` and `HOSTNAME`.

use std::hint::black_box;

use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;

use crate::settings::Secret;

/// Whether the request is for this server, and comes from nobody's page or from
/// ours.
pub(super) fn is_ours<B>(request: &Request<B>, hostname: &str) -> bool {
    let Some(host) = only(request, HOST) else {
        return false;
    };
    let from_elsewhere = request.headers().contains_key(ORIGIN)
        && only(request, ORIGIN).and_then(|origin| origin.strip_prefix("http://")) != Some(host);
    !from_elsewhere && is_our_name(host, hostname)
}

fn is_our_name(host: &str, hostname: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    !host.contains('@')
        && (address.parse::<std::net::IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.eq_ignore_ascii_case(hostname))
}

/// Whether the request bears the token (RFC 6750 2.1).
pub(super) fn bears<B>(request: &Request<B>, token: &Secret) -> bool {
    let Some((scheme, given)) =
        only(request, AUTHORIZATION).and_then(|credentials| credentials.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("Bearer")
        && equal(given.trim().as_bytes(), token.reveal().as_bytes())
}

/// Takes as long whatever the octets are; only the length shows.
fn equal(given: &[u8], secret: &[u8]) -> bool {
    let differing = |all: u8, (a, b): (&u8, &u8)| black_box(all | (a ^ b));
    given.len() == secret.len() && given.iter().zip(secret).fold(0, differing) == 0
}

/// The value of a field that is there once.
fn only<B>(request: &Request<B>, name: HeaderName) -> Option<&str> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Value;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn ours(fields: &[(&str, &str)]) -> bool {
        is_ours(&request(fields), "mx.example.org")
    }

    #[test]
    fn answers_to_addresses_localhost_and_its_own_name_only() {
        for host in [
            "127.0.0.1:9090",
            "192.0.2.1",
            "[::1]:9090",
            "[2001:db8::1]",
            "localhost:9090",
            "LOCALHOST",
            "mx.example.org:9090",
            "MX.Example.Org",
        ] {
            assert!(ours(&[("Host", host)]), "{host}");
        }
        for host in [
            "evil.test:9090",
            "127.0.0.1.evil.test",
            "mx.example.org.evil.test",
            "x@127.0.0.1",
            "localhost.evil.test",
            "",
            "[::1",
        ] {
            assert!(!ours(&[("Host", host)]), "{host}");
        }
        assert!(!ours(&[]));
        assert!(!ours(&[("Host", "127.0.0.1"), ("Host", "127.0.0.1")]));
    }

    #[test]
    fn a_page_of_somebody_else_gets_nothing() {
        let host = ("Host", "127.0.0.1:9090");
        assert!(ours(&[host, ("Origin", "http://127.0.0.1:9090")]));
        for origin in [
            "http://evil.test",
            "null",
            "http://127.0.0.1:8080",
            "https://127.0.0.1:9090",
            "",
        ] {
            assert!(!ours(&[host, ("Origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = Secret::parse("s3cret-t0ken").unwrap();
        let bearing = |value: &str| bears(&request(&[("Authorization", value)]), &token);
        assert!(bearing("Bearer s3cret-t0ken") && bearing("bearer  s3cret-t0ken"));
        for bad in [
            "Bearer s3cret-t0keN",
            "Bearer s3cret-t0ke",
            "Bearer s3cret-t0ken0",
            "Bearer ",
            "Bearer",
            "Basic s3cret-t0ken",
            "s3cret-t0ken",
            "",
        ] {
            assert!(!bearing(bad), "{bad}");
        }
        assert!(!bears(&request(&[]), &token));
    }
}
