//! Properties of the wire grammar: what is understood prints canonically and
//! reads back the same, and no octets whatever make a parser fall over.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use bytes::BytesMut;
use portcullis::smtp::command::{
    Auth, AuthLine, Base64Text, Bdat, Command, Mail, Mechanism, Rcpt, Verb,
};
use portcullis::smtp::ehlo::Keywords;
use portcullis::smtp::line::{LineCutter, LineOffence};
use portcullis::smtp::parameters::{
    Body, MailParameters, Notify, Orcpt, RcptParameters, Ret, Submitter,
};
use portcullis::smtp::path::{
    AddressLiteral, Domain, ForwardPath, HeloName, LocalPart, MailDomain, Mailbox, ReversePath,
};
use portcullis::smtp::reply::{EnhancedCode, Reply, ReplyParser};
use portcullis::smtp::xtext::{self, Xtext};
use proptest::prelude::*;

fn local() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9+_-]{1,12}(\\.[a-z0-9]{1,8}){0,3}",
        "\"[ -!#-\\[\\]-~]{1,20}\"",
        "\"([a-z]|\\\\[ -~]){1,12}\"",
        "[a-zäöüß]{1,10}",
        "[a-z.]{1,10}",
    ]
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?(\\.[a-z]{2,6}){0,3}",
        "[a-zäöü]{1,8}\\.example",
        Just("[192.0.2.1]".to_owned()),
        Just("[IPv6:2001:db8::1]".to_owned()),
        Just("[x-tag:some.content]".to_owned()),
    ]
}

fn mailbox() -> impl Strategy<Value = String> {
    (local(), domain()).prop_map(|(local, domain)| format!("{local}@{domain}"))
}

/// Lines that are commands, or nearly.
fn line() -> impl Strategy<Value = String> {
    let mail_parameter = prop_oneof![
        "SIZE=[0-9]{1,20}",
        "BODY=(7BIT|8BITMIME|BINARYMIME|9BIT)",
        Just("SMTPUTF8".to_owned()),
        "RET=(FULL|HDRS)",
        "ENVID=[a-z+=]{1,8}",
        "AUTH=(<>|a@b.example|e\\+3Dmc2@example\\.com)",
        Just("REQUIRETLS".to_owned()),
        "[A-Z]{1,5}(=[a-z]{0,3})?",
    ];
    let rcpt_parameter = prop_oneof![
        "NOTIFY=(NEVER|SUCCESS|FAILURE,DELAY|SUCCESS,NEVER)",
        "ORCPT=rfc822;[a-z@.+=]{1,20}",
        "ORCPT=utf-8;[a-z@.+=ü\u{85}\u{fffe}]{1,20}",
        "[A-Z]{1,6}=[a-z]{1,3}",
    ];
    let list = |strategy: BoxedStrategy<String>| proptest::collection::vec(strategy, 0..4);
    prop_oneof![
        (mailbox(), list(mail_parameter.boxed()))
            .prop_map(|(path, list)| format!("MAIL FROM:<{path}> {}", list.join(" "))),
        (mailbox(), list(rcpt_parameter.boxed()))
            .prop_map(|(path, list)| format!("RCPT TO:<{path}> {}", list.join(" "))),
        mailbox().prop_map(|path| format!("rcpt to: <@one.example,@two.example:{path}>")),
        "(EHLO|HELO|ehlo) [!-~]{1,30}",
        "BDAT [0-9]{1,20}( LAST)?",
        "AUTH [A-Z0-9_-]{1,22}( [A-Za-z0-9+/=]{0,20})?",
        "(VRFY|EXPN|ETRN|HELP|NOOP) ?[ -~]{0,20}",
        "(DATA|RSET|QUIT|STARTTLS) {0,2}",
        Just("MAIL FROM:<>".to_owned()),
        Just("RCPT TO:<Postmaster>".to_owned()),
    ]
}

fn a_mailbox() -> impl Strategy<Value = Mailbox> {
    mailbox().prop_filter_map("no mailbox", |text| Mailbox::parse(&text).ok())
}

fn an_xtext() -> impl Strategy<Value = Xtext> {
    prop_oneof!["[\\x00-\\x7f]{1,20}", "[ -~]{1,20}"]
        .prop_filter_map("no xtext", |text| Xtext::new(&text))
}

fn mail_parameters() -> impl Strategy<Value = MailParameters> {
    let body = prop_oneof![
        Just(Body::SevenBit),
        Just(Body::EightBitMime),
        Just(Body::BinaryMime)
    ];
    let submitter = prop_oneof![
        Just(Submitter::Unknown),
        a_mailbox()
            .prop_filter("ASCII", Mailbox::is_ascii)
            .prop_map(Submitter::Mailbox)
    ];
    (
        proptest::option::of(any::<u64>()),
        proptest::option::of(body),
        any::<bool>(),
        proptest::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]),
        // RFC 3461 4.4: printable.
        proptest::option::of(an_xtext().prop_filter("printable", Xtext::is_printable)),
        proptest::option::of(submitter),
        any::<bool>(),
    )
        .prop_map(
            |(size, body, smtputf8, ret, envid, auth, requiretls)| MailParameters {
                size,
                body,
                smtputf8,
                ret,
                envid,
                auth,
                requiretls,
            },
        )
}

fn rcpt_parameters() -> impl Strategy<Value = RcptParameters> {
    let on = any::<(bool, bool, bool)>()
        .prop_filter("some event", |on| *on != (false, false, false))
        .prop_map(|(success, failure, delay)| Notify::On {
            success,
            failure,
            delay,
        });
    let xtext = ("[a-z0-9-]{1,8}", an_xtext())
        .prop_filter_map("no type", |(kind, address)| Orcpt::new(&kind, address));
    let unitext = any::<String>().prop_filter_map("no unitext", |text| Orcpt::unitext(&text));
    let orcpt = prop_oneof![xtext, unitext];
    (
        proptest::option::of(prop_oneof![Just(Notify::Never), on]),
        proptest::option::of(orcpt),
    )
        .prop_map(|(notify, orcpt)| RcptParameters { notify, orcpt })
}

/// Commands made of values, not read from a line.
fn command() -> impl Strategy<Value = Command> {
    let from = prop_oneof![
        Just(ReversePath::Null),
        a_mailbox().prop_map(ReversePath::Mailbox)
    ];
    let host = "[a-z]{1,8}\\.test".prop_filter_map("no host", |host| Domain::parse(&host).ok());
    let to = prop_oneof![
        Just(ForwardPath::Postmaster),
        (proptest::collection::vec(host, 0..3), a_mailbox())
            .prop_map(|(route, mailbox)| ForwardPath::Mailbox { route, mailbox })
    ];
    let mechanism = "[A-Z0-9_-]{1,20}".prop_filter_map("no name", |text| Mechanism::parse(&text));
    let initial = proptest::collection::vec(any::<u8>(), 0..30);
    let helo =
        "[a-z0-9.:\\[\\]_-]{1,30}".prop_filter_map("no name", |text| HeloName::parse(&text).ok());
    prop_oneof![
        (from, mail_parameters())
            .prop_map(|(from, parameters)| Command::Mail(Mail { from, parameters })),
        (to, rcpt_parameters()).prop_map(|(to, parameters)| Command::Rcpt(Rcpt { to, parameters })),
        (any::<u64>(), any::<bool>()).prop_map(|(size, last)| Command::Bdat(Bdat { size, last })),
        (mechanism, proptest::option::of(initial)).prop_map(|(mechanism, initial)| {
            let initial = initial.map(|octets| Base64Text::encode(&octets));
            Command::Auth(Auth { mechanism, initial })
        }),
        helo.prop_map(Command::Ehlo),
        Just(Command::Data),
        Just(Command::Rset),
        Just(Command::Noop),
        Just(Command::Quit),
        Just(Command::StartTls),
    ]
}

fn assert_harmless(printed: &str) {
    assert!(!printed.chars().any(char::is_control), "{printed:?}");
}

fn cut_at(input: &[u8], cuts: &[usize], max: usize) -> Vec<String> {
    let mut cutter = LineCutter::new();
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        buffer.extend_from_slice(&input[from..cut]);
        from = cut;
        loop {
            match cutter.cut(&mut buffer, max) {
                Ok(Some(line)) => {
                    assert!(line.len() + 2 <= max);
                    assert!(!line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
                    found.push(line.escape_ascii().to_string());
                }
                Ok(None) => break,
                Err(offence) => {
                    found.push(format!("{offence:?}"));
                    // All but a long line are final.
                    if offence != LineOffence::TooLong {
                        return found;
                    }
                }
            }
        }
        assert!(buffer.len() < max, "no more than a line is held back");
    }
    found
}

/// The replies in a stream, and the offence that ends it.
fn replies(input: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut parser = ReplyParser::new();
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        buffer.extend_from_slice(&input[from..cut]);
        from = cut;
        loop {
            match parser.feed(&mut buffer) {
                Ok(Some(reply)) => {
                    assert!(
                        reply
                            .lines()
                            .iter()
                            .all(|line| !line.contains(char::is_control))
                    );
                    found.push(format!("{reply:?}"));
                }
                Ok(None) => break,
                Err(offence) => {
                    found.push(format!("{offence:?}"));
                    return found;
                }
            }
        }
    }
    found
}

/// A backend that never ends a line or a reply must not fill the memory.
#[test]
fn a_reply_without_end_is_given_up() {
    for endless in [&b"250-a\r\n"[..], b"250-", b"aaaaaaaa", &[b'2'; 4096]] {
        let mut parser = ReplyParser::new();
        let mut buffer = BytesMut::new();
        let mut taken = 0;
        while parser.feed(&mut buffer).is_ok_and(|reply| reply.is_none()) {
            buffer.extend_from_slice(endless);
            taken += endless.len();
            assert!(taken < 200_000, "{}", endless.escape_ascii());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn commands_made_of_values_read_back(command in command()) {
        let printed = command.to_string();
        assert_harmless(&printed);
        prop_assert_eq!(Command::parse(printed.as_bytes()), Ok(command), "{}", printed);
    }

    #[test]
    fn parameters_read_back(mail in mail_parameters(), rcpt in rcpt_parameters()) {
        prop_assert_eq!(MailParameters::parse(&mail.to_string()), Ok(mail));
        prop_assert_eq!(RcptParameters::parse(&rcpt.to_string()), Ok(rcpt));
    }

    #[test]
    fn commands_print_canonically_and_read_back(line in line()) {
        if let Ok(command) = Command::parse(line.as_bytes()) {
            let printed = command.to_string();
            assert_harmless(&printed);
            prop_assert_eq!(Command::parse(printed.as_bytes()), Ok(command));
        }
    }

    #[test]
    fn nothing_makes_a_parser_fall_over_or_print_a_control_character(
        octets in proptest::collection::vec(any::<u8>(), 0..80),
        verb in "(MAIL FROM:<|RCPT TO:<|EHLO |AUTH PLAIN |BDAT |VRFY |)",
    ) {
        let line = [verb.as_bytes(), &octets].concat();
        if let Ok(command) = Command::parse(&line) {
            assert_harmless(&command.to_string());
        }
        if let Ok(line) = AuthLine::parse(&octets) {
            assert_harmless(&line.to_string());
        }
        let text = String::from_utf8_lossy(&octets);
        for printed in [
            HeloName::parse(&text).ok().map(|value| value.to_string()),
            ReversePath::parse(&text).ok().map(|value| value.to_string()),
            ForwardPath::parse(&text).ok().map(|value| value.to_string()),
            Mailbox::parse(&text).ok().map(|value| value.to_string()),
            Domain::parse(&text).ok().map(|value| value.to_string()),
            AddressLiteral::parse(&text).ok().map(|value| value.to_string()),
            LocalPart::parse(&text).ok().map(|value| value.to_string()),
            MailDomain::parse(&text).ok().map(|value| value.to_string()),
            MailParameters::parse(&text).ok().map(|value| value.to_string()),
            RcptParameters::parse(&text).ok().map(|value| value.to_string()),
            Mechanism::parse(&text).map(|value| value.to_string()),
            Base64Text::parse(&text).map(|value| value.as_str().to_owned()),
            Verb::parse(&octets).map(|value| value.to_string()),
            Some(Keywords::parse(&Reply::multiline(250, None, ["hello", text.as_ref()]))
                .lines().collect()),
            Xtext::parse(&text).map(|value| value.to_string()),
            Some(xtext::encode(&text)),
        ].into_iter().flatten() {
            assert_harmless(&printed);
        }
        let mut buffer = BytesMut::from(&octets[..]);
        let _ = ReplyParser::default().feed(&mut buffer);
    }

    #[test]
    fn paths_read_back(mailbox in mailbox()) {
        if let Ok(parsed) = Mailbox::parse(&mailbox) {
            prop_assert_eq!(Mailbox::parse(&parsed.to_string()), Ok(parsed));
        }
        let path = format!("<{mailbox}>");
        if let Ok(parsed) = ForwardPath::parse(&path) {
            prop_assert_eq!(ForwardPath::parse(&parsed.to_string()), Ok(parsed));
        }
        if let Ok(parsed) = ReversePath::parse(&path) {
            prop_assert_eq!(ReversePath::parse(&parsed.to_string()), Ok(parsed));
        }
    }

    #[test]
    fn most_ordinary_mailboxes_are_understood(local in "[a-z]{1,8}(\\.[a-z]{1,8})?", domain in "[a-z]{1,8}\\.[a-z]{2,4}") {
        let text = format!("{local}@{domain}");
        prop_assert_eq!(Mailbox::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn xtext_carries_every_ascii_text(text in "[\\x00-\\x7f]{1,30}") {
        let encoded = xtext::encode(&text);
        assert_harmless(&encoded);
        prop_assert!(!encoded.contains([' ', '=']));
        let parsed = Xtext::parse(&encoded).unwrap();
        prop_assert_eq!(parsed.as_str(), text.as_str());
    }

    #[test]
    fn replies_read_back_however_they_are_cut(
        class in 2u16..=5, rest in 0u16..100, enhanced in any::<bool>(),
        lines in proptest::collection::vec("[!-~][ -~]{0,60}", 1..5),
        cut in any::<usize>(),
    ) {
        let code = class * 100 + rest;
        let enhanced = (enhanced && class != 3).then(|| EnhancedCode { class: u8::try_from(class).unwrap(), subject: 1, detail: 7 });
        let reply = Reply::multiline(code, enhanced, &lines);
        let printed = reply.to_string();
        for line in printed.split_inclusive("\r\n") {
            prop_assert!(line.len() <= 512 && line.ends_with("\r\n"));
        }
        let mut parser = ReplyParser::default();
        let mut buffer = BytesMut::new();
        let cut = cut % (printed.len() + 1);
        buffer.extend_from_slice(&printed.as_bytes()[..cut]);
        let early = parser.feed(&mut buffer).unwrap();
        buffer.extend_from_slice(&printed.as_bytes()[cut..]);
        let parsed = match early {
            Some(reply) => reply,
            None => parser.feed(&mut buffer).unwrap().unwrap(),
        };
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(parsed.to_string(), printed);
        prop_assert_eq!(parsed, reply);
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut(
        pieces in proptest::collection::vec("(250|354|5)(-|  | |)(a{0,9}|\0|é)(\r\n|\r\n|\r\n|\n|\r)", 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let input = pieces.concat().into_bytes();
        prop_assert_eq!(replies(&input, &cuts), replies(&input, &[]));
    }

    #[test]
    fn keywords_read_back(words in proptest::collection::vec(("[A-Z][A-Z0-9-]{0,10}", proptest::collection::vec("[!-<>-~]{1,8}", 0..3)), 0..6)) {
        let mut keywords = Keywords::new();
        for (keyword, parameters) in &words {
            keywords.insert(keyword, parameters.iter().collect::<std::collections::BTreeSet<_>>());
        }
        let reply = keywords.to_reply("mx.example greets you");
        prop_assert_eq!(Keywords::parse(&reply), keywords);
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut(
        pieces in proptest::collection::vec("(\r\n|\r|\n|\0|abc|\r\n\r\n|a{30})", 0..16),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let input = pieces.concat().into_bytes();
        prop_assert_eq!(cut_at(&input, &cuts, 40), cut_at(&input, &[], 40));
    }
}
