use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn printed(mailbox: &str) -> Option<String> {
    Mailbox::parse(mailbox).ok().map(|m| m.to_string())
}

#[track_caller]
fn refuses(mailboxes: &[&str]) {
    for bad in mailboxes {
        assert_eq!(printed(bad), None, "{bad:?}");
    }
}

#[test]
fn keeps_plain_mailboxes_as_they_are() {
    for plain in [
        "user@example.org",
        "User.Name+tag@Example.ORG",
        "!#$%&'*+-/=?^_`{|}~@x",
        "a@_dmarc.example.org",
        "a@192.0.2.1",
        "jörg@exämple.de",
        "用户@例え.jp",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a@[x-y:any!thing@<>\"]",
    ] {
        assert_eq!(printed(plain).as_deref(), Some(plain));
    }
}

#[test]
fn quotes_only_what_needs_it() {
    for (sent, canonical) in [
        (r#""user"@x"#, "user@x"),
        (r#""us\er"@x"#, "user@x"),
        (r#""a b"@x"#, r#""a b"@x"#),
        (r#""a@b"@x"#, r#""a@b"@x"#),
        (r#""a>b"@x"#, r#""a>b"@x"#),
        (r#""\"\\"@x"#, r#""\"\\"@x"#),
        (r#""a..b"@x"#, r#""a..b"@x"#),
        (r#""jö rg"@x"#, r#""jö rg"@x"#),
    ] {
        assert_eq!(printed(sent).as_deref(), Some(canonical));
    }
}

#[test]
fn takes_stray_dots_that_carriers_gave_out() {
    for (sent, canonical) in [
        (
            "first..last@docomo.example",
            r#""first..last"@docomo.example"#,
        ),
        ("name.@docomo.example", r#""name."@docomo.example"#),
        (".name@docomo.example", r#"".name"@docomo.example"#),
    ] {
        assert_eq!(printed(sent).as_deref(), Some(canonical));
        assert_eq!(printed(canonical).as_deref(), Some(canonical));
    }
}

#[test]
fn refuses_malformed_local_parts() {
    refuses(&[
        "",
        "user",
        "@x",
        "\"\"@x",
        "a b@x",
        "a@b@x",
        "a\"b@x",
        "a,b@x",
        "a:b@x",
        "a;b@x",
        "a(b@x",
        "a<b@x",
        "a>b@x",
        "a[b@x",
        "a\\b@x",
        "\"a@x",
        "\"a\"b@x",
        "\"a\\\"@x",
        "\"a\\é\"@x",
        "\"a\"",
        "a\u{7f}@x",
        "\"a\r\nb\"@x",
        "\"a\tb\"@x",
        "\"a\\\tb\"@x",
        "a\0@x",
    ]);
}

#[test]
fn refuses_malformed_domains() {
    refuses(&[
        "a@", "a@.", "a@x.", "a@.x", "a@x..y", "a@-x", "a@x-", "a@x-.y", "a@x y", "a@x,y", "a@x%y",
        "a@x!y", "a@x/y", "a@x:25", "a@ x", "a@x ", "a@[x", "a@x]", "a@x#y", "a@x\"y\"",
    ]);
}

#[test]
fn refuses_deceptive_unicode_everywhere() {
    for c in [
        '\u{80}',
        '\u{85}',
        '\u{9f}',
        '\u{a0}',
        '\u{ad}',
        '\u{61c}',
        '\u{1680}',
        '\u{2003}',
        '\u{200b}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202b}',
        '\u{202c}',
        '\u{202d}',
        '\u{202e}',
        '\u{202f}',
        '\u{2066}',
        '\u{2067}',
        '\u{2068}',
        '\u{2069}',
        '\u{3000}',
        '\u{fdd0}',
        '\u{feff}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{1fffe}',
        '\u{10ffff}',
        '\u{e0041}',
    ] {
        refuses(&[
            &format!("a{c}@x"),
            &format!("\"a{c}\"@x"),
            &format!("a@x{c}y"),
        ]);
    }
}

#[test]
fn refuses_dots_that_only_idna_sees() {
    for dot in ['\u{3002}', '\u{ff0e}', '\u{ff61}'] {
        refuses(&[&format!("a@evil{dot}example.org"), &format!("a@x{dot}")]);
    }
}

#[test]
fn lengths_are_bounded() {
    let longest = "l".repeat(200);
    assert!(Mailbox::parse(&format!("{longest}@x")).is_ok());
    assert!(Mailbox::parse(&format!("l{longest}@x")).is_err());
    let local = "l".repeat(64);
    let label = "d".repeat(63);
    assert!(Domain::parse(&label).is_ok());
    assert!(Domain::parse(&format!("d{label}")).is_err());
    let domain = [label.as_str(); 4].join(".");
    assert_eq!(domain.len(), 255);
    assert!(Domain::parse(&domain).is_ok());
    assert!(Domain::parse(&format!("{domain}.d")).is_err());

    let domain = format!("{0}.{0}.{1}", label, "d".repeat(61));
    assert!(Mailbox::parse(&format!("{local}@{domain}")).is_ok());
    assert!(Mailbox::parse(&format!("{local}@d.{domain}")).is_err());
    // 254 octets as sent, 256 as it would be printed.
    let dotted = format!("{}..", "l".repeat(62));
    assert!(Mailbox::parse(&format!("{dotted}@{domain}")).is_err());
}

#[test]
fn parses_reverse_paths() {
    assert_eq!(ReversePath::parse("<>"), Ok(ReversePath::Null));
    let path = ReversePath::parse("<a@b>").unwrap();
    assert_eq!(path.to_string(), "<a@b>");
    let routed = ReversePath::parse("<@one,@two:a@b>").unwrap();
    assert_eq!(routed.to_string(), "<a@b>", "a route is never given on");
    for bad in [
        "",
        "<",
        ">",
        "a@b",
        "<a@b",
        "a@b>",
        "< >",
        "<a>",
        "< a@b>",
        "<<a@b>>",
        "<postmaster>",
    ] {
        assert!(ReversePath::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn parses_forward_paths() {
    for postmaster in ["<postmaster>", "<PostMaster>"] {
        assert_eq!(ForwardPath::parse(postmaster), Ok(ForwardPath::Postmaster));
    }
    for bad in [
        "<>",
        "<root>",
        "<\"postmaster\">",
        "<postmaster@>",
        "<@x:postmaster>",
    ] {
        assert!(ForwardPath::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn source_route_is_kept_apart_from_the_mailbox() {
    let path = ForwardPath::parse("<@local.example,@x:a@foreign.example>").unwrap();
    let ForwardPath::Mailbox { route, mailbox } = &path else {
        panic!("not a mailbox: {path}");
    };
    assert_eq!(route.len(), 2);
    assert_eq!(mailbox.domain.to_string(), "foreign.example");
    assert_eq!(path.to_string(), "<@local.example,@x:a@foreign.example>");
    for bad in [
        "<@x>",
        "<@x:>",
        "<@:a@b>",
        "<x:a@b>",
        "<@x,y:a@b>",
        "<@x,:a@b>",
        "<@x, @y:a@b>",
        "<@x@y:a@b>",
    ] {
        assert!(ForwardPath::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn long_source_routes_are_refused() {
    let route = vec!["@d.example"; 60].join(",");
    assert!(ForwardPath::parse(&format!("<{route}:a@b>")).is_err());
    assert!(ReversePath::parse(&format!("<{route}:a@b>")).is_err());
}

#[test]
fn parses_address_literals() {
    assert_eq!(
        AddressLiteral::parse("[192.0.2.1]"),
        Ok(AddressLiteral::V4(Ipv4Addr::new(192, 0, 2, 1)))
    );
    assert_eq!(
        AddressLiteral::parse("[ipV6:0:0::1]"),
        Ok(AddressLiteral::V6(Ipv6Addr::LOCALHOST))
    );
    assert_eq!(
        AddressLiteral::parse("[IPv6:0:0::1]").unwrap().to_string(),
        "[IPv6:::1]"
    );
    for bad in [
        "",
        "[",
        "[]",
        "192.0.2.1",
        "[192.0.2]",
        "[192.0.2.01]",
        "[192.0.2.256]",
        "[0x7f.1]",
        "[2130706433]",
        "[ 192.0.2.1]",
        "[::1]",
        "[IPv6:]",
        "[IPv6:fe80::1%eth0]",
        "[IPv6:x]",
        "[x:]",
        "[x-:y]",
        "[x:a]b]",
        "[x:a[b]",
        "[x:a\\b]",
        "[x:a b]",
        "[x:é]",
        "[192.0.2.1]]",
    ] {
        assert!(AddressLiteral::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn compares_domains_as_a_labels_in_lower_case() {
    let key = |text| Domain::parse(text).unwrap().to_ascii_lowercase();
    assert_eq!(key("Example.ORG").as_deref(), Some("example.org"));
    assert_eq!(key("_Sip.example").as_deref(), Some("_sip.example"));
    assert_eq!(key("MÜNCHEN.de").as_deref(), Some("xn--mnchen-3ya.de"));
    assert_eq!(
        key("XN--mnchen-3ya.de").as_deref(),
        Some("xn--mnchen-3ya.de")
    );
    assert_eq!(
        key("_sip.münchen.de").as_deref(),
        Some("_sip.xn--mnchen-3ya.de")
    );
    // A full-width @, %, a label that is too long once encoded, a stray mark.
    for foreign in [
        "a＠b",
        "a％b",
        &"ü".repeat(31).replace("üü", "üé"),
        "\u{301}a",
    ] {
        let domain = Domain::parse(foreign).unwrap();
        if let Some(ascii) = domain.to_ascii_lowercase() {
            assert!(Domain::parse(&ascii).is_ok(), "{ascii}");
            assert!(!ascii.contains(['@', '%']));
        }
    }
    assert_eq!(key("a＠b"), None);
}

#[test]
fn tells_what_needs_smtputf8() {
    assert!(ReversePath::Null.is_ascii());
    assert!(Mailbox::parse("a@b").unwrap().is_ascii());
    assert!(Mailbox::parse("a@[192.0.2.1]").unwrap().is_ascii());
    assert!(!Mailbox::parse("é@b").unwrap().is_ascii());
    assert!(!Mailbox::parse("a@é").unwrap().is_ascii());
    assert!(!ForwardPath::parse("<@é:a@b>").unwrap().is_ascii());
}

#[test]
fn helo_name_takes_sloppy_but_harmless_names() {
    for name in [
        "mail.example.org",
        "[192.0.2.1]",
        "[IPv6:::1]",
        "my_pc",
        "x.",
        "a/b",
        "-",
    ] {
        assert_eq!(HeloName::parse(name).unwrap().as_str(), name);
    }
    for bad in [
        "", "a b", "a\r\nb", "a;b", "<a>", "(a)", "a\"b", "a\\b", "a@b", "a,b", "é", "a\t",
    ] {
        assert!(HeloName::parse(bad).is_err(), "{bad:?}");
    }
    assert!(HeloName::parse(&"a".repeat(255)).is_ok());
    assert!(HeloName::parse(&"a".repeat(256)).is_err());
}

#[test]
fn path_ends_at_the_first_bracket_outside_quotes_and_literals() {
    assert_eq!(split_path("<a@b> X=1>"), Some(("<a@b>", " X=1>")));
    assert_eq!(
        split_path(r#"<"a>\"b>"@c>d"#),
        Some((r#"<"a>\"b>"@c>"#, "d"))
    );
    assert_eq!(split_path("<a@[x:>]>"), Some(("<a@[x:>]>", "")));
    assert_eq!(split_path("<a@b"), None);
    assert_eq!(split_path("<\"a>"), None);
}

#[test]
fn width_is_that_of_the_printed_form() {
    for text in [
        "<a@b>",
        "<postmaster>",
        r#"<"a b"@example.org>"#,
        r#"<"a\"\\"@example.org>"#,
        "<first..last@example.org>",
        "<.@example.org>",
        "<a@[192.0.2.1]>",
        "<a@[IPv6:2001:db8::1]>",
        "<jörg@bücher.example>",
        "<@one.example,@two.example:a@example.org>",
    ] {
        let path = ForwardPath::parse(text).unwrap();
        assert_eq!(path.width(), path.to_string().len(), "{text}");
    }
}
