//! A packet in a reader's window, and as it is handed out. Owns these types and how numbers are read; each format finds its own.

/// One packet of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Time in ns since the UNIX epoch; zero where the file has none.
    pub ns: u64,
    /// Bytes that the packet had on the wire, at least those of `data`.
    pub wire_len: u32,
    /// What was kept of it.
    pub data: &'a [u8],
}

/// A record in the reader's window, valid until the reader is used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ns: u64,
    pub(crate) wire_len: u32,
    /// Place of the data in the window.
    pub(super) at: usize,
    pub(crate) len: u32,
    /// Number of its interface, over all sections of a file.
    pub(crate) interface: u32,
    /// Whether it stands in the window, header included, as this program writes it.
    pub(super) is_own: bool,
    /// Place of its options in the window, and their length.
    pub(super) options_at: usize,
    pub(super) options_len: u32,
}

/// The 32-bit word at `at`; `bytes` reaches that far.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}
