//! A client of the API in the fewest lines: one request a connection, JSON in, JSON out. Owns no credentials' meaning.
//!
//! Written by hand because the tests must see exactly what is on the wire, and to be no second user of trawl's own client.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Status and body (`Null` if there is none).
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The `result` of a successful envelope.
    #[track_caller]
    pub fn result(self) -> Value {
        assert_eq!((self.status, &self.body["success"]), (200, &Value::Bool(true)), "{:?}", self.body);
        assert_eq!(self.body["errors"], serde_json::json!([]), "{:?}", self.body);
        self.body["result"].clone()
    }

    /// Holds a refusal to the envelope's form; gives its first message.
    #[track_caller]
    pub fn refusal(&self) -> String {
        assert!((400..500).contains(&self.status), "{self:?}");
        assert_eq!(self.body["success"], false, "{self:?}");
        assert_eq!(self.body["result"], Value::Null, "{self:?}");
        assert!(self.body["errors"][0]["code"].as_u64().unwrap() >= 1000, "{self:?}");
        self.body["errors"][0]["message"].as_str().unwrap().to_owned()
    }
}

/// Sends one request with the given headers and body.
pub fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    ask_over(TcpStream::connect_timeout(&to, TIMEOUT)?, method, path, headers, body)
}

/// The same over a connection that is there.
pub fn ask_over(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let to = stream.peer_addr()?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str("Content-Type: application/json\r\n");
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes())?;
    // A server may refuse before it has read a large body; its answer counts, not the broken pipe.
    let _refused_early = stream.write_all(body);
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other(format!("not HTTP: {}", String::from_utf8_lossy(&text))))
}

/// An answer as it is on the wire.
pub fn get_text(from: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&from, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Option<Answer> {
    let end = text.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&text[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &text[end + 4..];
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).ok()? };
    Some(Answer { status, body })
}
