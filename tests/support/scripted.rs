//! A backend with one fault: honest in everything but what its rules say.
//!
//! It must be honest elsewhere, because the proxy also visits it to learn its
//! keywords; a script of fixed steps could not tell the two visits apart.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::wait_for;

/// One thing to do when a rule applies.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this, CRLF added; the honest answer is not given.
    Say(&'static str),
    /// Sends these octets as they are.
    Send(&'static [u8]),
    Wait(Duration),
    /// Gives no answer and keeps the connection.
    Silence,
    Close,
    /// Closes with RST: the peer's next read fails.
    Reset,
}

/// When a line begins with the text (any case), the acts take the place of the
/// honest answer. Two more places have names: `greeting`, and `.` for the reply to
/// the final dot. `body` strikes as soon as the first body line has come.
type Rules = Arc<Vec<(String, Vec<Act>)>>;

type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

pub struct Scripted {
    pub address: SocketAddr,
    heard: Heard,
    closing: Arc<AtomicBool>,
}

impl Scripted {
    pub fn start(rules: &[(&str, &[Act])]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), rules)
    }

    /// At an address of one's choice, for a backend that comes back.
    pub fn start_at(address: SocketAddr, rules: &[(&str, &[Act])]) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let closing = Arc::new(AtomicBool::new(false));
        let own = |(place, acts): &(&str, &[Act])| ((*place).to_owned(), acts.to_vec());
        let rules: Rules = Arc::new(rules.iter().map(own).collect());

        let (all, stop) = (Arc::clone(&heard), Arc::clone(&closing));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let mut talk = Talk {
                    stream,
                    number,
                    heard: Arc::clone(&all),
                    rules: Arc::clone(&rules),
                };
                std::thread::spawn(move || drop(talk.run()));
            }
        });
        Self {
            address,
            heard,
            closing,
        }
    }

    /// All octets of every connection so far, oldest connection first.
    pub fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let text = |octets: &Vec<u8>| String::from_utf8_lossy(octets).into_owned();
        heard.iter().map(text).collect()
    }

    /// The connections that began a transaction, once there are `count`.
    #[track_caller]
    pub fn transactions(&self, count: usize) -> Vec<String> {
        let begun = || -> Vec<String> {
            let all = self.heard().into_iter();
            all.filter(|text| text.contains("MAIL FROM")).collect()
        };
        wait_for(Duration::from_secs(10), || {
            Some(begun()).filter(|found| found.len() >= count)
        })
        .unwrap_or_else(|| panic!("expected {count} transactions, heard {:#?}", self.heard()))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // Wakes the accepting thread so that it sees the flag.
        drop(TcpStream::connect(self.address));
    }
}

struct Talk {
    stream: TcpStream,
    number: usize,
    heard: Heard,
    rules: Rules,
}

/// The conversation is over: by a fault, or because the proxy left.
struct Over;

impl Talk {
    fn run(&mut self) -> Result<(), Over> {
        let patience = Some(Duration::from_secs(60));
        self.stream.set_read_timeout(patience).map_err(|_| Over)?;
        let mut reader = BufReader::new(self.stream.try_clone().map_err(|_| Over)?);

        self.answer("greeting", "220 scripted.test ESMTP")?;
        loop {
            let line = self.line(&mut reader)?;
            let verb = line.split([' ', '\r']).next().unwrap_or_default();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.answer(
                    &line,
                    "250-scripted.test\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 50000000",
                )?,
                "DATA" => {
                    self.answer(&line, "354 go on")?;
                    self.body(&mut reader)?;
                    self.answer(".", "250 2.0.0 taken")?;
                }
                "QUIT" => {
                    self.answer(&line, "221 bye")?;
                    return Ok(());
                }
                "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP" => self.answer(&line, "250 2.0.0 fine")?,
                _ => self.answer(&line, "502 5.5.1 not known here")?,
            }
        }
    }

    fn body(&mut self, reader: &mut impl BufRead) -> Result<(), Over> {
        loop {
            let line = self.line(reader)?;
            if line == ".\r\n" {
                return Ok(());
            }
            if let Some(acts) = self.rule("body") {
                self.perform(&acts)?;
            }
        }
    }

    fn line(&mut self, reader: &mut impl BufRead) -> Result<String, Over> {
        let mut line = Vec::new();
        let read = reader.read_until(b'\n', &mut line);
        if let Some(heard) = self.heard.lock().unwrap().get_mut(self.number) {
            heard.extend_from_slice(&line);
        }
        match read {
            Ok(length) if length > 0 => Ok(String::from_utf8_lossy(&line).into_owned()),
            _ => Err(Over),
        }
    }

    fn rule(&self, place: &str) -> Option<Vec<Act>> {
        let place = place.to_ascii_uppercase();
        let mut rules = self.rules.iter();
        rules
            .find(|(start, _)| place.starts_with(&start.to_ascii_uppercase()))
            .map(|(_, acts)| acts.clone())
    }

    fn answer(&mut self, place: &str, honest: &str) -> Result<(), Over> {
        match self.rule(place) {
            Some(acts) => self.perform(&acts),
            None => self.send(format!("{honest}\r\n").as_bytes()),
        }
    }

    fn perform(&mut self, acts: &[Act]) -> Result<(), Over> {
        for act in acts {
            match act {
                Act::Say(text) => self.send(format!("{text}\r\n").as_bytes())?,
                Act::Send(octets) => self.send(octets)?,
                Act::Wait(pause) => std::thread::sleep(*pause),
                Act::Silence => {}
                Act::Close => return Err(Over),
                Act::Reset => {
                    let linger = Some(Duration::ZERO);
                    drop(socket2::SockRef::from(&self.stream).set_linger(linger));
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Over> {
        self.stream.write_all(octets).map_err(|_| Over)
    }
}
