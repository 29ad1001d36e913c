//! The plain writer. Owns turning packets into a file; the worker's hot path uses the headers directly.
//!
//! Invariant: what has been written is a complete file after every call.

use super::format::{NS_PER_S, RECORD_BYTES_MAX, file_header_of, record_header};
use std::io::{self, Write};

/// Writes a classic pcap file with nanosecond time stamps. Unbuffered: give it a buffered `W`.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: W,
}

impl<W: Write> Writer<W> {
    /// Begins a file of this link type, at most `snaplen` bytes of each packet.
    ///
    /// # Errors
    /// What the sink says.
    pub fn new(mut sink: W, snaplen: u32, link_type: u16) -> io::Result<Self> {
        sink.write_all(&file_header_of(snaplen, link_type))?;
        Ok(Self { sink })
    }

    /// Appends a packet: `ns` since the UNIX epoch, `wire_len` bytes long on the wire, of which `data` is kept.
    ///
    /// # Errors
    /// What the sink says, and `InvalidInput` when `data` is longer than the packet or than any record can be, or when the
    /// time is after 2106, which the format cannot hold.
    pub fn write(&mut self, ns: u64, wire_len: u32, data: &[u8]) -> io::Result<()> {
        let captured = u32::try_from(data.len()).ok().filter(|len| *len <= wire_len.min(RECORD_BYTES_MAX));
        let Some(captured) = captured else {
            let reason = format!("{} bytes kept of a packet of {wire_len} bytes", data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        };
        if ns / NS_PER_S > u64::from(u32::MAX) {
            let reason = format!("a pcap file cannot hold the time {ns} ns, which is after 2106");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        self.sink.write_all(&record_header(ns, captured, wire_len))?;
        self.sink.write_all(data)
    }

    /// Flushes and gives the sink back.
    ///
    /// # Errors
    /// What the sink says.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}
