//! Why a capture file could not be read. Owns the error enum of the readers.
//!
//! Invariant: offsets count from the start of the file, so that what is before them can be kept.

use std::path::PathBuf;

/// Why a capture file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A read failed.
    #[error("reading failed at byte {offset}: {source}")]
    Io {
        /// Where in the file.
        offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is of another kind.
    #[error("not a pcap or pcapng file: {}", said(*.0))]
    Magic([u8; 4]),
    /// A classic pcap file of an unknown version.
    #[error("pcap version {major}.{minor} is not known; convert the file with `editcap -F nsecpcap`")]
    Version {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// The file ends inside a header or a record.
    #[error("the file is cut off: {records} whole records end at byte {offset}, the next is incomplete")]
    Truncated {
        /// Whole records before the cut.
        records: u64,
        /// Where they end; a classic file cut here is whole.
        offset: u64,
    },
    /// A field holds what cannot be.
    #[error(
        "the file is damaged: in the record at byte {offset}, {field} is {value}, at most {limit} is possible"
    )]
    Field {
        /// Where the record begins.
        offset: u64,
        /// The field's meaning.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// The most it can hold.
        limit: u64,
    },
    /// A pcapng block is malformed.
    #[error("the file is damaged: pcapng block at byte {offset}: {reason}")]
    Block {
        /// Where the block begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Packets of one pcapng file have different link types.
    #[error(
        "link type {found} at byte {offset} after packets of link type {first}; only a pcapng file holds both (--format pcapng)"
    )]
    LinkType {
        /// Where the packet's block begins.
        offset: u64,
        /// The first packet's link type.
        first: u16,
        /// This packet's.
        found: u16,
    },
}

/// What first bytes tell of files that are packed by programs other than zstd.
fn said(magic: [u8; 4]) -> String {
    let program = match magic {
        [0x1f, 0x8b, ..] => "gzip -dc",
        [0xfd, b'7', b'z', b'X'] => "xz -dc",
        [b'B', b'Z', b'h', _] => "bzip2 -dc",
        [0x04, 0x22, 0x4d, 0x18] => "lz4 -dc",
        _ => return format!("it begins with the bytes {magic:02x?}"),
    };
    format!("it is compressed; unpack it first with `{program} FILE`")
}
