//! A clamd that looks for nothing, for faults that a real one does not produce on
//! demand, and for loads under which a real one would be all that is measured.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a `Sham` does about a stream.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Takes it and finds nothing.
    Clean,
    /// The same, but only after this pause.
    Late(Duration),
    /// Takes it and says this.
    Says(&'static [u8]),
    /// Takes it and says nothing.
    Mute,
    /// Takes the connection and not an octet of the stream.
    Deaf,
    /// Hangs up as soon as it begins.
    HangsUp,
}

pub struct Sham {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    begun: AtomicUsize,
    whole: AtomicUsize,
    closing: AtomicBool,
}

impl Sham {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            begun: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own.closing.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&own);
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, shared }
    }

    /// How the next streams are met.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Connections so far.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Streams that were taken in to their end.
    pub fn whole(&self) -> usize {
        self.shared.whole.load(Ordering::Relaxed)
    }
}

impl Drop for Sham {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Wakes the accepting thread so that it sees the flag.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::HangsUp => return Ok(()),
            Manner::Deaf => return stand_still(),
            _ => take_in(&stream)?,
        }
        self.whole.fetch_add(1, Ordering::Relaxed);
        match manner {
            Manner::Mute => return stand_still(),
            Manner::Says(octets) => return stream.write_all(octets),
            Manner::Late(pause) => std::thread::sleep(pause),
            _ => {}
        }
        stream.write_all(b"stream: OK\0")
    }
}

/// Reads `zINSTREAM`, then pieces with their length before them, up to one of no
/// length (clamd(8)).
fn take_in(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut command = Vec::new();
    reader.read_until(0, &mut command)?;
    assert_eq!(command, b"zINSTREAM\0");
    loop {
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        match u64::from(u32::from_be_bytes(length)) {
            0 => return Ok(()),
            length => io::copy(&mut (&mut reader).take(length), &mut io::sink())?,
        };
    }
}

/// Keeps the connection; whoever waits is to give up first.
fn stand_still() -> io::Result<()> {
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}
