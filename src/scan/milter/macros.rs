//! The facts about a message that filters know as Sendmail's macros.
//!
//! Must never make up a value: a macro without one is not sent.

use crate::scan::Message;

/// The value of every macro in `names` that has one, in order. `recipient` is
/// the forward-path that the step is about.
pub(super) fn values<'n>(
    names: &[&'n str],
    message: &Message<'_>,
    recipient: Option<&str>,
) -> Vec<(&'n str, String)> {
    let known = |name: &&'n str| Some((*name, value(name, message, recipient)?));
    names.iter().filter_map(known).collect()
}

/// How filters are told the name of a client whose address has no name that is
/// known here.
pub(super) fn client_name(message: &Message<'_>) -> String {
    match message.client.map(|client| client.ip().to_canonical()) {
        Some(ip) if ip.is_ipv6() => format!("[IPv6:{ip}]"),
        Some(ip) => format!("[{ip}]"),
        None => "unknown".to_owned(),
    }
}

fn value(name: &str, message: &Message<'_>, recipient: Option<&str>) -> Option<String> {
    let bare = name
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'))
        .unwrap_or(name);
    let ip = message.client.map(|client| client.ip().to_canonical());
    match bare {
        "j" | "daemon_name" => Some(message.hostname.to_owned()),
        "i" => Some(message.id.to_owned()),
        "v" => Some(format!("Portcullis {}", env!("CARGO_PKG_VERSION"))),
        "r" => Some(message.protocol.to_owned()),
        "s" => Some(message.hello.to_owned()),
        "_" => ip.map(|_| client_name(message)),
        // As Postfix has it; Sendmail writes `IPv6:` before such an address.
        "client_addr" => ip.map(|ip| ip.to_string()),
        "client_name" => ip.map(|_| client_name(message)),
        "client_port" => message.client.map(|client| client.port().to_string()),
        "tls_version" => message.tls.map(|tls| tls.version.to_owned()),
        "cipher" => message.tls.map(|tls| tls.cipher.to_owned()),
        "auth_authen" => message.user.map(str::to_owned),
        // Filters take any value as a sign that the client has signed in; by
        // which mechanism is between the client and the backend.
        "auth_type" => message.is_authenticated().then(|| "unknown".to_owned()),
        "mail_addr" => Some(message.sender.to_owned()),
        "mail_host" => host(message.sender),
        "rcpt_addr" => recipient.map(str::to_owned),
        "rcpt_host" => recipient.and_then(host),
        _ => None,
    }
}

fn host(path: &str) -> Option<String> {
    path.rsplit_once('@').map(|(_, host)| host.to_owned())
}

#[cfg(test)]
mod tests;
