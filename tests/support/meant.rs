//! What an SMTP client meant by the octets that it sent, given the replies that it
//! heard: RFC 5321 by the letter, as short as can be, and sharing nothing with the
//! product.

use super::readers::Letter;

/// The octets of one session, and the replies to them.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// What it called itself.
    pub name: String,
    pub sent: Vec<u8>,
    /// The greeting first; lines of one reply joined by LF.
    pub replies: Vec<String>,
}

/// What becomes of a CR or LF that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    Refused,
    /// It becomes CRLF.
    Repaired,
}

/// What a session amounts to.
#[derive(Clone, Debug, Default)]
pub struct Meant {
    /// MAIL and RCPT lines that were taken.
    pub envelopes: Vec<String>,
    /// What else than before it called itself, and was greeted so.
    pub names: Vec<String>,
    /// Messages that were acknowledged.
    pub letters: Vec<Letter>,
    /// Times that the server may reset: the client did, or a body was refused.
    pub resets: usize,
    /// Bodies and chunks that were answered, and how many of them by a yes.
    pub bodies: usize,
    /// What a server by the letter would not have said.
    pub faults: Vec<String>,
}

impl Meant {
    pub fn of(transcript: &Transcript, bare: Bare) -> Self {
        let mut replies = transcript.replies.iter().map(String::as_str);
        let mut meant = Self::default();
        if !replies.next().is_some_and(|reply| reply.starts_with("220")) {
            meant.faults.push("no greeting".to_owned());
        }
        let mut walk = Walk {
            rest: &transcript.sent,
            replies,
            bare,
            letter: None,
            meant,
        };
        while walk.command().is_some() {}
        if let Some(reply) = walk.replies.next() {
            let fault = format!("a reply that nothing asked for: {reply}");
            walk.meant.faults.push(fault);
        }
        walk.meant
    }
}

struct Walk<'a, R> {
    rest: &'a [u8],
    replies: R,
    bare: Bare,
    /// The transaction, if there is one.
    letter: Option<Letter>,
    meant: Meant,
}

impl<'a, R: Iterator<Item = &'a str>> Walk<'a, R> {
    /// One command with all that belongs to it; `None` at the end.
    fn command(&mut self) -> Option<()> {
        let end = find(self.rest, b"\r\n");
        let line = self.take(end.unwrap_or(self.rest.len()));
        self.take(2);
        // A server may refuse what is no line before it has ended.
        let reply = self.replies.next()?;
        if !is_clean(line) || line.contains(&0) {
            self.refused(reply, "a line with a bare CR, a bare LF or a NUL");
            return None;
        }
        if end.is_none() {
            self.refused(reply, "half a line");
            return None;
        }
        let line = line.escape_ascii().to_string();
        let verb = line.split(' ').next().unwrap_or_default();
        match (verb, class(reply)) {
            ("MAIL", '2') => {
                self.meant.envelopes.push(line.clone());
                if self.letter.is_some() {
                    self.fault(&format!("a second MAIL was taken: {line}"));
                }
                self.letter = Some(Letter {
                    mail: line,
                    rcpt: Vec::new(),
                    content: Vec::new(),
                });
            }
            ("RCPT", '2') => {
                self.meant.envelopes.push(line.clone());
                match &mut self.letter {
                    Some(letter) => letter.rcpt.push(line),
                    None => self.fault("a recipient was taken outside of a transaction"),
                }
            }
            ("DATA", '3') => return self.data(),
            // Not known or not understood: no octets belong to it.
            ("BDAT", _) if matches!(code(reply), "500" | "501" | "502") => {}
            ("BDAT", _) => return self.chunk(&line, reply),
            ("RSET" | "EHLO", '2') => {
                self.letter = None;
                self.meant.resets += 1;
                if let Some(name) = line.strip_prefix("EHLO ") {
                    let name = name.to_owned();
                    if !self.meant.names.contains(&name) {
                        self.meant.names.push(name);
                    }
                }
            }
            ("DATA", _) => {
                self.letter = None;
                self.meant.resets += 1;
            }
            ("QUIT", '2') => return None,
            ("NOOP", '2') => {}
            ("MAIL" | "RCPT" | "RSET" | "EHLO" | "NOOP" | "QUIT", _) => {}
            _ => self.refused(reply, &line),
        }
        Some(())
    }

    /// Up to CRLF . CRLF, the CRLF of the command counted in (RFC 5321 4.1.1.4).
    fn data(&mut self) -> Option<()> {
        if self.letter.as_ref().is_none_or(|it| it.rcpt.is_empty()) {
            self.fault("354 without a recipient");
        }
        let length = match self.rest.starts_with(b".\r\n") {
            true => 0,
            false => find(self.rest, b"\r\n.\r\n").map_or(self.rest.len(), |at| at + 2),
        };
        let wire = self.take(length);
        let ended = self.take(3) == b".\r\n";
        let reply = self.replies.next()?;
        if !ended {
            self.refused(reply, "a body without an end");
            return None;
        }
        let mut content = Vec::new();
        for line in lines(wire) {
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        let mut letter = self.letter.take()?;
        letter.content = content;
        self.end(letter, reply)
    }

    /// RFC 3030 2.
    fn chunk(&mut self, line: &str, reply: &str) -> Option<()> {
        let mut words = line.split(' ').skip(1);
        let size: usize = words.next()?.parse().ok()?;
        let is_last = words.next().is_some();
        let octets = self.take(size);
        if octets.len() < size {
            self.refused(reply, "half a chunk");
            return None;
        }
        let is_taken = class(reply) == '2';
        let Some(mut letter) = self.letter.take() else {
            self.refused(reply, "a chunk outside of a transaction");
            return Some(());
        };
        letter.content.extend_from_slice(octets);
        match (is_taken, is_last) {
            (true, true) => return self.end(letter, reply),
            (true, false) => self.letter = Some(letter),
            (false, _) => self.meant.resets += 1,
        }
        Some(())
    }

    /// A body that is here to its end must be taken if it is in order, else refused.
    fn end(&mut self, mut letter: Letter, reply: &str) -> Option<()> {
        self.meant.bodies += 1;
        let in_order = match self.bare {
            Bare::Refused => is_clean(&letter.content),
            Bare::Repaired => true,
        } && !letter.content.contains(&0);
        match (class(reply), in_order) {
            ('2', true) => {
                letter.content = repaired(&letter.content);
                self.meant.letters.push(letter);
            }
            ('2', false) => {
                let content = letter.content.escape_ascii();
                self.fault(&format!("was taken: {content}"));
            }
            (_, true) => {
                let content = letter.content.escape_ascii();
                self.fault(&format!("was refused by {reply}: {content}"));
            }
            (_, false) => self.meant.resets += 1,
        }
        Some(())
    }

    fn refused(&mut self, reply: &str, what: &str) {
        if !matches!(class(reply), '4' | '5') {
            self.fault(&format!("{what}, and the reply was {reply}"));
        }
    }

    fn fault(&mut self, text: &str) {
        self.meant.faults.push(text.to_owned());
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// What a message that is judged arrives as: with an empty line before the first line that neither is a field nor continues one,
/// unless one comes before; an mbox separator in front is the value of a field.
pub fn parted(content: &[u8]) -> Vec<u8> {
    let unquoted = content.iter().position(|octet| *octet != b'>');
    let is_led = unquoted.is_some_and(|at| content[at..].starts_with(b"From "));
    let name: &[u8] = if is_led { b"X-Mailbox-Line: " } else { b"" };
    let content = [name, content].concat();
    let (mut at, mut behind_field) = (0, false);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        let is_space = |octet: &u8| matches!(octet, b' ' | b'\t');
        let continues = behind_field && line.first().is_some_and(is_space);
        let colon = line.iter().take(998).position(|octet| *octet == b':');
        let name = line[..colon.unwrap_or(0)].trim_ascii_end();
        let is_field = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        if line == b"\r\n" {
            break;
        }
        if !continues && !is_field {
            return [&content[..at], b"\r\n", &content[at..]].concat();
        }
        (at, behind_field) = (at + line.len(), true);
    }
    content
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Whether every CR stands before an LF and every LF behind a CR.
fn is_clean(text: &[u8]) -> bool {
    repaired(text) == text
}

/// CRLF in place of every CR and LF that stands alone.
fn repaired(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::new();
    for (at, &octet) in text.iter().enumerate() {
        match octet {
            b'\n' if at > 0 && text[at - 1] == b'\r' => {}
            b'\r' | b'\n' => clean.extend_from_slice(b"\r\n"),
            _ => clean.push(octet),
        }
    }
    clean
}

/// The lines of `text`, each with the CRLF that ends it.
fn lines(mut text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while !text.is_empty() {
        let end = find(text, b"\r\n").map_or(text.len(), |at| at + 2);
        let (line, rest) = text.split_at(end);
        lines.push(line);
        text = rest;
    }
    lines
}

fn code(reply: &str) -> &str {
    reply.get(..3).unwrap_or_default()
}

fn class(reply: &str) -> char {
    reply.chars().next().unwrap_or(' ')
}
