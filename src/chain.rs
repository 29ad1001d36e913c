//! Errors in words. Owns the one way to print an error with its causes, and the one way to print what strangers say.
//!
//! The text of every error of ours is complete: it contains that of its cause, once. So a log line, an answer of the API or a finding
//! prints the error alone (`%error`, `{error}`), and only what others put around it (`anyhow`, `reqwest`, `redb`) has causes to add.
//!
//! A store, a server, a bucket and a directory can hold any text. In a log or a terminal it must stay what it is: it forges no line,
//! moves no cursor, sets no title, turns no direction of writing around.
//!
//! Invariant: no cause is printed twice; what comes from here is one line of visible characters.

use std::borrow::Cow;
use std::error::Error;

/// The most of a stranger's text that is shown.
const CHARS_MAX: usize = 1000;

/// `text` as one line of visible characters, at most [`CHARS_MAX`] of them: the others stand as their escapes.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    shown(text, is_visible, CHARS_MAX)
}

/// The same for text of several lines, of any length: line ends and tabs stay.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| is_visible(c) || matches!(c, '\n' | '\t'), usize::MAX)
}

/// `json` with every character that a terminal would not show written as its escape: the same value.
pub(crate) fn printable_json(json: String) -> String {
    let is_kept = |c| is_visible(c) || c == '\n';
    if json.chars().all(is_kept) {
        return json;
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_kept(c) {
            shown.push(c);
        } else {
            shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool, chars_max: usize) -> Cow<'_, str> {
    if text.len() <= chars_max && text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(chars_max));
    let mut chars = 0;
    for c in text.chars() {
        let escape = (!is_kept(c)).then(|| c.escape_default());
        chars += escape.as_ref().map_or(1, ExactSizeIterator::len);
        if chars > chars_max {
            shown.push('…');
            break;
        }
        match escape {
            Some(escape) => shown.extend(escape),
            None => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal shows a character as a sign of its own and does nothing else: no control (C0, C1), no line end, no direction
/// of writing, nothing of no width (Unicode 16, general categories Cc, Cf, Zl, Zp, and what else is ignored by default).
fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{70f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{600}'..='\u{605}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// An error with its causes in one printable line; those that repeat what was said are left out.
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
    printable(&text).into_owned()
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
    fn strangers_text_is_one_line_of_visible_characters() {
        for (text, expected) in [
            ("bucket größe/Ελλάδα/文件 is not there", "bucket größe/Ελλάδα/文件 is not there"),
            ("\u{1b}]0;owned\u{7}\u{1b}[2J", "\\u{1b}]0;owned\\u{7}\\u{1b}[2J"),
            ("a\r\nb\u{85}c\u{2028}d\te", "a\\r\\nb\\u{85}c\\u{2028}d\\te"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{202e}fdp.exe\u{2066}\u{200f}\u{61c}", "a\\u{202e}fdp.exe\\u{2066}\\u{200f}\\u{61c}"),
            ("a\u{200b}\u{200d}\u{feff}\u{e0041}b", "a\\u{200b}\\u{200d}\\u{feff}\\u{e0041}b"),
        ] {
            assert_eq!(printable(text), expected);
        }
        let value = serde_json::json!({"a": "\u{1b}\u{9b}\u{202e}\u{7f}\u{e0041}\n"});
        let json = printable_json(serde_json::to_string_pretty(&value).unwrap());
        assert!(json.is_ascii() && json.lines().count() == 3, "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
        assert_eq!(printable_lines("a\n\tb\r\u{1b}"), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn a_long_text_of_strangers_is_cut_where_it_is_shown() {
        for text in ["x".repeat(1 << 20), "ü".repeat(1 << 20), "\u{1b}".repeat(1 << 20)] {
            let shown = printable(&text);
            assert!(shown.chars().count() <= CHARS_MAX + 1 && shown.ends_with('…'));
        }
        assert_eq!(printable(&"x".repeat(CHARS_MAX)).len(), CHARS_MAX);
        assert_eq!(printable_lines(&"x".repeat(1 << 20)).len(), 1 << 20);
        assert_eq!(printable(&"ü".repeat(CHARS_MAX)), "ü".repeat(CHARS_MAX));
    }

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
