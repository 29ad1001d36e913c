//! Records of a table: read, written, listed. Owns which stream a revision is of, and what each kind of node may ask; a revision's
//! meaning is `fleet`'s.

use super::super::{Away, Entry, is_name};
use super::layout::{self, Names};
use super::link::{Link, LinkError, Lost, Way};
use super::reply::{self, Fault, NO_STREAM};
use crate::chain::printable;
use crate::fleet::held::{Answer, Revision};
use crate::seldom::Seldom;
use async_nats::StatusCode;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Reads of a list that are under way at once.
const READS_AT_ONCE: usize = 64;
/// Reads that are made ready together.
const READS_MADE: usize = 1024;
/// Records of one answer where any server answers.
const BATCH: u64 = 256;
/// Changes that are read one after the other before a list is quicker.
pub(super) const STEPS_MAX: usize = 64;

/// What a stream's leader says of it.
pub(super) struct Info {
    /// Of its subjects.
    pub incarnation: u64,
    /// Keys below the prefix that was asked for.
    keys: Vec<String>,
    /// Of how many, over all answers.
    total: u64,
}

/// See the module.
pub(super) struct Tables {
    pub link: Link,
    pub names: Names,
    is_capture: bool,
    /// As last heard of.
    incarnations: Mutex<BTreeMap<&'static str, u64>>,
    /// What the last operation lacked.
    lacks: Mutex<Option<Away>>,
    lines: Seldom,
}

impl Tables {
    pub async fn new(way: &Way) -> Result<Self, LinkError> {
        Ok(Self {
            link: Link::new(way).await?,
            names: Names::new(&way.fleet),
            is_capture: way.is_capture,
            incarnations: Mutex::default(),
            lacks: Mutex::default(),
            lines: Seldom::new(),
        })
    }

    /// A subject of messages.
    pub fn subject(&self, subject: &str) -> Result<String, Away> {
        let is_own = is_name(subject) && !subject.starts_with("table.");
        if is_own { Ok(self.names.message(subject)) } else { Err(Away::Forbidden(format!("{subject:?}"))) }
    }

    pub fn health(&self) -> Result<(), Away> {
        self.link.state()?;
        self.lacks.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Notes whether the servers answered.
    fn noted<T>(&self, result: Result<T, Away>) -> Result<T, Away> {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        // What this node may not do is an answer too.
        *lacks = result.as_ref().err().filter(|away| !matches!(away, Away::Forbidden(_))).cloned();
        drop(lacks);
        if let Err(away) = &result {
            self.warn(&away.to_string());
        }
        result
    }

    fn warn(&self, text: &str) {
        if self.lines.may(Instant::now()) {
            tracing::warn!("{}", printable(text));
        }
    }

    fn met(&self, short: &'static str, incarnation: u64) {
        let mut incarnations = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        incarnations.insert(short, incarnation);
    }

    fn forget(&self, short: &str) {
        self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).remove(short);
    }

    async fn incarnation(&self, short: &'static str) -> Result<u64, Away> {
        let known = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).get(short).copied();
        match known {
            Some(incarnation) => Ok(incarnation),
            None => self.look_up(short).await,
        }
    }

    /// The incarnation as the stream's leader has it.
    pub async fn look_up(&self, short: &'static str) -> Result<u64, Away> {
        Ok(self.info(short, None, 0).await?.incarnation)
    }

    /// What a fault of a stream is to a node.
    fn away(&self, short: &'static str, fault: &Fault) -> Away {
        if fault.err_code == NO_STREAM {
            self.forget(short);
            let stream = self.names.stream(short);
            return Away::Unavailable(format!(
                "it has no stream {stream}: `trawl fleet init` makes what is missing"
            ));
        }
        Away::Unavailable(printable(&fault.description).into_owned())
    }

    async fn ask_json(&self, subject: String, question: Value) -> Result<Vec<u8>, Lost> {
        let payload = question.to_string().into_bytes();
        let message = self.link.ask(subject, None, payload, self.link.timeout()).await?;
        Ok(message.payload.into())
    }

    async fn info(&self, short: &'static str, filter: Option<&str>, offset: u64) -> Result<Info, Away> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.names.stream(short));
        let question =
            filter.map_or(json!({}), |filter| json!({"subjects_filter": filter, "offset": offset}));
        let result = self.ask_json(subject, question).await.map_err(Away::from).and_then(|answer| {
            let unreadable = |why: &str| Away::Unavailable(format!("{}: {why}", self.names.stream(short)));
            let answer: Value =
                serde_json::from_slice(&answer).map_err(|error| unreadable(&error.to_string()))?;
            if let Ok(fault) = serde_json::from_value::<Fault>(answer["error"].clone()) {
                return Err(self.away(short, &fault));
            }
            let incarnation = layout::incarnation(&self.names, short, &answer["config"])
                .ok_or_else(|| unreadable("it is none of trawl's: see `trawl fleet init`"))?;
            let subjects = answer["state"]["subjects"].as_object();
            let keys = subjects.into_iter().flat_map(serde_json::Map::keys);
            let keys =
                keys.filter_map(|subject| Some(self.names.parse(short, subject)?.1.to_owned())).collect();
            Ok(Info { incarnation, keys, total: answer["total"].as_u64().unwrap_or(0) })
        });
        let info = self.noted(result)?;
        self.met(short, info.incarnation);
        Ok(info)
    }

    /// Writes, or removes if there is no value.
    pub async fn write(
        &self,
        short: &'static str,
        key: &str,
        expected: Revision,
        value: Option<Vec<u8>>,
    ) -> Answer<Vec<u8>> {
        if !is_name(key) {
            return Answer::Unavailable;
        }
        let incarnation = match self.stream_of(short, expected).await {
            Ok(incarnation) => incarnation,
            Err(answer) => return answer,
        };
        let subject = self.names.subject(short, incarnation, key);
        let headers = reply::follows(expected.sequence, value.is_none());
        let payload = value.unwrap_or_default();
        let sent = self.link.ask(subject, Some(headers), payload, self.link.timeout()).await;
        if matches!(sent, Err(Lost::NoOne)) {
            // Its stream is gone, or has no leader.
            self.forget(short);
        }
        match self.noted(sent.map_err(Away::from)) {
            Ok(message) => {
                let (answer, odd) = reply::written(
                    &message.payload,
                    &self.names.stream(short),
                    incarnation,
                    expected.sequence,
                );
                if let Some(odd) = odd {
                    self.warn(&format!(
                        "the fleet's bus: a write of {} is unclear: {odd}",
                        self.names.stream(short)
                    ));
                }
                answer
            }
            Err(Away::Unavailable(_) | Away::Forbidden(_)) => Answer::Unavailable,
            Err(Away::Timeout(_) | Away::NoOne) => Answer::Uncertain,
        }
    }

    /// The incarnation to write to, for a write that expects this revision.
    async fn stream_of(&self, short: &'static str, expected: Revision) -> Result<u64, Answer<Vec<u8>>> {
        let known = self.incarnation(short).await.map_err(|_| Answer::Unavailable)?;
        if expected == Revision::default() || expected.incarnation == known {
            return Ok(known);
        }
        let current = self.look_up(short).await.map_err(|_| Answer::Unavailable)?;
        match expected.incarnation.cmp(&current) {
            std::cmp::Ordering::Equal => Ok(current),
            // Its stream is gone, and with it the revision.
            std::cmp::Ordering::Less => Err(Answer::Stale),
            std::cmp::Ordering::Greater => Err(Answer::Unavailable),
        }
    }

    /// A record; none if its key was never written.
    pub async fn read(&self, short: &'static str, key: &str) -> Result<Option<Entry>, Away> {
        let result = if self.is_capture {
            self.read_direct(short, key).await
        } else {
            self.read_leader(short, key).await
        };
        self.noted(result)
    }

    async fn read_leader(&self, short: &'static str, key: &str) -> Result<Option<Entry>, Away> {
        self.get(short, json!({"last_by_subj": self.names.any(short, key)})).await
    }

    async fn get(&self, short: &'static str, which: Value) -> Result<Option<Entry>, Away> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.names.stream(short));
        let answer = self.ask_json(subject, which).await?;
        let entry = reply::stored(&answer, &self.names, short).map_err(|fault| self.away(short, &fault))?;
        if let Some(entry) = &entry {
            self.met(short, entry.revision.incarnation);
        }
        Ok(entry)
    }

    async fn read_direct(&self, short: &'static str, key: &str) -> Result<Option<Entry>, Away> {
        let mut incarnation = self.incarnation(short).await?;
        loop {
            let record = self.names.subject(short, incarnation, key);
            let subject = format!("$JS.API.DIRECT.GET.{}.{record}", self.names.stream(short));
            let message =
                self.link.ask(subject, None, Vec::new(), self.link.timeout()).await.map_err(|lost| {
                    if lost == Lost::NoOne {
                        self.forget(short);
                        return Away::Unavailable(format!(
                            "no server answers for {}",
                            self.names.stream(short)
                        ));
                    }
                    lost.into()
                })?;
            if message.status.is_none() {
                return Ok(reply::told(message, &self.names, short));
            }
            // It has none of this name: in this incarnation.
            let current = self.look_up(short).await?;
            if current == incarnation {
                return Ok(None);
            }
            incarnation = current;
        }
    }

    /// All records below a prefix.
    pub async fn list(&self, short: &'static str, prefix: &str) -> Result<Vec<Entry>, Away> {
        let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
        if !prefix.is_empty() && !is_name(prefix) {
            return Err(Away::Forbidden(format!("{prefix:?}")));
        }
        let result = if self.is_capture {
            let list = self.since_direct(short, prefix, 0).await;
            match list {
                // A capture host may read single records of its own data center, which is the first label.
                Ok(mut entries) if prefix.contains('.') => {
                    let own = self.read_direct(short, prefix).await;
                    own.map(|own| {
                        entries.extend(own);
                        entries
                    })
                }
                list => list,
            }
        } else {
            self.list_leader(short, prefix).await
        };
        self.noted(result)
    }

    async fn list_leader(&self, short: &'static str, prefix: &str) -> Result<Vec<Entry>, Away> {
        let filter = self.names.any(short, &below(prefix));
        let mut keys: Vec<String> = Vec::new();
        loop {
            let info = self.info(short, Some(&filter), keys.len() as u64).await?;
            let is_last = info.keys.is_empty() || (keys.len() + info.keys.len()) as u64 >= info.total;
            keys.extend(info.keys);
            if is_last {
                break;
            }
        }
        if !prefix.is_empty() {
            keys.push(prefix.to_owned());
        }
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READS_MADE) {
            let reads: Vec<_> = keys.iter().map(|key| self.read_leader(short, key)).collect();
            let reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
            let found: Vec<Option<Entry>> = reads.try_collect().await?;
            entries.extend(found.into_iter().flatten());
        }
        Ok(entries)
    }

    /// What was written below a prefix after a sequence, the oldest first, as some server has it; none if that is a lot.
    pub async fn since(
        &self,
        short: &'static str,
        prefix: &str,
        after: u64,
    ) -> Result<Option<Vec<Entry>>, Away> {
        if self.is_capture {
            return self.since_direct(short, prefix, after).await.map(Some);
        }
        let (mut entries, mut after) = (Vec::new(), after);
        let filter = self.names.any(short, &below(prefix));
        while let Some(entry) = self.get(short, json!({"seq": after + 1, "next_by_subj": filter})).await? {
            after = entry.revision.sequence;
            entries.push(entry);
            if entries.len() == STEPS_MAX {
                return Ok(None);
            }
        }
        if !prefix.is_empty() {
            entries.extend(self.read_leader(short, prefix).await?);
        }
        Ok(Some(entries))
    }

    /// The same from whichever server answers.
    async fn since_direct(&self, short: &'static str, prefix: &str, after: u64) -> Result<Vec<Entry>, Away> {
        // The servers let a capture host ask so for assignments alone.
        if short != "assignments" {
            return Err(Away::Forbidden(format!("a list of {}", self.names.stream(short))));
        }
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream(short));
        let (mut entries, mut after) = (Vec::new(), after);
        loop {
            let question = json!({"seq": after + 1, "next_by_subj": self.names.any(short, &below(prefix)), "batch": BATCH});
            let until = Instant::now() + self.link.timeout();
            let mut asked = self.link.begin(subject.clone(), None, question.to_string().into_bytes()).await?;
            let before = entries.len();
            let status = loop {
                let message = asked.next(until).await.map_err(|lost| match lost {
                    Lost::NoOne => {
                        Away::Unavailable(format!("no server answers for {}", self.names.stream(short)))
                    }
                    lost => lost.into(),
                })?;
                if let Some(status) = message.status {
                    break status;
                }
                entries.extend(reply::told(message, &self.names, short));
            };
            // 204 ends a batch, 404 says that there is nothing.
            if status != StatusCode::OK && ![204, 404].contains(&status.as_u16()) {
                return Err(Away::Unavailable(format!("{}: it answers {status}", self.names.stream(short))));
            }
            after = entries.last().map_or(after, |entry: &Entry| entry.revision.sequence);
            if entries.len() == before {
                return Ok(entries);
            }
        }
    }
}

/// All keys below a prefix, but not itself.
fn below(prefix: &str) -> String {
    if prefix.is_empty() { ">".to_owned() } else { format!("{prefix}.>") }
}
