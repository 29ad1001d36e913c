//! The bus of several machines: NATS JetStream. Owns everything that names NATS; what stands in records is not read here.
//!
//! ```text
//!  read      the stream's leader (capture hosts: any server, by subject, of three tables)
//!  write     publish with the expected sequence of its subject, acknowledged by a quorum
//!  watch     the messages that the servers send of each write, and a look through the table now and then
//!  keep      chunks named by what they are, then a head: a file is there with its head
//! ```
//!
//! There is no consumer anywhere, so none can be left behind by a node that is gone.
//!
//! Invariant: see [`reply`] for what an answer means, [`layout`] for why a stream that was made again takes no old revision.

mod files;
pub mod key;
pub mod layout;
mod link;
mod reply;
pub mod setup;
mod table;
pub mod users;
mod watch;

pub use link::{LinkError, Way};

use super::{Away, Bus, Doing, Entry, Message, Table, is_name};
use crate::fleet::held::{Answer, Revision};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use table::Tables;
use tokio::sync::mpsc;

/// Messages that wait for a listener that is behind.
const LISTENER_MESSAGES: usize = 1024;
/// Changes that wait for a watcher that is behind; more of them wait where only each key's last is kept.
const WATCHER_ENTRIES: usize = 64;

/// One node's bus.
pub struct Nats(Arc<Tables>);

impl Nats {
    /// Begins to connect; whether it is connected is [`Bus::health`]'s to say. To be called within a runtime.
    ///
    /// # Errors
    /// Its key or an address is of no use.
    pub async fn connect(way: &Way) -> Result<Self, LinkError> {
        Ok(Self(Arc::new(Tables::new(way).await?)))
    }
}

/// From 0 to 1.
fn random_part() -> f64 {
    let bits = uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX);
    u32::try_from(bits).map_or(0.0, |bits| f64::from(bits) / f64::from(u32::MAX))
}

impl Bus for Nats {
    fn read<'a>(&'a self, table: Table, key: &'a str) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(async move {
            if !is_name(key) {
                return Answer::Unavailable;
            }
            match self.0.read(table.name(), key).await {
                Ok(Some(entry)) => Answer::Read(entry.revision, entry.value),
                Ok(None) => Answer::Read(Revision::default(), None),
                Err(_) => Answer::Unavailable,
            }
        })
    }

    fn write<'a>(
        &'a self,
        table: Table,
        key: &'a str,
        expected: Revision,
        value: Vec<u8>,
    ) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(self.0.write(table.name(), key, expected, Some(value)))
    }

    fn remove<'a>(&'a self, table: Table, key: &'a str, expected: Revision) -> Doing<'a, Answer<Vec<u8>>> {
        Box::pin(self.0.write(table.name(), key, expected, None))
    }

    fn list<'a>(&'a self, table: Table, prefix: &'a str) -> Doing<'a, Result<Vec<Entry>, Away>> {
        Box::pin(self.0.list(table.name(), prefix))
    }

    fn watch(&self, table: Table, prefix: &str) -> mpsc::Receiver<Entry> {
        let (entries, receiver) = mpsc::channel(WATCHER_ENTRIES);
        let watch = watch::Watch::new(Arc::clone(&self.0), table.name(), prefix);
        tokio::spawn(watch.run(entries));
        receiver
    }

    fn publish<'a>(&'a self, subject: &'a str, payload: Vec<u8>) -> Doing<'a, Result<(), Away>> {
        Box::pin(async move {
            let subject = self.0.subject(subject)?;
            Ok(self.0.link.publish(subject, payload).await?)
        })
    }

    fn subscribe(&self, subject: &str) -> mpsc::Receiver<Message> {
        let (messages, receiver) = mpsc::channel(LISTENER_MESSAGES);
        if layout::is_pattern(subject) {
            let pattern = self.0.names.message(subject);
            tokio::spawn(listen(Arc::clone(&self.0), pattern, messages));
        }
        receiver
    }

    fn request<'a>(
        &'a self,
        subject: &'a str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Doing<'a, Result<Vec<u8>, Away>> {
        Box::pin(async move {
            let subject = self.0.subject(subject)?;
            let message = self.0.link.ask(subject, None, payload, within).await?;
            Ok(message.payload.into())
        })
    }

    fn keep<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> Doing<'a, Result<bool, Away>> {
        Box::pin(files::keep(&self.0, name, bytes))
    }

    fn kept<'a>(&'a self, name: &'a str) -> Doing<'a, Result<Option<Vec<u8>>, Away>> {
        Box::pin(files::kept(&self.0, name))
    }

    fn discard<'a>(&'a self, name: &'a str) -> Doing<'a, Result<(), Away>> {
        Box::pin(files::discard(&self.0, name))
    }

    fn health(&self) -> Result<(), Away> {
        self.0.health()
    }
}

/// Hands messages on until nobody listens. The subscription lives on through lost connections.
async fn listen(tables: Arc<Tables>, pattern: String, messages: mpsc::Sender<Message>) {
    let Some(mut heard) = tables.link.subscribe(pattern).await else { return };
    loop {
        let message = tokio::select! {
            () = messages.closed() => return,
            message = heard.next() => message,
        };
        let Some(message) = message else { return };
        let Some(subject) = tables.names.of_message(&message.subject) else { continue };
        let answer = message.reply.clone().map(|reply| {
            let (client, runtime) = (tables.link.client(), tokio::runtime::Handle::current());
            let send = move |bytes: Vec<u8>| {
                runtime.spawn(async move { client.publish(reply, bytes.into()).await });
            };
            Box::new(send) as Box<dyn FnOnce(Vec<u8>) + Send>
        });
        // One that does not keep up loses the newest.
        let _ = messages.try_send(Message {
            subject: subject.to_owned(),
            payload: message.payload.into(),
            answer,
        });
    }
}
