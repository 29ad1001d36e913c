//! Attacks on the listeners of the real binary, by strangers without a credential: while each one lasts, an owner is answered.
//!
//! Strangers come from addresses of 127.0.0.0/8, each of them a peer of its own.

use crate::http;
use crate::openmetrics;
use crate::trawl::{ACCOUNT, Setup, TOKEN, Trawl, free_address};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What an owner's request may take while an attack lasts; without bounds it is as long as the attack.
const QUICK: Duration = Duration::from_secs(10);

/// Connections that an attack holds at once, with either listener more than it has places.
const HELD: usize = 200;

/// A connection of the peer 127.0.0.`host`, for what it may be worth.
fn from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    stream
}

/// Asks for something large again and again, and reads nothing.
fn deaf(host: u8, to: SocketAddr, path: &str) -> TcpStream {
    let mut stream = from(host, to);
    let requests = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(200);
    // It may be ended at any moment.
    let _full_or_gone = stream.write_all(requests.as_bytes());
    stream
}

#[track_caller]
fn is_answered(trawl: &Trawl) {
    let began = Instant::now();
    assert_eq!(trawl.ask("GET", "", &[]).status, 200);
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
}

#[track_caller]
fn is_well(observe: SocketAddr) {
    let began = Instant::now();
    assert!(http::get_text(observe, "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
}

fn families(observe: SocketAddr) -> openmetrics::Families {
    let text = http::get_text(observe, "/metrics").unwrap();
    openmetrics::parse(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// A host with few connections, and where it shows itself.
fn start(api: &str) -> (Trawl, SocketAddr) {
    let listen = free_address();
    let observe = format!("[observe]\nlisten = \"{listen}\"\n");
    let api = format!("[api]\nconnections_max = 64\n{api}");
    (Setup::replay().start_with(|config, _| config.replacen("[api]\n", &api, 1) + &observe), listen)
}

/// Ends an attack, also when its test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn connections_that_never_read_keep_nobody_from_the_api_nor_from_health() {
    let (trawl, observe) = start("");
    let goes_on = AtomicBool::new(true);
    let flood = |to, path| {
        let mut held = VecDeque::new();
        while goes_on.load(Ordering::Relaxed) {
            for host in 2..32 {
                held.push_back(deaf(host, to, path));
            }
            held.drain(..held.len().saturating_sub(HELD));
        }
    };
    let displaced = || families(observe).sum("trawl_connections_cut", &[("reason", "displaced")]);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(trawl.listen(), "/openapi.json"));
        scope.spawn(|| flood(observe, "/metrics"));
        let _ends = Ends(&goes_on);
        // All places are taken, and taken again.
        let began = Instant::now();
        while displaced() < 2 * HELD as u64 && began.elapsed() < 6 * QUICK {}
        for _ in 0..20 {
            is_answered(&trawl);
            is_well(observe);
        }
    });
    let displaced = displaced();
    assert!(displaced >= 2 * HELD as u64, "{displaced} made room");
    trawl.finish();
}

#[test]
fn one_peer_that_takes_all_it_may_leaves_room_for_the_others() {
    let (trawl, _) = start("connections_per_peer_max = 8\n");
    let head =
        format!("GET /accounts/{ACCOUNT}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let ask = |stream: &mut TcpStream| {
        stream.write_all(head.as_bytes()).unwrap();
        stream.read(&mut [0; 4096])
    };
    let mut held: Vec<TcpStream> = (0..8).map(|_| from(2, trawl.listen())).collect();
    for stream in &mut held {
        assert!(ask(stream).unwrap() > 0);
    }
    // A ninth one is closed, because none of the eight is a stranger's.
    let ninth = from(2, trawl.listen()).read(&mut [0]);
    assert!(
        matches!(&ninth, Ok(0))
            || ninth.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    );
    is_answered(&trawl);
    for stream in &mut held {
        assert!(ask(stream).unwrap() > 0, "and the eight are served");
    }
    trawl.finish();
}

/// A wrong credential for an account; the answer's status.
fn wrong(stream: &mut TcpStream, account: &str) -> u16 {
    let head =
        format!("GET /accounts/{account}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while !text.ends_with(b"\"messages\":[]}") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&text[9..12]).parse().unwrap()
}

#[test]
fn wrong_credentials_of_a_peer_never_refuse_a_right_one_whatever_accounts_they_invent() {
    let (trawl, observe) = start("");
    let mut stream = from(1, trawl.listen());
    for number in 0..10 {
        assert_eq!(wrong(&mut stream, &format!("invented-{number}")), 401);
        is_answered(&trawl);
    }
    for account in ["invented-10", ACCOUNT] {
        assert_eq!(wrong(&mut stream, account), 429);
        is_answered(&trawl);
    }
    assert_eq!(wrong(&mut from(2, trawl.listen()), ACCOUNT), 401, "other peers do not notice");
    let families = families(observe);
    let counted = |answer| families.sum("trawl_api_authentication_failures", &[("answer", answer)]);
    assert_eq!((counted("denied"), counted("limited")), (11, 2));
    trawl.finish();
}

#[test]
fn a_flood_of_wrong_credentials_is_a_few_lines_of_the_log() {
    let (trawl, observe) = start("");
    for host in 2..62 {
        let mut stream = from(host, trawl.listen());
        for number in 0..10 {
            assert_eq!(wrong(&mut stream, &format!("{host}-{number}")), 401);
        }
    }
    assert_eq!(families(observe).sum("trawl_api_authentication_failures", &[("answer", "denied")]), 600);
    is_answered(&trawl);
    let log = trawl.log();
    let lines = log.lines().filter(|line| line.contains("authentication failed")).count();
    // Ten in the first minute; the flood may have begun in the one before.
    assert!((1..=20).contains(&lines), "{lines} lines: {log}");
    assert!(log.contains("peer=127.0.0.2"), "{log}");
    trawl.finish();
}

/// A header of PROXY protocol, version 2, that names this client.
fn introduced(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb]);
    header
}

#[test]
fn a_trusted_proxy_says_whose_a_connection_is_and_nobody_else_may() {
    let (trawl, _) = start("trusted_proxies = [\"127.0.0.2/32\"]\n");
    let by_proxy = |client| {
        let mut stream = from(2, trawl.listen());
        stream.write_all(&introduced(client)).unwrap();
        stream
    };
    let mut guesser = by_proxy([192, 0, 2, 1]);
    for _ in 0..10 {
        assert_eq!(wrong(&mut guesser, ACCOUNT), 401);
    }
    assert_eq!(wrong(&mut guesser, ACCOUNT), 429);
    assert_eq!(wrong(&mut by_proxy([192, 0, 2, 2]), ACCOUNT), 401, "another client of the proxy");
    assert_eq!(wrong(&mut from(1, trawl.listen()), ACCOUNT), 401);
    assert!(trawl.log().contains("peer=192.0.2.1"), "{}", trawl.log());

    // The proxy must say it, and nobody else may.
    let mut silent = from(2, trawl.listen());
    silent.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _closed_or_reset = silent.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    trawl.until_log("make it send PROXY protocol", QUICK);
    let mut liar = from(1, trawl.listen());
    liar.write_all(&introduced([192, 0, 2, 3])).unwrap();
    liar.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _closed_or_reset = liar.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    is_answered(&trawl);
    trawl.finish();
}

#[test]
fn a_process_without_descriptors_says_so_answers_and_recovers() {
    let (trawl, observe) = start("");
    let pid = Pid::from_raw(trawl.id().try_into().unwrap());
    let numbers = std::fs::read_dir(format!("/proc/{}/fd", trawl.id())).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
    // The same for a child.
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit =
        |current| prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum: hard }).unwrap();
    let ready = || http::ask(observe, "GET", "/readyz", &[], &[]).unwrap();
    assert_eq!(ready().status, 200);
    // From now on a few descriptors can be had, and those that are closed.
    let numbers: BTreeSet<u64> = numbers.collect();
    let before = limit((0..).filter(|number| !numbers.contains(number)).nth(4).unwrap());
    let mut held: Vec<TcpStream> = (2..60).map(|host| from(host, trawl.listen())).collect();
    trawl.until_log("connections cannot be taken", QUICK);
    for _ in 0..5 {
        is_answered(&trawl);
        is_well(observe);
        held.push(from(2, trawl.listen()));
    }
    let answer = ready();
    let checks = answer.body["checks"].as_array().unwrap();
    let files = checks.iter().find(|check| check["name"] == "open files").unwrap();
    assert_eq!((answer.status, &files["ok"]), (503, &json!(false)), "{answer:?}");
    prlimit(pid, Resource::Nofile, before).unwrap();
    drop(held);
    is_answered(&trawl);
    assert_eq!(ready().status, 200);
    trawl.finish();
}

/// A store that refuses everything, in these words.
fn store(message: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _head = stream.read(&mut [0; 64 << 10]).unwrap();
            let body = format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>");
            let length = body.len();
            let head = format!(
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _gone = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

#[test]
fn what_a_store_says_is_one_printable_line_in_answers_and_in_the_log() {
    let store = store("no&#10;2026-11-26T00:00:00Z ERROR forged line&#x9b;31m&#x202e;x");
    let endpoint = Some(format!("http://{store}"));
    let environment =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "x".to_owned()));
    let environment = environment.into_iter().chain([("TRAWL_LOG".to_owned(), "debug".to_owned())]).collect();
    let trawl = Setup { endpoint, environment, ..Setup::replay() }.start();
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!("s3://pcaps-bucket?region=us-east-1");
    let said = trawl.ask("POST", "", request.to_string().as_bytes()).refusal();
    assert!(said.contains("no\\n2026") && said.contains("line\\u{9b}31m\\u{202e}x"), "{said}");
    let conf = request["destination_conf"].clone();
    let body = json!({"destination_conf": conf}).to_string();
    trawl.ask("POST", "/ownership", body.as_bytes()).refusal();
    for character in ['\u{9b}', '\u{202e}'] {
        assert!(!trawl.log().contains(character));
    }
    assert!(!trawl.log().lines().any(|line| line.starts_with("2026-11-26T00:00:00Z")), "{}", trawl.log());
    trawl.finish();
}
