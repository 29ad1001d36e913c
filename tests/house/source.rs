//! The files of the project, and a Rust file taken apart: code without comments and literals, and without its tests. Knows no rule.

use std::path::{Path, PathBuf};

/// Folders of builds, tools and what they leave.
const NOT_OURS: [&str; 8] =
    ["target", ".git", "corpus", "artifacts", "raw", "proptest-regressions", "__pycache__", "node_modules"];

pub struct File {
    /// Its path from the root, with slashes.
    pub name: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the project that end so, by name.
pub fn tree(ends: &[&str]) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted)) {
                files.push(File::read(path));
            }
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files
}

/// Rust files below `src`, but those that hold tests alone: modules behind `#[cfg(test)]`.
pub fn product() -> Vec<File> {
    let mut files = tree(&["rs"]);
    files.retain(|file| file.name.starts_with("src/"));
    let tests: Vec<_> = files.iter().flat_map(File::test_modules).collect();
    let is_test = |name: &str| {
        tests.iter().any(|test| name.strip_prefix(test).is_some_and(|rest| rest.starts_with(['.', '/'])))
    };
    files.retain(|file| !is_test(&file.name));
    files
}

impl File {
    fn read(path: PathBuf) -> Self {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, text }
    }

    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Paths, without an end, of the modules that it declares for tests.
    fn test_modules(&self) -> Vec<String> {
        let own = self.name.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"].iter().find_map(|name| own.strip_suffix(name)).unwrap_or(own);
        let beside = self.name.rsplit_once('/').map_or("", |(beside, _)| beside);
        let (mut is_test, mut path, mut found) = (false, None, Vec::new());
        for line in self.text.lines() {
            if line.starts_with("#[") {
                is_test |= line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
                path = line.strip_prefix("#[path = \"").and_then(|name| name.strip_suffix(".rs\"]")).or(path);
                continue;
            }
            let name = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
            let name =
                name.filter(|(seen, _)| seen.is_empty() || seen.starts_with("pub")).map(|(_, name)| name);
            let at = |name| path.map_or(format!("{folder}/{name}"), |path| format!("{beside}/{path}"));
            found.extend(name.filter(|_| is_test || own.ends_with("tests")).map(at));
            (is_test, path) = (false, None);
        }
        found
    }

    /// Its code line by line, with blanks for comments and literals, as far as the tests at its end.
    pub fn code(&self) -> String {
        let code = blank(&self.text);
        let is_tests = |at: &usize| {
            let mut lines = code[*at..].lines().skip_while(|line| line.starts_with("#["));
            lines.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
        };
        let gates = ["\n#[cfg(test)]", "\n#[cfg(all(test"]
            .map(|gate| code.match_indices(gate).map(|(at, _)| at + 1).find(is_tests));
        let end = gates.into_iter().flatten().min().unwrap_or(code.len());
        code[..end].to_owned()
    }
}

/// The same text with blanks in place of comments, strings and characters. Lines stay where they are.
pub fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => string(rest, 1),
            'r' | 'b' if !follows_word(&out) => literal(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

fn follows_word(out: &str) -> bool {
    out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Length of a string whose text begins at `from`.
fn string(text: &str, from: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text[from..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return from + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a literal that a letter begins, such as `b"x"` and `r#"x"#`; 0 if it is none.
fn literal(text: &str) -> usize {
    let letters = text.len() - text.trim_start_matches(['b', 'r']).len();
    let after = &text[letters..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    match after[hashes..].chars().next() {
        Some('"') if text[..letters].contains('r') => {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = letters + hashes + 1;
            text[from..].find(&end).map_or(text.len(), |at| from + at + end.len())
        }
        Some('"') if hashes == 0 => string(text, letters + 1),
        Some('\'') if hashes == 0 && &text[..letters] == "b" => letters + character(after),
        _ => 0,
    }
}

/// Length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[test]
fn comments_and_literals_are_blank_and_nothing_else() {
    let text = "a // b\n\"{c\\\"\" 'd' '\\'' b'{' b\"e\" r#\"f\"g\"# 'g: for /* { */ h";
    let kept: String = blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(kept, "a 'g: for h");
    assert_eq!(blank(text).lines().count(), 2);
}
