//! Errors in words. Owns the one way to print an error with its causes.
//!
//! The text of every error of ours is complete: it contains that of its cause, once. So a log line, an answer of the API or a finding
//! prints the error alone (`%error`, `{error}`), and only what others put around it (`anyhow`, `reqwest`, `redb`) has causes to add.
//!
//! Invariant: no cause is printed twice.

use std::error::Error;

/// An error with its causes in one line; those that repeat what was said are left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::MergeError;
    use crate::pcap::ReadError;
    use anyhow::Context as _;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    #[test]
    fn each_cause_is_printed_once_however_deep_it_lies() {
        let path = PathBuf::from("a.pcap");
        let read = ReadError::Open { path: path.clone(), source: io::Error::from_raw_os_error(2) };
        let merge: Result<(), _> = Err(MergeError::Read { path, source: read });
        let error = merge.context("cannot merge").unwrap_err();
        let text = chain(&*error);
        assert!(text.starts_with("cannot merge: "), "{text}");
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        assert_eq!(format!("{error:#}").matches("No such file").count(), 3, "what anyhow would print");
    }

    fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("chain.rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }

    fn all() -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 100);
        found
    }

    /// `{:#}` of anyhow prints each cause again that a text contains.
    #[test]
    fn nothing_prints_a_chain_but_this_file() {
        for (path, text) in all() {
            for (at, line) in text.lines().enumerate() {
                assert!(!line.contains(":#}"), "{}:{}: use crate::chain::chain", path.display(), at + 1);
            }
        }
    }

    /// The variants of all error enums, as (text, name and members).
    fn variants(source: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for piece in source.split("#[error(").skip(1) {
            let Some(end) = piece.find(")]\n") else { continue };
            let members = piece[end + 3..].lines().map(str::trim).filter(|line| !line.starts_with("//"));
            let mut body = String::new();
            for line in members {
                body.push_str(line);
                body.push('\n');
                if line == "}" || line == "}," || (line.ends_with(',') && !body.contains('{')) {
                    break;
                }
            }
            found.push((piece[..end].to_owned(), body));
        }
        found
    }

    /// What a text leaves out is in no log line and no answer.
    #[test]
    fn the_text_of_every_error_contains_its_cause() {
        let mut seen = 0;
        for (path, source) in all() {
            for (text, body) in variants(&source) {
                let is_tuple = body.contains("#[from]") || body.contains("#[source]");
                let is_named = body.lines().any(|line| line.starts_with("source:"));
                if text.contains("transparent") || !(is_tuple || is_named) {
                    continue;
                }
                seen += 1;
                let says = text.contains("{source") || text.contains("{0") || text.contains(".0");
                assert!(says, "{}: {text}: name the cause in the text", path.display());
            }
        }
        assert!(seen >= 30, "only {seen} were found");
    }
}
