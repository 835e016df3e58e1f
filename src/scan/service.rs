//! One scanner with what keeps it from harming anybody: a bound on the
//! messages it works on at once, a circuit breaker, the deadline, and a wall
//! that a panic does not pass.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::ScanError;
use super::breaker::Breaker;
use super::tally::Tally;
use crate::policy::content::{Opinion, Scanner, Word};

/// A scanner that may be asked.
#[derive(Debug)]
pub(super) struct Service<C> {
    pub(super) client: C,
    scanner: Scanner,
    places: Semaphore,
    /// The time from which it is asked to the deadline, at least, for which it
    /// is to blame if it is late. One that needs so long to say that it cannot
    /// judge is no better: it may hang behind a time-out of its own.
    fair: Duration,
    breaker: Breaker,
    tally: Tally,
}

impl<C> Service<C> {
    /// `patience` is what all scanners together may take.
    pub(super) fn new(scanner: Scanner, client: C, concurrency: usize, patience: Duration) -> Self {
        Self {
            client,
            scanner,
            places: Semaphore::new(concurrency),
            fair: patience / 2,
            breaker: Breaker::new(scanner.to_string()),
            tally: Tally::new(&scanner.to_string()),
        }
    }

    /// The scanner's opinions of message `id`, for which `scan` asks `client`.
    /// Never fails: that there is no answer is an opinion, too.
    pub(super) async fn ask(
        &self,
        id: &str,
        deadline: Instant,
        scan: impl Future<Output = Result<Vec<Opinion>, ScanError>>,
    ) -> Vec<Opinion> {
        let opinions = self.answer(id, deadline, scan).await;
        self.tally.said(&opinions);
        self.show();
        opinions
    }

    /// Shows in the metrics whether it is in service.
    pub(super) fn show(&self) {
        if self.breaker.is_open() {
            self.tally.out_of_service();
        } else {
            self.tally.in_service();
        }
    }

    async fn answer(
        &self,
        id: &str,
        deadline: Instant,
        scan: impl Future<Output = Result<Vec<Opinion>, ScanError>>,
    ) -> Vec<Opinion> {
        let failed = |how: &str| vec![self.opinion(Word::Failed(how.to_owned()))];
        if self.breaker.is_open() {
            return failed("out of service");
        }
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else {
            tracing::warn!(id, scanner = %self.scanner, "no place at the scanner in time");
            return failed("no place in time");
        };
        if Instant::now() >= deadline {
            // Those before it took all the time: not its fault.
            return failed("no time left for it");
        }
        let Some(attempt) = self.breaker.admit() else {
            return failed("out of service");
        };
        let began = Instant::now();
        let scanned = timeout_at(deadline, contained(scan)).await;
        let is_late = scanned.is_err();
        let took = began.elapsed();
        self.tally.asked(took);
        let how = match scanned {
            Ok(Some(Ok(mut opinions))) => {
                match opinions.iter().find_map(failure) {
                    None => attempt.succeeded(),
                    Some(error) => {
                        tracing::warn!(id, scanner = %self.scanner, error, "scanner failed");
                        attempt.failed();
                    }
                }
                self.check(id, &mut opinions);
                return opinions;
            }
            Ok(Some(Err(ScanError::TooLarge))) => {
                attempt.succeeded();
                tracing::info!(id, scanner = %self.scanner, "message is too large for the scanner");
                return vec![self.opinion(Word::Unscanned)];
            }
            Ok(Some(Err(error)))
                if matches!(error, ScanError::Spool(_))
                    || matches!(error, ScanError::Reported(_)) && took < self.fair =>
            {
                // It is there, and costs no other message much time.
                attempt.succeeded();
                let how = error.to_string();
                tracing::warn!(id, scanner = %self.scanner, error = how, "scanner failed");
                return failed(&how);
            }
            Ok(Some(Err(error))) => error.to_string(),
            Ok(None) => "its client broke down".to_owned(),
            Err(_) => "no answer in time".to_owned(),
        };
        // Late because others took the time before it: that tells nothing.
        if !is_late || deadline.duration_since(began) >= self.fair {
            attempt.failed();
        }
        tracing::warn!(id, scanner = %self.scanner, error = how, "scanner failed");
        failed(&how)
    }

    /// The opinion about a message that it is not shown.
    pub(super) fn pass_over(&self) -> Opinion {
        let opinion = self.opinion(Word::Unscanned);
        self.tally.said(std::slice::from_ref(&opinion));
        opinion
    }

    /// Whose opinions they are.
    pub(super) fn scanner(&self) -> Scanner {
        self.scanner
    }

    fn opinion(&self, word: Word) -> Opinion {
        Opinion::new(self.scanner, word)
    }

    /// Signs the opinions and leaves out changes that could not be printed.
    fn check(&self, id: &str, opinions: &mut [Opinion]) {
        for opinion in opinions {
            opinion.scanner = self.scanner;
            let changes = std::mem::take(&mut opinion.changes).into_iter();
            let checked = changes.filter_map(|change| match change.checked() {
                Ok(change) => Some(change),
                Err(error) => {
                    tracing::warn!(id, scanner = %self.scanner, %error, "scanner asks for a change that is left out");
                    None
                }
            });
            opinion.changes = checked.collect();
        }
    }
}

fn failure(opinion: &Opinion) -> Option<&str> {
    match &opinion.word {
        Word::Failed(how) => Some(how),
        _ => None,
    }
}

/// The future's result, or `None` if it panics: a fault in one scanner's
/// client must not take the session and the other scanners along.
async fn contained<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            // It is not polled again.
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}

#[cfg(test)]
mod tests;
