//! Delivery reports (RFC 3461) that a client asks for because they were offered, on a
//! connection where the backend then offers none.

use super::*;

/// What the backend is told when the client says `lines`, MAIL first, and what the
/// client hears of the last.
fn told(offers: &[&str], lines: &[&str]) -> (Vec<String>, u16) {
    let mut probed = Keywords::new();
    probed.insert("DSN", [""; 0]);
    probed.insert("SMTPUTF8", [""; 0]);
    let mut keywords = Keywords::new();
    for keyword in offers {
        keywords.insert(keyword, [""; 0]);
    }
    let rules = Rules {
        backend: probed.into(),
        ..rules()
    };
    let mut machine = Machine::new(rules, Privacy::Clear);
    machine.advance(Event::Opened);
    advance(&mut machine, command("EHLO client.test"));
    let (mut told, mut heard) = (Vec::new(), 0);
    for line in lines {
        let mut step = advance(&mut machine, command(line));
        if step == Step::Connect {
            let link = Link {
                keywords: keywords.clone().into(),
                relogin: Relogin::Impossible,
            };
            step = advance(&mut machine, Event::Connected(Ok(link)));
        }
        if let Step::Judge(_) = step {
            step = advance(&mut machine, Event::Judged(Verdict::Pass));
        }
        if let Step::Exchange(command) = &step {
            told.push(command.to_string());
            step = advance(&mut machine, answered(250));
        }
        heard = code(&step);
    }
    (told, heard)
}

const MAIL: &str = "MAIL FROM:<a@b.test> RET=HDRS ENVID=x";
const RCPT: &str = "RCPT TO:<x@example.org> ORCPT=rfc822;y@example.org";

#[test]
fn what_only_reports_would_carry_is_left_out_where_there_are_none() {
    let (heard, code) = told(&["DSN"], &[MAIL, RCPT]);
    assert_eq!((heard, code), (vec![MAIL.to_owned(), RCPT.to_owned()], 250));
    let (heard, code) = told(&["8BITMIME"], &[MAIL, RCPT]);
    let plain = ["MAIL FROM:<a@b.test>", "RCPT TO:<x@example.org>"];
    assert_eq!((heard, code), (plain.map(str::to_owned).to_vec(), 250));
}

/// RFC 6533 3.
#[test]
fn an_original_recipient_that_is_no_ascii_needs_smtputf8() {
    let utf8 = "MAIL FROM:<a@b.test> SMTPUTF8";
    let rcpt = "RCPT TO:<x@example.org> ORCPT=utf-8;jürgen@müller.example";
    let (heard, code) = told(&["DSN", "SMTPUTF8"], &[utf8, rcpt]);
    assert_eq!((heard, code), (vec![utf8.to_owned(), rcpt.to_owned()], 250));
    let (heard, code) = told(&["DSN", "SMTPUTF8"], &["MAIL FROM:<a@b.test>", rcpt]);
    assert_eq!((heard.len(), code), (1, 553));
}

#[test]
fn a_report_that_was_asked_for_is_never_dropped_in_silence() {
    for notify in ["SUCCESS", "NEVER", "FAILURE,DELAY"] {
        let rcpt = format!("RCPT TO:<x@example.org> NOTIFY={notify}");
        let (heard, code) = told(&["DSN"], &[MAIL, &rcpt]);
        assert_eq!((heard.last(), code), (Some(&rcpt), 250));
        let (heard, code) = told(&["8BITMIME"], &[MAIL, &rcpt]);
        assert_eq!((heard.len(), code), (1, 451), "{heard:?}");
    }
}
