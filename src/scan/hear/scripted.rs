//! A scanner on loopback that does what a real one will not: for one
//! connection, step by step.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::scan::{Message, ServiceAddress};
use crate::settings::{Size, Value};
use crate::spool::{Body, Settings, Spool};

/// One step of a scripted scanner.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan) enum Act {
    /// Reads at least so many octets.
    Hear(usize),
    /// Reads until what came ends like this.
    HearUntil(&'static [u8]),
    /// Reads until the client has shut down its side.
    HearAll,
    Say(&'static [u8]),
    /// Says this again and again until the client hangs up.
    Repeat(&'static [u8]),
    /// Lets what was said arrive.
    Pause,
    /// Says no more, and keeps the connection.
    Shut,
    /// Does nothing for longer than anybody should wait.
    Stall,
    /// Closes with RST.
    Reset,
}

/// Takes one connection, and closes it when all is done. The task returns what
/// it heard.
pub(in crate::scan) async fn peer(
    acts: impl Into<Vec<Act>>,
) -> (ServiceAddress, JoinHandle<Vec<u8>>) {
    let acts = acts.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        for act in acts {
            perform(act, &mut stream, &mut heard).await;
        }
        heard
    });
    (ServiceAddress::parse(&address).unwrap(), task)
}

async fn perform(act: Act, stream: &mut TcpStream, heard: &mut Vec<u8>) {
    match act {
        Act::Hear(octets) => {
            let enough = heard.len() + octets;
            while heard.len() < enough && stream.read_buf(heard).await.unwrap() > 0 {}
        }
        Act::HearUntil(end) => {
            while !heard.ends_with(end) && stream.read_buf(heard).await.unwrap() > 0 {}
        }
        Act::HearAll => while stream.read_buf(heard).await.unwrap() > 0 {},
        Act::Say(octets) => stream.write_all(octets).await.unwrap(),
        Act::Repeat(octets) => while stream.write_all(octets).await.is_ok() {},
        Act::Pause => tokio::time::sleep(Duration::from_millis(50)).await,
        Act::Shut => stream.shutdown().await.unwrap(),
        Act::Stall => tokio::time::sleep(Duration::from_secs(60)).await,
        Act::Reset => socket2::SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap(),
    }
}

/// A body of one's choice, in a file if it is large.
pub(in crate::scan) async fn hold(octets: &[u8]) -> Body {
    let spool = Spool::new(&Settings {
        spool_buffer: Size(64 << 10),
        ..Settings::default()
    });
    let mut writer = spool.unwrap().begin();
    writer.write(octets).await.unwrap();
    writer.finish().await.unwrap()
}

pub(in crate::scan) fn message<'a>(trace: &'a [u8], body: &'a Body) -> Message<'a> {
    Message {
        client: None,
        hello: "client.test",
        protocol: "ESMTP",
        user: None,
        tls: None,
        sender: "ann@sender.test",
        recipients: &[],
        id: "test",
        hostname: "mx.example.org",
        trace,
        hop: trace,
        body,
    }
}
