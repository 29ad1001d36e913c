//! A bad line to a store. Owns a proxy that spoils chosen requests and remembers what it saw; not the server behind it.
//!
//! Invariant: a fault hits whole requests, so each test knows what the server has done.

#![allow(dead_code, reason = "each test binary that shares this file uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Clone, Copy)]
pub enum Fault {
    /// The server does it, and nobody hears of it.
    LoseAnswer,
    /// The server never sees it; the answer is this status with this code of S3's.
    Answer(&'static str, &'static str),
    /// The connection ends instead.
    Reset,
    /// The connection ends after the first bytes have gone on to the server.
    Half,
    /// Nothing comes back, and the connection stays.
    Stall,
    /// The server sees it so much later.
    Delay(Duration),
    /// That nothing has this name is answered as S3 does where the key may not list the bucket: 403.
    HideMissing,
}

/// What still goes wrong: requests whose first line has all these words.
struct Plan {
    words: &'static [&'static str],
    fault: Fault,
    times: u32,
    /// Line and headers of each request, as far as they came in one piece.
    seen: Vec<String>,
}

/// A proxy and what it still has to spoil.
pub struct Proxy {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    /// A proxy in front of `server` that spoils `times` requests.
    pub async fn start(server: &str, words: &'static [&'static str], fault: Fault, times: u32) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan { words, fault, times, seen: Vec::new() }));
        let proxy = Self { endpoint: format!("http://{address}"), plan: Arc::clone(&plan) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&plan)));
            }
        });
        proxy
    }

    /// A proxy that spoils every request with these words until the time is over.
    pub async fn outage(server: &str, words: &'static [&'static str], fault: Fault, time: Duration) -> Self {
        let proxy = Self::start(server, words, fault, u32::MAX).await;
        let plan = Arc::clone(&proxy.plan);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            plan.lock().unwrap().times = 0;
        });
        proxy
    }

    /// Spoils `times` requests with these words from now on, and no others.
    pub fn spoil(&self, words: &'static [&'static str], fault: Fault, times: u32) {
        let mut plan = self.plan.lock().unwrap();
        (plan.words, plan.fault, plan.times) = (words, fault, times);
    }

    /// Line and headers of the requests with this word in their line.
    pub fn seen(&self, word: &str) -> Vec<String> {
        let plan = self.plan.lock().unwrap();
        let with = |head: &&String| head.lines().next().is_some_and(|line| line.contains(word));
        plan.seen.iter().filter(with).cloned().collect()
    }

    /// Panics unless every fault happened, or the outage is over.
    pub fn assert_all_went_wrong(&self) {
        assert_eq!(self.plan.lock().unwrap().times, 0, "a fault did not happen");
    }
}

/// The fault for a request, taken from the plan.
fn draw(plan: &Mutex<Plan>, bytes: &[u8]) -> Option<Fault> {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut plan = plan.lock().unwrap();
    if line.contains(" HTTP/1.1") {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8 << 10)]);
        plan.seen.push(text.split("\r\n\r\n").next().unwrap_or_default().to_owned());
    }
    let hit =
        plan.times > 0 && line.contains(" HTTP/1.1") && plan.words.iter().all(|word| line.contains(word));
    plan.times -= u32::from(hit);
    hit.then_some(plan.fault)
}

fn refusal(status: &str, code: &str, has_body: bool) -> String {
    let mut body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as planned</Message></Error>");
    let len = body.len();
    if !has_body {
        body.clear();
    }
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Reads so many bytes, or until the other side has nothing more to say: an answer before the end of a request would be lost
/// with a reset.
async fn drain(client: &mut TcpStream, buffer: &mut [u8], mut bytes: u64) {
    let quiet = Duration::from_millis(200);
    while bytes > 0
        && let Ok(Ok(read @ 1..)) = tokio::time::timeout(quiet, client.read(buffer)).await
    {
        bytes = bytes.saturating_sub(read as u64);
    }
}

/// Bytes of a request that are still to come after its first ones. A client that waits for leave to send its body sends none.
fn to_come(first: &[u8]) -> u64 {
    let Some(end) = first.windows(4).position(|four| four == b"\r\n\r\n") else { return u64::MAX };
    let head = String::from_utf8_lossy(&first[..end]).to_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = value("content-length:").and_then(|length| length.trim().parse::<u64>().ok());
    match length {
        _ if value("expect:").is_some() => 0,
        None if value("transfer-encoding:").is_some() => u64::MAX,
        length => length.unwrap_or(0).saturating_sub((first.len() - end - 4) as u64),
    }
}

/// Passes bytes both ways. A request begins with a read of its own, because the client waits for each answer.
async fn relay(mut client: TcpStream, mut server: TcpStream, plan: Arc<Mutex<Plan>>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut mute, mut half, mut hides) = (false, false, false);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(len @ 1..) = read else { return };
                if half {
                    return;
                }
                let fault = draw(&plan, &up[..len]);
                hides = matches!(fault, Some(Fault::HideMissing));
                match fault {
                    Some(Fault::LoseAnswer) => mute = true,
                    Some(Fault::Half) => half = true,
                    Some(Fault::Reset) => return,
                    Some(Fault::Stall) => {
                        while let Ok(1..) = client.read(&mut up).await {}
                        return;
                    }
                    Some(Fault::Answer(status, code)) => {
                        let mut rest = vec![0; 64 << 10];
                        drain(&mut client, &mut rest, to_come(&up[..len])).await;
                        let _gone = client.write_all(refusal(status, code, !up.starts_with(b"HEAD")).as_bytes()).await;
                        let _gone = client.shutdown().await;
                        drain(&mut client, &mut rest, u64::MAX).await;
                        return;
                    }
                    Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
                    Some(Fault::HideMissing) | None => {}
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
                const MISSING: &[u8] = b"HTTP/1.1 404 Not Found";
                if hides && down.starts_with(MISSING) {
                    down[..MISSING.len()].copy_from_slice(b"HTTP/1.1 403 Forbidden");
                }
                if client.write_all(&down[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}
