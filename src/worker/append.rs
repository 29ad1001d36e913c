//! Appending one burst's matches to one stream. Owns the order "sample first, then space, then budget, then bytes"; not the stream's
//! layout.
//!
//! Invariant: of `n` matches exactly `captured + no_block + limit + share + sampled = n`, and what the budget granted is in the block.

use super::Budget;
use super::counters::Slot;
use super::stream::{HandOver, Step, Stream, stamp};
use super::work::Attachment;
use crate::limits::{FULL_SNAPLEN, PCAP_RECORD_HEADER_BYTES};
use crate::matcher::Bits;
use crate::packet::Burst;

/// One burst as the streams see it.
pub(super) struct Stamped<'a, B> {
    pub burst: &'a B,
    /// When it was received, ns since the UNIX epoch.
    pub ns: u64,
    /// Cycle count of the same moment.
    pub cycles: u64,
    /// The time fields of a record header for `ns`: two divisions once for all captures.
    pub header: u64,
}

impl<'a, B> Stamped<'a, B> {
    pub fn new(burst: &'a B, ns: u64, cycles: u64) -> Self {
        Self { burst, ns, cycles, header: stamp(ns) }
    }
}

/// Appends the frames in `hits` and counts them, if nothing stands in the way: no sampling, no limit, room in the open block.
/// Otherwise changes nothing and returns false. Touches as little memory as it can, because with 64 captures it runs once a frame.
#[inline]
pub(super) fn append_plain<B: Burst>(
    stamped: &Stamped<'_, B>,
    hits: u64,
    stream: &mut Stream,
    slot: &mut Slot,
    segment_bytes_max: u64,
) -> bool {
    let Some(snaplen) = stream.plain else { return false };
    let (burst, frames) = (stamped.burst, hits.count_ones() as usize);
    let whole = frames == burst.len();
    // A burst that is wanted whole needs no walk over its lengths and none over the mask.
    let bytes = if whole && snaplen >= FULL_SNAPLEN {
        burst.wire_bytes()
    } else {
        Bits(hits).map(|i| u64::from(burst.wire_len(i).min(snaplen))).sum()
    };
    let room = usize::try_from(bytes).unwrap_or(usize::MAX / 2) + frames * PCAP_RECORD_HEADER_BYTES;
    if stream.cursor.step(room, segment_bytes_max) != Step::Append {
        return false;
    }
    if whole {
        write_run(stamped, 0..frames, snaplen, stream);
    } else {
        write_run(stamped, Bits(hits), snaplen, stream);
    }
    slot.matched += frames as u64;
    slot.captured += frames as u64;
    slot.captured_bytes += bytes;
    stream.expect_more();
    true
}

/// Appends the frames in `hits` and counts every one of them.
pub(super) fn append<B: Burst>(
    stamped: &Stamped<'_, B>,
    hits: u64,
    attachment: &Attachment,
    stream: &mut Stream,
    slot: &mut Slot,
    hand_over: &mut HandOver<'_>,
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
    let kept = Bits(hits).map(|i| burst.wire_len(i).min(attachment.snaplen));
    let records = kept.clone().map(|bytes| bytes as usize + PCAP_RECORD_HEADER_BYTES);
    let total: usize = records.clone().sum();
    let in_this_block = stream.cursor.step(total, segment_bytes_max) == Step::Append;
    let fitting = if in_this_block {
        wanted
    } else {
        hand_over.refill();
        stream.cursor.fitting(records, segment_bytes_max, hand_over.blocks.available(stream.payer))
    };
    slot.no_block += (wanted - fitting) as u64;
    let granted = attachment.budget.take(fitting, kept.take(fitting));
    if granted < fitting {
        refused(slot, &attachment.budget, (fitting - granted) as u64);
    }
    if granted == 0 {
        return;
    }
    let frames = Bits(hits).take(granted);
    let frame_bytes = if in_this_block {
        write_run(stamped, frames, attachment.snaplen, stream)
    } else {
        frames.fold(0, |sum, i| {
            let bytes = burst.wire_len(i).min(attachment.snaplen) as usize + PCAP_RECORD_HEADER_BYTES;
            let step = stream.cursor.step(bytes, segment_bytes_max);
            stream.advance(step, hand_over, attachment.snaplen, stamped.cycles);
            sum + write_run(stamped, std::iter::once(i), attachment.snaplen, stream)
        })
    };
    slot.captured += granted as u64;
    slot.captured_bytes += frame_bytes;
    stream.expect_more();
}

/// Counts frames that the budget refused.
#[cold]
fn refused(slot: &mut Slot, budget: &Budget, frames: u64) {
    if budget.lacks_share() {
        slot.share += frames;
    } else {
        slot.limit += frames;
    }
}

/// Writes the records of frames for which the open block has room; returns their frame bytes. A loop of its own for ports that time
/// no frames: in one for both, what their time needs is carried through every frame of all others.
#[inline]
fn write_run<B: Burst>(
    stamped: &Stamped<'_, B>,
    frames: impl Iterator<Item = usize>,
    snaplen: u32,
    stream: &mut Stream,
) -> u64 {
    if stamped.burst.is_timed() {
        write_timed(stamped, frames, snaplen, stream)
    } else {
        write_frames::<_, false>(stamped, frames, snaplen, stream)
    }
}

#[inline(never)]
fn write_timed<B: Burst>(
    stamped: &Stamped<'_, B>,
    frames: impl Iterator<Item = usize>,
    snaplen: u32,
    stream: &mut Stream,
) -> u64 {
    write_frames::<_, true>(stamped, frames, snaplen, stream)
}

#[inline]
fn write_frames<B: Burst, const TIMED: bool>(
    stamped: &Stamped<'_, B>,
    frames: impl Iterator<Item = usize>,
    snaplen: u32,
    stream: &mut Stream,
) -> u64 {
    let burst = stamped.burst;
    let mut run = stream.run(stamped.ns, stamped.header, stamped.cycles, TIMED);
    for i in frames {
        let wire = burst.wire_len(i);
        let kept = wire.min(snaplen);
        if TIMED && let Some(port_ns) = burst.hardware_time_ns(i) {
            run.received_at(port_ns);
        }
        let data = run.record(kept, wire);
        match burst.head(i).get(..kept as usize) {
            Some(head) => copy_frame(data, head),
            None => burst.copy_to(i, data),
        }
    }
    run.frame_bytes()
}

/// Copies a frame into its record. Small frames are most of the packets and a call of `memcpy` is a third of their cost:
/// up to 128 bytes two copies of a fixed size that overlap do it inline.
#[inline]
fn copy_frame(to: &mut [u8], from: &[u8]) {
    match from.len() {
        n @ 64..=128 => copy_both_ends::<64>(to, from, n),
        n @ 32..64 => copy_both_ends::<32>(to, from, n),
        n @ 16..32 => copy_both_ends::<16>(to, from, n),
        _ => to.copy_from_slice(from),
    }
}

#[inline]
fn copy_both_ends<const N: usize>(to: &mut [u8], from: &[u8], n: usize) {
    let to = &mut to[..n];
    to[..N].copy_from_slice(&from[..N]);
    to[n - N..].copy_from_slice(&from[n - N..]);
}

#[cfg(test)]
mod tests {
    use super::super::Window;
    use super::*;
    use crate::block::{Arena, Hugepages, Payer, lane};
    use crate::limits::BLOCK_BYTES;
    use crate::spool::Message;
    use crate::worker::blocks::Blocks;
    use crate::worker::testing::{Frames, OwnedBurst};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn a_frame_of_any_length_is_copied_whole_and_nothing_else_is_touched() {
        for n in 0..300 {
            let from: Vec<u8> = (0..n).map(|i| u8::try_from(i % 251).unwrap() + 1).collect();
            let mut to = vec![0; n + 2];
            copy_frame(&mut to[1..=n], &from);
            assert_eq!((to[0], &to[1..=n], to[n + 1]), (0, &from[..], 0));
        }
    }

    /// The bytes of a stream into which these frames of each burst were appended, and what was counted. `short` tries the way
    /// of what nothing limits first, as the worker does.
    fn appended(bursts: &[(OwnedBurst, u64)], snaplen: u32, short: bool) -> (Vec<u8>, [u64; 4]) {
        let mut blocks = Blocks::new(Arena::map(8, Hugepages::Never).unwrap().0, 0, 1);
        let (worker_end, mut writer_end) = lane::<Message>(8, 8);
        let (mut lanes, mut stream, mut slot) = (vec![worker_end], Stream::idle(), Slot::default());
        stream.begin(1, Payer::HOST, Some(snaplen), None);
        let budget = Arc::new(Budget::new(None, None));
        let attachment = Attachment {
            serial: 1,
            payer: Payer::HOST,
            snaplen,
            window: Window::open(None),
            budget,
            sample: None,
            rotate: None,
        };
        let max = 3 * BLOCK_BYTES as u64;
        for (n, (burst, hits)) in bursts.iter().enumerate() {
            let stamped = Stamped::new(burst, n as u64 + 1, n as u64 + 1);
            if !short || !append_plain(&stamped, *hits, &mut stream, &mut slot, max) {
                let hand_over = &mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut blocks };
                append(&stamped, *hits, &attachment, &mut stream, &mut slot, hand_over, max);
            }
        }
        stream.end(&mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut blocks });
        let (mut bytes, mut packets) = (Vec::new(), 0);
        while let Some(message) = writer_end.receive() {
            if let Message::Data(_, piece) = message {
                packets += u64::from(piece.packets);
                bytes.extend_from_slice(&piece.block.bytes()[..piece.bytes as usize]);
            }
        }
        assert_eq!(packets, slot.captured, "what pieces say and what is counted");
        (bytes, [slot.matched, slot.captured, slot.captured_bytes, slot.no_block])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 60 }))]

        #[test]
        fn the_short_way_writes_and_counts_what_the_long_way_does(
            bursts in prop::collection::vec((prop::collection::vec(1_usize..9018, 1..65), any::<u64>(), any::<bool>()), 1..20),
            snaplen in prop::sample::select(vec![160, 1000, FULL_SNAPLEN]),
        ) {
            let bursts: Vec<_> = bursts
                .into_iter()
                .map(|(lengths, hits, whole)| {
                    let all = u64::MAX >> (64 - lengths.len());
                    let frames = lengths.into_iter().map(|n| vec![n.to_le_bytes()[0]; n]).collect();
                    (Frames(frames), if whole { all } else { (hits & all).max(1) })
                })
                .collect();
            let (short, long) = (appended(&bursts, snaplen, true), appended(&bursts, snaplen, false));
            prop_assert_eq!(short.1, long.1);
            prop_assert!(short.0 == long.0, "the bytes differ");
        }
    }
}
