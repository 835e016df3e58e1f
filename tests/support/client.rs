//! A client that can say anything: whole commands, half commands, stray octets.
//!
//! It checks no certificate; that is the business of the tests that use curl.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::wait_for;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Smtp {
    wire: Wire,
    /// Octets that came behind the last reply line taken.
    unread: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Between the two, while the handshake owns the socket.
    Changing,
}

impl Smtp {
    pub fn connect(server: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, server)
    }

    /// Connects from an address of one's choice out of 127.0.0.0/8.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket
            .connect_timeout(&server.into(), PATIENCE)
            .unwrap_or_else(|error| panic!("cannot connect to {server}: {error}"));
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            wire: Wire::Plain(stream),
            unread: Vec::new(),
        }
    }

    /// Connects with TLS from the first octet (RFC 8314 3.3).
    #[track_caller]
    pub fn connect_tls(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.hand_shake();
        client
    }

    /// Connects, hears the greeting, says EHLO and hears the answer.
    #[track_caller]
    pub fn greeted(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.expect("220");
        client.ask("EHLO client.test", "250");
        client
    }

    /// One that has a place where there are few, and has got something done, so that it
    /// is not closed for being idle a second later. The visits that waited for the start
    /// of the program may still be on their way out.
    #[track_caller]
    pub fn admitted(server: SocketAddr) -> Self {
        wait_for(Duration::from_secs(10), || {
            let mut client = Self::connect(server);
            client.reply().starts_with("220").then_some(())?;
            client.ask("EHLO client.test", "250");
            let reply = client.deliver("a@sender.test", "b@example.org", b"\r\n");
            reply.starts_with("250").then_some(client)
        })
        .expect("never admitted")
    }

    /// Its own address, as the server sees it.
    pub fn address(&self) -> SocketAddr {
        self.stream().local_addr().unwrap()
    }

    fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref(),
            Wire::Changing => panic!("in the middle of a handshake"),
        }
    }

    /// How long a reply may take from now on, and writing to it.
    pub fn wait_up_to(&mut self, patience: Duration) {
        let stream = self.stream();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// STARTTLS, the handshake and the new EHLO that must follow it (RFC 3207 4.2).
    #[track_caller]
    pub fn start_tls(&mut self) {
        self.ask("STARTTLS", "220");
        self.hand_shake();
        self.ask("EHLO client.test", "250");
    }

    /// The TLS handshake by itself.
    #[track_caller]
    pub fn hand_shake(&mut self) {
        let Wire::Plain(mut stream) = std::mem::replace(&mut self.wire, Wire::Changing) else {
            panic!("already inside TLS");
        };
        let name = ServerName::try_from("mx.portcullis.test").unwrap();
        let mut session = ClientConnection::new(Arc::new(trusting_config()), name).unwrap();
        while session.is_handshaking() {
            session
                .complete_io(&mut stream)
                .unwrap_or_else(|error| panic!("TLS handshake: {error}"));
        }
        self.wire = Wire::Tls(Box::new(StreamOwned::new(session, stream)));
    }

    #[track_caller]
    pub fn send(&mut self, octets: &[u8]) {
        self.try_send(octets)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends what may well meet a closed connection.
    ///
    /// # Errors
    /// Whatever the socket says.
    pub fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(octets),
            Wire::Tls(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
            Wire::Changing => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Sends one command line.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes());
    }

    /// The next reply, all its lines joined by LF.
    #[track_caller]
    pub fn reply(&mut self) -> String {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let line = self
                .line()
                .unwrap_or_else(|error| panic!("no reply ({error}) after {lines:?}"));
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                return lines.join("\n");
            }
        }
    }

    /// The next reply; empty when the connection ends without one. One of them must come.
    #[track_caller]
    pub fn reply_or_end(&mut self) -> String {
        self.try_reply_or_end()
            .unwrap_or_else(|error| panic!("neither a reply nor the end: {error}"))
    }

    /// The same for who knows what to do if neither comes.
    ///
    /// # Errors
    /// Whatever the socket says, unless it is that the connection has ended.
    pub fn try_reply_or_end(&mut self) -> io::Result<String> {
        match self.line() {
            Ok(line) if line.as_bytes().get(3) == Some(&b'-') => {
                Ok(format!("{line}\n{}", self.reply()))
            }
            // Inside TLS what could not be written is tried again before a read.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                Ok(String::new())
            }
            other => other,
        }
    }

    /// The next reply, which must begin with `code`.
    #[track_caller]
    pub fn expect(&mut self, code: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(code), "expected {code}, heard `{reply}`");
        reply
    }

    /// One command and its reply.
    #[track_caller]
    pub fn ask(&mut self, line: &str, code: &str) -> String {
        self.say(line);
        let reply = self.reply();
        assert!(
            reply.starts_with(code),
            "`{line}`: expected {code}, heard `{reply}`"
        );
        reply
    }

    /// MAIL, RCPT and DATA up to the 354.
    #[track_caller]
    pub fn open_data(&mut self, sender: &str, recipient: &str) {
        self.ask(&format!("MAIL FROM:<{sender}>"), "250");
        self.ask(&format!("RCPT TO:<{recipient}>"), "250");
        self.ask("DATA", "354");
    }

    /// A whole transaction; the reply to the final dot.
    #[track_caller]
    pub fn deliver(&mut self, sender: &str, recipient: &str, message: &[u8]) -> String {
        self.open_data(sender, recipient);
        self.send(&super::dot_stuffed(message));
        self.reply()
    }

    /// All that comes until the other side closes. It must close.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut all = std::mem::take(&mut self.unread);
        loop {
            match self.read() {
                Ok(octets) if octets.is_empty() => break,
                Ok(octets) => all.extend(octets),
                // TLS without close_notify, or a reset because it did not read all of ours.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("was not closed ({error}) after {:?}", text(&all)),
            }
        }
        text(&all)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                return Ok(text(&line));
            }
            let octets = self.read()?;
            if octets.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend(octets);
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 4096];
        let length = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut buffer)?,
            Wire::Tls(stream) => stream.read(&mut buffer)?,
            Wire::Changing => return Err(ErrorKind::NotConnected.into()),
        };
        Ok(buffer[..length].to_vec())
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// For clients that check no certificate.
pub fn trusting_config() -> ClientConfig {
    trusting_config_of(default_provider())
}

/// For clients that check no certificate and do their cryptography like this.
pub fn trusting_config_of(provider: CryptoProvider) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth()
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
