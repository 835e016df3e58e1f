//! The keywords of an EHLO reply (RFC 5321 4.1.1.1).
//!
//! Must never hold anything but well-formed keywords, so that a list from the
//! backend can be printed to a client.

use std::fmt;

use super::command::Mechanism;
use super::parameters::{is_keyword, parse_size};
use super::reply::Reply;

/// Keywords with their parameters, in order, each keyword once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keywords(Vec<(String, Vec<String>)>);

impl Keywords {
    /// No keywords.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the lines of a reply to EHLO but the first, which greets.
    ///
    /// A malformed line is left out: what is not understood is not offered.
    /// The old spelling `AUTH=LOGIN PLAIN` is merged into AUTH.
    pub fn parse(reply: &Reply) -> Self {
        let mut keywords = Self::new();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            let Some(first) = words.next() else { continue };
            match first.split_once('=') {
                Some((auth, mechanism)) if auth.eq_ignore_ascii_case("AUTH") => {
                    let mechanism = Some(mechanism).filter(|word| !word.is_empty());
                    keywords.merge("AUTH", mechanism.into_iter().chain(words));
                }
                _ => keywords.merge(first, words),
            }
        }
        keywords
    }

    /// Adds a keyword at the end, or replaces its parameters where it stands.
    ///
    /// Does nothing when the keyword is malformed or a parameter is anything
    /// but ASCII graphic characters.
    pub fn insert<T: AsRef<str>>(
        &mut self,
        keyword: &str,
        parameters: impl IntoIterator<Item = T>,
    ) {
        let parameters: Vec<String> = parameters
            .into_iter()
            .map(|parameter| parameter.as_ref().to_owned())
            .collect();
        if !is_keyword(keyword) || !parameters.iter().all(|text| is_parameter(text)) {
            return;
        }
        match self.find_mut(keyword) {
            Some(present) => *present = parameters,
            None => self.0.push((keyword.to_ascii_uppercase(), parameters)),
        }
    }

    /// Like `insert`, but keeps the parameters already there.
    fn merge<'a>(&mut self, keyword: &str, parameters: impl Iterator<Item = &'a str>) {
        let mut merged: Vec<String> = self.get(keyword).unwrap_or_default().to_vec();
        for parameter in parameters {
            if !merged.iter().any(|known| known == parameter) {
                merged.push(parameter.to_owned());
            }
        }
        self.insert(keyword, merged);
    }

    /// Takes a keyword out, if it is there.
    pub fn remove(&mut self, keyword: &str) {
        self.0
            .retain(|(known, _)| !known.eq_ignore_ascii_case(keyword));
    }

    /// The parameters of a keyword; `None` when it is not offered.
    pub fn get(&self, keyword: &str) -> Option<&[String]> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(keyword))
            .map(|(_, parameters)| parameters)
    }

    /// Whether a keyword is offered.
    pub fn contains(&self, keyword: &str) -> bool {
        self.get(keyword).is_some()
    }

    /// The keywords in upper case with their parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0
            .iter()
            .map(|(keyword, parameters)| (keyword.as_str(), parameters.as_slice()))
    }

    /// The longest message accepted, in octets (RFC 1870 3). `None` when SIZE
    /// is not offered, and also when it is offered without a fixed limit.
    pub fn size(&self) -> Option<u64> {
        let value = self.get("SIZE")?.first()?;
        parse_size(value).filter(|size| *size > 0)
    }

    /// The SASL mechanisms offered (RFC 4954 3).
    pub fn auth_mechanisms(&self) -> Vec<Mechanism> {
        let names = self.get("AUTH").unwrap_or_default();
        names
            .iter()
            .filter_map(|name| Mechanism::parse(name))
            .collect()
    }

    /// The attributes that XCLIENT may carry, in upper case.
    pub fn xclient_attributes(&self) -> Vec<String> {
        let names = self.get("XCLIENT").unwrap_or_default();
        names.iter().map(|name| name.to_ascii_uppercase()).collect()
    }

    /// What both offer: keywords of both, with the parameters of both. Of two
    /// sizes the smaller one counts.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for (keyword, parameters) in self.iter() {
            let Some(theirs) = other.get(keyword) else {
                continue;
            };
            if keyword == "SIZE" {
                let smaller = self.size().into_iter().chain(other.size()).min();
                both.insert(keyword, smaller.map(|size| size.to_string()));
            } else {
                both.insert(
                    keyword,
                    parameters.iter().filter(|one| theirs.contains(one)),
                );
            }
        }
        both
    }

    /// One line for each keyword, as it stands in a reply.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.iter().map(|(keyword, parameters)| {
            let mut line = keyword.to_owned();
            for parameter in parameters {
                line.push(' ');
                line.push_str(parameter);
            }
            line
        })
    }

    /// The reply to EHLO: `greeting` first (our name and a few words), then
    /// the keywords.
    pub fn to_reply(&self, greeting: &str) -> Reply {
        let greeting = std::iter::once(greeting.to_owned());
        Reply::multiline(250, None, greeting.chain(self.lines()))
    }

    fn find_mut(&mut self, keyword: &str) -> Option<&mut Vec<String>> {
        self.0
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(keyword))
            .map(|(_, parameters)| parameters)
    }
}

impl fmt::Display for Keywords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, line) in self.lines().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// ehlo-param (RFC 5321 4.1.1.1).
fn is_parameter(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
