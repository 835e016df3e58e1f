//! The trace header field (RFC 5321 4.4) for backends that learn of the
//! client in no better way.

use std::net::{IpAddr, SocketAddr};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::machine::{Envelope, Hello, Identity, Privacy, Protocol};
use crate::smtp::path::ForwardPath;
use crate::tls::TlsDetails;

/// What a trace header field tells.
pub(super) struct Trace<'a> {
    pub(super) client: SocketAddr,
    pub(super) hello: &'a Hello,
    pub(super) privacy: Privacy,
    pub(super) tls: Option<&'a TlsDetails>,
    pub(super) identity: Option<&'a Identity>,
    pub(super) hostname: &'a str,
    pub(super) id: &'a str,
    pub(super) envelope: &'a Envelope,
    pub(super) date: OffsetDateTime,
}

impl Trace<'_> {
    /// The field with its final CRLF. All values in it are typed, and none can
    /// hold CR, LF or, outside quotes and brackets, a parenthesis.
    pub(super) fn field(&self) -> String {
        let literal = match self.client.ip().to_canonical() {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let tls = self
            .tls
            .map(|tls| format!("\r\n\t(using {} with cipher {})", tls.version, tls.cipher))
            .unwrap_or_default();
        // One recipient only: the others of a message must not learn of each other (RFC 5321 7.2).
        // The backend did not hear of a source route either (RFC 5321 F.2).
        let recipient = match self.envelope.recipients.as_slice() {
            [ForwardPath::Mailbox { mailbox, .. }] => format!("\r\n\tfor <{mailbox}>"),
            [ForwardPath::Postmaster] => format!("\r\n\tfor {}", ForwardPath::Postmaster),
            _ => String::new(),
        };
        // Fails for years beyond 9999 only; then the field is better without a date than missing.
        let date = self.date.format(&Rfc2822).unwrap_or_default();
        format!(
            "Received: from {} ({literal}){tls}\r\n\tby {} (Portcullis) with {} id {}{recipient};\r\n\t{date}\r\n",
            self.hello.name,
            self.hostname,
            protocol(self.hello, self.envelope, self.privacy, self.identity),
            self.id,
        )
    }
}

/// RFC 3848 and RFC 6531 4.3.
pub(super) fn protocol(
    hello: &Hello,
    envelope: &Envelope,
    privacy: Privacy,
    identity: Option<&Identity>,
) -> &'static str {
    let utf8 = envelope.mail.parameters.smtputf8;
    match (hello.protocol, utf8, privacy, identity) {
        (Protocol::Smtp, ..) => "SMTP",
        (Protocol::Esmtp, false, Privacy::Clear, None) => "ESMTP",
        (Protocol::Esmtp, false, Privacy::Clear, Some(_)) => "ESMTPA",
        (Protocol::Esmtp, false, Privacy::Encrypted, None) => "ESMTPS",
        (Protocol::Esmtp, false, Privacy::Encrypted, Some(_)) => "ESMTPSA",
        (Protocol::Esmtp, true, Privacy::Clear, None) => "UTF8SMTP",
        (Protocol::Esmtp, true, Privacy::Clear, Some(_)) => "UTF8SMTPA",
        (Protocol::Esmtp, true, Privacy::Encrypted, None) => "UTF8SMTPS",
        (Protocol::Esmtp, true, Privacy::Encrypted, Some(_)) => "UTF8SMTPSA",
    }
}

#[cfg(test)]
mod tests;
