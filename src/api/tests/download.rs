//! Downloads: what is served, in which ranges, and what is said when there is nothing.

use super::*;
use crate::job::{ObjectInfo, Status};

const CONTENT: &str = "0123456789";

/// A host with one simple capture that ended well.
async fn host() -> Host {
    let host = Host::start();
    host.create(SIMPLE).await;
    let name = format!("pcap_{}.pcap", id(0));
    std::fs::create_dir(host.dir.path().join("simple")).unwrap();
    std::fs::write(host.dir.path().join("simple").join(&name), CONTENT).unwrap();
    let mut jobs = host.engine.jobs.lock().unwrap();
    jobs[0].status = Status::Success;
    jobs[0].objects = vec![ObjectInfo {
        name,
        bytes: 10,
        packets: 1,
        first_ns: 0,
        last_ns: 0,
        sha256: "e".repeat(64),
        ..Default::default()
    }];
    drop(jobs);
    host
}

impl Host {
    async fn download(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = request::Builder::new()
            .uri(format!("{PREFIX}/accounts/{A}/pcaps/{}/download", id(0)))
            .header("authorization", "Bearer a-reader")
            .header("accept", "application/vnd.tcpdump.pcap");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, "").await
    }
}

#[tokio::test]
async fn a_download_is_the_file_with_its_type_and_length() {
    let answer = host().await.download(&[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, CONTENT));
    assert_eq!(answer.headers["content-type"], "application/vnd.tcpdump.pcap");
    assert_eq!(
        (&answer.headers["content-length"], &answer.headers["accept-ranges"]),
        (&"10".parse().unwrap(), &"bytes".parse().unwrap())
    );
}

#[tokio::test]
async fn a_range_is_served_if_it_is_of_this_file() {
    let host = host().await;
    let etag = format!("\"{}\"", "e".repeat(64));
    for (headers, status, body, range) in [
        (&[("range", "bytes=2-4")][..], 206, "234", Some("bytes 2-4/10")),
        (&[("range", "bytes=-2")], 206, "89", Some("bytes 8-9/10")),
        (&[("range", "bytes=2-"), ("if-range", etag.as_str())], 206, "23456789", Some("bytes 2-9/10")),
        (&[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, CONTENT, None),
        (&[("range", "bytes=0-1,3-4")], 200, CONTENT, None),
    ] {
        let answer = host.download(headers).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, body), "{headers:?}");
        assert_eq!(answer.headers.get("content-range").map(|range| range.to_str().unwrap()), range);
        assert_eq!(answer.headers["content-length"], body.len().to_string().as_str());
    }
    let none = host.download(&[("range", "bytes=10-")]).await;
    assert_eq!((none.status.as_u16(), &none.headers["content-range"]), (416, &"bytes */10".parse().unwrap()));
    assert_eq!(none.json()["errors"][0]["code"], 1026);
}

#[tokio::test]
async fn what_cannot_be_downloaded_says_why() {
    let host = host().await;
    let code =
        |answer: Answer| (answer.status.as_u16(), answer.json()["errors"][0]["code"].as_u64().unwrap());
    for (status, expected) in [
        (Status::Pending, (409, 1022)),
        (Status::Running, (409, 1022)),
        (Status::ConversionRunning, (409, 1022)),
        (Status::Failed, (404, 1023)),
    ] {
        host.engine.jobs.lock().unwrap()[0].status = status;
        assert_eq!(code(host.download(&[]).await), expected, "{status:?}");
    }
    host.engine.jobs.lock().unwrap()[0].status = Status::Success;
    std::fs::remove_dir_all(host.dir.path().join("simple")).unwrap();
    assert_eq!(code(host.download(&[]).await), (410, 1025));
    host.create(FULL).await;
    assert_eq!(code(host.ask("GET", &format!("/{}/download", id(1)), "").await), (400, 1024));
    assert_eq!(code(host.ask("GET", &format!("/{}/download", id(9)), "").await), (404, 1001));
    let theirs = host.ask_as((B, "b-token"), "GET", &format!("/{}/download", id(0)), "").await;
    assert_eq!(theirs.text(), host.ask("GET", &format!("/{}/download", id(9)), "").await.text());
}
