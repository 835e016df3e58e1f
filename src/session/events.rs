//! The last refusals, for whoever watches: to whom, at what and why.
//!
//! A refusal that repeats the one of the same client is counted on its line, so
//! that a flood from one place does not push out everything else. There is one
//! lock and nobody waits for it: who finds it taken leaves its refusal to the
//! metrics, which miss none.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError, TryLockError};
use std::time::SystemTime;

use super::SessionId;
use crate::metrics::Mode;

/// Events that are kept.
const KEPT: usize = 50;

/// Characters of a text that are kept.
const TEXT_MAX: usize = 200;

/// The events of this process.
pub fn get() -> &'static Events {
    static EVENTS: LazyLock<Events> = LazyLock::new(Events::default);
    &EVENTS
}

/// What makes two refusals one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whom it met; never to be shown, see [`Told::client`].
    pub client: IpAddr,
    /// The verb, or `connect`, `line`.
    pub at: &'static str,
    /// Why, as metrics and log call it.
    pub reason: &'static str,
    /// Whether it was enforced.
    pub mode: Mode,
}

/// What is told of a refusal; all addresses are as `LOG_ADDRESSES` wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose log lines tell more.
    pub session: SessionId,
    /// The client.
    pub client: String,
    /// What it called itself.
    pub helo: Option<String>,
    /// The reverse-path.
    pub from: Option<String>,
    /// The forward-path.
    pub to: Option<String>,
    /// What it was told.
    pub reply: String,
}

/// One line of what happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// What makes it one.
    pub key: Key,
    /// Its last refusal.
    pub told: Told,
    /// When that was.
    pub at: SystemTime,
    /// How many there were.
    pub times: u64,
}

/// The last events.
#[derive(Debug, Default)]
pub struct Events {
    /// The latest first.
    last: Mutex<VecDeque<Event>>,
}

impl Events {
    /// Something was refused; `tell` is asked only if it is taken down.
    pub fn note(&self, key: Key, tell: impl FnOnce() -> Told) {
        self.take_down(key, |times| {
            Some(Event {
                key,
                told: shortened(tell()),
                at: SystemTime::now(),
                times,
            })
        });
    }

    /// Something was refused that is worth no line of its own: it counts on the
    /// line that there may be.
    pub fn again(&self, key: &Key) {
        self.take_down(*key, |_| None);
    }

    /// Counts on the line of this key, or makes what `renewed` gives for that
    /// number of times the newest line.
    fn take_down(&self, key: Key, renewed: impl FnOnce(u64) -> Option<Event>) {
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let place = last.iter().position(|event| event.key == key);
        let known = place.and_then(|place| last.get_mut(place));
        let times = known.map_or(1, |event| {
            event.times = event.times.saturating_add(1);
            event.times
        });
        if let Some(event) = renewed(times) {
            if let Some(place) = place {
                last.remove(place);
            }
            last.truncate(KEPT.saturating_sub(1));
            last.push_front(event);
        }
    }

    /// The last events, the latest first.
    pub fn last(&self) -> Vec<Event> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect()
    }
}

fn shortened(mut told: Told) -> Told {
    let texts = [&mut told.helo, &mut told.from, &mut told.to];
    for text in texts.into_iter().flatten().chain([&mut told.reply]) {
        if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
            text.truncate(end);
            text.push('…');
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u8) -> Key {
        Key {
            client: IpAddr::from([192, 0, 2, host]),
            at: "RCPT",
            reason: "relay-denied",
            mode: Mode::Enforced,
        }
    }

    fn told(reply: &str) -> Told {
        Told {
            session: SessionId::next(),
            client: "192.0.2.1".to_owned(),
            helo: None,
            from: None,
            to: Some("é".repeat(300)),
            reply: reply.to_owned(),
        }
    }

    #[test]
    fn keeps_the_latest_events_and_no_more() {
        let events = Events::default();
        for host in 0..=200 {
            events.note(key(host), || told("550"));
        }
        let last = events.last();
        assert_eq!(last.len(), KEPT);
        assert_eq!(last.first().map(|event| event.key), Some(key(200)));
    }

    #[test]
    fn a_client_that_is_refused_again_counts_on_its_line_which_comes_up() {
        let events = Events::default();
        events.note(key(1), || told("first"));
        events.note(key(2), || told("other"));
        events.note(key(1), || told("second"));
        let last = events.last();
        assert_eq!(last.len(), 2);
        assert_eq!((last[0].key, last[0].times), (key(1), 2));
        assert_eq!(last[0].told.reply, "second");
    }

    #[test]
    fn a_refusal_without_a_line_counts_on_the_line_that_there_is() {
        let events = Events::default();
        events.again(&key(1));
        assert!(events.last().is_empty());
        events.note(key(1), || told("550"));
        events.note(key(2), || told("550"));
        events.again(&key(1));
        let times: Vec<_> = events.last().iter().map(|event| event.times).collect();
        assert_eq!(times, [1, 2]);
    }

    #[test]
    fn nobody_waits_while_somebody_reads() {
        let events = Events::default();
        let reading = events.last.lock().unwrap();
        events.note(key(1), || unreachable!("must not be told"));
        drop(reading);
        assert!(events.last().is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let events = Events::default();
        events.note(key(1), || told(&"x".repeat(100_000)));
        let told = &events.last()[0].told;
        assert_eq!(told.reply.chars().count(), TEXT_MAX + 1);
        assert!(told.to.as_ref().unwrap().ends_with("é…"));
    }
}
