//! The headers of every answer. Owns what a browser may do with one that has no policy of its own; not the policy of pages (`page`).
//!
//! Invariant: every answer has them, also one to what is no request, and none is kept or shown by a browser outside this host's pages.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

/// An answer of the API is data: a browser that shows it as a page loads and frames nothing for it.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Adds those that an answer has not.
pub(super) fn hold(head: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        head.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The same around every route.
pub(super) async fn held(mut response: Response) -> Response {
    hold(response.headers_mut());
    response
}
