//! The list of routes, and the OpenAPI document that describes them. Owns their paths; not what they do.
//!
//! Invariant: the document has exactly the paths, methods and error codes that are served, and the limits of its host.

use super::route::{Api, Routes};
use super::{
    ApiState, Rules, capabilities, download, estimate, host, live, objects, ownership, pcaps, session,
};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// Kept by hand and not derived from types: it says what clients may rely on, which is less than what the types allow.
const OPENAPI: &str = include_str!("openapi.json");

/// Where the document is served. It needs no credential: of its host it says only what may be asked for, of accounts nothing.
const OPENAPI_PATH: &str = "/openapi.json";

fn table() -> Routes {
    let mut table = pcaps::routes();
    table.extend(download::routes());
    table.extend(capabilities::routes());
    table.extend(estimate::routes());
    table.extend(live::routes());
    table.extend(objects::routes());
    table.extend(ownership::routes());
    if cfg!(feature = "dashboard") {
        table.extend(session::routes());
        table.extend(host::routes());
    }
    table.push((OPENAPI_PATH, get(openapi)));
    table
}

/// All routes, without prefix.
pub(super) fn router() -> Router<Arc<ApiState>> {
    table().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

async fn openapi(State(api): Api) -> Response {
    let document = api.terms.now().document.clone();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// [`OPENAPI`] with the limits of this host in the place of Cloudflare's. That the file is JSON and has these members, tests
/// show; of one that were not, what there is would be served.
pub(super) fn document(rules: &Rules) -> Bytes {
    let Ok(mut document) = serde_json::from_str::<Value>(OPENAPI) else {
        return Bytes::from_static(OPENAPI.as_bytes());
    };
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        paths.retain(|path, _| cfg!(feature = "dashboard") || !path.starts_with("/ui"));
    }
    for (kind, member, max) in [
        (0, "time_limit", Some(rules.simple_time_limit_seconds_max)),
        (0, "packet_limit", Some(rules.simple_packet_limit_max)),
        (1, "time_limit", Some(rules.time_limit_seconds_max)),
        (1, "packet_limit", rules.packet_limit_max),
        (1, "byte_limit", rules.byte_limit_max),
    ] {
        let pointer = format!("/components/schemas/NewCapture/oneOf/{kind}/properties/{member}");
        let schema = document.pointer_mut(&pointer).and_then(Value::as_object_mut);
        if let (Some(schema), Some(max)) = (schema, max) {
            schema.insert("maximum".to_owned(), max.into());
        }
    }
    document.to_string().into()
}

#[cfg(test)]
mod tests;
