//! What came of all attempts to send a message, laid beside what was delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Attempt, Postfix, between, first_difference, sent_by_attempt, wait_for};

/// For Postfix to deliver all that it has taken on.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Account {
    pub acknowledged: usize,
    pub failed: usize,
    /// Delivered although no 250 was heard.
    pub delivered_unheard: usize,
}

impl Account {
    /// Fails the test unless every attempt that was acknowledged was delivered once, every
    /// other at most once, each whole, and nobody was refused for good.
    #[track_caller]
    pub fn settle(postfix: &Postfix, attempts: &[Attempt]) -> Self {
        wait_until_delivered(postfix);
        let mut copies: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for delivered in postfix.messages(0) {
            let (head, text) = halves(&delivered);
            let number = between(&head, "Subject: attempt ", "\r\n").expect(&head);
            let number = number.parse().unwrap();
            let queue_id = between(&head, "SMTP id ", "\r\n")
                .or_else(|| between(&head, "SMTPS id ", "\r\n"))
                .expect(&head);
            let sent = sent_by_attempt(number);
            if let Some(difference) = first_difference(halves(&sent).1, text) {
                panic!("attempt {number} was not delivered as sent: {difference}");
            }
            // Two files of one message are Postfix's own doing: it was killed in between.
            let taken_as = copies.entry(number).or_default();
            taken_as.insert(queue_id.to_owned());
        }

        let mut account = Self {
            acknowledged: 0,
            failed: 0,
            delivered_unheard: 0,
        };
        for (number, attempt) in attempts.iter().enumerate() {
            let taken_as = copies.remove(&number).unwrap_or_default();
            let told = format!("attempt {number}: {attempt:?}, delivered as {taken_as:?}");
            assert!(!attempt.bounced(), "refused for good: {told}");
            if attempt.acknowledged {
                assert_eq!(taken_as.len(), 1, "{told}");
                account.acknowledged += 1;
            } else {
                assert!(taken_as.len() <= 1, "{told}");
                account.failed += 1;
                account.delivered_unheard += taken_as.len();
            }
        }
        assert!(copies.is_empty(), "nobody sent {copies:?}");
        println!("{account:?}\n{:#?}", reasons(attempts));
        account
    }
}

/// Why attempts failed, and how many for each reason.
fn reasons(attempts: &[Attempt]) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| !attempt.acknowledged) {
        let digitless = |letter: char| if letter.is_ascii_digit() { '#' } else { letter };
        // Behind it stands which session it was.
        let reason = attempt.failure.split(" [").next().unwrap_or_default();
        let reason = reason.chars().map(digitless).collect();
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}

/// Header and text of a message.
fn halves(message: &[u8]) -> (String, &[u8]) {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, text) = message.split_at(end.unwrap() + 2);
    (String::from_utf8_lossy(head).into_owned(), text)
}

/// Until Postfix has had nothing to deliver for a second.
#[track_caller]
fn wait_until_delivered(postfix: &Postfix) {
    let mut idle_since = None;
    let delivered = wait_for(PATIENCE, || {
        if !postfix.is_idle() {
            idle_since = None;
            return None;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert!(delivered.is_some(), "Postfix still has mail to deliver");
}
