//! A family whose children all exist from the start.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::label::{Labels, Set};

/// One `M` for every value of `L`. Finding one is arithmetic; clones share them.
#[derive(Debug)]
pub struct Table<L, M> {
    children: Arc<[M]>,
    labels: std::marker::PhantomData<L>,
}

impl<L: Labels, M: Default> Default for Table<L, M> {
    fn default() -> Self {
        Self {
            children: L::all().map(|_| M::default()).collect(),
            labels: std::marker::PhantomData,
        }
    }
}

impl<L, M> Clone for Table<L, M> {
    fn clone(&self) -> Self {
        Self {
            children: Arc::clone(&self.children),
            labels: std::marker::PhantomData,
        }
    }
}

impl<L: Labels, M> Table<L, M> {
    /// The child with these labels.
    pub fn of(&self, labels: L) -> &M {
        match self.children.get(labels.place()) {
            Some(child) => child,
            None => unreachable!("places are below COUNT"),
        }
    }

    /// All children with their labels.
    pub fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::all().zip(self.children.iter())
    }
}

impl<L: Labels, M: EncodeMetric + TypedMetric> EncodeMetric for Table<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, child) in self.iter() {
            child.encode(encoder.encode_family(&Set(labels))?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
