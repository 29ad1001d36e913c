//! What commands print. Owns standard output and standard error; nothing else in `cli` writes to them, but for progress bars.
//!
//! A reader that has seen enough (`trawl … | head`) ends the output quietly. Any other failure is remembered, and the
//! command that could not be printed ends with an error.
//!
//! Invariant: printing never panics, and text that is printed does nothing to a terminal but move to the next line. Where a stranger's
//! text must also stay on its line, its callers use [`crate::chain::printable`].

use crate::chain::printable_lines;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

#[derive(Debug, Default)]
struct State {
    /// Streams, out and err, that nobody reads any more or that fail.
    is_closed: [bool; 2],
    failure: Option<io::Error>,
}

static STATE: Mutex<State> = Mutex::new(State { is_closed: [false; 2], failure: None });

/// Writes text to standard output.
pub fn text(text: &str) {
    bytes(printable_lines(text).as_bytes());
}

/// Writes a line to standard output.
pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Writes bytes as they are to standard output; whether anybody reads on.
pub fn bytes(bytes: &[u8]) -> bool {
    write(Stream::Out, bytes)
}

/// Writes a line to standard error.
pub fn note(line: &str) {
    write(Stream::Err, printable_lines(&format!("{line}\n")).as_bytes());
}

/// Whether standard output was closed when the process began. Rust's runtime puts `/dev/null` there then, open to read and write,
/// so that packets would vanish without an error; a shell's `>/dev/null` is open to write alone.
pub fn is_closed() -> bool {
    let stdout = io::stdout();
    let is_null = rustix::fs::fstat(&stdout).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3));
    is_null && rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR))
}

/// Writes help or a complaint about arguments, in colours on a terminal.
pub fn usage(usage: &clap::Error) {
    let (stream, is_terminal) = match usage.use_stderr() {
        true => (Stream::Err, io::stderr().is_terminal()),
        false => (Stream::Out, io::stdout().is_terminal()),
    };
    let text = usage.render();
    let text = if is_terminal { text.ansi().to_string() } else { text.to_string() };
    write(stream, text.as_bytes());
}

/// Writes what is buffered, and gives the first failure there was.
///
/// # Errors
/// Why something could not be printed; not that its reader has left.
pub fn finish() -> io::Result<()> {
    write(Stream::Out, b"");
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.failure.take().map_or(Ok(()), Err)
}

fn write(stream: Stream, bytes: &[u8]) -> bool {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.is_closed[stream as usize] {
        return false;
    }
    let written = match stream {
        Stream::Out => put(io::stdout().lock(), bytes),
        Stream::Err => put(io::stderr().lock(), bytes),
    };
    let Err(error) = written else { return true };
    state.is_closed[stream as usize] = true;
    if error.kind() != ErrorKind::BrokenPipe {
        state.failure.get_or_insert(error);
    }
    false
}

fn put(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    /// Reads every source file of `cli`.
    #[test]
    fn nothing_in_cli_prints_past_this_file() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let Ok(source) = std::fs::read_to_string(&path) else { continue };
            files += 1;
            // This file names them.
            if path.ends_with("src/cli/out.rs") {
                continue;
            }
            for forbidden in
                ["println!", "print!", "dbg!", "stdout().lock", "stdout().write", "stderr().write"]
            {
                assert!(!source.contains(forbidden), "{} has {forbidden}", path.display());
            }
        }
        assert!(files > 15);
    }
}
