//! Start and exit code: the command line in, one of the library's jobs out.

use std::env;
use std::io::{self, Write};
use std::process;

use portcullis::config::command_line::{self, Command, CommandLine};
use portcullis::config::{self, Config};
use portcullis::server::log;

/// How the process ends (the numbers are those of `sysexits.h`).
#[derive(Clone, Copy)]
enum ExitCode {
    /// Everything was done.
    Done = 0,
    /// Something failed while running.
    Failed = 1,
    /// The command line does not have the right form.
    CommandLine = 64,
    /// A service that is needed is not there.
    #[expect(dead_code, reason = "for the server to say")]
    Unavailable = 69,
    /// The system does not let us listen where we should.
    #[expect(dead_code, reason = "for the server to say")]
    MayNotBind = 77,
    /// The configuration is bad.
    Configuration = 78,
}

fn main() -> process::ExitCode {
    process::ExitCode::from(run() as u8)
}

fn run() -> ExitCode {
    let CommandLine { command, flags } = match command_line::parse(env::args_os().skip(1)) {
        Ok(line) => line,
        Err(misuse) => {
            complain(&format!("{misuse}\nTry portcullis --help.\n"));
            return ExitCode::CommandLine;
        }
    };
    match command {
        Command::Help => print(&config::help()),
        Command::Version => print(concat!("portcullis ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve | Command::Demo => match config::load(flags, env::vars_os()) {
            Ok(config) if command == Command::Demo => demo(config),
            Ok(config) => serve(config),
            Err(problems) => {
                let count = problems.0.len();
                complain(&format!("bad configuration, problems: {count}\n{problems}"));
                ExitCode::Configuration
            }
        },
    }
}

/// Guards the backend until told to stop.
fn serve(config: Config) -> ExitCode {
    let _log = match log::init(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            complain(&format!("{error}\n"));
            return ExitCode::Failed;
        }
    };
    complain("serving is not built yet\n");
    ExitCode::Failed
}

/// Guards the example backend and shows what arrives.
fn demo(_config: Config) -> ExitCode {
    complain("the demo is not built yet\n");
    ExitCode::Failed
}

/// Prints the answer to a question; a reader that went away (`| head`) has enough.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::Done
}

fn complain(text: &str) {
    let _ = write!(io::stderr(), "portcullis: {text}");
}
