//! One line of the audit log for each request that changes something or hands out packets. Owns which requests these are, what a line
//! says of one, and that an answer waits for its line; not the log (`audit`).
//!
//! Extractors and handlers say who asks and for what; here it is told what came of it. A request whose client leaves before its answer
//! has a line too. A wrong credential is no request of anybody: `auth` tells of those, with a bound.
//!
//! Invariant: a request of [`ACTIONS`] with a right credential leaves exactly one line, and nothing secret in it.

use super::auth::Proof;
use super::codes::Code;
use super::envelope::Failure;
use super::route::Api;
use super::{ApiState, PREFIX};
use crate::audit::{Audit, Entry, Outcome, Room};
use crate::http::Peer;
use crate::job::Request as Asked;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an end of a capture, or a login, waits for its line.
const ALWAYS_TIME_MAX: Duration = Duration::from_secs(1);
/// Digits of a credential's hash.
const CREDENTIAL_BYTES: usize = 4;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Something that must not be done without a line.
    Change,
    /// It hands out packets, or says what was captured.
    Read,
    /// Something that no disk may stop, and that waits for one a moment at most: an end of a capture, a login.
    Always,
}

/// Method, path without prefix, and what a line calls it.
pub(super) type Action = (Method, &'static str, &'static str, Does);

/// Every other route only shows what is on the host, or has no credential.
pub(super) static ACTIONS: [Action; 11] = [
    (Method::POST, "/accounts/{account}/pcaps", "capture.create", Does::Change),
    (Method::DELETE, "/accounts/{account}/pcaps/{id}", "capture.discard", Does::Change),
    (Method::PUT, "/accounts/{account}/pcaps/{id}/stop", "capture.stop", Does::Always),
    (Method::GET, "/accounts/{account}/pcaps/{id}/download", "capture.download", Does::Read),
    (Method::GET, "/accounts/{account}/pcaps/{id}/objects/{n}", "object.read", Does::Read),
    (Method::GET, "/accounts/{account}/pcaps/{id}/manifest", "manifest.read", Does::Read),
    (Method::POST, "/accounts/{account}/pcaps/ownership", "bucket.add", Does::Change),
    (Method::POST, "/accounts/{account}/pcaps/ownership/validate", "bucket.prove", Does::Change),
    (Method::DELETE, "/accounts/{account}/pcaps/ownership/{id}", "bucket.remove", Does::Change),
    (Method::POST, "/ui/session", "session.begin", Does::Always),
    (Method::DELETE, "/ui/session", "session.end", Does::Always),
];

/// The number of the error that an answer has.
#[derive(Clone, Copy)]
pub(super) struct Said(pub(super) u16);

/// Goes with each request of a host that has a log.
#[derive(Clone)]
pub(super) struct Trail {
    audit: Audit,
    does: Option<Does>,
    told: Arc<Mutex<Told>>,
}

struct Told {
    entry: Entry,
    /// Whether it had a right credential.
    is_known: bool,
}

impl Trail {
    /// That of a request, if the host has a log.
    pub(super) fn of(parts: &Parts) -> Option<&Self> {
        parts.extensions.get()
    }

    /// The log.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, answer: &Response) -> Option<Entry> {
        let status = answer.status();
        let mut told = self.told();
        let is_known = std::mem::take(&mut told.is_known);
        let result = match status.as_u16() {
            500.. => Outcome::Failed,
            400.. => Outcome::Refused,
            _ => Outcome::Done,
        };
        let code = answer.extensions().get::<Said>().map(|said| said.0);
        let room = room(self.does, result);
        let entry = Entry { result, status: Some(status.as_u16()), code, room, ..told.entry.clone() };
        is_known.then_some(entry)
    }
}

/// How many lines what came of a request may have.
fn room(does: Option<Does>, result: Outcome) -> Room {
    match (result, does) {
        (Outcome::Refused | Outcome::Failed, _) => Room::Few,
        // Each is one more that may have been done.
        (Outcome::Done | Outcome::Unanswered, Some(Does::Change)) => Room::Each,
        (Outcome::Done, _) | (Outcome::Unanswered, Some(Does::Always)) => Room::First,
        // Nothing goes out before its line: nothing did.
        (Outcome::Unanswered, _) => Room::Few,
    }
}

/// Says that a request has a right credential: of an account, or an operator's if none.
///
/// # Errors
/// When what it asks for has to wait until the log can be written.
pub(super) fn known(
    parts: &Parts,
    account: Option<&str>,
    proof: &Proof,
    role: &'static str,
) -> Result<(), Failure> {
    let Some(trail) = Trail::of(parts) else { return Ok(()) };
    let mut told = trail.told();
    told.is_known = true;
    told.entry.account = account.map(str::to_owned);
    told.entry.credential = Some(credential(proof));
    told.entry.role = Some(role);
    drop(told);
    match trail.does {
        Some(Does::Change | Does::Read) if trail.audit.refuses() => Err(Failure::new(
            Code::AuditStopped,
            "this host cannot write its audit log, so nothing is started, changed or handed out; captures that run go on; ask its operator",
        )),
        _ => Ok(()),
    }
}

/// Says what a request is about: a capture or a bucket.
pub(super) fn about(parts: &Parts, id: impl ToString) {
    if let Some(trail) = Trail::of(parts) {
        trail.told().entry.id = Some(id.to_string());
    }
}

/// Says more of it, without secrets.
pub(super) fn says(parts: &Parts, more: impl FnOnce() -> Value) {
    if let Some(trail) = Trail::of(parts) {
        trail.told().entry.about = Some(more());
    }
}

/// What a new capture was to be.
pub(super) fn asked(request: &Asked) -> Value {
    json!({
        "type": request.kind,
        "filter_v1": request.filter,
        "time_limit": request.time_limit,
        "packet_limit": request.packet_limit,
        "byte_limit": request.byte_limit,
        "colo_name": request.colo,
        "destination_conf": request.destination.as_ref().map(ToString::to_string),
        "offset_time": request.offset_time.as_ref().map(|offset| &offset.sent),
    })
}

/// By which a credential is found in the config: the first digits of `token_sha256` or `key_sha256`.
fn credential(proof: &Proof) -> String {
    let digits = &proof[64..64 + CREDENTIAL_BYTES];
    HEXLOWER.encode(digits)
}

fn action(method: &Method, matched: Option<&MatchedPath>) -> Option<(&'static str, Does)> {
    let path = matched?.as_str();
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    let found = ACTIONS.iter().find(|(of, at, ..)| of == method && *at == path);
    found.map(|(_, _, name, does)| (*name, *does))
}

/// Tells of a request that is dropped before it was answered: its client has left, or its time was over.
struct Unanswered<'a>(&'a Trail);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut told = self.0.told();
        if std::mem::take(&mut told.is_known) {
            let result = Outcome::Unanswered;
            let room = room(self.0.does, result);
            self.0.audit.tell(Entry { result, room, ..told.entry.clone() });
        }
    }
}

/// Around every route.
pub(super) async fn watch(State(api): Api, mut request: Request, next: Next) -> Response {
    let ApiState { audit: Some(audit), .. } = &*api else { return next.run(request).await };
    let action = action(request.method(), request.extensions().get::<MatchedPath>());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let entry = Entry { peer, ..Entry::new(action.map_or("", |(name, _)| name)) };
    let told = Arc::new(Mutex::new(Told { entry, is_known: false }));
    let trail = Trail { audit: audit.clone(), does: action.map(|(_, does)| does), told };
    request.extensions_mut().insert(trail.clone());
    let Some((_, does)) = action else { return next.run(request).await };
    let unanswered = Unanswered(&trail);
    let answer = next.run(request).await;
    let Some(entry) = trail.outcome(&answer) else { return answer };
    drop(unanswered);
    match (entry.result, does) {
        (Outcome::Done, Does::Change | Does::Read) => recorded(audit, entry, does, answer).await,
        (Outcome::Done, Does::Always) => {
            // A disk that works takes milliseconds; the line comes later if this one does not.
            let _later = audit.record_within(entry, ALWAYS_TIME_MAX).await;
            answer
        }
        _ => {
            audit.tell(entry);
            answer
        }
    }
}

/// The answer, once its line is durable.
async fn recorded(audit: &Audit, entry: Entry, does: Does, answer: Response) -> Response {
    let Err(error) = audit.record(entry).await else { return answer };
    if !audit.is_required() {
        return answer;
    }
    tracing::error!(%error, "a request was done and its line is not durable; it is answered with an error");
    let message = match does {
        Does::Read => "this host cannot write its audit log, so nothing is handed out; ask its operator",
        _ => {
            "it was done, but this host could not write its audit log; look at what is there before you ask again"
        }
    };
    Failure::new(Code::Unrecorded, message).into_response()
}
