//! The shape of the house, proved from the source: imports point down only, pure
//! rooms stay pure, files stay readable, the top level stays tidy.
//!
//! Rust allows cycles between modules, so nothing else would notice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top down. Rooms on one line are siblings; they never import
/// each other.
const ROOMS: &[&[&str]] = &[
    &["main"],
    &["demo"],
    &["check"],
    &["config"],
    &["server"],
    &["session"],
    &["scan", "reputation", "backend", "limits"],
    &["tls", "proxy_protocol", "spool", "reach"],
    &["policy"],
    &["smtp"],
    &["settings"],
    &["metrics"],
];

/// Files and folders below these know no network, no clock and no chance.
const PURE: &[&str] = &["policy", "smtp", "settings", "session/machine"];

const IMPURE: &[&str] = &[
    "tokio",
    "async",
    "await",
    "tracing",
    "Instant",
    "SystemTime",
    "OffsetDateTime",
    "now_utc",
    "sleep",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "rand",
    "RandomState",
];

/// Chance that is meant. `privacy::hash` draws the key of its process: without one
/// whoever has a log would find out the addresses in it by trying.
const EXEMPT: &[(&str, &str)] = &[("settings/privacy.rs", "RandomState")];

const LINES_MAX: usize = 450;

const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".deny.toml",
    ".dockerignore",
    ".git",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "certs",
    "docker",
    "src",
    "target",
    "tests",
];

#[test]
fn imports_point_down_only() {
    let offences: Vec<String> = sources().iter().flat_map(upward_imports).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_room_has_its_place_in_the_order() {
    let unknown: BTreeSet<String> = sources()
        .iter()
        .map(|source| source.room().to_owned())
        .filter(|room| room != "lib" && rank(room).is_none())
        .collect();
    assert!(unknown.is_empty(), "not in ROOMS: {unknown:?}");
}

#[test]
fn pure_rooms_know_no_network_no_clock_and_no_chance() {
    let sources = sources();
    let offences: Vec<String> = sources.iter().flat_map(impure_words).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
    for (path, word) in EXEMPT {
        let mut needed = sources.iter().filter(|source| source.path == *path);
        assert!(needed.any(|source| source.code.contains(word)), "{path}");
    }
}

#[test]
fn no_file_grows_beyond_reading() {
    for source in sources() {
        let lines = source.product_lines();
        let path = &source.path;
        assert!(
            lines <= LINES_MAX,
            "{path}: {lines} lines besides tests, {LINES_MAX} allowed"
        );
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for source in sources() {
        let path = &source.path;
        assert!(source.text.starts_with("//!"), "{path} has no `//!` header");
    }
}

#[test]
fn top_level_holds_only_the_agreed_entries() {
    let strange: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(strange.is_empty(), "not agreed upon: {strange:?}");
}

/// The tests above are only worth something if these offences are seen.
#[test]
fn catches_what_it_is_for() {
    let upward = |path: &str, text: &str| upward_imports(&Source::new(path, text)).len();
    assert_eq!(upward("smtp/line.rs", "use crate::session::Machine;"), 1);
    assert_eq!(
        upward("smtp/line.rs", "fn f() { crate::policy::judge() }"),
        1
    );
    assert_eq!(
        upward("backend/mod.rs", "use crate::{smtp::Reply, limits};"),
        1
    );
    assert_eq!(
        upward("backend/mod.rs", "use crate::{smtp::{a, limits}};"),
        0
    );
    assert_eq!(upward("backend/mod.rs", "use super::limits;"), 1);
    assert_eq!(
        upward("backend/a/b.rs", "use super::super::super::limits;"),
        1
    );
    assert_eq!(upward("backend/a/b.rs", "use super::super::limits;"), 0);
    assert_eq!(upward("tls/mod.rs", "pub(in crate::server) fn f() {}"), 1);
    assert_eq!(upward("session/mod.rs", "use crate::backend::Backend;"), 0);
    assert_eq!(
        upward(
            "smtp/line.rs",
            "// crate::session\nconst A: &str = \"crate::session\";"
        ),
        0
    );
    assert_eq!(
        upward(
            "smtp/line.rs",
            "#[cfg(test)]\nmod tests { use crate::session::M; }"
        ),
        0
    );
    assert_eq!(
        upward(
            "smtp/line.rs",
            "#[cfg(test)] mod tests; use crate::session::M;"
        ),
        1
    );

    let impure = |path: &str, text: &str| impure_words(&Source::new(path, text)).len();
    assert_eq!(impure("smtp/dot.rs", "async fn f() { g().await }"), 2);
    assert_eq!(impure("session/machine.rs", "use std::time::Instant;"), 1);
    assert_eq!(
        impure("session/machine/body.rs", "tracing::info!(\"x\")"),
        1
    );
    assert_eq!(impure("session/mod.rs", "use tokio::net::TcpStream;"), 0);
    assert_eq!(
        impure(
            "smtp/dot.rs",
            "fn random(grand: u8) {} // no tokio, no rand"
        ),
        0
    );
    assert_eq!(
        impure("smtp/dot.rs", "fn f<'a>(x: &'a str) { g('\"', \"rand\") }"),
        0
    );

    assert_eq!(
        impure("policy/mod.rs", "use std::hash::RandomState as Keys;"),
        1
    );
    assert_eq!(
        impure(
            "settings/privacy.rs",
            "fn f() { RandomState::new(); sleep(t) }"
        ),
        1
    );
    assert_eq!(
        impure(
            "smtp/reply.rs",
            "use time::OffsetDateTime; fn f() { T::now_utc() }"
        ),
        2
    );

    let long = "let a = 1;\n".repeat(LINES_MAX + 1);
    assert!(Source::new("smtp/dot.rs", &long).product_lines() > LINES_MAX);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(Source::new("smtp/dot.rs", &tested).product_lines(), 1);
}

/// One file of the product, by its path below `src/`.
struct Source {
    path: String,
    text: String,
    /// `text` without comments, literals and `#[cfg(test)]` items.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: cut_test_items(&blank_out(text), &blank_out(text)),
        }
    }

    /// The first part of the module path.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.trim_end_matches(".rs")
    }

    /// How deep the file's own module lies below the crate's root.
    fn depth(&self) -> usize {
        let depth = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") {
            depth - 1
        } else {
            depth
        }
    }

    fn product_lines(&self) -> usize {
        let kept = cut_test_items(&self.text, &blank_out(&self.text));
        kept.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// The files behind `#[cfg(test)] mod name;`, as prefixes of paths below `src/`.
    fn test_files(&self) -> Vec<String> {
        let folder = match self.path.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            None => self.path.trim_end_matches(".rs"),
        };
        let declared = self.text.split("#[cfg(test)]").skip(1);
        declared
            .filter_map(|item| item.trim_start().strip_prefix("mod "))
            .filter_map(|item| item.split_once(';'))
            .filter(|(name, _)| name.chars().all(is_word))
            .flat_map(|(name, _)| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")])
            .collect()
    }
}

/// All files of the product that are not tests.
fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut sources = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(&folder).unwrap().to_str().unwrap();
                sources.push(Source::new(below, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 5, "found no source to check");
    let tests: Vec<String> = sources.iter().flat_map(Source::test_files).collect();
    sources.retain(|source| !tests.iter().any(|test| source.path.starts_with(test)));
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|siblings| siblings.contains(&room))
}

/// What `source` imports from a room that is not below its own.
fn upward_imports(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some(own) = rank(room) else {
        return Vec::new();
    };
    let to_root = format!("{}::", vec!["super"; source.depth()].join("::"));
    ["crate::", &to_root]
        .iter()
        .flat_map(|prefix| names_behind(&source.code, prefix))
        .filter(|name| name != room && rank(name).is_some_and(|rank| rank <= own))
        .map(|name| format!("{}: {room} must not import from {name}", source.path))
        .collect()
}

/// The names that follow `prefix` in paths: `crate::a::b` has `a`, and
/// `crate::{a::b, c}` has `a` and `c`.
fn names_behind(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        // `super::x` inside `super::super::x` starts elsewhere.
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if is_word(before) || before == ':' {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(first_word(rest)),
            Some(group) => {
                let mut depth = 0;
                let own = |c: &char| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth >= 0
                };
                let group: String = group.chars().take_while(own).collect();
                names.extend(split_at_depth_zero(&group).map(first_word));
            }
        }
    }
    names
}

fn split_at_depth_zero(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    group.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    })
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| is_word(*c))
        .collect()
}

fn impure_words(source: &Source) -> Vec<String> {
    let is_pure = PURE.iter().any(|place| {
        let rest = source.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    });
    if !is_pure {
        return Vec::new();
    }
    source
        .code
        .split(|c| !is_word(c))
        .filter(|word| IMPURE.contains(word))
        .filter(|word| !EXEMPT.contains(&(source.path.as_str(), *word)))
        .map(|word| format!("{}: `{word}` in a pure room", source.path))
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Leaves out of `text` what `#[cfg(test)]` stands before: up to the end of the block
/// or to the semicolon. `code` is the same text without comments and literals.
fn cut_test_items(text: &str, code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut at = 0;
    while let Some(found) = code[at..].find(MARK) {
        let start = at + found;
        kept.push_str(&text[at..start]);
        let mut depth = 0;
        let end = code[start..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && (c == ';' || c == '}')
        });
        at = end.map_or(code.len(), |end| start + end + 1);
    }
    kept.push_str(&text[at..]);
    kept
}

/// `text` with every octet of a comment, string or character literal turned into a
/// space; line ends stay, so that both texts have the same positions.
fn blank_out(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut at = 0;
    while at < text.len() {
        let length = literal_length(&text.as_bytes()[at..], code[..at].last().copied());
        for octet in &mut code[at..at + length] {
            if *octet != b'\n' {
                *octet = b' ';
            }
        }
        // Octets beyond ASCII stand only in literals and comments, or in names.
        at += length.max(1);
    }
    String::from_utf8(code).unwrap()
}

/// The length of the comment or literal that begins here, 0 if none does.
fn literal_length(rest: &[u8], before: Option<u8>) -> usize {
    let until = |end: &[u8]| {
        let found = rest.windows(end.len()).position(|window| window == end);
        found.unwrap_or(rest.len())
    };
    let after_word = before.is_some_and(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
    match rest {
        [b'/', b'/', ..] => until(b"\n"),
        [b'/', b'*', ..] => (until(b"*/") + 2).min(rest.len()),
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !after_word || before == Some(b'b') => {
            let hashes = rest[1..].iter().take_while(|octet| **octet == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0; // A raw identifier: `r#type`.
            }
            let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = &rest[hashes + 2..];
            let found = body.windows(end.len()).position(|window| window == end);
            hashes + 2 + found.map_or(body.len(), |found| found + end.len())
        }
        [b'\'', b'\\', ..] => quoted_length(rest, b'\''),
        // A character is one to four octets; a lifetime has no closing quote.
        [b'\'', character, ..] if *character != b'\'' => {
            let width = match character {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0.. => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') {
                width + 2
            } else {
                0
            }
        }
        _ => 0,
    }
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(octet) = rest.get(at) {
        match octet {
            b'\\' => at += 2,
            octet if *octet == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}
