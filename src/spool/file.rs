//! The part of a body that is on disk: a file without a name, so that nobody
//! else can open it and nothing is left behind when the process dies.
//!
//! Every call blocks; whoever calls sees to it that the runtime is not held up.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use bytes::Bytes;

use super::CHUNK;
use super::SpoolError;
use super::budget::Share;
use super::memory::octets;

/// Disk is reserved in steps of this many octets, or exactly when there is no
/// room for a step.
const STEP: u64 = 1024 * 1024;

/// An open file that has no name, and how much of it is written.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    length: u64,
    disk: Share,
}

impl SpoolFile {
    /// Makes the file, readable by its owner alone (mode 0600).
    pub(super) fn create(dir: &Path, disk: Share) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        // Without a name nobody can have opened it before.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Self {
            file,
            length: 0,
            disk,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Writes `octets` behind what there is. After an error the file is of no
    /// more use.
    pub(super) fn append(&mut self, octets: &[u8]) -> Result<(), SpoolError> {
        let end = self.length + self::octets(octets.len());
        let missing = end.saturating_sub(self.disk.held());
        if missing > 0 && !self.disk.grow(missing.max(STEP)) && !self.disk.grow(missing) {
            return Err(SpoolError::Full);
        }
        self.file.write_all_at(octets, self.length)?;
        self.length = end;
        Ok(())
    }

    /// Nothing more will come: gives back the disk that was not used.
    pub(super) fn finish(&mut self) {
        self.disk.shrink_to(self.length);
    }

    /// What stands at `place`, at most [`CHUNK`] octets; empty at the end.
    pub(super) fn read(&self, place: u64) -> io::Result<Bytes> {
        let left = self.length.saturating_sub(place);
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let mut piece = vec![0; size];
        self.file.read_exact_at(&mut piece, place)?;
        Ok(Bytes::from(piece))
    }

    #[cfg(test)]
    pub(super) fn metadata(&self) -> std::fs::Metadata {
        self.file.metadata().unwrap()
    }
}
