//! Downloads against a server that drops connections, knows ranges or does not, and refuses.

use super::*;
use crate::cli::args::ServerArgs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const ID: &str = "0123456789abcdef0123456789abcdef";
const BYTES: usize = 300_000;

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Ranges,
    NoRanges,
    /// The first two answers end early.
    Drops,
    Refuses,
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 7 % 251) as u8).collect()
}

/// Answers one request, then closes; written by hand because no server cuts its own answers short.
fn answer(manner: Manner, call: u32, mut connection: &TcpStream) {
    let mut lines =
        BufReader::new(connection).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let range = lines.by_ref().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("range: bytes=").map(|range| range.trim_end_matches('-').parse::<usize>().unwrap())
    });
    lines.for_each(drop);
    let from = range.filter(|_| manner != Manner::NoRanges).unwrap_or(0);
    let refused = br#"{"success":false,"errors":[{"code":1003,"message":"not ready"}]}"#.to_vec();
    let (status, more, body) = match from {
        _ if manner == Manner::Refuses => ("409 Conflict", String::new(), refused),
        BYTES.. => ("416 No", format!("Content-Range: bytes */{BYTES}\r\n"), Vec::new()),
        0 => ("200 OK", String::new(), content()),
        _ => {
            let range = format!("Content-Range: bytes {from}-{}/{BYTES}\r\n", BYTES - 1);
            ("206 Partial Content", range, content().split_off(from))
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let sent = if manner == Manner::Drops && call < 2 { 100_000 } else { length };
    connection.write_all(&body[..sent]).unwrap();
}

fn client(manner: Manner) -> (Client, Arc<AtomicU32>) {
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            answer(manner, counted.fetch_add(1, SeqCst), &connection.unwrap());
        }
    });
    let args = ServerArgs {
        url,
        account: Some("a".to_owned()),
        token_file: None,
        email: None,
        key_file: None,
        json: false,
    };
    (Client::new(&args, |name| (name == "TRAWL_TOKEN").then(|| "t".to_owned())).unwrap(), calls)
}

fn args(path: &Path) -> DownloadArgs {
    DownloadArgs { id: ID.to_owned(), output: Some(path.to_owned()), force: false }
}

#[tokio::test]
async fn a_file_appears_whole_also_after_connections_broke() {
    for manner in [Manner::Ranges, Manner::NoRanges, Manner::Drops] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        let (client, calls) = client(manner);
        run(&client, &args(&path), None, false).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == content());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the part is gone");
        assert_eq!(calls.load(SeqCst), if manner == Manner::Drops { 3 } else { 1 });
    }
}

#[tokio::test]
async fn what_an_earlier_call_left_is_not_fetched_again() {
    for (manner, held) in [
        (Manner::Ranges, 100_000),
        (Manner::Ranges, BYTES),
        (Manner::Ranges, BYTES + 5),
        (Manner::NoRanges, 9),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        let mut left = content();
        left.resize(held, 0);
        std::fs::write(dir.path().join(format!(".a.pcap.{ID}.part")), left).unwrap();
        let (client, _) = client(manner);
        run(&client, &args(&path), None, true).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == content(), "{held}");
    }
}

#[tokio::test]
async fn nothing_is_replaced_unasked_and_a_refusal_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    let (refusing, _) = client(Manner::Refuses);
    let error = run(&refusing, &args(&path), None, false).await.unwrap_err();
    assert!(error.to_string().contains("not ready (code 1003)"), "{error}");
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    let (client, _) = client(Manner::Ranges);
    let error = run(&client, &args(&path), None, false).await.unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    run(&client, &DownloadArgs { force: true, ..args(&path) }, None, false).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == content());
}

#[tokio::test]
async fn a_second_command_does_not_write_into_the_file_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    let (client, _) = client(Manner::Ranges);
    let mut first = Part::open(&path, ID).unwrap();
    first.append(&content()[..1000]).unwrap();
    let error = run(&client, &args(&path), None, false).await.unwrap_err();
    assert!(error.to_string().contains("another command downloads this capture"), "{error}");
    drop(first);
    run(&client, &args(&path), None, false).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == content());
}
