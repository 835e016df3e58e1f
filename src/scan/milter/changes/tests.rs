//! Which changes get through, and as what.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const NO_TRACE: Reading<'static> = Reading {
    trace: b"",
    leading_space: false,
};
const TRACE: Reading<'static> = Reading {
    trace: b"Received: from a by b;\r\n\tdate\r\n",
    leading_space: false,
};

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn add(name: &str, value: impl AsRef<[u8]>) -> Answer {
    let (name, value) = (bytes(name), bytes(value));
    Answer::AddHeader { name, value }
}

fn insert(index: u32, name: &str, value: &str) -> Answer {
    let (name, value) = (bytes(name), bytes(value));
    Answer::InsertHeader { index, name, value }
}

fn change(index: u32, name: &str, value: &str) -> Answer {
    let (name, value) = (bytes(name), bytes(value));
    Answer::ChangeHeader { index, name, value }
}

fn taken(answers: impl IntoIterator<Item = Answer>, reading: Reading<'_>) -> Vec<Change> {
    let mut changes = Changes::default();
    for answer in answers {
        changes.take(answer, reading).unwrap();
    }
    changes.into_parts().1
}

fn added(value: impl AsRef<[u8]>) -> Option<String> {
    match taken([add("X", value)], NO_TRACE).pop() {
        Some(Change::Add { value, .. }) => Some(value),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keeps_changes_in_order() {
    let answers = [
        add("X-One", "1"),
        insert(0, "X-Two", "2"),
        change(1, "Subject", "new"),
        change(2, "Old", ""),
    ];
    let expected = [
        Change::Add {
            place: Place::Last,
            name: "X-One".into(),
            value: "1".into(),
        },
        Change::Add {
            place: Place::First,
            name: "X-Two".into(),
            value: "2".into(),
        },
        Change::Set {
            name: "Subject".into(),
            index: 1,
            value: "new".into(),
        },
        Change::Delete {
            name: "Old".into(),
            index: Some(2),
        },
    ];
    assert_eq!(taken(answers, NO_TRACE), expected);
}

#[test]
fn drops_what_would_forge_a_field_or_end_the_header_section() {
    for value in [
        "a\r\nBcc: b@example.org",
        "a\nBcc: b",
        "a\rBcc: b",
        "a\r\n\r\nbody",
        "a\n \nb",
        "a\n \n b",
        "a\r\n\r\n b",
    ] {
        assert_eq!(added(value), None, "{value:?}");
    }
    for name in ["", "a b", "a:b", "a\r\nb", "n\u{e4}me"] {
        assert!(taken([add(name, "x")], NO_TRACE).is_empty(), "{name:?}");
    }
}

#[test]
fn folds_with_crlf() {
    assert_eq!(added("a\n\tb\r\n c").as_deref(), Some("a\r\n\tb\r\n c"));
    assert_eq!(added("a\r\n").as_deref(), Some("a"));
    assert_eq!(added(b"caf\xe9").as_deref(), Some("caf\u{fffd}"));
}

#[test]
fn takes_off_the_space_only_if_it_was_agreed_to_be_there() {
    let value = |leading_space| {
        let reading = Reading {
            leading_space,
            ..NO_TRACE
        };
        match taken([add("X", " a")], reading).pop() {
            Some(Change::Add { value, .. }) => value,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(value(true), "a");
    assert_eq!(value(false), " a");
}

#[test]
fn counts_fields_as_sendmail_does() {
    let place = |index, reading| match taken([insert(index, "X", "y")], reading).pop() {
        Some(Change::Add { place, .. }) => place,
        other => panic!("{other:?}"),
    };
    assert_eq!(place(0, TRACE), Place::First);
    assert_eq!(place(1, TRACE), Place::At(1));
    assert_eq!(place(0, NO_TRACE), Place::First);
    assert_eq!(place(1, NO_TRACE), Place::First);
    assert_eq!(place(3, NO_TRACE), Place::At(2));

    let index = |index, name, reading| match taken([change(index, name, "y")], reading).pop() {
        Some(Change::Set { index, .. }) => index,
        other => panic!("{other:?}"),
    };
    assert_eq!(index(1, "received", TRACE), 2);
    assert_eq!(index(1, "received", NO_TRACE), 1);
    assert_eq!(index(1, "Subject", TRACE), 1);
    assert_eq!(index(0, "Subject", TRACE), 1);
    assert_eq!(index(u32::MAX, "Received", TRACE), u32::MAX);
}

#[test]
fn refuses_changes_of_the_envelope() {
    for (octet, wish) in [
        (b'+', "add a recipient"),
        (b'-', "take out a recipient"),
        (b'2', "add a recipient"),
        (b'e', "change the sender"),
    ] {
        let answer = Answer::ChangeEnvelope(octet);
        match Changes::default().take(answer, NO_TRACE) {
            // A fault of this message's only.
            Err(ScanError::Reported(why)) => assert!(why.contains(wish), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn refuses_changes_without_end() {
    let mut changes = Changes::default();
    let many = (0..=CHANGES_MAX).map(|_| changes.take(add("a b", "x"), NO_TRACE));
    assert_eq!(many.filter(Result::is_err).count(), 1);

    let mut changes = Changes::default();
    let long = "x".repeat(HEADER_MAX / 2);
    assert!(changes.take(add("X", &long), NO_TRACE).is_ok());
    assert!(changes.take(add("X", &long), NO_TRACE).is_err());
}

#[test]
fn a_reason_for_a_quarantine_is_short_and_clean() {
    let mut changes = Changes::default();
    let reason = format!("bad\r\n\x1b{}", "x".repeat(1000));
    changes
        .take(Answer::Quarantine(bytes(reason)), NO_TRACE)
        .unwrap();
    let (reason, _) = changes.into_parts();
    let reason = reason.unwrap();
    assert!(reason.starts_with("bad\\r\\n"), "{reason}");
    assert!(reason.len() < 300 && !reason.contains(char::is_control));
}

proptest! {
    #[test]
    fn whatever_comes_no_line_end_stands_alone(
        value in proptest::collection::vec(proptest::sample::select(b"ab \t\r\n\0:.".to_vec()), 0..30)
    ) {
        if let Some(added) = added(&value) {
            let rest = added.replace("\r\n ", "").replace("\r\n\t", "");
            prop_assert!(!rest.contains(['\r', '\n', '\0']), "{added:?}");
        }
    }
}
