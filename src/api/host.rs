//! `/ui/host`: what operators see. Owns these routes; not what is seen, which is read once a second for all.
//!
//! Invariant: only an operator's credential gets an answer; a browser on its way to the page gets the page, which has no data.

use super::auth::Operator;
use super::envelope::{Failure, success};
use super::live::{self, Topic};
use super::query::number;
use super::route::{Api, Routes};
use crate::dashboard::journal;
use axum::extract::{FromRequestParts, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// 15 minutes.
const SECONDS_MAX: u64 = 900;

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![
        ("/ui/host", get(state)),
        ("/ui/host/events", get(events)),
        ("/ui/host/series", get(series)),
        ("/ui/host/log", get(log)),
    ]
}

/// The page, if a browser is on its way to it.
async fn page(parts: &Parts) -> Option<Response> {
    #[cfg(feature = "dashboard")]
    if super::page::wants_page(&parts.headers) {
        return Some(super::page::serve("", parts.uri.clone(), &parts.headers).await);
    }
    let _without_pages = parts;
    None
}

async fn state(State(api): Api, mut parts: Parts) -> Result<Response, Failure> {
    if let Some(page) = page(&parts).await {
        return Ok(page);
    }
    Operator::from_request_parts(&mut parts, &api).await?;
    let text =
        format!("{{\"result\":{},\"success\":true,\"errors\":[],\"messages\":[]}}", api.ui.live.host());
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], text).into_response())
}

async fn events(_: Operator, State(api): Api, parts: Parts) -> Result<Response, Failure> {
    live::open(&api, &parts, Topic::Host)
}

async fn series(_: Operator, State(api): Api, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let seconds = number(query.as_deref(), "seconds")?.unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    Ok(success(api.ui.live.host_series(seconds as usize)))
}

async fn log(State(api): Api, mut parts: Parts) -> Result<Response, Failure> {
    if let Some(page) = page(&parts).await {
        return Ok(page);
    }
    Operator::from_request_parts(&mut parts, &api).await?;
    let after = number(parts.uri.query(), "after")?.unwrap_or(0);
    Ok(success(journal().after(after)))
}
