//! Compression by zstd. Owns where frames begin and end; not where they go.
//!
//! One frame holds [`FRAME_BYTES`] of content, the last one less. So what comes out depends on the content alone, not on how
//! it arrived: zstd's own stream gives other bytes for other calls. It costs one to three percent of size, and a reader needs
//! no more than a frame in memory.
//!
//! Invariant: the same content, level and version of zstd give the same bytes.

use crate::limits::BLOCK_BYTES;
use std::io::{self, Write};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Content of a frame, and the size of the live merge's chunks.
pub(super) const FRAME_BYTES: usize = BLOCK_BYTES;

/// A compressor of frames with checksums.
pub(super) fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

/// Compresses what is written to it.
pub(super) struct Frames<W> {
    sink: W,
    compressor: Compressor<'static>,
    content: Vec<u8>,
}

impl<W: Write> Frames<W> {
    pub(super) fn new(sink: W, level: i32) -> io::Result<Self> {
        let (compressor, content) = (compressor(level)?, Vec::with_capacity(FRAME_BYTES));
        Ok(Self { sink, compressor, content })
    }

    fn frame(&mut self) -> io::Result<()> {
        let frame = self.compressor.compress(&self.content)?;
        self.content.clear();
        self.sink.write_all(&frame)
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(FRAME_BYTES - self.content.len());
        self.content.extend_from_slice(&bytes[..len]);
        if self.content.len() == FRAME_BYTES {
            self.frame()?;
        }
        Ok(len)
    }

    /// Ends the frame; call it at the end only.
    fn flush(&mut self) -> io::Result<()> {
        if !self.content.is_empty() {
            self.frame()?;
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn frames_depend_on_the_content_alone_and_unpack_to_it() {
        let content: Vec<u8> = (0..5_u32 << 18).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let pack = |step: usize| {
            let mut frames = Frames::new(Vec::new(), 3).unwrap();
            content.chunks(step).for_each(|chunk| frames.write_all(chunk).unwrap());
            frames.flush().unwrap();
            frames.sink
        };
        let packed = pack(content.len());
        assert_eq!(packed, pack(1000));
        assert!(packed.len() < content.len());
        let mut unpacked = Vec::new();
        crate::pcap::Unpacked::new(&packed[..]).unwrap().read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == content);
    }
}
