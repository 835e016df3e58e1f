//! The rules, each against its neighbours, and the fields that tell of them.

use super::*;
use crate::smtp::header::Editor;

fn score(scanner: Scanner, score: f64, rules: &[&str]) -> Opinion {
    let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
    let threshold = None;
    Opinion::new(
        scanner,
        Word::Score {
            score,
            threshold,
            rules,
        },
    )
}

fn spam(points: f64) -> Opinion {
    score(Scanner::Spamassassin, points, &[])
}

fn clamav(word: Word) -> Opinion {
    Opinion::new(Scanner::Clamav, word)
}

fn milter(word: Word) -> Opinion {
    Opinion::new(Scanner::Milter(1), word)
}

fn infected(name: &str) -> Opinion {
    clamav(Word::Infected(name.to_owned()))
}

fn failed() -> Opinion {
    clamav(Word::Failed("no answer in time".to_owned()))
}

fn settings(fail: ScanFail) -> Settings {
    Settings {
        scan_fail: fail,
        ..Settings::default()
    }
}

fn judge(opinions: &[Opinion]) -> Judgement {
    judge_content(&settings(ScanFail::Tempfail), opinions)
}

/// The reply, or the kind of delivery.
fn outcome(opinions: &[Opinion]) -> String {
    match judge(opinions).verdict {
        ContentVerdict::Pass => "pass".to_owned(),
        ContentVerdict::Tag => "tag".to_owned(),
        ContentVerdict::Defer(reply) | ContentVerdict::Refuse(reply) => reply.to_string(),
    }
}

/// The message as it is delivered.
fn delivered(settings: &Settings, opinions: &[Opinion], message: &str) -> String {
    let edits = judge_content(settings, opinions).edits;
    let mut editor = Editor::new(b"", edits);
    let mut out = Vec::new();
    editor.edit(message.as_bytes(), &mut out);
    editor.finish(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_refusal_beats_a_deferral_beats_a_mark() {
    let refuse = || milter(Word::Refuse { reply: None });
    let defer = || milter(Word::Defer { reply: None });
    let quarantine = || milter(Word::Quarantine("odd".to_owned()));
    let unscanned = || clamav(Word::Unscanned);
    let ladder: [(Opinion, &str); 8] = [
        (
            infected("Eicar-Test"),
            "554 5.7.1 Malware found: Eicar-Test\r\n",
        ),
        (refuse(), "550 5.7.1 Message refused by content filter\r\n"),
        (
            spam(15.0),
            "550 5.7.1 Message refused as spam, score 15.0\r\n",
        ),
        (
            defer(),
            "451 4.7.1 Message deferred by content filter, try again later\r\n",
        ),
        (
            failed(),
            "451 4.7.1 Message cannot be checked at the moment, try again later\r\n",
        ),
        (spam(5.0), "tag"),
        (quarantine(), "tag"),
        (unscanned(), "pass"),
    ];
    for (rung, (_, expected)) in ladder.iter().enumerate() {
        let weaker: Vec<Opinion> = ladder[rung..].iter().map(|(o, _)| o.clone()).collect();
        assert_eq!(&outcome(&weaker), expected, "rung {rung}");
        let backwards: Vec<Opinion> = weaker.into_iter().rev().collect();
        assert_eq!(&outcome(&backwards), expected, "rung {rung}");
    }
    assert_eq!(outcome(&[]), "pass");
    assert_eq!(outcome(&[clamav(Word::Clean), spam(4.99)]), "pass");
}

#[test]
fn a_scanner_may_choose_its_words_but_not_turn_no_into_yes() {
    let reply = |code| Some(Reply::new(code, None, "my words"));
    let refuse = |code| outcome(&[milter(Word::Refuse { reply: reply(code) })]);
    assert_eq!(refuse(552), "552 my words\r\n");
    assert!(refuse(250).starts_with("550 5.7.1 "));
    assert!(refuse(451).starts_with("550 5.7.1 "));
    let defer = |code| outcome(&[milter(Word::Defer { reply: reply(code) })]);
    assert_eq!(defer(452), "452 my words\r\n");
    assert!(defer(354).starts_with("451 4.7.1 "));
}

#[test]
fn the_name_of_malware_is_cleaned_and_bounded() {
    let name = format!("\r\n250 ok\u{202e}{}", "x".repeat(500));
    let said = outcome(&[infected(&name)]);
    assert!(said.starts_with("554 5.7.1 Malware found: ??250 ok?xxx"));
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn an_open_failure_passes_and_says_so() {
    let open = settings(ScanFail::Open);
    let opinions = [failed(), spam(1.0)];
    let judgement = judge_content(&open, &opinions);
    assert_eq!(judgement.verdict, ContentVerdict::Pass);
    let finding = judgement.finding.unwrap();
    assert_eq!(finding.label(), "scanner-failed");
    assert_eq!(finding.to_string(), "clamav failed: no answer in time");
    let delivered = delivered(&open, &opinions, "\r\n");
    assert!(delivered.contains("X-Portcullis-Scan: clamav=failed\r\n"));
    // It does not hide what the others found.
    assert_eq!(
        judge_content(&open, &[failed(), spam(5.0)]).verdict,
        ContentVerdict::Tag
    );
}

#[test]
fn a_score_that_is_no_number_is_a_failure() {
    for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(outcome(&[spam(nonsense)]).starts_with("451 4.7.1 "));
        assert_eq!(
            delivered(&Settings::default(), &[spam(nonsense)], "\r\n"),
            "X-Portcullis-Scan: spamassassin=failed\r\n\r\n"
        );
        let rspamd = score(Scanner::Rspamd, 20.0, &[]);
        assert!(outcome(&[spam(nonsense), rspamd]).starts_with("550 5.7.1 "));
    }
}

#[test]
fn what_is_delivered_although_refused_says_so() {
    let opinions = [
        infected("Eicar-Test"),
        milter(Word::Defer { reply: None }),
        Opinion::new(Scanner::Milter(2), Word::Unscanned),
    ];
    assert_eq!(
        delivered(
            &Settings::default(),
            &opinions,
            "X-Portcullis-Scan: fine\r\n\r\n"
        ),
        "X-Portcullis-Scan: clamav=infected; milter-2=deferred; milter-3=unscanned\r\n\r\n"
    );
    let refused = [spam(20.0), milter(Word::Refuse { reply: None })];
    let delivered = delivered(&Settings::default(), &refused, "\r\n");
    assert!(delivered.starts_with("X-Spam-Flag: YES\r\nX-Spam-Score: 20.0\r\n"));
    assert!(delivered.contains("\r\nX-Portcullis-Scan: milter-2=refused\r\n"));
}

#[test]
fn the_highest_score_counts() {
    let opinions = [
        score(Scanner::Spamassassin, 3.0, &["LOW"]),
        score(Scanner::Rspamd, 7.25, &["HIGH", "HIGHER"]),
    ];
    assert_eq!(
        delivered(&Settings::default(), &opinions, "To: b\r\n\r\nbody\r\n"),
        "X-Spam-Flag: YES\r\nX-Spam-Score: 7.2\r\n\
         X-Spam-Status: Yes, score=7.2 required=5.0 tests=HIGH,HIGHER scanner=rspamd\r\n\
         To: b\r\n\r\nbody\r\n"
    );
}

#[test]
fn a_clean_message_carries_its_score_and_no_forged_field() {
    let forged = "X-Spam-Flag: NO\r\nX-Spam-Level : **\r\nx-spam-report: fine,\r\n believe me\r\n\
         X-Spam-Checker-Version: 9\r\nX-Virus-Scanned: yes\r\nX-Portcullis-Scan: all\r\n";
    let opinions = [spam(0.1), clamav(Word::Clean)];
    assert_eq!(
        delivered(
            &Settings::default(),
            &opinions,
            &format!("{forged}To: b\r\n\r\n")
        ),
        "X-Spam-Flag: NO\r\nX-Spam-Score: 0.1\r\n\
         X-Spam-Status: No, score=0.1 required=5.0 tests=none scanner=spamassassin\r\n\
         To: b\r\n\r\n"
    );
}

#[test]
fn fields_of_others_stay_where_no_scanner_of_that_kind_is_asked() {
    let message = "X-Spam-Flag: YES\r\nX-Virus-Scanned: x\r\n\r\n";
    let said = |opinions: &[Opinion]| delivered(&Settings::default(), opinions, message);
    assert_eq!(said(&[]), message);
    assert_eq!(said(&[milter(Word::Clean)]), message);
    assert_eq!(said(&[clamav(Word::Clean)]), "X-Spam-Flag: YES\r\n\r\n");
}

#[test]
fn a_scanners_changes_do_not_touch_our_fields() {
    let mut quarantined = milter(Word::Quarantine("odd".to_owned()));
    quarantined.changes = vec![
        Change::Add {
            place: Place::First,
            name: "Authentication-Results".to_owned(),
            value: "mx; none".to_owned(),
        },
        Change::Delete {
            name: "X-Spam-Flag".to_owned(),
            index: None,
        },
    ];
    assert_eq!(
        delivered(&Settings::default(), &[quarantined], "\r\n"),
        "X-Spam-Flag: YES\r\nX-Spam-Status: Yes, quarantine=milter-2\r\n\
         Authentication-Results: mx; none\r\n\r\n"
    );
}

#[test]
fn the_status_is_folded_and_bounded_and_holds_no_foreign_line() {
    let names: Vec<String> = (0..2000).map(|n| format!("RULE_NUMBER_{n}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names[1] = "EVIL\r\n\r\nX-Spam-Flag: NO, tests";
    let opinions = [score(Scanner::Rspamd, 6.0, &names)];
    let delivered = delivered(&Settings::default(), &opinions, "\r\n");
    let lines: Vec<&str> = delivered.split("\r\n").collect();
    assert!(lines.iter().all(|line| line.len() <= 78), "{delivered}");
    assert!(delivered.len() < 3000);
    assert_eq!(delivered.matches("\r\n\r\n").count(), 1);
    let unfolded = delivered.replace("\r\n\t", "");
    assert!(unfolded.contains("tests=RULE_NUMBER_0,EVIL????X-Spam-Flag:_NO__tests,RULE_NUMBER_2,"));
    assert!(
        unfolded.contains(",... scanner=rspamd\r\n") || unfolded.contains(",...scanner=rspamd\r\n")
    );
}

#[test]
fn thresholds_may_be_off_and_are_plain_numbers() {
    let off = Settings {
        spam_tag: Threshold::parse("OFF").unwrap(),
        spam_reject: Threshold::parse("off").unwrap(),
        ..Settings::default()
    };
    let opinions = [spam(1000.0)];
    assert_eq!(judge_content(&off, &opinions).verdict, ContentVerdict::Pass);
    assert_eq!(
        delivered(&off, &opinions, "\r\n"),
        "X-Spam-Flag: NO\r\nX-Spam-Score: 1000.0\r\n\
         X-Spam-Status: No, score=1000.0 tests=none scanner=spamassassin\r\n\r\n"
    );
    for (text, points) in [("5", 5.0), ("6.5", 6.5), ("-1", -1.0), (".5", 0.5)] {
        assert_eq!(Threshold::parse(text).unwrap().points(), Some(points));
    }
    for bad in ["", "inf", "NaN", "1e3", "5,5", "--1", "five", "+-1"] {
        assert!(Threshold::parse(bad).is_err(), "{bad}");
    }
}

/// opendkim and opendmarc in a row: both look at the message as it came.
#[test]
fn no_scanner_alters_what_another_one_has_added() {
    let field = |what: &str| format!("Authentication-Results: {what}\r\n");
    let delete = |index| Change::Delete {
        name: "authentication-results".to_owned(),
        index: Some(index),
    };
    let added = Change::Add {
        place: Place::First,
        name: "Authentication-Results".to_owned(),
        value: "true".to_owned(),
    };
    let (mut one, mut other) = (clamav(Word::Clean), milter(Word::Clean));
    one.changes = vec![delete(1), added];
    other.changes = vec![delete(1), delete(3)];
    let message = field("forged") + &field("another's") + &field("forged, too") + "\r\n";
    let delivered = delivered(&settings(ScanFail::Tempfail), &[one, other], &message);
    assert_eq!(delivered, field("true") + &field("another's") + "\r\n");
}

#[test]
fn a_quarantine_is_not_contradicted_by_a_forged_field() {
    let quarantined = [milter(Word::Quarantine("odd".to_owned()))];
    let message = "X-Spam-Flag: NO\r\nX-Spam-Score: -5\r\n\r\n";
    let delivered = delivered(&settings(ScanFail::Tempfail), &quarantined, message);
    assert!(
        !delivered.contains("NO") && !delivered.contains("-5"),
        "{delivered}"
    );
    assert!(delivered.contains("X-Spam-Flag: YES"), "{delivered}");
}
