//! How many of something each network has at this moment, counted exactly.
//!
//! A network that has none is not in the map, so the map is no larger than what
//! is counted. It never refuses by itself: who counts in says what is too many.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;
use ipnet::IpNet;

/// A count for each network.
#[derive(Default)]
pub(super) struct Counts(DashMap<IpNet, u32, RandomState>);

/// One in the counts of some networks; it is counted out when this is dropped.
pub(super) struct Stay {
    counts: Arc<Counts>,
    networks: Vec<IpNet>,
}

impl Counts {
    /// Every network with its count.
    pub(super) fn list(&self) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        self.0.iter().map(|entry| (*entry.key(), *entry.value()))
    }

    /// Networks that have any.
    pub(super) fn networks(&self) -> usize {
        self.0.len()
    }

    fn count_in<E>(
        &self,
        network: IpNet,
        admit: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.0.entry(network) {
            Entry::Vacant(vacant) => {
                admit(0)?;
                vacant.insert(1);
            }
            Entry::Occupied(mut occupied) => {
                admit(*occupied.get())?;
                *occupied.get_mut() += 1;
            }
        }
        Ok(())
    }

    fn count_out(&self, network: IpNet) {
        if let Entry::Occupied(mut occupied) = self.0.entry(network) {
            let left = occupied.get().saturating_sub(1);
            if left == 0 {
                occupied.remove();
            } else {
                *occupied.get_mut() = left;
            }
        }
    }
}

impl Stay {
    /// Counted nowhere yet.
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            networks: Vec::new(),
        }
    }

    /// Counts in a network too, if `admit` has nothing against it after so many
    /// others. Nobody else is counted in or out there while it decides.
    ///
    /// # Errors
    /// What it has against it.
    pub(super) fn enter<E>(
        &mut self,
        network: IpNet,
        admit: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<(), E> {
        self.counts.count_in(network, admit)?;
        self.networks.push(network);
        Ok(())
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        for network in &self.networks {
            self.counts.count_out(*network);
        }
    }
}
