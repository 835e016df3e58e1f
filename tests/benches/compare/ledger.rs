//! Who sent which message and what became of it: each that was acknowledged has
//! arrived exactly once, none twice, none changed.

use std::sync::{Mutex, MutexGuard};

use super::letter::number_of;

#[derive(Default)]
pub struct Ledger {
    open: Mutex<Pages>,
}

/// Of the messages since the last settlement.
#[derive(Default)]
struct Pages {
    first: u64,
    entries: Vec<Entry>,
    damaged: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    acknowledged: bool,
    arrived: u32,
}

impl Pages {
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let at = number.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.open.lock().unwrap()
    }

    /// The number of the next message.
    pub fn issue(&self) -> u64 {
        let mut pages = self.pages();
        pages.entries.push(Entry::default());
        pages.first + pages.entries.len() as u64 - 1
    }

    /// Its sender was told 250.
    pub fn acknowledge(&self, number: u64) {
        self.pages().entry(number).unwrap().acknowledged = true;
    }

    /// Looks at a message that has arrived, without its final dot; false if it is not
    /// what was sent.
    pub fn arrive(&self, message: &[u8]) -> bool {
        let number = number_of(message);
        let mut pages = self.pages();
        let offence = match number {
            Ok(number) => match pages.entry(number) {
                Some(entry) => {
                    entry.arrived += 1;
                    return true;
                }
                None => format!("message {number} was never sent"),
            },
            Err(offence) => offence,
        };
        pages.damaged.push(offence);
        false
    }

    /// Ends the account once nothing is under way any more; how many messages were
    /// acknowledged.
    ///
    /// # Errors
    /// What does not agree.
    pub fn settle(&self) -> Result<usize, String> {
        let mut pages = self.pages();
        let first = pages.first;
        let entries = std::mem::take(&mut pages.entries);
        let mut wrong = std::mem::take(&mut pages.damaged);
        pages.first += entries.len() as u64;
        for (number, entry) in (first..).zip(&entries) {
            if entry.acknowledged && entry.arrived == 0 {
                wrong.push(format!("message {number} was acknowledged and is lost"));
            }
            if entry.arrived > 1 {
                wrong.push(format!("message {number} arrived {} times", entry.arrived));
            }
        }
        if wrong.is_empty() {
            Ok(entries.iter().filter(|entry| entry.acknowledged).count())
        } else {
            wrong.truncate(5);
            Err(wrong.join("; "))
        }
    }
}
