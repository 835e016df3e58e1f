//! A client that plays a script of commands, and a model of what it may believe: what
//! it was told yes to, and nothing else.

use std::net::SocketAddr;

use super::{Smtp, dot_stuffed};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Commands that are sent in one write.
pub type Group = Vec<Command>;

#[derive(Clone, Copy, Debug)]
pub enum Command {
    Ehlo,
    Helo,
    StartTls,
    /// With the right password, or a wrong one.
    SignIn(bool),
    /// With these parameters, from a sender that no other MAIL has.
    Mail(&'static str),
    /// A recipient that no other RCPT has.
    Rcpt,
    ForeignRcpt,
    Data(Body),
    Bdat(Chunk),
    Rset,
    Noop,
    Quit,
    HangUp,
}

#[derive(Clone, Copy, Debug)]
pub enum Body {
    Good,
    /// With a bare LF.
    Bad,
    HalfThenGone,
    /// The client leaves without having heard the reply.
    WholeThenGone,
}

#[derive(Clone, Copy, Debug)]
pub enum Chunk {
    More,
    Last,
    EmptyLast,
    /// With a bare LF.
    Bad,
    HalfThenGone,
    /// The client leaves without having heard the reply.
    LastThenGone,
}

/// The right one.
pub const PASSWORD: &str = "open sesame";

/// A message as the client sent it.
#[derive(Clone, Debug, Default)]
pub struct Letter {
    pub hello: String,
    /// Who had signed in.
    pub user: Option<String>,
    pub sender: String,
    /// Of MAIL.
    pub parameters: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
    /// Sent by BDAT.
    pub in_chunks: bool,
}

pub struct Actor {
    server: SocketAddr,
    name: String,
    smtp: Option<Smtp>,
    /// For names that are used once.
    count: u32,
    /// The hello in force.
    hello: Option<String>,
    is_private: bool,
    /// Who has signed in.
    user: Option<String>,
    letter: Option<Letter>,
    /// Something of the transaction was refused; a server may have given it up.
    damaged: bool,
    chunks: usize,
    /// Commands that it heard a yes to.
    pub promised: Vec<String>,
    /// Messages that it sent to their end, in good order.
    pub ended: Vec<Letter>,
    /// Those of them that it heard a yes to.
    pub acknowledged: Vec<Letter>,
    /// Senders of those that it heard a no to, or nothing although it waited.
    pub refused: Vec<String>,
    /// What no server may say.
    pub faults: Vec<String>,
}

/// A command as it was sent, and what is due to become of it.
struct Sent {
    command: Command,
    /// Hello, sender or recipient.
    name: String,
    octets: Vec<u8>,
}

impl Actor {
    pub fn new(server: SocketAddr, name: &str) -> Self {
        Self {
            server,
            name: name.to_owned(),
            smtp: None,
            count: 0,
            hello: None,
            is_private: false,
            user: None,
            letter: None,
            damaged: false,
            chunks: 0,
            promised: Vec::new(),
            ended: Vec::new(),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// After the end of a session the script goes on in another one.
    pub fn play(&mut self, script: &[Group]) {
        for group in script {
            if self.smtp.is_none() {
                self.connect();
            }
            if self.perform(group).is_none() {
                self.smtp = None;
            }
        }
        self.smtp = None;
    }

    fn connect(&mut self) {
        let mut smtp = Smtp::connect(self.server);
        smtp.expect("220");
        self.smtp = Some(smtp);
        self.hello = None;
        self.is_private = false;
        self.user = None;
        self.letter = None;
    }

    /// `None` when the session is over.
    fn perform(&mut self, group: &[Command]) -> Option<()> {
        let leaves = |command: &Command| {
            matches!(
                command,
                Command::HangUp | Command::Bdat(Chunk::HalfThenGone | Chunk::LastThenGone)
            )
        };
        let mut sent = Vec::new();
        let mut octets = Vec::new();
        for &command in group {
            let one = self.write(command);
            octets.extend_from_slice(&one.octets);
            sent.push(one);
            if leaves(&command) {
                break;
            }
        }
        self.send(&octets);
        let last = sent.len() - 1;
        for (at, one) in sent.iter().enumerate() {
            if let Command::Bdat(Chunk::LastThenGone) = one.command
                && let Some(mut letter) = self.letter.take()
            {
                letter.content.extend_from_slice(one.name.as_bytes());
                self.ended.push(letter);
            }
            if leaves(&one.command) {
                return None;
            }
            self.hear(one, at == last)?;
        }
        Some(())
    }

    fn write(&mut self, command: Command) -> Sent {
        self.count += 1;
        let (case, count) = (&self.name, self.count);
        let (name, line) = match command {
            Command::Ehlo => (format!("{case}-{count}.test"), "EHLO NAME"),
            Command::Helo => (format!("{case}-{count}.test"), "HELO NAME"),
            Command::Mail(_) => (format!("{case}-{count}@sender.test"), "MAIL FROM:<NAME>"),
            Command::Rcpt => (format!("{case}-{count}@example.org"), "RCPT TO:<NAME>"),
            Command::ForeignRcpt => (format!("{case}-{count}@foreign.test"), "RCPT TO:<NAME>"),
            Command::StartTls => (String::new(), "STARTTLS"),
            Command::Data(_) => (String::new(), "DATA"),
            Command::SignIn(knows) => {
                let user = format!("{case}-{count}");
                let password = if knows { PASSWORD } else { "guessed" };
                let secret = STANDARD.encode(format!("\0{user}\0{password}"));
                let octets = format!("AUTH PLAIN {secret}\r\n").into_bytes();
                return Sent {
                    command,
                    name: user,
                    octets,
                };
            }
            Command::Rset => (String::new(), "RSET"),
            Command::Noop => (String::new(), "NOOP"),
            Command::Quit => (String::new(), "QUIT"),
            Command::HangUp => (String::new(), ""),
            Command::Bdat(chunk) => {
                let (content, size) = self.chunk(chunk);
                let last = match chunk {
                    Chunk::Last | Chunk::EmptyLast | Chunk::LastThenGone => " LAST",
                    _ => "",
                };
                let octets = format!("BDAT {size}{last}\r\n{content}").into_bytes();
                return Sent {
                    command,
                    name: content,
                    octets,
                };
            }
        };
        let mut line = line.replace("NAME", &name);
        if let Command::Mail(parameters) = command {
            line.push_str(parameters);
        }
        if !line.is_empty() {
            line.push_str("\r\n");
        }
        Sent {
            command,
            name,
            octets: line.into_bytes(),
        }
    }

    /// The octets of a chunk, and the size to tell.
    fn chunk(&self, chunk: Chunk) -> (String, usize) {
        let good = format!("chunk {}\r\n.\r\n.x\r\n", self.count);
        match chunk {
            Chunk::More | Chunk::Last | Chunk::LastThenGone => (good.clone(), good.len()),
            Chunk::EmptyLast => (String::new(), 0),
            Chunk::Bad => ("bare\n".to_owned(), 5),
            Chunk::HalfThenGone => (good, 1000),
        }
    }

    /// Hears the reply to one command of a group, and draws conclusions.
    fn hear(&mut self, sent: &Sent, is_last: bool) -> Option<()> {
        let reply = self.reply()?;
        let yes = reply.starts_with('2');
        match sent.command {
            Command::Ehlo | Command::Helo => {
                // RFC 5321 4.1.4: the transaction is over whatever the reply.
                self.letter = None;
                if yes {
                    self.hello = Some(sent.name.clone());
                }
            }
            Command::StartTls if yes => {
                // The program ends a session in which more was sent behind it.
                if !is_last {
                    return None;
                }
                self.smtp.as_mut()?.hand_shake();
                self.hello = None;
                self.is_private = true;
                self.user = None;
                self.letter = None;
            }
            Command::SignIn(knows) => return self.sign_in(&sent.name, knows, reply),
            Command::Mail(parameters) if yes => self.mail_taken(&sent.name, parameters),
            Command::ForeignRcpt if yes && self.user.is_none() => self.fault("relays"),
            Command::Rcpt | Command::ForeignRcpt if yes => {
                self.promised.push(format!("RCPT {}", sent.name));
                match &mut self.letter {
                    Some(letter) => letter.recipients.push(sent.name.clone()),
                    None => self.fault("a recipient without a sender"),
                }
            }
            Command::Mail(_) | Command::Rcpt => self.damaged = true,
            Command::Data(body) if reply.starts_with("354") => {
                if !is_last {
                    return None;
                }
                return self.data(body);
            }
            // RFC 3030 2 leaves open what becomes of the chunks.
            Command::Data(_) if self.chunks > 0 => {}
            Command::Data(_) => self.letter = None,
            Command::Bdat(chunk) => self.chunk_answered(chunk, &sent.name, yes),
            Command::Rset if yes => self.letter = None,
            Command::Quit => return None,
            _ => {}
        }
        if reply.starts_with('3') {
            self.fault(&format!("{:?} was answered by {reply}", sent.command));
        }
        Some(())
    }

    /// A challenge is answered with the wish to break off.
    fn sign_in(&mut self, user: &str, knows: bool, reply: String) -> Option<()> {
        let is_challenged = reply.starts_with("334");
        let reply = if is_challenged {
            self.send(b"*\r\n");
            self.reply()?
        } else {
            reply
        };
        match reply.get(..1) {
            Some("2") => {
                let well = knows && !is_challenged && self.is_private && self.hello.is_some();
                if !well || self.user.is_some() || self.letter.is_some() && !self.damaged {
                    self.fault("signs in who must not");
                }
                self.promised.push(format!("AUTH {user}"));
                self.user = Some(user.to_owned());
            }
            Some("4" | "5") => {}
            _ => self.fault(&format!("AUTH was answered by {reply}")),
        }
        Some(())
    }

    fn mail_taken(&mut self, sender: &str, parameters: &str) {
        self.promised.push(format!("MAIL {sender}"));
        if self.letter.is_some() && !self.damaged {
            self.fault("a second sender");
        }
        let Some(hello) = self.hello.clone() else {
            return self.fault("a sender without a hello");
        };
        self.letter = Some(Letter {
            hello,
            user: self.user.clone(),
            sender: sender.to_owned(),
            parameters: parameters.to_owned(),
            ..Letter::default()
        });
        self.damaged = false;
        self.chunks = 0;
    }

    fn data(&mut self, body: Body) -> Option<()> {
        let Some(mut letter) = self.letter.take().filter(|it| !it.recipients.is_empty()) else {
            self.fault("354 without a recipient");
            return None;
        };
        self.promised.push(format!("DATA {}", letter.sender));
        let good = format!("body {}\r\n.\r\n.x\r\n", self.count).into_bytes();
        match body {
            Body::Good | Body::WholeThenGone => {
                self.send(&dot_stuffed(&good));
                letter.content = good;
                self.ended.push(letter.clone());
                if let Body::WholeThenGone = body {
                    return None;
                }
                self.ending(letter);
            }
            Body::Bad => {
                self.send(b"bare\n.\r\nRSET\r\n.\r\n");
                if self.reply()?.starts_with('2') {
                    self.fault("a body with a bare LF was taken");
                }
            }
            Body::HalfThenGone => {
                self.send(b"half\r\n.");
                return None;
            }
        }
        Some(())
    }

    fn ending(&mut self, letter: Letter) {
        match self.reply() {
            Some(reply) if reply.starts_with('2') => self.acknowledged.push(letter),
            _ => self.refused.push(letter.sender),
        }
    }

    fn chunk_answered(&mut self, chunk: Chunk, content: &str, yes: bool) {
        let is_last = matches!(chunk, Chunk::Last | Chunk::EmptyLast);
        let Some(mut letter) = self.letter.take().filter(|it| !it.recipients.is_empty()) else {
            if yes {
                self.fault("a chunk without a recipient was taken");
            }
            return;
        };
        letter.content.extend_from_slice(content.as_bytes());
        letter.in_chunks = true;
        self.chunks += 1;
        match (is_last, yes) {
            _ if yes && matches!(chunk, Chunk::Bad) => self.fault("a bare LF was taken"),
            (true, true) => {
                self.ended.push(letter.clone());
                self.acknowledged.push(letter);
            }
            (true, false) => {
                self.refused.push(letter.sender.clone());
                self.ended.push(letter);
            }
            (false, true) => self.letter = Some(letter),
            // The message is lost, and so is what comes of it.
            (false, false) => {}
        }
    }

    fn fault(&mut self, what: &str) {
        self.faults.push(what.to_owned());
    }

    /// A closed connection shows when the reply is due.
    fn send(&mut self, octets: &[u8]) {
        if let Some(smtp) = &mut self.smtp {
            smtp.try_send(octets).ok();
        }
    }

    fn reply(&mut self) -> Option<String> {
        match self.smtp.as_mut()?.try_reply_or_end() {
            Ok(reply) => Some(reply).filter(|reply| !reply.is_empty()),
            Err(error) => {
                self.fault(&format!("no reply and no end: {error}"));
                None
            }
        }
    }
}
