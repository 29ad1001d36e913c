//! The command line. Owns what was typed, the API client and everything that is printed for people.
//!
//! Invariant: standard output is a command's result alone; exit codes are 0 for success, 1 for failure, 2 for wrong usage, 3
//! for a file that is written although inputs are not wholly in it, 128 and more for a signal.

#![deny(clippy::print_stdout, clippy::print_stderr)] // `out` prints, and never panics

pub mod args;
mod audit;
mod backup;
mod bucket;
mod capture;
mod check;
pub mod client;
mod download;
mod fetch;
mod filter;
mod fleet;
mod fleet_args;
mod fleet_view;
mod listing;
#[cfg(feature = "dpdk")]
mod measure;
mod merge;
mod naming;
mod out;
mod pages;
mod recover;
mod report;
pub mod request;
mod signals;
mod stores;
mod verify;
mod wait;

use crate::chain::{chain, printable_json, printable_lines};
use crate::config::{Plan, Problems};
use crate::deliver::{KeyError, SigningKey};
use crate::host::on_this_thread;
use crate::merge::MergeError;
use crate::observe;
use clap::Parser as _;
use serde::Serialize;
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
    /// A bucket that is not added or proven.
    #[error(transparent)]
    Bucket(#[from] bucket::BucketError),
    /// A download's file.
    #[error(transparent)]
    File(#[from] download::FileError),
    /// A capture that is not fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A man page.
    #[error(transparent)]
    Page(#[from] pages::PageError),
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
    /// A result that JSON cannot hold.
    #[error("the result cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output is gone.
    #[error("the result cannot be written: {0}")]
    Output(std::io::Error),
    /// The async runtime.
    #[error("the runtime cannot start: {0}; look at the limits on processes and open files (ulimit -a)")]
    Runtime(std::io::Error),
    /// A spool that cannot be recovered.
    #[error(transparent)]
    Recover(#[from] recover::Problem),
    /// A store that cannot be copied.
    #[error(transparent)]
    Backup(#[from] backup::Problem),
    /// A filter on a file.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// An output's name.
    #[error(transparent)]
    Name(#[from] naming::NameError),
    /// A merge.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A signal ended the command.
    #[error("interrupted; {what}")]
    Interrupted {
        /// Which one.
        signal: tokio::signal::unix::SignalKind,
        /// What it leaves.
        what: String,
    },
    /// A fleet's servers.
    #[error(transparent)]
    Fleet(#[from] fleet::FleetError),
    /// A command on files.
    #[error("{}", chain(&**.0))]
    Command(#[from] anyhow::Error),
    /// The host.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Serve(Box<crate::host::ServeError>),
    /// A measurement.
    #[cfg(feature = "dpdk")]
    #[error("nothing was measured: {0}")]
    Measure(Box<crate::host::MeasureError>),
    /// A command that needs DPDK, in a build without it.
    #[cfg(not(feature = "dpdk"))]
    #[error("`trawl {0}` is not part of this build: it was built with --no-default-features")]
    NotBuilt(&'static str),
}

impl Error {
    /// 2 when the arguments were at fault, otherwise 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Request(_) | Self::Name(_) => 2,
            Self::Interrupted { signal, .. } => signals::exit_code(*signal),
            Self::Client(error) if error.is_usage() => 2,
            Self::Bucket(error) if error.is_usage() => 2,
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
    /// Exit code 3: what was written lacks something of the inputs.
    pub is_partial: bool,
}

impl Outcome {
    /// A success of a command that has said everything already.
    #[must_use]
    pub fn silent() -> Self {
        Self::said(String::new())
    }

    /// A success with this to say.
    #[must_use]
    pub fn said(text: String) -> Self {
        Self { text, is_success: true, is_partial: false }
    }

    /// A success: `text` for people, or `value` if JSON is asked for.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn done(text: String, value: &impl Serialize, json: bool) -> Result<Self, Error> {
        let text = if json { printable_json(serde_json::to_string_pretty(value)? + "\n") } else { text };
        Ok(Self::said(text))
    }
}

/// Reads the process's arguments, runs the command, prints, and says how the process ends.
#[must_use]
pub fn run() -> ExitCode {
    let code = match args::Cli::try_parse() {
        Ok(cli) => match dispatch(cli.command) {
            Ok(outcome) => {
                out::text(&outcome.text);
                match (outcome.is_success, outcome.is_partial) {
                    (false, _) => 1,
                    (true, true) => 3,
                    (true, false) => 0,
                }
            }
            Err(error) => {
                observe::say(&printable_lines(&format!("trawl: {error}\n")));
                error.exit_code()
            }
        },
        Err(usage) => {
            out::usage(&usage);
            u8::try_from(usage.exit_code()).unwrap_or(2)
        }
    };
    match out::finish() {
        Err(error) => {
            observe::say(&format!("trawl: {}\n", Error::Output(error)));
            code.max(1)
        }
        Ok(()) => {
            observe::flush();
            code
        }
    }
    .into()
}

fn dispatch(command: args::Command) -> Result<Outcome, Error> {
    // Merges, recoveries and measurements open as many files as they are given; `serve` says what it got.
    let _as_many_as_may_be = crate::host::raise_open_files();
    match command {
        #[cfg(feature = "dpdk")]
        args::Command::Check(args) if args.measure => check::measure(&args),
        #[cfg(not(feature = "dpdk"))]
        args::Command::Check(args) if args.measure => Err(Error::NotBuilt("check --measure")),
        #[cfg(feature = "dpdk")]
        args::Command::Check(args) => check::run(&args, Some(&crate::host::probe)),
        #[cfg(not(feature = "dpdk"))]
        args::Command::Check(args) => check::run(&args, None),
        args::Command::Capture(args) => block_on(capture::run(args)),
        args::Command::Bucket(args) => block_on(bucket::run(args)),
        args::Command::Serve(args) => {
            // Before anything that takes time: a reload that is asked for meanwhile comes after the start.
            #[cfg(feature = "dpdk")]
            let heard = crate::host::outlive().map_err(Error::Runtime)?;
            let path = args.config.config;
            let plan =
                Plan::load(&path).map_err(|problems| Error::Config { path: path.clone(), problems })?;
            #[cfg(feature = "dpdk")]
            return crate::host::serve(heard, plan, path, args.new_spool)
                .map(|()| Outcome::silent())
                .map_err(|e| Error::Serve(Box::new(e)));
            #[cfg(not(feature = "dpdk"))]
            {
                drop(plan);
                Err(Error::NotBuilt("serve"))
            }
        }
        args::Command::Filter(args::FilterArgs { command: args::FilterCommand::Test(args) }) => {
            filter::run(&args)
        }
        args::Command::Merge(args) => merge::run(&args),
        args::Command::Recover(args) => block_on(until_ended(recover::run(&args))),
        args::Command::Store(args::StoreCommandArgs { command: args::StoreCommand::Backup(args) }) => {
            backup::run(&args)
        }
        args::Command::Audit(args::AuditArgs { command: args::AuditCommand::Verify(args) }) => {
            audit::verify(&args).map_err(Error::Command)
        }
        args::Command::Verify(args) => verify::run(&args).map_err(Error::Command),
        args::Command::ManifestKey(args) => {
            let key = match args.file.try_exists() {
                Ok(true) => SigningKey::load(&args.file)?,
                _ => SigningKey::create(&args.file)?,
            };
            Ok(Outcome::said(key.public().to_pem()))
        }
        args::Command::Fleet(args) => fleet::run(args),
        args::Command::Completions(args) => Ok(pages::completions(args.shell)),
        args::Command::Man(args) => pages::man(&args.dir),
    }
}

fn block_on(work: impl Future<Output = Result<Outcome, Error>>) -> Result<Outcome, Error> {
    on_this_thread().map_err(Error::Runtime)?.block_on(work)
}

/// Lets go of the work when a signal comes; what it has half written is removed with it.
async fn until_ended(work: impl Future<Output = Result<Outcome, Error>>) -> Result<Outcome, Error> {
    let mut ending = signals::Ending::catch().map_err(Error::Runtime)?;
    tokio::select! {
        outcome = work => outcome,
        signal = ending.next() => {
            let what = "the same command goes on with what is not delivered yet".to_owned();
            Err(Error::Interrupted { signal, what })
        }
    }
}
