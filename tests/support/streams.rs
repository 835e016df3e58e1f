//! What a smuggler sends where a body is due: every short mix of line ends, NULs and
//! dots, cut anywhere, in chunks, with commands pipelined behind; and random ones.

use std::collections::BTreeSet;

/// What is to look like commands to a server that sees the end too early.
const EVIL: &str = "MAIL FROM:<evil@sender.test>\r\nRCPT TO:<evil@example.org>\r\n\
                    DATA\r\nevil\r\n.\r\n";

/// An end of data as somebody may see it is made of these.
const PIECES: [&str; 5] = ["\r\n", "\r", "\n", "\0", "."];

/// A header section, for servers that look for one.
const HEADER: &str = "Subject: x\r\n\r\ntext";

/// What is sent in one transaction behind MAIL and RCPT, in as many writes.
#[derive(Clone, Debug)]
pub enum Stream {
    /// DATA is said and 354 heard before it.
    Body(Vec<Vec<u8>>),
    /// It begins with a BDAT command, and nothing follows it.
    Chunks(Vec<Vec<u8>>),
}

impl Stream {
    fn body(octets: &str) -> Self {
        Self::Body(vec![octets.as_bytes().to_vec()])
    }

    pub fn writes(&self) -> &[Vec<u8>] {
        match self {
            Self::Body(writes) | Self::Chunks(writes) => writes,
        }
    }
}

/// All mixes of at most `most` pieces, each once.
fn mixes(most: usize) -> BTreeSet<String> {
    let mut all = BTreeSet::from([String::new()]);
    for _ in 0..most {
        let longer = |mix: &String| PIECES.map(|piece| format!("{mix}{piece}"));
        all.extend(all.clone().iter().flat_map(longer));
    }
    all
}

/// Every mix of up to four pieces, every pair of mixes of up to two around a dot or
/// two, inside a body and at its very beginning.
pub fn ends() -> Vec<Stream> {
    let mut inside = mixes(4);
    for (before, after) in mixes(2).iter().flat_map(|before| {
        let after = mixes(2).into_iter();
        after.map(move |after| (before.clone(), after))
    }) {
        inside.insert(format!("{before}.{after}"));
        inside.insert(format!("{before}..{after}"));
    }
    let inside = inside.iter().map(|mix| format!("{HEADER}{mix}{EVIL}"));
    let front = mixes(3).into_iter().map(|mix| format!("{mix}{EVIL}"));
    inside
        .chain(front)
        .map(|octets| Stream::body(&octets))
        .collect()
}

/// Bodies around an end, cut in two at each octet and once at all of them.
pub fn cuts() -> Vec<Stream> {
    let mut streams = Vec::new();
    for end in [
        "\r\n.\r\n",
        "\r\n..\r\n.\r\n",
        "\r\n.\r",
        "\n.\r\n",
        "\r\r\n.\r\n",
    ] {
        let octets = format!("x{end}{EVIL}").into_bytes();
        for at in 1..octets.len() {
            let (front, rest) = octets.split_at(at);
            streams.push(Stream::Body(vec![front.to_vec(), rest.to_vec()]));
        }
        let single = octets.iter().map(|octet| vec![*octet]);
        streams.push(Stream::Body(single.collect()));
    }
    streams
}

/// The true end, and two lines pipelined behind it.
pub fn pipelined() -> Vec<Stream> {
    let lines = [
        "RSET\r\n",
        "QUIT\r\n",
        "NOOP\r\n",
        "DATA\r\n",
        "BDAT 0 LAST\r\n",
        "MAIL FROM:<evil@sender.test>\r\n",
        "RCPT TO:<evil@example.org>\r\n",
        "EHLO evil.test\r\n",
        "STARTTLS\r\n",
        ".\r\n",
        "..\r\n",
        "\r\n",
        ".\n",
        "\n.\n",
        "\r.\r",
        "\0.\r\n",
        "RSET\n",
        "RSET\r",
    ];
    let pairs = lines
        .iter()
        .flat_map(|one| lines.map(|two| format!("{one}{two}")));
    pairs
        .map(|pair| Stream::body(&format!("{HEADER}\r\n.\r\n{pair}{EVIL}")))
        .collect()
}

/// Chunks whose octets look like ends and commands; told sizes that are true, and
/// too small or too large by one or two; a CRLF between two chunks; none at all.
pub fn chunks() -> Vec<Stream> {
    let mut streams = Vec::new();
    let mut push = |octets: String| streams.push(Stream::Chunks(vec![octets.into_bytes()]));
    for mix in mixes(2) {
        for around in ["", "x", "x\r\n.\r\n", "x\r\n.\r\nRSET\r\n"] {
            let content = format!("{around}{mix}");
            let size = content.len();
            for told in size.saturating_sub(2)..=size + 2 {
                push(format!("BDAT {told} LAST\r\n{content}{EVIL}QUIT\r\n"));
            }
            push(format!(
                "BDAT {size}\r\n{content}BDAT 0 LAST\r\n{EVIL}QUIT\r\n"
            ));
            push(format!("BDAT {size}\r\n{content}RSET\r\n{EVIL}QUIT\r\n"));
            push(format!(
                "BDAT 0\r\nBDAT {size} LAST\r\n{content}{EVIL}QUIT\r\n"
            ));
            push(format!(
                "BDAT 2\r\ny\rBDAT {} LAST\r\n\n{content}QUIT\r\n",
                size + 1
            ));
            push(format!(
                "BDAT {size}\r\n{content}DATA\r\n{content}\r\n.\r\nQUIT\r\n"
            ));
        }
    }
    for command in [
        "BDAT",
        "BDAT -1",
        "BDAT 1 2",
        "BDAT 0x2 LAST",
        "BDAT 99999999999999999999 LAST",
    ] {
        push(format!("{command}\r\n{EVIL}QUIT\r\n"));
    }
    streams
}

/// Random numbers (xorshift64*), the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (mixed >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

const WORDS: [&str; 12] = [
    "x",
    "Subject: x\r\n\r\n",
    "MAIL FROM:<evil@sender.test>",
    "RCPT TO:<evil@example.org>",
    "DATA",
    "RSET",
    "QUIT",
    "NOOP",
    "BDAT 3",
    "BDAT 7 LAST",
    "EHLO",
    "\u{e9}",
];

/// One random stream, as a body or as chunks, with random cuts. A hello in it may be
/// taken where a cut is behind it, so each stream has a name of its own for that.
pub fn random(dice: &mut Dice) -> Stream {
    let hello = format!("EHLO evil-{}.test", dice.roll(1 << 30));
    let mut octets = String::new();
    for _ in 0..=dice.roll(30) {
        octets.push_str(match dice.roll(10) {
            0..=3 => dice.pick(&PIECES),
            4 | 5 => "\r\n",
            6 => "\r\n.\r\n",
            _ => match dice.pick(&WORDS) {
                "EHLO" => &hello,
                word => word,
            },
        });
    }
    let in_chunks = dice.roll(3) == 0;
    let octets = if in_chunks {
        let size = octets.len() + dice.roll(3);
        let last = dice.pick(&["", " LAST", " LAST"]);
        format!(
            "BDAT {}{last}\r\n{octets}{EVIL}QUIT\r\n",
            size.saturating_sub(1)
        )
    } else {
        format!("{octets}{}{EVIL}", dice.pick(&["", "\r\n", "\r\n.\r\n"]))
    };
    let mut writes = vec![octets.into_bytes()];
    for _ in 0..dice.roll(4) {
        let last = writes.last_mut().unwrap();
        let rest = last.split_off(dice.roll(last.len() + 1));
        writes.push(rest);
    }
    writes.retain(|write| !write.is_empty());
    match in_chunks {
        true => Stream::Chunks(writes),
        false => Stream::Body(writes),
    }
}
