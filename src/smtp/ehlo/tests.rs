use super::*;

fn keywords(lines: &[&str]) -> Keywords {
    let greeting = std::iter::once("mail.example.org SIZE 1");
    Keywords::parse(&Reply::multiline(
        250,
        None,
        greeting.chain(lines.iter().copied()),
    ))
}

fn lines(keywords: &Keywords) -> Vec<String> {
    keywords.lines().collect()
}

#[test]
fn reads_keywords_in_order_and_skips_the_greeting() {
    let found = keywords(&["pipelining", "Size 100", "AUTH PLAIN  LOGIN"]);
    assert_eq!(
        lines(&found),
        ["PIPELINING", "SIZE 100", "AUTH PLAIN LOGIN"]
    );
    assert_eq!(found.size(), Some(100));
    assert_eq!(found.get("Pipelining"), Some(&[][..]));
    assert!(found.contains("auth"));
    assert_eq!(found.get("DSN"), None);
}

#[test]
fn merges_the_old_spelling_of_auth() {
    let found = keywords(&["AUTH=LOGIN PLAIN", "AUTH PLAIN CRAM-MD5", "AUTH="]);
    assert_eq!(lines(&found), ["AUTH LOGIN PLAIN CRAM-MD5"]);
    let names: Vec<_> = found
        .auth_mechanisms()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["LOGIN", "PLAIN", "CRAM-MD5"]);
}

#[test]
fn leaves_malformed_lines_out() {
    let found = keywords(&["", "=X", "X=Y", "É", "SI\u{1}ZE", "DSN é", "-X", "8BITMIME"]);
    assert_eq!(lines(&found), ["8BITMIME"]);
}

#[test]
fn size_zero_or_none_means_no_fixed_limit() {
    for line in ["SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999"] {
        assert_eq!(keywords(&[line]).size(), None, "{line}");
    }
}

#[test]
fn lists_xclient_attributes_in_upper_case() {
    assert_eq!(
        keywords(&["XCLIENT addr PORT"]).xclient_attributes(),
        ["ADDR", "PORT"]
    );
    assert!(keywords(&[]).xclient_attributes().is_empty());
}

#[test]
fn bad_mechanism_names_are_left_out() {
    assert_eq!(keywords(&["AUTH a/b PLAIN"]).auth_mechanisms().len(), 1);
}

#[test]
fn intersection_is_what_both_offer_and_the_smaller_size() {
    let one = keywords(&["SIZE 5000", "X-EXPS", "DSN", "AUTH PLAIN LOGIN"]);
    let other = keywords(&["AUTH LOGIN CRAM-MD5", "SIZE 700", "DSN", "CHUNKING"]);
    assert_eq!(
        lines(&one.intersection(&other)),
        ["SIZE 700", "DSN", "AUTH LOGIN"]
    );
    let unlimited = keywords(&["SIZE 0"]);
    assert_eq!(one.intersection(&unlimited).size(), Some(5000));
}

#[test]
fn insert_replaces_in_place_and_remove_takes_out() {
    let mut ours = keywords(&["SIZE 5", "DSN"]);
    ours.insert("size", ["7"]);
    ours.insert("STARTTLS", [""; 0]);
    ours.remove("dsn");
    assert_eq!(lines(&ours), ["SIZE 7", "STARTTLS"]);
}

#[test]
fn insert_refuses_what_would_break_the_reply() {
    let mut ours = Keywords::new();
    ours.insert("X\r\nY", [""; 0]);
    ours.insert("X", ["a b"]);
    ours.insert("X", ["a\r\n"]);
    ours.insert("X", [""]);
    assert_eq!(ours, Keywords::new());
}

#[test]
fn builds_the_reply_to_ehlo() {
    let reply = keywords(&["SIZE 5", "DSN"]).to_reply("gate.example.org");
    assert_eq!(
        reply.to_string(),
        "250-gate.example.org\r\n250-SIZE 5\r\n250 DSN\r\n"
    );
    assert_eq!(Keywords::new().to_reply("gate").to_string(), "250 gate\r\n");
}
