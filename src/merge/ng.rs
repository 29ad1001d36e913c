//! A capture's pcapng objects. Owns what stands before, between and behind the packets; not where objects are cut.
//!
//! Each queue is an interface: the queue costs nothing in a packet's block then. At the end of each object every interface
//! says how many packets of it are in this object. Drops are not known while the capture runs, so they are said once: at the
//! end of the last object, by an interface of its own that has no packets, [`WHOLE`], for all queues together.
//!
//! Invariant: an object's bytes depend on its records, the shape and, for the last one, the counts alone.

use super::Shape;
use super::order::Span;
use crate::limits::PCAP_RECORD_HEADER_BYTES;
use crate::pcap::blocks::{self, Statistics};
use crate::pcap::format::{LINK_ETHERNET, parse_record};
use crate::pcap::{Counts, Origin};
use std::sync::Arc;

/// Name of the interface that stands for the whole capture.
const WHOLE: &str = "capture";

/// A record's block is at most so many times as long as the record: 28 + 3 + 4 bytes around a packet instead of 16.
const GROWTH_MAX: u64 = 3;

/// What an interface has in this object.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    packets: u64,
    first_ns: u64,
    last_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Section {
    origin: Arc<Origin>,
    snaplen: u32,
    tallies: Vec<Tally>,
    tail_bytes: u64,
    scratch: Vec<u8>,
}

impl Section {
    pub(super) fn new(shape: &Shape, queues: usize) -> Self {
        let origin = Arc::clone(&shape.origin);
        let tallies = vec![Tally { packets: 1, ..Tally::default() }; queues];
        let mut section =
            Self { origin, snaplen: shape.snaplen, tallies, tail_bytes: 0, scratch: Vec::new() };
        let counts = Counts { offered: 0, port_drops: 0, matched: 0, host_drops: 0, captured: 0 };
        let longest = [Some(counts), None].map(|counts| section.tail(0, true, counts).len() as u64);
        section.tail_bytes = longest.into_iter().max().unwrap_or(0);
        section
    }

    /// The object's beginning.
    pub(super) fn head(&mut self) -> &[u8] {
        self.tallies.fill(Tally::default());
        self.scratch.clear();
        let Origin { hardware, os, application, comments, interfaces } = &*self.origin;
        blocks::section(&mut self.scratch, &blocks::Section { hardware, os, application, comments });
        for queue in 0..self.tallies.len() {
            let number;
            let name = match interfaces.get(queue) {
                Some(name) => name,
                None => {
                    number = format!("queue{queue}");
                    &number
                }
            };
            blocks::interface(&mut self.scratch, LINK_ETHERNET, self.snaplen, name, "");
        }
        &self.scratch
    }

    /// Bytes of a record's block, by the record's with its header.
    #[inline]
    pub(super) fn bytes_of(&self, record_bytes: usize) -> u64 {
        u64::from(blocks::packet_bytes((record_bytes - PCAP_RECORD_HEADER_BYTES) as u32))
    }

    /// Bytes of records whose blocks certainly fit into this many.
    #[inline]
    pub(super) fn records_of(&self, bytes: u64) -> u64 {
        bytes / GROWTH_MAX
    }

    /// The most that the object's end takes.
    #[inline]
    pub(super) fn tail_bytes(&self) -> u64 {
        self.tail_bytes
    }

    /// The blocks of records of a queue.
    pub(super) fn run(&mut self, queue: usize, records: &[u8], span: Span) -> &[u8] {
        self.scratch.clear();
        if let Some(tally) = self.tallies.get_mut(queue) {
            if tally.packets == 0 {
                tally.first_ns = span.first_ns;
            }
            tally.packets += span.packets;
            tally.last_ns = span.last_ns;
        }
        packets(&mut self.scratch, queue as u32, records);
        &self.scratch
    }

    /// The object's end.
    pub(super) fn tail(&mut self, last_ns: u64, is_last: bool, counts: Option<Counts>) -> &[u8] {
        self.scratch.clear();
        for (interface, tally) in (0..).zip(&self.tallies) {
            let packets = tally.packets;
            let span_ns = (packets > 0).then_some((tally.first_ns, tally.last_ns));
            let statistics = Statistics { span_ns, delivered: Some(packets), ..Statistics::default() };
            blocks::statistics(&mut self.scratch, interface, last_ns, "packets in this file", &statistics);
        }
        if is_last {
            let comment = match counts {
                Some(_) => "counted over the whole capture and all interfaces",
                None => "what was lost is not known: the process that captured died",
            };
            let statistics = counts.map_or(Statistics::default(), |counts| Statistics {
                span_ns: None,
                received: Some(counts.offered),
                interface_drops: Some(counts.port_drops),
                accepted: Some(counts.matched),
                system_drops: Some(counts.host_drops),
                delivered: Some(counts.captured),
            });
            let whole = self.tallies.len() as u32;
            blocks::interface(
                &mut self.scratch,
                LINK_ETHERNET,
                self.snaplen,
                WHOLE,
                "all queues; has no packets",
            );
            blocks::statistics(&mut self.scratch, whole, last_ns, comment, &statistics);
        }
        &self.scratch
    }
}

/// Appends a packet block for each of these records, which are laid out as this program writes them.
pub(super) fn packets(out: &mut Vec<u8>, interface: u32, mut records: &[u8]) {
    while let Some((record, rest)) = parse_record(records) {
        blocks::packet(out, interface, record.ns, record.wire_len, record.data);
        records = rest;
    }
}
