//! What is left of the file system for this process: Landlock, where the kernel
//! has it (5.13).
//!
//! The network is not restricted: a reload may bring other listeners, servers and
//! scanners. Files it may bring too, and those are out of reach then; a restart
//! lets them in. Reading is allowed by folders: who renews a certificate puts
//! another file in the old one's place. Only what lies in the root is allowed by
//! itself, or everything would be. Such a certificate is renewed when its file is
//! written over; where another file takes its place, a restart lets that in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::crew::processors;

/// The newest form of Landlock whose restrictions are understood here.
const NEWEST: ABI = ABI::V6;

/// Links that are followed from one path, as the kernel does.
const LINKS_MAX: usize = 40;

/// What the C library reads when it looks up names of hosts and users, and where
/// systems keep the authorities that they trust.
const SYSTEM: &[&str] = &[
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
];

/// Single files of the system that may be links to somewhere else.
const SYSTEM_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// The paths that the settings name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Files that are read, now or when settings or certificates are loaded again.
    pub files: Vec<PathBuf>,
    /// Folders that are read, with the files that links in them lead to.
    pub folders: Vec<PathBuf>,
    /// Folders in which files are made, read and removed; the root is left out.
    pub writable: Vec<PathBuf>,
}

/// What came of it, to be logged once there is a log.
#[derive(Debug)]
pub struct Sandbox(Result<RestrictionStatus, RulesetError>);

impl Sandbox {
    /// Gives up all other files, for the calling thread and those that it starts:
    /// to be called while it is the only one.
    pub fn enter(paths: &Paths) -> Self {
        // The files that tell of a quota can still be read.
        processors();
        let restricted = restrict(paths);
        let holds = |status: &RestrictionStatus| status.ruleset != RulesetStatus::NotEnforced;
        HOLDS.store(restricted.as_ref().is_ok_and(holds), Ordering::Relaxed);
        Self(restricted)
    }

    /// Tells the log how much the kernel could do.
    pub fn tell(&self) {
        match &self.0 {
            Ok(status) => match status.ruleset {
                RulesetStatus::FullyEnforced => {
                    tracing::info!(
                        "sandbox: only files that settings name and those in their folders can be read"
                    );
                }
                RulesetStatus::PartiallyEnforced => {
                    tracing::info!(
                        "sandbox: only files that settings name and those in their folders can be read; this kernel's Landlock is an older one"
                    );
                }
                RulesetStatus::NotEnforced => {
                    tracing::info!("sandbox: none, this kernel has no Landlock");
                }
            },
            Err(error) => tracing::warn!(%error, "sandbox: none"),
        }
    }
}

/// Whether this process is in a sandbox: there is no way out of one.
static HOLDS: AtomicBool = AtomicBool::new(false);

/// Tells the log what to do if the sandbox may be why something failed.
pub(super) fn suspect(failure: &str) {
    if HOLDS.load(Ordering::Relaxed) && failure.contains("Permission denied") {
        tracing::error!(
            "permission may be denied by the file's mode (RUN_AS), or by the sandbox (SANDBOX), where only files that settings named at the start and those in their folders can be read; a restart lets in others"
        );
    }
}

fn restrict(paths: &Paths) -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(
            readable(paths),
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(
            writable(paths),
            AccessFs::from_all(NEWEST) & !AccessFs::Execute,
        ))?
        .restrict_self()
}

fn writable(paths: &Paths) -> impl Iterator<Item = &PathBuf> {
    paths.writable.iter().filter(|folder| !is_root(folder))
}

/// The folders below which everything may be read, and the files of the root.
fn readable(paths: &Paths) -> BTreeSet<PathBuf> {
    let system_files = SYSTEM_FILES.iter().map(Path::new);
    let files = paths.files.iter().map(PathBuf::as_path);
    let mut readable: BTreeSet<_> = SYSTEM.iter().map(PathBuf::from).collect();
    for file in files.chain(system_files) {
        readable.extend(homes(file));
    }
    let named = paths.files.iter().chain(&paths.folders);
    readable.extend(named.flat_map(|path| beside_links(path)));
    for folder in &paths.folders {
        readable.insert(existing(folder));
        // `<name>/fullchain.pem` may lead out of the folder, and the next one of
        // another name beside where this one leads.
        for name in entries(folder) {
            for file in entries(&name).iter().chain([&name]) {
                let beyond = homes(file).into_iter().skip(1);
                readable.extend(beyond.flat_map(|home| [folder_of(&home), home]));
            }
        }
    }
    // Under whatever name: `certs` that is missing in the root leads to `.`.
    readable.retain(|path| !is_root(path));
    readable
}

/// The folder that a file is in, and those of the files that it is a link to; where
/// that is the root, the file instead.
fn homes(file: &Path) -> Vec<PathBuf> {
    let mut homes = Vec::new();
    let mut file = file.to_owned();
    for _ in 0..LINKS_MAX {
        homes.push(home_of(&file));
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        file = folder_of(&file).join(target);
    }
    // Links among the folders on the way to it.
    if let Ok(real) = fs::canonicalize(&file) {
        let real = home_of(&real);
        let is_known = |home: &PathBuf| fs::canonicalize(home).is_ok_and(|home| home == real);
        if !homes.iter().any(is_known) {
            homes.push(real);
        }
    }
    homes
}

/// The folders of what links on the way to a path lead to: who publishes whole folders
/// puts the next one beside the last and swaps the link. A link in the root is the
/// system's own.
fn beside_links(path: &Path) -> Vec<PathBuf> {
    let mut beside = Vec::new();
    let mut paths = vec![path.to_owned()];
    for _ in 0..LINKS_MAX {
        let Some(path) = paths.pop() else {
            break;
        };
        for link in path.ancestors().filter(|link| !is_root(&folder_of(link))) {
            if let Ok(target) = fs::read_link(link) {
                let target = folder_of(link).join(target);
                beside.push(existing(&folder_of(&target)));
                paths.push(target);
            }
        }
    }
    beside
}

fn home_of(file: &Path) -> PathBuf {
    let folder = existing(&folder_of(file));
    if is_root(&folder) {
        file.to_owned()
    } else {
        folder
    }
}

fn is_root(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|real| real == Path::new("/"))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

/// The folder, or the nearest one above it that is there: it may be made later.
fn existing(folder: &Path) -> PathBuf {
    let mut folder = folder.to_owned();
    while !folder.exists() {
        let above = folder_of(&folder);
        if above == folder {
            break;
        }
        folder = above;
    }
    folder
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn follows_links_to_where_the_next_certificate_will_be() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["live/mx", "archive/mx", "elsewhere", "keys"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("archive/mx/fullchain1.pem"), "").unwrap();
        let link = at("live/mx/fullchain.pem");
        symlink("../../archive/mx/fullchain1.pem", link).unwrap();
        symlink(at("elsewhere/key.pem"), at("keys/key.pem")).unwrap();
        let readable = readable(&Paths {
            files: vec![at("keys/key.pem")],
            folders: vec![at("live")],
            writable: Vec::new(),
        });
        let readable: Vec<_> = readable.iter().flat_map(fs::canonicalize).collect();
        let is_readable = |path: &Path| readable.iter().any(|folder| path.starts_with(folder));
        for path in ["live", "archive", "keys", "elsewhere"] {
            assert!(is_readable(&at(path)), "{path}: {readable:?}");
        }
        assert!(!is_readable(root.path()), "{readable:?}");
    }

    #[test]
    fn a_folder_that_a_link_on_the_way_leads_to_may_be_followed_by_one_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in [
            "tls/r1/mx",
            "tls/r2",
            "far/away/s1",
            "far/away/s2",
            "far/keys",
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("far/away/s1/key.pem"), "").unwrap();
        symlink("r1", at("tls/current")).unwrap();
        symlink("../tls/stable", at("far/link")).unwrap();
        symlink(at("far/away/s1"), at("tls/stable")).unwrap();
        let readable = |files: &[&str], folders: &[&str]| {
            let paths = |paths: &[&str]| paths.iter().map(|path| at(path)).collect();
            let readable = readable(&Paths {
                files: paths(files),
                folders: paths(folders),
                writable: Vec::new(),
            });
            let readable: Vec<_> = readable.iter().flat_map(fs::canonicalize).collect();
            move |path: &str| readable.iter().any(|folder| at(path).starts_with(folder))
        };
        for (files, folders) in [
            (&[][..], &["tls/current"][..]),
            (&["tls/current/mx/fullchain.pem"], &[]),
        ] {
            let is_readable = readable(files, folders);
            assert!(is_readable("tls/r2") && !is_readable("far"), "{files:?}");
        }
        let is_readable = readable(&["far/link/key.pem"], &[]);
        assert!(is_readable("far/away/s2") && !is_readable("far/keys"));
        // What lies in the root is the system's own.
        assert!(beside_links(Path::new("/lib/mx.pem")).is_empty());
    }

    #[test]
    fn waits_for_what_is_not_there_yet_where_it_will_be() {
        let root = tempfile::tempdir().unwrap();
        let readable = readable(&Paths {
            files: vec![root.path().join("later/on/ca.pem")],
            ..Paths::default()
        });
        assert!(readable.contains(root.path()), "{readable:?}");
    }

    #[test]
    fn a_relative_folder_that_is_missing_does_not_open_the_root() {
        let root = tempfile::tempdir().unwrap();
        symlink("/", root.path().join("all")).unwrap();
        let readable = readable(&Paths {
            folders: vec![root.path().join("all/no-such-folder")],
            ..Paths::default()
        });
        let readable: Vec<_> = readable.iter().flat_map(fs::canonicalize).collect();
        assert!(!readable.contains(&PathBuf::from("/")), "{readable:?}");
    }

    #[test]
    fn never_opens_the_whole_file_system() {
        let readable = readable(&Paths {
            files: vec!["/no-such-folder/file".into(), "/file".into()],
            folders: vec!["/no-such-folder".into()],
            writable: Vec::new(),
        });
        assert!(!readable.contains(Path::new("/")), "{readable:?}");
    }

    #[test]
    fn the_root_is_no_folder_to_write_into() {
        let paths = Paths {
            writable: vec!["/".into(), "/tmp/..".into(), "/tmp".into()],
            ..Paths::default()
        };
        assert!(writable(&paths).eq([Path::new("/tmp")]));
    }

    #[test]
    fn a_file_in_the_root_is_read_alone() {
        let readable = readable(&Paths {
            files: vec!["/mx.pem".into()],
            ..Paths::default()
        });
        assert!(readable.contains(Path::new("/mx.pem")), "{readable:?}");
        assert!(!readable.contains(Path::new("/")), "{readable:?}");
    }

    #[test]
    fn a_link_into_the_root_is_followed_and_the_rest_of_it_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        symlink("/home", root.path().join("mx")).unwrap();
        let of = |folder: &Path| {
            readable(&Paths {
                folders: vec![folder.to_owned()],
                ..Paths::default()
            })
        };
        assert!(of(root.path()).contains(Path::new("/home")));
        for folder in [root.path(), Path::new("/")] {
            let readable = of(folder);
            for path in ["/", "/root"] {
                assert!(!readable.contains(Path::new(path)), "{path}: {readable:?}");
            }
        }
    }
}
