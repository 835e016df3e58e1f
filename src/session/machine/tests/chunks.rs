//! BDAT: chunks in sequence, and the octets of those that are refused.

use super::*;
use crate::smtp::dot::BodyOffence;

fn taken(code: u16) -> Event {
    Event::Moved(Moved::Answered(reply(code)))
}

fn relays(step: &Step) -> bool {
    matches!(step, Step::RelayChunk(_))
}

#[test]
fn chunks_follow_one_another_up_to_the_last() {
    let (mut machine, _) = after(Privacy::Clear, &transaction());
    assert!(machine.is_first_chunk());
    let step = advance(&mut machine, command("BDAT 10"));
    assert_eq!(
        step,
        Step::RelayChunk(Bdat {
            size: 10,
            last: false
        })
    );
    assert_eq!(code(&advance(&mut machine, taken(250))), 250);
    assert!(!machine.is_first_chunk());
    assert!(relays(&advance(&mut machine, command("BDAT 20"))));
    advance(&mut machine, taken(250));
    assert_eq!(machine.octets(), 30);
    assert!(relays(&advance(&mut machine, command("BDAT 0 LAST"))));
    assert_eq!(code(&advance(&mut machine, taken(250))), 250);
    assert!(machine.envelope().is_none() && machine.at_rest());
    assert_eq!(machine.octets(), 0);
}

/// RFC 3030 2.
#[test]
fn neither_data_nor_rcpt_nor_mail_comes_between_chunks() {
    let begun = and(transaction(), &[command("BDAT 10"), taken(250)]);
    for line in ["DATA", "RCPT TO:<y@example.org>", "MAIL FROM:<a@b.test>"] {
        let (mut machine, step) = after(Privacy::Clear, &and(begun.clone(), &[command(line)]));
        assert!(!ended(&step) && code(&step) == 503, "{line}: {step:?}");
        assert!(
            relays(&advance(&mut machine, command("BDAT 1 LAST"))),
            "{line}"
        );
    }
}

#[test]
fn rset_between_chunks_ends_the_transaction_at_the_backend_too() {
    let begun = and(transaction(), &[command("BDAT 10"), taken(250)]);
    let (mut machine, step) = after(Privacy::Clear, &and(begun, &[command("RSET")]));
    assert_eq!(step, Step::Exchange(Command::Rset));
    assert_eq!(code(&advance(&mut machine, answered(250))), 250);
    assert!(machine.envelope().is_none());
}

#[test]
fn the_octets_of_a_chunk_out_of_sequence_are_never_commands() {
    let hello = transaction()[..1].to_vec();
    for events in [vec![], hello] {
        let (mut machine, step) = after(Privacy::Clear, &and(events, &[command("BDAT 7")]));
        assert_eq!(step, Step::Discard(7));
        assert_eq!(code(&advance(&mut machine, Event::Discarded)), 503);
        assert_eq!(machine.errors(), 1);
    }
}

/// As with DATA, RFC 2920 3.1.
#[test]
fn chunks_pipelined_behind_refused_recipients_end_the_transaction_and_are_no_error() {
    let bdat = [command("BDAT 7 LAST"), Event::Discarded];
    let events = and(transaction()[..4].to_vec(), &bdat);
    let (mut machine, step) = after(Privacy::Clear, &events);
    assert_eq!(step, Step::Exchange(Command::Rset));
    assert_eq!(code(&advance(&mut machine, answered(250))), 503);
    assert!(machine.envelope().is_none());
    assert_eq!(machine.errors(), 0);
}

#[test]
fn chunks_larger_together_than_max_size_are_thrown_away_and_reset() {
    let events = and(
        transaction(),
        &[command("BDAT 10"), taken(250), command("BDAT 991")],
    );
    let (mut machine, step) = after(Privacy::Clear, &events);
    assert_eq!(step, Step::Discard(991));
    let step = advance(&mut machine, Event::Discarded);
    assert_eq!(step, Step::Exchange(Command::Rset));
    assert_eq!(code(&advance(&mut machine, answered(250))), 552);
    assert!(machine.envelope().is_none());

    let exactly = and(
        transaction(),
        &[command("BDAT 10"), taken(250), command("BDAT 990")],
    );
    assert!(relays(&after(Privacy::Clear, &exactly).1));
    let endless = and(transaction(), &[command("BDAT 18446744073709551615")]);
    let (_, step) = after(Privacy::Clear, &endless);
    assert!(ended(&step) && code(&step) == 552, "{step:?}");
}

#[test]
fn what_was_pipelined_behind_a_refused_chunk_gets_the_same_answer() {
    let refused = and(transaction(), &[command("BDAT 10"), taken(452)]);
    let (mut machine, step) = after(Privacy::Clear, &refused);
    assert_eq!(step, Step::Exchange(Command::Rset));
    assert_eq!(code(&advance(&mut machine, answered(250))), 452);
    assert!(machine.envelope().is_none());
    assert_eq!(advance(&mut machine, command("BDAT 5")), Step::Discard(5));
    assert_eq!(code(&advance(&mut machine, Event::Discarded)), 452);
    assert_eq!(
        advance(&mut machine, command("BDAT 5 LAST")),
        Step::Discard(5)
    );
    assert_eq!(code(&advance(&mut machine, Event::Discarded)), 452);
    // The last one ended it.
    advance(&mut machine, command("BDAT 5"));
    assert_eq!(code(&advance(&mut machine, Event::Discarded)), 503);
}

/// A client that hears that BDAT was not understood holds the octets to have been read
/// as commands.
#[test]
fn a_chunk_that_is_thrown_away_is_never_said_to_be_not_understood() {
    let hello = transaction()[..1].to_vec();
    let malformed = and(hello, &[command("MAIL FROM:<a@b.test>x")]);
    for (events, expected) in [
        (malformed, 501),
        (and(transaction()[..3].to_vec(), &[answered(500)]), 500),
        (and(transaction()[..3].to_vec(), &[answered(502)]), 502),
    ] {
        let (mut machine, step) = after(Privacy::Clear, &events);
        assert_eq!(code(&step), expected);
        let rcpt = command("RCPT TO:<x@example.org>");
        assert_eq!(code(&advance(&mut machine, rcpt)), expected);
        for line in ["BDAT 5", "BDAT 5 LAST"] {
            assert_eq!(advance(&mut machine, command(line)), Step::Discard(5));
            assert_eq!(code(&advance(&mut machine, Event::Discarded)), 503);
        }
    }
}

#[test]
fn a_chunk_that_broke_gets_one_honest_answer_and_the_rest_the_same() {
    for (moved, expected) in [
        (Moved::Lost, 451),
        (Moved::Offence(BodyOffence::BareCr), 554),
        (Moved::Interrupted(reply(452)), 452),
    ] {
        let events = and(
            transaction(),
            &[command("BDAT 10"), Event::Moved(moved.clone())],
        );
        let (mut machine, step) = after(Privacy::Clear, &events);
        assert_eq!(code(&step), expected, "{moved:?}");
        assert!(machine.envelope().is_none());
        advance(&mut machine, command("BDAT 5 LAST"));
        assert_eq!(code(&advance(&mut machine, Event::Discarded)), expected);
        // The connection went with it.
        let step = advance(&mut machine, command("MAIL FROM:<a@b.test>"));
        assert_eq!(step, Step::Connect);
    }
}

#[test]
fn no_chunks_where_they_were_not_offered() {
    let mut without = Keywords::new();
    without.insert("8BITMIME", [""; 0]);
    for rules in [
        Rules {
            backend: without.clone().into(),
            ..rules()
        },
        // Repair changes sizes, and a chunk's is told beforehand.
        Rules {
            newline: BareNewline::Normalize,
            ..rules()
        },
    ] {
        let mut machine = Machine::new(rules, Privacy::Clear);
        advance(&mut machine, Event::Opened);
        for event in transaction() {
            advance(&mut machine, event);
        }
        assert_eq!(code(&advance(&mut machine, command("BDAT 5"))), 502);
    }
}

/// Else the octets of the chunk would be commands to the backend.
#[test]
fn no_chunks_over_a_connection_that_does_not_take_them() {
    let mut events = transaction();
    events[2] = Event::Connected(Ok(Link {
        keywords: Keywords::new().into(),
        relogin: Relogin::Impossible,
    }));
    let (mut machine, step) = after(Privacy::Clear, &and(events, &[command("BDAT 5 LAST")]));
    assert_eq!(step, Step::Discard(5));
    let step = advance(&mut machine, Event::Discarded);
    assert_eq!(step, Step::Exchange(Command::Rset));
    assert_eq!(code(&advance(&mut machine, answered(250))), 451);
}
