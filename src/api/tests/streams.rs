//! Streams over real connections: what they take, what they outlive, and what ends them.

use super::serving::Server;
use super::*;
use crate::dashboard::{Snapshot, StreamPlaces};
use crate::engine::{CaptureView, Overview};
use crate::http::Bounds;
use crate::job::{CaptureId, Kind, Ledger, Status};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For a hang.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

fn usual(connections_max: usize) -> Bounds {
    Bounds::new(connections_max, Duration::from_secs(30))
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{more}\r\n")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn events(account: &str) -> String {
    format!("/accounts/{account}/pcaps/events")
}

/// A capture of the first account with so many packets.
pub(super) fn view(n: u64, captured: u64) -> CaptureView {
    CaptureView {
        id: CaptureId::parse(&id(n)).unwrap(),
        account: AccountId(A.to_owned()),
        kind: Kind::Full,
        status: Status::Running,
        ledger: Ledger { captured, ..Ledger::default() },
        objects: 0,
        object_bytes: 0,
        seconds_left: 5.0,
        waiting_bytes: 0,
        stopped: None,
        warnings: Vec::new(),
        last_error: None,
        is_inherited: false,
        next_try_seconds: None,
    }
}

pub(super) fn snapshot(now_ns: u64, captures: Vec<CaptureView>) -> Snapshot {
    let overview = Some(Overview { captures, ..Overview::default() });
    Snapshot { now_ns, overview, ..Default::default() }
}

/// The same of an account, as the engine tells of it once a second.
fn seen(account: &str, captured: u64) -> Snapshot {
    snapshot(captured, vec![CaptureView { account: AccountId(account.to_owned()), ..view(1, captured) }])
}

/// A connection that reads one answer.
struct Client {
    stream: TcpStream,
    read: String,
}

impl Client {
    async fn ask(server: &Server, path: &str, more: &str) -> Self {
        let mut stream = server.connect().await;
        stream.write_all(get(path, more).as_bytes()).await.unwrap();
        Self { stream, read: String::new() }
    }

    /// Reads until `text` is there; false at the end of the connection.
    async fn has(&mut self, text: &str) -> bool {
        let read = async {
            let mut piece = [0; 4096];
            while !self.read.contains(text) {
                // One that is cut may be reset.
                match self.stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => self.read.push_str(&String::from_utf8_lossy(&piece[..count])),
                }
            }
            true
        };
        tokio::time::timeout(LONG, read).await.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.read))
    }

    async fn status(&mut self) -> u16 {
        assert!(self.has("\r\n\r\n").await, "no answer");
        self.read[9..12].parse().unwrap()
    }

    async fn ends(&mut self) -> bool {
        !self.has("\u{0}").await
    }
}

/// A stream of an account that has its first snapshot.
async fn opened(server: &Server, account: &str, more: &str) -> Client {
    let mut client = Client::ask(server, &events(account), more).await;
    assert_eq!(client.status().await, 200, "{}", client.read);
    assert!(client.has("event: snapshot").await);
    client
}

#[tokio::test]
async fn a_stream_outlives_the_times_of_a_request_a_head_and_a_stranger() {
    let bounds = Bounds { head_time_max: SHORT, stranger_time_max: SHORT, ..usual(4) };
    let bounds = Bounds { request_time_max: SHORT, ..bounds };
    let server = Server::of(Host::shown(ord02(), ui(), SHORT), bounds, None, &[]).await;
    let mut stream = opened(&server, A, &bearer("a-token")).await;
    let begun = Instant::now();
    let mut captured = 0;
    while begun.elapsed() < 5 * SHORT {
        captured += 1;
        server.host.live.take(seen(A, captured));
        assert!(stream.has(&format!("\"captured\":{captured},")).await, "after {:?}", begun.elapsed());
        tokio::time::sleep(SHORT / 4).await;
    }
}

#[tokio::test]
async fn a_stream_takes_no_place_for_connections_and_gives_its_own_back_at_once() {
    let server = Server::of(Host::start(), usual(1), None, &[]).await;
    // The one place is an owner's, and a second connection waits for it.
    let mut first = Client::ask(&server, "/accounts/x/pcaps", "").await;
    assert_eq!(first.status().await, 401);
    first.read.clear();
    let list = get(&format!("/accounts/{A}/pcaps"), &bearer("a-token"));
    first.stream.write_all(list.as_bytes()).await.unwrap();
    assert!(first.has("\"success\":true").await);
    let mut second = Client::ask(&server, &format!("/accounts/{A}/pcaps"), &bearer("a-token")).await;
    let early = tokio::time::timeout(SHORT, second.stream.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    // It becomes a stream: the place is the other's although no connection ended.
    first.stream.write_all(get(&events(A), &bearer("a-token")).as_bytes()).await.unwrap();
    assert!(first.has("event: snapshot").await);
    assert_eq!(second.status().await, 200);
    drop(second);
    let _streams =
        [opened(&server, A, &bearer("a-token")).await, opened(&server, A, &bearer("a-token")).await];
    let mut request = Client::ask(&server, &format!("/accounts/{A}/pcaps"), &bearer("a-token")).await;
    assert_eq!(request.status().await, 200);
    server.host.live.take(seen(A, 7));
    assert!(first.has("\"captured\":7,").await);
}

#[tokio::test]
async fn an_account_and_the_host_have_so_many_streams_and_a_client_that_leaves_makes_room() {
    let ui = Ui { streams: StreamPlaces::new(6, 4), ..ui() };
    let server = Server::of(Host::shown(ord02(), ui, REQUEST_TIME_MAX), usual(20), None, &[]).await;
    let mut of_a = Vec::new();
    for _ in 0..4 {
        of_a.push(opened(&server, A, &bearer("a-token")).await);
    }
    let refused = async |account: &str, token: &str| {
        let mut client = Client::ask(&server, &events(account), &bearer(token)).await;
        let status = client.status().await;
        status == 429 && client.has("1060").await && client.read.contains("retry-after: 10")
    };
    assert!(refused(A, "a-reader").await, "the account has four");
    let _of_b = [opened(&server, B, &bearer("b-token")).await, opened(&server, B, &bearer("b-token")).await];
    assert!(refused(B, "b-token").await, "the host has six");
    if cfg!(feature = "dashboard") {
        for _ in 0..4 {
            let mut host = Client::ask(&server, "/ui/host/events", &bearer("an-operator")).await;
            assert!(host.has("event: snapshot").await, "operators have their own: {}", host.read);
        }
    }
    drop(of_a.pop());
    let until = Instant::now() + LONG;
    while refused(B, "b-token").await {
        assert!(Instant::now() < until, "the place of a client that left stays taken");
        tokio::time::sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_its_place_is_free_again() {
    let bounds = Bounds { write_time_max: 5 * SHORT, ..usual(4) };
    let ui = Ui { streams: StreamPlaces::new(1, 1), ..ui() };
    let streams = Arc::clone(&ui.streams);
    let server = Server::of(Host::shown(ord02(), ui, REQUEST_TIME_MAX), bounds, None, &[]).await;
    let stream = opened(&server, A, &bearer("a-token")).await;
    assert_eq!(streams.count(), 1);
    // Changes come until the kernel's buffers are full, and nobody reads them.
    let until = Instant::now() + LONG;
    let mut captured = 0;
    while streams.count() > 0 {
        captured += 1;
        let mut long = seen(A, captured);
        for view in long.overview.iter_mut().flat_map(|overview| &mut overview.captures) {
            view.warnings = vec!["x".repeat(1 << 20)];
        }
        server.host.live.take(long);
        assert!(Instant::now() < until, "it is not cut after {captured} MiB");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(stream);
}

#[tokio::test]
async fn a_reader_that_was_behind_is_told_and_begins_with_all_of_it() {
    let server = Server::of(Host::start(), usual(4), None, &[]).await;
    let mut stream = opened(&server, A, &bearer("a-token")).await;
    // The stream's task does not run between these: there is one thread.
    for captured in 1..=9 {
        server.host.live.take(seen(A, captured));
    }
    assert!(stream.has("event: resync").await && stream.has("\"captured\":9,").await);
    assert!(!stream.read.contains("\"captured\":8,") && !stream.read.contains("event: change"));
    server.host.live.take(seen(A, 10));
    assert!(stream.has("event: change").await, "and from then on has changes");
}

#[tokio::test]
async fn a_shutdown_ends_streams_within_its_time() {
    let server = Server::of(Host::start(), usual(8), None, &[]).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(opened(&server, A, &bearer("a-token")).await);
    }
    let operator = bearer("an-operator");
    let mut host = Client::ask(&server, "/ui/host/events", &operator).await;
    let has_dashboard = cfg!(feature = "dashboard");
    assert_eq!(host.status().await, if has_dashboard { 200 } else { 404 });
    let Server { host: of, shutdown, served, .. } = server;
    // As `serve` does it.
    of.live.end();
    shutdown.send(()).unwrap();
    for stream in &mut streams {
        assert!(stream.ends().await);
    }
    assert!(!has_dashboard || host.ends().await);
    tokio::time::timeout(LONG, served).await.unwrap().unwrap();
}

#[cfg(feature = "dashboard")]
mod of_sessions {
    use super::super::browser::{OWN, token_of};
    use super::*;

    fn cookie(cookie: &str) -> String {
        let own = OWN.iter().skip(1).map(|(name, value)| format!("{name}: {value}\r\n"));
        own.chain([format!("cookie: {cookie}\r\n")]).collect()
    }

    #[tokio::test]
    async fn a_logout_and_a_login_over_it_end_the_streams_of_a_session_and_of_no_other() {
        let server = Server::of(Host::start(), usual(8), None, &[]).await;
        let host = &server.host;
        let [out, over, stays] = [
            host.login("", &token_of(A, "a-token")).await,
            host.login("", &token_of(A, "a-token")).await,
            host.login("", &token_of(A, "a-reader")).await,
        ];
        let mut ended = [opened(&server, A, &cookie(&out)).await, opened(&server, A, &cookie(&over)).await];
        let mut goes_on = opened(&server, A, &cookie(&stays)).await;
        let operator = host.login("", r#"{"operator_token":"an-operator"}"#).await;
        let mut of_host = Client::ask(&server, "/ui/host/events", &cookie(&operator)).await;
        assert!(of_host.has("event: snapshot").await);
        assert_eq!(host.page("DELETE", "/ui/session", &out, "").await.status, StatusCode::NO_CONTENT);
        assert_eq!(host.page("DELETE", "/ui/session", &operator, "").await.status, StatusCode::NO_CONTENT);
        host.login(&over, &token_of(B, "b-token")).await;
        // Each is asked for its session again at the next second.
        host.live.take(seen(A, 1));
        for stream in &mut ended {
            assert!(stream.ends().await && !stream.read.contains("\"captured\":1,"), "{}", stream.read);
        }
        assert!(of_host.ends().await);
        assert!(goes_on.has("\"captured\":1,").await);
    }

    #[tokio::test]
    async fn a_stream_is_no_use_of_its_session_and_ends_when_that_was_idle_for_too_long() {
        use crate::dashboard::{SessionBounds, Sessions};
        let bounds = SessionBounds { idle: 3 * SHORT, life: LONG, per_account: 4, all: 4 };
        let ui = Ui { sessions: Arc::new(Sessions::new(bounds)), ..ui() };
        let server = Server::of(Host::shown(ord02(), ui, REQUEST_TIME_MAX), usual(8), None, &[]).await;
        let session = server.host.login("", &token_of(A, "a-token")).await;
        let mut stream = opened(&server, A, &cookie(&session)).await;
        let until = Instant::now() + LONG;
        let mut captured = 0;
        // It is looked at every second, here more often, and that keeps no session alive.
        loop {
            captured += 1;
            server.host.live.take(seen(A, captured));
            if !stream.has(&format!("\"captured\":{captured},")).await {
                return;
            }
            assert!(Instant::now() < until);
            tokio::time::sleep(SHORT / 10).await;
        }
    }
}
