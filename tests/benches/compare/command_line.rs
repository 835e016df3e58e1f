//! What is asked for behind `cargo bench --bench compare --`.

use std::time::Duration;

use super::peers::Kind;

const USAGE: &str = "\
cargo bench --bench compare -- [--quick] [--rounds N] [--seconds S] [--only NAME,...] [--peers NAME,...] [--list]
  --quick     fewer and shorter rounds, fewer idle sessions: some three minutes
  --rounds    rounds of each scenario (5)
  --seconds   seconds of each peer in a round (1.5)
  --only      scenarios, by name or by the beginning of names (all)
  --peers     peers (all that are installed)
  --list      print the names and end";

pub struct CommandLine {
    pub list: bool,
    pub rounds: usize,
    pub time: Duration,
    /// Idle sessions.
    pub sessions: usize,
    pub only: Vec<String>,
    pub peers: Vec<Kind>,
    /// As they were given, for the heading.
    pub words: String,
}

impl CommandLine {
    /// # Errors
    /// What is wrong, and what may be said.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        // Cargo says so to every bench.
        let words: Vec<String> = words.filter(|word| word != "--bench").collect();
        let quick = words.iter().any(|word| word == "--quick");
        let mut read = Self {
            list: false,
            rounds: if quick { 2 } else { 5 },
            time: Duration::from_millis(if quick { 700 } else { 1500 }),
            sessions: if quick { 1000 } else { 5000 },
            only: Vec::new(),
            peers: Kind::ALL.to_vec(),
            words: match words.as_slice() {
                [] => String::new(),
                words => format!(" -- {}", words.join(" ")),
            },
        };
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let mut value = || {
                rest.next()
                    .ok_or_else(|| format!("{word} wants a value\n{USAGE}"))
            };
            match word.as_str() {
                "--quick" => {}
                "--list" => read.list = true,
                "--rounds" => read.rounds = number(value()?)?,
                "--seconds" => read.time = Duration::from_secs_f64(number(value()?)?),
                "--only" => read.only = value()?.split(',').map(str::to_owned).collect(),
                "--peers" => {
                    read.peers = value()?.split(',').map(kind).collect::<Result<_, _>>()?
                }
                _ => return Err(format!("{word}?\n{USAGE}")),
            }
        }
        Ok(read)
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|start| name.starts_with(start.as_str()))
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{word} is no number\n{USAGE}"))
}

fn kind(word: &str) -> Result<Kind, String> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kind.word() == word).ok_or_else(|| {
        let words = Kind::ALL.map(Kind::word).join(", ");
        format!("no peer is called {word}; they are {words}")
    })
}
