//! What comes without a right credential. Owns the requests and their rates; each stranger is a peer of its own.

use super::host::{CONNECTIONS_MAX, Host, connect};
use super::siege::{GoesOn, Tally};
use crate::http;
use crate::trawl::ACCOUNT;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

fn stranger(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 4, (number % 30) as u8)
}

/// Connections that ask for something large again and again and read nothing: twice as many as there are places, at the API and
/// at health alike.
pub fn deaf(host: &Host, goes_on: &GoesOn) -> Tally {
    let (mut tally, mut held) = (Tally::default(), VecDeque::new());
    for number in 0.. {
        for (to, path) in [(host.listen, "/openapi.json"), (host.observe, "/metrics")] {
            let Ok(mut stream) = connect(stranger(number), to) else { continue };
            let requests = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(200);
            let _full_or_gone = stream.write_all(requests.as_bytes());
            tally.count(200);
            held.push_back(stream);
        }
        held.drain(..held.len().saturating_sub(4 * CONNECTIONS_MAX));
        if !goes_on.pause(Duration::from_millis(10)) {
            break;
        }
    }
    tally
}

/// Wrong credentials for the victim and for accounts that there are not, from many peers and again and again from one.
pub fn wrong_credentials(host: &Host, goes_on: &GoesOn) -> Tally {
    let mut tally = Tally::default();
    for number in 0.. {
        let from = if number % 2 == 0 { stranger(number) } else { Ipv4Addr::LOCALHOST };
        let account = if number % 3 == 0 { ACCOUNT.to_owned() } else { format!("invented-{number}") };
        let path = format!("/client/v4/accounts/{account}/pcaps");
        if let Ok(stream) = connect(from, host.listen) {
            let answer = http::ask_over(stream, "GET", &path, &[("Authorization", "Bearer wrong")], &[]);
            tally.answer(answer.ok().as_ref());
        }
        if !goes_on.pause(Duration::from_millis(10)) {
            break;
        }
    }
    tally
}

/// What is no request, and heads that never end.
pub fn no_requests(host: &Host, goes_on: &GoesOn) -> Tally {
    let (mut tally, mut held) = (Tally::default(), VecDeque::new());
    for number in 0.. {
        let Ok(mut stream) = connect(stranger(number), host.listen) else {
            if goes_on.pause(Duration::from_millis(10)) { continue } else { break }
        };
        let text: &[u8] = if number % 2 == 0 {
            b"\x16\x03\x01 no request\r\n\r\n"
        } else {
            b"GET /healthz HTTP/1.1\r\nx: "
        };
        let mut answer = [0; 64];
        if stream.write_all(text).is_ok() && number % 2 == 0 {
            let count = stream.read(&mut answer).unwrap_or(0);
            let status = std::str::from_utf8(&answer[..count]).ok().and_then(|text| text.split(' ').nth(1));
            tally.count(status.and_then(|status| status.parse().ok()).unwrap_or(0));
        } else {
            held.push_back(stream);
            held.drain(..held.len().saturating_sub(2 * CONNECTIONS_MAX));
        }
        if !goes_on.pause(Duration::from_millis(10)) {
            break;
        }
    }
    tally
}
