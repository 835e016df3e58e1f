//! What Portcullis is meant to reach, and whether it did in this run.

use super::cell::Cell;
use super::peers::Kind;
use super::report::{self, figure};
use super::results::Results;
use super::{flood, scenario};

/// A goal, the figure, and the most (or least) that it may be.
struct Goal {
    what: String,
    measured: Option<f64>,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn row(&self) -> Option<Vec<String>> {
        let measured = self.measured?;
        let (met, bound) = match self.bound {
            Bound::AtMost(bound) => (measured <= bound, format!("≤ {bound}")),
            Bound::AtLeast(bound) => (measured >= bound, format!("≥ {bound}")),
        };
        let verdict = if met { "met" } else { "not met" };
        let row = [&self.what, &bound, &figure(Some(measured)), verdict];
        Some(row.map(|cell| cell.to_string()).to_vec())
    }
}

/// The table of those that were measured.
pub fn table(results: &Results) -> String {
    let rows: Vec<Vec<String>> = all(results).iter().filter_map(Goal::row).collect();
    let heads = ["goal", "bound", "measured", ""].map(str::to_owned);
    format!("### Goals\n\n{}", report::table(&heads, &rows))
}

fn all(results: &Results) -> Vec<Goal> {
    let ours = Kind::Portcullis;
    let mut goals = Vec::new();
    let mut goal = |what: &str, measured, bound| {
        let what = what.to_owned();
        goals.push(Goal {
            what,
            measured,
            bound,
        });
    };
    let cpu = |name| results.ratio(name, ours, Kind::Haproxy, |cell| cell.cpu);
    for (name, what, bound) in [
        (
            "plain-10",
            "4 KiB plain, ten per session: CPU to HAProxy's",
            1.0,
        ),
        (
            "pipelined",
            "pipelined, five recipients: CPU to HAProxy's",
            1.3,
        ),
        (
            "tls-1",
            "implicit TLS, one per session: CPU to HAProxy's",
            0.55,
        ),
        (
            "tls-10",
            "implicit TLS, ten per session: CPU to HAProxy's",
            0.55,
        ),
        ("large-plain", "10 MiB plain: CPU to HAProxy's", 1.05),
        ("large-tls", "10 MiB TLS: CPU to HAProxy's", 0.8),
    ] {
        goal(what, cpu(name), Bound::AtMost(bound));
    }
    let rate = |cell: &Cell| Some(cell.rate);
    let starttls = results.ratio("starttls-1", ours, Kind::Nginx, rate);
    goal(
        "STARTTLS, one per session: messages/s to nginx's",
        starttls,
        Bound::AtLeast(4.0),
    );
    let p50 = |cell: &Cell| Some(cell.p50);
    let unloaded = results.ratio("unloaded-plain", ours, Kind::Direct, p50);
    goal(
        "one session at a time, plain: p50 to direct",
        unloaded,
        Bound::AtMost(1.15),
    );
    let unloaded = scenario::all()
        .into_iter()
        .filter(|each| each.name.starts_with("unloaded"));
    let stalled = unloaded
        .filter_map(|each| results.median(each.name, ours, |cell| Some(cell.stalled * 100.0)));
    let stalled = stalled.reduce(f64::max);
    goal(
        "one session at a time: % of messages that took 39 ms or more",
        stalled,
        Bound::AtMost(0.1),
    );
    let heaviest = |names: [&'static str; 2]| {
        let weights = names
            .into_iter()
            .filter_map(|name| results.figure(name, ours));
        weights.reduce(f64::max)
    };
    let plain = heaviest(["plain, EHLO", "plain, RCPT"]);
    let tls = heaviest(["TLS, EHLO", "TLS, RCPT"]);
    let starttls = heaviest(["STARTTLS, EHLO", "STARTTLS, RCPT"]);
    goal(
        "idle session in plain text, the heavier: KiB",
        plain,
        Bound::AtMost(6.0),
    );
    goal(
        "idle session in implicit TLS, the heavier: KiB",
        tls,
        Bound::AtMost(16.0),
    );
    goal(
        "idle session after STARTTLS, the heavier: KiB",
        starttls,
        Bound::AtMost(16.0),
    );
    let abusive = results.figure(flood::CPU, ours);
    goal(
        "CPU µs of an abusive connection",
        abusive,
        Bound::AtMost(17.0),
    );
    let theirs = results.figure(flood::CPU, Kind::Haproxy);
    let ratio = abusive.zip(theirs).map(|(ours, theirs)| ours / theirs);
    goal(
        "CPU of an abusive connection to HAProxy's",
        ratio,
        Bound::AtMost(1.0),
    );
    let slowed = results.figure(flood::SLOWED, ours);
    goal(
        "good client's p99 beside the flood to alone",
        slowed,
        Bound::AtMost(2.0),
    );
    goals
}
