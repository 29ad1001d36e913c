//! A watch of a table: what the servers send of each write, and a look through the table. Owns when it looks, and that each key's
//! revisions rise; what is sent may be lost, so only the looks make it whole.
//!
//! ```text
//!  messages of writes ─┐
//!                      ├─▶ newer than told? ─▶ each key's last that waits ─▶ receiver
//!  looks, each 30 s,  ─┘
//!  after a connection, again after a failure
//! ```
//!
//! It always reads what comes, also while the receiver is behind or a look is under way.

use super::super::{Away, Entry};
use super::table::Tables;
use crate::fleet::held::Revision;
use futures_util::StreamExt;
use futures_util::future::OptionFuture;
use futures_util::stream::select_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The longest between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After a failed look, at least.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// After a new connection, at most: all nodes have one after a server was lost.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// What was told, and what waits to be.
#[derive(Default)]
struct Seen {
    /// All up to here was told or waits.
    whole: Revision,
    /// Of keys with a later one: the newest.
    newest: BTreeMap<String, Revision>,
    waiting: BTreeMap<Revision, Entry>,
}

impl Seen {
    fn take(&mut self, entry: Entry) {
        let newest = self.newest.get(&entry.key).copied();
        if entry.revision <= newest.unwrap_or(self.whole) {
            return;
        }
        if let Some(newest) = newest {
            self.waiting.remove(&newest);
        }
        self.newest.insert(entry.key.clone(), entry.revision);
        self.waiting.insert(entry.revision, entry);
    }

    /// Everything up to a revision has been taken.
    fn is_whole_until(&mut self, revision: Revision) {
        self.whole = revision;
        self.newest.retain(|_, newest| *newest > revision);
    }
}

/// What a look found.
struct Look {
    entries: Vec<Entry>,
    /// It had everything, not only what is later than known.
    is_list: bool,
    incarnation: u64,
}

/// See the module.
pub(super) struct Watch {
    tables: Arc<Tables>,
    short: &'static str,
    prefix: String,
    seen: Seen,
    /// Of the last list: the newest in it. A list is read from several servers' states if their leader changes meanwhile, so what is
    /// whole is what the list before it had.
    listed: Option<Revision>,
    failures: u32,
}

impl Watch {
    pub fn new(tables: Arc<Tables>, short: &'static str, prefix: &str) -> Self {
        let prefix = prefix.strip_suffix('.').unwrap_or(prefix).to_owned();
        Self { tables, short, prefix, seen: Seen::default(), listed: None, failures: 0 }
    }

    /// Until nobody receives any more.
    pub async fn run(mut self, entries: mpsc::Sender<Entry>) {
        let (link, names) = (&self.tables.link, &self.tables.names);
        let mut connections = link.connections();
        let mut patterns = vec![names.told(self.short, ">")];
        if !self.prefix.is_empty() {
            patterns = vec![
                names.told(self.short, &self.prefix),
                names.told(self.short, &format!("{}.>", self.prefix)),
            ];
        }
        let mut subscriptions = Vec::new();
        for pattern in patterns {
            let Some(subscription) = link.subscribe(pattern).await else { return };
            subscriptions.push(subscription);
        }
        let mut heard = select_all(subscriptions);
        let (mut due, mut looking) = (Instant::now(), None::<JoinHandle<Result<Look, Away>>>);
        loop {
            tokio::select! {
                () = entries.closed() => break,
                Ok(permit) = entries.reserve(), if !self.seen.waiting.is_empty() => {
                    if let Some((_, entry)) = self.seen.waiting.pop_first() {
                        permit.send(entry);
                    }
                }
                message = heard.next() => match message {
                    Some(message) => {
                        if let Some(entry) = super::reply::told(message, &self.tables.names, self.short) {
                            self.seen.take(entry);
                        }
                    }
                    None => break,
                },
                Some(look) = OptionFuture::from(looking.as_mut()), if looking.is_some() => {
                    looking = None;
                    due = Instant::now() + self.looked(look.unwrap_or(Err(Away::NoOne)));
                }
                () = tokio::time::sleep_until(due), if looking.is_none() => looking = Some(tokio::spawn(self.look())),
                Ok(()) = connections.changed() => {
                    due = due.min(Instant::now() + SETTLE_MAX.mul_f64(super::random_part()));
                }
            }
        }
        if let Some(looking) = looking {
            looking.abort();
        }
    }

    fn look(&self) -> impl Future<Output = Result<Look, Away>> + Send + use<> {
        let (tables, short, prefix) = (Arc::clone(&self.tables), self.short, self.prefix.clone());
        let whole = self.seen.whole;
        async move {
            let incarnation = tables.look_up(short).await?;
            if whole.incarnation == incarnation
                && let Some(entries) = tables.since(short, &prefix, whole.sequence).await?
            {
                return Ok(Look { entries, is_list: false, incarnation });
            }
            let entries = tables.list(short, &prefix).await?;
            Ok(Look { entries, is_list: true, incarnation })
        }
    }

    /// Takes what a look found; how long until the next.
    fn looked(&mut self, look: Result<Look, Away>) -> Duration {
        let Ok(look) = look else {
            self.failures = self.failures.saturating_add(1);
            let longest = (BACKOFF_MIN * 2u32.saturating_pow(self.failures.min(6))).min(LOOK_EVERY);
            return BACKOFF_MIN + (longest - BACKOFF_MIN).mul_f64(super::random_part());
        };
        self.failures = 0;
        // The prefix itself is read apart from what is below it.
        let counts = |entry: &&Entry| {
            entry.revision.incarnation == look.incarnation
                && (entry.key != self.prefix || self.prefix.is_empty())
        };
        let newest = look.entries.iter().filter(counts).map(|entry| entry.revision).max();
        let newest = newest.unwrap_or(Revision { incarnation: look.incarnation, sequence: 0 });
        if self.seen.whole.incarnation > look.incarnation || self.is_older(newest) {
            // The store was brought back to an older state.
            self.seen = Seen::default();
        }
        look.entries.into_iter().for_each(|entry| self.seen.take(entry));
        let listed = self.listed.replace(newest).filter(|listed| listed.incarnation == newest.incarnation);
        match (look.is_list, listed) {
            (false, _) => self.seen.is_whole_until(newest.max(self.seen.whole)),
            (true, Some(listed)) => self.seen.is_whole_until(listed.max(self.seen.whole)),
            (true, None) => {}
        }
        LOOK_EVERY.mul_f64(0.75 + super::random_part() / 4.0)
    }

    /// Whether a stream that was made again is older than what was told of it.
    fn is_older(&self, newest: Revision) -> bool {
        self.seen.newest.values().any(|told| told.incarnation > newest.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, sequence: u64) -> Entry {
        Entry { key: key.to_owned(), revision: Revision { incarnation: 1, sequence }, value: None }
    }

    fn told(seen: &mut Seen) -> Vec<(String, u64)> {
        std::iter::from_fn(|| seen.waiting.pop_first())
            .map(|(_, entry)| (entry.key, entry.revision.sequence))
            .collect()
    }

    #[test]
    fn of_each_key_only_the_newest_waits_and_nothing_is_told_twice() {
        let mut seen = Seen::default();
        for (key, sequence) in [("a", 1), ("b", 2), ("a", 4), ("b", 2), ("a", 3)] {
            seen.take(entry(key, sequence));
        }
        assert_eq!(told(&mut seen), [("b".to_owned(), 2), ("a".to_owned(), 4)]);
        seen.take(entry("a", 4));
        seen.is_whole_until(entry("", 4).revision);
        seen.take(entry("a", 4));
        seen.take(entry("c", 3));
        assert_eq!((told(&mut seen), seen.newest.len()), (Vec::new(), 0));
        seen.take(entry("a", 5));
        assert_eq!(told(&mut seen), [("a".to_owned(), 5)]);
    }
}
