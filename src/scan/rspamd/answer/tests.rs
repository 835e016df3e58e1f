//! Answers of rspamd as they are and as they should not be.

use super::*;

fn words(answer: &str) -> Vec<Word> {
    let opinions = opinions(answer.as_bytes()).unwrap();
    assert!(opinions.iter().all(|it| it.scanner == Scanner::Rspamd));
    opinions.into_iter().map(|opinion| opinion.word).collect()
}

fn changes_of(answer: &str) -> Vec<Change> {
    let opinions = opinions(answer.as_bytes()).unwrap();
    opinions.into_iter().flat_map(|it| it.changes).collect()
}

fn action(action: &str, rest: &str) -> String {
    format!(r#"{{"score": 1.5, "action": "{action}"{rest}}}"#)
}

fn acted(word: &str) -> Option<Word> {
    let mut words = words(&action(word, ""));
    assert!(matches!(words.remove(0), Word::Score { score: 1.5, .. }));
    words.pop()
}

#[test]
fn reads_score_threshold_and_rules() {
    let answer = r#"{"is_skipped": false, "score": 7.1, "required_score": 15,
        "action": "no action", "symbols": {"A": {"score": 7}, "B": {}}}"#;
    assert_eq!(
        words(answer),
        [Word::Score {
            score: 7.1,
            threshold: Some(15.0),
            rules: vec!["A".to_owned(), "B".to_owned()],
        }]
    );
}

#[test]
fn every_action_has_its_word() {
    assert_eq!(acted("no action"), None);
    assert_eq!(acted("greylist"), None);
    assert_eq!(acted("reject"), Some(Word::Refuse { reply: None }));
    assert_eq!(acted("discard"), Some(Word::Refuse { reply: None }));
    assert_eq!(acted("soft reject"), Some(Word::Defer { reply: None }));
    for mark in ["add header", "rewrite subject", "quarantine", "own action"] {
        assert_eq!(acted(mark), Some(Word::Quarantine(mark.to_owned())));
    }
}

#[test]
fn what_was_decided_without_all_rules_counts() {
    let gtube = action("reject", r#", "is_skipped": true"#);
    assert_eq!(words(&gtube).pop(), Some(Word::Refuse { reply: None }));
}

#[test]
fn its_own_words_become_one_clean_reply() {
    let said = |action_word: &str, message: &str| {
        let rest = format!(r#", "messages": {{"smtp_message": "{message}"}}"#);
        match words(&action(action_word, &rest)).pop() {
            Some(Word::Refuse { reply } | Word::Defer { reply }) => {
                reply.map(|reply| reply.to_string())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        said("reject", "Gtube pattern").unwrap(),
        "550 5.7.1 Gtube pattern\r\n"
    );
    assert_eq!(
        said("soft reject", "4.7.0 Later").unwrap(),
        "451 4.7.0 Later\r\n"
    );
    assert_eq!(
        said("reject", "a\\r\\n250 fine").unwrap(),
        "550 5.7.1 a??250 fine\r\n"
    );
    assert_eq!(said("reject", " "), None);
    assert!(said("reject", &"x".repeat(100_000)).unwrap().len() < 500);
}

#[test]
fn reads_every_form_of_a_field() {
    let milter = r#", "milter": {
        "remove_headers": {"X-All": 0, "X-Second": 2, "X-Last": -1},
        "add_headers": {"A": "text", "B": {"value": "object", "order": 1},
            "C": ["one", {"value": "two", "order": 0}, {"value": "end", "order": -1}],
            "D": 5, "E": {"order": 1}, "F": {"value": "also", "index": 2}}}"#;
    let add = |place, name: &str, value: &str| Change::Add {
        place,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let delete = |name: &str, index| Change::Delete {
        name: name.to_owned(),
        index,
    };
    assert_eq!(
        changes_of(&action("no action", milter)),
        [
            delete("X-All", None),
            delete("X-Second", Some(2)),
            add(Place::Last, "A", "text"),
            add(Place::At(1), "B", "object"),
            add(Place::Last, "C", "one"),
            add(Place::At(0), "C", "two"),
            add(Place::Last, "C", "end"),
            add(Place::At(2), "F", "also"),
        ]
    );
}

#[test]
fn puts_its_signatures_in_front() {
    let sign = |value: &str| Change::Add {
        place: Place::First,
        name: "DKIM-Signature".to_owned(),
        value: value.to_owned(),
    };
    let one = r#", "dkim-signature": "v=1;\r\n\tb=a""#;
    let signed = changes_of(&action("no action", one));
    assert_eq!(signed, [sign("v=1;\r\n\tb=a")]);
    assert!(signed.iter().all(|it| it.clone().checked().is_ok()));
    // The first one comes to stand above the other, as with rspamd's own milter.
    let two = r#", "dkim-signature": ["a", 5, "b"]"#;
    assert_eq!(
        changes_of(&action("no action", two)),
        [sign("b"), sign("a")]
    );
    for none in [r#", "dkim-signature": {}"#, r#", "dkim-signature": null"#] {
        assert!(changes_of(&action("no action", none)).is_empty());
    }
}

#[test]
fn rewrites_the_subject_only_if_that_is_the_action() {
    let subject = r#", "subject": "*** SPAM *** hello""#;
    assert!(changes_of(&action("add header", subject)).is_empty());
    let set = |value: &str| {
        [Change::Set {
            name: "Subject".to_owned(),
            index: 1,
            value: value.to_owned(),
        }]
    };
    assert_eq!(
        changes_of(&action("rewrite subject", subject)),
        set("*** SPAM *** hello")
    );
    assert_eq!(
        changes_of(&action("rewrite subject", r#", "subject": "Grüße""#)),
        set("=?UTF-8?B?R3LDvMOfZQ==?=")
    );
}

#[test]
fn a_long_subject_is_folded_between_characters() {
    let encoded = encoded(&"ä".repeat(500));
    let words: Vec<&str> = encoded.split("\r\n ").collect();
    assert!(words.iter().all(|word| word.len() <= 75));
    let mut text = String::new();
    for word in words {
        let base64 = word
            .strip_prefix("=?UTF-8?B?")
            .and_then(|rest| rest.strip_suffix("?="));
        text.push_str(&String::from_utf8(STANDARD.decode(base64.unwrap()).unwrap()).unwrap());
    }
    assert_eq!(text, "ä".repeat(500));
}

#[test]
fn what_is_no_utf_8_spoils_nothing_else() {
    let answer =
        b"{\"score\": 1, \"action\": \"reject\", \"milter\": {\"add_headers\": {\"X\": \"\xff\"}}}";
    assert_eq!(opinions(answer).unwrap().len(), 2);
}

#[test]
fn refuses_what_is_no_answer() {
    for nonsense in [
        "",
        "[]",
        "{",
        "{}",
        r#"{"error": "denied"}"#,
        r#"{"action": "no action"}"#,
        r#"{"score": 1}"#,
        r#"{"score": "NaN", "action": "no action"}"#,
        r#"{"score": NaN, "action": "no action"}"#,
        r#"{"score": 1e999, "action": "no action"}"#,
        r#"{"score": 1, "action": 5}"#,
    ] {
        assert!(opinions(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
    let deep = "[".repeat(100_000);
    assert!(opinions(deep.as_bytes()).is_err());
}
