use super::*;

fn printed(line: &str) -> String {
    match Command::parse(line.as_bytes()) {
        Ok(command) => command.to_string(),
        Err(error) => panic!("{line:?}: {error}"),
    }
}

#[track_caller]
fn refuses(lines: &[&str]) {
    for line in lines {
        let error = Command::parse(line.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                CommandError::Syntax { .. } | CommandError::Address { .. }
            ),
            "{line:?}: {error:?}"
        );
    }
}

#[test]
fn prints_each_command_as_it_came() {
    for line in [
        "HELO mail.example.org",
        "EHLO [IPv6:2001:db8::1]",
        "STARTTLS",
        "AUTH PLAIN",
        "AUTH PLAIN =",
        "AUTH PLAIN AGEAYg==",
        "MAIL FROM:<>",
        "MAIL FROM:<a@b> SIZE=1 BODY=7BIT",
        "RCPT TO:<postmaster>",
        "RCPT TO:<@x:\"a b\"@c> NOTIFY=NEVER",
        "DATA",
        "BDAT 0",
        "BDAT 18446744073709551615 LAST",
        "RSET",
        "NOOP",
        "VRFY some one",
        "EXPN list",
        "ETRN @example.org",
        "HELP",
        "HELP MAIL",
        "QUIT",
    ] {
        assert_eq!(printed(line), line);
        let command = Command::parse(line.as_bytes()).unwrap();
        assert_eq!(
            Some(command.verb()),
            Verb::parse(line.split(' ').next().unwrap().as_bytes())
        );
    }
}

#[test]
fn tolerates_case_and_spaces_and_prints_neither() {
    for (sent, canonical) in [
        ("mail from:<A@b> size=5", "MAIL FROM:<A@b> SIZE=5"),
        ("MAIL FROM: <a@b>", "MAIL FROM:<a@b>"),
        ("rcpt To:   <a@b>  ", "RCPT TO:<a@b>"),
        ("Quit   ", "QUIT"),
        ("DATA ", "DATA"),
        ("noop whatever > é", "NOOP"),
        ("ehlo Example.ORG ", "EHLO Example.ORG"),
        ("auth plain", "AUTH PLAIN"),
        ("bdat 007 last", "BDAT 7 LAST"),
        ("HELP ", "HELP"),
        ("starttls", "STARTTLS"),
    ] {
        assert_eq!(printed(sent), canonical);
    }
}

#[test]
fn refuses_control_characters_anywhere() {
    refuses(&[
        "MAIL\tFROM:<a@b>",
        "MAIL FROM:\t<a@b>",
        "MAIL FROM:<a@b>\tSIZE=1",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>",
        "MAIL FROM:\r<a@b>",
        "MAIL FROM:<a@b\0>",
        "NOOP \u{7f}",
        "NOOP \u{85}",
        "QUIT\t",
        "QUIT\r",
        "DATA\0",
        "EHLO a\rRSET b",
        "VRFY a\nb",
    ]);
}

#[test]
fn refuses_octets_that_are_not_utf8() {
    for line in [&b"MAIL FROM:<\xff@b>"[..], b"NOOP \xc3", b"EHLO \x80"] {
        assert!(matches!(
            Command::parse(line),
            Err(CommandError::Syntax {
                problem: "not UTF-8",
                ..
            })
        ));
    }
}

#[test]
fn refuses_arguments_where_none_are_due() {
    refuses(&[
        "DATA x",
        "RSET x",
        "QUIT x",
        "STARTTLS x",
        "DATA<a>",
        "QUIT:",
        "DATA  x",
    ]);
}

#[test]
fn refuses_missing_arguments() {
    refuses(&[
        "HELO", "EHLO ", "AUTH", "MAIL", "RCPT", "BDAT", "VRFY", "EXPN ", "ETRN",
    ]);
}

#[test]
fn refuses_malformed_mail_and_rcpt() {
    refuses(&[
        "MAIL <a@b>",
        "MAIL TO:<a@b>",
        "MAIL FROM <a@b>",
        "MAIL FROM:",
        "MAIL FROM:a@b",
        "MAIL FROM :<a@b>",
        "MAIL  FROM:<a@b>",
        "MAIL:FROM:<a@b>",
        "MAIL FROM:<a@b",
        "MAIL FROM:<a@b>>",
        "MAIL FROM:<a@b>SIZE=1",
        "MAIL FROM:x<a@b>",
        "MAIL FROM:<a@b> <c@d>",
        "MAIL FROM:é<a@b>",
        "MAIL FROé:<a@b>",
        "RCPT TO:<>",
        "RCPT FROM:<a@b>",
        "RCPT TO:<a@b>,<c@d>",
        "RCPT TO:\"a\" <a@b>",
    ]);
}

#[test]
fn tells_address_errors_from_syntax_errors() {
    let verb = Verb::Rcpt;
    assert!(matches!(
        Command::parse(b"RCPT TO:<a@b.>"),
        Err(CommandError::Address { verb: found, .. }) if found == verb
    ));
    assert_eq!(
        Command::parse(b"RCPT TO:<a@b> X=1"),
        Err(CommandError::UnknownParameter { verb })
    );
}

#[test]
fn chunk_size_is_digits_that_fit() {
    refuses(&[
        "BDAT -1",
        "BDAT +1",
        "BDAT x",
        "BDAT 1 2",
        "BDAT 1 LAST x",
        "BDAT 1  LAST",
        "BDAT LAST",
        "BDAT 18446744073709551616",
        "BDAT 99999999999999999999999",
    ]);
}

#[test]
fn auth_takes_base64_only() {
    refuses(&[
        "AUTH PLAIN AAA",
        "AUTH PLAIN AA=A",
        "AUTH PLAIN ====",
        "AUTH PLAIN A===",
        "AUTH PLAIN AA*=",
        "AUTH PLAIN AAAA BBBB",
        "AUTH PLAIN  AAAA",
        "AUTH PL@IN",
        "AUTH ABCDEFGHIJKLMNOPQRSTU",
        "AUTH  PLAIN",
    ]);
    let long = "A".repeat(12_288);
    assert!(Command::parse(format!("AUTH X {long}").as_bytes()).is_ok());
    refuses(&[&format!("AUTH X {long}AAAA")]);
}

#[test]
fn auth_secret_never_shows_in_debug() {
    let command = Command::parse(b"AUTH PLAIN c2VjcmV0").unwrap();
    assert!(!format!("{command:?}").contains("c2VjcmV0"));
    let line = AuthLine::parse(b"c2VjcmV0").unwrap();
    assert!(!format!("{line:?}").contains("c2VjcmV0"));
    let AuthLine::Response(response) = line else {
        panic!("not a response");
    };
    assert_eq!(response.decode().unwrap(), b"secret");
    assert_eq!(response, Base64Text::encode(b"secret"));
}

#[test]
fn auth_line_is_base64_nothing_or_a_star() {
    assert_eq!(AuthLine::parse(b"*"), Ok(AuthLine::Cancel));
    let empty = AuthLine::parse(b"").unwrap();
    assert_eq!(empty, AuthLine::Response(Base64Text::encode(b"")));
    assert_eq!(empty.to_string(), "");
    assert_eq!(AuthLine::parse(b"AAAA").unwrap().to_string(), "AAAA");
    for bad in [
        &b"="[..],
        b"**",
        b"AAA",
        b"AA AA",
        b"QUIT\r",
        b"\xff\xff\xff\xff",
        b"A\0AA",
    ] {
        assert!(AuthLine::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn base64_with_stray_bits_does_not_decode() {
    assert_eq!(Base64Text::parse("QR==").unwrap().decode(), None);
}

#[test]
fn unknown_verbs_are_unknown() {
    for line in [
        "",
        " ",
        " QUIT",
        "MAILX FROM:<a@b>",
        "XYZZY",
        "DATA-",
        ".",
        "250 ok",
        "\u{feff}QUIT",
        "Q",
        "quit2",
    ] {
        assert_eq!(
            Command::parse(line.as_bytes()),
            Err(CommandError::UnknownVerb),
            "{line:?}"
        );
    }
}

#[test]
fn verbs_that_are_not_for_clients_are_forbidden() {
    for line in [
        "XCLIENT ADDR=127.0.0.1",
        "xforward NAME=x",
        "XEXCH50 1 2",
        "X-EXPS GSSAPI",
        "X-LINK2STATE LAST",
        "XADR x",
        "XAUTH x",
        "TURN",
        "ATRN x",
        "LHLO x",
        "SEND FROM:<a@b>",
        "SOML FROM:<a@b>",
        "SAML FROM:<a@b>",
        "XCLIENT\tADDR=127.0.0.1",
    ] {
        assert_eq!(
            Command::parse(line.as_bytes()),
            Err(CommandError::ForbiddenVerb),
            "{line:?}"
        );
    }
}

#[test]
fn http_is_a_foreign_protocol() {
    for line in [
        "GET / HTTP/1.1",
        "POST /x",
        "HEAD /",
        "PUT /",
        "DELETE /",
        "OPTIONS *",
        "CONNECT mail:25",
        "PATCH /",
        "TRACE /",
        "get /",
        "PROPFIND / HTTP/1.1",
        "PRI * HTTP/2.0",
        "RSET HTTP/1.0",
    ] {
        assert_eq!(
            Command::parse(line.as_bytes()),
            Err(CommandError::ForeignProtocol),
            "{line:?}"
        );
    }
    assert_eq!(Command::parse(b"GET"), Err(CommandError::UnknownVerb));
}

#[test]
fn errors_name_the_verb_and_never_the_clients_text() {
    let error = Command::parse(b"RCPT TO:<evil> EVIL").unwrap_err();
    assert!(error.to_string().starts_with("RCPT: "));
    assert!(!error.to_string().contains("evil"));
}
