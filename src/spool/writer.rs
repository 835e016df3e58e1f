//! A body that is still coming in: first into memory, then into a file.

use std::io;
use std::sync::Arc;

use super::file::SpoolFile;
use super::memory::Pieces;
use super::{Body, CHUNK, Held, Shared, SpoolError, off_the_runtime};

/// Takes in one body. Dropped before [`Writer::finish`], it gives back all it held.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Small so far, and there was room.
    Memory(Pieces),
    /// Too large, or memory was used up.
    File(Outgoing),
    /// A write failed, or its future was dropped: there may be a gap.
    Broken,
}

/// A file, and the octets that will be written to it together.
#[derive(Debug)]
struct Outgoing {
    file: SpoolFile,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let pieces = Pieces::new(shared.memory.share());
        Self {
            shared,
            state: State::Memory(pieces),
        }
    }

    /// Takes in the next octets. After an error, or if dropped before it is
    /// done, this writer has given back what it held and is of no more use.
    ///
    /// # Errors
    /// [`SpoolError::Full`] when there is no room on disk, [`SpoolError::Io`]
    /// when the file fails.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), SpoolError> {
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Memory(mut pieces) => match pieces.fill(octets, self.shared.buffer) {
                [] => State::Memory(pieces),
                rest => State::File(self.spill(pieces).await?.write(rest).await?),
            },
            State::File(outgoing) => State::File(outgoing.write(octets).await?),
            State::Broken => return Err(broken()),
        };
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn finish(self) -> Result<Body, SpoolError> {
        match self.state {
            State::Memory(pieces) => Ok(Body::new(Held::Memory(pieces.finish()), self.shared)),
            State::File(outgoing) => {
                let mut file = outgoing.flush().await?.file;
                file.finish();
                Ok(Body::new(Held::File(file), self.shared))
            }
            State::Broken => Err(broken()),
        }
    }

    /// Moves what is in memory into a new file.
    async fn spill(&self, pieces: Pieces) -> Result<Outgoing, SpoolError> {
        let shared = Arc::clone(&self.shared);
        off_the_runtime(move || {
            let mut file = SpoolFile::create(&shared.dir, shared.disk.share())?;
            for piece in pieces.iter() {
                file.append(piece)?;
            }
            Ok(Outgoing {
                file,
                buffer: Vec::new(),
            })
        })
        .await
    }
}

impl Outgoing {
    async fn write(mut self, mut octets: &[u8]) -> Result<Self, SpoolError> {
        self.buffer.reserve_exact(CHUNK - self.buffer.len());
        loop {
            let room = CHUNK - self.buffer.len();
            let (now, later) = octets.split_at(room.min(octets.len()));
            self.buffer.extend_from_slice(now);
            octets = later;
            if octets.is_empty() {
                return Ok(self);
            }
            self = self.flush().await?;
        }
    }

    async fn flush(self) -> Result<Self, SpoolError> {
        let Self {
            mut file,
            mut buffer,
        } = self;
        off_the_runtime(move || {
            file.append(&buffer)?;
            buffer.clear();
            Ok(Self { file, buffer })
        })
        .await
    }
}

fn broken() -> SpoolError {
    SpoolError::Io(io::Error::other("an earlier write was not done"))
}
