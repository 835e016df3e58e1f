//! Postfix as a proxy that stands before the queue (`smtpd_proxy_filter`).

use nix::unistd::Uid;

use super::{House, Kind, Peer, says};
use crate::door::Doors;
use crate::support::{Options, Postfix};

pub(super) fn version() -> Option<String> {
    // Only root can start one.
    if !Uid::effective().is_root() {
        return None;
    }
    let text = says("postconf", &["-d", "-h", "mail_version"])?;
    Some(text.trim().to_owned())
}

pub(super) fn start(house: &House) -> Peer {
    let extra = format!(
        "smtpd_proxy_filter = {}\n\
         smtpd_recipient_restrictions =\n\
         smtpd_tls_loglevel = 0\n",
        house.sink
    );
    let postfix = Postfix::start(Options {
        certificate: Some(&house.certificate),
        extra: &extra,
        ..Options::default()
    });
    let doors = Doors {
        plain: Some(postfix.address),
        starttls: Some(postfix.address),
        tls: Some(postfix.wrapped),
    };
    Peer::new(Kind::Postfix, doors, postfix.id(), postfix)
}
