//! The dashboard's files and the headers of every answer below `/ui`.

use super::*;
use crate::dashboard::files::{embedded, find};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types trawl-worker";

async fn get(host: &Host, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request::Builder::new().uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    host.send(request, "").await
}

/// What is wrong with the headers of an answer below `/ui`.
fn lacks(answer: &Answer) -> Vec<&'static str> {
    let expected = [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];
    let is_wrong = |(name, value): &(&str, &str)| {
        answer.headers.get_all(*name).iter().map(|found| found.to_str().unwrap()).collect::<Vec<_>>()
            != [*value]
    };
    let mut wrong: Vec<_> = expected.into_iter().filter(is_wrong).map(|(name, _)| name).collect();
    if !answer.headers.contains_key("permissions-policy") {
        wrong.push("permissions-policy");
    }
    wrong.extend(
        answer.headers.keys().any(|name| name.as_str().starts_with("access-control")).then_some("cors"),
    );
    wrong
}

#[tokio::test]
async fn every_answer_below_ui_has_the_headers_that_hold_a_page_to_itself() {
    let host = Host::start();
    for (path, status) in [
        ("/ui", 308),
        ("/ui/", 200),
        ("/ui/login", 200),
        ("/ui/a/023e/captures", 200),
        ("/ui/index.html", 200),
        ("/ui/nothing.js", 404),
        ("/ui/assets/gone-1a2b3c4d.js", 404),
        ("/ui/assets/none", 404),
        ("/ui/files.json", 404),
        ("/ui/index.html.br", 404),
        ("/ui/../etc/passwd.txt", 404),
        ("/ui/%2e%2e/Cargo.toml", 404),
        ("/ui/%ff", 404),
        ("/ui/%", 200),
        ("/ui/a/%ff/captures", 404),
        ("/ui/session", 401),
        ("/ui/host", 401),
        ("/ui/host/events", 401),
        ("/ui/host/series", 401),
        ("/ui/host/log", 401),
        ("/client/v4/ui/session", 401),
    ] {
        let answer = get(&host, path, &[]).await;
        assert_eq!((answer.status.as_u16(), lacks(&answer)), (status, vec![]), "{path}");
    }
    let post = request::Builder::new().method("PUT").uri("/ui/session").header("host", "localhost");
    let refused = host.send(post, "").await;
    assert_eq!((refused.status.as_u16(), lacks(&refused)), (405, vec![]));
    let elsewhere = get(&host, "/ui/", &[("host", "rebound.example")]).await;
    assert_eq!((elsewhere.status.as_u16(), lacks(&elsewhere)), (421, vec![]));
    assert!(elsewhere.body.contains("1063"));
    // The check sees what lacks them: an answer of the API has none.
    assert!(lacks(&get(&host, "/openapi.json", &[]).await).contains(&"content-security-policy"));
    assert!(lacks(&get(&host, "/uint", &[]).await).contains(&"content-security-policy"));
}

#[tokio::test]
async fn the_embedded_files_are_those_of_the_manifest_and_each_is_served_as_it_is() {
    let (files, manifest) = embedded();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, manifest.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>());
    let host = Host::start();
    for (name, bytes) in &files {
        let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = serde_json::json!({"bytes": bytes.len(), "sha256": sha256});
        assert_eq!(manifest[name], expected, "{name}");
        if let Some(plain) = name.strip_suffix(".br") {
            let variant = find(plain, true).unwrap();
            assert!(variant.is_brotli && variant.bytes[..] == bytes[..], "{name}");
            let answer = get(&host, &format!("/ui/{plain}"), &[("accept-encoding", "br;q=0, gzip")]).await;
            assert!(
                !answer.headers.contains_key("content-encoding")
                    && answer.headers["vary"] == "accept-encoding"
            );
            continue;
        }
        let file = find(name, false).unwrap();
        assert!(file.bytes[..] == bytes[..] && !file.is_brotli);
        assert_eq!(file.is_immutable, name.starts_with("assets/"), "{name}");
    }
}

#[tokio::test]
async fn a_path_of_the_dashboard_is_its_page_and_the_host_s_page_is_told_from_its_data() {
    let host = Host::start();
    let page = get(&host, "/ui/", &[]).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for path in ["/ui/host", "/ui/host/log", "/ui/host/captures", "/ui/a/x/captures/new"] {
        let answer = get(&host, path, &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")]).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &page.body), "{path}");
    }
    for accept in ["application/json", "*/*"] {
        assert_eq!(get(&host, "/ui/host", &[("accept", accept)]).await.status.as_u16(), 401);
    }
}
