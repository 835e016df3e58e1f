//! spamd's faults, as a scripted one has them.

use std::time::Duration;

use tokio::time::timeout;

use super::super::hear::scripted::{Act, hold, message, peer};
use super::*;

const GOOD: &[u8] =
    b"SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA_1,B_2";

/// Larger than what the sockets between two processes hold.
const LARGE: usize = 32 << 20;

async fn scan(acts: &[Act], body: &[u8]) -> Result<Word, ScanError> {
    let (address, _task) = peer(acts).await;
    let body = hold(body).await;
    let spamassassin = Spamassassin::new(address, None, SpamdReport::Omitted);
    let message = message(b"", &body);
    let opinion = timeout(Duration::from_secs(20), spamassassin.scan(&message)).await;
    opinion.expect("no end of it").map(|opinion| opinion.word)
}

fn good() -> Word {
    Word::Score {
        score: 6.5,
        threshold: Some(5.0),
        rules: vec!["A_1".to_owned(), "B_2".to_owned()],
    }
}

#[tokio::test]
async fn sends_a_request_of_exactly_the_length_it_tells() {
    for (user, report, head) in [
        (
            None,
            SpamdReport::Omitted,
            "SYMBOLS SPAMC/1.5\r\nContent-length: 194\r\n\r\n",
        ),
        (
            Some("ann"),
            SpamdReport::Added,
            "REPORT SPAMC/1.5\r\nContent-length: 194\r\nUser: ann\r\n\r\n",
        ),
    ] {
        let (address, task) = peer([Act::HearAll, Act::Say(GOOD)]).await;
        let user = user.map(|name| SpamdUser::parse(name).unwrap());
        let body = hold(b"body\r\n").await;
        let opinion = Spamassassin::new(address, user, report)
            .scan(&message(b"Received: x; today\r\n", &body))
            .await;
        assert_eq!(opinion.unwrap().scanner, Scanner::Spamassassin);
        let message = "X-Envelope-From: <ann@sender.test>\r\n\
            Received: from client.test (unknown [IPv6:2001:db8::1])\r\n\
            \tby mx.example.org (Portcullis) with ESMTP (envelope-from <ann@sender.test>) id test;\r\n\
            \ttoday\r\n\
            body\r\n";
        let expected = format!("{head}{message}");
        assert_eq!(String::from_utf8(task.await.unwrap()).unwrap(), expected);
    }
}

#[test]
fn understands_scores() {
    for (value, meant) in [
        ("True ; 1000.0 / 5.0", Some((1000.0, 5.0))),
        ("False ; -1.2 / 5.0", Some((-1.2, 5.0))),
        ("Yes;7/5", Some((7.0, 5.0))),
        ("No ; 0 / -3", Some((0.0, -3.0))),
        ("True ; NaN / 5.0", None),
        ("True ; inf / 5.0", None),
        ("True ; 1e999 / 5.0", None),
        ("True ; 6.0 / -inf", None),
        ("True ; 6.0 / nan", None),
        ("True ; 6.0", None),
        ("True ; / 5.0", None),
        ("True ; 6,5 / 5,0", None),
        ("True / 6.5 ; 5.0", None),
        ("Maybe ; 6.0 / 5.0", None),
        ("", None),
    ] {
        assert_eq!(scores(value), meant, "{value}");
    }
}

#[tokio::test]
async fn takes_nothing_else_for_an_answer() {
    for (answer, complaint) in [
        (b"garbage".as_slice(), "no answer of spamd: garbage"),
        (b"\x1b[2J\0\xff\r\n\r\n", "no answer of spamd"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no answer of spamd"),
        (b"SPAMD/1.1 EX_OK\r\n\r\n", "no answer of spamd"),
        (b"SPAMD/1.1 -1 EX_OK\r\n\r\n", "no answer of spamd"),
        (
            b"SPAMD/1.0 76 Bad header line: x\r\n",
            "reports: Bad header line: x",
        ),
        (b"SPAMD/1.1 75 EX_TEMPFAIL\r\n\r\n", "reports: EX_TEMPFAIL"),
        (b"SPAMD/1.1 0 EX_OK\r\n", "no score"),
        (
            b"SPAMD/1.1 0 EX_OK\r\nSpam: True\r\n\r\n",
            "unintelligible score",
        ),
        (
            b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
            "unintelligible score",
        ),
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 8\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA_1,B_2",
            "cut off",
        ),
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 6\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA_1,B_2",
            "cut off",
        ),
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: many\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA_1",
            "cut off",
        ),
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\nSpam: True ; 6.5 / 5.",
            "cut off",
        ),
    ] {
        match scan(&[Act::HearAll, Act::Say(answer)], b"x").await {
            Err(ScanError::Protocol(text) | ScanError::Reported(text)) => {
                assert!(text.contains(complaint) && !text.contains('\x1b'), "{text}");
            }
            other => panic!("{}: {other:?}", answer.escape_ascii()),
        }
    }
}

#[tokio::test]
async fn hang_up_at_any_point_is_an_error() {
    for size in [100, LARGE] {
        let octets = vec![b'x'; size];
        for acts in [
            [].as_slice(),
            &[Act::Reset],
            &[Act::Hear(10)],
            &[Act::Hear(50), Act::Reset],
            &[Act::HearAll],
            &[Act::HearAll, Act::Reset],
        ] {
            let word = scan(acts, &octets).await;
            assert!(matches!(word, Err(ScanError::Io(_))), "{acts:?}: {word:?}");
        }
    }
}

#[tokio::test]
async fn hears_a_complaint_that_comes_before_the_body_is_read() {
    const COMPLAINT: Act = Act::Say(b"SPAMD/1.0 76 Bad header line: x\r\n");
    let large = vec![b'x'; LARGE];
    for acts in [
        [Act::Hear(1), COMPLAINT].as_slice(),
        &[Act::Hear(1 << 20), COMPLAINT, Act::Pause],
        &[Act::Hear(1), COMPLAINT, Act::Pause, Act::Reset],
    ] {
        match scan(acts, &large).await {
            Err(ScanError::Reported(text)) => assert!(text.contains("Bad header"), "{text}"),
            other => panic!("{acts:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn does_not_believe_a_score_of_what_was_not_read() {
    let large = vec![b'x'; LARGE];
    for acts in [
        [Act::Hear(1), Act::Say(GOOD)].as_slice(),
        &[Act::Hear(1), Act::Say(GOOD), Act::Pause],
        &[Act::Hear(1 << 20), Act::Say(GOOD), Act::Shut, Act::Stall],
    ] {
        match scan(acts, &large).await {
            Err(ScanError::Protocol(text)) => assert!(text.contains("not seen all"), "{text}"),
            other => panic!("{acts:?}: {other:?}"),
        }
    }
    assert_eq!(
        scan(&[Act::HearAll, Act::Say(GOOD)], &large).await.unwrap(),
        good()
    );
    // One that goes by the length and does not wait for the end.
    let word = scan(&[Act::Hear(78), Act::Say(GOOD)], b"x").await;
    assert_eq!(word.unwrap(), good());
}

#[tokio::test]
async fn answer_without_end_is_cut_off() {
    for size in [100, LARGE] {
        let word = scan(
            &[Act::Hear(10), Act::Repeat(&[b'x'; 1000])],
            &vec![b'x'; size],
        )
        .await;
        match word {
            Err(ScanError::Protocol(text)) => assert_eq!(text, "its answer has no end"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn takes_only_what_can_be_a_rule() {
    let names = "A_1, B2 ,,<c>,d\r\nE,a b,\x1b[2J,Ä,F";
    assert_eq!(rules_of(names.split(',')), ["A_1", "B2", "F"]);
    let long = "x".repeat(RULE_MAX + 1);
    assert!(rules_of([long.as_str()].into_iter()).is_empty());
    assert_eq!(rules_of(std::iter::repeat_n("A", 1000)).len(), RULES_MAX);
}

const REPORT: &str = "Spam detection software has identified this as spam.\n\
    \n\
    Content preview:\n\
    ---- ----\n\
    9.9 FORGED           Not a rule\n\
    \n\
    Content analysis details:   (6.5 points, 5.0 required)\n\
    \n \
    pts rule name              description\n\
    ---- ---------------------- ------------------------\n \
    5.5 A_1                    BODY: First\r\n                            \
    [cont. \u{fc}\0\x1b\t]\n\
    -1.0 B_2                    Second\n\
    \n";

#[test]
fn report_is_read_below_its_last_rule_of_dashes() {
    let table = table(REPORT);
    let rules = rules_of(table.lines().filter_map(rule_of_row));
    assert_eq!(rules, ["A_1", "B_2"]);
    let Some(Change::Add { place, name, value }) = report(table) else {
        panic!();
    };
    assert_eq!((place, name.as_str()), (Place::First, "X-Spam-Report"));
    assert_eq!(
        value,
        "*  5.5 A_1                    BODY: First\r\n \
         *                             [cont. ????]\r\n \
         * -1.0 B_2                    Second"
    );
}

#[test]
fn report_is_bounded_and_may_be_missing() {
    assert_eq!(report(table("no table at all")), None);
    assert_eq!(report(table("\n---- ----")), None);
    let rows = format!(
        "\n----\n{}",
        format!("1.0 A {}\n", "x".repeat(2000)).repeat(500)
    );
    let Some(Change::Add { value, .. }) = report(table(&rows)) else {
        panic!();
    };
    assert_eq!(value.lines().count(), REPORT_LINES_MAX);
    assert!(value.lines().all(|line| line.len() < 998));
}

#[tokio::test]
async fn ping_takes_no_other_word() {
    for (answer, is_good) in [
        (b"SPAMD/1.5 0 PONG\r\n".as_slice(), true),
        (b"SPAMD/1.5 0 PONG", true),
        (b"SPAMD/1.5 1 PONG\r\n", false),
        (b"SPAMD/1.5 0 EX_OK\r\n", false),
        (b"PONG\r\n", false),
        (b"", false),
    ] {
        let (address, task) = peer([Act::HearAll, Act::Say(answer)]).await;
        let spamassassin = Spamassassin::new(address, None, SpamdReport::Omitted);
        assert_eq!(spamassassin.ping().await.is_ok(), is_good, "{answer:?}");
        assert_eq!(task.await.unwrap(), b"PING SPAMC/1.5\r\n\r\n");
    }
}

#[test]
fn user_cannot_break_out_of_its_header() {
    assert!(SpamdUser::parse("ann@example.org").is_ok());
    for text in ["", "a b", "a\r\nb", "\u{e4}", "a\0"] {
        assert!(SpamdUser::parse(text).is_err(), "{text:?}");
    }
    assert!(SpamdUser::parse(&"x".repeat(257)).is_err());
    assert_eq!(SpamdReport::parse("yes"), Ok(SpamdReport::Added));
    assert_eq!(SpamdReport::parse("off"), Ok(SpamdReport::Omitted));
    assert!(SpamdReport::parse("report").is_err());
}
