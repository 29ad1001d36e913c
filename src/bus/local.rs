//! The bus within one process: nodes that share a [`Shared`] see each other's records and messages. Owns what stands in memory, and
//! the faults that a node's way to it can have; nothing of it is durable.
//!
//! ```text
//!  node ─ Local (its faults) ─┐
//!  node ─ Local (its faults) ─┴─ Shared: tables, listeners, files
//! ```
//!
//! Faults are a node's own, so that one can be cut off while others go on.

use super::{Away, Bus, Doing, Entry, Message, Table, is_below, is_name, is_of};
use crate::fleet::held::{Answer, Revision};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Messages that wait for a listener that is behind.
const LISTENER_MESSAGES: usize = 1024;
/// Changes that wait for a watcher that is behind; more of them wait in the table.
const WATCHER_ENTRIES: usize = 64;
/// States of a record that are kept for [`Faults::reads_behind`].
const VERSIONS: usize = 64;

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Answered,
    /// It gets lost: nothing is written.
    Lost,
    /// It is done if its revision is right, and the answer gets lost.
    AnswerLost,
    /// It is answered by nothing, and done so much later if its revision is right then.
    Late(Duration),
}

/// What is wrong on a node's way to the bus.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Nothing passes, either way.
    pub is_away: bool,
    /// What becomes of the next writes and removals, in their order. Those behind them are answered.
    pub fates: VecDeque<Fate>,
    /// Reads and lists show what was there so many writes of the table ago.
    pub reads_behind: u64,
    /// Messages that this node sends, requests too, come so much later. One that is sent with less delay overtakes them.
    pub delay: Duration,
    /// Messages that this node sends come twice.
    pub is_doubled: bool,
    /// So many of the next messages of this node do not come at all.
    pub messages_lost: u64,
}

/// What a record was, the oldest first; none where it was removed.
type Versions = VecDeque<(Revision, Option<Vec<u8>>)>;

#[derive(Default)]
struct Kept {
    incarnation: u64,
    sequence: u64,
    /// By key, the newest state last.
    records: BTreeMap<String, Versions>,
}

impl Kept {
    fn newest(&self, key: &str) -> Revision {
        self.records.get(key).and_then(|states| states.back()).map_or_else(Revision::default, |state| state.0)
    }

    /// Of a key, as it was so many writes of the table ago.
    fn state(&self, key: &str, behind: u64) -> Option<&(Revision, Option<Vec<u8>>)> {
        let until = self.sequence.saturating_sub(behind);
        self.records.get(key)?.iter().rev().find(|(revision, _)| revision.sequence <= until)
    }

    fn write(&mut self, key: &str, expected: Revision, value: Option<Vec<u8>>) -> Answer<Vec<u8>> {
        if self.newest(key) != expected {
            return Answer::Stale;
        }
        self.sequence += 1;
        let revision = Revision { incarnation: self.incarnation, sequence: self.sequence };
        let states = self.records.entry(key.to_owned()).or_default();
        if states.len() == VERSIONS {
            states.pop_front();
        }
        states.push_back((revision, value));
        Answer::Wrote(revision)
    }
}

struct Listener {
    pattern: String,
    faults: Arc<Mutex<Faults>>,
    messages: mpsc::Sender<Message>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<Table, Kept>,
    listeners: Vec<Listener>,
    files: BTreeMap<String, Vec<u8>>,
}

/// What all nodes share.
pub struct Shared {
    state: Mutex<State>,
    /// Changes with every write.
    writes: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Empty.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut state = State::default();
        for table in Table::ALL {
            state.tables.insert(table, Kept { incarnation: 1, ..Kept::default() });
        }
        Arc::new(Self { state: Mutex::new(state), writes: watch::Sender::new(0) })
    }

    /// Loses a table, and makes it again.
    pub fn lose(&self, table: Table) {
        let mut state = lock(&self.state);
        let kept = state.tables.entry(table).or_default();
        *kept = Kept { incarnation: kept.incarnation + 1, ..Kept::default() };
        self.writes.send_modify(|writes| *writes += 1);
    }

    /// How many listeners there are.
    #[must_use]
    pub fn listeners(&self) -> usize {
        let mut state = lock(&self.state);
        state.listeners.retain(|listener| !listener.messages.is_closed());
        state.listeners.len()
    }

    fn change(&self, table: Table, key: &str, expected: Revision, value: Option<Vec<u8>>) -> Answer<Vec<u8>> {
        let answer = lock(&self.state).tables.entry(table).or_default().write(key, expected, value);
        if matches!(answer, Answer::Wrote(_)) {
            self.writes.send_modify(|writes| *writes += 1);
        }
        answer
    }

    /// What was written below a prefix after a revision, the oldest first.
    fn since(&self, table: Table, prefix: &str, after: Revision) -> Vec<Entry> {
        let state = lock(&self.state);
        let records = state.tables.get(&table).into_iter().flat_map(|kept| &kept.records);
        let newest = records.filter_map(|(key, states)| Some((key, states.back()?)));
        let mut found: Vec<_> = newest
            .filter(|(key, (revision, _))| is_below(key, prefix) && *revision > after)
            .map(|(key, (revision, value))| Entry {
                key: key.clone(),
                revision: *revision,
                value: value.clone(),
            })
            .collect();
        found.sort_by_key(|entry| entry.revision);
        found
    }

    /// Gives a message to all that listen; how many they are.
    fn deliver(&self, subject: &str, payload: &[u8], answers: Option<&Answers>) -> usize {
        let mut state = lock(&self.state);
        state.listeners.retain(|listener| !listener.messages.is_closed());
        let hears =
            |listener: &&Listener| is_of(subject, &listener.pattern) && !lock(&listener.faults).is_away;
        let listeners = state.listeners.iter().filter(hears);
        listeners
            .map(|listener| {
                let answer = answers.map(|answers| answers.of(listener));
                let message = Message { subject: subject.to_owned(), payload: payload.to_vec(), answer };
                // One that does not keep up loses the newest.
                let _ = listener.messages.try_send(message);
            })
            .count()
    }
}

/// Where answers go.
#[derive(Clone)]
struct Answers {
    asker: Arc<Mutex<Faults>>,
    answers: mpsc::Sender<Vec<u8>>,
}

impl Answers {
    fn of(&self, listener: &Listener) -> Box<dyn FnOnce(Vec<u8>) + Send> {
        let (Self { asker, answers }, answerer) = (self.clone(), listener.faults.clone());
        Box::new(move |bytes| {
            if !lock(&answerer).is_away && !lock(&asker).is_away {
                let _ = answers.try_send(bytes);
            }
        })
    }
}

/// One node's way to the bus.
#[derive(Clone)]
pub struct Local {
    shared: Arc<Shared>,
    faults: Arc<Mutex<Faults>>,
}

impl Local {
    /// Of another node, without faults.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), faults: Arc::default() }
    }

    /// Switches faults on and off.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.faults));
        // Watchers look again.
        self.shared.writes.send_modify(|writes| *writes += 1);
    }

    fn may(&self, name: &str) -> Result<(), Away> {
        self.reach()?;
        if is_name(name) { Ok(()) } else { Err(Away::Forbidden(format!("{name:?}"))) }
    }

    fn reach(&self) -> Result<(), Away> {
        if lock(&self.faults).is_away { Err(Away::Unavailable("it is cut off".to_owned())) } else { Ok(()) }
    }

    fn change(&self, table: Table, key: &str, expected: Revision, value: Option<Vec<u8>>) -> Answer<Vec<u8>> {
        if self.reach().is_err() || !is_name(key) {
            return Answer::Unavailable;
        }
        let fate = lock(&self.faults).fates.pop_front().unwrap_or(Fate::Answered);
        match fate {
            Fate::Answered => return self.shared.change(table, key, expected, value),
            Fate::Lost => {}
            Fate::AnswerLost => {
                self.shared.change(table, key, expected, value);
            }
            Fate::Late(after) => {
                let (shared, key) = (Arc::clone(&self.shared), key.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    shared.change(table, &key, expected, value);
                });
            }
        }
        Answer::Uncertain
    }

    /// Sends a message as the faults say; whether somebody listens, as far as that is known.
    fn send(&self, subject: &str, payload: Vec<u8>, answers: Option<Answers>) -> bool {
        let (delay, times) = {
            let mut faults = lock(&self.faults);
            if faults.messages_lost > 0 {
                faults.messages_lost -= 1;
                return true;
            }
            (faults.delay, 1 + usize::from(faults.is_doubled))
        };
        let (shared, subject) = (Arc::clone(&self.shared), subject.to_owned());
        let deliver = move || {
            (0..times).map(|_| shared.deliver(&subject, &payload, answers.as_ref())).max().unwrap_or(0)
        };
        if delay.is_zero() {
            return deliver() > 0;
        }
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            deliver();
        });
        true
    }
}

impl Bus for Local {
    fn read<'a>(&'a self, table: Table, key: &'a str) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(async move {
            if self.reach().is_err() || !is_name(key) {
                return Answer::Unavailable;
            }
            let behind = lock(&self.faults).reads_behind;
            let state = lock(&self.shared.state);
            let found = state.tables.get(&table).and_then(|kept| kept.state(key, behind));
            found.cloned().map_or(Answer::Read(Revision::default(), None), |(revision, value)| {
                Answer::Read(revision, value)
            })
        })
    }

    fn write<'a>(
        &'a self,
        table: Table,
        key: &'a str,
        expected: Revision,
        value: Vec<u8>,
    ) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(async move { self.change(table, key, expected, Some(value)) })
    }

    fn remove<'a>(&'a self, table: Table, key: &'a str, expected: Revision) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(async move { self.change(table, key, expected, None) })
    }

    fn list<'a>(&'a self, table: Table, prefix: &'a str) -> Doing<'a, Result<Vec<Entry>, Away>> {
        Box::pin(async move {
            self.reach()?;
            let behind = lock(&self.faults).reads_behind;
            let state = lock(&self.shared.state);
            let Some(kept) = state.tables.get(&table) else { return Ok(Vec::new()) };
            let below = kept.records.keys().filter(|key| is_below(key, prefix));
            let found = below.filter_map(|key| Some((key, kept.state(key, behind)?)));
            let entry = |(key, (revision, value)): (&String, &(Revision, Option<Vec<u8>>))| Entry {
                key: key.clone(),
                revision: *revision,
                value: value.clone(),
            };
            Ok(found.map(entry).collect())
        })
    }

    fn watch(&self, table: Table, prefix: &str) -> mpsc::Receiver<Entry> {
        let (entries, receiver) = mpsc::channel(WATCHER_ENTRIES);
        let (node, prefix) = (self.clone(), prefix.to_owned());
        let mut writes = self.shared.writes.subscribe();
        tokio::spawn(async move {
            let mut told = Revision::default();
            loop {
                writes.borrow_and_update();
                let found = match node.reach() {
                    Ok(()) => node.shared.since(table, &prefix, told),
                    Err(_) => Vec::new(),
                };
                for entry in found {
                    told = entry.revision;
                    if entries.send(entry).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = entries.closed() => return,
                    changed = writes.changed() => if changed.is_err() { return },
                }
            }
        });
        receiver
    }

    fn publish<'a>(&'a self, subject: &'a str, payload: Vec<u8>) -> Doing<'a, Result<(), Away>> {
        Box::pin(async move {
            self.may(subject)?;
            self.send(subject, payload, None);
            Ok(())
        })
    }

    fn subscribe(&self, subject: &str) -> mpsc::Receiver<Message> {
        let (messages, receiver) = mpsc::channel(LISTENER_MESSAGES);
        let listener = Listener { pattern: subject.to_owned(), faults: Arc::clone(&self.faults), messages };
        lock(&self.shared.state).listeners.push(listener);
        receiver
    }

    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Doing<'a, Result<Vec<u8>, Away>> {
        Box::pin(async move {
            self.may(subject)?;
            let (answers, mut answered) = mpsc::channel(1);
            let answers = Answers { asker: Arc::clone(&self.faults), answers };
            if !self.send(subject, payload, Some(answers.clone())) {
                return Err(Away::NoOne);
            }
            // `answers` lives on here, so that no answer is waited for as a late one is.
            let first = tokio::time::timeout(within, answered.recv()).await;
            drop(answers);
            first.ok().flatten().ok_or(Away::Timeout(within))
        })
    }

    fn keep<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> Doing<'a, Result<bool, Away>> {
        Box::pin(async move {
            self.may(name)?;
            let mut state = lock(&self.shared.state);
            Ok(*state.files.entry(name.to_owned()).or_insert_with(|| bytes.clone()) == bytes)
        })
    }

    fn kept<'a>(&'a self, name: &'a str) -> Doing<'a, Result<Option<Vec<u8>>, Away>> {
        Box::pin(async move {
            self.reach()?;
            Ok(lock(&self.shared.state).files.get(name).cloned())
        })
    }

    fn discard<'a>(&'a self, name: &'a str) -> Doing<'a, Result<(), Away>> {
        Box::pin(async move {
            self.reach()?;
            lock(&self.shared.state).files.remove(name);
            Ok(())
        })
    }

    fn health(&self) -> Result<(), Away> {
        self.reach()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{ALL, Two};

    const KEY: &str = "a.b";

    #[tokio::test]
    async fn it_is_a_bus() {
        let shared = Shared::new();
        for (name, property) in ALL {
            println!("{name}");
            property(Two(Arc::new(Local::new(&shared)), Arc::new(Local::new(&shared)))).await;
        }
    }

    async fn write(node: &Local, expected: Revision, value: &str) -> Answer<Vec<u8>> {
        node.write(Table::Jobs, KEY, expected, value.as_bytes().to_vec()).await
    }

    #[tokio::test]
    async fn a_write_meets_its_fate_and_the_next_revision_tells_which() {
        let node = Local::new(&Shared::new());
        let late = Fate::Late(Duration::from_millis(50));
        node.faults(|faults| faults.fates.extend([Fate::Lost, Fate::AnswerLost, late, Fate::Answered]));
        let none = Revision::default();
        let one = Revision { incarnation: 1, sequence: 1 };
        assert_eq!(write(&node, none, "lost").await, Answer::Uncertain);
        assert_eq!(node.read(Table::Jobs, KEY).await, Answer::Read(none, None));
        assert_eq!(write(&node, none, "unheard").await, Answer::Uncertain);
        assert_eq!(node.read(Table::Jobs, KEY).await, Answer::Read(one, Some(b"unheard".to_vec())));
        assert_eq!(write(&node, one, "late").await, Answer::Uncertain);
        assert_eq!(write(&node, one, "in time").await, Answer::Wrote(Revision { sequence: 2, ..one }));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let two = Revision { sequence: 2, ..one };
        assert_eq!(node.read(Table::Jobs, KEY).await, Answer::Read(two, Some(b"in time".to_vec())));
    }

    #[tokio::test]
    async fn one_node_is_cut_off_or_behind_and_others_are_not() {
        let shared = Shared::new();
        let (one, other) = (Local::new(&shared), Local::new(&shared));
        let mut entries = one.watch(Table::Jobs, "");
        let mut heard = one.subscribe("x");
        one.faults(|faults| faults.is_away = true);
        let Answer::Wrote(first) = write(&other, Revision::default(), "1").await else { panic!("refused") };
        assert!(matches!(write(&other, first, "2").await, Answer::Wrote(_)));
        other.publish("x", Vec::new()).await.unwrap();
        assert_eq!(write(&one, first, "3").await, Answer::Unavailable);
        assert!(
            one.health().is_err() && one.list(Table::Jobs, "").await.is_err() && heard.try_recv().is_err()
        );
        one.faults(|faults| (faults.is_away, faults.reads_behind) = (false, 1));
        assert_eq!(one.read(Table::Jobs, KEY).await, Answer::Read(first, Some(b"1".to_vec())));
        assert_eq!(entries.recv().await.unwrap().value.as_deref(), Some(&b"2"[..]));
    }

    #[tokio::test]
    async fn messages_are_lost_doubled_and_overtaken() {
        let shared = Shared::new();
        let (one, other) = (Local::new(&shared), Local::new(&shared));
        let mut heard = other.subscribe("*");
        one.faults(|faults| (faults.messages_lost, faults.delay) = (1, Duration::from_millis(100)));
        for subject in ["lost", "late"] {
            one.publish(subject, Vec::new()).await.unwrap();
        }
        one.faults(|faults| (faults.delay, faults.is_doubled) = (Duration::ZERO, true));
        one.publish("twice", Vec::new()).await.unwrap();
        for subject in ["twice", "twice", "late"] {
            assert_eq!(heard.recv().await.unwrap().subject, subject);
        }
        assert_eq!(shared.listeners(), 1);
        drop(heard);
        assert_eq!(shared.listeners(), 0);
    }

    #[tokio::test]
    async fn a_table_that_was_lost_takes_no_old_revision() {
        let shared = Shared::new();
        let node = Local::new(&shared);
        let mut entries = node.watch(Table::Jobs, "");
        let Answer::Wrote(first) = write(&node, Revision::default(), "1").await else { panic!("refused") };
        assert_eq!(entries.recv().await.unwrap().revision, first);
        shared.lose(Table::Jobs);
        assert_eq!(write(&node, first, "2").await, Answer::Stale);
        assert_eq!(node.read(Table::Jobs, KEY).await, Answer::Read(Revision::default(), None));
        let Answer::Wrote(again) = write(&node, Revision::default(), "2").await else { panic!("refused") };
        assert!(again > first && again.sequence == first.sequence);
        assert_eq!(entries.recv().await.unwrap().revision, again);
    }
}
