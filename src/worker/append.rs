//! Appending one burst's matches to one stream. Owns the order "sample first, then space, then budget, then bytes"; not the stream's
//! layout.
//!
//! Invariant: of `n` matches exactly `captured + no_block + limit + sampled = n`, and what the budget granted is in the block.

use super::counters::Slot;
use super::stream::{Step, Stream, Way};
use super::work::Attachment;
use crate::limits::PCAP_RECORD_HEADER_BYTES;
use crate::matcher::Bits;
use crate::packet::Burst;
use crate::pcap::format::record_header;

/// One burst as the streams see it.
pub(super) struct Stamped<'a, B> {
    pub burst: &'a B,
    /// When it was received, ns since the UNIX epoch.
    pub ns: u64,
    /// Cycle count of the same moment.
    pub cycles: u64,
}

/// Appends the frames in `hits` and counts every one of them.
#[inline]
pub(super) fn append<B: Burst>(
    stamped: &Stamped<'_, B>,
    hits: u64,
    attachment: &Attachment,
    stream: &mut Stream,
    slot: &mut Slot,
    way: &mut Way<'_>,
    segment_bytes_max: u64,
) {
    slot.matched += u64::from(hits.count_ones());
    let hits = match &mut stream.sampler {
        Some(sampler) => {
            let kept = sampler.keep(hits);
            slot.sampled += u64::from(hits.count_ones() - kept.count_ones());
            if kept == 0 {
                return;
            }
            kept
        }
        None => hits,
    };
    let wanted = hits.count_ones() as usize;
    let burst = stamped.burst;
    let lengths = Bits(hits).map(|i| burst.wire_len(i).min(attachment.snaplen));
    let total: usize = lengths.clone().map(|l| l as usize + PCAP_RECORD_HEADER_BYTES).sum();
    let fits_as_it_is = stream.cursor.step(total, segment_bytes_max) == Step::Append;
    let fitting = if fits_as_it_is {
        wanted
    } else {
        way.refill();
        let records = lengths.clone().map(|l| l as usize + PCAP_RECORD_HEADER_BYTES);
        stream.cursor.fitting(records, segment_bytes_max, way.free.len())
    };
    slot.no_block += (wanted - fitting) as u64;
    let granted = attachment.budget.take(lengths.take(fitting)).frames;
    slot.limit += (fitting - granted) as u64;
    if granted == 0 {
        return;
    }
    slot.captured += granted as u64;
    slot.captured_bytes +=
        write(stamped, Bits(hits).take(granted), attachment.snaplen, stream, way, segment_bytes_max);
}

/// Writes the records; returns their frame bytes.
#[inline]
fn write<B: Burst>(
    stamped: &Stamped<'_, B>,
    frames: impl Iterator<Item = usize>,
    snaplen: u32,
    stream: &mut Stream,
    way: &mut Way<'_>,
    segment_bytes_max: u64,
) -> u64 {
    let burst = stamped.burst;
    let mut written = 0;
    for i in frames {
        let wire = burst.wire_len(i);
        let kept = wire.min(snaplen);
        let record_bytes = kept as usize + PCAP_RECORD_HEADER_BYTES;
        let step = stream.cursor.step(record_bytes, segment_bytes_max);
        if step != Step::Append {
            stream.advance(step, way, snaplen, stamped.cycles);
        }
        let start = stream.cursor.position;
        let ns = stream.not_before(burst.hardware_time_ns(i).unwrap_or(stamped.ns));
        let Some(record) =
            stream.block.as_mut().and_then(|b| b.bytes_mut().get_mut(start..start + record_bytes))
        else {
            unreachable!("Cursor::fitting promised room for this record");
        };
        let (header, data) = record.split_at_mut(PCAP_RECORD_HEADER_BYTES);
        header.copy_from_slice(&record_header(ns, kept, wire));
        match burst.head(i).get(..kept as usize) {
            Some(head) => data.copy_from_slice(head),
            None => burst.copy_to(i, data),
        }
        stream.cursor.position += record_bytes;
        stream.book(u64::from(kept), ns, stamped.cycles);
        written += u64::from(kept);
    }
    written
}
