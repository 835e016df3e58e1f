//! Lists: items between commas or white space.

use std::ops::Deref;

use super::Value;
use super::file::read_text;

/// Several values of one kind. An empty text and `off` are the empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Value> Value for List<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::default());
        }
        let item =
            |item| T::parse(item).map_err(|what| format!("has the item {item:?}, which {what}"));
        items(text).map(item).collect::<Result<_, _>>().map(Self)
    }
}

/// The items of a list as they are written.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    let separator = |c: char| c == ',' || c.is_whitespace();
    text.split(separator).filter(|item| !item.is_empty())
}

/// The file that an item stands for.
fn file_of(item: &str) -> Option<&str> {
    item.strip_prefix('@')
}

/// The files that the items of a list may stand for.
pub(super) fn files_in_list(text: &str) -> impl Iterator<Item = &str> {
    items(text).filter_map(file_of)
}

/// The items of a list in which `@/path` stands for the items in that file,
/// where `#` starts a comment. A file is not looked into for further files.
///
/// # Errors
/// Names the file that cannot be read.
pub fn expand_list(text: &str) -> Result<Vec<String>, String> {
    let mut expanded = Vec::new();
    for item in items(text) {
        let Some(path) = file_of(item) else {
            expanded.push(item.to_owned());
            continue;
        };
        let content = read_text(path)
            .map_err(|error| format!("names the file {path:?}, which cannot be read: {error}"))?;
        let lines = content.lines().filter_map(|line| line.split('#').next());
        expanded.extend(lines.flat_map(items).map(str::to_owned));
    }
    Ok(expanded)
}
