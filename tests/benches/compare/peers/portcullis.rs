//! Portcullis, the release build, with its log in a file at the default level. It tells
//! the sink nothing of the client (`CLIENT_INFO=none`), as HAProxy and nginx do not.

use super::{House, Kind, Limits, Peer};
use crate::door::Doors;
use crate::support::Portcullis;

pub(super) fn start(house: &House, limits: Limits) -> Peer {
    let chain = house.certificate.chain.display().to_string();
    let key = house.certificate.key.display().to_string();
    let mut settings = vec![
        ("TLS_CERT", chain.as_str()),
        ("TLS_KEY", &key),
        ("CLIENT_INFO", "none"),
        // The others know no bound; five thousand idle sessions hold a connection each.
        ("BACKEND_CONN_MAX", "off"),
    ];
    if limits == Limits::On {
        // Connections count at the default rate, as they do with HAProxy, which knows
        // nothing of messages and recipients.
        let nobody = [
            ("LIMIT_EXEMPT", "192.0.2.1"),
            ("MSG_RATE", "off"),
            ("RCPT_RATE", "off"),
        ];
        settings.extend(nobody);
    }
    let portcullis = Portcullis::guarding(house.sink, &settings);
    portcullis.wait_for_keywords();
    let doors = Doors {
        plain: Some(portcullis.mx),
        starttls: Some(portcullis.mx),
        tls: Some(portcullis.tls),
    };
    Peer::new(Kind::Portcullis, doors, portcullis.id(), portcullis)
}
