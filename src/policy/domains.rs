//! `DOMAINS`: the recipient domains that are ours.

use std::collections::HashSet;

use crate::settings::{Value, expand_list};
use crate::smtp::path::{AddressLiteral, Domain, MailDomain};

/// A set of domains, subdomain wildcards and address literals. Domains are
/// compared in lower case as A-labels (RFC 5890), so both spellings of an
/// internationalised name are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainList {
    exact: HashSet<String>,
    /// Parents: `example.org` here stands for `*.example.org`.
    wildcards: HashSet<String>,
    literals: HashSet<AddressLiteral>,
}

impl DomainList {
    /// Whether `domain` is one of ours.
    pub fn contains(&self, domain: &MailDomain) -> bool {
        match domain {
            MailDomain::Literal(literal) => self.literals.contains(literal),
            MailDomain::Domain(domain) => domain
                .to_ascii_lowercase()
                .is_some_and(|name| self.contains_name(&name)),
        }
    }

    /// The domains that are named one by one, sorted, as A-labels in lower case.
    pub fn named(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.exact.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    fn contains_name(&self, name: &str) -> bool {
        let parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
        self.exact.contains(name)
            || parents
                .into_iter()
                .any(|(_, parent)| self.wildcards.contains(parent))
    }

    /// Whether no recipient at all is ours.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty() && self.literals.is_empty()
    }

    fn insert(&mut self, item: &str) -> Result<(), String> {
        if let Some(literal) = item
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let literal = AddressLiteral::parse(&format!("[{literal}]"))
                .map_err(|_| format!("has {item:?}, which is no address literal"))?;
            self.literals.insert(literal);
        } else if item == "*" {
            return Err(
                "has *, which would open a relay; to leave recipients to the backend say RELAY=backend"
                    .to_owned(),
            );
        } else if let Some(parent) = item.strip_prefix("*.") {
            self.wildcards.insert(canonical(parent)?);
        } else {
            self.exact.insert(canonical(item)?);
        }
        Ok(())
    }
}

fn canonical(name: &str) -> Result<String, String> {
    Domain::parse(name)
        .ok()
        .and_then(|domain| domain.to_ascii_lowercase())
        .ok_or_else(|| format!("has {name:?}, which is no domain name"))
}

impl Value for DomainList {
    fn parse(text: &str) -> Result<Self, String> {
        let mut list = Self::default();
        for item in expand_list(text)? {
            list.insert(&item)?;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_domain() {
        for bad in [
            "*",
            "a@example.org",
            "example.org.",
            "exa mple..org",
            "[300.1.1.1]",
            "*.*.org",
            "*foo.org",
        ] {
            assert!(DomainList::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_does_not_cover_its_parent() {
        let list = DomainList::parse("*.example.org").unwrap();
        assert!(list.contains_name("a.example.org"));
        assert!(!list.contains_name("example.org"));
        assert!(!list.contains_name("badexample.org"));
    }
}
