//! Addresses print as what they were parsed from, and hide no second
//! destination behind another `@`.
#![no_main]

use std::fmt::{Debug, Display};

use libfuzzer_sys::fuzz_target;
use portcullis::smtp::path::{
    AddressError, AddressLiteral, Domain, ForwardPath, HeloName, LocalPart, MailDomain, Mailbox,
    ReversePath,
};
use portcullis_fuzz::assert_one_line;

fn round<T: Display + Debug + PartialEq>(
    parse: impl Fn(&str) -> Result<T, AddressError>,
    text: &str,
) -> Option<T> {
    let value = parse(text).ok()?;
    let printed = value.to_string();
    assert_one_line(&printed);
    assert_eq!(parse(&printed).as_ref(), Ok(&value), "{printed:?}");
    Some(value)
}

/// Outside quotes and literals, one `@` and no bracket.
fn assert_plain(mailbox: &Mailbox) {
    let printed = mailbox.to_string();
    assert!(printed.len() <= 254);
    let (mut quoted, mut escaped, mut ats) = (false, false, 0);
    for octet in printed.bytes() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'@' => ats += 1,
            // A literal may hold nearly anything (RFC 5321 4.1.3).
            b'[' if ats == 1 => break,
            b'<' | b'>' | b' ' | b',' | b';' | b'\\' => panic!("{printed:?}"),
            _ => {}
        }
    }
    assert!(ats == 1 && !quoted, "{printed:?}");
}

fuzz_target!(|text: &str| {
    round(HeloName::parse, text);
    round(Domain::parse, text);
    round(AddressLiteral::parse, text);
    round(MailDomain::parse, text);
    round(LocalPart::parse, text);
    if let Ok(local) = LocalPart::from_content(text) {
        assert_eq!(LocalPart::parse(&local.to_string()), Ok(local));
    }
    if let Some(mailbox) = round(Mailbox::parse, text) {
        assert_plain(&mailbox);
    }
    if let Some(mailbox) = round(ReversePath::parse, text)
        .as_ref()
        .and_then(ReversePath::mailbox)
    {
        assert_plain(mailbox);
    }
    if let Some(mailbox) = round(ForwardPath::parse, text)
        .as_ref()
        .and_then(ForwardPath::mailbox)
    {
        assert_plain(mailbox);
    }
});
