//! The program under test, started as an admin would: by environment variables.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Finished, Postfix, Running, Smtp, free_address, http, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// All clients of a test come from one address and err on purpose: what keeps
/// such a client short is off unless the test is about it.
const UNLIMITED: [(&str, &str); 2] = [("LIMIT_EXEMPT", "127.0.0.0/8"), ("TARPIT", "0s")];

pub struct Portcullis {
    /// The MX listener.
    pub mx: SocketAddr,
    /// The implicit TLS listener.
    pub tls: SocketAddr,
    pub submission: SocketAddr,
    /// The admin server.
    pub admin: SocketAddr,
    /// From the start of the process to its first greeting.
    pub greeted_after: Duration,
    child: Child,
    folder: tempfile::TempDir,
}

impl Portcullis {
    /// Starts the program with these settings (names without `PORTCULLIS_`) on top
    /// of free loopback ports, and waits for its greeting.
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], settings)
    }

    /// The same, by way of another program that becomes this one: `launcher` is its
    /// name and its words.
    #[track_caller]
    pub fn start_under(launcher: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let address = |name| {
            let set = settings.iter().find(|(given, _)| *given == name);
            let set = set.and_then(|(_, address)| address.parse().ok());
            set.unwrap_or_else(free_address)
        };
        let (mx, tls) = (address("LISTEN"), address("LISTEN_TLS"));
        let (submission, admin) = (address("LISTEN_SUBMISSION"), address("ADMIN"));
        let listeners = [
            ("LISTEN", mx.to_string()),
            ("LISTEN_TLS", tls.to_string()),
            ("LISTEN_SUBMISSION", submission.to_string()),
            ("ADMIN", admin.to_string()),
        ];
        let unlimited = UNLIMITED.map(|(name, value)| (name, value.to_owned()));
        let mut command = command_under(launcher, settings);
        // What its file says is not said by the environment too, which is stronger.
        let file = settings.iter().find(|(name, _)| *name == "CONFIG");
        let file = file.and_then(|(_, path)| std::fs::read_to_string(path).ok());
        let in_file = |name: &str| {
            let key = format!("{} =", name.to_ascii_lowercase());
            let mut lines = file.iter().flat_map(|text| text.lines());
            lines.any(|line| line.starts_with(&key))
        };
        for (name, value) in listeners.iter().chain(&unlimited) {
            if !in_file(name) && settings.iter().all(|(given, _)| given != name) {
                command.env(format!("PORTCULLIS_{name}"), value);
            }
        }
        // Its own: in its sandbox it may read and write there, and tests keep their
        // files in the system's.
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let began = Instant::now();
        let child = command
            .current_dir(folder.path())
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut portcullis = Self {
            mx,
            tls,
            submission,
            admin,
            greeted_after: Duration::ZERO,
            child,
            folder,
        };
        portcullis.wait_for_port();
        Smtp::connect(mx).expect("220");
        portcullis.greeted_after = began.elapsed();
        portcullis
    }

    /// Starts the program before `postfix`, as guard of `example.org`, and waits until
    /// it offers what Postfix offers.
    #[track_caller]
    pub fn before(postfix: &Postfix, settings: &[(&str, &str)]) -> Self {
        let portcullis = Self::guarding(postfix.address, settings);
        portcullis.wait_for_keywords();
        portcullis
    }

    /// Starts the program as guard of `example.org` before whatever listens there.
    #[track_caller]
    pub fn guarding(backend: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let backend = backend.to_string();
        let mut all = vec![("BACKEND", backend.as_str()), ("DOMAINS", "example.org")];
        all.retain(|(name, _)| settings.iter().all(|(given, _)| given != name));
        all.extend_from_slice(settings);
        Self::start(&all)
    }

    /// Runs the program with settings it must not accept, to its end.
    #[track_caller]
    pub fn run_to_end(settings: &[(&str, &str)]) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(settings);
        Running::start(command.current_dir(folder.path()), b"").finish(Duration::from_secs(10))
    }

    /// Runs the program with these words of the command line to its end.
    #[track_caller]
    pub fn run_with(words: &[&str], settings: &[(&str, &str)]) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(settings);
        command.args(words).current_dir(folder.path());
        Running::start(&mut command, b"").finish(Duration::from_secs(60))
    }

    /// Runs `portcullis healthcheck` to its end.
    #[track_caller]
    pub fn healthcheck(settings: &[(&str, &str)]) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(settings);
        command.arg("healthcheck").current_dir(folder.path());
        Running::start(&mut command, b"").finish(Duration::from_secs(10))
    }

    /// Waits until it has learned the backend's keywords, 8BITMIME among them.
    #[track_caller]
    pub fn wait_for_keywords(&self) {
        let learned = wait_for(Duration::from_secs(10), || {
            let mut client = Smtp::connect(self.mx);
            client.expect("220");
            let keywords = client.ask("EHLO probe.test", "250");
            keywords.contains("8BITMIME").then_some(())
        });
        assert!(
            learned.is_some(),
            "never learned the backend's keywords\n{}",
            self.log()
        );
    }

    fn wait_for_port(&mut self) {
        let up = wait_for(Duration::from_secs(10), || {
            let gone = self.child.try_wait().unwrap().is_some();
            let listens = std::net::TcpStream::connect(self.mx).is_ok();
            (gone || listens).then_some(listens)
        });
        assert!(
            up == Some(true),
            "portcullis does not listen:\n{}",
            self.log()
        );
    }

    /// The log so far. The program gathers lines for some milliseconds before it
    /// writes them: to see one that has just been logged, use [`Self::log_with`].
    pub fn log(&self) -> String {
        std::thread::sleep(Duration::from_millis(30));
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The log as JSON objects. A line that is none fails the test.
    #[track_caller]
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error} in log line `{line}`"))
        };
        log.lines().map(parse).collect()
    }

    /// The log once `text` stands in it.
    #[track_caller]
    pub fn log_with(&self, text: &str) -> String {
        wait_for(Duration::from_secs(10), || {
            Some(self.log()).filter(|log| log.contains(text))
        })
        .unwrap_or_else(|| panic!("no `{text}` in\n{}", self.log()))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What a scrape finds, as OpenMetrics text.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let (status, text) = http::get(self.admin, "/metrics");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The value of one series, written as in the text, which must be there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        self.find_metric(series)
            .unwrap_or_else(|| panic!("no {series} in\n{}", self.metrics()))
    }

    /// The same, or 0 for one that is there from its first event on.
    #[track_caller]
    pub fn metric_or_zero(&self, series: &str) -> f64 {
        self.find_metric(series).unwrap_or(0.0)
    }

    /// The value of one series, if it is there.
    #[track_caller]
    pub fn find_metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let values = text.lines().filter_map(|line| line.rsplit_once(' '));
        let mut values = values.filter(|(name, _)| *name == series);
        values.next().map(|(_, value)| value.parse().unwrap())
    }

    /// Status and content of the readiness page.
    #[track_caller]
    pub fn ready(&self) -> (u16, Value) {
        let (status, text) = http::get(self.admin, "/readyz");
        (status, serde_json::from_str(&text).expect(&text))
    }

    /// Resident memory in octets.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that resident memory has ever been, in octets.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = super::between(&status, field, "kB").unwrap();
        line.trim().parse::<u64>().unwrap() * 1024
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, without a goodbye.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many files it has open, sockets included.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        let folder = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// The exit code, once the program has ended; a signal's death is `None` inside.
    #[track_caller]
    pub fn ended(&mut self, deadline: Duration) -> Option<i32> {
        wait_for(deadline, || self.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still runs after {deadline:?}\n{}", self.log()))
            .code()
    }
}

impl Drop for Portcullis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program with a clean environment: no setting but those of the test.
fn command(settings: &[(&str, &str)]) -> Command {
    command_under(&[], settings)
}

fn command_under(launcher: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut words = launcher.iter().chain(&[BINARY]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .env_clear()
        .env("PORTCULLIS_HOSTNAME", "mx.portcullis.test")
        .env("PORTCULLIS_LOG_FORMAT", "json");
    for (name, value) in settings {
        command.env(format!("PORTCULLIS_{name}"), value);
    }
    command
}
