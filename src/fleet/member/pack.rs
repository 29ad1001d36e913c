//! A sample that is too large for the part's own record. Owns writing it in chunks, one after another, before the part says so.
//!
//! Invariant: a part is told only once all chunks that it counts are durable.

use super::Effect;
use crate::fleet::held::{Answer, Held};
use crate::fleet::record::{Chunk, Given, Key, Record, any, one};
use crate::fleet::sample::Packet;
use crate::fleet::{Epoch, Host, Now};
use std::time::Duration;

/// The chunks of one life of a host.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    boot: Epoch,
    /// The records that this life wrote, also for earlier rounds.
    held: Vec<Held<Chunk>>,
    round: u32,
    chunks: Vec<Vec<Packet>>,
    next: usize,
}

impl Pack {
    pub fn new(boot: Epoch) -> Self {
        Self { boot, held: Vec::new(), round: 0, chunks: Vec::new(), next: 0 }
    }

    /// A sample of a round: as it stands in the part.
    pub fn give(&mut self, round: u32, packets: Vec<Packet>, most: usize, in_chunks: usize) -> Given {
        (self.round, self.next) = (round, 0);
        self.chunks.clear();
        if packets.len() <= most {
            return Given { round, packets, chunks: 0 };
        }
        self.chunks = packets.chunks(in_chunks.max(1)).map(<[Packet]>::to_vec).collect();
        self.held.resize_with(self.held.len().max(self.chunks.len()), || Held::new(self.boot));
        Given { round, packets: Vec::new(), chunks: self.chunks.len() as u32 }
    }

    pub fn is_durable(&self) -> bool {
        self.next == self.chunks.len()
    }

    pub fn answered(&mut self, chunk: u32, answer: Answer<Record>, now: Now, backoff: Duration) {
        let Some(held) = self.held.get_mut(chunk as usize) else { return };
        held.answered(one(answer), now, backoff);
        let round = self.round;
        if chunk as usize == self.next && held.is_own() && held.value().is_some_and(|own| own.round == round)
        {
            self.next += 1;
        }
    }

    /// The operation that is due.
    pub fn due(&mut self, host: Host, now: Now) -> Option<Effect> {
        let packets = self.chunks.get(self.next)?;
        let held = &mut self.held[self.next];
        let key = Key::Chunk(host, self.next as u32);
        if let Some(read) = held.poll(now) {
            return Some(Effect::Store(key, any(read)));
        }
        let chunk = Chunk { epoch: self.boot, round: self.round, packets: packets.clone() };
        held.is_ready().then(|| Effect::Store(key, any(held.write(chunk))))
    }
}
