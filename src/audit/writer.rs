//! The thread that writes the log, and the handle by which it is told. Owns what waits, what is durable and what is lost; not the files.
//!
//! All that waits when the thread looks is written and made durable at once, so that a hundred requests cost one wait for the disk. A
//! disk that refuses is tried again each second. Meanwhile lines wait, and what finds no room is counted and told in a later line.
//!
//! Invariant: who asked for a line to be durable hears `Ok` only once it is; telling never waits.

use super::AuditConfig;
use super::entry::{End, Entry, REMOVE, SIGN_LINES};
use super::files::{AuditError, Files, Going, Left};
use super::repeats::Repeats;
use crate::deliver::SigningKey;
use jiff::Timestamp;
use serde_json::json;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What may wait for the thread.
const QUEUE_MAX: usize = 4096;
/// What may wait for a disk that refuses: some MiB.
const PENDING_MAX: usize = 4096;
/// Of one write.
const BATCH_MAX: usize = 1024;
/// Between two looks when nothing comes, and between two tries of a disk that refuses.
const PAUSE: Duration = Duration::from_secs(1);
/// How long somebody waits for his line. A disk takes milliseconds.
const RECORD_TIME_MAX: Duration = Duration::from_secs(10);
/// Time between two signatures, if there are lines.
const SIGN_PAUSE: Duration = Duration::from_secs(600);
/// How long the end waits for the last lines.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// A line that is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written: {0}")]
pub struct Unrecorded(String);

type Waiter = oneshot::Sender<Result<(), Unrecorded>>;

enum Message {
    Entry(Box<Entry>, Option<Waiter>),
    Key(Option<Arc<SigningKey>>),
    End(Box<Entry>, SyncSender<()>),
}

/// Figures of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Lines written since the process started.
    pub lines: u64,
    /// Entries that found no room while the disk refused.
    pub lost: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Whether the last write failed.
    pub is_failing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    lines: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    failing: Mutex<Option<String>>,
}

impl Shared {
    fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failing(&self, why: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// A running log. Clones share it.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    is_required: bool,
}

impl Audit {
    /// Opens the log, cuts off what a dead process left half written, and starts the thread, which inherits the caller's cores.
    ///
    /// # Errors
    /// When there can be no log.
    pub fn start(
        config: AuditConfig,
        host: String,
        key: Option<Arc<SigningKey>>,
    ) -> Result<Self, AuditError> {
        let is_required = config.required;
        let (files, end, left) = Files::open(config)?;
        let shared = Arc::new(Shared::default());
        shared.bytes.store(files.total_bytes(), Relaxed);
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let mut writer = Writer::new(files, end, host, key, Arc::clone(&shared));
        writer.tell_of(&left);
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(&messages)).map_err(AuditError::Thread)?;
        Ok(Self { queue, shared, is_required })
    }

    /// Adds a line, some time. Never waits.
    pub fn tell(&self, entry: Entry) {
        if self.queue.try_send(Message::Entry(Box::new(entry), None)).is_err() {
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    /// Adds a line, and waits until it is durable.
    ///
    /// # Errors
    /// When it is not; it may become so later.
    pub async fn record(&self, entry: Entry) -> Result<(), Unrecorded> {
        self.record_within(entry, RECORD_TIME_MAX).await
    }

    /// As [`Audit::record`], and waits no longer than this.
    ///
    /// # Errors
    /// As [`Audit::record`].
    pub async fn record_within(&self, entry: Entry, time_max: Duration) -> Result<(), Unrecorded> {
        let (waiter, recorded) = oneshot::channel();
        if self.queue.try_send(Message::Entry(Box::new(entry), Some(waiter))).is_err() {
            self.shared.lost.fetch_add(1, Relaxed);
            return Err(Unrecorded("its disk does not keep up, or its thread is gone".to_owned()));
        }
        match tokio::time::timeout(time_max, recorded).await {
            Ok(Ok(recorded)) => recorded,
            Ok(Err(_)) => Err(Unrecorded("its thread is gone".to_owned())),
            Err(_) => {
                let seconds = time_max.as_secs();
                Err(Unrecorded(format!("its disk gave no answer in {seconds} s")))
            }
        }
    }

    /// Whether what somebody asks for has to wait until the log can be written again.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.is_required && self.shared.failing().is_some()
    }

    /// Whether a line that is not durable undoes an answer.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Why the log cannot be written, if it cannot.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.shared.failing()
    }

    /// Its figures.
    #[must_use]
    pub fn counts(&self) -> AuditCounts {
        AuditCounts {
            lines: self.shared.lines.load(Relaxed),
            lost: self.shared.lost.load(Relaxed),
            bytes: self.shared.bytes.load(Relaxed),
            is_failing: self.shared.failing().is_some(),
        }
    }

    /// Signs with this key from now on.
    pub fn sign_with(&self, key: Option<Arc<SigningKey>>) {
        let _thread_gone = self.queue.try_send(Message::Key(key));
    }

    /// Adds the last line, and waits a while until all is durable.
    pub fn end(&self, entry: Entry) {
        let (done, ended) = sync_channel(1);
        if self.queue.try_send(Message::End(Box::new(entry), done)).is_ok() {
            let _ended_or_late = ended.recv_timeout(END_TIME_MAX);
        }
    }
}

struct Pending {
    entry: Entry,
    at: String,
}

struct Writer {
    files: Files,
    end: End,
    host: String,
    key: Option<Arc<SigningKey>>,
    shared: Arc<Shared>,
    repeats: Repeats,
    pending: Vec<Pending>,
    waiters: Vec<Waiter>,
    tried: Option<Instant>,
    /// The lost entries that a line tells of.
    lost_told: u64,
    /// Lines behind the last signature, and when that was.
    unsigned: u64,
    signed: Instant,
    /// The next write ends with a signature: what a dead process left has none, and the end has one.
    is_to_be_signed: bool,
    /// The oldest files, so many, of which a line tells that they go.
    going: usize,
    /// It was told that a file does not go, or that a head is not noted.
    is_told: [bool; 2],
}

impl Writer {
    fn new(files: Files, end: End, host: String, key: Option<Arc<SigningKey>>, shared: Arc<Shared>) -> Self {
        Self {
            is_to_be_signed: end.seq > 1,
            going: 0,
            is_told: [false; 2],
            files,
            end,
            host,
            key,
            shared,
            repeats: Repeats::default(),
            pending: Vec::new(),
            waiters: Vec::new(),
            tried: None,
            lost_told: 0,
            unsigned: 0,
            signed: Instant::now(),
        }
    }

    /// What the last process left.
    fn tell_of(&mut self, left: &Left) {
        if let Some(broken) = &left.broken {
            tracing::error!(%broken, "the audit log is not as it was written; it goes on behind its last line");
        }
        if let Some(missing) = &left.missing {
            tracing::error!(%missing, "the audit log is not the one that the last process wrote; it goes on behind what is there");
        }
        if left.torn_bytes > 0 || left.broken.is_some() || left.missing.is_some() {
            let about =
                json!({"cut_off_bytes": left.torn_bytes, "broken": left.broken, "missing": left.missing});
            self.push(Entry::new("audit.recover").with(about));
        }
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = messages.recv_timeout(PAUSE);
            let rest = std::iter::from_fn(|| messages.try_recv().ok()).take(BATCH_MAX);
            let is_over = matches!(first, Err(RecvTimeoutError::Disconnected));
            let mut ended = None;
            for message in first.into_iter().chain(rest) {
                match message {
                    Message::Entry(entry, waiter) => self.take(*entry, waiter),
                    Message::Key(key) => self.key = key,
                    Message::End(entry, done) => {
                        self.last(*entry);
                        ended = Some(done);
                    }
                }
            }
            for entry in self.repeats.told(Instant::now(), is_over) {
                self.push(entry);
            }
            self.flush(ended.is_some() || is_over);
            if let Some(done) = ended {
                // What the last write has to tell.
                self.flush(true);
                // The directory is another process's then.
                drop(self);
                let _nobody_waits = done.try_send(());
                return;
            }
            if is_over {
                return;
            }
        }
    }

    fn take(&mut self, entry: Entry, waiter: Option<Waiter>) {
        if self.pending.len() >= PENDING_MAX {
            // Not remembered either: who does the same again gets a line once there is room.
            self.shared.lost.fetch_add(1, Relaxed);
            if let Some(waiter) = waiter {
                let _gone = waiter.send(Err(Unrecorded("too many lines wait for its disk".to_owned())));
            }
            return;
        }
        if self.repeats.is_line(&entry, Instant::now()) {
            self.push(entry);
        }
        self.waiters.extend(waiter);
    }

    /// What comes again is told before the last line, which is signed.
    fn last(&mut self, entry: Entry) {
        for again in self.repeats.told(Instant::now(), true) {
            self.push(again);
        }
        self.push(entry);
        self.is_to_be_signed = true;
    }

    fn push(&mut self, entry: Entry) {
        if self.pending.len() >= PENDING_MAX {
            self.shared.lost.fetch_add(1, Relaxed);
            return;
        }
        self.pending.push(Pending { entry, at: format!("{:.6}", Timestamp::now()) });
    }

    /// Writes what waits, and answers who waits for it.
    fn flush(&mut self, is_end: bool) {
        let is_soon = self.tried.is_some_and(|tried| tried.elapsed() < PAUSE);
        if self.shared.failing().is_some() && is_soon && !is_end {
            self.answer();
            return;
        }
        self.tell_of_lost();
        let is_time =
            self.is_to_be_signed || self.unsigned >= SIGN_LINES || self.signed.elapsed() >= SIGN_PAUSE;
        let is_due = self.key.is_some() && is_time && (self.unsigned > 0 || !self.pending.is_empty());
        if self.pending.is_empty() && !is_due {
            let is_there = self.files.is_there();
            self.set_failing(is_there.err().map(|error| error.to_string()));
            self.answer();
            return;
        }
        self.tried = Some(Instant::now());
        match self.write(is_due) {
            Ok(()) => self.set_failing(None),
            Err(error) => self.set_failing(Some(error.to_string())),
        }
        self.answer();
    }

    fn tell_of_lost(&mut self) {
        let lost = self.shared.lost.load(Relaxed);
        if lost > self.lost_told && self.pending.len() < PENDING_MAX {
            self.push(Entry::new("audit.lose").with(json!({"entries": lost - self.lost_told})));
            self.lost_told = lost;
        }
    }

    /// Makes all that waits durable, or nothing of it.
    fn write(&mut self, is_due: bool) -> io::Result<()> {
        let (mut end, mut bytes) = (self.end.clone(), Vec::new());
        let mut add = |end: &mut End, at: &str, entry: &Entry| -> io::Result<()> {
            let (line, next) = end.next(&self.host, at, entry).map_err(io::Error::other)?;
            bytes.extend(line);
            *end = next;
            Ok(())
        };
        let (mut unsigned, last) = (self.unsigned, self.pending.len());
        for n in 0..=last {
            if let Some(Pending { entry, at }) = self.pending.get(n) {
                add(&mut end, at, entry)?;
                unsigned += 1;
            }
            // Also within a large write: a forged tail is never longer than what a host leaves unsigned.
            let is_time = unsigned >= SIGN_LINES || n == last && is_due && unsigned > 0;
            if let Some(key) = self.key.as_ref().filter(|_| is_time) {
                let entry = end.signed(&self.host, |text| key.sign(text));
                add(&mut end, &format!("{:.6}", Timestamp::now()), &entry)?;
                unsigned = 0;
            }
        }
        // A disk that has no room for another file may have some in this one.
        if self.files.is_full(bytes.len())
            && let Err(error) = self.files.next(self.end.seq)
        {
            tracing::warn!(%error, "the audit log's next file cannot be made; the last one grows");
        }
        self.files.append(&bytes)?;
        let lines = end.seq - self.end.seq;
        self.shared.lines.fetch_add(lines, Relaxed);
        self.shared.bytes.store(self.files.total_bytes(), Relaxed);
        if self.key.is_some() && unsigned < self.unsigned + lines {
            self.signed = Instant::now();
        }
        self.unsigned = unsigned;
        self.is_to_be_signed &= !is_due;
        self.end = end;
        self.pending.clear();
        let noted = self.files.note(&self.end);
        self.tell_once(1, noted, "the audit log's last line cannot be noted beside the job store");
        self.remove_old();
        Ok(())
    }

    /// Removes the oldest files if there are too many, each once its line is durable.
    fn remove_old(&mut self) {
        while self.going > 0 {
            let removed = self.files.remove_oldest();
            let file = removed.as_ref().ok().cloned().flatten();
            self.tell_once(
                0,
                removed,
                "the oldest file of the audit log does not go: audit.bytes_max does not hold",
            );
            let Some(file) = file else { break };
            tracing::info!(file = %file.display(), "the oldest file of the audit log is removed: audit.bytes_max");
            self.going -= 1;
        }
        let going = self.files.going();
        for Going { file, bytes, until } in going.iter().skip(self.going) {
            self.push(Entry::new(REMOVE).with(json!({"file": file, "bytes": bytes, "until": until})));
        }
        self.going = going.len();
        self.shared.bytes.store(self.files.total_bytes(), Relaxed);
    }

    /// Says the first time that something fails, until it goes well.
    fn tell_once<T>(&mut self, what: usize, result: io::Result<T>, words: &str) {
        match result {
            Ok(_) => self.is_told[what] = false,
            Err(error) if !std::mem::replace(&mut self.is_told[what], true) => {
                tracing::error!(%error, "{words}")
            }
            Err(_) => {}
        }
    }

    fn set_failing(&self, why: Option<String>) {
        match (self.shared.failing().is_some(), &why) {
            (false, Some(error)) => {
                tracing::error!(%error, "the audit log cannot be written; it is tried again each second");
            }
            (true, None) => tracing::info!("the audit log is written again"),
            _ => {}
        }
        self.shared.set_failing(why);
    }

    fn answer(&mut self) {
        let failing = self.shared.failing();
        for waiter in self.waiters.drain(..) {
            let result = failing.clone().map_or(Ok(()), |why| Err(Unrecorded(why)));
            let _gone = waiter.send(result);
        }
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::audit::{Checked, check_files, files_of};
    use std::fs::File;
    use std::path::Path;

    fn writer(dir: &Path) -> Writer {
        let config = AuditConfig {
            dir: dir.join("audit"),
            bytes_max: 2 << 20,
            file_bytes: 1 << 20,
            required: true,
            head_file: None,
        };
        let (files, end, _) = Files::open(config).unwrap();
        Writer::new(files, end, "cap1".to_owned(), None, Arc::default())
    }

    fn checked(dir: &Path) -> Checked {
        check_files(&files_of(&dir.join("audit")).unwrap(), &[], &[]).unwrap()
    }

    /// A file that takes no write.
    fn refusing(dir: &Path) -> File {
        File::open(dir.join("audit").join("audit-000000000001.jsonl")).unwrap()
    }

    fn asked(writer: &mut Writer) -> oneshot::Receiver<Result<(), Unrecorded>> {
        let (waiter, recorded) = oneshot::channel();
        writer.take(Entry::new("capture.create"), Some(waiter));
        recorded
    }

    #[test]
    fn a_disk_that_refuses_is_told_to_who_waits_and_its_lines_follow_once_it_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let mut first = asked(&mut writer);
        writer.flush(false);
        assert_eq!(first.try_recv().unwrap(), Ok(()));
        let right = writer.files.exchange(refusing(dir.path()));
        let mut second = asked(&mut writer);
        writer.flush(false);
        assert!(second.try_recv().unwrap().is_err());
        assert!(writer.shared.failing().is_some_and(|why| why.contains("os error")));
        // Not tried again at once, and who asks hears so at once.
        let mut third = asked(&mut writer);
        writer.flush(false);
        assert!(third.try_recv().unwrap().is_err());
        assert_eq!(checked(dir.path()).head.seq, 1);
        writer.files.exchange(right);
        writer.tried = None;
        writer.flush(false);
        assert_eq!((writer.shared.failing(), checked(dir.path()).head.seq), (None, 3), "nothing is lost");
    }

    #[test]
    fn what_finds_no_room_while_a_disk_refuses_is_counted_and_told_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        writer.take(Entry::new("process.start"), None);
        writer.flush(false);
        let right = writer.files.exchange(refusing(dir.path()));
        for _ in 0..PENDING_MAX + 7 {
            writer.take(Entry::new("capture.stop"), None);
        }
        writer.flush(false);
        writer.files.exchange(right);
        for _ in 0..2 {
            writer.tried = None;
            writer.flush(false);
        }
        assert_eq!(checked(dir.path()).head.seq, 1 + PENDING_MAX as u64 + 1);
        let files = files_of(&dir.path().join("audit")).unwrap();
        let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let last = text.lines().last().unwrap();
        assert!(last.contains("\"audit.lose\"") && last.contains("\"entries\":7"), "{last}");
    }

    #[test]
    fn half_a_write_is_cut_off_before_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        writer.take(Entry::new("process.start"), None);
        writer.flush(false);
        let path = dir.path().join("audit").join("audit-000000000001.jsonl");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), b"{\"seq\":2,"].concat()).unwrap();
        writer.take(Entry::new("capture.stop"), None);
        writer.flush(false);
        assert_eq!(checked(dir.path()).head.seq, 2);
    }

    #[test]
    fn who_finds_no_room_hears_so_also_in_the_write_in_which_the_disk_recovers_and_may_ask_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let right = writer.files.exchange(refusing(dir.path()));
        (0..PENDING_MAX).for_each(|_| writer.take(Entry::new("capture.stop"), None));
        writer.flush(false);
        writer.files.exchange(right);
        writer.tried = None;
        let read = || Entry { room: crate::audit::Room::First, ..Entry::new("object.read") };
        let (waiter, mut recorded) = oneshot::channel();
        writer.take(read(), Some(waiter));
        writer.flush(false);
        assert!(recorded.try_recv().unwrap().is_err() && writer.shared.failing().is_none());
        let (waiter, mut recorded) = oneshot::channel();
        writer.take(read(), Some(waiter));
        writer.flush(false);
        assert_eq!(recorded.try_recv().unwrap(), Ok(()));
        let path = dir.path().join("audit").join("audit-000000000001.jsonl");
        assert!(std::fs::read_to_string(path).unwrap().contains("object.read"), "it has a line of its own");
    }

    #[test]
    fn a_file_that_goes_has_its_line_first_and_one_that_does_not_go_stays_counted() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig {
            dir: dir.path().join("audit"),
            bytes_max: 4 << 10,
            file_bytes: 2 << 10,
            required: true,
            head_file: None,
        };
        let (files, end, _) = Files::open(config).unwrap();
        let mut writer = Writer::new(files, end, "cap1".to_owned(), None, Arc::default());
        let first = dir.path().join("audit").join("audit-000000000001.jsonl");
        while writer.going == 0 {
            writer.take(Entry::new("capture.create"), None);
            writer.flush(false);
        }
        assert!(first.exists(), "its line is not durable");
        // A directory in its place is no file that can be removed.
        let aside = dir.path().join("aside");
        std::fs::rename(&first, &aside).unwrap();
        std::fs::create_dir(&first).unwrap();
        let bytes = writer.files.total_bytes();
        writer.flush(false);
        assert!(writer.going == 1 && writer.files.total_bytes() >= bytes, "it is tried again");
        std::fs::remove_dir(&first).unwrap();
        std::fs::rename(&aside, &first).unwrap();
        writer.take(Entry::new("capture.create"), None);
        writer.flush(false);
        assert!(!first.exists() && writer.going == 0);
        assert!(checked(dir.path()).first > 1);
    }
}
