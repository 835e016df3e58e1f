//! What the client hears when the backend breaks, and when it errs itself.

use super::*;
use crate::smtp::dot::BodyOffence;

fn lost() -> Event {
    Event::Answered(Err(Lost))
}

/// Says MAIL anew: it must be possible, over a new connection.
fn assert_usable(mut machine: Machine, context: &str) {
    let step = advance(&mut machine, command("MAIL FROM:<a@b.test>"));
    assert_eq!(step, Step::Connect, "{context}");
    advance(&mut machine, connected());
    assert_eq!(
        code(&advance(&mut machine, answered(250))),
        250,
        "{context}"
    );
}

#[test]
fn a_lost_backend_costs_one_451_at_every_command() {
    let hello = command("EHLO c.test");
    let open = [hello.clone(), command("VRFY x"), connected()];
    for (name, events) in [
        ("MAIL", transaction()[..3].to_vec()),
        ("RCPT", transaction()[..6].to_vec()),
        ("DATA", and(transaction(), &[command("DATA")])),
        ("VRFY", open.to_vec()),
        (
            "VRFY within",
            and(transaction()[..4].to_vec(), &[command("VRFY x")]),
        ),
    ] {
        let (mut machine, step) = after(Privacy::Clear, &events);
        assert!(matches!(step, Step::Exchange(_)), "{name}: {step:?}");
        let step = advance(&mut machine, lost());
        assert!(!ended(&step) && code(&step) == 451, "{name}: {step:?}");
        assert!(machine.envelope().is_none(), "{name}");
        assert_usable(machine, name);
    }
}

#[test]
fn a_backend_lost_where_nothing_depends_on_it_is_not_noticed() {
    for line in ["RSET", "EHLO d.test"] {
        for gone in [lost(), answered(421)] {
            let events = and(transaction(), &[command(line), gone]);
            let (machine, step) = after(Privacy::Clear, &events);
            assert_eq!(code(&step), 250, "{line}");
            assert!(machine.envelope().is_none(), "{line}");
            assert!(!machine.has_link(), "{line}");
            assert_usable(machine, line);
        }
    }
}

/// Another took its envelope: whatever is refused now, the sender tries again.
#[test]
fn a_kept_message_whose_next_backend_refuses_the_client_is_no_bounce() {
    let rules = Rules {
        bodies: Bodies::Judged,
        ..rules()
    };
    for refused in [
        Event::Connected(Err(Unavailable::Refused(reply(550)))),
        Event::Connected(Err(Unavailable::Gone)),
    ] {
        let mut machine = Machine::new(rules.clone(), Privacy::Clear);
        machine.advance(Event::Opened);
        for event in and(transaction(), &[command("DATA")]) {
            advance(&mut machine, event);
        }
        let step = advance(&mut machine, Event::Spooled(Spooled::Kept));
        assert_eq!(step, Step::Weigh);
        let step = advance(&mut machine, Event::Weighed(Weighed::Pass));
        assert_eq!(step, Step::Exchange(Command::Data));
        assert_eq!(advance(&mut machine, lost()), Step::Connect);
        assert_eq!(code(&advance(&mut machine, refused)), 451);
        assert!(machine.envelope().is_none());
    }
}

#[test]
fn a_backend_that_cannot_be_opened_costs_a_451_or_its_own_refusal() {
    let mail = &transaction()[..2];
    for (why, expected) in [
        (Unavailable::Gone, 451),
        (Unavailable::Tls, 451),
        (Unavailable::Busy, 451),
        (Unavailable::Refused(reply(554)), 554),
        (Unavailable::Refused(reply(450)), 450),
    ] {
        let events = and(mail.to_vec(), &[Event::Connected(Err(why.clone()))]);
        let (machine, step) = after(Privacy::Clear, &events);
        assert!(!ended(&step), "{why:?}");
        assert_eq!(code(&step), expected, "{why:?}");
        assert_usable(machine, "opened anew");
    }
    for wrong in [220, 354, 421] {
        let refused = Unavailable::Refused(reply(wrong));
        let events = and(mail.to_vec(), &[Event::Connected(Err(refused))]);
        let (_, step) = after(Privacy::Clear, &events);
        assert!(ended(&step) && code(&step) == 421, "{wrong}: {step:?}");
    }
}

#[test]
fn a_421_of_the_backend_ends_the_session_with_its_word() {
    for events in [
        transaction()[..6].to_vec(),
        and(transaction(), &[command("DATA")]),
    ] {
        let (_, step) = after(Privacy::Clear, &and(events, &[answered(421)]));
        assert_eq!(step, Step::End(Ending::Said(Answer::Backend(reply(421)))));
    }
}

/// A 503 here would turn a temporary failure into a bounce.
#[test]
fn what_was_pipelined_behind_a_broken_mail_gets_the_same_answer() {
    let (mut machine, step) = after(Privacy::Clear, &and(transaction()[..3].to_vec(), &[lost()]));
    assert_eq!(code(&step), 451);
    let rcpt = command("RCPT TO:<x@example.org>");
    assert_eq!(advance(&mut machine, rcpt.clone()), step);
    assert_eq!(advance(&mut machine, rcpt.clone()), step);
    assert_eq!(advance(&mut machine, command("DATA")), step);
    // DATA was the last of the group.
    assert_eq!(code(&advance(&mut machine, rcpt)), 503);
}

#[test]
fn a_command_amid_what_was_pipelined_does_not_hide_what_broke() {
    let (mut machine, step) = after(Privacy::Clear, &and(transaction()[..3].to_vec(), &[lost()]));
    advance(&mut machine, command("VRFY x"));
    advance(&mut machine, connected());
    assert_eq!(code(&advance(&mut machine, lost())), 451);
    assert_eq!(
        advance(&mut machine, command("RCPT TO:<x@example.org>")),
        step
    );
    assert_eq!(advance(&mut machine, command("DATA")), step);
}

#[test]
fn what_was_pipelined_behind_a_lost_rcpt_gets_the_same_answer() {
    let (mut machine, step) = after(Privacy::Clear, &and(transaction()[..6].to_vec(), &[lost()]));
    assert_eq!(code(&step), 451);
    assert_eq!(
        advance(&mut machine, command("RCPT TO:<y@example.org>")),
        step
    );
    assert_eq!(advance(&mut machine, command("DATA")), step);
}

#[test]
fn what_was_pipelined_behind_a_refused_mail_gets_the_backends_refusal() {
    let refused = and(transaction()[..3].to_vec(), &[answered(550)]);
    let (mut machine, step) = after(Privacy::Clear, &refused);
    assert_eq!(step, Step::Answer(Answer::Backend(reply(550))));
    assert_eq!(
        advance(&mut machine, command("RCPT TO:<x@example.org>")),
        step
    );
    assert_eq!(advance(&mut machine, command("DATA")), step);
}

#[test]
fn rset_and_a_hello_end_what_broke() {
    for line in ["RSET", "EHLO c.test"] {
        let events = and(transaction()[..3].to_vec(), &[lost(), command(line)]);
        let (mut machine, step) = after(Privacy::Clear, &events);
        assert_eq!(code(&step), 250, "{line}");
        let step = advance(&mut machine, command("RCPT TO:<x@example.org>"));
        assert_eq!(code(&step), 503, "{line}");
    }
}

#[test]
fn a_body_that_broke_gets_one_honest_answer() {
    let body = and(transaction(), &[command("DATA"), answered(354)]);
    for (moved, expected) in [
        (Moved::Lost, 451),
        (Moved::TooLarge, 552),
        (Moved::Offence(BodyOffence::BareLf), 554),
        (Moved::Offence(BodyOffence::Nul), 554),
        (Moved::Interrupted(reply(452)), 452),
        (Moved::Answered(reply(550)), 550),
    ] {
        let events = and(body.clone(), &[Event::Moved(moved.clone())]);
        let (machine, step) = after(Privacy::Clear, &events);
        assert!(!ended(&step), "{moved:?}: {step:?}");
        assert_eq!(code(&step), expected, "{moved:?}");
        assert!(machine.envelope().is_none(), "{moved:?}");
    }
    for (moved, expected) in [
        (Moved::TooSlow, 421),
        (Moved::Endless, 552),
        (Moved::Answered(reply(421)), 421),
        (Moved::Answered(reply(354)), 421),
        // An acknowledgement of what it has not seen the end of.
        (Moved::Interrupted(reply(250)), 421),
    ] {
        let events = and(body.clone(), &[Event::Moved(moved.clone())]);
        let (_, step) = after(Privacy::Clear, &events);
        assert!(ended(&step), "{moved:?}: {step:?}");
        assert_eq!(code(&step), expected, "{moved:?}");
    }
    let (_, step) = after(
        Privacy::Clear,
        &and(body.clone(), &[Event::Moved(Moved::Gone)]),
    );
    assert_eq!(step, Step::End(Ending::Gone));
    // Nobody is there to be told, but it is remembered.
    let offence = BodyOffence::BareLf;
    let gone = Event::Moved(Moved::GoneFrom(offence));
    let (_, step) = after(Privacy::Clear, &and(body, &[gone]));
    assert_eq!(step, Step::End(Ending::Cut(Refusal::Body(offence))));
}

#[test]
fn no_2xx_or_3xx_passes_that_was_not_asked_for() {
    for (events, wrong) in [
        (transaction()[..3].to_vec(), vec![334, 354]),
        (transaction()[..6].to_vec(), vec![334, 354]),
        (and(transaction(), &[command("DATA")]), vec![250, 334]),
        (signed_in()[..3].to_vec(), vec![200, 250, 354]),
    ] {
        for code_heard in wrong {
            let events = and(events.clone(), &[answered(code_heard)]);
            let (_, step) = after(Privacy::Encrypted, &events);
            assert!(ended(&step) && code(&step) == 421, "{code_heard}: {step:?}");
        }
    }
    // None at all while the client is to speak.
    for unasked in [250, 354] {
        let (_, step) = after(Privacy::Clear, &and(transaction(), &[answered(unasked)]));
        assert!(ended(&step) && code(&step) == 421, "{unasked}: {step:?}");
    }
}

#[test]
fn error_max_ends_the_session_and_starttls_does_not_forget_the_count() {
    let max = rules().errors_max;
    let (mut machine, _) = after(Privacy::Clear, &[command("EHLO c.test")]);
    for _ in 0..max {
        assert_eq!(code(&advance(&mut machine, command("FROB"))), 500);
    }
    let step = advance(&mut machine, command("FROB"));
    assert!(ended(&step) && code(&step) == 421, "{step:?}");

    let (mut machine, _) = after(Privacy::Clear, &[]);
    for _ in 0..max {
        advance(&mut machine, command("FROB"));
    }
    advance(&mut machine, command("STARTTLS"));
    advance(&mut machine, Event::Upgraded);
    assert!(ended(&advance(&mut machine, command("FROB"))));
}

#[test]
fn a_recipient_refused_by_policy_or_backend_is_no_protocol_error() {
    let (mut machine, _) = after(Privacy::Clear, &transaction()[..4]);
    for _ in 0..3 * rules().errors_max {
        advance(&mut machine, command("RCPT TO:<x@evil.test>"));
        let step = advance(
            &mut machine,
            Event::Judged(Verdict::Refuse(Finding::ForeignDomain)),
        );
        assert!(!ended(&step) && code(&step) == 550, "{step:?}");
        advance(&mut machine, command("RCPT TO:<nobody@example.org>"));
        advance(&mut machine, Event::Judged(Verdict::Pass));
        assert_eq!(code(&advance(&mut machine, answered(550))), 550);
    }
}

#[test]
fn offences_of_the_line_end_the_session_but_a_long_one_does_not() {
    let hello = command("EHLO c.test");
    for (offence, stays) in [
        (LineOffence::TooLong, true),
        (LineOffence::BareCr, false),
        (LineOffence::BareLf, false),
        (LineOffence::Nul, false),
    ] {
        let (_, step) = after(Privacy::Clear, &[hello.clone(), Event::Offence(offence)]);
        assert_eq!(code(&step), 500, "{offence:?}");
        assert_eq!(ended(&step), !stays, "{offence:?}");
    }
    // To another protocol nothing is said at all.
    let (_, step) = after(Privacy::Clear, &[Event::Offence(LineOffence::TlsHello)]);
    assert!(matches!(step, Step::End(Ending::Cut(_))), "{step:?}");
    let (_, step) = after(Privacy::Clear, &[command("GET / HTTP/1.1")]);
    assert!(matches!(step, Step::End(Ending::Cut(_))), "{step:?}");
}

#[test]
fn is_at_rest_only_where_nothing_is_open_or_awaited() {
    let data = and(transaction(), &[command("DATA")]);
    let body = and(data.clone(), &[answered(354)]);
    let taken = and(body.clone(), &[Event::Moved(Moved::Answered(reply(250)))]);
    for (name, events, rests) in [
        ("greeted by us", vec![], true),
        ("connecting", transaction()[..2].to_vec(), false),
        ("awaiting MAIL", transaction()[..3].to_vec(), false),
        ("sender taken", transaction()[..4].to_vec(), false),
        ("awaiting policy", transaction()[..5].to_vec(), false),
        ("recipient taken", transaction(), false),
        ("awaiting 354", data, false),
        ("relaying", body, false),
        ("message taken", taken, true),
        ("broken", and(transaction()[..3].to_vec(), &[lost()]), true),
    ] {
        let (machine, _) = after(Privacy::Clear, &events);
        assert_eq!(machine.at_rest(), rests, "{name}");
    }
}

#[test]
fn a_client_that_is_silent_or_gone_ends_the_session_anywhere() {
    let body = and(transaction(), &[command("DATA"), answered(354)]);
    for length in 0..=body.len() {
        let (mut machine, _) = after(Privacy::Clear, &body[..length]);
        assert_eq!(advance(&mut machine, Event::Gone), Step::End(Ending::Gone));
        let (mut machine, _) = after(Privacy::Clear, &body[..length]);
        let step = advance(&mut machine, Event::TimedOut);
        assert!(ended(&step) && code(&step) == 421, "{length}: {step:?}");
    }
}
