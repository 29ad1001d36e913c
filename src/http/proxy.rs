//! The header that a trusted proxy sends before anything else: PROXY protocol, version 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2). Owns its bytes; not who is trusted.
//!
//! A parser of our own: one of sixteen bytes and an address, which the fuzz target `proxy` reads too. Version 1, which is text,
//! is not taken: its end must be searched for in what strangers sent.
//!
//! Invariant: nothing behind the header is read, and a header of any length takes bounded memory.

use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What the header begins with, in no protocol that we speak.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length of the rest.
const START_BYTES: usize = 16;

/// Of the rest: two addresses, and what a proxy adds (names, the client's certificate).
const REST_BYTES_MAX: usize = 4096;

/// Why there is no client's address.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something else came.
    #[error("no header of PROXY protocol, version 2")]
    Signature,
    /// Another version or an unknown command.
    #[error("version and command {0:#04x}, where 0x20 (LOCAL) and 0x21 (PROXY) are known")]
    Command(u8),
    /// No connection over TCP.
    #[error("address family and protocol {0:#04x}, where TCP over IPv4 (0x11) and IPv6 (0x21) are known")]
    Family(u8),
    /// More than any proxy sends.
    #[error("{0} bytes behind the header's start, where at most {REST_BYTES_MAX} are taken")]
    Long(usize),
    /// Less than the addresses need.
    #[error("{0} bytes behind the header's start are too few for two addresses")]
    Short(usize),
    /// The connection ended or failed.
    #[error("the header cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// Length of what follows the first bytes of a header.
fn rest_bytes(start: &[u8; START_BYTES]) -> Result<usize, ProxyError> {
    if start[..SIGNATURE.len()] != SIGNATURE {
        return Err(ProxyError::Signature);
    }
    let length = usize::from(u16::from_be_bytes([start[14], start[15]]));
    if length > REST_BYTES_MAX { Err(ProxyError::Long(length)) } else { Ok(length) }
}

/// The client's address; none if the proxy speaks for itself, as in a health check, or does not know it.
fn client(start: &[u8; START_BYTES], rest: &[u8]) -> Result<Option<IpAddr>, ProxyError> {
    match start[12] {
        0x20 => return Ok(None),
        0x21 => {}
        other => return Err(ProxyError::Command(other)),
    }
    let short = ProxyError::Short(rest.len());
    match start[13] {
        0x00 => Ok(None),
        0x11 => match rest.first_chunk::<12>() {
            Some([a, b, c, d, ..]) => Ok(Some([*a, *b, *c, *d].into())),
            None => Err(short),
        },
        0x21 => match (rest.first_chunk::<16>(), rest.len()) {
            (Some(address), 36..) => Ok(Some(IpAddr::from(*address).to_canonical())),
            _ => Err(short),
        },
        other => Err(ProxyError::Family(other)),
    }
}

/// Reads a whole header from the beginning of `bytes`: the client's address, if it names one, and the header's length.
///
/// # Errors
/// [`ProxyError`] when it is none.
pub fn proxy_header(bytes: &[u8]) -> Result<(Option<IpAddr>, usize), ProxyError> {
    let start = bytes.first_chunk().ok_or(ProxyError::Signature)?;
    let length = rest_bytes(start)?;
    let rest = bytes.get(START_BYTES..START_BYTES + length);
    let rest = rest.ok_or(ProxyError::Short(bytes.len() - START_BYTES))?;
    Ok((client(start, rest)?, START_BYTES + length))
}

/// Reads a header, and nothing behind it, from a connection.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, ProxyError> {
    let mut start = [0; START_BYTES];
    stream.read_exact(&mut start).await?;
    let mut rest = vec![0; rest_bytes(&start)?];
    stream.read_exact(&mut rest).await?;
    client(&start, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as HAProxy makes it.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// Source, destination and their ports.
    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];

    fn v6(source: &str) -> Vec<u8> {
        let mut rest = source.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
        rest.extend([0; 20]);
        rest
    }

    #[test]
    fn a_header_names_the_client_and_nothing_behind_it_is_touched() {
        let with_extras = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &V4), Some("192.0.2.7")),
            (header(0x21, 0x11, &with_extras), Some("192.0.2.7")),
            (header(0x21, 0x21, &v6("2001:db8::7")), Some("2001:db8::7")),
            (header(0x21, 0x21, &v6("::ffff:192.0.2.7")), Some("192.0.2.7")),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x11, &V4), None),
            (header(0x21, 0x00, &[]), None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            let length = bytes.len();
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(proxy_header(&more).unwrap(), (expected, length));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_with_its_reason() {
        let refused = |bytes: &[u8]| proxy_header(bytes).unwrap_err().to_string();
        assert!(refused(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("no header"));
        assert!(refused(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n").starts_with("no header"));
        assert!(refused(&header(0x11, 0x11, &V4)).contains("0x11"), "version 1 in the form of version 2");
        assert!(refused(&header(0x22, 0x11, &V4)).contains("0x22"), "an unknown command");
        assert!(refused(&header(0x21, 0x12, &V4)).contains("0x12"), "datagrams");
        assert!(refused(&header(0x21, 0x11, &V4[..11])).starts_with("11 bytes"));
        assert!(refused(&header(0x21, 0x21, &[0; 35])).starts_with("35 bytes"));
        assert!(refused(&header(0x21, 0x11, &[0; REST_BYTES_MAX + 1])).starts_with("4097 bytes"));
        for length in 0..28 {
            assert!(proxy_header(&header(0x21, 0x11, &V4)[..length]).is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn what_follows_a_header_stays_in_the_connection() {
        let bytes = [&header(0x21, 0x11, &V4)[..], b"next"].concat();
        let mut stream = &bytes[..];
        assert_eq!(read(&mut stream).await.unwrap(), Some([192, 0, 2, 7].into()));
        assert_eq!(stream, b"next");
    }
}
