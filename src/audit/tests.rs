//! The log on a real directory: what is found of each way to change it, and what a disk and a dead process do to it.

use super::*;
use crate::deliver::{PublicKey, SigningKey};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    key: Arc<SigningKey>,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = Arc::new(SigningKey::create(&dir.path().join("key.pem")).unwrap());
        Self { dir, key }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn config(&self) -> AuditConfig {
        AuditConfig {
            dir: self.log(),
            bytes_max: 1 << 20,
            file_bytes: 64 << 10,
            required: true,
            head_file: None,
        }
    }

    fn start(&self) -> Audit {
        Audit::start(self.config(), "cap1".to_owned(), Some(Arc::clone(&self.key))).unwrap()
    }

    fn check(&self) -> Result<Checked, VerifyError> {
        self.check_with(&[self.key.public()], &[])
    }

    fn check_with(&self, keys: &[PublicKey], heads: &[Head]) -> Result<Checked, VerifyError> {
        check_files(&files_of(&self.log()).unwrap(), keys, heads)
    }

    fn only(&self) -> PathBuf {
        let files = files_of(&self.log()).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.only()).unwrap();
        text.split_inclusive('\n').map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        fs::write(self.only(), lines.concat()).unwrap();
    }

    /// The line of the first break.
    #[track_caller]
    fn broken_at(&self, keys: &[PublicKey]) -> usize {
        match self.check_with(keys, &[]) {
            Err(VerifyError::Break(broken)) => broken.line,
            other => panic!("{other:?}"),
        }
    }
}

fn entry(n: usize) -> Entry {
    Entry { id: Some(format!("{n:032x}")), account: Some("a".to_owned()), ..Entry::new("capture.create") }
}

/// A log of twelve lines, of which the last two are its end and the signature.
fn written(place: &Place) -> Vec<String> {
    let audit = place.start();
    (0..10).for_each(|n| audit.tell(entry(n)));
    audit.end(Entry::new("process.end"));
    place.lines()
}

#[test]
fn a_log_that_nobody_touched_is_whole_and_each_line_has_the_hash_of_the_one_before() {
    let place = Place::new();
    let lines = written(&place);
    let checked = place.check().unwrap();
    assert_eq!((checked.first, checked.head.seq, checked.signed), (1, 12, Some((11, 1))));
    assert_eq!((checked.host.as_str(), checked.last_action.as_str()), ("cap1", "audit.sign"));
    let second: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(second["prev"], entry::hash(lines[0].as_bytes()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.log()), mode(&place.only())), (0o700, 0o600));
    // It is free again.
    files::Files::open(place.config()).map(drop).unwrap();
}

#[test]
fn a_line_that_was_changed_removed_moved_added_or_cut_is_named() {
    let place = Place::new();
    let lines = written(&place);
    let keys = [place.key.public()];
    for keys in [&keys[..], &[]] {
        for at in 0..10 {
            // Any byte of a value.
            let mut changed = lines.clone();
            changed[at] = changed[at].replace("\"account\":\"a\"", "\"account\":\"b\"");
            place.write(&changed);
            assert_eq!(place.broken_at(keys), at + 1, "line {} was changed", at + 1);
            // Its own hash of the line before.
            let mut changed = lines.clone();
            changed[at] = changed[at].replacen("\"prev\":\"", "\"prev\":\"f", 1);
            place.write(&changed);
            assert_eq!(place.broken_at(keys), at + 1, "the hash in line {} was changed", at + 1);
            let mut removed = lines.clone();
            removed.remove(at);
            place.write(&removed);
            if at > 0 {
                assert_eq!(place.broken_at(keys), at + 1, "line {} was removed", at + 1);
            }
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            place.write(&swapped);
            let broken = place.broken_at(keys);
            assert!(
                broken == at + 1 || at == 0 && broken <= 2,
                "lines from {} were swapped: {broken}",
                at + 1
            );
            let mut added = lines.clone();
            added.insert(at, lines[at].clone());
            place.write(&added);
            assert_eq!(place.broken_at(keys), at + 2, "line {} is there twice", at + 1);
            let mut cut = lines[..=at].to_vec();
            let half = cut[at].len() / 2;
            cut[at].truncate(half);
            place.write(&cut);
            assert_eq!(place.broken_at(keys), at + 1, "line {} was cut", at + 1);
        }
        place.write(&lines);
        place.check_with(keys, &[]).unwrap();
    }
}

#[test]
fn a_chain_that_was_written_again_by_somebody_else_has_right_hashes_and_no_signature() {
    let place = Place::new();
    let lines = written(&place);
    let forge = |key: &SigningKey| {
        let mut end = entry::End::none();
        let mut forged = String::new();
        for n in 0..10 {
            let mut entry = entry(n);
            entry.account = Some("somebody else".to_owned());
            let (line, next) = end.next("cap1", "2026-11-27T21:00:00.000000Z", &entry).unwrap();
            forged += std::str::from_utf8(&line).unwrap();
            end = next;
        }
        let signed = end.signed("cap1", |text| key.sign(text));
        let (line, _) = end.next("cap1", "2026-11-27T21:00:00.000000Z", &signed).unwrap();
        forged + std::str::from_utf8(&line).unwrap()
    };
    let other = SigningKey::create(&place.dir.path().join("other.pem")).unwrap();
    place.write(&[forge(&other)]);
    assert_eq!(place.check_with(&[], &[]).unwrap().head.seq, 11, "its hashes are right");
    assert_eq!(place.broken_at(&[place.key.public()]), 11);
    // The host's own signature of other lines.
    let forged = forge(&other);
    let mut mixed: Vec<_> = forged.split_inclusive('\n').take(10).map(str::to_owned).collect();
    mixed.push(lines[11].replace("\"seq\":12", "\"seq\":11"));
    place.write(&mixed);
    assert_eq!(place.broken_at(&[place.key.public()]), 11);
    // Without any signature.
    place.write(&mixed[..10]);
    assert!(matches!(place.check(), Err(VerifyError::Unsigned)));
    // Of an earlier key: both are given.
    place.write(&[forge(&other)]);
    place.check_with(&[place.key.public(), other.public()], &[]).unwrap();
}

#[test]
fn what_was_cut_off_at_the_end_shows_if_its_head_was_noted() {
    let place = Place::new();
    let lines = written(&place);
    let head = place.check().unwrap().head;
    assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
    place.check_with(&[], std::slice::from_ref(&head)).unwrap();
    place.write(&lines[..9]);
    assert_eq!(place.check_with(&[], &[]).unwrap().head.seq, 9, "nothing in the file tells");
    let missing = place.check_with(&[], std::slice::from_ref(&head));
    assert!(matches!(missing, Err(VerifyError::Missing { last: 9, .. })), "{missing:?}");
    place.write(&lines);
    let other = Head { hash: "0".repeat(64), ..head };
    assert!(matches!(place.check_with(&[], &[other]), Err(VerifyError::Break(Break { line: 12, .. }))));
    for text in ["", "7", "7:", "x:00", "7:zz"] {
        assert!(text.parse::<Head>().is_err(), "{text}");
    }
}

#[test]
fn files_follow_each_other_in_one_chain_and_the_oldest_go_at_the_bound() {
    let place = Place::new();
    let config = AuditConfig { bytes_max: 32 << 10, file_bytes: 8 << 10, ..place.config() };
    let audit = Audit::start(config.clone(), "cap1".to_owned(), Some(Arc::clone(&place.key))).unwrap();
    for n in 0..400 {
        audit.tell(entry(n));
        if n % 8 == 0 {
            // Each batch is a write of its own.
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(audit.record(entry(n)))
                .unwrap();
        }
    }
    audit.end(Entry::new("process.end"));
    let counts = audit.counts();
    assert!(counts.bytes <= config.bytes_max && counts.lost == 0, "{counts:?}");
    let files = files_of(&place.log()).unwrap();
    assert!(files.len() >= 3, "{files:?}");
    let checked = place.check().unwrap();
    assert!(checked.first > 1 && checked.head.seq > 400, "{checked:?}");
    let last = fs::read_to_string(&files[files.len() - 1]).unwrap();
    let all: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(all.contains("\"audit.remove\""), "{last}");
    // In whatever order they are given; one that is missing in the middle is found.
    let reversed: Vec<_> = files.iter().rev().cloned().collect();
    check_files(&reversed, &[place.key.public()], &[]).unwrap();
    let without = [files[0].clone(), files[2].clone()];
    match check_files(&without, &[], &[]) {
        Err(VerifyError::Break(broken)) => assert_eq!((broken.line, &broken.path), (1, &files[2])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_process_goes_on_behind_the_last_whole_line_and_tells_what_it_cut_off() {
    let place = Place::new();
    let lines = written(&place);
    let mut torn = lines.concat();
    torn.push_str("{\"seq\":13,\"at\":\"2026");
    fs::write(place.only(), &torn).unwrap();
    let audit = place.start();
    audit.end(Entry::new("process.end"));
    let after = place.lines();
    assert_eq!(after[..12], lines[..]);
    assert!(
        after[12].contains("\"audit.recover\"") && after[12].contains("\"cut_off_bytes\":20"),
        "{}",
        after[12]
    );
    assert_eq!(place.check().unwrap().head.seq, 15);
    // A file in which there is no whole line yet.
    fs::write(place.log().join(files::name(16)), "{\"seq\"").unwrap();
    place.start().end(Entry::new("process.end"));
    assert_eq!(place.check().unwrap().head.seq, 18);
    // A log that was changed is told of, and goes on.
    let changed: Vec<_> =
        place.lines().iter().map(|line| line.replace("\"process.end\"", "\"process.emd\"")).collect();
    place.write(&changed);
    place.start().end(Entry::new("process.end"));
    assert!(place.lines().iter().any(|line| line.contains("was changed after it was written")));
}

#[test]
fn two_processes_do_not_write_one_log() {
    let place = Place::new();
    let audit = place.start();
    let second = Audit::start(place.config(), "cap1".to_owned(), None);
    assert!(matches!(second, Err(AuditError::InUse(_))));
    audit.end(Entry::new("process.end"));
}

#[tokio::test]
async fn a_recorded_line_is_in_the_file_when_it_is_answered_and_many_cost_one_wait() {
    let place = Place::new();
    let audit = place.start();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (audit, path) = (audit.clone(), place.log());
        all.spawn(async move {
            audit.record(entry(n)).await.unwrap();
            let text = fs::read_to_string(path.join(files::name(1))).unwrap();
            assert!(text.contains(&format!("{n:032x}")));
        });
    }
    all.join_all().await;
    assert_eq!(audit.counts().lines, 100);
    audit.end(Entry::new("process.end"));
}

#[test]
fn no_text_of_strangers_forges_a_line_or_moves_a_cursor_and_none_is_without_bound() {
    let place = Place::new();
    let audit = place.start();
    let hostile = "a\n{\"seq\":1}\u{1b}[2J\u{202e}".to_owned();
    audit.tell(Entry { account: Some(hostile.clone()), ..Entry::new("authentication.refuse") });
    audit.tell(Entry { account: Some("x".repeat(1 << 20)), ..Entry::new("authentication.refuse") });
    let about = serde_json::json!({"filter": "y".repeat(1 << 20)});
    audit.tell(Entry::new("capture.create").with(about));
    audit.end(Entry::new("process.end"));
    let lines = place.lines();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.is_ascii() && line.len() <= entry::LINE_BYTES_MAX));
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["account"], hostile, "the value is as it was");
    assert!(lines[2].contains("left_out_bytes"), "{}", lines[2]);
    place.check().unwrap();
}

/// A log of several files, of which the oldest have gone.
fn rotated(place: &Place) -> Vec<PathBuf> {
    let config = AuditConfig { bytes_max: 32 << 10, file_bytes: 8 << 10, ..place.config() };
    let audit = Audit::start(config, "cap1".to_owned(), Some(Arc::clone(&place.key))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (0..200).for_each(|n| runtime.block_on(audit.record(entry(n))).unwrap());
    audit.end(Entry::new("process.end"));
    files_of(&place.log()).unwrap()
}

#[test]
fn what_was_removed_at_the_beginning_is_found_by_names_and_by_the_lines_that_tell_of_it() {
    let place = Place::new();
    let lines = written(&place);
    let path = place.only();
    place.write(&lines[3..]);
    assert_eq!(place.broken_at(&[]), 1, "the file's name is of another line");
    let renamed = place.log().join(files::name(4));
    fs::rename(&path, &renamed).unwrap();
    assert_eq!(place.broken_at(&[]), 1, "no line tells that a file went");
    let checked = check_some(std::slice::from_ref(&renamed), &[], &[]).unwrap();
    assert_eq!(checked.first, 4, "as a file of a log whose others are elsewhere");
    let head = |seq: usize| Head { seq: seq as u64, hash: entry::hash(lines[seq - 1].as_bytes()) };
    place.check_with(&[], &[head(3)]).unwrap();
    let before = place.check_with(&[], &[head(2)]);
    assert!(matches!(before, Err(VerifyError::Before { first: 4, .. })), "{before:?}");
    let other = Head { hash: "0".repeat(64), ..head(3) };
    assert!(matches!(place.check_with(&[], &[other]), Err(VerifyError::Break(_))));
    // Emptied, with a file behind it.
    fs::write(&path, "").unwrap();
    assert!(matches!(place.check_with(&[], &[head(3)]), Err(VerifyError::Break(_))));
    let none = check_files(std::slice::from_ref(&path), &[], &[]).unwrap_err().to_string();
    assert!(none.contains(path.to_str().unwrap()), "{none}");
}

#[test]
fn a_line_with_a_number_that_no_line_has_is_an_error_and_no_panic() {
    for seq in ["0", "18446744073709551615", "18446744073709551614"] {
        let place = Place::new();
        let lines = written(&place);
        place.write(&[lines[0].replacen("\"seq\":1,", &format!("\"seq\":{seq},"), 1), lines[1].clone()]);
        for keys in [vec![], vec![place.key.public()]] {
            let wrong = place.check_with(&keys, &[]).unwrap_err().to_string();
            assert!(wrong.contains(&format!("number {seq}")), "{wrong}");
        }
        // Nor is a start: it goes on behind what is there.
        place.start().end(Entry::new("process.end"));
    }
}

#[test]
fn one_file_more_than_the_log_says_that_it_removed_is_missed() {
    let place = Place::new();
    let files = rotated(&place);
    let checked = place.check().unwrap();
    assert!(checked.first > 1 && files.len() >= 3, "{checked:?} {files:?}");
    fs::remove_file(&files[0]).unwrap();
    match place.check() {
        Err(VerifyError::Break(broken)) => {
            assert!(broken.path == files[1] && broken.what.contains("audit.remove"), "{broken}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_lines_without_a_signature_than_a_host_leaves_are_somebody_elses() {
    let place = Place::new();
    let audit = place.start();
    (0..3000).for_each(|n| audit.tell(entry(n)));
    audit.end(Entry::new("process.end"));
    let files = files_of(&place.log()).unwrap();
    let lines: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines: Vec<_> = lines.split_inclusive('\n').collect();
    let signed: Vec<_> = (0..lines.len()).filter(|n| lines[*n].contains("\"audit.sign\"")).collect();
    assert!(signed.windows(2).all(|two| two[1] - two[0] <= 257) && signed[0] <= 256, "{signed:?}");
    // Behind the first signature somebody goes on without the key.
    let at = signed[0];
    let forge = |count: usize| {
        let hash = entry::hash(lines[at].as_bytes());
        let mut end = entry::End { seq: at as u64 + 2, prev: hash };
        let mut forged = lines[..=at].concat();
        for n in 0..count {
            let (line, next) = end.next("cap1", "2026-11-27T21:00:00.000000Z", &entry(n)).unwrap();
            forged += std::str::from_utf8(&line).unwrap();
            end = next;
        }
        files[1..].iter().for_each(|path| drop(fs::remove_file(path)));
        fs::write(&files[0], forged).unwrap();
    };
    forge(5000);
    let tail = place.check();
    assert!(matches!(tail, Err(VerifyError::Tail { .. })), "{tail:?}");
    place.check_with(&[], &[]).unwrap();
    forge(200);
    place.check().unwrap();
}

#[test]
fn a_log_that_was_cut_or_removed_between_two_processes_is_told_of_by_the_next_one() {
    let place = Place::new();
    let config = || AuditConfig { head_file: Some(place.dir.path().join("jobs.audit")), ..place.config() };
    let run = || {
        let audit = Audit::start(config(), "cap1".to_owned(), None).unwrap();
        audit.tell(entry(1));
        audit.end(Entry::new("process.end"));
        place.lines()
    };
    run();
    let lines = run();
    assert!(!lines.concat().contains("audit.recover"), "nothing happened");
    place.write(&lines[..3]);
    let after = run();
    assert!(
        after[3].contains("audit.recover") && after[3].contains("line 4 was written before"),
        "{}",
        after[3]
    );
    // All of it, and another one in its place that is longer.
    let other = Place::new();
    let audit = other.start();
    (0..20).for_each(|n| audit.tell(entry(n)));
    audit.end(Entry::new("process.end"));
    place.write(&other.lines());
    assert!(run().concat().contains("the log is another one"));
    fs::remove_dir_all(place.log()).unwrap();
    let after = run();
    assert!(after[0].contains("audit.recover") && after[0].contains("\"seq\":1,"), "{}", after[0]);
    fs::remove_file(place.dir.path().join("jobs.audit")).unwrap();
    assert!(run().concat().contains("no line of it was noted"));
}

#[tokio::test]
async fn a_file_that_is_gone_exchanged_or_cut_is_not_written_and_the_log_says_so_without_a_line_to_write() {
    let place = Place::new();
    let audit = place.start();
    audit.record(entry(1)).await.unwrap();
    let (path, aside) = (place.only(), place.dir.path().join("aside"));
    let whole = fs::read(&path).unwrap();
    let fails = async |words: &str| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !audit.failing().is_some_and(|why| why.contains(words)) {
            assert!(std::time::Instant::now() < until, "{words}: {:?}", audit.failing());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(audit.refuses() && audit.record(entry(2)).await.is_err(), "{words}");
    };
    fs::rename(&path, &aside).unwrap();
    fails("is not there any more").await;
    fs::write(&path, &whole).unwrap();
    fails("is another file").await;
    fs::rename(&aside, &path).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while audit.refuses() {
        assert!(std::time::Instant::now() < until, "{:?}", audit.failing());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fs::write(&path, "").unwrap();
    fails("somebody cut it").await;
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "it is not filled up");
}
