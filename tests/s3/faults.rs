//! A bucket behind a bad line. Owns a proxy that spoils chosen requests and the tests of what the uploads make of it.
//!
//! Invariant: a fault hits whole requests, so each test knows what the server has done.

use crate::weed::Weed;
use crate::{PART_BYTES, noise, open, uploads_under_way, write_all};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trawl::upload::UploadError;

#[derive(Clone, Copy)]
enum Fault {
    /// The server does it, and nobody hears of it.
    LoseAnswer,
    /// The server never sees it.
    SlowDown,
    /// The connection ends instead.
    Reset,
}

/// What still goes wrong: requests whose first line has all these words.
struct Plan {
    words: &'static [&'static str],
    fault: Fault,
    times: u32,
}

/// A proxy and what it still has to spoil.
struct Proxy {
    endpoint: String,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    fn assert_all_went_wrong(&self) {
        assert_eq!(self.plan.lock().unwrap().times, 0, "a fault did not happen");
    }
}

/// A proxy in front of `server`.
async fn proxy(server: &str, words: &'static [&'static str], fault: Fault, times: u32) -> Proxy {
    let server = server.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plan = Arc::new(Mutex::new(Plan { words, fault, times }));
    let proxy = Proxy { endpoint: format!("http://{address}"), plan: Arc::clone(&plan) };
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(relay(client, server, Arc::clone(&plan)));
        }
    });
    proxy
}

/// The fault for a request, taken from the plan.
fn draw(plan: &Mutex<Plan>, bytes: &[u8]) -> Option<Fault> {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut plan = plan.lock().unwrap();
    let hit =
        plan.times > 0 && line.contains(" HTTP/1.1") && plan.words.iter().all(|word| line.contains(word));
    plan.times -= u32::from(hit);
    hit.then_some(plan.fault)
}

/// Passes bytes both ways. A request begins with a read of its own, because the client waits for each answer.
async fn relay(mut client: TcpStream, mut server: TcpStream, plan: Arc<Mutex<Plan>>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut mute = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(len @ 1..) = read else { return };
                match draw(&plan, &up[..len]) {
                    Some(Fault::LoseAnswer) => mute = true,
                    Some(Fault::Reset) => return,
                    Some(Fault::SlowDown) => {
                        let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                        let _gone = client.write_all(answer.as_bytes()).await;
                        return;
                    }
                    None => {}
                }
                if server.write_all(&up[..len]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(len @ 1..) = read else { return };
                // `100 Continue` is no answer yet.
                if mute && !down.starts_with(b"HTTP/1.1 100") {
                    return;
                }
                if client.write_all(&down[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_object_whose_answer_was_lost_is_recognised_as_ours() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    for (name, len, words) in
        [("small", 5, &["PUT ", "small"][..]), ("large", 2 * PART_BYTES + 1, &["POST ", "uploadId="][..])]
    {
        let proxy = proxy(&weed.endpoint, words, Fault::LoseAnswer, 1).await;
        let store = open(&proxy.endpoint, "s3://pcaps?region=us-east-1").await;
        let bytes = noise(len);
        assert_eq!(write_all(&*store, name, &bytes, 1 << 20).await.unwrap(), len as u64);
        proxy.assert_all_went_wrong();
        assert!(store.get(name, len as u64).await.unwrap() == bytes);
    }
    assert_eq!(uploads_under_way(&weed.client(), "pcaps").await, 0);
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_for_ours_when_an_answer_is_lost() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    weed.client().put_object().bucket("pcaps").key("small").body(vec![7; 5].into()).send().await.unwrap();
    let proxy = proxy(&weed.endpoint, &["PUT ", "small"], Fault::LoseAnswer, 1).await;
    let store = open(&proxy.endpoint, "s3://pcaps?region=us-east-1").await;
    let error = store.put("small", noise(5)).await.unwrap_err();
    proxy.assert_all_went_wrong();
    assert!(matches!(error, UploadError::Exists { .. }), "{error}");
    assert_eq!(store.get("small", 5).await.unwrap(), Bytes::from_static(&[7; 5]));
}

#[tokio::test]
async fn an_upload_outlives_refusals_and_broken_connections() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let bytes = noise(3 * PART_BYTES + 1);
    for (name, fault) in [("slow", Fault::SlowDown), ("reset", Fault::Reset), ("lost", Fault::LoseAnswer)] {
        let proxy = proxy(&weed.endpoint, &["PUT ", "partNumber="], fault, 3).await;
        let store = open(&proxy.endpoint, "s3://pcaps?region=us-east-1").await;
        assert_eq!(write_all(&*store, name, &bytes, 1 << 20).await.unwrap(), bytes.len() as u64);
        proxy.assert_all_went_wrong();
        assert!(store.get(name, bytes.len() as u64).await.unwrap() == bytes);
    }
    assert_eq!(uploads_under_way(&weed.client(), "pcaps").await, 0);
}
