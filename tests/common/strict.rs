//! The preconditions that the emulator of Google's stores lacks. Owns a proxy in front of it that keeps `ifGenerationMatch=0` as
//! Google documents it: at a session's begin and at its end.
//!
//! Invariant: whether an object is there is asked of the server each time.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, LOCATION, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use reqwest::{Client, Url, redirect};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

struct Way {
    server: String,
    client: Client,
    /// The object of each session that wants none to be there.
    sessions: Mutex<HashMap<String, Url>>,
}

/// Starts it; its `http://127.0.0.1:port`.
pub async fn start(server: &str) -> String {
    let client = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let way = Way { server: server.to_owned(), client, sessions: Mutex::default() };
    let router = Router::new().fallback(pass).with_state(Arc::new(way));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    endpoint
}

fn query(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Whether a chunk is the last one: only then the size of the whole is known.
fn ends(headers: &HeaderMap) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| !range.ends_with("/*"))
}

async fn pass(State(way): State<Arc<Way>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let url = Url::parse(&format!("{}{}", way.server, parts.uri)).unwrap();
    let begins = parts.method == Method::POST && query(&url, "ifGenerationMatch").as_deref() == Some("0");
    let object = match query(&url, "upload_id") {
        _ if begins => {
            let path = url.path().trim_start_matches("/upload");
            let mut object = Url::parse(&format!("{}{path}", way.server)).unwrap();
            object.path_segments_mut().unwrap().push(&query(&url, "name").unwrap());
            Some(object)
        }
        Some(session) => way.sessions.lock().unwrap().get(&session).cloned(),
        None => None,
    };
    if let Some(object) = object.clone().filter(|_| begins || ends(&parts.headers))
        && way.client.get(object).send().await.unwrap().status().is_success()
    {
        let error = r#"{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold.","errors":[{"reason":"conditionNotMet"}]}}"#;
        return (StatusCode::PRECONDITION_FAILED, error).into_response();
    }
    let mut headers = parts.headers;
    headers.remove(HOST);
    let answer = way.client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let session = location.and_then(|location| query(&Url::parse(location).unwrap(), "upload_id"));
    if let (true, Some(session), Some(object)) = (begins, session, object) {
        way.sessions.lock().unwrap().insert(session, object);
    }
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != TRANSFER_ENCODING && name != CONTENT_LENGTH {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}
