//! What the machine does about limits: questions before MAIL and after a failed
//! sign-in, junk, early talkers, and a client that must leave.

use std::time::Duration;

use super::*;
use crate::policy::Limit;

fn rate(limit: Limit) -> Finding {
    Finding::Rate {
        limit,
        network: Some("192.0.2.1/32".parse().unwrap()),
        wait: Duration::from_millis(11_200),
    }
}

fn banned() -> Event {
    Event::Judged(Verdict::Refuse(Finding::Banned {
        network: "192.0.2.1/32".parse().unwrap(),
        left: Duration::from_secs(60),
    }))
}

fn text(step: &Step) -> String {
    match step {
        Step::Answer(Answer::Refused(refusal))
        | Step::End(Ending::Said(Answer::Refused(refusal))) => refusal.reply().to_string(),
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_message_too_many_costs_450_and_the_backend_never_hears_of_it() {
    let (mut machine, _) = after(Privacy::Clear, &[command("EHLO c.test")]);
    let step = machine.advance(command("MAIL FROM:<a@b.test>"));
    assert_eq!(step, Step::Judge(Question::Message));
    let step = machine.advance(Event::Judged(Verdict::Refuse(rate(Limit::Messages))));
    assert_eq!(
        text(&step),
        "450 4.7.1 MSG_RATE reached by 192.0.2.1/32; try again in 12 s\r\n"
    );
    // What was pipelined behind it must not bounce over a 503.
    for line in ["RCPT TO:<x@example.org>", "DATA"] {
        assert_eq!(code(&machine.advance(command(line))), 450);
    }
    let step = advance(&mut machine, command("MAIL FROM:<a@b.test>"));
    assert_eq!(step, Step::Connect);
}

#[test]
fn a_recipient_too_many_costs_452_and_the_transaction_stands() {
    let (mut machine, _) = after(Privacy::Clear, &transaction());
    machine.advance(command("RCPT TO:<y@example.org>"));
    let step = machine.advance(Event::Judged(Verdict::Refuse(rate(Limit::Recipients))));
    assert!(text(&step).starts_with("452 4.7.1 RCPT_RATE"), "{step:?}");
    assert_eq!(
        machine.advance(command("DATA")),
        Step::Exchange(Command::Data)
    );
}

#[test]
fn a_ban_ends_the_session_wherever_it_is_noticed() {
    let (mut machine, _) = after(Privacy::Clear, &[command("EHLO c.test")]);
    machine.advance(command("MAIL FROM:<a@b.test>"));
    let step = machine.advance(banned());
    assert!(ended(&step) && code(&step) == 421, "{step:?}");

    let (mut machine, _) = after(Privacy::Clear, &transaction());
    machine.advance(command("RCPT TO:<y@example.org>"));
    let step = machine.advance(banned());
    assert!(ended(&step) && code(&step) == 421, "{step:?}");
}

#[test]
fn a_failed_sign_in_is_counted_and_the_last_one_ends_the_session() {
    let start = [
        command("EHLO c.test"),
        command("AUTH PLAIN AHUAcA=="),
        connected(),
    ];
    let (mut machine, _) = after(Privacy::Encrypted, &start);
    assert_eq!(
        machine.advance(answered(535)),
        Step::Judge(Question::FailedSignIn)
    );
    let mut patient = machine;
    let step = patient.advance(Event::Judged(Verdict::Refuse(rate(Limit::AuthFailures))));
    assert!(ended(&step) && code(&step) == 421, "{step:?}");

    // A command or a mechanism that is refused, or AUTH to this client, and a server
    // that cannot tell now, prove nothing.
    for code in [500, 501, 502, 503, 504, 530, 534, 538, 454] {
        let (mut machine, _) = after(Privacy::Encrypted, &start);
        let step = machine.advance(answered(code));
        assert_eq!(step, Step::Answer(Answer::Backend(reply(code))));
        assert_eq!(machine.errors(), 1, "{code}");
    }
    // Some servers have codes of their own for it.
    let by_enhanced_code = Reply::new(501, EnhancedCode::new(5, 7, 8), "no");
    for failed in [reply(550), reply(554), by_enhanced_code] {
        let (mut machine, _) = after(Privacy::Encrypted, &start);
        let step = machine.advance(Event::Answered(Ok(failed)));
        assert_eq!(step, Step::Judge(Question::FailedSignIn));
    }
}

#[test]
fn commands_that_move_no_mail_use_up_the_errors() {
    let rules = Rules {
        junk_max: 10,
        ..rules()
    };
    let mut machine = Machine::new(rules.clone(), Privacy::Clear);
    machine.advance(Event::Opened);
    let junk = ["EHLO c.test", "NOOP", "RSET", "HELO c.test", "EXPN x"];
    let mut lines = junk.iter().cycle();
    // EXPN is disabled and so an error by itself.
    for _ in 0..10 {
        let step = machine.advance(command(lines.next().unwrap()));
        assert!(!ended(&step), "{step:?}");
    }
    assert_eq!(machine.errors(), 2);
    let more = (0..10).position(|_| ended(&machine.advance(command("NOOP"))));
    assert_eq!(more, Some(3), "errors_max is 5");

    let mut machine = Machine::new(rules, Privacy::Clear);
    machine.advance(Event::Opened);
    for event in transaction() {
        advance(&mut machine, event);
    }
    let free = (0..100).position(|_| {
        machine.advance(command("BDAT 0"));
        ended(&machine.advance(Event::Moved(Moved::Answered(reply(250)))))
    });
    assert!(free.is_some(), "empty chunks without end");
}

#[test]
fn a_message_wipes_the_junk_away() {
    let rules = Rules {
        junk_max: 3,
        ..rules()
    };
    let mut machine = Machine::new(rules, Privacy::Clear);
    machine.advance(Event::Opened);
    let mut events = transaction();
    events.extend([command("DATA"), answered(354)]);
    for event in events {
        advance(&mut machine, event);
    }
    machine.advance(Event::Moved(Moved::Answered(reply(250))));
    for _ in 0..3 {
        machine.advance(command("NOOP"));
    }
    assert_eq!(machine.errors(), 0);
    machine.advance(command("NOOP"));
    assert_eq!(machine.errors(), 1);
}

#[test]
fn in_monitor_mode_errors_are_counted_and_nobody_is_sent_away() {
    let rules = Rules {
        mode: Mode::Monitor,
        ..rules()
    };
    let mut machine = Machine::new(rules, Privacy::Clear);
    machine.advance(Event::Opened);
    for _ in 0..50 {
        assert!(!ended(&machine.advance(command("FROB"))));
    }
    assert_eq!(machine.errors(), 50);
}

#[test]
fn an_early_talker_is_refused_instead_of_greeted() {
    let mut machine = Machine::new(rules(), Privacy::Clear);
    let step = machine.advance(Event::SpokeFirst);
    assert!(ended(&step) && code(&step) == 554, "{step:?}");
}

#[test]
fn a_client_whose_place_is_needed_hears_421() {
    for events in [vec![], vec![command("EHLO c.test")], transaction()] {
        let (mut machine, _) = after(Privacy::Clear, &events);
        let step = machine.advance(Event::MustLeave);
        assert!(ended(&step) && code(&step) == 421, "{step:?}");
    }
}

#[test]
fn who_may_not_sign_in_now_hears_454_and_the_backend_nothing() {
    let (mut machine, _) = after(Privacy::Encrypted, &[command("EHLO c.test")]);
    let step = machine.advance(command("AUTH PLAIN AHUAcA=="));
    assert_eq!(step, Step::Judge(Question::SignIn));
    let step = machine.advance(Event::Judged(Verdict::Refuse(rate(Limit::AuthFailures))));
    assert!(
        text(&step).starts_with("454 4.7.0 AUTH_FAIL_RATE"),
        "{step:?}"
    );
    assert!(!ended(&step));
}

/// RFC 2920 3.1: DATA may be pipelined behind RCPT, and must be refused when no
/// recipient was taken. That is no error of the client.
#[test]
fn data_pipelined_behind_refused_recipients_is_no_error() {
    let (mut machine, _) = after(Privacy::Clear, &transaction()[..4]);
    for _ in 0..20 {
        machine.advance(command("RCPT TO:<y@example.org>"));
        machine.advance(Event::Judged(Verdict::Refuse(rate(Limit::Recipients))));
        // The backend forgets the transaction too.
        assert_eq!(
            machine.advance(command("DATA")),
            Step::Exchange(Command::Rset)
        );
        assert_eq!(code(&machine.advance(answered(250))), 503);
        advance(&mut machine, command("MAIL FROM:<a@b.test>"));
        assert_eq!(code(&machine.advance(answered(250))), 250);
    }
    assert_eq!(machine.errors(), 0);
}

#[test]
fn data_again_and_again_without_a_recipient_uses_up_the_errors() {
    let (mut machine, _) = after(Privacy::Clear, &transaction()[..4]);
    machine.advance(command("DATA"));
    machine.advance(answered(250));
    let ends = (0..10).position(|_| ended(&machine.advance(command("DATA"))));
    assert_eq!(ends, Some(5), "errors_max is 5");
}
