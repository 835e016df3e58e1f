//! The tables, in Markdown, as they stand in the README.

use std::fs;
use std::process::Command;

use time::OffsetDateTime;

use super::peers::Kind;
use super::results::Results;
use super::scenario::{Handshake, Scenario, Work};

/// What was run where, when and with what.
pub fn heading(words: &str, rounds: usize, kinds: &[Kind]) -> String {
    let versions: Vec<String> = kinds
        .iter()
        .filter(|kind| **kind != Kind::Direct)
        .map(|kind| format!("{} {}", kind.name(), kind.version().unwrap_or_default()))
        .collect();
    format!(
        "`cargo bench --bench compare{words}`, {date}, {rounds} interleaved rounds; {machine}; {}.\n",
        versions.join(", "),
        date = OffsetDateTime::now_utc().date(),
        machine = machine(),
    )
}

fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = processors
        .lines()
        .filter(|line| line.starts_with("model name"));
    let model = models.next().and_then(|line| line.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = Command::new("uname").arg("-r").output();
    let kernel = kernel.map(|output| output.stdout).unwrap_or_default();
    let kernel = String::from_utf8_lossy(&kernel);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!(
        "{cores} cores of {model}, Linux {}, load {load} before it began",
        kernel.trim()
    )
}

/// The medians of one scenario.
pub fn scenario(scenario: &Scenario, kinds: &[Kind], results: &Results) -> String {
    let name = scenario.name;
    let unloaded = name.starts_with("unloaded");
    let resumed = matches!(scenario.work, Work::Handshakes(Handshake::Resumed));
    let unit = scenario.work.unit();
    let mut heads = vec![
        String::new(),
        format!("CPU µs of a {unit}"),
        "CPU of Portcullis to it".to_owned(),
        format!("{unit}s/s"),
        "p50 ms".to_owned(),
        "p99 ms".to_owned(),
    ];
    if unloaded {
        heads.push("39 ms or more".to_owned());
    }
    if resumed {
        heads.push("resumed".to_owned());
    }
    let mut rows = Vec::new();
    let mut failures = String::new();
    for &kind in kinds {
        if let Some(Err(error)) = results.rounds(name, kind) {
            failures.push_str(&format!("\n{} failed: {error}.\n", kind.name()));
        }
        if results.median(name, kind, |cell| Some(cell.rate)).is_none() {
            continue;
        }
        let of = |pick: fn(&super::cell::Cell) -> Option<f64>| results.median(name, kind, pick);
        let ratio = results.ratio(name, Kind::Portcullis, kind, |cell| cell.cpu);
        let mut row = vec![
            kind.name().to_owned(),
            figure(of(|cell| cell.cpu)),
            figure(ratio.filter(|_| kind != Kind::Portcullis)),
            whole(of(|cell| Some(cell.rate))),
            figure(of(|cell| Some(cell.p50))),
            figure(of(|cell| Some(cell.p99))),
        ];
        if unloaded {
            row.push(percent(of(|cell| Some(cell.stalled))));
        }
        if resumed {
            row.push(percent(of(|cell| Some(cell.resumed))));
        }
        rows.push(row);
    }
    let table = table(&heads, &rows);
    format!("### {}\n\n{table}{failures}", scenario.title)
}

pub fn table(heads: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(heads.len()));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(heads) + &rule + &rows
}

/// Three digits that count.
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 99.95 => format!("{value:.0}"),
        Some(value) if value >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn whole(value: Option<f64>) -> String {
    match value {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        value => figure(value),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", value * 100.0))
}
