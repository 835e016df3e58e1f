//! A message body, held until it has been judged: in memory while it is small
//! and there is room, else in a temporary file that has no name.
//!
//! Memory and disk are bounded for all messages together. A message that finds
//! either used up is refused by itself: nobody waits for another one's room,
//! and no path leads out of here that keeps a share. Beside `SPOOL_MEMORY` a
//! message on its way to or from its file costs at most one buffer of
//! [`CHUNK`] octets for its writer and one for each reader.
//!
//! The room never interprets a body and never logs.

mod budget;
mod file;
mod memory;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::settings::Size;
use budget::Budget;
use file::SpoolFile;
use memory::Pieces;

pub use writer::Writer;

crate::settings::section! {
    /// Bodies on their way through the scanners.
    pub struct Settings {
        /// Memory for all bodies together; beyond it they go to disk early.
        spool_memory: Size = "256M", example "64M";
        /// Memory for one body; beyond it the body goes into a file without a name in `SPOOL_DIR`.
        spool_buffer: Size = "256K", example "1M";
        /// Disk for all bodies together; beyond it a client is told to come back (452).
        spool_disk: Size = "4G", example "20G";
        /// Folder of those files; `TMPDIR`, else `/tmp`, when unset. On a tmpfs they would be memory after all.
        spool_dir: Option<PathBuf>, example "/var/spool/portcullis";
    }
}

impl Settings {
    /// The folder of files.
    pub fn folder(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// Octets that are moved to or from a file at a time.
const CHUNK: usize = 32 * 1024;

/// Why a body cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No room: `SPOOL_DISK` is used up, or the disk itself, or a quota.
    #[error("no room for the message")]
    Full,
    /// The file cannot be made, written or read.
    #[error("spool: {0}")]
    Io(io::Error),
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full,
            _ => Self::Io(error),
        }
    }
}

/// Where bodies are held, and how much room there is for them.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// What all writers of one spool have in common.
#[derive(Debug)]
struct Shared {
    memory: Arc<Budget>,
    disk: Arc<Budget>,
    buffer: u64,
    dir: PathBuf,
}

impl Spool {
    /// Prepares, and proves that a file can be made in `SPOOL_DIR`. Blocks for
    /// as long as that takes.
    ///
    /// # Errors
    /// When no file can be made there; names the folder.
    pub fn new(settings: &Settings) -> Result<Self, SpoolError> {
        let dir = settings.folder();
        let disk = Budget::new(settings.spool_disk.0);
        SpoolFile::create(&dir, disk.share()).map_err(|error| {
            let what = format!("no file can be made in {}: {error}", dir.display());
            SpoolError::Io(io::Error::new(error.kind(), what))
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                memory: Budget::new(settings.spool_memory.0),
                disk,
                buffer: settings.spool_buffer.0,
                dir,
            }),
        })
    }

    /// Begins a body. Takes up nothing until something is written.
    pub fn begin(&self) -> Writer {
        Writer::new(Arc::clone(&self.shared))
    }

    /// Octets of memory that all bodies hold now.
    pub fn memory_used(&self) -> u64 {
        self.shared.memory.used()
    }

    /// Octets of disk that all bodies hold now.
    pub fn disk_used(&self) -> u64 {
        self.shared.disk.used()
    }
}

/// A whole body. Clones share it; the last one that goes, readers included,
/// gives back what it held.
#[derive(Clone, Debug)]
pub struct Body {
    held: Arc<Held>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Held {
    Memory(Pieces),
    File(SpoolFile),
}

impl Body {
    fn new(held: Held, shared: Arc<Shared>) -> Self {
        Self {
            held: Arc::new(held),
            shared,
        }
    }

    /// Begins another body in the same spool. Takes up nothing until something
    /// is written.
    pub fn begin_another(&self) -> Writer {
        Writer::new(Arc::clone(&self.shared))
    }

    /// Octets.
    pub fn len(&self) -> u64 {
        match &*self.held {
            Held::Memory(pieces) => pieces.len(),
            Held::File(file) => file.len(),
        }
    }

    /// Whether there is not one octet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader that begins at the first octet, independent of all others.
    pub fn reader(&self) -> Reader {
        Reader {
            held: Arc::clone(&self.held),
            place: 0,
        }
    }
}

/// Reads one body from its beginning to its end.
#[derive(Debug)]
pub struct Reader {
    held: Arc<Held>,
    /// The next piece in memory, or the next octet in the file.
    place: u64,
}

impl Reader {
    /// The next piece, never empty and at most 64 KiB; `None` at the end. May
    /// be dropped and called again without loss.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &*self.held {
            Held::Memory(pieces) => {
                let piece = pieces.get(self.place);
                self.place += 1;
                Ok(piece)
            }
            Held::File(_) => self.next_of_file().await,
        }
    }

    async fn next_of_file(&mut self) -> io::Result<Option<Bytes>> {
        let (held, place) = (Arc::clone(&self.held), self.place);
        let read = off_the_runtime(move || match &*held {
            Held::File(file) => file.read(place),
            Held::Memory(_) => Ok(Bytes::new()),
        });
        let piece = read.await?;
        self.place += memory::octets(piece.len());
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

/// Files that are worked on at once. More would make no disk faster, but each
/// takes memory of its own.
const AT_ONCE: usize = 16;

/// For all spools of the process, as a disk is one.
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Does file I/O where it holds up nobody else, when it is its turn.
async fn off_the_runtime<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    // It fails when nobody gives turns any more, and they are given for ever.
    let turn = TURNS.acquire().await.map_err(io::Error::other)?;
    let done = tokio::task::spawn_blocking(move || {
        let worked = work();
        drop(turn);
        worked
    });
    done.await
        .unwrap_or_else(|stopped| Err(io::Error::other(stopped).into()))
}
