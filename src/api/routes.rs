//! The list of routes, and the OpenAPI document that describes them. Owns their paths; not what they do.
//!
//! Invariant: the document has exactly the paths, methods and error codes that are served.

use super::{ApiState, download, ownership, pcaps};
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use std::sync::Arc;

/// Paths without prefix, and what is done there.
pub(super) type Routes = Vec<(&'static str, MethodRouter<Arc<ApiState>>)>;

/// Kept by hand and not derived from types: it says what clients may rely on, which is less than what the types allow.
const OPENAPI: &str = include_str!("openapi.json");

/// Where the document is served. It needs no credential: it says nothing about a host or an account.
const OPENAPI_PATH: &str = "/openapi.json";

fn table() -> Routes {
    let mut table = pcaps::routes();
    table.extend(download::routes());
    table.extend(ownership::routes());
    table.push((OPENAPI_PATH, get(openapi)));
    table
}

/// All routes, without prefix.
pub(super) fn router() -> Router<Arc<ApiState>> {
    table().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

#[cfg(test)]
mod tests;
