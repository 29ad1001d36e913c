//! `trawl completions` and `trawl man`: what is made of the commands' own description.
//!
//! Invariant: nothing here repeats what the description says.

use super::args::Cli;
use super::{Error, Outcome};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// A man page cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct PageError {
    path: PathBuf,
    source: std::io::Error,
}

/// The completions of a shell.
#[must_use]
pub fn completions(shell: Shell) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trawl", &mut text);
    Outcome::said(String::from_utf8_lossy(&text).into_owned())
}

/// Writes `trawl.1`, `trawl-capture.1`, `trawl-capture-start.1` and so on into `dir`, which is made if it is missing.
///
/// # Errors
/// [`PageError`].
pub fn man(dir: &Path) -> Result<Outcome, Error> {
    let failed = |source| PageError { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    let pages = std::fs::read_dir(dir).map_err(failed)?.count();
    Ok(Outcome::said(format!("{}: {pages} pages\n", dir.display())))
}
