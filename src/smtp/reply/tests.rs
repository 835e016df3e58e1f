use super::*;
use bytes::BytesMut;

fn parse(wire: &[u8]) -> Result<Option<Reply>, ReplyError> {
    ReplyParser::new().feed(&mut BytesMut::from(wire))
}

fn reply(wire: &str) -> Reply {
    parse(wire.as_bytes()).unwrap().unwrap()
}

#[test]
fn prints_code_and_enhanced_code_on_every_line() {
    let enhanced = EnhancedCode::new(5, 7, 1);
    assert_eq!(
        Reply::new(550, enhanced, "no").to_string(),
        "550 5.7.1 no\r\n"
    );
    assert_eq!(Reply::new(250, None, "").to_string(), "250 \r\n");
    assert_eq!(
        Reply::multiline(550, enhanced, ["no", "", "never"]).to_string(),
        "550-5.7.1 no\r\n550-5.7.1 \r\n550 5.7.1 never\r\n"
    );
    assert_eq!(Reply::multiline(250, None, [""; 0]).to_string(), "250 \r\n");
}

#[test]
fn text_cannot_start_another_line() {
    let mut reply = Reply::new(250, None, "ok\r\n354 go\0\u{7f}\u{85}");
    reply.append("\r\n221 bye");
    assert_eq!(reply.to_string(), "250 ok??354 go?????221 bye\r\n");
}

#[test]
fn enhanced_code_of_another_class_is_left_out() {
    let reply = Reply::new(550, EnhancedCode::new(2, 0, 0), "no");
    assert_eq!(reply.enhanced(), None);
}

#[test]
fn append_goes_to_the_last_line() {
    let mut reply = Reply::multiline(550, EnhancedCode::new(5, 7, 1), ["a", "b"]);
    reply.append(" [id]");
    assert_eq!(reply.to_string(), "550-5.7.1 a\r\n550 5.7.1 b [id]\r\n");
    assert_eq!(reply.text(), "a b [id]");
}

#[test]
fn long_text_is_printed_on_several_lines() {
    for text in ["x".repeat(2000), "word ".repeat(400), "é".repeat(1000)] {
        let long = Reply::new(550, EnhancedCode::new(5, 999, 999), &text);
        let printed = long.to_string();
        assert!(
            printed
                .split_inclusive("\r\n")
                .all(|line| line.len() <= 512)
        );
        let back = reply(&printed);
        assert_eq!(back.lines().concat(), text);
        assert!(back.lines().len() < 6, "lines are filled");
        assert_eq!(back.enhanced(), long.enhanced());
    }
}

#[test]
fn classes_are_told_apart() {
    let class = |code| {
        let reply = Reply::new(code, None, "");
        [
            reply.is_positive_completion(),
            reply.is_intermediate(),
            reply.is_transient(),
            reply.is_permanent(),
        ]
    };
    assert_eq!(class(250), [true, false, false, false]);
    assert_eq!(class(354), [false, true, false, false]);
    assert_eq!(class(421), [false, false, true, false]);
    assert_eq!(class(599), [false, false, false, true]);
}

#[test]
fn parses_all_spellings_of_one_line() {
    for wire in ["250\r\n", "250 \r\n"] {
        assert_eq!(reply(wire), Reply::new(250, None, ""));
    }
    assert_eq!(reply("250 ok\r\n").lines(), ["ok"]);
    assert_eq!(reply("250-a\r\n250-\r\n250 b\r\n").lines(), ["a", "", "b"]);
}

#[test]
fn takes_the_enhanced_code_off_each_line() {
    let found = reply("550-5.7.1 a\r\n550-b\r\n550-5.7.2 c\r\n550-5.7.1\r\n550 5.7.1 5.7.1 d\r\n");
    assert_eq!(found.enhanced(), Some(EnhancedCode::new(5, 7, 1)));
    assert_eq!(found.lines(), ["a", "b", "5.7.2 c", "", "5.7.1 d"]);
}

#[test]
fn other_numbers_are_no_enhanced_codes() {
    for text in [
        "2.1.5 x",
        "5.7 x",
        "5.7.1x",
        "5.07.1 x",
        "5.7.1000 x",
        "5..1 x",
        "5.7.1.2 x",
        "15.7.1 x",
        "x 5.7.1",
    ] {
        let found = reply(&format!("550 {text}\r\n"));
        assert_eq!(
            (found.enhanced(), found.lines()),
            (None, &[text.to_owned()][..])
        );
    }
    assert_eq!(reply("354 3.0.0 go\r\n").enhanced(), None);
}

#[test]
fn ehlo_lines_stay_as_they_are() {
    let found = reply("250-mail.example.org hello\r\n250-2.0.0 odd\r\n250 SIZE 5\r\n");
    assert_eq!(
        found.lines(),
        ["mail.example.org hello", "2.0.0 odd", "SIZE 5"]
    );
}

#[test]
fn what_follows_a_reply_stays_in_the_buffer() {
    let mut buffer = BytesMut::from(&b"250 a\r\n354 b\r\n2"[..]);
    let mut parser = ReplyParser::new();
    assert_eq!(parser.feed(&mut buffer).unwrap().unwrap().code(), 250);
    assert_eq!(buffer, "354 b\r\n2");
    assert_eq!(parser.feed(&mut buffer).unwrap().unwrap().code(), 354);
    assert_eq!(parser.feed(&mut buffer), Ok(None));
}

#[test]
fn a_reply_may_arrive_octet_by_octet() {
    let wire = b"550-5.7.1 a\r\n550 5.7.1 b\r\n";
    let (mut parser, mut buffer) = (ReplyParser::new(), BytesMut::new());
    for (nth, octet) in wire.iter().enumerate() {
        buffer.extend_from_slice(&[*octet]);
        let found = parser.feed(&mut buffer).unwrap();
        assert_eq!(found.is_some(), nth + 1 == wire.len());
    }
}

#[test]
fn refuses_what_is_no_reply() {
    for wire in [
        "\r\n",
        "25\r\n",
        "ok\r\n",
        "2500 x\r\n",
        "250x\r\n",
        "199 x\r\n",
        "600 x\r\n",
        "000 x\r\n",
        " 250 x\r\n",
        "25a x\r\n",
        "+OK\r\n",
        "250\tx\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
    ] {
        assert_eq!(
            parse(wire.as_bytes()),
            Err(ReplyError::Malformed),
            "{wire:?}"
        );
    }
}

#[test]
fn refuses_bare_newlines() {
    for wire in [
        "250 a\n",
        "250 a\rb\r\n",
        "250 a\r\r\n",
        "250-a\n250 b\r\n",
        "\n",
    ] {
        assert_eq!(
            parse(wire.as_bytes()),
            Err(ReplyError::BareNewline),
            "{wire:?}"
        );
    }
}

#[test]
fn refuses_different_codes_in_one_reply() {
    assert_eq!(parse(b"250-a\r\n550 b\r\n"), Err(ReplyError::MixedCodes));
}

#[test]
fn control_characters_and_broken_utf8_become_question_marks() {
    let found = parse(b"250 a\0\x1b[31m\x7f\xff\xc3\r\n").unwrap().unwrap();
    assert_eq!(found.text(), "a??[31m???");
}

#[test]
fn a_long_challenge_stays_one_line() {
    let challenge = "QUJD".repeat(300);
    let reply = Reply::new(334, None, &challenge);
    assert_eq!(reply.to_string(), format!("334 {challenge}\r\n"));
}

#[test]
fn lines_and_length_are_bounded() {
    let text = "x".repeat(12_282);
    assert!(parse(format!("250 {text}\r\n").as_bytes()).is_ok());
    let long = format!("250 {text}x\r\n");
    assert_eq!(parse(long.as_bytes()), Err(ReplyError::TooLong));
    assert_eq!(
        parse(&[b'2'; 12_288]),
        Err(ReplyError::TooLong),
        "without waiting for its end"
    );

    let many = |count: usize| format!("{}250 \r\n", "250-\r\n".repeat(count));
    assert!(parse(many(127).as_bytes()).is_ok());
    assert_eq!(parse(many(128).as_bytes()), Err(ReplyError::TooLong));

    let big = format!("250-{}\r\n", "x".repeat(2000)).repeat(40);
    assert_eq!(parse(big.as_bytes()), Err(ReplyError::TooLong));
}
