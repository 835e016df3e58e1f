//! From an accepted connection to a client: PROXY header, limits, TLS where it
//! comes first.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::client::Client;
use super::door::{self, Caller};
use super::journal::Journal;
use super::refusal::Refusal;
use super::{Listener, Service};
use crate::limits::Permit;
use crate::proxy_protocol;

/// Why there is no session.
pub(super) enum NotAdmitted {
    /// The client broke off or spoke nonsense.
    Failed(String),
    /// It was sent away, and that is in the log.
    TurnedAway,
}

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

/// A client that may begin its session.
pub(super) struct Admitted {
    pub(super) client: Client,
    pub(super) addresses: Addresses,
    pub(super) source: Source,
    pub(super) permit: Permit,
}

/// PROXY header, then TLS where it comes first.
pub(super) async fn admit(
    service: &Service,
    caller: Caller,
    journal: &mut Journal,
) -> Result<Admitted, NotAdmitted> {
    let Caller {
        stream,
        listener,
        peer,
        local,
        permit,
    } = caller;
    let mut stream =
        TcpStream::from_std(stream).map_err(|error| NotAdmitted::Failed(error.to_string()))?;
    let mut addresses = (peer, local);
    let mut source = Source::Client;
    if permit.is_none() {
        let header = proxy_protocol::read(&mut stream)
            .await
            .map_err(|error| NotAdmitted::Failed(error.to_string()))?;
        match header {
            Some(header) => {
                addresses = (header.source, header.destination);
                journal.client_is(header.source);
            }
            None => source = Source::Balancer,
        }
    }
    let permit = match source {
        // Nobody is named whom a limit could be for.
        Source::Balancer => Permit::default(),
        Source::Client => match door::admit(service, addresses.0.ip(), permit, journal).await {
            Ok(permit) => permit,
            Err(finding) => {
                let refusal = Refusal::Policy(finding);
                door::turn_away(service, &stream, listener, journal.clone(), refusal);
                return Err(NotAdmitted::TurnedAway);
            }
        },
    };
    let settings = &service.settings;
    let mut client = Client::new(
        Box::new(stream),
        settings.line_max.0,
        *settings.timeout_command,
    );
    if listener == Listener::Tls {
        let tls = client
            .upgrade(&service.tls)
            .await
            .map_err(|error| NotAdmitted::Failed(error.to_string()))?;
        journal.encrypted(&tls);
    }
    Ok(Admitted {
        client,
        addresses,
        source,
        permit,
    })
}
