//! The document against what is served.

use super::*;
use crate::api::codes::TABLE;
use crate::api::tests::{A, Host};
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn methods(item: &Value) -> BTreeSet<String> {
    item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect()
}

#[test]
fn the_document_has_the_paths_that_are_served() {
    let document = document();
    let documented: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let served: BTreeSet<&str> = table().into_iter().map(|(path, _)| path).collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn the_document_has_the_methods_that_are_served() {
    let host = Host::start();
    for (path, item) in document()["paths"].as_object().unwrap() {
        let path = path.replace("{account}", A).replace("{id}", &"0".repeat(32));
        // No route has this method, so the answer lists those that it has; HEAD comes with GET.
        let request = axum::http::Request::builder().method("TRACE").uri(&path);
        let answer = host.send(request, "").await;
        assert_eq!(answer.status.as_u16(), 405, "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap();
        let served = allowed.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(methods(item), served, "{path}");
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
async fn the_document_is_served_to_everybody_under_both_paths() {
    let host = Host::start();
    for path in ["/openapi.json", "/client/v4/openapi.json"] {
        let answer = host.send(axum::http::Request::builder().uri(path), "").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, document()));
    }
}
