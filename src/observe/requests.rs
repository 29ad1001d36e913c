//! How many requests the API answered, by method, route and status. Owns the counts; not the routes.
//!
//! Invariant: the number of counts is bounded, because a route is counted by its template and what is no route as one.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What stands for a path that is no route.
const NO_ROUTE: &str = "none";

/// Method, route template and status.
pub(super) type Kind = (&'static str, String, u16);

/// The counts.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<Kind, u64>>);

impl Requests {
    fn note(&self, kind: Kind) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    pub(super) fn read(&self) -> Vec<(Kind, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(kind, count)| (kind.clone(), *count)).collect()
    }
}

/// `router`, with every answer counted. A route is counted as one with and without `prefix`.
pub fn counted(router: axum::Router, prefix: &'static str, requests: Arc<Requests>) -> axum::Router {
    router.layer(middleware::from_fn_with_state((prefix, requests), count))
}

async fn count(
    State((prefix, requests)): State<(&'static str, Arc<Requests>)>,
    request: Request,
    next: Next,
) -> Response {
    let method = known(request.method());
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = matched.map_or(NO_ROUTE, |path| path.strip_prefix(prefix).unwrap_or(path)).to_owned();
    let answer = next.run(request).await;
    requests.note((method, route, answer.status().as_u16()));
    answer
}

/// A method is whatever a client writes.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn requests_are_counted_by_template_whatever_their_paths_and_methods() {
        let requests = Arc::new(Requests::default());
        let routes = Router::new().route("/a/{id}", get(|| async {}));
        let router =
            counted(Router::new().nest("/v4", routes.clone()).merge(routes), "/v4", Arc::clone(&requests));
        for (method, path) in [
            ("GET", "/a/1"),
            ("GET", "/v4/a/2"),
            ("GET", "/b"),
            ("GET", "/c"),
            ("BREW", "/a/1"),
            ("MILK", "/a/1"),
        ] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let kind = |method, route: &str, status| (method, route.to_owned(), status);
        let expected = [
            (kind("GET", "/a/{id}", 200), 2),
            (kind("GET", "none", 404), 2),
            (kind("other", "/a/{id}", 405), 2),
        ];
        assert_eq!(requests.read(), expected);
    }
}
