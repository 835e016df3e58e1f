//! A small honest SMTP server: it takes messages, says so, and forgets them.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::UNKNOWN_MAILBOX;
use crate::smtp::command::{Auth, AuthLine, Command, CommandError, Mail};
use crate::smtp::dot::{BareNewline, Decoder};
use crate::smtp::line::LineCutter;
use crate::smtp::path::ForwardPath;
use crate::smtp::reply::{EnhancedCode, Reply};

/// The user that can sign in.
pub const LOGIN: &str = "demo";

/// That user's password.
pub const PASSWORD: &str = "demo";

/// Largest message, octets.
const SIZE: usize = 50 * 1024 * 1024;

/// Longest line, octets; AUTH lines are the longest.
const LINE_MAX: usize = 12_288;

/// One conversation, to its end.
pub(super) async fn converse(stream: TcpStream) {
    let mut server = Server {
        stream,
        input: BytesMut::new(),
        cutter: LineCutter::new(),
        told: None,
        mail: None,
        recipients: Vec::new(),
    };
    // A peer that goes away in the middle is no event for an example.
    let _ = server.run().await;
}

struct Server {
    stream: TcpStream,
    input: BytesMut,
    cutter: LineCutter,
    /// What XCLIENT told of the client.
    told: Option<String>,
    mail: Option<Mail>,
    recipients: Vec<ForwardPath>,
}

/// The conversation is over.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Server {
    async fn run(&mut self) -> Result<(), Over> {
        self.say(220, None, "example server ready").await?;
        loop {
            let line = self.line().await?;
            if let Some(attributes) = line.strip_prefix(b"XCLIENT ") {
                self.told = Some(String::from_utf8_lossy(attributes).into_owned());
                self.reset();
                self.say(220, None, "example server ready").await?;
                continue;
            }
            match Command::parse(&line) {
                Ok(Command::Ehlo(_)) => self.offer().await?,
                Ok(Command::Helo(_)) => self.say(250, None, "example server").await?,
                Ok(Command::Auth(auth)) => self.sign_in(auth).await?,
                Ok(Command::Mail(mail)) => {
                    self.mail = Some(mail);
                    self.say(250, Some([2, 1, 0]), "sender ok").await?;
                }
                Ok(Command::Rcpt(_)) if self.mail.is_none() => {
                    self.say(503, Some([5, 5, 1]), "MAIL first").await?
                }
                Ok(Command::Rcpt(rcpt)) if is_unknown(&rcpt.to) => {
                    self.say(550, Some([5, 1, 1]), "no such mailbox here")
                        .await?;
                }
                Ok(Command::Rcpt(rcpt)) => {
                    self.recipients.push(rcpt.to);
                    self.say(250, Some([2, 1, 5]), "recipient ok").await?;
                }
                Ok(Command::Data) if self.recipients.is_empty() => {
                    self.say(503, Some([5, 5, 1]), "RCPT first").await?;
                }
                Ok(Command::Data) => self.body().await?,
                Ok(Command::Rset) => {
                    self.reset();
                    self.say(250, Some([2, 0, 0]), "ok").await?;
                }
                Ok(Command::Noop) => self.say(250, Some([2, 0, 0]), "ok").await?,
                Ok(Command::Quit) => {
                    self.say(221, Some([2, 0, 0]), "bye").await?;
                    return Err(Over);
                }
                Ok(_) | Err(CommandError::UnknownVerb | CommandError::ForbiddenVerb) => {
                    self.say(502, Some([5, 5, 1]), "not implemented").await?;
                }
                Err(error) => self.say(501, Some([5, 5, 4]), &error.to_string()).await?,
            }
        }
    }

    fn reset(&mut self) {
        self.mail = None;
        self.recipients.clear();
    }

    async fn offer(&mut self) -> Result<(), Over> {
        self.reset();
        let reply = format!(
            "250-example server\r\n250-SIZE {SIZE}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-AUTH PLAIN LOGIN\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n"
        );
        Ok(self.stream.write_all(reply.as_bytes()).await?)
    }

    async fn sign_in(&mut self, auth: Auth) -> Result<(), Over> {
        let good = match (auth.mechanism.as_str(), auth.initial) {
            ("PLAIN", Some(initial)) => {
                initial.decode() == Some(format!("\0{LOGIN}\0{PASSWORD}").into_bytes())
            }
            ("PLAIN", None) => self.ask("").await? == format!("\0{LOGIN}\0{PASSWORD}").into_bytes(),
            // "Username:" and "Password:" in base64.
            ("LOGIN", initial) => {
                let login = match initial {
                    Some(initial) => initial.decode().unwrap_or_default(),
                    None => self.ask("VXNlcm5hbWU6").await?,
                };
                let password = self.ask("UGFzc3dvcmQ6").await?;
                login == LOGIN.as_bytes() && password == PASSWORD.as_bytes()
            }
            _ => false,
        };
        if good {
            self.say(235, Some([2, 7, 0]), "signed in").await
        } else {
            self.say(535, Some([5, 7, 8]), "wrong name or password")
                .await
        }
    }

    async fn ask(&mut self, challenge: &str) -> Result<Vec<u8>, Over> {
        self.say(334, None, challenge).await?;
        let line = self.line().await?;
        match AuthLine::parse(&line) {
            Ok(AuthLine::Response(response)) => Ok(response.decode().unwrap_or_default()),
            Ok(AuthLine::Cancel) | Err(_) => Ok(Vec::new()),
        }
    }

    async fn body(&mut self) -> Result<(), Over> {
        self.say(354, None, "go ahead").await?;
        let mut decoder = Decoder::new(BareNewline::Reject, None);
        let mut content = Vec::new();
        loop {
            let decoded = decoder.decode(&self.input, &mut content);
            let _ = self.input.split_to(decoded.taken);
            if decoded.ended {
                break;
            }
            // Nothing of a message that is too large is kept.
            if content.len() > SIZE {
                content.clear();
                content.shrink_to_fit();
            }
            self.fill().await?;
        }
        if decoder.offence().is_some() || decoder.size() > SIZE as u64 {
            self.reset();
            return self.say(554, Some([5, 6, 0]), "message not taken").await;
        }
        self.report(&content);
        self.reset();
        self.say(250, Some([2, 0, 0]), "message taken").await
    }

    fn report(&self, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        let subject = text
            .lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix("Subject:"))
            .map_or("(none)", str::trim);
        let recipients: Vec<_> = self.recipients.iter().map(ToString::to_string).collect();
        tracing::info!(
            target: "example-server",
            from = %self.mail.as_ref().map(|mail| mail.from.to_string()).unwrap_or_default(),
            to = recipients.join(" "),
            subject,
            octets = content.len(),
            told = self.told.as_deref().unwrap_or("nothing"),
            "the example server has a message"
        );
    }

    async fn say(&mut self, code: u16, enhanced: Option<[u16; 3]>, text: &str) -> Result<(), Over> {
        let enhanced = enhanced.map(|[class, subject, detail]| EnhancedCode {
            class: u8::try_from(class).unwrap_or(5),
            subject,
            detail,
        });
        let reply = Reply::new(code, enhanced, text);
        Ok(self.stream.write_all(reply.to_string().as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<BytesMut, Over> {
        loop {
            match self.cutter.cut(&mut self.input, LINE_MAX) {
                Ok(Some(line)) => return Ok(line),
                Ok(None) => self.fill().await?,
                Err(_) => return Err(Over),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Over> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(Over),
            _ => Ok(()),
        }
    }
}

fn is_unknown(path: &ForwardPath) -> bool {
    matches!(path, ForwardPath::Mailbox { mailbox, .. } if mailbox.local.as_str() == UNKNOWN_MAILBOX)
}
