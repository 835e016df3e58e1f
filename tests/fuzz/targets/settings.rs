//! Any environment and any file either make a configuration or a list of
//! problems, a clean line each.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis::config;
use portcullis_fuzz::assert_one_line;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("portcullis-fuzz-{}.toml", std::process::id()))
});

// Lines `NAME=value`, and behind a line `---` the TOML file.
fuzz_target!(|text: &str| {
    // Whoever configures may name any file, an endless one too; not so here.
    if text.contains('@') || text.to_ascii_lowercase().contains("_file") {
        return;
    }
    let (environment, toml) = text.split_once("---\n").unwrap_or((text, ""));
    let mut variables: Vec<(String, String)> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name != "CONFIG")
        .map(|(name, value)| (format!("PORTCULLIS_{name}"), value.to_owned()))
        .collect();
    if !toml.is_empty() {
        std::fs::write(&*FILE, toml).unwrap();
        let file = FILE.display().to_string();
        variables.push(("PORTCULLIS_CONFIG".to_owned(), file));
    }
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    if let Err(problems) = config::load([], variables) {
        assert!(!problems.is_empty());
        for problem in problems.0 {
            assert_one_line(&problem.to_string());
        }
    }
});
