//! Real connections: their bound, requests in pieces, and the end.

use super::serve::{Bounds, serve_within};
use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _host: Host,
}

impl Server {
    async fn start(connections_max: usize) -> Self {
        Self::within(Bounds { connections_max, head_time_max: Duration::from_secs(30) }).await
    }

    async fn within(bounds: Bounds) -> Self {
        let host = Host::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let router = host.router.clone();
        let served = tokio::spawn(serve_within(bounds, listener, router, async move { drop(asked.await) }));
        Self { address, shutdown, served, _host: host }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn list() -> String {
    format!("GET /accounts/{A}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token\r\n\r\n")
}

/// Reads until the end of an envelope, or of the connection.
async fn read(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while !text.ends_with(b"\"messages\":[]}") {
        match stream.read(&mut piece).await.unwrap() {
            0 => break,
            count => text.extend_from_slice(&piece[..count]),
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_connection_over_the_bound_waits_for_one_to_end() {
    let server = Server::start(1).await;
    let mut first = server.connect().await;
    first.write_all(list().as_bytes()).await.unwrap();
    assert!(read(&mut first).await.starts_with("HTTP/1.1 200"));

    let mut second = server.connect().await;
    second.write_all(list().as_bytes()).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(100), read(&mut second)).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(first);
    assert!(read(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_and_an_idle_connection_are_closed() {
    let server =
        Server::within(Bounds { connections_max: 2, head_time_max: Duration::from_millis(50) }).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /accounts").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(list().as_bytes()).await.unwrap();
    assert!(read(&mut idle).await.starts_with("HTTP/1.1 200"));
    for stream in [&mut slow, &mut idle] {
        assert_eq!(read(stream).await, "");
    }
}

#[tokio::test]
async fn a_body_without_announced_length_is_bounded_too() {
    let server = Server::start(1).await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST /accounts/{A}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let piece = " ".repeat(REQUEST_BYTES_MAX + 1);
    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(chunk.as_bytes()).await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_answers_what_has_begun() {
    let server = Server::start(8).await;
    let mut idle = server.connect().await;
    idle.write_all(list().as_bytes()).await.unwrap();
    read(&mut idle).await;
    let mut begun = server.connect().await;
    let body = SIMPLE.as_bytes();
    let head = format!(
        "POST /accounts/{A}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        body.len()
    );
    begun.write_all(head.as_bytes()).await.unwrap();
    // "100 Continue" says that the handler is at the body.
    let mut interim = [0; 25];
    begun.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));

    server.shutdown.send(()).unwrap();
    assert_eq!(read(&mut idle).await, "");
    begun.write_all(body).await.unwrap();
    assert!(read(&mut begun).await.starts_with("HTTP/1.1 200"));
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
