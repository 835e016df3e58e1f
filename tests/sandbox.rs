//! The sandbox of Landlock: what settings did not name at the start is out of reach,
//! and the log says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
#![allow(clippy::string_slice, unreachable_pub)]

mod support;

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis::server::sandbox::{Paths, Sandbox};
use support::{Authority, Portcullis, Scripted, Smtp, wait_for};

/// Two folders, each with a list of domains; the setting of the first is given at the
/// start, a reload asks for the other.
struct Lists {
    folder: tempfile::TempDir,
}

impl Lists {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, domain) in [("first", "first.test"), ("other", "other.test")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("domains"), domain).unwrap();
        }
        let lists = Self { folder };
        fs::create_dir(lists.path("etc")).unwrap();
        lists.name("first/domains");
        lists
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc").join("portcullis.toml")
    }

    fn name(&self, list: &str) {
        let setting = format!("domains = '@{}'\n", self.path(list).display());
        fs::write(self.config(), setting).unwrap();
    }
}

fn start(lists: &Lists, backend: &Scripted, sandbox: &str) -> Portcullis {
    let backend = backend.address.to_string();
    let config = lists.config();
    let portcullis = Portcullis::start(&[
        ("BACKEND", &backend),
        ("CONFIG", config.to_str().unwrap()),
        ("SANDBOX", sandbox),
    ]);
    assert!(asks(&portcullis, "first.test").starts_with("250"));
    portcullis
}

fn asks(portcullis: &Portcullis, domain: &str) -> String {
    let mut client = Smtp::connect(portcullis.mx);
    client.expect("220");
    client.ask("EHLO client.test", "250");
    client.ask("MAIL FROM:<a@client.test>", "250");
    client.say(&format!("RCPT TO:<b@{domain}>"));
    client.reply()
}

/// The line of `/proc/PID/status` that begins with this word.
fn status(portcullis: &Portcullis, word: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", portcullis.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap().trim().to_owned()
}

#[test]
fn files_beside_the_named_folders_are_out_of_reach_and_the_log_says_what_to_do() {
    let (backend, lists) = (Scripted::start(&[]), Lists::new());
    let portcullis = start(&lists, &backend, "true");
    portcullis.log_with("sandbox: only files that settings name");
    assert_eq!(status(&portcullis, "NoNewPrivs:"), "1");

    // Another list beside the first is within reach, and one in another folder is not.
    fs::write(lists.path("first/next"), "next.test").unwrap();
    lists.name("first/next");
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    assert!(asks(&portcullis, "next.test").starts_with("250"));

    lists.name("other/domains");
    portcullis.hang_up();
    let log = portcullis.log_with("a restart lets in others");
    assert!(log.contains("Permission denied"), "{log}");
    assert!(asks(&portcullis, "next.test").starts_with("250"));
    assert!(asks(&portcullis, "other.test").starts_with("550"));

    // So is a certificate elsewhere, with all that a reload would change beside it.
    let authority = Authority::new("sandboxed");
    let mine = authority.sign("mx.portcullis.test");
    fs::write(lists.path("first/last"), "last.test").unwrap();
    lists.name("first/last");
    let (chain, key) = (mine.chain.display(), mine.key.display());
    let named = fs::read_to_string(lists.config()).unwrap();
    let text = format!("{named}tls_cert = '{chain}'\ntls_key = '{key}'\n");
    fs::write(lists.config(), text).unwrap();
    portcullis.hang_up();
    portcullis.log_with(&format!("cannot read {chain}"));
    assert!(asks(&portcullis, "last.test").starts_with("550"));
}

#[test]
fn certificates_are_followed_where_a_folder_on_the_way_is_the_link_that_is_swapped() {
    let (backend, authority) = (Scripted::start(&[]), Authority::new("the publisher's"));
    let published = |names_folder: bool| {
        let root = tempfile::tempdir().unwrap();
        let current = root.path().join("current");
        let publish = |release: &str| {
            let issued = authority.sign("mx.portcullis.test");
            let folder = root.path().join(release).join("mx");
            fs::create_dir_all(&folder).unwrap();
            fs::copy(&issued.chain, folder.join("fullchain.pem")).unwrap();
            fs::copy(&issued.key, folder.join("privkey.pem")).unwrap();
            let new = root.path().join("new");
            symlink(release, &new).unwrap();
            fs::rename(new, &current).unwrap();
        };
        publish("r1");
        let file = |name| current.join("mx").join(name).display().to_string();
        let settings = if names_folder {
            vec![("TLS_DIR", current.display().to_string())]
        } else {
            vec![
                ("TLS_CERT", file("fullchain.pem")),
                ("TLS_KEY", file("privkey.pem")),
            ]
        };
        let mut settings: Vec<_> = settings.iter().map(|(name, at)| (*name, &**at)).collect();
        settings.push(("TLS_RELOAD", "200ms"));
        let portcullis = Portcullis::guarding(backend.address, &settings);
        portcullis.log_with("sandbox: only files that settings name");
        publish("r2");
        fs::remove_dir_all(root.path().join("r1")).unwrap();
        let log = portcullis.log_with("certificates have changed");
        assert!(!log.contains("cannot be used"), "{log}");
    };
    published(true);
    published(false);
}

#[test]
fn nothing_is_written_outside_the_spool_and_no_program_is_started() {
    let (spool, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (kept, file) = (other.path().join("kept"), other.path().join("new"));
    fs::write(&kept, "as it was").unwrap();
    let paths = Paths {
        files: vec![kept.clone()],
        folders: Vec::new(),
        writable: vec![spool.path().to_owned()],
    };
    let inside = spool.path().join("body");
    let denied = |what: &str, error: Option<std::io::Error>| {
        let kind = error.map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::PermissionDenied), "{what}");
    };
    // It holds for the thread that enters it.
    let sandboxed = std::thread::spawn(move || {
        Sandbox::enter(&paths);
        fs::write(&inside, "in the spool").unwrap();
        fs::remove_file(&inside).unwrap();
        denied("new file", fs::write(&file, "").err());
        denied("other content", fs::write(&kept, "").err());
        denied("removal", fs::remove_file(&kept).err());
        denied("program", Command::new("/bin/true").spawn().err());
        fs::copy("/etc/passwd", &inside).unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
        denied("program of its own", Command::new(&inside).spawn().err());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "as it was");
    });
    sandboxed.join().unwrap();
}

/// A group of processes that may use as much as one processor does.
struct Quota(PathBuf);

impl Quota {
    fn one() -> Self {
        let name = format!("portcullis-{}", std::process::id());
        let (all, version_1) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/cpu"));
        let (parent, file, quota) = if version_1.is_dir() {
            (version_1, "cpu.cfs_quota_us", "100000")
        } else {
            fs::write(all.join("cgroup.subtree_control"), "+cpu").unwrap();
            (all, "cpu.max", "100000 100000")
        };
        let group = parent.join(name);
        fs::create_dir(&group).unwrap();
        fs::write(group.join(file), quota).unwrap();
        Self(group)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Its last process has been killed and may not be gone.
        wait_for(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_quota_of_processors_is_kept_to_inside_the_sandbox_too() {
    let (backend, quota) = (Scripted::start(&[]), Quota::one());
    let join = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", quota.0.display());
    let backend = backend.address.to_string();
    for sandbox in ["false", "true"] {
        let portcullis = Portcullis::start_under(
            &["sh", "-c", &join, "sh"],
            &[
                ("BACKEND", &backend),
                ("DOMAINS", "example.org"),
                ("SANDBOX", sandbox),
            ],
        );
        let threads = fs::read_dir(format!("/proc/{}/task", portcullis.id())).unwrap();
        let name = |thread: DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap();
        let names = threads.map(|thread| name(thread.unwrap()));
        let hands = names.filter(|name| name.trim() == "sessions").count();
        assert_eq!(hands, 1, "SANDBOX={sandbox}");
    }
}

#[test]
fn without_the_sandbox_every_file_is_within_reach() {
    let (backend, lists) = (Scripted::start(&[]), Lists::new());
    let portcullis = start(&lists, &backend, "false");
    assert!(!portcullis.log().contains("sandbox"));
    lists.name("other/domains");
    portcullis.hang_up();
    portcullis.log_with("settings are reloaded");
    assert!(asks(&portcullis, "other.test").starts_with("250"));
}
