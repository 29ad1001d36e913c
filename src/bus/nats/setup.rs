//! Makes a fleet's streams, and holds those that are there against what they must be. Owns the order: what is there is never
//! changed, only told.

use super::super::Away;
use super::layout::{self, Names};
use super::link::{Link, LinkError, Way};
use super::reply::{Fault, NO_STREAM};
use crate::chain::printable;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A stream of this name was made by somebody else at the same time.
const NAME_IN_USE: u64 = 10058;
/// Making a stream of several servers takes longer than a request.
const MAKE: Duration = Duration::from_secs(10);
/// The oldest server whose members can be replaced without a loss.
const SERVER_MIN: (u64, u64, u64) = (2, 12, 3);

/// What became of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It was missing, and is there now.
    Made,
    /// It is there as it must be.
    Right,
    /// It is missing, and nothing was to be made.
    Missing,
    /// It is there and differs: the setting, what it must be, what it is.
    Differs(Vec<(String, Value, Value)>),
}

/// The state of all streams.
#[derive(Clone, Debug)]
pub struct Report {
    /// Version of the server that was asked.
    pub server: String,
    /// By stream.
    pub streams: Vec<(String, Found)>,
}

impl Report {
    /// Whether a fleet can run on them.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.is_server_new_enough()
            && self.streams.iter().all(|(_, found)| matches!(found, Found::Made | Found::Right))
    }

    /// Servers before 2.12.3 lose acknowledged writes when one of them is replaced.
    #[must_use]
    pub fn is_server_new_enough(&self) -> bool {
        let release = self.server.split('-').next().unwrap_or_default();
        let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next(), next()) >= SERVER_MIN
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No connection can be tried.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The servers do not answer, or not this node.
    #[error("{0}")]
    Away(#[from] Away),
    /// They refuse.
    #[error("{stream} cannot be made: {why}")]
    Make {
        /// Its name.
        stream: String,
        /// In their words.
        why: String,
    },
}

/// Makes what is missing, if it is to be made, and says what all are like.
///
/// # Errors
/// [`SetupError`].
pub async fn init(way: &Way, replicas: u8, makes: bool, within: Duration) -> Result<Report, SetupError> {
    let link = Link::new(way).await?;
    let mut connections = link.connections();
    let connected = connections.wait_for(|connections| *connections > 0);
    if tokio::time::timeout(within, connected).await.is_err() {
        link.state()?;
    }
    let names = Names::new(&way.fleet);
    let mut streams = Vec::new();
    for short in Names::shorts() {
        streams.push((names.stream(short), stream(&link, &names, short, replicas, makes).await?));
    }
    Ok(Report { server: link.client().server_info().version, streams })
}

async fn ask(
    link: &Link,
    what: &str,
    stream: &str,
    question: &Value,
    within: Duration,
) -> Result<Result<Value, Fault>, Away> {
    let subject = format!("$JS.API.STREAM.{what}.{stream}");
    let payload = question.to_string().into_bytes();
    let message =
        link.ask(subject.clone(), None, payload, within).await.map_err(|lost| match Away::from(lost) {
            Away::NoOne => {
                Away::Unavailable(format!("no server has JetStream for this node's account ({subject})"))
            }
            away => away,
        })?;
    let answer: Value =
        serde_json::from_slice(&message.payload).map_err(|error| Away::Unavailable(error.to_string()))?;
    let fault = serde_json::from_value::<Fault>(answer["error"].clone());
    Ok(fault.map_or(Ok(answer), Err))
}

async fn stream(
    link: &Link,
    names: &Names,
    short: &str,
    replicas: u8,
    makes: bool,
) -> Result<Found, SetupError> {
    let name = names.stream(short);
    let failed = |fault: &Fault| SetupError::Make {
        stream: name.clone(),
        why: printable(&fault.description).into_owned(),
    };
    let mut is_made = false;
    loop {
        match ask(link, "INFO", &name, &json!({}), link.timeout()).await? {
            Ok(info) => {
                let config = &info["config"];
                // Whose subjects are none of any incarnation has those of 0, which no stream has.
                let incarnation = layout::incarnation(names, short, config).unwrap_or(0);
                let differences =
                    layout::differences(&layout::wanted(names, short, incarnation, replicas), config);
                return Ok(match (differences.is_empty(), is_made) {
                    (false, _) => Found::Differs(differences),
                    (true, true) => Found::Made,
                    (true, false) => Found::Right,
                });
            }
            Err(fault) if fault.err_code != NO_STREAM => return Err(failed(&fault)),
            Err(_) if !makes => return Ok(Found::Missing),
            Err(_) => {}
        }
        let config = layout::wanted(names, short, new_incarnation(), replicas);
        match ask(link, "CREATE", &name, &config, MAKE).await? {
            Ok(_) => is_made = true,
            Err(fault) if fault.err_code == NAME_IN_USE => {}
            Err(fault) => return Err(failed(&fault)),
        }
    }
}

/// Milliseconds since 1970: a stream that is made again has a later one than the last, as long as clocks are right by the time
/// that it takes to lose one.
fn new_incarnation() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_loses_writes_when_a_member_is_replaced_is_too_old() {
        let is_new = |server: &str| Report { server: server.to_owned(), streams: Vec::new() }.is_right();
        for good in ["2.12.3", "2.12.8", "2.15.1", "3.0.0", "2.14.0-RC.1"] {
            assert!(is_new(good), "{good}");
        }
        for old in ["2.12.2", "2.9.10", "2", ""] {
            assert!(!is_new(old), "{old}");
        }
    }
}
