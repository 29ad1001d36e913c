//! The dashboard's files at `/ui/`, and the headers of every answer below `/ui`. Owns the paths and the policy; not the files.
//!
//! Invariant: every answer below `/ui`, also a failure, has the policy, and is given to nobody who calls this host by another's name.

use super::codes::Code;
use super::envelope::Failure;
use super::route::Api;
use super::{ApiState, PREFIX, no_route};
use crate::dashboard::files;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
    connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types trawl-worker";

/// A worker's script runs under its own policy: it needs no page, and asks this host alone.
const WORKER_POLICY: &str = "default-src 'none'; connect-src 'self'";

/// Nothing that a page could ask a browser for.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()";

/// The routes, which have no prefix.
pub(super) fn router() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/ui", get(|| async { Redirect::permanent("/ui/") }))
        .route("/ui/", get(index))
        .route("/ui/{*path}", get(page))
}

async fn index(uri: Uri, headers: HeaderMap) -> Response {
    serve("", uri, &headers).await
}

async fn page(path: Result<Path<String>, PathRejection>, uri: Uri, headers: HeaderMap) -> Response {
    match path {
        Ok(Path(path)) => serve(&path, uri, &headers).await,
        // Its percent-encoding is no text, which no file has.
        Err(_) => no_route(uri).await.into_response(),
    }
}

/// Whether a request is a browser's way to a page and not a page's request for data: the host's page and its data have one path.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepts.flat_map(|accept| accept.split(',')).any(|one| one.trim().starts_with("text/html"))
}

/// A file, or the page that shows this path.
pub(super) async fn serve(path: &str, uri: Uri, headers: &HeaderMap) -> Response {
    let Some(file) = files::find(path, takes_brotli(headers)) else {
        return no_route(uri).await.into_response();
    };
    let mut response = Body::from(file.bytes.into_owned()).into_response();
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    if file.is_immutable {
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        head.insert(header::CACHE_CONTROL, forever);
    }
    if file.has_variant {
        head.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if file.is_brotli {
        head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    if file.is_worker {
        head.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(WORKER_POLICY));
    }
    response
}

fn takes_brotli(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|one| one.to_str().ok());
    accepts.flat_map(|one| one.split(',')).any(|one| {
        let (name, parameters) = one.trim().split_once(';').unwrap_or((one.trim(), ""));
        let is_refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("br") && !is_refused
    })
}

/// Around every route: what lies below `/ui` is answered to this host's own names, with the headers that hold a page to itself.
pub(super) async fn guard(State(api): Api, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let below = path.strip_prefix(PREFIX).unwrap_or(path);
    if !below.strip_prefix("/ui").is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return next.run(request).await;
    }
    let mut response = if api.ui.site.is_own_host(request.headers()) {
        next.run(request).await
    } else {
        let message = "the dashboard is not served under this name; use the host's address, or have its operator add the name to ui.hosts";
        Failure::new(Code::WrongHost, message).into_response()
    };
    let status = response.status();
    let head = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        if !head.contains_key(&name) || (name == header::CACHE_CONTROL && status != StatusCode::OK) {
            head.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}
