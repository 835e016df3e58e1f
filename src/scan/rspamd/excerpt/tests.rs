//! What is kept of answers, however they come.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn excerpt(answer: &str) -> (String, bool) {
    let mut excerpt = Excerpt::default();
    excerpt.take(answer.as_bytes());
    let is_cut = excerpt.is_cut();
    (String::from_utf8(excerpt.into_answer()).unwrap(), is_cut)
}

fn kept(answer: &str) -> String {
    excerpt(answer).0
}

#[test]
fn keeps_what_is_read_and_no_more() {
    for (answer, expected) in [
        (
            r#"{"score":1.5,"action":"no action","urls":["a.test","b.test"],"emails":[]}"#,
            r#"{"score":1.5,"action":"no action","urls":null,"emails":null}"#,
        ),
        (
            r#"{ "message-id" : "a\"},\\", "subject" : "b\"}" }"#,
            r#"{ "message-id" :null, "subject" : "b\"}" }"#,
        ),
        (
            r#"{"symbols":{"A":{"score":1,"options":["x"]},"B":{}},"time_real":0.1}"#,
            r#"{"symbols":{"A":null,"B":null},"time_real":null}"#,
        ),
        (
            r#"{"milter":{"add_headers":{"X":{"value":"y","order":1}},"urls":[1]},"x":{"score":2}}"#,
            r#"{"milter":{"add_headers":{"X":{"value":"y","order":1}},"urls":[1]},"x":null}"#,
        ),
        (
            r#"{"dkim-signature":["a","b"],"messages":{"symbols":{"A":1}}}"#,
            r#"{"dkim-signature":["a","b"],"messages":{"symbols":{"A":1}}}"#,
        ),
    ] {
        assert_eq!(excerpt(answer), (expected.to_owned(), false));
    }
}

#[test]
fn what_is_no_object_stays_none() {
    for nonsense in [
        "",
        "[]",
        "{",
        r#""action""#,
        r#"{"score":1}}"#,
        r#"{"urls":["#,
    ] {
        let kept = kept(nonsense);
        assert!(
            serde_json::from_str::<Map<String, Value>>(&kept).is_err(),
            "{kept}"
        );
    }
}

#[test]
fn holds_little_of_a_long_answer() {
    let long = "x.test".repeat(1 << 20);
    let list = vec![r#""a.test""#; 1 << 20].join(",");
    let symbols = format!(r#"{{"A":{{"options":["{long}"]}}}}"#);
    for long in [format!("\"{long}\""), format!("[{list}]")] {
        let answer = format!(
            r#"{{"score":1,"urls":{long},"symbols":{symbols},"message-id":{long},"action":"reject"}}"#
        );
        let expected =
            r#"{"score":1,"urls":null,"symbols":{"A":null},"message-id":null,"action":"reject"}"#;
        assert_eq!(excerpt(&answer), (expected.to_owned(), false));
    }
}

#[test]
fn the_verdict_outlives_a_value_that_is_too_long() {
    for long in [
        format!("\"{}\"", "x".repeat(VALUE_MAX)),
        format!("{{\"a\":[{}]}}", vec!["1"; VALUE_MAX].join(",")),
    ] {
        let answer = format!(r#"{{"score":1,"milter":{long},"subject":{long},"action":"reject"}}"#);
        let expected = r#"{"score":1,"milter":null,"subject":null,"action":"reject"}"#;
        assert_eq!(excerpt(&answer), (expected.to_owned(), true));
    }
}

#[test]
fn holds_little_of_what_is_no_answer() {
    for endless in [" ", "[", "{", "x", "{\"", "{\"a\":1,", "\"action\":"] {
        let kept = kept(&endless.repeat(4 * HELD_MAX / endless.len()));
        assert!(kept.len() <= HELD_MAX, "{endless}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a\"\\\\{}\\[\\]:,\u{1}é]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a\"\\\\:,}]{0,3}", inner, 0..4)
                .prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_read_is_the_same_wherever_the_answer_is_cut(
        members in proptest::collection::btree_map("score|milter|subject|urls|[a\"\\\\:,}]{0,3}", any_value(), 0..6),
        sizes in proptest::collection::vec(1_usize..9, 1..8),
    ) {
        let answer = serde_json::to_string(&members).unwrap();
        let mut excerpt = Excerpt::default();
        let mut rest = answer.as_bytes();
        for size in sizes.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*size));
            excerpt.take(piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let kept = String::from_utf8(excerpt.into_answer()).unwrap();
        let found: Map<String, Value> = serde_json::from_str(&kept).unwrap();
        for (name, value) in members {
            let is_read = READ.contains(&format!("\"{name}\"").as_bytes());
            let expected = if is_read { value } else { Value::Null };
            prop_assert_eq!(found.get(&name), Some(&expected));
        }
    }
}
