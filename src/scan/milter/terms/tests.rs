//! What is offered, what is agreed on.

use super::*;

const ALL: [Step; 9] = [
    Step::Connect,
    Step::Helo,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
    Step::Header,
    Step::EndOfHeader,
    Step::Body,
    Step::EndOfBody,
];

fn answer(version: u32, actions: u32, protocol: u32) -> Answer {
    Answer::Negotiated {
        version,
        actions,
        protocol,
        symbols: Vec::new(),
    }
}

fn agreed(version: u32, protocol: u32) -> Terms {
    Terms::agree(answer(version, 0, protocol)).unwrap()
}

#[test]
fn offers_no_change_of_the_envelope() {
    let Command::Negotiate {
        version, actions, ..
    } = Terms::offer()
    else {
        panic!("no offer");
    };
    assert_eq!(version, 6);
    for (name, bit) in [
        ("ADDRCPT", 0x04),
        ("DELRCPT", 0x08),
        ("CHGFROM", 0x40),
        ("ADDRCPT_PAR", 0x80),
    ] {
        assert_eq!(actions & bit, 0, "{name}");
    }
}

#[test]
fn agrees_with_a_filter_that_names_more_actions_than_were_offered() {
    assert_eq!(Terms::agree(answer(6, u32::MAX, 0)), Ok(agreed(6, 0)));
}

#[test]
fn speaks_versions_two_to_six() {
    for version in 2..=6 {
        assert!(Terms::agree(answer(version, 0, 0)).is_ok());
    }
    for version in [0, 1, 7, u32::MAX] {
        assert!(Terms::agree(answer(version, 0, 0)).is_err(), "{version}");
    }
    assert!(Terms::agree(Answer::Continue).is_err());
}

#[test]
fn sends_all_that_is_wanted_and_awaits_its_answer() {
    let terms = agreed(6, 0);
    assert!(
        ALL.iter()
            .all(|step| terms.sends(*step) && terms.awaits(*step))
    );
    assert!(!terms.has_leading_space());
}

#[test]
fn leaves_out_each_step_that_is_unwanted() {
    for (bit, step) in [
        (0x01, Step::Connect),
        (0x02, Step::Helo),
        (0x04, Step::Mail),
        (0x08, Step::Rcpt),
        (0x10, Step::Body),
        (0x20, Step::Header),
        (0x40, Step::EndOfHeader),
        (0x200, Step::Data),
    ] {
        let terms = agreed(6, bit);
        for other in ALL {
            assert_eq!(terms.sends(other), other != step, "{other:?} for {bit:#x}");
        }
    }
}

#[test]
fn waits_for_no_answer_that_will_not_come() {
    for (bit, step) in [
        (0x80, Step::Header),
        (0x1000, Step::Connect),
        (0x2000, Step::Helo),
        (0x4000, Step::Mail),
        (0x8000, Step::Rcpt),
        (0x1_0000, Step::Data),
        (0x4_0000, Step::EndOfHeader),
        (0x8_0000, Step::Body),
    ] {
        let terms = agreed(6, bit);
        for other in ALL {
            assert_eq!(terms.awaits(other), other != step, "{other:?} for {bit:#x}");
        }
    }
}

#[test]
fn the_end_of_the_message_is_always_sent_and_answered() {
    let terms = agreed(6, u32::MAX);
    assert!(terms.sends(Step::EndOfBody) && terms.awaits(Step::EndOfBody));
}

#[test]
fn spares_old_filters_what_they_do_not_know() {
    assert!(!agreed(3, 0).sends(Step::Data));
    assert!(agreed(4, 0).sends(Step::Data));
    assert!(agreed(5, 0).macros(Step::EndOfBody).is_empty());
    assert_eq!(agreed(6, 0).macros(Step::EndOfBody), ["i"]);
}

#[test]
fn sends_the_macros_that_were_asked_for_and_no_others() {
    let terms = Terms::agree(Answer::Negotiated {
        version: 6,
        actions: 0x100,
        protocol: 0,
        symbols: vec![
            (0, "j {client_addr}".to_owned()),
            (2, String::new()),
            (6, "i".to_owned()),
        ],
    })
    .unwrap();
    assert_eq!(terms.macros(Step::Connect), ["j", "{client_addr}"]);
    assert!(terms.macros(Step::Mail).is_empty());
    assert_eq!(terms.macros(Step::EndOfHeader), ["i"]);
    assert!(terms.macros(Step::Header).is_empty());
    assert_eq!(terms.macros(Step::Rcpt), ["{rcpt_addr}", "{rcpt_host}"]);
}

#[test]
fn is_not_to_be_asked_for_macros_without_end() {
    let terms = Terms::agree(Answer::Negotiated {
        version: 6,
        actions: 0x100,
        protocol: 0,
        symbols: vec![(0, "j ".repeat(100_000)); 100],
    })
    .unwrap();
    assert_eq!(terms.macros(Step::Connect).len(), MACROS_MAX);
    assert_eq!(terms.symbols.len(), STAGES);
}
