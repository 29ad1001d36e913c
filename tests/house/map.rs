//! ARCHITECTURE.md's code map against the code: a room, which is a module of `src/`, uses exactly the rooms that the map names, and
//! each of them stands below it, so no rooms use each other in a circle.
//!
//! The map's form: rows `| name | what it owns | what it may use |` below `## Code map`, rooms in backquotes, the highest first.
//! `everything below` in the last cell stands for all lower rows. What only tests use does not count.

use super::source::{File, product, root};
use std::collections::{BTreeMap, BTreeSet};

type Uses = BTreeMap<String, BTreeSet<String>>;

/// In place of rooms: all that stand below.
const ALL_BELOW: &str = "everything below";

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The modules that `lib.rs` declares, but those for tests.
fn rooms() -> BTreeSet<String> {
    let lib = read("src/lib.rs");
    let (mut is_test, mut found) = (false, BTreeSet::new());
    for line in lib.lines() {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[cfg(test)]");
            continue;
        }
        let name = line
            .strip_prefix("pub ")
            .unwrap_or(line)
            .strip_prefix("mod ")
            .and_then(|name| name.strip_suffix(';'));
        found.extend(name.filter(|_| !is_test).map(str::to_owned));
        is_test = false;
    }
    found
}

/// The room of a file, and how many modules deep it lies: 1 for the room itself.
fn place(file: &File) -> Option<(String, usize)> {
    let path = file.name.strip_prefix("src/")?.strip_suffix(".rs")?;
    let parts: Vec<_> = path.strip_suffix("/mod").unwrap_or(path).split('/').collect();
    Some((parts[0].to_owned(), parts.len()))
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// What follows `crate::` somewhere: one name, or those of a group.
fn first_names(after: &str) -> Vec<String> {
    let Some(group) = after.strip_prefix('{') else { return vec![word(after).to_owned()] };
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(word(&group[at..]).to_owned());
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// The rooms that a file's code names, by `crate::` or by as many `super::` as lead out of its own.
fn named(file: &File, depth: usize) -> Vec<String> {
    let code = file.code();
    let out = "super::".repeat(depth);
    let roots = ["crate::", out.as_str()];
    let found = roots.iter().flat_map(|from| code.match_indices(*from).map(move |(at, _)| (at, from.len())));
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    found.filter(|(at, _)| begins(*at)).flat_map(|(at, length)| first_names(&code[at + length..])).collect()
}

/// Which rooms each room uses.
fn used() -> Uses {
    let rooms = rooms();
    let mut uses: Uses = rooms.iter().map(|room| (room.clone(), BTreeSet::new())).collect();
    for file in product() {
        let Some((room, depth)) = place(&file).filter(|(room, _)| rooms.contains(room)) else { continue };
        let names = named(&file, depth).into_iter().filter(|name| rooms.contains(name) && *name != room);
        uses.get_mut(&room).unwrap().extend(names);
    }
    uses
}

/// What stands in backquotes in a cell, each as the room that it begins with.
fn quoted(cell: &str) -> BTreeSet<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.flat_map(|part| part.split_whitespace()).map(|name| word(name).to_owned()).collect()
}

/// A row of the map: a room, and what it may use; none stands for all that are below.
type Row = (String, Option<BTreeSet<String>>);

/// The map, from above.
fn map() -> Vec<Row> {
    let text = read("ARCHITECTURE.md");
    let from = text.find("## Code map").expect("ARCHITECTURE.md has a code map");
    let section = text[from..].split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() >= 3, "a row needs three cells: {row}");
        let last = cells[cells.len() - 1];
        let uses = (last != ALL_BELOW).then(|| quoted(last));
        quoted(cells[0]).into_iter().map(move |room| (room, uses.clone()))
    })
    .collect()
}

#[test]
fn every_room_uses_what_the_map_says_and_nothing_else() {
    let (used, map) = (used(), map());
    let names: BTreeSet<_> = map.iter().map(|(room, _)| room.clone()).collect();
    assert_eq!(names, used.keys().cloned().collect(), "the map's rooms are the modules of src/lib.rs");
    let mut wrong = Vec::new();
    for (room, says) in map {
        let (Some(says), uses) = (says, &used[&room]) else { continue };
        let (missing, stale): (Vec<_>, Vec<_>) =
            (uses.difference(&says).collect(), says.difference(uses).collect());
        if !missing.is_empty() || !stale.is_empty() {
            let all: Vec<_> = uses.iter().map(|name| format!("`{name}`")).collect();
            wrong.push(format!(
                "`{room}`: uses {missing:?} undeclared, {stale:?} not at all; it is {}",
                all.join(" ")
            ));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md's code map:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_uses_rooms_below_it() {
    let (used, map) = (used(), map());
    let floors: BTreeMap<_, _> = map.iter().enumerate().map(|(floor, (room, _))| (room, floor)).collect();
    for (room, uses) in &used {
        for other in uses {
            assert!(floors[other] > floors[room], "{room} uses {other}, which stands above it in the map");
        }
    }
}

/// Rooms that packets pass through.
const DATA_PLANE: [&str; 6] = ["dpdk", "packet", "matcher", "worker", "block", "spool"];

#[test]
fn no_room_of_the_data_plane_names_the_fleet() {
    let files = product();
    for room in DATA_PLANE {
        let own: Vec<_> =
            files.iter().filter(|file| file.name.starts_with(&format!("src/{room}/"))).collect();
        assert!(!own.is_empty(), "src/{room}/ has no files: it is called otherwise now");
        for file in own {
            let is_named = file.text.to_lowercase().contains("fleet");
            assert!(!is_named, "{}: packets pass here, and it names the fleet", file.name);
        }
    }
}

#[test]
fn names_behind_crate_are_found_alone_and_in_groups() {
    let names = |text: &str| first_names(text).join(" ");
    assert_eq!(
        (names("spool::Feed;"), names("{merge::{A, B}, pcap, store::*};")),
        ("spool".into(), "merge pcap store".into())
    );
}
