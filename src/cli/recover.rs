//! `trawl recover`. Owns its table and its order; what is left of a capture and how it is delivered is `capture`'s.
//!
//! Invariant: the spool stays as it is unless its removal is asked for, and then only what was delivered goes.

use super::args::RecoverArgs;
use super::report::time;
use super::{Error, Outcome, stores};
use crate::chain::printable;
use crate::deliver::orphan::{Orphan, RecoverError, Summary, captures};
use crate::history;
use crate::limits::HISTORY_DIR;
use crate::spool::{LockError, SpoolLock, spool_id};
use crate::upload::{FileStore, ObjectStore};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The spool.
    #[error("cannot read the spool {dir}: {source}; name the directories that spool.dir or spool.dirs names")]
    Spool {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is no spool.
    #[error(
        "{0} is no spool: it has no .spool-id and no capture; name the directories that spool.dir or spool.dirs names"
    )]
    NoSpool(PathBuf),
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The place where it goes.
    #[error(transparent)]
    Store(#[from] stores::StoreError),
}

/// What became of one capture.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Summary>,
    /// Objects of the manifest that was written; none if there was nothing to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<usize>,
    /// Whether its directory is gone from the spool.
    removed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Looks at every capture of a spool and delivers what is left.
///
/// # Errors
/// [`Problem`] when nothing could be done; what fails with one capture stands in its row, and the others go on.
pub async fn run(args: &RecoverArgs) -> Result<Outcome, Error> {
    // Before the lock: without a spool there must be none to lock.
    let found = captures(&args.dirs).map_err(|(dir, source)| Problem::Spool { dir, source })?;
    for dir in &args.dirs {
        let has_captures = found.iter().flat_map(|(_, places)| places).any(|place| place.starts_with(dir));
        // One that cannot be read is there.
        if !has_captures && matches!(spool_id(dir), Ok(None)) {
            return Err(Problem::NoSpool(dir.clone()).into());
        }
    }
    let locks = args.dirs.iter().map(|dir| SpoolLock::take_to_read(dir));
    let _locks: Vec<_> = locks.collect::<Result<_, _>>().map_err(Problem::Lock)?;
    let store = match &args.out {
        _ if args.dry_run => None,
        out => match out.to_str().filter(|out| out.contains("://")) {
            Some(uri) => Some(stores::open(uri, &args.store).await.map_err(Problem::Store)?),
            None => Some(Box::new(FileStore::new(out.into())) as Box<dyn ObjectStore>),
        },
    };
    let mut rows = Vec::new();
    for (id, dirs) in found {
        let mut row = Row { id: id.to_string(), found: None, objects: None, removed: false, error: None };
        match Orphan::look(id, dirs) {
            Ok(left) => {
                row.found = Some(left.summary.clone());
                if let Some(store) = &store
                    && let Err(error) = deliver(&left, &**store, args.remove, &mut row).await
                {
                    row.error = Some(error.to_string());
                }
            }
            Err(error) => row.error = Some(error.to_string()),
        }
        rows.push(row);
    }
    let history: String = args.dirs.iter().map(|dir| of_history(dir)).collect();
    let text = text(args, &rows) + &history;
    let mut outcome = Outcome::done(text, &rows, args.json)?;
    outcome.is_success = rows.iter().all(|row| row.error.is_none());
    Ok(outcome)
}

async fn deliver(
    left: &Orphan,
    store: &dyn ObjectStore,
    remove: bool,
    row: &mut Row,
) -> Result<(), RecoverError> {
    let manifest = left.deliver(store).await?;
    row.objects = manifest.map(|manifest| manifest.objects.len());
    if remove && row.objects.is_some() {
        let dir = PathBuf::from(&row.id);
        row.removed = left.remove().map_err(|source| RecoverError::Read { dir, source })?;
    }
    Ok(())
}

/// Why the history has no row: its segments are of no capture, and need no recovery to be read.
fn of_history(spool: &Path) -> String {
    let dir = spool.join(HISTORY_DIR);
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let bytes = entry.metadata().ok()?.len();
        history::Entry::parse(entry.file_name().to_str()?, bytes).map(|entry| entry.bytes)
    });
    let (segments, bytes) = sizes.fold((0_u64, 0), |(segments, sum), bytes| (segments + 1, sum + bytes));
    if segments == 0 {
        return String::new();
    }
    format!(
        "{} holds the history, {segments} segments of {bytes} bytes: of no capture, and pcap files as they are (`trawl merge`)\n",
        dir.display()
    )
}

fn text(args: &RecoverArgs, rows: &[Row]) -> String {
    if rows.is_empty() {
        let dirs: Vec<_> = args.dirs.iter().map(|dir| dir.display().to_string()).collect();
        return format!("no capture is left in {}\n", dirs.join(", "));
    }
    let mut table = Table::new();
    let header = [
        "capture",
        "packets",
        "bytes",
        "first packet",
        "last packet",
        "open",
        "cut bytes",
        "delivered before",
        "now",
    ];
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        let now = match (&row.error, row.objects) {
            (Some(_), _) => "FAILED".to_owned(),
            (None, Some(objects)) => {
                format!("{objects} objects{}", if row.removed { ", removed" } else { "" })
            }
            (None, None) if args.dry_run => "-".to_owned(),
            (None, None) => "nothing left".to_owned(),
        };
        let mut cells = vec![row.id.clone()];
        match &row.found {
            Some(found) => cells.extend([
                found.packets.to_string(),
                found.bytes.to_string(),
                time(found.first_ns),
                time(found.last_ns),
                found.segments_open.to_string(),
                found.cut_bytes.to_string(),
                format!("{} objects, {} packets", found.objects_delivered, found.packets_delivered),
            ]),
            None => cells.extend(["-"; 7].map(str::to_owned)),
        }
        cells.push(now);
        table.add_row(cells);
    }
    for column in [1, 2, 5, 6] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text: String = table.to_string().lines().map(|line| format!("{}\n", line.trim())).collect();
    for row in rows {
        let notes = row.found.iter().flat_map(|found| &found.notes).chain(&row.error);
        text.extend(notes.map(|note| format!("{}: {}\n", row.id, printable(note))));
    }
    if !args.dry_run && rows.iter().any(|row| row.objects.is_some()) {
        let out = args.out.to_string_lossy();
        text += &format!("written to {out}; `trawl verify` checks the objects against each manifest\n");
    }
    text
}
