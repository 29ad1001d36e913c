//! What servers that a test starts get of the test's own files. Owns that it is standard input, output and error alone.
//!
//! A test's caller may have left it more, such as a lock of a shell. A server would hold that lock for as long as it runs, and a test
//! that counts its descriptors would count it.

#![allow(dead_code, reason = "each test binary that shares this file uses a part of it")]

use std::ffi::OsStr;
use std::process::Command;

/// Closes what it has beyond standard error and becomes the program that it is given, in the same process.
const CLOSE: &str = r#"for file in /proc/$$/fd/*; do
    number=${file##*/}
    if [ "$number" -gt 2 ]; then eval "exec $number>&-"; fi
done
exec "$@""#;

/// What a shell ends with where there is no such program.
pub const NO_PROGRAM: i32 = 127;

/// A program that inherits nothing else; its arguments come behind.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE, "bash"]).arg(name);
    command
}
