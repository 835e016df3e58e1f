use super::*;

fn part_cut(content: &[u8], length: usize) -> Vec<u8> {
    let (mut parter, mut out) = (Parter::default(), Vec::new());
    for piece in content.chunks(length) {
        parter.part(piece, &mut out);
    }
    parter.finish(&mut out);
    out
}

/// However it is cut.
#[track_caller]
fn part(content: &str) -> String {
    let whole = part_cut(content.as_bytes(), content.len().max(1));
    for length in 1..=7 {
        let cut = part_cut(content.as_bytes(), length);
        assert_eq!(cut, whole, "cut into {length}");
    }
    String::from_utf8(whole).unwrap()
}

#[track_caller]
fn assert_passes(content: &str) {
    assert_eq!(part(content), content);
}

#[test]
fn a_line_that_is_no_field_begins_the_body() {
    for line in [
        "WDVPIVAlQEFQ",
        "no field",
        "two words: no name",
        "h\u{e9}: no name",
        ": no name",
        ">From a",
        "From a",
        "",
    ] {
        let sent =
            format!("Subject: a\r\n b\r\nTo : c\r\n{line}\r\nX-Portcullis-A: A\r\n\r\nd\r\n");
        let parted = sent.replace("To : c\r\n", "To : c\r\n\r\n");
        let expected = if line.is_empty() { &sent } else { &parted };
        assert_eq!(part(&sent), *expected, "{line}");
    }
}

#[test]
fn what_has_an_empty_line_passes() {
    for passes in [
        "",
        "\r\n",
        "\r\nbody\r\n",
        "Subject: a\r\n\r\nbody\r\nSubject: a\r\nbody\r\n",
        "Subject: a\r\n\tb\r\n \r\nTo: c\r\n",
        "Subject: a\r\n",
        "Subject: a",
    ] {
        assert_passes(passes);
    }
}

#[test]
fn a_message_that_begins_with_its_body_is_given_an_empty_line_first() {
    let spaces = " ".repeat(NAME_MAX);
    let name = "x".repeat(NAME_MAX);
    let quotes = ">".repeat(NAME_MAX);
    for first in [
        "body",
        " body",
        "X",
        &format!("X{spaces}: a"),
        &format!("{name}: a"),
        &format!("{quotes}From a"),
    ] {
        let sent = format!("{first}\r\nSubject: a\r\nbody\r\n");
        assert_eq!(part(&sent), format!("\r\n{sent}"), "{first:.20}");
        if !first.starts_with(' ') {
            let led = part(&format!("From a@b.test\r\n{sent}"));
            let expected = format!("X-Mailbox-Line: From a@b.test\r\n\r\n{sent}");
            assert_eq!(led, expected, "{first:.20}");
        }
    }
}

#[test]
fn a_separator_becomes_a_field() {
    for separator in ["From a@b.test", ">>From a", "From : x", "From "] {
        let sent = format!("{separator}\r\nSubject: a\r\nbody\r\n");
        let expected = format!("X-Mailbox-Line: {separator}\r\nSubject: a\r\n\r\nbody\r\n");
        assert_eq!(part(&sent), expected, "{separator}");
        let grown = expected.len() - sent.len();
        assert_eq!(u64::try_from(grown).unwrap(), GROWTH_MAX);
    }
    for none in ["From", " From a", "From:a"] {
        assert!(
            !part(&format!("{none}\r\n\r\n")).contains("X-Mailbox"),
            "{none}"
        );
    }
}

#[test]
fn no_more_of_a_line_is_held_than_a_name_may_be_long() {
    let name = "x".repeat(NAME_MAX - 1);
    assert_passes(&format!("Subject: a\r\n{name}: b\r\n\r\nc\r\n"));
    let long = format!("Subject: a\r\n{name}x: b\r\n\r\nc\r\n");
    assert_eq!(part(&long), long.replace("a\r\n", "a\r\n\r\n"));
    let mut parter = Parter::default();
    let mut out = Vec::new();
    parter.part(b"Subject: a\r\n", &mut out);
    for _ in 0..100 {
        parter.part(&[b'x'; 100], &mut out);
        assert!(parter.held.len() <= NAME_MAX);
    }
    assert!(parter.is_over());
}

#[test]
fn a_message_that_ends_inside_a_line_is_parted_too() {
    assert_eq!(part("Subject: a\r\nbody"), "Subject: a\r\n\r\nbody");
    assert_eq!(part("Subject: a\r\n\r"), "Subject: a\r\n\r");
}
