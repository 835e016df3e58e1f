//! Start and exit code: the command line in, one of the library's jobs out.

use std::env;
use std::io::{self, Write};
use std::process;
use std::sync::Arc;

use portcullis::check::{self, Fault};
use portcullis::config::command_line::{self, Command, CommandLine, Depth, Output};
use portcullis::config::{self, Config};
use portcullis::demo;
use portcullis::server::sandbox::Sandbox;
use portcullis::server::{self, Rooms, ServeError, Sockets, admin, log};
use portcullis::settings::Problems;

/// How the process ends (the numbers are those of `sysexits.h`).
#[derive(Clone, Copy)]
enum ExitCode {
    /// Everything was done.
    Done = 0,
    /// Something failed while running.
    Failed = 1,
    /// The command line does not have the right form.
    CommandLine = 64,
    /// Something outside that is needed does not answer.
    Unavailable = 69,
    /// The system does not let us listen where we should, or become whom we should.
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
        Command::Demo => demo(flags),
        Command::Check { depth, output } => check(flags, depth, output),
        Command::Explain { output } => explain(flags, output),
        Command::Healthcheck => healthcheck(flags),
        Command::Serve => serve(flags),
    }
}

/// Guards the backend until told to stop.
fn serve(flags: Vec<(String, String)>) -> ExitCode {
    let sockets = Sockets::handed_over();
    let reread = move || config::load(flags.clone(), env::vars_os());
    match told(reread()) {
        Ok(config) => {
            let reread = Arc::new(move || reread().map(Rooms::from));
            start(config, |config| {
                server::run(config.into(), reread, sockets, std::future::pending())
            })
        }
        Err(code) => code,
    }
}

/// Guards the example server and shows what arrives.
fn demo(flags: Vec<(String, String)>) -> ExitCode {
    // Bound before the configuration is read: the proxy must know the port.
    let listener = match std::net::TcpListener::bind(("127.0.0.1", 0)) {
        Ok(listener) => listener,
        Err(error) => {
            complain(&format!("cannot bind the example server: {error}\n"));
            return ExitCode::MayNotBind;
        }
    };
    let example = match demo::Example::new(listener) {
        Ok(example) => example,
        Err(error) => {
            complain(&format!("cannot start the example server: {error}\n"));
            return ExitCode::Failed;
        }
    };
    let flags: Vec<_> = demo::flags(example.address())
        .into_iter()
        .chain(flags)
        .collect();
    let reread = move || {
        let mut config = config::load(flags.clone(), env::vars_os())?;
        // Told to people, wherever the output goes.
        config.log.log_format.get_or_insert(log::LogFormat::Text);
        Ok(config)
    };
    match told(reread()) {
        Ok(config) => {
            let reread = Arc::new(move || reread().map(Rooms::from));
            start(config, |config| demo::run(config.into(), reread, example))
        }
        Err(code) => code,
    }
}

/// Asks the process that serves at this `ADMIN` how it is. What else is set does not
/// matter: it may have been given by flags, which are not ours.
fn healthcheck(flags: Vec<(String, String)>) -> ExitCode {
    let (parts, problems) = config::read(flags, env::vars_os());
    let Some(server) = parts.server else {
        return misconfigured(&problems);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(admin::ask(&server.admin)),
        Err(error) => return failed(&error),
    };
    match asked {
        Ok(()) => print("ready\n"),
        Err(not_ready) => failed(&not_ready),
    }
}

/// Looks for what is wrong with these settings.
fn check(flags: Vec<(String, String)>, depth: Depth, output: Output) -> ExitCode {
    let (parts, problems) = config::read(flags, env::vars_os());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(check::run(parts, problems, depth)),
        Err(error) => return failed(&error),
    };
    print(&match output {
        Output::Lines => report.to_string(),
        Output::Json => report.json(),
    });
    match report.worst() {
        None => ExitCode::Done,
        Some(Fault::OpenRelay) => ExitCode::Failed,
        Some(Fault::Configuration) => ExitCode::Configuration,
        Some(Fault::Unavailable) => ExitCode::Unavailable,
    }
}

/// Prints every setting, good or bad, and then what is wrong.
fn explain(flags: Vec<(String, String)>, output: Output) -> ExitCode {
    let explanation = config::explain(flags, env::vars_os());
    print(&match output {
        Output::Lines => explanation.to_string(),
        Output::Json => explanation.json(),
    });
    if explanation.problems.is_empty() {
        ExitCode::Done
    } else {
        misconfigured(&explanation.problems)
    }
}

fn misconfigured(problems: &Problems) -> ExitCode {
    let count = problems.0.len();
    complain(&format!("bad configuration, problems: {count}\n{problems}"));
    ExitCode::Configuration
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("{error}\n"));
    ExitCode::Failed
}

/// A configuration, or what is wrong with it on the terminal.
fn told(read: Result<Config, Problems>) -> Result<Config, ExitCode> {
    read.map_err(|problems| misconfigured(&problems))
}

/// Sets up log and runtime, and runs a job in them.
fn start<Job>(config: Config, job: impl FnOnce(Config) -> Job) -> ExitCode
where
    Job: Future<Output = Result<(), ServeError>>,
{
    // Before there is another thread, which would keep what this one gives up.
    let sandbox = config
        .server
        .sandbox
        .then(|| Sandbox::enter(&config.paths()));
    let log = match log::init(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            complain(&format!("{error}\n"));
            return ExitCode::Failed;
        }
    };
    if let Some(sandbox) = sandbox {
        sandbox.tell();
    }
    // Sessions have threads of their own.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}\n"));
            return ExitCode::Failed;
        }
    };
    let ended = runtime.block_on(job(config));
    // Whoever is still at work has had DRAIN, and is cut off.
    runtime.shutdown_background();
    drop(log);
    match ended {
        Ok(()) => ExitCode::Done,
        Err(ServeError::Unusable(problems)) => misconfigured(&problems),
        Err(error) => {
            complain(&format!("{error}\n"));
            match error {
                ServeError::Bind { .. } | ServeError::Privileges(_) => ExitCode::MayNotBind,
                ServeError::Unusable(_) | ServeError::Deaf => ExitCode::Configuration,
                ServeError::Io(_) => ExitCode::Failed,
            }
        }
    }
}

/// Prints the answer to a question; a reader that went away (`| head`) has enough.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::Done
}

fn complain(text: &str) {
    let _ = write!(io::stderr(), "portcullis: {text}");
}
