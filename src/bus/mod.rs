//! What nodes of a fleet share: records changed by compare-and-set, messages that nobody keeps, and files of results. Owns the
//! contract; what stands in records is `fleet`'s, how a server keeps them is each implementation's.
//!
//! Nothing may be decided from a read, a list or a message alone: each may be old, late, doubled or lost. Only
//! [`Bus::write`] decides, by the revision that it expects.

#[cfg(test)]
mod conformance;
pub mod local;
pub mod nats;

use crate::fleet::held::{Answer, Revision};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// An operation under way.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Records that are kept together. A bus that loses one of them and makes it again gives it a later incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `<account>`: what the account started; where a capture is accepted.
    Accounts,
    /// `<account>.<capture>`.
    Jobs,
    /// `<capture>`: its limit; `<capture>.<colo>` where a data center holds a share as one.
    Shares,
    /// `p00` to `p63`, `branch.<colo>`: who leads, who speaks for a data center.
    Claims,
    /// `<colo>.<host>`: the registry; `<colo>.<host>.ops`: what operators say of it.
    Hosts,
    /// `<colo>.<capture>`: what hosts are told.
    Assignments,
    /// `<capture>.<host>`, `<capture>.<host>.<chunk>`, `<capture>.all.<colo>`: what hosts say.
    Parts,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Accounts, Self::Jobs, Self::Shares, Self::Claims, Self::Hosts, Self::Assignments, Self::Parts];

    /// As it stands in names of streams and subjects.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Jobs => "jobs",
            Self::Shares => "shares",
            Self::Claims => "claims",
            Self::Hosts => "hosts",
            Self::Assignments => "assignments",
            Self::Parts => "parts",
        }
    }
}

/// Why something was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Away {
    /// The bus cannot be reached: nothing was done.
    Unavailable(String),
    /// No answer came in time.
    Timeout(Duration),
    /// The bus does not let this node do it.
    Forbidden(String),
    /// Nobody takes this request now.
    NoOne,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the fleet's bus cannot be reached: {why}"),
            Self::Timeout(after) => write!(f, "the fleet's bus did not answer within {after:?}"),
            Self::Forbidden(what) => write!(f, "the fleet's bus does not let this node use {what}"),
            Self::NoOne => write!(f, "no node of the fleet takes this request now"),
        }
    }
}

impl std::error::Error for Away {}

/// A record as a look through a table or a watch has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Within its table.
    pub key: String,
    /// When it was written.
    pub revision: Revision,
    /// None: it was removed.
    pub value: Option<Vec<u8>>,
}

/// A message of [`Bus::subscribe`]. Who asked by [`Bus::request`] waits for [`Message::answer`].
pub struct Message {
    /// On which subject, without the fleet's prefix.
    pub subject: String,
    /// What it says.
    pub payload: Vec<u8>,
    /// Sends the answer; none if nobody waits for one.
    pub answer: Option<Box<dyn FnOnce(Vec<u8>) + Send>>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.subject, self.payload.len())
    }
}

/// Whether a text can be a key or a subject: labels of `[A-Za-z0-9_-]` with dots between them.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label)
}

/// Of a key or a subject.
pub const NAME_BYTES_MAX: usize = 200;

/// Whether a key is below a prefix: equal to it, or behind it and a dot. All are below the empty one.
#[must_use]
pub fn is_below(key: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
    prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a subject is one of a pattern, in which a label may be `*`, any one, and the last `>`, all that follow.
#[must_use]
pub fn is_of(subject: &str, pattern: &str) -> bool {
    let (mut labels, mut wanted) = (subject.split('.'), pattern.split('.'));
    loop {
        match (labels.next(), wanted.next()) {
            (Some(_), Some(">")) | (None, None) => return true,
            (Some(label), Some(want)) if want == "*" || want == label => {}
            _ => return false,
        }
    }
}

/// What nodes share. Keys and subjects are as [`is_name`] says. A prefix is a key without its last labels; the subject that is
/// subscribed to may be a pattern, see [`is_of`].
pub trait Bus: Send + Sync {
    /// Reads a record: [`Answer::Read`] or [`Answer::Unavailable`]. What is read may be old.
    fn read<'a>(&'a self, table: Table, key: &'a str) -> Doing<'a, Answer<Vec<u8>>>;

    /// Writes a record if its revision is this one still; [`Revision::default`] stands for a key that was never written. One that was
    /// removed has the revision of its removal, which [`Self::read`] tells. [`Answer::Wrote`] means durable; after
    /// [`Answer::Uncertain`] it may be written, also later. Writers that meet are told so too, not only [`Answer::Stale`].
    fn write<'a>(
        &'a self,
        table: Table,
        key: &'a str,
        expected: Revision,
        value: Vec<u8>,
    ) -> Doing<'a, Answer<Vec<u8>>>;

    /// Removes a record if its revision is this one still.
    fn remove<'a>(&'a self, table: Table, key: &'a str, expected: Revision) -> Doing<'a, Answer<Vec<u8>>>;

    /// All records below a prefix (all of the table if it is empty), as some server has them. What was removed may be among them,
    /// without a value.
    fn list<'a>(&'a self, table: Table, prefix: &'a str) -> Doing<'a, Result<Vec<Entry>, Away>>;

    /// Tells of records below a prefix as they are written: each key's revisions rise, some may be left out, the last comes in the
    /// end. What was there before comes first. It is for speed: who needs to know looks through the table now and then. Ends with
    /// its receiver. To be called within a runtime.
    fn watch(&self, table: Table, prefix: &str) -> mpsc::Receiver<Entry>;

    /// Says something to all that listen now.
    fn publish<'a>(&'a self, subject: &'a str, payload: Vec<u8>) -> Doing<'a, Result<(), Away>>;

    /// Listens, also after the connection was lost and is back; nothing is kept in between. A listener that does not keep up loses
    /// the newest. Ends with its receiver. To be called within a runtime.
    fn subscribe(&self, subject: &str) -> mpsc::Receiver<Message>;

    /// Asks all that listen there, and waits for the first answer.
    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Doing<'a, Result<Vec<u8>, Away>>;

    /// Keeps a file of results, all of it or nothing. One of this name that is there already with the same bytes is success; with
    /// other bytes it is `false`, and stays.
    fn keep<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> Doing<'a, Result<bool, Away>>;

    /// A file of results, if it is there.
    fn kept<'a>(&'a self, name: &'a str) -> Doing<'a, Result<Option<Vec<u8>>, Away>>;

    /// Removes a file of results; one that is not there is success.
    fn discard<'a>(&'a self, name: &'a str) -> Doing<'a, Result<(), Away>>;

    /// Whether the bus answers now, and what is wrong if it does not.
    fn health(&self) -> Result<(), Away>;
}
