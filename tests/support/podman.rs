//! The image built from `docker/Dockerfile`, and containers of it.
//!
//! The base image is pulled by nobody: where it is missing it is made of Debian's
//! packages and this machine's own Rust, under the name that the Dockerfile asks for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::resource::{Resource, getrlimit};

use super::{Finished, Running};

const HOUSE: &str = env!("CARGO_MANIFEST_DIR");
const IMAGE: &str = "localhost/portcullis:test";

/// A label of base images that are made here.
const LOCK: &str = "portcullis.lock";

const A_MINUTE: Duration = Duration::from_secs(60);

/// For everything that compiles or unpacks on a small machine.
const LONG: Duration = Duration::from_secs(20 * 60);

/// Builds the image when it is first asked for; its name.
pub fn image() -> &'static str {
    static BUILT: LazyLock<()> = LazyLock::new(build);
    LazyLock::force(&BUILT);
    IMAGE
}

fn build() {
    let dockerfile = fs::read_to_string(Path::new(HOUSE).join("docker/Dockerfile")).unwrap();
    let base = base_image(&dockerfile);
    if !is_usable(&base) {
        make_base(&base);
    }
    // The engine of a container started inside another one may not make namespaces
    // of its own for each step; chroot is enough to compile.
    let arguments = [
        "build",
        "--isolation=chroot",
        "--network=host",
        "--pull-never",
        "--format=docker",
        "--file=docker/Dockerfile",
        &format!("--tag={IMAGE}"),
        ".",
    ];
    let began = Instant::now();
    podman(&arguments, LONG).assert_success();
    eprintln!("image built in {:?}", began.elapsed());
}

/// The image that the Dockerfile's first stage is made from.
fn base_image(dockerfile: &str) -> String {
    let after = |start: &str| {
        let mut lines = dockerfile.lines();
        let line = lines.find_map(|line| line.strip_prefix(start)).unwrap();
        line.split(' ').next().unwrap()
    };
    after("FROM ").replace("${RUST}", after("ARG RUST="))
}

/// Whether the image is there; one of ours holds the crates of `Cargo.lock` besides,
/// since what is built on it may not reach where they come from.
fn is_usable(base: &str) -> bool {
    let format = format!("--format={{{{index .Labels \"{LOCK}\"}}}}");
    let inspected = podman(&["image", "inspect", &format, base], A_MINUTE);
    let lock = inspected.stdout.trim();
    inspected.success() && (lock.is_empty() || lock == lock_hash())
}

/// Names the `Cargo.lock` whose crates are in a base image.
fn lock_hash() -> String {
    let mut hasher = DefaultHasher::new();
    fs::read(Path::new(HOUSE).join("Cargo.lock"))
        .unwrap()
        .hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Debian's smallest system with a C compiler, this machine's Rust and its crates.
fn make_base(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |program: &str, arguments: &[&str]| {
        finish(Command::new(program).args(arguments), LONG).assert_success()
    };
    let began = Instant::now();
    run(
        "mmdebstrap",
        &[
            "--quiet",
            "--variant=minbase",
            "--include=gcc,libc6-dev,ca-certificates",
            "bookworm",
            &text(&root),
        ],
    );
    let local = root.join("usr/local");
    let copy = |from: &Path, to: &Path| {
        if from.exists() {
            fs::create_dir_all(to).unwrap();
            run("cp", &["--archive", &text(from), &text(to)]);
        }
    };
    let toolchain = run("rustc", &["--print", "sysroot"]).stdout;
    for part in ["bin", "lib"] {
        copy(&Path::new(toolchain.trim()).join(part), &local);
    }
    let cargo = local.join("cargo");
    // Where the crates come from is this machine's business.
    copy(&cargo_home().join("config.toml"), &cargo);
    for part in ["index", "cache"] {
        copy(
            &cargo_home().join("registry").join(part),
            &cargo.join("registry"),
        );
    }
    let archive = text(&folder.path().join("base.tar"));
    run("tar", &["-C", &text(&root), "-cf", &archive, "."]);
    let home = "--change=ENV=CARGO_HOME=/usr/local/cargo";
    let lock = format!("--change=LABEL={LOCK}={}", lock_hash());
    let import = ["import", "--quiet", home, &lock, &archive, name];
    podman(&import, LONG).assert_success();
    eprintln!("base image made in {:?}", began.elapsed());
}

fn cargo_home() -> PathBuf {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo"))
}

/// One call of podman, in the house.
#[track_caller]
pub fn podman(arguments: &[&str], deadline: Duration) -> Finished {
    let mut command = Command::new("podman");
    command.args(["--runtime", "runc"]).args(arguments);
    finish(command.current_dir(HOUSE), deadline)
}

#[track_caller]
fn finish(command: &mut Command, deadline: Duration) -> Finished {
    Running::start(command, b"").finish(deadline)
}

/// For `podman run`: its own defaults are above what root may have in a container.
pub fn ulimits() -> [String; 2] {
    let most = |resource, wanted: u64| getrlimit(resource).unwrap().1.min(wanted);
    let files = most(Resource::RLIMIT_NOFILE, 20_500);
    let processes = most(Resource::RLIMIT_NPROC, 4096);
    [
        format!("--ulimit=nofile={files}:{files}"),
        format!("--ulimit=nproc={processes}:{processes}"),
    ]
}

/// A container of the image, gone when it is dropped.
pub struct Container {
    name: String,
}

impl Container {
    /// Starts the image with these words for podman (before the image's name) and
    /// these settings.
    #[track_caller]
    pub fn start(words: &[&str], settings: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-test-{}-{number}", std::process::id());
        let settings: Vec<String> = settings
            .iter()
            .map(|(setting, value)| format!("--env=PORTCULLIS_{setting}={value}"))
            .collect();
        let ulimits = ulimits();
        let mut arguments = vec!["run", "--detach", "--name", &name];
        arguments.extend(ulimits.iter().map(String::as_str));
        arguments.extend(words);
        arguments.extend(settings.iter().map(String::as_str));
        arguments.push(image());
        // Before it is known whether it started: one that did not is left behind too.
        let container = Self { name: name.clone() };
        podman(&arguments, A_MINUTE).assert_success();
        container
    }

    /// A call of podman about this container: `exec`, `kill`, `healthcheck run`.
    #[track_caller]
    pub fn podman(&self, before: &[&str], after: &[&str]) -> Finished {
        let arguments = [before, &[&self.name], after].concat();
        podman(&arguments, A_MINUTE)
    }

    /// TERM, and KILL after more time than any drain takes; to be waited for.
    pub fn stopping(&self) -> Running {
        let mut command = Command::new("podman");
        command.args(["stop", "--time=45", &self.name]);
        Running::start(&mut command, b"")
    }

    /// Lets a stopped container run again.
    #[track_caller]
    pub fn start_again(&self) {
        self.podman(&["start"], &[]).assert_success();
    }

    /// A field of `podman inspect`, in Go's template language.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        let template = format!("--format={{{{{field}}}}}");
        let said = self.podman(&["inspect", &template], &[]).assert_success();
        said.stdout.trim().to_owned()
    }

    pub fn log(&self) -> String {
        self.podman(&["logs"], &[]).output()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut command = Command::new("podman");
        command.args(["rm", "--force", "--time=0", "--volumes", &self.name]);
        drop(command.output());
    }
}
