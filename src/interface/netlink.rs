//! One question to the kernel by netlink(7), and its answer as attributes. Owns the form of messages; not what they mean.
//!
//! Invariant: nothing is read beyond the bytes that the kernel sent, whatever lengths stand in them.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::time::Duration;

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// Marks an attribute that holds attributes, and one in network byte order; neither is a part of its type.
const TYPE_MASK: u16 = 0x3fff;
/// An answer is one datagram; one of a link with many queues has some KiB.
const ANSWER_BYTES_MAX: usize = 1 << 17;
/// The kernel answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const ROUTE: i32 = 0;
pub(super) const GENERIC: i32 = 16;

/// Appends an attribute.
pub(super) fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let bytes = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend(bytes.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The attributes in these bytes, in their order.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let (kind, value) = (u16_at(bytes, 2)? & TYPE_MASK, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An answer that does not hold what it must.
pub(super) fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer lacks what was asked for")
}

/// Asks one question and returns what stands behind the header of its answer.
pub(super) fn ask(family: i32, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), Some(Protocol::from(family)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question, one answer
    message.extend(body);
    socket.send(&message)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let received = socket.read(&mut answer)?;
    answer.truncate(received);
    let (length, kind) = u32_at(&answer, 0).zip(u16_at(&answer, 4)).ok_or_else(unreadable)?;
    let body = answer.get(HEADER_BYTES..length as usize).ok_or_else(unreadable)?;
    if kind == NLMSG_ERROR {
        let code = u32_at(body, 0).ok_or_else(unreadable)?.cast_signed();
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_put_and_a_torn_one_ends_them() {
        let mut message = Vec::new();
        put(&mut message, 3, b"eth0\0");
        put(&mut message, 7 | 0x8000, &9_u32.to_ne_bytes());
        let found: Vec<_> = attributes(&message).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (7, &9_u32.to_ne_bytes()[..])]);
        assert_eq!(attribute(&message, 7), Some(&9_u32.to_ne_bytes()[..]));
        assert_eq!(attributes(&message[..message.len() - 1]).count(), 1);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0, "a length below that of its own header");
    }
}
