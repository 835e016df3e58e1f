//! Other people's programs, run under a deadline.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A program that has come to its end.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Both streams, for a failure's message and for looking something up.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The test goes on only if the program was content.
    #[track_caller]
    pub fn assert_success(self) -> Self {
        assert!(self.success(), "{}\n{}", self.status, self.output());
        self
    }
}

/// A program under way; killed if it is dropped before it is waited for.
pub struct Running {
    name: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command, stdin: &[u8]) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error} (tests/run installs it)"));
        let mut pipe = child.stdin.take().unwrap();
        let text = stdin.to_owned();
        // A program that does not care for its input closes the pipe: no error.
        std::thread::spawn(move || drop(pipe.write_all(&text)));
        Self {
            stdout: child.stdout.take().map(collect),
            stderr: child.stderr.take().map(collect),
            name,
            child,
        }
    }

    /// Waits for the end; a program that is late is killed and fails the test.
    #[track_caller]
    pub fn finish(mut self, deadline: Duration) -> Finished {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if start.elapsed() > deadline {
                drop(self.child.kill());
                drop(self.child.wait());
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = text(self.stdout.take());
        let stderr = text(self.stderr.take());
        let Some(status) = status else {
            panic!(
                "{} was not done after {deadline:?}\n{stdout}{stderr}",
                self.name
            );
        };
        Finished {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `program` to its end with `stdin` as its input.
#[track_caller]
pub fn run(program: &str, arguments: &[&str], stdin: &[u8], deadline: Duration) -> Finished {
    Running::start(Command::new(program).args(arguments), stdin).finish(deadline)
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        drop(stream.read_to_end(&mut all));
        all
    })
}

fn text(collected: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = collected.map(|thread| thread.join().unwrap());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}
