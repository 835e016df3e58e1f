//! The relay guard: whose recipients may be foreign, and which are.
//!
//! It never asks the backend, so its reply tells nothing about mailboxes. A
//! backend may trust the proxy's own address; this guard is what keeps the two
//! together from being an open relay.

use std::net::IpAddr;

use super::{Finding, Relay, Settings, Standing, Verdict};
use crate::smtp::path::{ForwardPath, LocalPart};

/// Characters with which a local part can name a second destination: the
/// percent hack, bang paths (both RFC 5321 appendix F.2 history that old
/// servers still obey) and a nested `@`; then the look-alikes that Unicode
/// compatibility folding turns into them.
const ROUTING: [char; 13] = [
    '\u{203C}', '\u{2048}', '\u{2049}', '%', '!', '@', '\u{FE6A}', '\u{FF05}', '\u{FE15}',
    '\u{FE57}', '\u{FF01}', '\u{FE6B}', '\u{FF20}',
];

/// What a local part begins with that holds a whole SMTP address, its `@` written
/// `+40`: old Exchange and IIS send on to that (CVE-1999-0682).
const ENCAPSULATED: &str = "IMCEASMTP-";

/// One rule: an opinion about a recipient, or none.
type Rule = fn(&Settings, Option<IpAddr>, Standing, &ForwardPath) -> Option<Verdict>;

/// In this order; the first opinion stands.
const RULES: [Rule; 6] = [
    backend_decides,
    may_relay,
    postmaster,
    no_source_route,
    no_hidden_route,
    own_domain,
];

pub(super) fn judge(
    settings: &Settings,
    client: Option<IpAddr>,
    standing: Standing,
    recipient: &ForwardPath,
) -> Verdict {
    RULES
        .iter()
        .find_map(|rule| rule(settings, client, standing, recipient))
        .unwrap_or(Verdict::Refuse(Finding::ForeignDomain))
}

fn backend_decides(
    settings: &Settings,
    _: Option<IpAddr>,
    _: Standing,
    _: &ForwardPath,
) -> Option<Verdict> {
    (settings.relay == Relay::Backend).then_some(Verdict::Pass)
}

fn may_relay(
    settings: &Settings,
    client: Option<IpAddr>,
    standing: Standing,
    _: &ForwardPath,
) -> Option<Verdict> {
    (standing == Standing::Authenticated
        || client.is_some_and(|client| settings.relay_nets.contains(client)))
    .then_some(Verdict::Pass)
}

/// RFC 5321 4.5.1: a server must take `RCPT TO:<Postmaster>`.
fn postmaster(
    _: &Settings,
    _: Option<IpAddr>,
    _: Standing,
    recipient: &ForwardPath,
) -> Option<Verdict> {
    matches!(recipient, ForwardPath::Postmaster).then_some(Verdict::Pass)
}

fn no_source_route(
    _: &Settings,
    _: Option<IpAddr>,
    _: Standing,
    recipient: &ForwardPath,
) -> Option<Verdict> {
    match recipient {
        ForwardPath::Mailbox { route, .. } if !route.is_empty() => {
            Some(Verdict::Refuse(Finding::HiddenRoute))
        }
        _ => None,
    }
}

fn no_hidden_route(
    _: &Settings,
    _: Option<IpAddr>,
    _: Standing,
    recipient: &ForwardPath,
) -> Option<Verdict> {
    match recipient {
        ForwardPath::Mailbox { mailbox, .. } if names_a_route(&mailbox.local) => {
            Some(Verdict::Refuse(Finding::HiddenRoute))
        }
        _ => None,
    }
}

fn own_domain(
    settings: &Settings,
    _: Option<IpAddr>,
    _: Standing,
    recipient: &ForwardPath,
) -> Option<Verdict> {
    match recipient {
        ForwardPath::Mailbox { mailbox, .. } if settings.domains.contains(&mailbox.domain) => {
            Some(Verdict::Pass)
        }
        _ => None,
    }
}

fn names_a_route(local: &LocalPart) -> bool {
    let local = local.as_str();
    let start = local.get(..ENCAPSULATED.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(ENCAPSULATED) || local.contains(ROUTING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Value;

    fn settings() -> Settings {
        Settings {
            domains: Value::parse("example.org, *.example.net, bücher.example, [192.0.2.1]")
                .unwrap(),
            relay: Relay::Guard,
            relay_nets: Value::parse("10.1.0.0/16").unwrap(),
            mode: crate::policy::Mode::Enforce,
        }
    }

    fn verdict(client: &str, standing: Standing, recipient: &str) -> Verdict {
        let path = ForwardPath::parse(recipient).unwrap();
        judge(&settings(), Some(client.parse().unwrap()), standing, &path)
    }

    fn stranger(recipient: &str) -> Verdict {
        verdict("203.0.113.9", Standing::Stranger, recipient)
    }

    #[test]
    fn passes_own_domains_in_any_spelling() {
        for own in [
            "<a@example.org>",
            "<a@EXAMPLE.Org>",
            "<\"a b\"@example.org>",
            "<a@mail.example.net>",
            "<a@deep.mail.example.net>",
            "<a@xn--bcher-kva.example>",
            "<a@BÜCHER.example>",
            "<a@[192.0.2.1]>",
            "<postmaster>",
            "<PostMaster>",
        ] {
            assert_eq!(stranger(own), Verdict::Pass, "{own}");
        }
    }

    #[test]
    fn refuses_foreign_domains() {
        for foreign in [
            "<a@example.com>",
            "<a@example.org.evil.example>",
            "<a@notexample.org>",
            "<a@sub.example.org>",
            "<a@example.net>",
            "<a@[192.0.2.2]>",
            "<a@[IPv6:::1]>",
            "<a@localhost>",
        ] {
            assert_eq!(
                stranger(foreign),
                Verdict::Refuse(Finding::ForeignDomain),
                "{foreign}"
            );
        }
    }

    #[test]
    fn refuses_every_form_that_hides_a_second_destination() {
        for hidden in [
            "<@example.org:victim@example.com>",
            "<@relay.example,@example.org:a@example.org>",
            "<victim%example.com@example.org>",
            "<example.com!victim@example.org>",
            "<\"victim@example.com\"@example.org>",
            "<\"victim%example.com\"@example.org>",
            "<\"@example.com:victim\"@example.org>",
            "<\"\\@example.com\"@example.org>",
            "<victim\u{FF20}example.com@example.org>",
            "<victim\u{FF05}example.com@example.org>",
            "<example.com\u{FE15}victim@example.org>",
            "<IMCEASMTP-victim+40example+2Ecom@example.org>",
            "<\"imceasmtp-victim+40example+2Ecom\"@example.org>",
        ] {
            assert_eq!(
                stranger(hidden),
                Verdict::Refuse(Finding::HiddenRoute),
                "{hidden}"
            );
        }
    }

    #[test]
    fn lets_authenticated_clients_and_relay_networks_through() {
        assert_eq!(
            verdict("203.0.113.9", Standing::Authenticated, "<a@example.com>"),
            Verdict::Pass
        );
        assert_eq!(
            verdict("10.1.2.3", Standing::Stranger, "<a@example.com>"),
            Verdict::Pass
        );
        assert_eq!(
            verdict("::ffff:10.1.2.3", Standing::Stranger, "<a@example.com>"),
            Verdict::Pass
        );
        assert_eq!(
            verdict("10.2.2.3", Standing::Stranger, "<a@example.com>"),
            Verdict::Refuse(Finding::ForeignDomain)
        );
    }

    #[test]
    fn leaves_everything_to_the_backend_when_told_to() {
        let settings = Settings {
            relay: Relay::Backend,
            ..settings()
        };
        let path = ForwardPath::parse("<a%b@example.com>").unwrap();
        assert_eq!(
            judge(
                &settings,
                "203.0.113.9".parse().ok(),
                Standing::Stranger,
                &path
            ),
            Verdict::Pass
        );
    }
}
