//! The files that certificates come from: finds and reads them, so that a
//! change of any of them is seen.
//!
//! It reads every file anew, whatever links lead there: certbot changes a link
//! to a file, Kubernetes one to a folder, and editors rename. It never judges
//! what a file holds.

use std::fs::{self, File, Metadata};
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
        match entries(settings) {
            Ok(paths) => found.extend(paths.iter().filter_map(|path| Found::in_folder(path))),
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
    /// The pair in a folder, or nothing if that holds neither file or is no folder.
    fn in_folder(path: &Path) -> Option<Self> {
        let (chain, key) = (path.join(CHAIN_FILE), path.join(KEY_FILE));
        let name = path.file_name();
        let name = name.map(|name| name.to_string_lossy().to_ascii_lowercase());
        let problems = match look(path) {
            Ok(Some(there)) if there.is_dir() => match (look(&chain), look(&key)) {
                (Ok(None), Ok(None)) => return None,
                (Ok(Some(_)), Ok(Some(_))) => return Some(Self::read(name, &chain, &key)),
                (Ok(Some(_)), Ok(None)) => vec![TlsError::HalfAPair {
                    present: chain.clone(),
                    missing: KEY_FILE,
                }],
                (Ok(None), Ok(Some(_))) => vec![TlsError::HalfAPair {
                    present: key,
                    missing: CHAIN_FILE,
                }],
                (chain, key) => [chain.err(), key.err()].into_iter().flatten().collect(),
            },
            Ok(_) => return None,
            Err(problem) => vec![problem],
        };
        let origin = Origin {
            folder: name,
            chain,
        };
        Some(Self::Broken { origin, problems })
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

/// What lies right below `TLS_DIR`, by name; nothing when the default folder is not
/// there, for then nobody has asked for it. Names that begin with two dots are
/// Kubernetes' own: what they hold is linked to from beside them.
fn entries(settings: &Settings) -> Result<Vec<PathBuf>, TlsError> {
    let dir = &settings.tls_dir;
    if *dir == Settings::default().tls_dir && look(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let unreadable = |error| unreadable(&settings.folder(), error);
    let entries = fs::read_dir(dir).map_err(unreadable)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.retain(|path| !is_kubernetes_own(path));
    paths.sort();
    Ok(paths)
}

fn is_kubernetes_own(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

/// What is there, links followed; none where nothing has that name. A folder that
/// may not be entered is an error, and so is a link that leads nowhere: neither tells
/// that there is no file.
fn look(path: &Path) -> Result<Option<Metadata>, TlsError> {
    match fs::metadata(path) {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => Err(unreadable(path, io::Error::other("the link leads nowhere"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(path, error)),
        },
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, source: io::Error) -> TlsError {
    TlsError::Unreadable {
        path: path.to_owned(),
        source,
    }
}
