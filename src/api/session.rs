//! `/ui/session`: login, who is logged in, logout. Owns these routes; not what a session is.
//!
//! Invariant: a credential is compared as one in a header is, fails as one, and is in no answer and no log.

use super::auth::{self, OPERATOR, Proof, role_name};
use super::check::Check;
use super::codes::Code;
use super::envelope::{Failure, success};
use super::result::date_time;
use super::route::{Api, Routes};
use super::{ApiState, body, trail};
use crate::dashboard::{Grant, Session, journal};
use crate::http::Peer;
use crate::job::AccountId;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![("/ui/session", get(who).post(login).delete(logout))]
}

/// A login, in one of three forms. Members are texts; what they are instead is not said, because it may be a credential.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    account: Option<Value>,
    token: Option<Value>,
    email: Option<Value>,
    key: Option<Value>,
    operator_token: Option<Value>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Serialize)]
struct Granted {
    id: String,
    role: &'static str,
}

#[derive(Serialize)]
struct Shown {
    accounts: Vec<Granted>,
    operator: bool,
    expires: String,
    idle_seconds: u64,
}

/// A session as it is shown; none if nothing that it holds opens anything any more.
fn shown(api: &ApiState, session: &Session) -> Option<Shown> {
    let terms = api.terms.now();
    let granted = |grant: &Grant| {
        let (account, role) = (grant.account.as_ref()?, terms.accounts.role_of(grant)?);
        Some(Granted { id: account.0.clone(), role: role_name(role) })
    };
    let accounts: Vec<_> = session.grants.iter().filter_map(granted).collect();
    let operator = session.grants.iter().any(|grant| terms.accounts.is_operator(grant));
    let left = jiff::SignedDuration::try_from(session.left).unwrap_or_default();
    (operator || !accounts.is_empty()).then(|| Shown {
        accounts,
        operator,
        expires: date_time(Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX)),
        idle_seconds: api.ui.sessions.bounds().idle.as_secs(),
    })
}

/// Whose login it is, and what was presented.
fn presented(login: &Login) -> Result<(Option<AccountId>, Proof), Failure> {
    let mut check = Check::default();
    check.unknown("", &login.unknown);
    let mut text = |pointer: &str, value: Option<&Value>| -> Option<String> {
        value.and_then(|value| check.secret_text(pointer, value)).map(str::to_owned)
    };
    let account = text("/account", login.account.as_ref()).map(AccountId);
    let token = text("/token", login.token.as_ref());
    let (email, key) = (text("/email", login.email.as_ref()), text("/key", login.key.as_ref()));
    let operator = text("/operator_token", login.operator_token.as_ref());
    if let Some(failure) = Failure::of(check.into_problems()) {
        return Err(failure);
    }
    match (account, token, email, key, operator) {
        (Some(account), Some(token), None, None, None) => {
            // An account's id is never empty: that would be an operator's token.
            let named = (!account.0.is_empty()).then_some(&account).ok_or_else(auth::denied)?;
            let proof = auth::token_proof(Some(named), token.trim().as_bytes());
            Ok((Some(account), proof))
        }
        (Some(account), None, Some(email), Some(key), None) => {
            let proof = auth::key_proof(&account, &email, key.as_bytes());
            Ok((Some(account), proof))
        }
        (None, None, None, None, Some(token)) => Ok((None, auth::token_proof(None, token.trim().as_bytes()))),
        _ => Err(Failure::new(
            Code::MissingMember,
            "send account with token, or account with email and key, or operator_token alone",
        )),
    }
}

async fn login(
    State(api): Api,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    if !api.ui.site.is_own_page(&parts.method, &parts.headers) {
        let message = "a login comes from this host's own page: same origin, and X-Trawl-UI: 1";
        return Err(Failure::new(Code::CrossSite, message));
    }
    if api.ui.site.cookie_name().is_none() {
        return Err(Failure::new(
            Code::InsecureLogin,
            "over plain HTTP nobody can log in but on the host itself; its operator sets api.tls_cert and api.tls_key, or \
             ui.origin if a proxy in front ends TLS",
        ));
    }
    let (account, proof) = presented(&body::parse(body, api.request_bytes_max)?)?;
    let name = account.as_ref().map_or(OPERATOR, |account| account.0.as_str());
    let grant = Grant { account: account.clone(), proof };
    let terms = api.terms.now();
    if !terms.accounts.opens(&grant) {
        return Err(auth::refused(&terms.accounts, &parts, name).await);
    }
    let named = account.as_ref().map(|account| account.0.as_str());
    let role = terms.accounts.role_of(&grant).map_or("operator", role_name);
    trail::known(&parts, named, &grant.proof, role)?;
    auth::admitted(&parts, named)?;
    let old = api.ui.session_id(&parts);
    let now = api.ui.now();
    let id = api
        .ui
        .sessions
        .begin(old.as_deref(), grant, now)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    audit(&parts, "login", account.as_ref());
    let session = api.ui.sessions.find(&id, now, true).ok_or_else(auth::denied)?;
    let shown = shown(&api, &session).ok_or_else(auth::denied)?;
    Ok((set(header::SET_COOKIE, api.ui.site.set_cookie(&id)), success(shown)).into_response())
}

/// What somebody did, for the audit trail.
pub(super) fn audit(parts: &Parts, what: &str, account: Option<&AccountId>) {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.to_string());
    journal().audit(what, account.map(|account| account.0.as_str()), peer);
}

fn set(name: HeaderName, value: Option<String>) -> [(HeaderName, HeaderValue); 1] {
    let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
    [(name, value.unwrap_or(HeaderValue::from_static("")))]
}

/// Only a session is one: a credential in a header opens accounts by their paths.
async fn who(State(api): Api, parts: Parts) -> Result<Response, Failure> {
    let session = own_session(&api, &parts)?;
    shown(&api, &session).map(success).ok_or_else(auth::denied)
}

async fn logout(State(api): Api, parts: Parts) -> Result<Response, Failure> {
    let session = own_session(&api, &parts)?;
    if let Some(id) = api.ui.session_id(&parts) {
        api.ui.sessions.end(&id);
    }
    // One line, of its first account: an operator's has none.
    let account = session.grants.iter().find_map(|grant| grant.account.as_ref());
    audit(&parts, "logout", account);
    if let Some(grant) = session.grants.first() {
        let role = api.terms.now().accounts.role_of(grant).map_or("operator", role_name);
        trail::known(&parts, grant.account.as_ref().map(|own| own.0.as_str()), &grant.proof, role)?;
    }
    let clear =
        [(HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\", \"storage\""))];
    let cookie = set(header::SET_COOKIE, api.ui.site.clear_cookie());
    Ok((StatusCode::NO_CONTENT, clear, cookie).into_response())
}

/// The session of a request, which is a use of it: the page asks for it when somebody opens it or works with it. No credential in a
/// header is one, so it is neither compared nor counted as a failure.
fn own_session(api: &ApiState, parts: &Parts) -> Result<Session, Failure> {
    let missing = match auth::presented(&parts.headers, "") {
        Err(missing) if !auth::has_credential(&parts.headers) => missing,
        _ => return Err(auth::denied()),
    };
    api.ui.session(parts, true).ok_or(missing)
}
