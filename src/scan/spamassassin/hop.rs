//! The trace field by which SpamAssassin learns of the client and of the
//! reverse-path. Only spamd sees it.
//!
//! SpamAssassin knows the fields of a hundred servers by the words in them
//! (`parse_received_line` in Received.pm), wherever these stand. The form here is
//! one that it reads by its places, and a client that chooses its words must
//! never be read by another: as a server that had looked its name up, as somebody
//! who has signed in, as no hop at all.

use std::net::{IpAddr, Ipv6Addr};

use crate::scan::Message;

/// What SpamAssassin takes for the reverse-path wherever it stands.
const MARKS: [&str; 2] = ["envelope-", "return-path"];

/// In a field with this word SpamAssassin takes the name of EHLO for one that was
/// looked up. In lower case it means the same to everybody else.
const OTHER_SERVER: &str = "Exim";

/// In the place of a client that a balancer does not name: nobody's address
/// (RFC 3849), which no network holds and SpamAssassin calls no fault, as it does
/// those of RFC 5737.
const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The field, CRLF included.
///
/// The name `unknown` says that none was looked up. Recipients are left out:
/// SpamAssassin asks for none, and what they are called is for clients to say.
pub(super) fn hop(message: &Message<'_>) -> String {
    let ip = message.client.map_or(NOBODY, |client| client.ip());
    let literal = match ip.to_canonical() {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    let tls = match message.tls {
        Some(tls) => format!("\r\n\t(using {} with cipher {})", tls.version, tls.cipher),
        None => String::new(),
    };
    let envelope = match message.sender {
        sender if is_plain(sender) && !sender.is_empty() => {
            format!(" (envelope-from <{}>)", without_other_server(sender))
        }
        _ => String::new(),
    };
    // Behind the last semicolon (RFC 5321 4.4).
    let hop = String::from_utf8_lossy(message.hop);
    let date = hop.rsplit_once(';').map_or("", |(_, date)| date.trim());
    format!(
        "Received: from {} (unknown {literal}){tls}\r\n\tby {} (Portcullis) with {}{envelope} id {};\r\n\t{date}\r\n",
        name(message.hello),
        message.hostname,
        message.protocol,
        message.id,
    )
}

/// The field by which SpamAssassin learns of the null reverse-path; spamd's
/// protocol has no place for it. It believes the field above all trace fields
/// only, and not if there is one below (`get_envelope_from` in PerMsgStatus.pm).
/// A reverse-path that is not plain is left out.
pub(super) fn envelope_from(sender: &str) -> String {
    if is_plain(sender) {
        format!("X-Envelope-From: <{sender}>\r\n")
    } else {
        String::new()
    }
}

fn is_plain(sender: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>');
    sender.bytes().all(plain)
}

/// The name of EHLO: of a host, or an address in brackets, and nothing else.
fn name(hello: &str) -> String {
    let is_literal = hello.starts_with('[');
    let plain = |c: char| match c {
        '.' | '-' | '_' => true,
        '[' | ']' | ':' => is_literal,
        c => c.is_ascii_alphanumeric(),
    };
    let name = hello.chars().map(|c| if plain(c) { c } else { '_' });
    let mut name = without_other_server(&name.collect::<String>());
    for mark in MARKS {
        // Upper case may stand where lower case does, at the same place.
        while let Some(at) = name.to_ascii_lowercase().find(mark) {
            let hyphen = at + mark.find('-').unwrap_or_default();
            name.replace_range(hyphen..=hyphen, "_");
        }
    }
    name
}

fn without_other_server(text: &str) -> String {
    text.replace(OTHER_SERVER, &OTHER_SERVER.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::super::hear::scripted::{hold, message};
    use super::*;

    #[test]
    fn reverse_path_that_is_not_plain_is_left_out() {
        assert_eq!(envelope_from(""), "X-Envelope-From: <>\r\n");
        for sender in [
            "a\r\nSubject: x@b.test",
            "\"a b\"@c.test",
            "\"a>\"@b.test",
            "\u{e4}@b.test",
        ] {
            assert_eq!(envelope_from(sender), "");
        }
    }

    #[test]
    fn a_name_is_one_of_a_host_or_an_address() {
        for (hello, told) in [
            ("mx-1.sender.test", "mx-1.sender.test"),
            ("[192.0.2.7]", "[192.0.2.7]"),
            ("[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]"),
            ("Exim.EXIM", "exim.EXIM"),
            ("a:b=c[d]!e", "a_b_c_d__e"),
            ("envelope-from=x", "envelope_from_x"),
            ("Return-Path:x", "Return_Path_x"),
            ("ExExim", "Exexim"),
        ] {
            assert_eq!(name(hello), told);
        }
    }

    #[tokio::test]
    async fn tells_all_there_is_to_tell() {
        let body = hold(b"").await;
        let tls = crate::tls::TlsDetails {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            sni: None,
            resumed: false,
        };
        let told = Message {
            client: Some("[2001:db8::7]:25".parse().unwrap()),
            tls: Some(&tls),
            sender: "Exim@b.test",
            protocol: "ESMTPS",
            ..message(b"Received: from a;b\r\n\tby c;\r\n\tTue\r\n", &body)
        };
        assert_eq!(
            hop(&told),
            "Received: from client.test (unknown [IPv6:2001:db8::7])\r\n\
             \t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n\
             \tby mx.example.org (Portcullis) with ESMTPS (envelope-from <exim@b.test>) id test;\r\n\
             \tTue\r\n"
        );
    }
}
