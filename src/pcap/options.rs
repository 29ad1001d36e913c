//! Options of pcapng blocks (draft-ietf-opsawg-pcapng, section 3.5). Owns the walk over them, their text, and what of a
//! packet's options is copied; which option means what to a block is known there.
//!
//! Invariant: any bytes are legal. Options that do not fit into their block end the walk.

use super::oddity::{Oddities, Oddity};

/// In any block.
pub(super) const COMMENT: u16 = 1;

/// Custom options that may be copied (text, binary) and that must not be.
const CUSTOM_TEXT: u16 = 2988;
const CUSTOM_BINARY: u16 = 2989;
const CUSTOM_TEXT_TIED: u16 = 19372;
const CUSTOM_BINARY_TIED: u16 = 19373;

/// Of a packet: flags, hash, drop count, packet id, queue, verdict.
const FLAGS: u16 = 2;
const HASH: u16 = 3;
const DROP_COUNT: u16 = 4;
const PACKET_ID: u16 = 5;
const QUEUE: u16 = 6;
const VERDICT: u16 = 7;

/// The options of one block, as they stand there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) big_endian: bool,
}

impl<'a> Options<'a> {
    pub(super) fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self { bytes, big_endian }
    }

    fn half(self, at: usize) -> Option<u16> {
        let word = [*self.bytes.get(at)?, *self.bytes.get(at + 1)?];
        Some(if self.big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) })
    }

    /// What is not copied by [`Options::copy`], by kind.
    pub(super) fn count_uncopied(self, oddities: &mut Oddities, copies: bool) {
        let mut value = Vec::new();
        for (code, bytes) in self {
            value.clear();
            if !copies || !recode(code, bytes, self.big_endian, &mut value) {
                oddities.add(if code == COMMENT { Oddity::PacketComments } else { Oddity::PacketOptions }, 1);
            }
        }
    }

    /// Appends a packet's options in little endian, with their end. What depends on its place or on an unknown byte order
    /// is left out.
    pub(crate) fn copy(self, out: &mut Vec<u8>) {
        let from = out.len();
        for (code, bytes) in self {
            let begin = out.len();
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            if recode(code, bytes, self.big_endian, out) {
                let len = (out.len() - begin).next_multiple_of(4);
                out.resize(begin + len, 0);
            } else {
                out.truncate(begin);
            }
        }
        if out.len() > from {
            out.extend_from_slice(&[0; 4]);
        }
    }
}

/// Appends an option's value in little endian; false if it cannot be copied.
fn recode(code: u16, value: &[u8], big_endian: bool, out: &mut Vec<u8>) -> bool {
    let numbers_bytes = match code {
        CUSTOM_TEXT_TIED | CUSTOM_BINARY_TIED => return false,
        COMMENT | HASH | VERDICT => 0,
        FLAGS | QUEUE if value.len() == 4 => 4,
        DROP_COUNT | PACKET_ID if value.len() == 8 => 8,
        // the enterprise number, then text
        CUSTOM_TEXT if value.len() >= 4 => 4,
        _ if big_endian => return false,
        CUSTOM_BINARY => 0,
        _ => 0,
    };
    let (number, rest) = value.split_at(numbers_bytes);
    if big_endian {
        out.extend(number.iter().rev());
    } else {
        out.extend_from_slice(number);
    }
    out.extend_from_slice(rest);
    true
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, len) = (self.half(0)?, usize::from(self.half(2)?));
        if code == 0 {
            return None;
        }
        let value = self.bytes.get(4..4 + len)?;
        self.bytes = self.bytes.get(4 + len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((code, value))
    }
}

/// Text as people read it, up to a zero byte: UTF-8 as the draft asks for, otherwise Latin-1, which any bytes are.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options as a writer of that byte order lays them out.
    fn laid_out(options: &[(u16, &[u8])], big_endian: bool) -> Vec<u8> {
        let half = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = Vec::new();
        for (code, value) in options {
            bytes.extend(half(*code));
            bytes.extend(half(value.len() as u16));
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn options_of_either_byte_order_are_copied_to_the_same_bytes() {
        let own = [(1, &b"caf\xe9 "[..]), (2, &[1, 2, 3, 4]), (5, &[1, 2, 3, 4, 5, 6, 7, 8]), (3, &[2, 9])];
        let foreign =
            [(1, &b"caf\xe9 "[..]), (2, &[4, 3, 2, 1]), (5, &[8, 7, 6, 5, 4, 3, 2, 1]), (3, &[2, 9])];
        let mut copied = [Vec::new(), Vec::new()];
        Options::new(&laid_out(&own, false), false).copy(&mut copied[0]);
        Options::new(&laid_out(&foreign, true), true).copy(&mut copied[1]);
        assert_eq!(copied[0], laid_out(&own, false));
        assert_eq!(copied[1], copied[0]);
    }

    #[test]
    fn options_that_are_tied_to_their_file_or_run_over_their_block_are_left_out() {
        let mut oddities = Oddities::default();
        let bytes = laid_out(&[(19372, &[0, 0, 0, 1, b'x']), (2989, &[0, 0, 0, 1, 7]), (1, b"kept")], true);
        let options = Options::new(&bytes, true);
        options.count_uncopied(&mut oddities, true);
        assert_eq!(oddities.count(Oddity::PacketOptions), 2);
        let mut out = Vec::new();
        options.copy(&mut out);
        assert_eq!(out, laid_out(&[(1, b"kept")], false));
        let beyond = [1, 0, 200, 0, b'a', b'b'];
        assert_eq!(Options::new(&beyond, false).count(), 0);
        assert_eq!(Options::new(&[1, 0], false).count(), 0);
    }

    #[test]
    fn text_of_any_bytes_is_read() {
        assert_eq!(text("Gerät".as_bytes()), "Gerät");
        assert_eq!(text(b"Ger\xe4t"), "Gerät");
        assert_eq!(text(b"eth0\0\0\xff"), "eth0");
    }
}
