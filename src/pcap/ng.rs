//! pcapng (draft-ietf-opsawg-pcapng). Owns the walk over blocks and the packets in them; sections and interfaces are in
//! `interface`, options in `options`.
//!
//! Invariant: what is kept grows with the number of interfaces and with blocks to be copied, and both are bounded.

use super::blocks::{
    self, CUSTOM, ENHANCED_PACKET, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS, NAMES, SECRETS,
};
use super::buffer::{BYTES_MAX, Buffer};
use super::care::{CARRIED_BYTES_MAX, Care};
use super::error::ReadError;
use super::format::{MAGIC_PCAPNG, RECORD_BYTES_MAX};
use super::interface::{Interface, InterfaceInfo, damaged};
use super::oddity::Oddity;
use super::options::Options;
use super::place::{Place, word};
use std::io::Read;

/// Block types that this program does not write (section 11.1 of the draft).
const SECTION_HEADER: u32 = MAGIC_PCAPNG;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const JOURNAL: u32 = 9;
/// A custom block that must not be copied.
const CUSTOM_TIED: u32 = 0x4000_0bad;

/// Interfaces of one section; mergecap makes one or more per input file.
const INTERFACES_MAX: usize = 1 << 16;

/// Type and length before a block's body.
const BLOCK_HEADER: usize = 8;

/// The above and the length repeated behind the body.
const BLOCK_BYTES_MIN: u32 = 12;

/// A section's byte-order magic as read in big endian.
const MAGIC_BIG_ENDIAN: u32 = 0x1a2b_3c4d;
const MAGIC_LITTLE_ENDIAN: u32 = MAGIC_BIG_ENDIAN.swap_bytes();

/// Byte-order magic, version and length of a section.
const SECTION_FIELDS: usize = 16;

/// State of the walk.
#[derive(Debug)]
pub(super) struct Ng {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Interfaces of the sections before this one.
    before: u32,
    link_type: Option<u16>,
    mixed_links: bool,
    /// The first packet, found while opening.
    pending: Option<Place>,
    /// Where a block begins that the file ended inside of while it was skipped.
    cut: Option<u64>,
    /// Where zeros begin that other bytes follow.
    zeros: Option<u64>,
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
    pub(super) fn open<R: Read>(buffer: &mut Buffer<R>, care: &mut Care) -> Result<Self, ReadError> {
        let mut ng = Self {
            big_endian: false,
            interfaces: Vec::new(),
            before: 0,
            link_type: None,
            mixed_links: false,
            pending: None,
            cut: None,
            zeros: None,
        };
        ng.pending = ng.advance(buffer, care, 0)?;
        Ok(ng)
    }

    pub(super) fn link_type(&self) -> Option<u16> {
        self.link_type
    }

    pub(super) fn allow_mixed_links(&mut self) {
        self.mixed_links = true;
    }

    pub(super) fn big_endian(&self) -> bool {
        self.big_endian
    }

    /// What is known of an interface of this section, by its number in the file.
    pub(super) fn interface(&self, number: u32) -> InterfaceInfo<'_> {
        let interface = self.interfaces.get(number.wrapping_sub(self.before) as usize);
        interface.map_or(InterfaceInfo::default(), Interface::info)
    }

    pub(super) fn advance<R: Read>(
        &mut self,
        buffer: &mut Buffer<R>,
        care: &mut Care,
        records: u64,
    ) -> Result<Option<Place>, ReadError> {
        if let Some(place) = self.pending.take() {
            return Ok(Some(place));
        }
        while let Some(frame) = self.frame(buffer, care, records)? {
            match frame.kind {
                SECTION_HEADER | INTERFACE_DESCRIPTION => {
                    self.whole(buffer, frame, records)?;
                    let body = &buffer.unread()[BLOCK_HEADER..frame.bytes as usize - 4];
                    if frame.kind == SECTION_HEADER {
                        self.section(frame, body, care)?;
                    } else {
                        self.describe(frame, body, care)?;
                    }
                    buffer.consume(frame.bytes as usize);
                }
                ENHANCED_PACKET | PACKET | SIMPLE_PACKET => {
                    self.whole(buffer, frame, records)?;
                    let body = &buffer.unread()[BLOCK_HEADER..frame.bytes as usize - 4];
                    let mut place = self.packet(frame, body, care)?;
                    let begin = buffer.start() + BLOCK_HEADER;
                    place.at += begin;
                    place.options_at += begin;
                    buffer.consume(frame.bytes as usize);
                    return Ok(Some(place));
                }
                _ => self.other(buffer, frame, care)?,
            }
        }
        Ok(None)
    }

    /// Looks at the next block's type and length; none at the end of the file.
    fn frame<R: Read>(
        &mut self,
        buffer: &mut Buffer<R>,
        care: &mut Care,
        records: u64,
    ) -> Result<Option<Frame>, ReadError> {
        let offset = self.cut.unwrap_or(buffer.offset());
        let whole = buffer.ensure(BLOCK_BYTES_MIN as usize)?;
        let ends = self.cut.is_none() && buffer.is_at_end();
        if ends || self.skip_zero_tail(buffer, care)? {
            return Ok(None);
        }
        if let Some(offset) = self.zeros {
            return Err(damaged(offset, "its length is 0"));
        }
        if !whole {
            return Err(ReadError::Truncated { records, offset });
        }
        let header = buffer.unread();
        let kind = word(header, 0, self.big_endian);
        let big_endian = match (kind, word(header, 8, true)) {
            (SECTION_HEADER, MAGIC_BIG_ENDIAN) => true,
            (SECTION_HEADER, MAGIC_LITTLE_ENDIAN) => false,
            (SECTION_HEADER, magic) => {
                return Err(damaged(offset, format!("byte-order magic {magic:#010x} is not known")));
            }
            _ => self.big_endian,
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

    /// Whether nothing but zeros follows, which a tolerant reader takes for the end of a preallocated file.
    fn skip_zero_tail<R: Read>(
        &mut self,
        buffer: &mut Buffer<R>,
        care: &mut Care,
    ) -> Result<bool, ReadError> {
        let header = &buffer.unread()[..buffer.unread().len().min(BLOCK_HEADER)];
        if !care.is_tolerant()
            || self.cut.is_some()
            || header.is_empty()
            || header.iter().any(|byte| *byte != 0)
        {
            return Ok(false);
        }
        let offset = buffer.offset();
        let (bytes, ends) = buffer.skip_zeros(4)?;
        if ends {
            care.note(Oddity::ZeroTail, bytes);
        } else {
            self.zeros = Some(offset);
        }
        Ok(ends)
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
            SECTION_HEADER => word(buffer.unread(), 8, true) == MAGIC_BIG_ENDIAN,
            _ => self.big_endian,
        };
        same_lengths(frame, word(buffer.unread(), bytes as usize - 4, big_endian))
    }

    /// Begins a section.
    fn section(&mut self, frame: Frame, body: &[u8], care: &mut Care) -> Result<(), ReadError> {
        let Some((fields, options)) = body.split_at_checked(SECTION_FIELDS) else {
            return Err(damaged(frame.offset, "a section header has no room for its fields"));
        };
        let big_endian = word(fields, 0, true) == MAGIC_BIG_ENDIAN;
        let half = [fields[4], fields[5]];
        let major = if big_endian { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) };
        if major != 1 {
            return Err(damaged(frame.offset, format!("version {major} of the format is not known")));
        }
        self.big_endian = big_endian;
        self.before = self.before.wrapping_add(self.interfaces.len() as u32);
        self.interfaces.clear();
        if care.is_tolerant() {
            care.note(Oddity::SectionOptions, Options::new(options, big_endian).count() as u64);
        }
        Ok(())
    }

    /// Learns an interface.
    fn describe(&mut self, frame: Frame, body: &[u8], care: &mut Care) -> Result<(), ReadError> {
        if self.interfaces.len() == INTERFACES_MAX {
            let reason = format!("more than {INTERFACES_MAX} interfaces in one section");
            return Err(damaged(frame.offset, reason));
        }
        self.interfaces.push(Interface::parse(frame.offset, body, self.big_endian, care)?);
        Ok(())
    }

    /// Parses a packet block; the places returned count from the body's start.
    fn packet(&mut self, frame: Frame, body: &[u8], care: &mut Care) -> Result<Place, ReadError> {
        let Frame { kind, offset, .. } = frame;
        let big_endian = self.big_endian;
        let head = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < head {
            return Err(damaged(
                offset,
                format!("a packet block of {} bytes has no room for its fields", body.len()),
            ));
        }
        let field = |at| word(body, at, big_endian);
        let index = match kind {
            SIMPLE_PACKET => 0,
            PACKET if big_endian => field(0) >> 16,
            PACKET => field(0) & 0xffff,
            _ => field(0),
        };
        let Some(interface) = self.interfaces.get(index as usize) else {
            return Err(damaged(offset, format!("interface {index} is not described before its packet")));
        };
        let (ns, len, mut wire_len) = if kind == SIMPLE_PACKET {
            (0, field(0).min(interface.packet_bytes_max()), field(0))
        } else {
            let time = u64::from(field(4)) << 32 | u64::from(field(8));
            let (ns, is_exact) = interface.time_ns(time, offset)?;
            if !is_exact {
                care.note(Oddity::FinerTime, 1);
            }
            (ns, field(12), field(16))
        };
        if care.is_tolerant() && len > wire_len {
            care.note(Oddity::Lengths, 1);
            wire_len = len;
        }
        let limit = u64::from(wire_len.min(RECORD_BYTES_MAX)).min((body.len() - head) as u64);
        if u64::from(len) > limit {
            let field = "the captured length";
            return Err(ReadError::Field { offset, field, value: u64::from(len), limit });
        }
        let found = interface.link_type();
        let first = *self.link_type.get_or_insert(found);
        if first != found && !self.mixed_links {
            return Err(ReadError::LinkType { offset, first, found });
        }
        let (options_at, options_len) =
            if kind == SIMPLE_PACKET { (0, 0) } else { options_of(body, head, len, big_endian, care) };
        let interface = self.before.wrapping_add(index);
        Ok(Place { ns, wire_len, at: head, len, interface, is_own: false, options_at, options_len })
    }

    /// Passes over a block without packets, or keeps it to be copied.
    fn other<R: Read>(
        &mut self,
        buffer: &mut Buffer<R>,
        frame: Frame,
        care: &mut Care,
    ) -> Result<(), ReadError> {
        let Frame { kind, bytes, offset } = frame;
        // Nobody but its maker knows the byte order inside of a custom block.
        let is_copied = matches!(kind, SECRETS | NAMES) || (kind == CUSTOM && !self.big_endian);
        if is_copied && care.copies() && care.carried.len() + bytes as usize <= CARRIED_BYTES_MAX {
            let mut block = Vec::new();
            if !buffer.copy(bytes as usize, &mut block)? {
                self.cut = Some(offset);
                return Ok(());
            }
            let (body, trailer) = (BLOCK_HEADER..bytes as usize - 4, bytes as usize - 4);
            let is_whole = same_lengths(frame, word(&block, trailer, self.big_endian)).is_ok();
            if is_whole && blocks::carry(&mut care.carried, kind, &block[body], self.big_endian) {
                return Ok(());
            }
        } else if !buffer.skip(u64::from(bytes))? {
            self.cut = Some(offset);
            return Ok(());
        }
        care.note(
            match kind {
                SECRETS => Oddity::Secrets,
                NAMES => Oddity::Names,
                INTERFACE_STATISTICS => Oddity::Statistics,
                JOURNAL => Oddity::Journal,
                CUSTOM | CUSTOM_TIED => Oddity::Custom,
                _ => Oddity::OtherBlocks,
            },
            1,
        );
        Ok(())
    }
}

/// Place and length of a packet's options, if they are to be copied; what is not is counted.
fn options_of(body: &[u8], head: usize, len: u32, big_endian: bool, care: &mut Care) -> (usize, u32) {
    let at = head + (len as usize).next_multiple_of(4);
    let options = body.get(at..).unwrap_or(&[]);
    if options.is_empty() || !care.is_tolerant() {
        return (0, 0);
    }
    let copies = care.copies();
    Options::new(options, big_endian).count_uncopied(&mut care.oddities, copies);
    if copies { (at, options.len() as u32) } else { (0, 0) }
}

fn same_lengths(frame: Frame, trailer: u32) -> Result<(), ReadError> {
    let Frame { bytes, offset, .. } = frame;
    if trailer == bytes {
        return Ok(());
    }
    Err(damaged(offset, format!("its length is {bytes} at its start and {trailer} at its end")))
}
