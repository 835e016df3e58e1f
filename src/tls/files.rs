//! The files that certificates come from: finds and reads them, so that a
//! change of any of them is seen.
//!
//! It reads every file anew, whatever links lead there: certbot changes a link
//! to a file, Kubernetes one to a folder, and editors rename. It never judges
//! what a file holds.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Settings, TlsError};

const CHAIN_FILE: &str = "fullchain.pem";
const KEY_FILE: &str = "privkey.pem";

/// Octets of a PEM file; a chain of ten large certificates has about 30,000, the
/// authorities of the whole world 300,000.
const SIZE_MAX: u64 = 4 << 20;

/// What lay on disk at one moment.
#[derive(Debug)]
pub struct CertificateFiles {
    /// `TLS_CERT` first, then the folders of `TLS_DIR` by name.
    pub(super) found: Vec<Found>,
    /// Why nobody knows what else there may be.
    pub(super) problems: Vec<TlsError>,
}

/// What ought to be a certificate.
#[derive(Debug)]
pub(super) enum Found {
    /// A chain and a key.
    Pair(Pair),
    /// One of them is missing or cannot be read.
    Broken {
        /// Where they are or ought to be.
        origin: Origin,
        /// What is wrong.
        problems: Vec<TlsError>,
    },
}

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The folder's name in lower case, a host name by convention; none for
    /// `TLS_CERT`.
    pub(super) folder: Option<String>,
    /// The file of the chain.
    pub(super) chain: PathBuf,
}

/// A chain and a key that belong together.
#[derive(Debug)]
pub(super) struct Pair {
    /// As in [`Origin`].
    pub(super) folder: Option<String>,
    pub(super) chain: PemFile,
    pub(super) key: PemFile,
}

/// One file and what it held.
pub(super) struct PemFile {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

/// The content may be a private key.
impl std::fmt::Debug for PemFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

impl CertificateFiles {
    /// Reads all that the settings name. Blocks.
    pub fn read(settings: &Settings) -> Self {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        match (&settings.tls_cert, &settings.tls_key) {
            (Some(chain), Some(key)) => found.push(Found::read(None, chain, key)),
            (Some(_), None) => problems.push(TlsError::HalfASetting {
                given: "TLS_CERT",
                missing: "TLS_KEY",
            }),
            (None, Some(_)) => problems.push(TlsError::HalfASetting {
                given: "TLS_KEY",
                missing: "TLS_CERT",
            }),
            (None, None) => {}
        }
        match folders(&settings.tls_dir) {
            Ok(folders) => found.extend(folders.iter().filter_map(|path| Found::in_folder(path))),
            Err(problem) => problems.push(problem),
        }
        Self { found, problems }
    }

    /// A number that is another one when anything has changed.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let tell = |problems: &[TlsError], hasher: &mut DefaultHasher| {
            for problem in problems {
                problem.to_string().hash(hasher);
            }
        };
        for found in &self.found {
            match found {
                Found::Pair(pair) => {
                    for file in [&pair.chain, &pair.key] {
                        file.path.hash(&mut hasher);
                        file.content.hash(&mut hasher);
                    }
                }
                Found::Broken { origin, problems } => {
                    origin.chain.hash(&mut hasher);
                    tell(problems, &mut hasher);
                }
            }
        }
        tell(&self.problems, &mut hasher);
        hasher.finish()
    }
}

impl Found {
    /// The pair in a folder, or nothing if the folder holds neither file.
    fn in_folder(folder: &Path) -> Option<Self> {
        let (chain, key) = (folder.join(CHAIN_FILE), folder.join(KEY_FILE));
        let name = folder.file_name();
        let name = name.map(|name| name.to_string_lossy().to_ascii_lowercase());
        let problem = match (exists(&chain), exists(&key)) {
            (Ok(false), Ok(false)) => return None,
            (Ok(true), Ok(true)) => return Some(Self::read(name, &chain, &key)),
            (Ok(true), Ok(false)) => TlsError::HalfAPair {
                present: chain.clone(),
                missing: KEY_FILE,
            },
            (Ok(false), Ok(true)) => TlsError::HalfAPair {
                present: key,
                missing: CHAIN_FILE,
            },
            (Err(problem), _) | (_, Err(problem)) => problem,
        };
        Some(Self::Broken {
            origin: Origin {
                folder: name,
                chain,
            },
            problems: vec![problem],
        })
    }

    fn read(folder: Option<String>, chain: &Path, key: &Path) -> Self {
        match (PemFile::read(chain), PemFile::read(key)) {
            (Ok(chain), Ok(key)) => Self::Pair(Pair { folder, chain, key }),
            (chain_read, key_read) => Self::Broken {
                origin: Origin {
                    folder,
                    chain: chain.to_owned(),
                },
                problems: [chain_read.err(), key_read.err()]
                    .into_iter()
                    .flatten()
                    .collect(),
            },
        }
    }
}

impl PemFile {
    /// Reads a file that may not be huge.
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let mut content = Vec::new();
        let read = open(path).and_then(|file| {
            // One octet more tells a file that is too large from one that fits.
            file.take(SIZE_MAX + 1).read_to_end(&mut content)
        });
        match read {
            Ok(octets) if octets as u64 <= SIZE_MAX => Ok(Self {
                path: path.to_owned(),
                content,
            }),
            Ok(_) => Err(unreadable(path, io::ErrorKind::FileTooLarge.into())),
            Err(error) => Err(unreadable(path, error)),
        }
    }
}

/// Opens what is a file: a FIFO would be waited for, and no reload be heard any more.
fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// The folders right below `dir`, links to folders included (certbot makes
/// such), by name; none when there is no `dir`. Names that begin with two dots
/// are Kubernetes' own: what they hold is linked to from beside them.
fn folders(dir: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(dir, error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut folders = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(dir, error))?;
    folders.retain(|path| !is_kubernetes_own(path) && path.is_dir());
    folders.sort();
    Ok(folders)
}

fn is_kubernetes_own(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

/// A folder that may not be entered is an error, not an absent file.
fn exists(path: &Path) -> Result<bool, TlsError> {
    path.try_exists().map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, source: io::Error) -> TlsError {
    TlsError::Unreadable {
        path: path.to_owned(),
        source,
    }
}
