//! Real connections: their bound, requests in pieces, and the end.

use super::*;
use crate::http::{Bounds, serve, tls};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Server {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _host: Host,
}

impl Server {
    async fn start(connections_max: usize) -> Self {
        Self::within(Bounds::new(connections_max, Duration::from_secs(30)), None).await
    }

    async fn within(bounds: Bounds, tls: Option<TlsAcceptor>) -> Self {
        let host = Host::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let router = host.router.clone();
        let until = async move { drop(asked.await) };
        let served = tokio::spawn(serve(listener, router, bounds, tls, fault, until));
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
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> String {
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
async fn a_head_that_comes_too_slowly_is_answered_and_closed_and_an_idle_connection_is_closed() {
    let server = Server::within(
        Bounds { head_time_max: Duration::from_millis(50), ..Bounds::new(2, Duration::from_secs(30)) },
        None,
    )
    .await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /accounts").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(list().as_bytes()).await.unwrap();
    assert!(read(&mut idle).await.starts_with("HTTP/1.1 200"));
    let answer = read(&mut slow).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains("\"code\":1030"),
        "{answer}"
    );
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

#[tokio::test]
async fn failures_of_a_peer_are_limited_before_the_credential_is_looked_at() {
    let server = Server::start(4).await;
    let mut stream = server.connect().await;
    let wrong = list().replace("a-token", "wrong");
    for _ in 0..10 {
        stream.write_all(wrong.as_bytes()).await.unwrap();
        assert!(read(&mut stream).await.starts_with("HTTP/1.1 401"));
    }
    for request in [wrong, list()] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let refused = read(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 10"), "{refused}");
    }
    let other_account = list().replace(A, B).replace("a-token", "b-token");
    stream.write_all(other_account.as_bytes()).await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn over_tls_the_answers_are_the_same_and_plain_http_is_told_to_use_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    assert!(tls(&cert, &dir.path().join("none")).is_err() && tls(&key, &key).is_err());
    let bounds = Bounds::new(4, Duration::from_secs(30));
    let server = Server::within(bounds, Some(tls(&cert, &key).unwrap())).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, server.connect().await).await.unwrap();
    stream.write_all(list().as_bytes()).await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));

    let mut plain = server.connect().await;
    plain.write_all(list().as_bytes()).await.unwrap();
    let answer = read(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks HTTPS"), "{answer}");

    let mut old = connector.connect("localhost".try_into().unwrap(), server.connect().await).await.unwrap();
    old.write_all(b"GET / HTTP/9.9\r\n\r\n").await.unwrap();
    let answer = read(&mut old).await;
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("\"code\":1033"), "{answer}");
}

/// Sends bytes on a connection of their own; the answer's status and code, and that the connection then ends.
async fn answered(server: &Server, bytes: &[u8]) -> (u16, u64) {
    let mut stream = server.connect().await;
    // A server may answer before it has read all.
    let _refused_early = stream.write_all(bytes).await;
    let answer = read(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        (&body["success"], &body["result"]),
        (&serde_json::json!(false), &serde_json::Value::Null),
        "{answer}"
    );
    (head[9..12].parse().unwrap(), body["errors"][0]["code"].as_u64().unwrap())
}

#[tokio::test]
async fn what_is_no_request_is_answered_in_the_envelope_too() {
    let server = Server::start(4).await;
    let long = |length: usize| "a".repeat(length);
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases: [(Vec<u8>, (u16, u64)); 10] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(), (400, 1029)),
        (b"no http at all\r\n\r\n".to_vec(), (400, 1029)),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n".to_vec(), (400, 1029)),
        (b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_vec(), (400, 1029)),
        (b"GET / HTTP/3.0\r\nhost: x\r\n\r\n".to_vec(), (505, 1033)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), (505, 1033)),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", long(300_000)).into_bytes(), (414, 1031)),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", long(300_000)).into_bytes(), (431, 1032)),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n").into_bytes(), (431, 1032)),
        (b"GET /accounts HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), (404, 7000)),
    ];
    for (bytes, expected) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!(answered(&server, &bytes).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn requests_of_other_forms_are_answered_in_the_envelope() {
    let server = Server::start(4).await;
    let path = format!("/accounts/{A}/pcaps");
    let absolute = format!("GET http://x{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token\r\n\r\n");
    let mut stream = server.connect().await;
    stream.write_all(absolute.as_bytes()).await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
    let chunk = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a-token\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n"
    );
    for (bytes, expected) in [
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", (404, 7000)),
        ("CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n", (404, 7000)),
        ("BREW / HTTP/1.1\r\nhost: x\r\n\r\n", (404, 7000)),
        (chunk.as_str(), (400, 1002)),
    ] {
        assert_eq!(answered(&server, bytes.as_bytes()).await, expected, "{bytes}");
    }
}
