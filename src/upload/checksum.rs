//! CRC-32C, the one checksum that all stores understand. Owns running sums that go on from where another process stopped,
//! and how stores write them; not what is compared with what.

use crc_fast::{CrcAlgorithm, Digest};

/// Polynomial and form of S3's and Google's CRC-32C.
const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// The checksum of a whole block.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Base64 of a big-endian CRC-32: 32 bits and 4 of padding are six digits.
pub(super) fn base64(crc: u32) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::from(crc) << 4;
    let mut text: String =
        (0..6).rev().map(|digit| DIGITS[(bits >> (digit * 6) & 63) as usize] as char).collect();
    text.push_str("==");
    text
}

/// The checksum of `first` followed by `second_bytes` bytes with the checksum `second`.
pub(super) fn joined(first: u32, second: u32, second_bytes: u64) -> u32 {
    crc_fast::checksum_combine(ALGORITHM, u64::from(first), u64::from(second), second_bytes) as u32
}

/// A checksum that grows with its object.
#[derive(Debug)]
pub(crate) struct Running {
    /// Of what came before this process.
    before: u32,
    since: Digest,
    since_bytes: u64,
}

impl Running {
    /// Goes on behind bytes whose checksum is `before`; 0 for none.
    pub(crate) fn after(before: u32) -> Self {
        Self { before, since: Digest::new(ALGORITHM), since_bytes: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.since.update(bytes);
        self.since_bytes += bytes.len() as u64;
    }

    /// The checksum of everything up to now.
    pub(crate) fn sum(&self) -> u32 {
        joined(self.before, self.since.finalize() as u32, self.since_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksums_are_written_as_stores_write_them() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "check value of CRC-32C (RFC 3720, appendix B.4)");
        assert_eq!(base64(0xe306_9283), "4waSgw==");
        assert_eq!(base64(0), "AAAAAA==");
    }

    proptest! {
        #[test]
        fn a_sum_that_goes_on_is_the_sum_of_the_whole(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (before, since) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut running = Running::after(crc32c(before));
            since.chunks(7).for_each(|chunk| running.update(chunk));
            prop_assert_eq!(running.sum(), crc32c(&bytes));
        }
    }
}
