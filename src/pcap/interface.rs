//! An interface of a pcapng file. Owns what is kept of its description and the arithmetic of its times; every other option is
//! counted and left.
//!
//! Invariant: any resolution that the format can express is read, exactly to the nanosecond.

use super::care::Care;
use super::error::ReadError;
use super::format::NS_PER_S;
use super::oddity::Oddity;
use super::options::{Options, text};
use super::place::word;

/// Options of an interface (section 4.2 of the draft).
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const CHECK_SEQUENCE: u16 = 13;
const OFFSET: u16 = 14;

/// Link type, reserved, snap length.
const FIELDS: usize = 8;

/// Microseconds, where the file does not say.
const RESOLUTION_DEFAULT: u8 = 6;

/// In a resolution: a power of two and not of ten.
const IS_BINARY: u8 = 0x80;

/// What is kept of a name: longer than any that a system gives, and little for 65,536 of them.
const NAME_BYTES_MAX: usize = 128;

/// Where packets came in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InterfaceInfo<'a> {
    pub(crate) link_type: u16,
    /// Empty in classic files.
    pub(crate) name: &'a str,
    /// Length of the frame check sequence at the end of each packet, where the file says.
    pub(crate) check_sequence_bits: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Interface {
    name: String,
    link_type: u16,
    snaplen: u32,
    /// As in the file: a negative power of ten, or of two.
    resolution: u8,
    offset_s: i64,
    check_sequence_bits: Option<u8>,
}

impl Interface {
    /// Parses a description, whose block begins at this offset.
    pub(super) fn parse(
        offset: u64,
        body: &[u8],
        big_endian: bool,
        care: &mut Care,
    ) -> Result<Self, ReadError> {
        let Some((fields, options)) = body.split_at_checked(FIELDS) else {
            return Err(damaged(offset, "an interface description has no room for its fields"));
        };
        let half = [fields[0], fields[1]];
        let mut interface = Self {
            name: String::new(),
            link_type: if big_endian { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) },
            snaplen: word(fields, 4, big_endian),
            resolution: RESOLUTION_DEFAULT,
            offset_s: 0,
            check_sequence_bits: None,
        };
        for (code, value) in Options::new(options, big_endian) {
            match (code, value.len()) {
                (NAME, _) if interface.name.is_empty() => {
                    interface.name = text(value);
                    interface.name.truncate(interface.name.floor_char_boundary(NAME_BYTES_MAX));
                    if !care.copies() {
                        care.note(Oddity::InterfaceOptions, 1);
                    }
                }
                (RESOLUTION, 1) => interface.resolution = value[0],
                (CHECK_SEQUENCE, 1) => interface.check_sequence_bits = Some(value[0]),
                (OFFSET, 8) => {
                    let [first, second] = [0, 4].map(|at| u64::from(word(value, at, big_endian)));
                    let (high, low) = if big_endian { (first, second) } else { (second, first) };
                    interface.offset_s = (high << 32 | low) as i64;
                }
                _ => care.note(Oddity::InterfaceOptions, 1),
            }
        }
        Ok(interface)
    }

    pub(super) fn link_type(&self) -> u16 {
        self.link_type
    }

    pub(super) fn info(&self) -> InterfaceInfo<'_> {
        let Self { link_type, name, check_sequence_bits, .. } = self;
        InterfaceInfo { link_type: *link_type, name, check_sequence_bits: *check_sequence_bits }
    }

    /// The most that is kept of a packet; zero in the file means no limit.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        if self.snaplen == 0 { u32::MAX } else { self.snaplen }
    }

    /// A time in ns since the UNIX epoch, and whether that is all of it.
    pub(super) fn time_ns(&self, time: u64, offset: u64) -> Result<(u64, bool), ReadError> {
        let (since_ns, is_exact) = to_ns(self.resolution, time);
        let ns = since_ns as i128 + i128::from(self.offset_s) * i128::from(NS_PER_S);
        match u64::try_from(ns) {
            Ok(ns) => Ok((ns, is_exact)),
            Err(_) => Err(damaged(offset, format!("its time of {ns} ns is before 1970 or after 2554"))),
        }
    }
}

/// Whole nanoseconds, below 2^94, and whether nothing is left over.
fn to_ns(resolution: u8, time: u64) -> (u128, bool) {
    let exponent = u32::from(resolution & !IS_BINARY);
    let time = u128::from(time);
    if resolution & IS_BINARY != 0 {
        let scaled = time * u128::from(NS_PER_S);
        return (scaled >> exponent, scaled == 0 || scaled.trailing_zeros() >= exponent);
    }
    if exponent <= 9 {
        return (time * 10_u128.pow(9 - exponent), true);
    }
    match 10_u128.checked_pow(exponent - 9) {
        Some(divisor) => (time / divisor, time.is_multiple_of(divisor)),
        None => (0, time == 0),
    }
}

pub(super) fn damaged(offset: u64, reason: impl Into<String>) -> ReadError {
    ReadError::Block { offset, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_resolution_are_exact_to_the_nanosecond() {
        let s = u128::from(NS_PER_S);
        for (resolution, time, ns, is_exact) in [
            (0, 17, 17 * s, true),
            (3, 17_500, 17_500_000_000, true),
            (9, 17_500_000_001, 17_500_000_001, true),
            (12, 17_500_000_000_000, 17_500_000_000, true),
            (12, 17_500_000_000_999, 17_500_000_000, false),
            (19, u64::MAX, 1_844_674_407, false),
            (127, u64::MAX, 0, false),
            (0, u64::MAX, u128::from(u64::MAX) * s, true),
            (IS_BINARY, 11, 11 * s, true),
            (IS_BINARY | 1, 23, 11_500_000_000, true),
            (IS_BINARY | 32, 23 << 31, 11_500_000_000, true),
            (IS_BINARY | 63, u64::MAX, 1_999_999_999, false),
            (IS_BINARY | 64, 1 << 63, 500_000_000, true),
            (IS_BINARY | 127, u64::MAX, 0, false),
        ] {
            assert_eq!(to_ns(resolution, time), (ns, is_exact), "{resolution:#x}");
        }
    }
}
