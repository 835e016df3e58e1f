//! The threads on which sessions run: one a processor, each with a runtime of its
//! own.
//!
//! A session stays on the thread that it began on, and so do its timers and the
//! sockets of both its sides: no thread has to wake another one to pass on an
//! octet. In a runtime that shares its work that was a seventh of the time that a
//! message costs.

use std::convert::Infallible;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Shorter than the deadlines of a session usually are.
const BEAT: Duration = Duration::from_millis(500);

/// How many processors this process may use, as it was when first asked: inside the
/// sandbox the files that tell of a quota are out of reach.
pub(super) fn processors() -> usize {
    static FIRST_ANSWER: OnceLock<usize> = OnceLock::new();
    *FIRST_ANSWER.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// The threads; when they are dropped, so are the sessions on them.
pub(super) struct Crew {
    hands: Vec<Hand>,
    /// Where to look first, so that equals take turns.
    turn: AtomicUsize,
}

struct Hand {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _leave: oneshot::Sender<()>,
}

impl Crew {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new() -> io::Result<Self> {
        let hands = (0..processors()).map(|_| Hand::new());
        Ok(Self {
            hands: hands.collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
        })
    }

    /// Runs a session on the thread that has the fewest.
    pub(super) fn run<S>(&self, session: S, sessions: &TaskTracker)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (first, last) = self
            .hands
            .split_at(turn.checked_rem(self.hands.len()).unwrap_or(0));
        let busy = |hand: &&Hand| hand.runtime.metrics().num_alive_tasks();
        if let Some(hand) = last.iter().chain(first).min_by_key(busy) {
            sessions.spawn_on(session, &hand.runtime);
        }
    }
}

/// Threads of one hand for what blocks: files of the spool, of which far fewer are
/// worked on at once, and names that are looked up, which must leave room for them.
const HELPERS_MAX: usize = 128;

impl Hand {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HELPERS_MAX)
            .build()?;
        let (leave, left) = oneshot::channel();
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("sessions".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        // Nobody sends: it is dropped.
                        _ = left => {}
                        never = beat() => match never {},
                    }
                });
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            _leave: leave,
        })
    }
}

/// A timer that is always the next to fire: a runtime that sets an earlier one than
/// those it has wakes itself by a system call, and each reply that is awaited sets
/// one.
async fn beat() -> Infallible {
    loop {
        tokio::time::sleep(BEAT).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn sessions_are_spread_over_the_threads_and_end_with_them() {
        let crew = Crew::new().unwrap();
        let sessions = TaskTracker::new();
        let threads = Arc::new(Mutex::new(HashSet::new()));
        let hands = crew.hands.len();
        for _ in 0..hands {
            let threads = Arc::clone(&threads);
            let session = async move {
                threads.lock().unwrap().insert(thread::current().id());
                sleep(Duration::from_secs(3600)).await;
            };
            crew.run(session, &sessions);
        }
        while threads.lock().unwrap().len() < hands {
            sleep(Duration::from_millis(1)).await;
        }
        drop(crew);
        sessions.close();
        sessions.wait().await;
    }
}
