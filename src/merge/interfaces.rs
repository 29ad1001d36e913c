//! What of a merged file is not packets. Owns its header and, in pcapng, the interfaces that packets came in on.
//!
//! Invariant: an interface is described once, before its first packet; interfaces of different inputs stay apart, so that
//! any link types can be in one pcapng file.

use super::MergeError;
use super::order::Provenance;
use crate::limits::FULL_SNAPLEN;
use crate::pcap::Container;
use crate::pcap::blocks;
use crate::pcap::format::{LINK_ETHERNET, file_header_with};
use std::collections::HashMap;

/// Interfaces of one merged file; as many as our reader takes.
const INTERFACES_MAX: usize = 1 << 16;

/// What a classic file says once for all of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) link_type: u16,
    /// Length of the frame check sequence at the end of each packet, where it is known and the same.
    pub(crate) check_sequence_bits: Option<u8>,
}

impl Default for Links {
    fn default() -> Self {
        Self { link_type: LINK_ETHERNET, check_sequence_bits: None }
    }
}

/// How packets are written.
#[derive(Debug)]
pub(super) enum Encoder {
    /// As classic records.
    Pcap,
    /// As blocks.
    Ng(Interfaces),
}

impl Encoder {
    /// Also the file's beginning. The links are those of every packet of a classic file.
    pub(super) fn new(container: Container, links: Links) -> (Self, Vec<u8>) {
        match container {
            Container::Pcap => {
                let header = file_header_with(FULL_SNAPLEN, links.link_type, links.check_sequence_bits);
                (Self::Pcap, header.to_vec())
            }
            Container::PcapNg => {
                let mut header = Vec::new();
                let application = concat!("trawl ", env!("CARGO_PKG_VERSION"));
                blocks::section(&mut header, &blocks::Section { application, ..Default::default() });
                (Self::Ng(Interfaces::default()), header)
            }
        }
    }

    /// Keeps the memory of written blocks.
    #[inline]
    pub(super) fn give_back(&mut self, mut blocks: Vec<u8>) {
        if let Self::Ng(interfaces) = self {
            blocks.clear();
            interfaces.scratch = blocks;
        }
    }
}

/// The interfaces described up to now.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    numbers: HashMap<(usize, u32), u32>,
    /// The last one used, which is mostly the next one too.
    last: Option<((usize, u32), u32)>,
    scratch: Vec<u8>,
}

impl Interfaces {
    /// Begins blocks of packets that came in there: with its description, if these are the first.
    #[inline]
    pub(super) fn begin(&mut self, from: Provenance<'_>) -> Result<Vec<u8>, MergeError> {
        let key = (from.stream, from.interface);
        let mut blocks = std::mem::take(&mut self.scratch);
        if self.last.is_none_or(|(last, _)| last != key) {
            let number = match self.numbers.get(&key) {
                Some(number) => *number,
                None => self.describe(key, from, &mut blocks)?,
            };
            self.last = Some((key, number));
        }
        Ok(blocks)
    }

    /// Number of the interface that was begun.
    #[inline]
    pub(super) fn current(&self) -> u32 {
        self.last.map_or(0, |(_, number)| number)
    }

    fn describe(
        &mut self,
        key: (usize, u32),
        from: Provenance<'_>,
        blocks: &mut Vec<u8>,
    ) -> Result<u32, MergeError> {
        if self.numbers.len() == INTERFACES_MAX {
            return Err(MergeError::Interfaces(INTERFACES_MAX));
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(key, number);
        let file = from.path.file_name().unwrap_or_default().to_string_lossy();
        blocks::interface_of(blocks, from.info, FULL_SNAPLEN, &file);
        Ok(number)
    }
}
