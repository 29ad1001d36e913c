//! One node's connection to the servers. Owns requests and their answers, what is known of the connection, and which requests the
//! servers refused to carry; not what requests mean.
//!
//! Answers come to one subscription, in the node's own inbox, with a token each. A request that nobody waits for any more is
//! forgotten with its token, so late answers find nobody.

use super::super::Away;
use super::key::Key;
use crate::chain::printable;
use crate::seldom::Seldom;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, ServerError, StatusCode};
use futures_util::StreamExt;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// A server that says nothing for three of them is left: it hangs, or the way to it is gone.
const PING: Duration = Duration::from_secs(2);
/// The longest between two attempts to connect; each waits a random part of it, so that a fleet comes back in a spread.
const RECONNECT_MAX: Duration = Duration::from_secs(8);
/// For a connection with its handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Refusals that are remembered until the request they belong to is given up.
const REFUSALS: usize = 64;

/// How a node reaches the servers, and what it may do there.
#[derive(Clone, Debug)]
pub struct Way {
    /// Of the fleet.
    pub fleet: String,
    /// Its own name, unique in the fleet.
    pub node: String,
    /// `tls://host:port`, or `nats://` in the clear.
    pub servers: Vec<String>,
    /// Its key; none where servers want none.
    pub nkey_file: Option<PathBuf>,
    /// Who vouches for the servers; the system's authorities if none.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key of this node, for servers that want one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How long an answer is waited for.
    pub request_timeout: Duration,
    /// Capture hosts may ask for little; see [`super::users`].
    pub is_capture: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing left this node.
    NotSent(String),
    /// It left; a server says that nobody takes it.
    NoOne,
    /// A server says that this node may not.
    Refused(String),
    /// It left, and nothing came back.
    Silence(Duration),
}

impl From<Lost> for Away {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::NotSent(why) => Self::Unavailable(why),
            Lost::NoOne => Self::NoOne,
            Lost::Refused(subject) => Self::Forbidden(subject),
            Lost::Silence(after) => Self::Timeout(after),
        }
    }
}

type Waiting = Arc<Mutex<BTreeMap<u64, mpsc::UnboundedSender<Message>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the servers told beside answers.
struct Told {
    /// Rises with each connection.
    connections: watch::Sender<u64>,
    refusals: Mutex<VecDeque<(Instant, String)>>,
    /// Rises with each refusal.
    refused: watch::Sender<u64>,
    /// Why the last attempt to connect failed.
    last_failure: Mutex<String>,
    lines: Seldom,
}

impl Told {
    fn hear(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!("connected to the fleet's bus");
                self.connections.send_modify(|connections| *connections += 1);
            }
            Event::Disconnected => tracing::warn!("the connection to the fleet's bus is lost"),
            Event::ServerError(ServerError::Other(text)) if text.contains("Permissions Violation") => {
                let mut refusals = lock(&self.refusals);
                if refusals.len() == REFUSALS {
                    refusals.pop_front();
                }
                refusals.push_back((Instant::now(), text.clone()));
                drop(refusals);
                self.refused.send_modify(|refused| *refused += 1);
                self.warn(text);
            }
            Event::ServerError(error) => self.warn(&error.to_string()),
            Event::ClientError(error) => {
                *lock(&self.last_failure) = error.to_string();
                self.warn(&error.to_string());
            }
            _ => {}
        }
    }

    fn warn(&self, text: &str) {
        if self.lines.may(Instant::now()) {
            tracing::warn!("the fleet's bus: {}", printable(text));
        }
    }

    /// Whether a server refused what was sent to this subject since then.
    fn is_refused(&self, subject: &str, since: Instant) -> bool {
        let quoted = format!("\"{subject}\"");
        lock(&self.refusals).iter().any(|(at, text)| *at >= since && text.contains(&quoted))
    }
}

/// See the module.
pub struct Link {
    client: Client,
    /// With its last dot.
    inbox: String,
    waiting: Waiting,
    token: AtomicU64,
    told: Arc<Told>,
    timeout: Duration,
}

/// Why a node cannot even try.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] super::key::KeyError),
    /// A server's address, a certificate.
    #[error("fleet.nats: {0}")]
    Connect(String),
}

/// How long to wait before an attempt: nothing before the first, a random part of up to [`RECONNECT_MAX`] before later ones.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(2)).unwrap_or(u32::MAX).min(10);
    let longest = (Duration::from_millis(100) * 2u32.saturating_pow(doublings)).min(RECONNECT_MAX);
    if attempts <= 1 { Duration::ZERO } else { longest.mul_f64(super::random_part()) }
}

impl Link {
    /// Begins to connect, and goes on until it is dropped. To be called within a runtime.
    ///
    /// # Errors
    /// The key or an address is of no use.
    pub async fn new(way: &Way) -> Result<Self, LinkError> {
        let told = Arc::new(Told {
            connections: watch::Sender::new(0),
            refusals: Mutex::default(),
            refused: watch::Sender::new(0),
            last_failure: Mutex::new("not connected yet".to_owned()),
            lines: Seldom::new(),
        });
        let hears = Arc::clone(&told);
        let mut options = ConnectOptions::new()
            .name(format!("trawl {}", way.node))
            .custom_inbox_prefix(format!("_INBOX_{}", way.node))
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING)
            .ignore_discovered_servers()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                hears.hear(&event);
                async {}
            });
        if let Some(path) = &way.nkey_file {
            options = options.nkey(Key::load(path)?.seed());
        }
        if let Some(path) = &way.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &way.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let failed = |error: &dyn std::fmt::Display| LinkError::Connect(error.to_string());
        let client = options.connect(way.servers.clone()).await.map_err(|error| failed(&error))?;
        let inbox = format!("_INBOX_{}.{}.", way.node, uuid::Uuid::new_v4().simple());
        let mut answers = client.subscribe(format!("{inbox}*")).await.map_err(|error| failed(&error))?;
        let waiting = Waiting::default();
        let (waits, prefix) = (Arc::clone(&waiting), inbox.clone());
        tokio::spawn(async move {
            while let Some(message) = answers.next().await {
                let token = message.subject.strip_prefix(&prefix).and_then(|token| token.parse().ok());
                let waits = lock(&waits);
                if let Some(waits) = token.and_then(|token: u64| waits.get(&token)) {
                    let _ = waits.send(message);
                }
            }
        });
        let token = AtomicU64::new(0);
        Ok(Self { client, inbox, waiting, token, told, timeout: way.request_timeout })
    }

    /// How long an answer is waited for, if nothing else is said.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Tells of each connection.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.told.connections.subscribe()
    }

    /// Whether it is connected, and why not.
    ///
    /// # Errors
    /// [`Away::Unavailable`].
    pub fn state(&self) -> Result<(), Away> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err(Away::Unavailable(printable(&lock(&self.told.last_failure)).into_owned())),
        }
    }

    /// Listens.
    pub async fn subscribe(&self, pattern: String) -> Option<async_nats::Subscriber> {
        self.client.subscribe(pattern).await.ok()
    }

    /// Sends without an answer.
    pub async fn publish(&self, subject: String, payload: Vec<u8>) -> Result<(), Lost> {
        self.may_send(None, payload.len())?;
        let not_sent = |error: &dyn std::fmt::Display| Lost::NotSent(error.to_string());
        let sent = self.client.publish(subject, payload.into());
        match tokio::time::timeout(self.timeout, sent).await {
            Ok(sent) => sent.map_err(|error| not_sent(&error)),
            Err(_) => Err(Lost::NotSent("too much waits to be sent".to_owned())),
        }
    }

    /// The client, for an answer to a request of another node.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn may_send(&self, headers: Option<&HeaderMap>, bytes: usize) -> Result<(), Lost> {
        if let Err(Away::Unavailable(why)) = self.state() {
            return Err(Lost::NotSent(why));
        }
        // Headers are a few short lines.
        let most = self.client.max_payload().saturating_sub(headers.map_or(0, |_| 1024));
        if bytes > most {
            return Err(Lost::NotSent(format!("{bytes} bytes are more than its servers take ({most})")));
        }
        Ok(())
    }

    /// Sends a request whose answers come one by one.
    pub async fn begin(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
    ) -> Result<Asked<'_>, Lost> {
        self.may_send(headers.as_ref(), payload.len())?;
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        let (answers, answered) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(token, answers);
        let asked = Asked { link: self, token, answered, subject: subject.clone(), since: Instant::now() };
        let (reply, payload) = (format!("{}{token}", self.inbox), payload.into());
        let sent = async {
            match headers {
                Some(headers) => {
                    self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
                None => self.client.publish_with_reply(subject, reply, payload).await,
            }
        };
        match tokio::time::timeout(self.timeout, sent).await {
            Ok(Ok(())) => Ok(asked),
            Ok(Err(error)) => Err(Lost::NotSent(error.to_string())),
            // It may still be taken from the queue: a dropped future of a full queue is not, but this does not rely on it.
            Err(_) => Err(Lost::Silence(self.timeout)),
        }
    }

    /// Sends a request and waits for its first answer.
    pub async fn ask(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Vec<u8>,
        within: Duration,
    ) -> Result<Message, Lost> {
        let until = Instant::now() + within;
        self.begin(subject, headers, payload).await?.next(until).await
    }
}

/// A request that is under way.
pub struct Asked<'a> {
    link: &'a Link,
    token: u64,
    answered: mpsc::UnboundedReceiver<Message>,
    subject: String,
    since: Instant,
}

impl Asked<'_> {
    /// The next answer.
    pub async fn next(&mut self, until: Instant) -> Result<Message, Lost> {
        let mut refused = self.link.told.refused.subscribe();
        loop {
            if self.link.told.is_refused(&self.subject, self.since) {
                return Err(Lost::Refused(self.subject.clone()));
            }
            tokio::select! {
                // An answer that is there already comes before the end of the time.
                biased;
                message = self.answered.recv() => return match message {
                    Some(message) if message.status == Some(StatusCode::NO_RESPONDERS) => Err(Lost::NoOne),
                    Some(message) => Ok(message),
                    None => Err(Lost::Silence(self.since.elapsed())),
                },
                Ok(()) = refused.changed() => {}
                () = tokio::time::sleep_until(until.into()) => return Err(Lost::Silence(self.since.elapsed())),
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.link.waiting).remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_comes_at_once_and_later_ones_are_spread_below_a_bound() {
        assert_eq!(pause(1), Duration::ZERO);
        for attempts in [2, 3, 10, 1000, usize::MAX] {
            let pauses: Vec<_> = (0..64).map(|_| pause(attempts)).collect();
            assert!(pauses.iter().all(|pause| *pause <= RECONNECT_MAX), "{attempts}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{attempts}");
        }
    }
}
