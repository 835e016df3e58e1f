//! The paths in the file system that the settings name.

use std::env;
use std::path::PathBuf;

use super::Config;
use crate::server::sandbox::Paths;

/// Where the library that looks for the system's authorities looks first.
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Config {
    /// Everything that is read or written while the process runs by these settings.
    pub fn paths(&self) -> Paths {
        let named = [
            &self.tls.tls_cert,
            &self.tls.tls_key,
            &self.backend.backend_tls_ca,
        ];
        let named = named.into_iter().flatten().cloned();
        let [file, folders] = AUTHORITIES.map(env::var_os);
        let folders = folders.iter().flat_map(env::split_paths);
        Paths {
            files: named
                .chain(self.files.iter().cloned())
                .chain(file.map(PathBuf::from))
                .collect(),
            folders: folders.chain([self.tls.tls_dir.clone()]).collect(),
            writable: vec![self.spool.folder()],
        }
    }
}
