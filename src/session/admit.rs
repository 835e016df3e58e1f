//! From an accepted connection to a client: PROXY header, TLS where it comes first.

use std::net::SocketAddr;

use super::client::Client;
use super::id::SessionId;
use super::journal::Journal;
use super::machine::Answer;
use super::refusal::Refusal;
use super::{Listener, Service};
use crate::proxy_protocol;
use crate::tls::Stream;

/// Tells a client that there is no room, without a session and without TLS:
/// where TLS comes first it is just closed.
pub async fn turn_away(
    service: &Service,
    stream: Box<dyn Stream>,
    listener: Listener,
    peer: SocketAddr,
) {
    let id = SessionId::next();
    let mut journal = Journal::new(id, listener, peer, service.log_addresses);
    journal.answered(&Answer::Refused(Refusal::Busy), None, None);
    if listener == Listener::Tls {
        return;
    }
    let mut client = new_client(service, stream);
    let mut reply = Refusal::Busy.reply();
    reply.append(&format!(" [{id}]"));
    let _ = client.say(&reply).await;
    client.close().await;
}

/// Why there is no session.
pub(super) struct NotAdmitted(pub(super) String);

/// True source and destination of a client's connection.
pub(super) type Addresses = (SocketAddr, SocketAddr);

/// Whose addresses they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The client's.
    Client,
    /// The balancer's, who does not say for whom it connects: in a health
    /// check, or on behalf of anybody. What its address may, this client may not.
    Balancer,
}

/// PROXY header, then TLS where it comes first.
pub(super) async fn admit(
    service: &Service,
    mut stream: Box<dyn Stream>,
    listener: Listener,
    mut addresses: Addresses,
    journal: &mut Journal,
) -> Result<(Client, Addresses, Source), NotAdmitted> {
    let mut source = Source::Client;
    if service.proxy_trusted.contains(addresses.0.ip()) {
        let header = proxy_protocol::read(&mut stream)
            .await
            .map_err(|error| NotAdmitted(error.to_string()))?;
        match header {
            Some(header) => {
                addresses = (header.source, header.destination);
                journal.client_is(header.source);
            }
            None => source = Source::Balancer,
        }
    }
    let mut client = new_client(service, stream);
    if listener == Listener::Tls {
        let tls = client
            .upgrade(&service.tls)
            .await
            .map_err(|error| NotAdmitted(error.to_string()))?;
        journal.encrypted(&tls);
    }
    Ok((client, addresses, source))
}

fn new_client(service: &Service, stream: Box<dyn Stream>) -> Client {
    Client::new(
        stream,
        service.settings.line_max.0,
        service.settings.timeout_command,
    )
}
