//! All rounds of all scenarios, and their medians.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::peers::Kind;

/// The rounds of one peer in one scenario, or why it has none.
pub type Rounds = Result<Vec<Cell>, String>;

#[derive(Default)]
pub struct Results {
    rounds: BTreeMap<(&'static str, Kind), Rounds>,
    /// Other figures by the name of what was measured.
    figures: BTreeMap<(&'static str, Kind), f64>,
}

impl Results {
    pub fn add(&mut self, scenario: &'static str, kind: Kind, cell: Result<Cell, String>) {
        let rounds = self
            .rounds
            .entry((scenario, kind))
            .or_insert_with(|| Ok(Vec::new()));
        match (rounds.as_mut(), cell) {
            (Ok(cells), Ok(cell)) => cells.push(cell),
            (Ok(_), Err(error)) => *rounds = Err(error),
            (Err(_), _) => {}
        }
    }

    pub fn add_figure(&mut self, name: &'static str, kind: Kind, figure: f64) {
        self.figures.insert((name, kind), figure);
    }

    pub fn figure(&self, name: &'static str, kind: Kind) -> Option<f64> {
        self.figures.get(&(name, kind)).copied()
    }

    pub fn rounds(&self, scenario: &'static str, kind: Kind) -> Option<&Rounds> {
        self.rounds.get(&(scenario, kind))
    }

    /// Whether this peer has failed in this scenario.
    pub fn failed(&self, scenario: &'static str, kind: Kind) -> bool {
        matches!(self.rounds(scenario, kind), Some(Err(_)))
    }

    /// The median of what `pick` picks.
    pub fn median(
        &self,
        scenario: &'static str,
        kind: Kind,
        pick: impl Fn(&Cell) -> Option<f64>,
    ) -> Option<f64> {
        let cells = self.rounds(scenario, kind)?.as_ref().ok()?;
        median(cells.iter().filter_map(pick).collect())
    }

    /// The median of the rounds' own ratios of `kind` to `other`.
    pub fn ratio(
        &self,
        scenario: &'static str,
        kind: Kind,
        other: Kind,
        pick: impl Fn(&Cell) -> Option<f64>,
    ) -> Option<f64> {
        let cells = |kind| self.rounds(scenario, kind)?.as_ref().ok();
        let pairs = cells(kind)?.iter().zip(cells(other)?);
        let ratios = pairs.filter_map(|(cell, other)| Some(pick(cell)? / pick(other)?));
        median(ratios.collect())
    }
}

pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2)?;
    let lower = figures.get((figures.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}
