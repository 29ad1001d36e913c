//! Connections that accounts with right credentials hold. Owns how they are opened again when the host ends them.

use super::host::{Account, Host, connect};
use super::siege::{GoesOn, Tally};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Between two turns over all connections.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are opened in one turn at most.
const OPENED_MAX: usize = 32;
/// What one peer may have, and one more.
const PER_PEER: usize = 33;

/// Requests that are sent before the first of them is answered.
const PIPELINED: usize = 32;

/// Whether the host has ended it. What it says is not read.
fn is_ended(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    match looked {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Holds `count` connections, each opened by `open` with its number.
fn hold(goes_on: &GoesOn, count: usize, open: impl Fn(usize) -> Option<TcpStream>) -> Tally {
    let mut tally = Tally::default();
    let mut held: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    let mut first = 0;
    while goes_on.pause(PAUSE) {
        let mut opened = 0;
        for offset in 0..count {
            let number = (first + offset) % count;
            if held[number].as_ref().is_some_and(|stream| !is_ended(stream)) {
                continue;
            }
            if opened == OPENED_MAX {
                first = number;
                break;
            }
            opened += 1;
            held[number] = open(number);
            tally.count(u64::from(held[number].is_some()));
        }
    }
    tally
}

/// Presents a right credential, and keeps the connection once it is answered.
fn authenticated(host: &Host, account: &Account, from: Ipv4Addr) -> Option<TcpStream> {
    let mut stream = connect(from, host.listen).ok()?;
    let (id, token) = (&account.id, &account.token);
    let head = format!(
        "GET /accounts/{id}/pcaps?page=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let answered = stream.read(&mut [0; 512]).ok()?;
    (answered > 0).then_some(stream)
}

/// All accounts from eight peers, as many connections as there are in all.
pub fn held_by_eight_peers(host: &Host, goes_on: &GoesOn) -> Tally {
    hold(goes_on, 8 * PER_PEER, |number| {
        let from = Ipv4Addr::new(127, 0, 2, (number / PER_PEER) as u8);
        authenticated(host, &host.attackers[number % host.attackers.len()], from)
    })
}

/// The same from one peer.
pub fn held_by_one_peer(host: &Host, goes_on: &GoesOn) -> Tally {
    hold(goes_on, 2 * PER_PEER, |number| {
        authenticated(host, &host.attackers[number % host.attackers.len()], Ipv4Addr::new(127, 0, 2, 9))
    })
}

/// Requests with a right credential whose bodies are never sent whole: each is at work until the host gives up.
pub fn endless_bodies(host: &Host, goes_on: &GoesOn) -> Tally {
    hold(goes_on, 2 * PER_PEER, |number| {
        let account = &host.attackers[number % host.attackers.len()];
        let mut stream = connect(Ipv4Addr::new(127, 0, 3, (number / PER_PEER) as u8), host.listen).ok()?;
        let (id, token) = (&account.id, &account.token);
        let head = format!(
            "POST /accounts/{id}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).ok()?;
        Some(stream)
    })
}

/// Lists on four connections of each of four accounts, each asked before the one before is answered.
pub fn requests_without_end(host: &Host, goes_on: &GoesOn) -> Tally {
    let flood = |account: &Account, number: usize| {
        let (id, token) = (&account.id, &account.token);
        let head =
            format!("GET /accounts/{id}/pcaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        let mut refused = 0;
        while goes_on.pause(PAUSE) {
            let Ok(mut stream) = connect(Ipv4Addr::new(127, 0, 4, number as u8), host.listen) else {
                continue;
            };
            let mut answers = vec![0; 1 << 16];
            while goes_on.is_true() && stream.write_all(head.repeat(PIPELINED).as_bytes()).is_ok() {
                let Ok(bytes @ 1..) = stream.read(&mut answers) else { break };
                refused += String::from_utf8_lossy(&answers[..bytes]).matches("\"code\":1069").count() as u64;
            }
        }
        refused
    };
    let refused: u64 = std::thread::scope(|scope| {
        let accounts = host.attackers.iter().take(4).enumerate();
        let floods = accounts.flat_map(|(number, account)| (0..4).map(move |_| (number, account)));
        let flood = &flood;
        let floods: Vec<_> =
            floods.map(|(number, account)| scope.spawn(move || flood(account, number))).collect();
        floods.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let mut tally = Tally::default();
    (0..refused).for_each(|_| tally.count(1069));
    tally
}
