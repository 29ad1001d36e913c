//! Real connections: their bound, requests in pieces, and the end.

use super::*;
use crate::http::{Bounds, Door, Tls, serve};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

pub(super) struct Server {
    address: SocketAddr,
    pub(super) shutdown: oneshot::Sender<()>,
    pub(super) served: JoinHandle<()>,
    pub(super) host: Host,
}

impl Server {
    async fn start(connections_max: usize) -> Self {
        Self::within(Bounds::new(connections_max, Duration::from_secs(30)), None).await
    }

    async fn within(bounds: Bounds, tls: Option<Tls>) -> Self {
        Self::with(bounds, tls, &[]).await
    }

    async fn with(bounds: Bounds, tls: Option<Tls>, proxies: &[&str]) -> Self {
        Self::of(Host::start(), bounds, tls, proxies).await
    }

    pub(super) async fn of(host: Host, bounds: Bounds, tls: Option<Tls>, proxies: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let router = host.router.clone();
        let until = async move { drop(asked.await) };
        let proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
        let door = Door { router, answer: fault, bounds, tls: tls.map(Arc::new), proxies };
        let served = tokio::spawn(serve(listener, door, until));
        Self { address, shutdown, served, host }
    }

    pub(super) async fn connect(&self) -> TcpStream {
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
async fn wrong_credentials_are_limited_over_all_accounts_and_a_right_one_always_passes() {
    let server = Server::start(4).await;
    let mut stream = server.connect().await;
    let wrong = list().replace("a-token", "wrong");
    let wrong = [wrong.clone(), wrong.replace(A, B), wrong.replace(A, "invented")];
    for number in 0..FAILURES_MAX as usize {
        stream.write_all(wrong[number % 3].as_bytes()).await.unwrap();
        assert!(read(&mut stream).await.starts_with("HTTP/1.1 401"));
    }
    let mut stranger = server.connect().await;
    for request in &wrong {
        stranger.write_all(request.as_bytes()).await.unwrap();
        let refused = read(&mut stranger).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 10"), "{refused}");
        for right in [list(), list().replace(A, B).replace("a-token", "b-token")] {
            stream.write_all(right.as_bytes()).await.unwrap();
            assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
    }
}

/// A certificate of its own for `localhost`, in a folder, and what a client that trusts it connects with.
fn certificate(dir: &Path) -> (Tls, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    (Tls::load(&cert, &key).unwrap(), TlsConnector::from(Arc::new(config)))
}

#[tokio::test]
async fn over_tls_the_answers_are_the_same_and_plain_http_is_told_to_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, connector) = certificate(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    assert!(Tls::load(&cert, &dir.path().join("none")).is_err() && Tls::load(&key, &key).is_err());
    let server = Server::within(Bounds::new(4, Duration::from_secs(30)), Some(tls)).await;
    let name = "localhost".try_into().unwrap();
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
    for header in [
        "cache-control: no-store",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert_eq!(head.matches(header).count(), 1, "{header} in {head}");
    }
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

/// Asks without a credential.
fn document() -> &'static str {
    "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
}

/// Reads one answer with a `content-length`.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
        let shown = String::from_utf8_lossy(&text);
        let Some((head, body)) = shown.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            return shown.into_owned();
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_right_credential_has_a_few_requests_and_a_bounded_time() {
    let usual = Bounds::new(4, Duration::from_secs(30));
    let server = Server::within(Bounds { stranger_requests_max: 3, ..usual }, None).await;
    let [mut stranger, mut customer] = [server.connect().await, server.connect().await];
    for number in 1..=3 {
        stranger.write_all(document().as_bytes()).await.unwrap();
        let text = answer(&mut stranger).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("x-content-type-options: nosniff"));
        assert_eq!(text.contains("connection: close"), number == 3);
        customer.write_all(list().as_bytes()).await.unwrap();
        assert!(!answer(&mut customer).await.contains("connection: close"));
    }
    assert_eq!(read(&mut stranger).await, "");

    let server =
        Server::within(Bounds { stranger_time_max: Duration::from_millis(200), ..usual }, None).await;
    let [mut stranger, mut customer] = [server.connect().await, server.connect().await];
    customer.write_all(list().as_bytes()).await.unwrap();
    answer(&mut customer).await;
    stranger.write_all(document().as_bytes()).await.unwrap();
    answer(&mut stranger).await;
    assert_eq!(read(&mut stranger).await, "", "its time is up");
    customer.write_all(list().as_bytes()).await.unwrap();
    assert!(answer(&mut customer).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_hardly_reads_is_cut_off_although_its_credential_is_right() {
    let write_time_max = Duration::from_millis(500);
    let bounds = Bounds { write_time_max, ..Bounds::new(4, Duration::from_secs(30)) };
    let server = Server::within(bounds, None).await;
    let mut stream = server.connect().await;
    stream.write_all(list().as_bytes()).await.unwrap();
    answer(&mut stream).await;
    // More than the kernel's buffers hold; it is not all taken, because nothing is read.
    let (mut reader, mut writer) = stream.into_split();
    let flood =
        tokio::spawn(
            async move { while writer.write_all(document().repeat(100).as_bytes()).await.is_ok() {} },
        );
    let dribble = async {
        let mut byte = [0];
        while let Ok(1) = reader.read(&mut byte).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The connection ends under the writer's hands, while a byte is read now and then.
    let written = tokio::select! {
        written = flood => written,
        () = dribble => Ok(()),
    };
    written.unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_make_a_handshake_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, connector) = certificate(dir.path());
    let server = Server::within(Bounds::new(8, Duration::from_secs(30)), Some(tls)).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(server.connect().await);
    }
    let mut held = Vec::new();
    for handshakes in 1..=3 {
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, server.connect().await).await.unwrap();
        stream.write_all(list().as_bytes()).await.unwrap();
        assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
        // Nothing was waited for: of the idle ones just the oldest are gone.
        assert_eq!(idle[handshakes - 1].read(&mut [0]).await.unwrap_or(0), 0);
        let alive = idle.iter().filter(|stream| {
            matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        assert_eq!(alive.count(), 8 - handshakes);
    }
}

#[tokio::test]
async fn a_proxy_s_header_comes_before_the_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, connector) = certificate(dir.path());
    let bounds = Bounds::new(8, Duration::from_secs(30));
    let server = Server::with(bounds, Some(tls), &["127.0.0.0/8"]).await;
    let mut stream = server.connect().await;
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x30\x39\x01\xbb";
    stream.write_all(header).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(list().as_bytes()).await.unwrap();
    assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_certificate_that_was_renewed_is_used_once_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, old) = certificate(dir.path());
    let tls = Arc::new(tls);
    let host = Host::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds::new(8, Duration::from_secs(30));
    let door = Door {
        router: host.router.clone(),
        answer: fault,
        bounds,
        tls: Some(Arc::clone(&tls)),
        proxies: Vec::new(),
    };
    tokio::spawn(serve(listener, door, std::future::pending()));
    let shakes = async |connector: &TlsConnector| {
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.is_ok()
    };
    assert!(shakes(&old).await);
    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    let pair = || crate::http::Pair::load(&dir.path().join("cert.pem"), &dir.path().join("key.pem"));
    assert!(pair().is_err() && shakes(&old).await, "a wrong one changes nothing");
    let (_, new) = certificate(dir.path());
    assert!(!shakes(&new).await, "it is not read by itself");
    tls.replace(pair().unwrap());
    assert!(shakes(&new).await && !shakes(&old).await);
}

/// What hyper says when it cannot parse a head; packets can say it too.
const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

/// A server of that text alone, as often as a download has bytes.
async fn serves_bare() -> (SocketAddr, String) {
    let text = BARE.repeat(100_000);
    let body = text.clone();
    let router = axum::Router::new().route("/", axum::routing::get(move || std::future::ready(body.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds::new(8, Duration::from_secs(30));
    let door = Door { router, answer: fault, bounds, tls: None, proxies: Vec::new() };
    tokio::spawn(serve(listener, door, std::future::pending()));
    (address, text)
}

#[tokio::test]
async fn packets_that_read_like_an_answer_of_the_server_are_in_a_download_to_the_byte() {
    let (address, text) = serves_bare().await;
    // Pieces of any length, so that writes begin anywhere in the text, also with it.
    for piece in [BARE.len(), 1, 1000, 65_536] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        for answer in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&head));
            let (mut body, mut pieces) = (vec![0; text.len()], 0);
            while pieces < body.len() {
                let end = body.len().min(pieces + if pieces < 100_000 { piece } else { 1 << 20 });
                pieces += stream.read(&mut body[pieces..end]).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert!(body == text.as_bytes(), "answer {answer} by {piece}");
        }
        // What hyper says by itself is told apart on the same connection, once its answers are read.
        stream.write_all(b"no http at all\r\n\r\n").await.unwrap();
        let answer = read(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":1029"), "{answer}");
    }
}
