//! Where fields end, where the header section ends.

use proptest::prelude::*;

use super::*;

type Section = (Vec<(String, String)>, String);

/// All fields, and the body behind them.
fn walk(pieces: &[&[u8]]) -> Result<Section, TooLong> {
    let mut pieces = pieces.iter();
    let (mut fields, mut found) = (Fields::default(), Vec::new());
    loop {
        match fields.next()? {
            Front::Field { name, value } => {
                let text = |octets: Bytes| String::from_utf8_lossy(&octets).into_owned();
                found.push((text(name), text(value)));
            }
            Front::Incomplete => match pieces.next() {
                Some(piece) => fields.feed(piece),
                None => fields.complete(),
            },
            Front::Over => break,
        }
    }
    let mut rest = fields.into_rest();
    pieces.for_each(|piece| rest.extend_from_slice(piece));
    Ok((found, String::from_utf8_lossy(&rest).into_owned()))
}

fn check(message: &str, fields: &[(&str, &str)], body: &str) {
    let (found, rest) = walk(&[message.as_bytes()]).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, fields, "{message:?}");
    assert_eq!(rest, body, "{message:?}");
}

#[test]
fn cuts_fields_off_and_leaves_the_body() {
    check(
        "From: a\r\nSubject:\tb\r\nX:\r\n\r\nbody\r\n",
        &[("From", " a"), ("Subject", "\tb"), ("X", "")],
        "body\r\n",
    );
    check("\r\nbody\r\n", &[], "body\r\n");
    check("", &[], "");
    check("A: b\r\n", &[("A", " b")], "");
    check("A: b\r\n\r\n", &[("A", " b")], "");
}

#[test]
fn shows_folded_lines_with_lf() {
    check(
        "A: one\r\n two\r\n\tthree\r\nB: c\r\n\r\n",
        &[("A", " one\n two\n\tthree"), ("B", " c")],
        "",
    );
    // A line of white space only goes on with the field.
    check("A: b\r\n \r\n\r\nc\r\n", &[("A", " b\n ")], "c\r\n");
}

#[test]
fn white_space_before_the_colon_is_no_part_of_the_name() {
    check("Subject \t: x\r\n\r\n", &[("Subject", " x")], "");
}

#[test]
fn begins_the_body_with_a_line_that_is_no_field() {
    for line in [
        "no colon here\r\n",
        "two words: x\r\n",
        ": no name\r\n",
        "n\u{e4}me: x\r\n",
    ] {
        let message = format!("A: b\r\n{line}C: d\r\n\r\n");
        check(&message, &[("A", " b")], &format!("{line}C: d\r\n\r\n"));
    }
    check(" A: b\r\n\r\n", &[], " A: b\r\n\r\n");
}

#[test]
fn refuses_a_section_without_end() {
    let field = "X: ".to_owned() + &"x".repeat(900) + "\r\n";
    let message = field.repeat(1200);
    assert_eq!(walk(&[message.as_bytes()]), Err(TooLong));
    let line = "X: ".to_owned() + &"x".repeat(SECTION_MAX);
    assert_eq!(walk(&[line.as_bytes()]), Err(TooLong));
    // A long body is none of its business.
    let message = format!("A: b\r\n\r\n{}", "x".repeat(SECTION_MAX));
    assert!(walk(&[message.as_bytes()]).is_ok());
}

proptest! {
    #[test]
    fn finds_the_same_fields_wherever_the_message_is_cut(
        parts in proptest::collection::vec(proptest::sample::select(vec!["A", ":", " ", "\r\n", "\t", "bc", "\r\n\r\n", "X: y\r\n"]), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let message = parts.concat();
        let whole = walk(&[message.as_bytes()]);
        let (front, back) = message.as_bytes().split_at(cut.index(message.len() + 1));
        prop_assert_eq!(&walk(&[front, back]), &whole);
        let single: Vec<_> = message.as_bytes().chunks(1).collect();
        prop_assert_eq!(&walk(&single), &whole);
    }
}

#[test]
fn passes_over_an_mbox_separator() {
    for separator in ["From a Tue Nov 24 10:00:00 2026\r\n", ">>From b\r\n"] {
        check(&format!("{separator}A: b\r\n\r\nc"), &[("A", " b")], "c");
    }
    check("From a", &[], "From a");
}

#[test]
fn takes_no_folded_name_for_a_field() {
    check(
        "A\r\n : b\r\nC: d\r\n\r\n",
        &[],
        "A\r\n : b\r\nC: d\r\n\r\n",
    );
}

#[test]
fn refuses_a_name_that_is_too_long_to_be_shown() {
    let long = format!("{}: x\r\nA: b\r\n\r\n", "n".repeat(NAME_MAX + 1));
    assert_eq!(walk(&[long.as_bytes()]), Err(TooLong));
}
