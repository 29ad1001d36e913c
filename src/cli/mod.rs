//! The command line. Owns what was typed, the API client and everything that is printed for people.
//!
//! Invariant: standard output is a command's result alone; exit codes are 0 for success, 1 for failure, 2 for wrong usage.

pub mod args;
mod capture;
mod check;
pub mod client;
mod report;
pub mod request;
mod wait;

use crate::config::{Plan, Problems};
use crate::observe;
use clap::Parser as _;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments that contradict each other or lack something.
    #[error(transparent)]
    Request(#[from] request::Error),
    /// The server, or the way to it.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A wait that was not to the end.
    #[error(transparent)]
    Wait(#[from] wait::Error),
    /// An answer without an id.
    #[error("the server accepted the capture but named no id; look for it with `trawl capture list`")]
    NoId,
    /// A config that does not hold.
    #[error("{}: {problems}\n`trawl check --config {}` also looks at the host", path.display(), path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Problems,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] observe::Error),
    /// A result that JSON cannot hold.
    #[error("the result cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output is gone.
    #[error("the result cannot be written: {0}")]
    Output(std::io::Error),
    /// The async runtime.
    #[error("the runtime cannot start: {0}; look at the limits on processes and open files (ulimit -a)")]
    Runtime(std::io::Error),
    /// A command whose room is not part of this build.
    #[error("`trawl {0}` is not part of this build")]
    NotBuilt(&'static str),
}

impl Error {
    /// 2 when the arguments were at fault, otherwise 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Request(_) => 2,
            Self::Client(error) if error.is_usage() => 2,
            _ => 1,
        }
    }
}

/// What a command has to say, and whether that is a success.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output, with its last newline.
    pub text: String,
    /// Exit code 0, otherwise 1.
    pub is_success: bool,
}

impl Outcome {
    /// A success: `text` for people, or `value` if JSON is asked for.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn done(text: String, value: &impl Serialize, json: bool) -> Result<Self, Error> {
        let text = if json { serde_json::to_string_pretty(value)? + "\n" } else { text };
        Ok(Self { text, is_success: true })
    }
}

/// Reads the process's arguments, runs the command, prints, and says how the process ends.
#[must_use]
pub fn run() -> ExitCode {
    let result = dispatch(args::Cli::parse().command).and_then(|outcome| {
        match std::io::stdout().lock().write_all(outcome.text.as_bytes()) {
            // A reader that has seen enough (`trawl … | head`) is no failure.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
            _ => Ok(outcome.is_success),
        }
    });
    match result {
        Ok(is_success) => ExitCode::from(u8::from(!is_success)),
        Err(error) => {
            eprintln!("trawl: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: args::Command) -> Result<Outcome, Error> {
    match command {
        args::Command::Check(args) => check::run(&args, None),
        args::Command::Capture(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(Error::Runtime)?.block_on(capture::run(args))
        }
        args::Command::Serve(args) => {
            let plan = Plan::load(&args.config)
                .map_err(|problems| Error::Config { path: args.config.clone(), problems })?;
            observe::init(&plan.log)?;
            Err(Error::NotBuilt("serve"))
        }
        args::Command::Filter(_) => Err(Error::NotBuilt("filter")),
        args::Command::Merge(_) => Err(Error::NotBuilt("merge")),
        args::Command::Verify(_) => Err(Error::NotBuilt("verify")),
    }
}
