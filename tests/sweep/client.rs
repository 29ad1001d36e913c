//! The API of a scenario's host, and a client of it. Owns the one request and its repetition; the client's own calls do not
//! count, because its thread is named so.

use crate::api::api;
use crate::rig::Host;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trawl::api::fault;
use trawl::http::{Bounds, Door, serve as serve_http};
use trawl::job::Job;
use trawl::ownership::{BucketKeys, Ownership};
use trawl::upload::{Stores, StoresConfig};

const ACCOUNT: &str = "a";
const REQUEST_MAX: Duration = Duration::from_secs(3);

/// A running API.
pub struct Served {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Puts the API on a host.
pub async fn serve(host: &Host, dir: &Path) -> anyhow::Result<Served> {
    let stores = Arc::new(Stores::new(StoresConfig { allow_file: true, ..StoresConfig::default() })?);
    let keys = BucketKeys::new(host.jobs.store(), None);
    let ownership = Ownership::new(host.jobs.store(), stores, keys, REQUEST_MAX);
    let router = api(host.handle.clone(), ownership, dir.join("simple"), &[ACCOUNT], false, REQUEST_MAX);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (end, ends) = oneshot::channel::<()>();
    let bounds = Bounds::new(8, REQUEST_MAX);
    let door = Door { router, answer: fault, bounds, tls: None, proxies: Vec::new() };
    let task = tokio::spawn(serve_http(listener, door, async {
        let _ended_or_dropped = ends.await;
    }));
    Ok(Served { address, end, task })
}

impl Served {
    /// Fetches a capture's file as a client does: whatever goes wrong, it asks again.
    pub async fn fetch(&self, job: &Job, simple_dir: &Path, patience: Duration) -> Result<(), String> {
        let Some(object) = job.objects.first() else { return Ok(()) };
        let file = simple_dir.join(&object.name);
        let (address, id, deadline) = (self.address, job.id.clone(), Instant::now() + patience);
        let (told, hears) = oneshot::channel();
        let ask = move || {
            let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps/{id}/download");
            // Here, where the calls do not count.
            let whole = std::fs::read(file);
            let mut last = "not asked".to_owned();
            while Instant::now() < deadline {
                match (get(address, &path), &whole) {
                    (Ok(body), Ok(whole)) if body == *whole => return drop(told.send(Ok(()))),
                    (Ok(_), Ok(_)) => last = "the answer is not the file".to_owned(),
                    (Ok(_), Err(_)) => return drop(told.send(Ok(()))),
                    (Err(error), _) => last = error,
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(told.send(Err(last)));
        };
        if std::thread::Builder::new().name("client".to_owned()).spawn(ask).is_err() {
            // The thread that was to fail is this one.
            return Ok(());
        }
        hears.await.unwrap_or_else(|_| Err("the client died".to_owned()))
    }

    pub async fn end(self) {
        let _gone_already = self.end.send(());
        let _ended = tokio::time::timeout(REQUEST_MAX * 2, self.task).await;
    }
}

/// The body of a 200.
fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut line = TcpStream::connect(address).map_err(said)?;
    line.set_read_timeout(Some(REQUEST_MAX)).map_err(said)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: sweep\r\nauthorization: Bearer {ACCOUNT}\r\naccept: application/vnd.tcpdump.pcap\r\nconnection: close\r\n\r\n"
    );
    line.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = Vec::new();
    line.read_to_end(&mut answer).map_err(said)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no whole head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.lines().next().unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let body = answer.split_off(end + 4);
    match (status.contains(" 200 "), length) {
        (true, Some(length)) if length == body.len() => Ok(body),
        (true, _) => Err(format!("{} bytes of a body of {length:?}", body.len())),
        (false, _) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}
