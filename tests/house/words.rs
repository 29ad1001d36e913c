//! Words that are not used, and paths of one machine.

use super::source::{root, tree};

const TEXTS: [&str; 7] = ["rs", "md", "sh", "py", "toml", "c", "h"];

/// Ratchets: private or archaic words, and how many lines may have them still. Say it as a network engineer reads it once: "again"
/// for the first, "forever" or "until …" for the second, and a subject with a verb for the rest. These may be fewer at any time,
/// because texts are rewritten all over the house; the test prints by how many a constant can be lowered.
const WORDS: [(&str, usize); 9] = [
    ("anew", 20),
    ("for ever", 0),
    ("whomever", 1),
    ("whoever", 21),
    ("brothers", 0),
    ("shall", 3),
    ("aloud", 0),
    ("of itself", 5),
    ("of themselves", 1),
];

/// Whether a line has the word by itself, and not as the name of a function.
fn has(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(joins) && !after.is_some_and(|c| joins(c) || c == '(')
    })
}

#[test]
fn private_words_do_not_grow_more() {
    let files = tree(&TEXTS);
    let mut wrong = Vec::new();
    for (word, most) in WORDS {
        let lines = files.iter().filter(|file| !file.name.starts_with("tests/house/"));
        let lines =
            lines.flat_map(|file| file.text.lines().zip(1..).map(move |(line, number)| (file, line, number)));
        let found: Vec<_> = lines
            .filter(|(_, line, _)| has(line, word))
            .map(|(file, _, number)| format!("{}:{number}", file.name))
            .collect();
        if found.len() > most {
            wrong.push(format!("{word}: {}, and it may be {most}: {}", found.len(), found.join(" ")));
        } else if found.len() < most {
            println!("{word}: lower the constant from {most} to {}", found.len());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    // In two parts, or this file named them.
    let mut paths = vec![["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/Us", "ers/"].concat()];
    paths.push(format!("{}/", root().display()));
    for file in tree(&TEXTS) {
        for path in &paths {
            let at = file.text.lines().position(|line| line.contains(path));
            assert!(at.is_none(), "{}:{}: {path}", file.name, at.unwrap_or(0) + 1);
        }
    }
}
