//! The document against what is served.

use super::*;
use crate::api::codes::TABLE;
use crate::api::tests::{A, Answer, FAILURES_MAX, Host, ord02};
use crate::http::Peer;
use axum::http::request;
use serde_json::Value;
use std::collections::BTreeSet;

/// Without the dashboard the paths below `/ui` are not served, nor documented.
fn is_built(path: &str) -> bool {
    cfg!(feature = "dashboard") || !path.starts_with("/ui")
}

fn document() -> Value {
    let mut document: Value = serde_json::from_str(OPENAPI).unwrap();
    document["paths"].as_object_mut().unwrap().retain(|path, _| is_built(path));
    document
}

fn methods(item: &Value) -> BTreeSet<String> {
    item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect()
}

#[test]
fn the_document_has_the_paths_that_are_served() {
    let document = document();
    let documented: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .filter(|path| is_built(path))
        .collect();
    let served: BTreeSet<&str> = table().into_iter().map(|(path, _)| path).collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn the_document_has_the_methods_that_are_served() {
    let host = Host::start();
    for (path, item) in document()["paths"].as_object().unwrap() {
        let path = at(path);
        // No route has this method, so the answer lists those that it has; HEAD comes with GET.
        let request = axum::http::Request::builder().method("TRACE").uri(&path).header("host", "127.0.0.1");
        let answer = host.send(request, "").await;
        assert_eq!(answer.status.as_u16(), 405, "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap();
        let served = allowed.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(methods(item), served, "{path}");
    }
}

/// A path of the document with things that are not there.
fn at(path: &str) -> String {
    path.replace("{account}", A).replace("{id}", &"0".repeat(32)).replace("{n}", "0")
}

/// Every operation of the document with its method and a path that it is at.
fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let path = at(path);
        let methods = item.as_object().unwrap().iter();
        methods
            .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation.clone()))
            .collect::<Vec<_>>()
    });
    operations.collect()
}

fn needs_credential(operation: &Value) -> bool {
    operation["security"] != serde_json::json!([])
}

/// A session is no credential of a header: there nothing is compared, so that nothing can be guessed.
fn is_limited(path: &str, operation: &Value) -> bool {
    needs_credential(operation) && path != "/ui/session"
}

async fn ask(host: &Host, method: &str, path: &str, token: Option<&str>) -> Answer {
    let mut request = request::Builder::new().method(method).uri(path).header("host", "127.0.0.1:8080");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    host.send(request.extension(Peer([192, 0, 2, 1].into())), "").await
}

#[test]
fn every_operation_lists_what_every_route_of_its_kind_can_answer() {
    for (method, path, operation) in operations() {
        let mut needed = vec!["500", "504"];
        if needs_credential(&operation) {
            // No credential or a wrong one.
            needed.push("401");
        }
        if is_limited(&path, &operation) {
            // Too many wrong ones.
            needed.push("429");
        }
        for status in needed {
            let reference = serde_json::json!({"$ref": format!("#/components/responses/{status}")});
            assert_eq!(operation["responses"][status], reference, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_operations_that_the_document_says_need_a_credential_do() {
    let host = Host::start();
    // A stream of a host that ends is one that ends.
    host.live.end();
    for (method, path, operation) in operations() {
        let status = ask(&host, &method, &path, None).await.status.as_u16();
        assert_eq!(status == 401, needs_credential(&operation), "{method} {path}: {status}");
        let status = ask(&host, &method, &path, Some("a-reader")).await.status.as_u16();
        let documented = operation["responses"][status.to_string()].is_object();
        let lists_403 = operation["responses"]["403"].is_object();
        assert!(documented && lists_403 == (status == 403), "{method} {path}: {status}");
    }
}

/// Every header of the answer that the document could have named, and that it names each.
fn assert_documented(answer: &Answer, response: &Value) {
    for name in ["retry-after", "x-should-retry", "www-authenticate", "content-range", "allow"] {
        let headers = response["headers"].as_object().unwrap();
        let named = headers.keys().any(|key| key.eq_ignore_ascii_case(name));
        assert!(named || !answer.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn the_refusal_after_too_many_failures_is_on_every_route_as_documented() {
    // At the same time, because each of these answers takes a while.
    let mut refused = tokio::task::JoinSet::new();
    for (method, path, operation) in operations().into_iter().filter(|(_, path, one)| is_limited(path, one)) {
        refused.spawn(async move {
            let host = Host::start();
            for _ in 0..FAILURES_MAX {
                let answer = ask(&host, &method, &path, Some("wrong")).await;
                assert_eq!(answer.status.as_u16(), 401, "{method} {path}");
            }
            let answer = ask(&host, &method, &path, Some("wrong")).await;
            (method, path, operation, answer)
        });
    }
    while let Some(done) = refused.join_next().await {
        let (method, path, operation, answer) = done.unwrap();
        assert_eq!(answer.status.as_u16(), 429, "{method} {path}");
        let document = document();
        let reference = operation["responses"]["429"]["$ref"].as_str().unwrap();
        let response = document.pointer(&reference[1..]).unwrap();
        assert_documented(&answer, response);
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        let least = response["headers"]["Retry-After"]["schema"]["minimum"].as_u64().unwrap();
        assert!(seconds >= least);
        let body = answer.json();
        let members: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        let failure = document.pointer("/components/schemas/Failure/properties").unwrap();
        assert_eq!(members, failure.as_object().unwrap().keys().map(String::as_str).collect());
        assert_eq!(body["errors"][0]["code"], 1027);
    }
}

#[test]
fn the_document_has_every_error_code_and_the_status_of_each() {
    let document = document();
    let numbers: Vec<u64> = TABLE.iter().map(|row| row.number.into()).collect();
    let documented = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].clone();
    assert_eq!(documented, serde_json::json!(numbers));
    for row in TABLE.iter().filter(|row| !row.status.is_success()) {
        let status = row.status.as_u16().to_string();
        assert!(document["components"]["responses"][&status].is_object(), "{status}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value {
                Value::String(target) if name == "$ref" => found.push(target.clone()),
                value => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let (document, mut found) = (document(), Vec::new());
    references(&document, &mut found);
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_document_has_the_limits_that_its_host_holds_captures_to() {
    let host = Host::with(Rules {
        simple_time_limit_seconds_max: 7,
        simple_packet_limit_max: 8,
        time_limit_seconds_max: 9,
        packet_limit_max: Some(10),
        byte_limit_max: Some(11),
        ..ord02()
    });
    let document = host.send(axum::http::Request::builder().uri("/openapi.json"), "").await.json();
    let simple = r#"{"system":"magic-transit","type":"simple","time_limit":1,"packet_limit":1}"#;
    let full = r#"{"system":"magic-transit","type":"full","time_limit":1,"packet_limit":1,"byte_limit":1,
                   "colo_name":"ord02","destination_conf":"s3://pcaps-bucket?region=us-east-1"}"#;
    for (kind, body, members) in [
        (0, simple, &[("time_limit", 7), ("packet_limit", 8)][..]),
        (1, full, &[("time_limit", 9), ("packet_limit", 10), ("byte_limit", 11)]),
    ] {
        for (member, max) in members {
            let schema =
                &document["components"]["schemas"]["NewCapture"]["oneOf"][kind]["properties"][member];
            assert_eq!(schema["maximum"], *max, "{member}");
            // A second full one is refused too, with 409.
            for (value, refused) in [(*max, false), (max + 1, true)] {
                let body = body.replace(&format!("\"{member}\":1"), &format!("\"{member}\":{value}"));
                let answer = host.create(&body).await;
                assert_eq!(answer.status.as_u16() == 400, refused, "{member} {value}: {}", answer.json());
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_to_everybody_under_both_paths() {
    let host = Host::start();
    for path in ["/openapi.json", "/client/v4/openapi.json"] {
        let answer = host.send(axum::http::Request::builder().uri(path), "").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, document()));
    }
}
