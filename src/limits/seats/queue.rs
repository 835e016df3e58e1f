//! Who waits for a connection to the guarded server, and who is next.
//!
//! By networks, not by who came first: where a few clients ask for one again and
//! again, hundreds at once, all others would wait behind them. Whose networks have
//! the fewest, those that they wait for counted in, is next; among equals it is who
//! came first. A network wider than a client weighs less (`PREFIX_FACTOR`), but not
//! nothing: else the many networks of one provider would be before a stranger.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::oneshot;

use super::super::counts::{Counts, Stay};

/// The connections that there may be, those that there are, and who waits for one.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Of each network, those it has and those it waits for.
    counts: Arc<Counts>,
    factor: NonZeroU32,
}

struct State {
    most: u32,
    given: u32,
    /// How many have had to wait so far.
    numbers: u64,
    waiting: BTreeMap<Number, oneshot::Sender<Given>>,
}

/// Whose turn is first: by rank, then by arrival.
type Number = (u32, u64);

/// What a connection of a client's own network weighs; one of a wider network less, and
/// what is left of it is cut off: so a few there make no difference.
const OWN: u32 = 4;

/// What comes of asking for a connection.
pub(super) enum Turn {
    /// Here it is.
    Now(Ticket),
    /// It will be, perhaps.
    Later(Waiting),
}

/// A connection that may be opened; dropping it lets somebody else open one.
pub(super) struct Ticket {
    rank: u32,
    _stay: Stay,
    _given: Given,
}

/// A turn to come; dropping it gives it up.
pub(super) struct Waiting {
    queue: Arc<Queue>,
    number: Number,
    /// Until the turn is here.
    stay: Option<Stay>,
    given: oneshot::Receiver<Given>,
}

/// One of those that there are.
struct Given(Arc<Queue>);

impl Queue {
    pub(super) fn new(most: NonZeroU32, factor: NonZeroU32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                most: most.get(),
                given: 0,
                numbers: 0,
                waiting: BTreeMap::new(),
            }),
            counts: Arc::default(),
            factor,
        })
    }

    /// From now on so many; what is too much goes as it ends.
    pub(super) fn resize(self: &Arc<Self>, most: NonZeroU32) {
        self.state().most = most.get();
        while self.serve_next(self.state()) {}
    }

    /// Asks for one for a client that is counted in `networks`, its own first.
    pub(super) fn join(self: &Arc<Self>, networks: &[IpNet]) -> Turn {
        let (stay, rank) = self.count_in(networks);
        let mut state = self.state();
        if state.given < state.most {
            state.given += 1;
            drop(state);
            return Turn::Now(Ticket {
                rank,
                _stay: stay,
                _given: Given(Arc::clone(self)),
            });
        }
        let (sender, given) = oneshot::channel();
        let number = (rank, state.numbers);
        state.numbers += 1;
        state.waiting.insert(number, sender);
        Turn::Later(Waiting {
            queue: Arc::clone(self),
            number,
            stay: Some(stay),
            given,
        })
    }

    /// What the fullest of its networks has already, by weight.
    fn count_in(&self, networks: &[IpNet]) -> (Stay, u32) {
        let (mut stay, mut rank, mut parts) = (Stay::new(&self.counts), 0, 1_u32);
        for network in networks {
            let Ok(()) = stay.enter(*network, |here| {
                let weight = here.saturating_mul(OWN).checked_div(parts);
                rank = rank.max(weight.unwrap_or_default());
                Ok::<_, Infallible>(())
            });
            parts = parts.saturating_mul(self.factor.get());
        }
        (stay, rank)
    }

    /// Gives one that is free to who is next; tells whether it did.
    fn serve_next(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        if state.given >= state.most {
            return false;
        }
        let Some((_, next)) = state.waiting.pop_first() else {
            return false;
        };
        state.given += 1;
        drop(state);
        // Where nobody waits there any more it comes back at once.
        drop(next.send(Given(Arc::clone(self))));
        true
    }

    /// Whether it knows no network and nobody who waits.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.counts.networks() == 0 && self.state().waiting.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.given = state.given.saturating_sub(1);
        self.0.serve_next(state);
    }
}

impl Ticket {
    /// How many the fullest network of its client had when it asked, by weight; this one
    /// not counted.
    pub(super) fn share(&self) -> u32 {
        self.rank / OWN
    }
}

impl Waiting {
    /// Returns when the turn is here.
    pub(super) async fn over(mut self) -> Option<Ticket> {
        let given = (&mut self.given).await.ok()?;
        Some(Ticket {
            rank: self.number.0,
            _stay: self.stay.take()?,
            _given: given,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.queue.state().waiting.remove(&self.number);
    }
}
