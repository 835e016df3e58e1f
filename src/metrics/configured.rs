//! A family labelled with what the configuration names: a backend, a scanner,
//! a certificate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::label::{Labels, encode_label};
use super::table::Table;

/// A [`Table`] for each name. Whoever bears a name gets its table once and keeps
/// it; only that takes a lock.
#[derive(Debug)]
pub struct Configured<L, M> {
    key: &'static str,
    tables: Arc<RwLock<Tables<L, M>>>,
}

type Tables<L, M> = BTreeMap<String, Table<L, M>>;

impl<L, M> Clone for Configured<L, M> {
    fn clone(&self) -> Self {
        Self {
            key: self.key,
            tables: Arc::clone(&self.tables),
        }
    }
}

impl<L: Labels, M: Default> Configured<L, M> {
    /// No names yet; `key` is the label's.
    pub(super) fn new(key: &'static str) -> Self {
        Self {
            key,
            tables: Arc::default(),
        }
    }

    /// The table of this name, which must be ours and not a peer's.
    pub fn named(&self, name: &str) -> Table<L, M> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.entry(name.to_owned()).or_default().clone()
    }

    /// All names with their tables.
    pub fn all(&self) -> Vec<(String, Table<L, M>)> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.iter();
        tables
            .map(|(name, table)| (name.clone(), table.clone()))
            .collect()
    }

    /// Forgets the names that are no longer known, for a configuration that changed.
    pub fn keep(&self, is_known: impl Fn(&str) -> bool) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|name, _| is_known(name));
    }
}

/// The name, then the labels of its table.
struct Named<'a, L> {
    key: &'static str,
    name: &'a str,
    labels: L,
}

impl<L: Labels> EncodeLabelSet for Named<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        encode_label(encoder, self.key, self.name)?;
        self.labels.encode(encoder)
    }
}

impl<L: Labels, M: EncodeMetric + TypedMetric> EncodeMetric for Configured<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        for (name, table) in tables.iter() {
            for (labels, child) in table.iter() {
                let key = self.key;
                let set = Named { key, name, labels };
                child.encode(encoder.encode_family(&set)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
