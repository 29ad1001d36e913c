//! The readers' window on a file. Owns refilling; not what the bytes mean.
//!
//! Invariant: bytes are moved only by [`Buffer::ensure`], so a place in the window stays valid until the next call.

use super::error::ReadError;
use std::io::Read;

/// The window grows up to this; it holds any record, and a pcapng block with room for options.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// Smallest window; a file of small packets gets along with it.
pub(super) const BYTES_MIN: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Buffer<R> {
    source: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Place of `start` in the file.
    offset: u64,
    /// Whether the source itself ended early, as a compressed file that was cut off does.
    cut: bool,
}

impl<R: Read> Buffer<R> {
    pub(super) fn new(source: R, capacity_bytes: usize) -> Self {
        let bytes = vec![0; capacity_bytes.clamp(BYTES_MIN, BYTES_MAX)];
        Self { source, bytes, start: 0, end: 0, offset: 0, cut: false }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Whether the file ends here, at the end of what its source had to give.
    pub(super) fn is_at_end(&self) -> bool {
        self.start == self.end && !self.cut
    }

    /// The unread bytes in the window.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The whole window, for places in it.
    #[inline]
    pub(super) fn window(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes `len` unread bytes off the front.
    #[inline]
    pub(super) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.end - self.start, "consumed more than there is");
        self.start += len;
        self.offset += len as u64;
    }

    /// Whether at least `len` unread bytes are there, after reading more if need be. `len` up to [`BYTES_MAX`].
    #[inline]
    pub(super) fn ensure(&mut self, len: usize) -> Result<bool, ReadError> {
        if self.end - self.start >= len { Ok(true) } else { self.refill(len) }
    }

    fn refill(&mut self, len: usize) -> Result<bool, ReadError> {
        assert!(len <= BYTES_MAX, "callers bound what they ask for");
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < len {
            self.bytes.resize(len.next_power_of_two().min(BYTES_MAX), 0);
        }
        while self.end < len {
            if self.cut {
                return Ok(false);
            }
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    self.cut = true;
                    return Ok(false);
                }
                Err(source) => return Err(ReadError::Io { offset: self.offset + self.end as u64, source }),
            }
        }
        Ok(true)
    }

    /// Reads over `len` bytes without keeping them; whether they were there.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<bool, ReadError> {
        while len > 0 {
            if self.unread().is_empty() && !self.ensure(1)? {
                return Ok(false);
            }
            let step = usize::try_from(len).unwrap_or(usize::MAX).min(self.unread().len());
            self.consume(step);
            len -= step as u64;
        }
        Ok(true)
    }
    /// Reads `len` bytes behind what is in `into`; whether they were there.
    pub(super) fn copy(&mut self, mut len: usize, into: &mut Vec<u8>) -> Result<bool, ReadError> {
        while len > 0 {
            if self.unread().is_empty() && !self.ensure(1)? {
                return Ok(false);
            }
            let step = len.min(self.unread().len());
            into.extend_from_slice(&self.unread()[..step]);
            self.consume(step);
            len -= step;
        }
        Ok(true)
    }

    /// Reads over zeros in steps of `unit` bytes; how many bytes that were, and whether the file ends behind them.
    pub(super) fn skip_zeros(&mut self, unit: usize) -> Result<(u64, bool), ReadError> {
        let begin = self.offset;
        loop {
            let whole = self.ensure(unit)?;
            let len = unit.min(self.unread().len());
            if self.unread()[..len].iter().any(|byte| *byte != 0) {
                return Ok((self.offset - begin, false));
            }
            self.consume(len);
            if !whole {
                return Ok((self.offset - begin, !self.cut));
            }
        }
    }
}
