//! Live answers: `…/pcaps/events`, `…/pcaps/live`, `…/pcaps/{id}/series`. Owns the form of a stream and its end; not what is seen.
//!
//! Invariant: a stream is one of a bounded number, holds a snapshot at most, and ends with its reader or the host; `opened` ends it with
//! its session.

use super::ApiState;
use super::auth::Reader;
use super::codes::Code;
use super::envelope::{Failure, success};
use super::query::number;
use super::route::{Api, PcapId, Routes};
use crate::dashboard::{Captures, Live, StreamPlace};
use crate::http::Standing;
use crate::job::AccountId;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A stream that says nothing for so long says that it lives, so that proxies keep it.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Snapshots that a reader may be behind; then it is told so, and begins with all of it.
const BEHIND_MAX: u64 = 4;

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![
        ("/accounts/{account}/pcaps/events", get(events)),
        ("/accounts/{account}/pcaps/live", get(live)),
        ("/accounts/{account}/pcaps/{id}/series", get(series)),
    ]
}

/// What a stream shows.
pub(super) enum Topic {
    /// The captures of an account.
    Captures(AccountId),
    /// The host.
    Host,
}

async fn events(Reader(account): Reader, State(api): Api, parts: Parts) -> Result<Response, Failure> {
    open(&api, &parts, Topic::Captures(account))
}

/// Opens a stream.
pub(super) fn open(api: &Arc<ApiState>, parts: &Parts, topic: Topic) -> Result<Response, Failure> {
    let payer = match &topic {
        Topic::Captures(account) => Some(account.0.as_str()),
        Topic::Host => None,
    };
    let place = api.ui.streams.take(payer).ok_or_else(|| {
        let message = "your account, or this host, has as many live streams as it may; ask …/pcaps/live every two seconds instead";
        Failure::new(Code::TooManyStreams, message)
    })?;
    // The place is the connection's, which may last longer than the stream: a client that takes nothing holds what was sent.
    let place = match parts.extensions.get::<Arc<Standing>>() {
        Some(standing) => {
            standing.is_a_stream(place);
            None
        }
        None => Some(place),
    };
    let stream = Stream {
        api: Arc::clone(api),
        topic,
        turns: api.ui.live.turns(),
        seen: None,
        said: Instant::now(),
        _place: place,
    };
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // It has left the places for connections, so nothing else may come over it.
        (header::CONNECTION, "close"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

struct Stream {
    api: Arc<ApiState>,
    topic: Topic,
    turns: watch::Receiver<u64>,
    /// The turn and the revision that were said last.
    seen: Option<(u64, u64)>,
    said: Instant,
    /// Where there is no connection to have it.
    _place: Option<StreamPlace>,
}

impl Stream {
    /// The next event, once there is one; none at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let turn = *self.turns.borrow_and_update();
            if Live::is_over(turn) {
                return None;
            }
            let event = self.event(turn);
            let event =
                event.or_else(|| (self.said.elapsed() >= HEARTBEAT).then(|| ": alive\n\n".to_owned()));
            if let Some(event) = event {
                self.said = Instant::now();
                return Some(event);
            }
            let heartbeat = tokio::time::sleep_until(self.said + HEARTBEAT);
            tokio::select! {
                changed = self.turns.changed() => changed.ok()?,
                () = heartbeat => {}
            }
        }
    }

    fn event(&mut self, turn: u64) -> Option<String> {
        let (text, before) = (String::new(), self.seen);
        let is_behind = before.is_some_and(|(seen, _)| turn.saturating_sub(seen) > BEHIND_MAX);
        let since = before.filter(|_| !is_behind).map(|(_, revision)| revision);
        let (revision, is_whole, data) = match &self.topic {
            Topic::Captures(account) => {
                let Captures { revision, is_whole, text } = self.api.ui.live.captures(account, since);
                (revision, is_whole, text)
            }
            Topic::Host => (turn, true, self.api.ui.live.host().to_string()),
        };
        self.seen = Some((turn, revision));
        if since == Some(revision) {
            return None;
        }
        let name = if is_whole { "snapshot" } else { "change" };
        let mut text = if is_behind { text + "event: resync\ndata: {}\n\n" } else { text };
        // Writing to a string cannot fail.
        let _never = write!(text, "event: {name}\nid: {revision}\ndata: {data}\n\n");
        Some(text)
    }
}

async fn live(
    Reader(account): Reader,
    State(api): Api,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let since = number(query.as_deref(), "since")?;
    let Captures { revision, text, .. } = api.ui.live.captures(&account, None);
    if since == Some(revision) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let text = format!("{{\"result\":{text},\"success\":true,\"errors\":[],\"messages\":[]}}");
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], text).into_response())
}

async fn series(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    Ok(success(api.captures.series(account, id).await?.value()))
}
