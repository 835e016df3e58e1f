//! How people and replies look in the log: addresses as `LOG_ADDRESSES` says.

use std::net::{IpAddr, SocketAddr};

use super::Journal;
use crate::policy::Finding;
use crate::session::machine::Envelope;
use crate::session::refusal::Refusal;
use crate::settings::LogAddresses;
use crate::smtp::path::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;

impl Journal {
    pub(super) fn client(&self) -> String {
        match self.addresses {
            LogAddresses::Full => {
                SocketAddr::new(self.client.ip().to_canonical(), self.client.port()).to_string()
            }
            other => other.ip(self.client.ip()),
        }
    }

    pub(super) fn helo(&self) -> Option<&str> {
        let name = self.hello.as_ref()?.name.as_str();
        let is_address = || name.starts_with('[') || name.parse::<IpAddr>().is_ok();
        match self.addresses {
            LogAddresses::Full => Some(name),
            _ if is_address() => Some("[address]"),
            _ => Some(name),
        }
    }

    /// Most people sign in by their mailbox.
    pub(super) fn user(&self) -> Option<String> {
        let user = self.user.as_deref()?;
        Some(self.addresses.mailbox(user))
    }

    /// What the backend said. Its text likes to name the mailbox or the client
    /// that it refuses, so it is shown only where these are.
    pub(in crate::session) fn words(&self, reply: &Reply) -> String {
        match self.addresses {
            LogAddresses::Full => one_line(reply),
            _ => reply.codes(),
        }
    }

    /// What we said. What a limit says names the client's network.
    pub(super) fn ours(&self, refusal: &Refusal) -> String {
        let reply = refusal.reply();
        match refusal {
            Refusal::Policy(
                Finding::Rate { .. } | Finding::Crowd { .. } | Finding::Banned { .. },
            )
            | Refusal::SignInLater(_)
            | Refusal::Content { .. } => self.words(&reply),
            _ => one_line(&reply),
        }
    }

    /// Of an open transaction, or of one that never opened or is over.
    pub(super) fn sender(&self, envelope: Option<&Envelope>) -> Option<String> {
        let sender = envelope
            .map(Envelope::from)
            .or(self.sender_of_transaction());
        sender.map(|path| self.from(path))
    }

    pub(super) fn from(&self, path: &ReversePath) -> String {
        match path {
            ReversePath::Null => "<>".to_owned(),
            ReversePath::Mailbox(mailbox) => self.addresses.mailbox(&mailbox.to_string()),
        }
    }

    pub(super) fn to(&self, recipient: &ForwardPath) -> String {
        match recipient {
            ForwardPath::Postmaster => "postmaster".to_owned(),
            ForwardPath::Mailbox { mailbox, .. } => self.addresses.mailbox(&mailbox.to_string()),
        }
    }
}

pub(super) fn one_line(reply: &Reply) -> String {
    let mut line = reply.codes();
    for text in reply.lines() {
        line.push(' ');
        line.push_str(text);
    }
    line
}
