//! pcapng (draft-ietf-opsawg-pcapng). Owns the walk over blocks and the packets in them; section and interface blocks are
//! decoded by `pcap-file`.
//!
//! Invariant: what is kept grows with the number of interfaces only, and that is bounded.

use super::buffer::{BYTES_MAX, Buffer};
use super::error::ReadError;
use super::format::RECORD_BYTES_MAX;
use super::reader::{Place, word};
use pcap_file::Endianness;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::{
    ENHANCED_PACKET_BLOCK, INTERFACE_DESCRIPTION_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK,
    SIMPLE_PACKET_BLOCK,
};
use pcap_file::pcapng::{Block, PcapNgState, RawBlock};
use std::borrow::Cow;
use std::io::Read;

/// Interfaces of one section; mergecap makes one or more per input file.
const INTERFACES_MAX: usize = 1 << 16;

/// What is kept of an interface's name: longer than any that a system gives, and little for [`INTERFACES_MAX`] of them.
const NAME_BYTES_MAX: usize = 128;

/// Type and length before a block's body.
const BLOCK_HEADER: usize = 8;

/// The above and the length repeated behind the body.
const BLOCK_BYTES_MIN: u32 = 12;

/// A section's byte-order magic as read in big endian.
const MAGIC_BIG_ENDIAN: u32 = 0x1a2b_3c4d;
const MAGIC_LITTLE_ENDIAN: u32 = MAGIC_BIG_ENDIAN.swap_bytes();

#[derive(Debug)]
struct Interface {
    name: String,
    link_type: u16,
    snaplen: u32,
    resolution: InterfaceTsResolution,
    offset_s: i64,
}

/// State of the walk.
#[derive(Debug)]
pub(super) struct Ng {
    /// Knows the section's byte order; its own list of interfaces stays empty, because it keeps every option.
    section: PcapNgState,
    interfaces: Vec<Interface>,
    /// Interfaces of the sections before this one.
    before: u32,
    link_type: Option<u16>,
    mixed_links: bool,
    /// The first packet, found while opening.
    pending: Option<Place>,
    /// Where a block begins that the file ended inside of while it was skipped.
    cut: Option<u64>,
}

/// A block in the window.
#[derive(Clone, Copy)]
struct Frame {
    kind: u32,
    bytes: u32,
    offset: u64,
}

impl Ng {
    /// Walks up to the first packet.
    pub(super) fn open<R: Read>(buffer: &mut Buffer<R>) -> Result<Self, ReadError> {
        let mut ng = Self {
            section: PcapNgState::default(),
            interfaces: Vec::new(),
            before: 0,
            link_type: None,
            mixed_links: false,
            pending: None,
            cut: None,
        };
        ng.pending = ng.advance(buffer, 0)?;
        Ok(ng)
    }

    pub(super) fn link_type(&self) -> Option<u16> {
        self.link_type
    }

    pub(super) fn allow_mixed_links(&mut self) {
        self.mixed_links = true;
    }

    /// Link type and name of an interface of this section by its number in the file.
    pub(super) fn interface(&self, number: u32) -> (u16, &str) {
        let interface = self.interfaces.get(number.wrapping_sub(self.before) as usize);
        interface.map_or((0, ""), |interface| (interface.link_type, interface.name.as_str()))
    }

    fn big_endian(&self) -> bool {
        self.section.endianness() == Endianness::Big
    }

    pub(super) fn advance<R: Read>(
        &mut self,
        buffer: &mut Buffer<R>,
        records: u64,
    ) -> Result<Option<Place>, ReadError> {
        if let Some(place) = self.pending.take() {
            return Ok(Some(place));
        }
        while let Some(frame) = self.frame(buffer, records)? {
            match frame.kind {
                SECTION_HEADER_BLOCK | INTERFACE_DESCRIPTION_BLOCK => {
                    self.whole(buffer, frame, records)?;
                    self.describe(frame, &buffer.unread()[BLOCK_HEADER..frame.bytes as usize - 4])?;
                    buffer.consume(frame.bytes as usize);
                }
                ENHANCED_PACKET_BLOCK | PACKET_BLOCK | SIMPLE_PACKET_BLOCK => {
                    self.whole(buffer, frame, records)?;
                    let body = &buffer.unread()[BLOCK_HEADER..frame.bytes as usize - 4];
                    let mut place = self.packet(frame, body)?;
                    place.at += buffer.start() + BLOCK_HEADER;
                    buffer.consume(frame.bytes as usize);
                    return Ok(Some(place));
                }
                _ => {
                    if !buffer.skip(u64::from(frame.bytes))? {
                        self.cut = Some(frame.offset);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Looks at the next block's type and length; none at the end of the file.
    fn frame<R: Read>(&self, buffer: &mut Buffer<R>, records: u64) -> Result<Option<Frame>, ReadError> {
        let offset = self.cut.unwrap_or(buffer.offset());
        if !buffer.ensure(BLOCK_BYTES_MIN as usize)? {
            let cut = ReadError::Truncated { records, offset };
            return if buffer.unread().is_empty() && self.cut.is_none() { Ok(None) } else { Err(cut) };
        }
        let header = buffer.unread();
        let kind = word(header, 0, self.big_endian());
        let big_endian = match (kind, word(header, 8, true)) {
            (SECTION_HEADER_BLOCK, MAGIC_BIG_ENDIAN) => true,
            (SECTION_HEADER_BLOCK, MAGIC_LITTLE_ENDIAN) => false,
            (SECTION_HEADER_BLOCK, magic) => {
                return Err(damaged(offset, format!("byte-order magic {magic:#010x} is not known")));
            }
            _ => self.big_endian(),
        };
        let bytes = word(header, 4, big_endian);
        if bytes < BLOCK_BYTES_MIN || !bytes.is_multiple_of(4) {
            return Err(damaged(
                offset,
                format!("its length of {bytes} is not a multiple of 4 of at least 12"),
            ));
        }
        Ok(Some(Frame { kind, bytes, offset }))
    }

    /// Gets the whole block into the window.
    fn whole<R: Read>(&self, buffer: &mut Buffer<R>, frame: Frame, records: u64) -> Result<(), ReadError> {
        let Frame { bytes, offset, .. } = frame;
        if bytes as usize > BYTES_MAX {
            let (field, limit) = ("the block length", BYTES_MAX as u64);
            return Err(ReadError::Field { offset, field, value: u64::from(bytes), limit });
        }
        if !buffer.ensure(bytes as usize)? {
            return Err(ReadError::Truncated { records, offset });
        }
        let big_endian = match frame.kind {
            SECTION_HEADER_BLOCK => word(buffer.unread(), 8, true) == MAGIC_BIG_ENDIAN,
            _ => self.big_endian(),
        };
        let trailer = word(buffer.unread(), bytes as usize - 4, big_endian);
        if trailer != bytes {
            return Err(damaged(
                offset,
                format!("its length is {bytes} at its start and {trailer} at its end"),
            ));
        }
        Ok(())
    }

    /// Learns a section or an interface.
    fn describe(&mut self, frame: Frame, body: &[u8]) -> Result<(), ReadError> {
        let Frame { kind, bytes, offset } = frame;
        let raw = RawBlock { type_: kind, initial_len: bytes, body: Cow::Borrowed(body), trailer_len: bytes };
        let block = raw.try_into_block(&self.section).map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            damaged(offset, format!("{error}{cause}"))
        })?;
        match block {
            Block::SectionHeader(_) => {
                self.section.update_from_block(&block);
                self.before = self.before.wrapping_add(self.interfaces.len() as u32);
                self.interfaces.clear();
            }
            Block::InterfaceDescription(_) if self.interfaces.len() == INTERFACES_MAX => {
                return Err(damaged(offset, format!("more than {INTERFACES_MAX} interfaces in one section")));
            }
            Block::InterfaceDescription(interface) => self.interfaces.push(Interface {
                name: name(&interface),
                link_type: u32::from(interface.linktype) as u16,
                snaplen: interface.snaplen,
                resolution: interface.ts_resolution(),
                offset_s: interface.ts_offset(),
            }),
            _ => {}
        }
        Ok(())
    }

    /// Parses a packet block; the place returned counts from the body's start.
    fn packet(&mut self, frame: Frame, body: &[u8]) -> Result<Place, ReadError> {
        let Frame { kind, offset, .. } = frame;
        let big_endian = self.big_endian();
        let head = if kind == SIMPLE_PACKET_BLOCK { 4 } else { 20 };
        if body.len() < head {
            return Err(damaged(
                offset,
                format!("a packet block of {} bytes has no room for its fields", body.len()),
            ));
        }
        let field = |at| word(body, at, big_endian);
        let index = match kind {
            SIMPLE_PACKET_BLOCK => 0,
            PACKET_BLOCK if big_endian => field(0) >> 16,
            PACKET_BLOCK => field(0) & 0xffff,
            _ => field(0),
        };
        let Some(interface) = self.interfaces.get(index as usize) else {
            return Err(damaged(offset, format!("interface {index} is not described before its packet")));
        };
        let (ns, len, wire_len) = if kind == SIMPLE_PACKET_BLOCK {
            let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            (0, field(0).min(snaplen), field(0))
        } else {
            let time = u64::from(field(4)) << 32 | u64::from(field(8));
            (interface.time_ns(time, offset)?, field(12), field(16))
        };
        let limit = u64::from(wire_len.min(RECORD_BYTES_MAX)).min((body.len() - head) as u64);
        if u64::from(len) > limit {
            let field = "the captured length";
            return Err(ReadError::Field { offset, field, value: u64::from(len), limit });
        }
        let found = interface.link_type;
        let first = *self.link_type.get_or_insert(found);
        if first != found && !self.mixed_links {
            return Err(ReadError::LinkType { offset, first, found });
        }
        Ok(Place { ns, wire_len, at: head, len, interface: self.before.wrapping_add(index) })
    }
}

impl Interface {
    fn time_ns(&self, time: u64, offset: u64) -> Result<u64, ReadError> {
        let since_ns = self.resolution.decode_timestamp(time).as_nanos() as i128;
        let ns = since_ns + i128::from(self.offset_s) * 1_000_000_000;
        u64::try_from(ns)
            .map_err(|_| damaged(offset, format!("its time of {ns} ns is before 1970 or after 2554")))
    }
}

/// An interface's name, cut to what is kept.
fn name(interface: &InterfaceDescriptionBlock<'_>) -> String {
    let named = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfName(name) => Some(&**name),
        _ => None,
    });
    let name = named.unwrap_or_default();
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

fn damaged(offset: u64, reason: String) -> ReadError {
    ReadError::Block { offset, reason }
}
