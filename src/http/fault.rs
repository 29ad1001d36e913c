//! What hyper refuses by itself, before there is a request. Owns how that is detected and sent; the caller of `serve` chooses the
//! words.
//!
//! hyper answers a head that it cannot parse with a status and no body, and others with nothing. A service never answers a
//! failure without a body, so such an answer can be told apart: it is held back, and ours is sent in its place. Only what is written
//! while no answer of the service is under way can be hyper's own: packets in a body may read like an answer.
//!
//! Invariant: a peer that has sent something and gets no answer from the service gets one from here, and then the connection ends.

use super::peer::Standing;
use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::Response;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// For sending the answer, and then for the peer to take it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// What a peer may still send before it has read the answer: a reset would take that from it.
const LEFT_BYTES_MAX: usize = 1 << 20;
/// A write of hyper's own answer has no more.
const BARE_BYTES_MAX: usize = 512;
/// Of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What each answer from here ends with.
const LAST_HEADERS: &str = "x-content-type-options: nosniff\r\nconnection: close\r\n";
/// What is not taken from the answer, because it is written here.
const OWN_HEADERS: [&str; 3] = ["content-length", "x-content-type-options", "connection"];

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No HTTP.
    Malformed,
    /// The line with method and path is longer than a connection's buffer.
    UriTooLong,
    /// The head is, or has more than a hundred headers.
    HeadTooLarge,
    /// The head was begun, and not complete in time.
    HeadTimeout,
    /// Another version than HTTP/1.0 and 1.1.
    Version,
    /// HTTP on a port of HTTPS.
    PlainOnTls,
}

/// The answer to a fault.
pub type Answer = fn(Fault) -> Response;

/// A connection, watched for what hyper makes of it.
pub(super) struct Watched<S> {
    stream: S,
    standing: Arc<Standing>,
    /// Requests of which everything is written.
    written: u32,
    /// Something was read that nothing has been written for.
    begun: bool,
    /// The end of a line was among that.
    line_ended: bool,
    /// The name of the protocol was among that.
    says_http: bool,
    /// hyper's own answer.
    held: Option<u16>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, standing: Arc<Standing>) -> Self {
        Self { stream, standing, written: 0, begun: false, line_ended: false, says_http: false, held: None }
    }

    /// What was wrong, if the connection ended with `error`; and the connection.
    pub fn fault(self, error: Option<&hyper::Error>) -> (Option<Fault>, S) {
        let is_version = |error: &hyper::Error| {
            error.is_parse_version_h2() || (error.is_parse() && error.to_string().contains("version"))
        };
        let fault = match (self.held, error) {
            (_, Some(error)) if self.says_http && is_version(error) => Some(Fault::Version),
            (None, Some(error)) if error.is_timeout() && self.begun => Some(Fault::HeadTimeout),
            (None, _) => None,
            (Some(431), _) if self.line_ended => Some(Fault::HeadTooLarge),
            (Some(414 | 431), _) => Some(Fault::UriTooLong),
            (Some(_), _) => Some(Fault::Malformed),
        };
        (fault, self.stream)
    }

    /// Whether these bytes, which would be written, are held back.
    fn holds(&mut self, bytes: &[u8]) -> bool {
        // What hyper has buffered may be of an answer until it has flushed all of that.
        let is_hypers = self.standing.requests() == self.written && bytes.len() <= BARE_BYTES_MAX;
        self.held = if is_hypers { bare_refusal(bytes) } else { None };
        let is_held = self.held.is_some();
        // What was read is answered; what hyper holds an answer to is still to be judged.
        self.begun = false;
        self.line_ended &= is_held;
        self.says_http &= is_held;
        is_held
    }
}

/// The status of an answer that is a refusal without a body.
fn bare_refusal(bytes: &[u8]) -> Option<u16> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status: u16 = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let mut headers = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let is_empty = headers
        .clone()
        .any(|(name, value)| name.eq_ignore_ascii_case("content-length") && value.trim() == "0");
    let is_bare = is_empty && !headers.any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    (is_bare && matches!(status, 400 | 414 | 431)).then_some(status)
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        self.begun |= !new.is_empty();
        self.line_ended |= new.contains(&b'\n');
        self.says_http |= new.windows(6).any(|window| window == b" HTTP/");
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.first().is_some_and(|head| self.holds(head)) {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when its buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.standing.idle_since().is_some() {
            self.written = self.standing.requests();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Sends `answer` as the connection's last, and gives the peer time to read it.
pub(super) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Response) {
    let (parts, body) = answer.into_parts();
    let Ok(body) = to_bytes(body, ANSWER_BYTES_MAX).await else { return };
    let mut bytes = head(parts.status, &parts.headers, body.len());
    bytes.extend_from_slice(&body);
    let send = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(ANSWER_TIME_MAX, send).await, Ok(Ok(()))) {
        return;
    }
    let linger = async {
        let (mut left, mut piece) = (LEFT_BYTES_MAX, [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut piece).await
            && count < left
        {
            left -= count;
        }
    };
    let _read_or_gone = tokio::time::timeout(ANSWER_TIME_MAX, linger).await;
}

fn head(status: StatusCode, headers: &axum::http::HeaderMap, length: usize) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str())) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(format!("content-length: {length}\r\n{LAST_HEADERS}\r\n").as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_body_is_hyper_s_own() {
        let bare = |text: &str| bare_refusal(text.as_bytes());
        assert_eq!(
            bare("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            Some(400)
        );
        assert_eq!(
            bare("HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n"),
            Some(431)
        );
        assert_eq!(bare("HTTP/1.1 400 Bad Request\r\ncontent-type: a\r\ncontent-length: 0\r\n\r\n"), None);
        assert_eq!(bare("HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\n{}"), None);
        assert_eq!(bare("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"), None);
        assert_eq!(bare("packets with HTTP/1.1 400"), None);
    }
}
