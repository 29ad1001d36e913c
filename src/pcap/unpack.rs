//! What a file holds, whether it is compressed or not. Owns telling by the first bytes, and the bound on what unpacking
//! takes; formats below are told by the reader.
//!
//! Invariant: unpacking holds at most [`WINDOW_BYTES_LOG`]'s window, whatever the file asks for, and gives at most [`RATIO_MAX`]
//! bytes for each byte of the file once it has given [`FREE_BYTES`]: a few kilobytes do not keep a core busy for hours.

use std::io::{self, BufReader, Chain, Cursor, Read};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::DParameter;

/// Magic of a zstd frame (RFC 8878, section 3.1.1), and of one to be skipped but for its lowest four bits.
const MAGIC_FRAME: u32 = 0xfd2f_b528;
const MAGIC_SKIPPED: u32 = 0x184d_2a50;

/// Window that a file may ask for, as a power of two: 8 MiB, which `zstd -19` makes; more only with `--ultra` or `--long`.
const WINDOW_BYTES_LOG: u32 = 23;

/// Bytes that one byte of a file may unpack to. Packets of 64 KiB of zeros come to some 3000; a file of nothing but zeros to 32 000.
const RATIO_MAX: u64 = 10_000;

/// Bytes that any file may unpack to.
const FREE_BYTES: u64 = 256 << 20;

/// The first bytes that were looked at, and the rest.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// Counts what is read.
#[derive(Debug)]
pub struct Counted<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A decoder, and how many bytes it may give.
pub struct Bounded<R: Read> {
    decoder: Decoder<'static, BufReader<Counted<Whole<R>>>>,
    given: u64,
    free: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let given = self.decoder.read(into)?;
        self.given += given as u64;
        let taken = self.decoder.get_ref().get_ref().bytes;
        if self.given > self.free.saturating_add(taken.saturating_mul(RATIO_MAX)) {
            let said = format!(
                "{taken} compressed bytes have unpacked to {} and go on: no capture does that; unpack the file with zstd if you \
                 trust it",
                self.given
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        Ok(given)
    }
}

/// Reads a file as it was before it was compressed, if it was.
pub enum Unpacked<R: Read> {
    /// Not compressed.
    Plain(Whole<R>),
    /// By zstd, in one frame or many.
    Zstd(Box<Bounded<R>>),
}

impl<R: Read> Unpacked<R> {
    /// Looks at the first bytes of `source`.
    ///
    /// # Errors
    /// What reading says.
    pub fn new(source: R) -> io::Result<Self> {
        Self::with_free(source, FREE_BYTES)
    }

    fn with_free(mut source: R, free: u64) -> io::Result<Self> {
        let mut first = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut first)?;
        let magic = first.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic));
        let whole = Cursor::new(first).chain(source);
        if magic != MAGIC_FRAME && magic & !0xf != MAGIC_SKIPPED {
            return Ok(Self::Plain(whole));
        }
        let mut decoder = Decoder::new(Counted { source: whole, bytes: 0 })?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_BYTES_LOG))?;
        Ok(Self::Zstd(Box::new(Bounded { decoder, given: 0, free })))
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

    #[test]
    fn a_file_that_unpacks_to_far_more_than_packets_do_is_refused_and_dense_ones_are_not() {
        let unpacked = |bytes: &[u8], free| {
            let mut all = Vec::new();
            Unpacked::with_free(bytes, free)?.read_to_end(&mut all).map(|_| all.len())
        };
        let zeros = vec![0; 4 << 20];
        let bomb = zstd::bulk::compress(&zeros, 19).unwrap();
        assert!(zeros.len() > 20_000 * bomb.len(), "{} bytes", bomb.len());
        let error = unpacked(&bomb, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("no capture does that"), "{error}");
        assert_eq!(unpacked(&bomb, 4 << 20).unwrap(), zeros.len(), "small ones may be anything");
        // Packets of 64 KiB of zeros, each with another time.
        let mut dense = Vec::new();
        for ns in 0..256_u64 {
            dense.extend([ns.to_le_bytes(), 65_536_u64.to_le_bytes()].concat());
            dense.resize(dense.len() + 65_536, 0);
        }
        let packed = zstd::bulk::compress(&dense, 19).unwrap();
        assert_eq!(unpacked(&packed, 0).unwrap(), dense.len());
    }
}
