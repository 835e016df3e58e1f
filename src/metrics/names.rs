//! A family labelled with names that stand in the program's own source.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use foldhash::fast::FixedState;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::label::encode_label;

/// Children at most. The rooms above have some hundred names in all, so that
/// this is a bound on memory and never met.
const CHILDREN_MAX: usize = 1024;

/// One `M` for every combination of names that was ever used; rooms above need
/// not declare theirs here. A child appears with its first use. The table is
/// open-addressed and its entries never change, so finding one takes no lock.
#[derive(Debug)]
pub struct Names<const N: usize, M> {
    keys: [&'static str; N],
    slots: Arc<[OnceLock<Child<N, M>>]>,
    overflow: M,
}

type Child<const N: usize, M> = ([&'static str; N], M);

impl<const N: usize, M: Clone> Clone for Names<N, M> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys,
            slots: Arc::clone(&self.slots),
            overflow: self.overflow.clone(),
        }
    }
}

impl<const N: usize, M: Default> Names<N, M> {
    /// No children yet; `keys` are those of the labels.
    pub(super) fn new(keys: [&'static str; N]) -> Self {
        Self {
            keys,
            slots: (0..CHILDREN_MAX).map(|_| OnceLock::new()).collect(),
            overflow: M::default(),
        }
    }

    /// The child with these names.
    pub fn of(&self, names: [&'static str; N]) -> &M {
        let hash = FixedState::default().hash_one(names);
        let start = usize::try_from(hash % CHILDREN_MAX as u64).unwrap_or(0);
        let slots = self.slots.iter().cycle().skip(start).take(CHILDREN_MAX);
        for slot in slots {
            let (held, child) = slot.get_or_init(|| (names, M::default()));
            if *held == names {
                return child;
            }
        }
        &self.overflow
    }

    /// All children that were ever used.
    pub fn iter(&self) -> impl Iterator<Item = &([&'static str; N], M)> {
        self.slots.iter().filter_map(OnceLock::get)
    }
}

/// Keys and values of one child.
struct Pairs<'a, const N: usize>(&'a [&'static str; N], &'a [&'static str; N]);

impl<const N: usize> EncodeLabelSet for Pairs<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (key, value) in self.0.iter().zip(self.1) {
            encode_label(encoder, key, value)?;
        }
        Ok(())
    }
}

impl<const N: usize, M: EncodeMetric + TypedMetric> EncodeMetric for Names<N, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut children: Vec<_> = self.slots.iter().filter_map(OnceLock::get).collect();
        let is_full = children.len() == CHILDREN_MAX;
        children.sort_unstable_by_key(|(names, _)| *names);
        for (names, child) in children {
            child.encode(encoder.encode_family(&Pairs(&self.keys, names))?)?;
        }
        if is_full {
            let others = ["other"; N];
            let pairs = Pairs(&self.keys, &others);
            self.overflow.encode(encoder.encode_family(&pairs)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
