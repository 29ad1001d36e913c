//! What a file holds, whether it is compressed or not. Owns telling by the first bytes, and the bound on what unpacking
//! takes; formats below are told by the reader.
//!
//! Invariant: unpacking holds at most [`WINDOW_BYTES_LOG`]'s window, whatever the file asks for.

use std::io::{self, BufReader, Chain, Cursor, Read};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::DParameter;

/// Magic of a zstd frame (RFC 8878, section 3.1.1), and of one to be skipped but for its lowest four bits.
const MAGIC_FRAME: u32 = 0xfd2f_b528;
const MAGIC_SKIPPED: u32 = 0x184d_2a50;

/// Window that a file may ask for, as a power of two: 8 MiB, which `zstd -19` makes; more only with `--ultra` or `--long`.
const WINDOW_BYTES_LOG: u32 = 23;

/// The first bytes that were looked at, and the rest.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// Reads a file as it was before it was compressed, if it was.
pub enum Unpacked<R: Read> {
    /// Not compressed.
    Plain(Whole<R>),
    /// By zstd, in one frame or many.
    Zstd(Box<Decoder<'static, BufReader<Whole<R>>>>),
}

impl<R: Read> Unpacked<R> {
    /// Looks at the first bytes of `source`.
    ///
    /// # Errors
    /// What reading says.
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut first)?;
        let magic = first.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic));
        let whole = Cursor::new(first).chain(source);
        if magic != MAGIC_FRAME && magic & !0xf != MAGIC_SKIPPED {
            return Ok(Self::Plain(whole));
        }
        let mut decoder = Decoder::new(whole)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_BYTES_LOG))?;
        Ok(Self::Zstd(Box::new(decoder)))
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

impl<R: Read> std::fmt::Debug for Unpacked<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Unpacked::Plain",
            Self::Zstd(_) => "Unpacked::Zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Unpacked::new(bytes)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn plain_bytes_and_frames_one_after_another_are_read_and_a_cut_frame_is_an_error() {
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"abc").unwrap(), b"abc");
        assert_eq!(read(b"abcdefg").unwrap(), b"abcdefg");
        let mut packed = zstd::bulk::compress(b"first ", 3).unwrap();
        packed.extend(zstd::bulk::compress(b"second", 3).unwrap());
        assert_eq!(read(&packed).unwrap(), b"first second");
        assert!(read(&packed[..packed.len() - 1]).is_err());
    }

    #[test]
    fn a_file_that_asks_for_a_huge_window_is_refused_and_not_obeyed() {
        // frame without content size, window of 2^31 bytes (RFC 8878, section 3.1.1.1.2), one empty last block
        let mut frame = MAGIC_FRAME.to_le_bytes().to_vec();
        frame.extend([0x00, (31 - 10) << 3, 0x01, 0x00, 0x00]);
        let error = read(&frame).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
