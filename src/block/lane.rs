//! A lane: the two SPSC rings between one worker and one writer. Full blocks go one way inside messages, empty ones
//! come back. Owns the rings' sizes; not the messages.
//!
//! Invariant: neither direction can be full when a block is pushed, because each has room for every block of the arena.

use super::Block;
use rtrb::{Consumer, Producer, RingBuffer};

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd<M> {
    messages: Producer<M>,
    blocks: Consumer<Block>,
    is_bypassed: bool,
}

/// The writer's end.
#[derive(Debug)]
pub struct WriterEnd<M> {
    messages: Consumer<M>,
    blocks: Producer<Block>,
}

/// A lane for an arena of `blocks` blocks and at most `notices` messages without a block in flight.
#[must_use]
pub fn lane<M>(blocks: usize, notices: usize) -> (WorkerEnd<M>, WriterEnd<M>) {
    let (message_in, message_out) = RingBuffer::new(blocks + notices);
    let (block_in, block_out) = RingBuffer::new(blocks);
    (
        WorkerEnd { messages: message_in, blocks: block_out, is_bypassed: false },
        WriterEnd { messages: message_out, blocks: block_in },
    )
}

impl<M> WorkerEnd<M> {
    /// Sends a message.
    ///
    /// # Errors
    /// Gives the message back when the ring is full.
    #[inline]
    pub fn send(&mut self, message: M) -> Result<(), M> {
        self.messages.push(message).map_err(|rtrb::PushError::Full(message)| message)
    }

    /// For benches of what comes before a lane: full blocks stay with the worker, which uses them again, and what was in them
    /// is lost; a segment's last one still goes, and carries the counts of all.
    #[must_use]
    pub fn bypassed(self) -> Self {
        Self { is_bypassed: true, ..self }
    }

    /// See [`Self::bypassed`].
    #[inline]
    #[must_use]
    pub fn is_bypassed(&self) -> bool {
        self.is_bypassed
    }

    /// Messages that can be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.messages.slots()
    }

    /// An empty block that the writer gave back.
    #[inline]
    pub fn take_back(&mut self) -> Option<Block> {
        self.blocks.pop().ok()
    }

    /// Empty blocks that the writer gave back and that were not taken yet.
    #[must_use]
    pub fn returned(&self) -> usize {
        self.blocks.slots()
    }

    /// Whether the writer is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.messages.is_abandoned()
    }
}

impl<M> WriterEnd<M> {
    /// The next message.
    #[inline]
    pub fn receive(&mut self) -> Option<M> {
        self.messages.pop().ok()
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.messages.slots()
    }

    /// Gives an empty block back.
    ///
    /// # Panics
    /// When the ring is full: a block would have been made twice, which is a bug of ours.
    pub fn give_back(&mut self, block: Block) {
        assert!(self.blocks.push(block).is_ok(), "more blocks than the arena has");
    }

    /// Whether the worker is gone and every message was received.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.messages.is_abandoned() && self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Arena, Hugepages};
    use std::collections::VecDeque;

    /// Operation list against an oracle: what a worker sends arrives once, in order, and every block comes back.
    #[test]
    fn blocks_go_round_in_order_and_none_is_lost_or_doubled() {
        let rounds: u32 = if cfg!(miri) { 60 } else { 20_000 };
        let (mut free, _) = Arena::map(4, Hugepages::Never).unwrap();
        let (mut worker, mut writer) = lane::<(u32, Block)>(4, 0);
        let mut oracle = VecDeque::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for serial in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match (state >> 33) % 3 {
                0 | 1 => {
                    if let Some(mut block) = free.pop().or_else(|| worker.take_back()) {
                        block.bytes_mut()[0] = serial.to_le_bytes()[0];
                        worker.send((serial, block)).unwrap();
                        oracle.push_back(serial);
                    } else {
                        assert_eq!(oracle.len(), 4, "a block is missing");
                    }
                }
                _ => match (writer.receive(), oracle.pop_front()) {
                    (Some((got, block)), Some(sent)) => {
                        assert_eq!((got, block.bytes()[0]), (sent, sent.to_le_bytes()[0]));
                        writer.give_back(block);
                    }
                    (None, None) => {}
                    (got, sent) => panic!("ring and oracle disagree: {got:?} {sent:?}"),
                },
            }
        }
    }

    #[test]
    fn a_block_written_by_one_thread_is_read_whole_by_the_other() {
        let rounds: u32 = if cfg!(miri) { 30 } else { 50_000 };
        let (free, _) = Arena::map(2, Hugepages::Never).unwrap();
        let (mut worker, mut writer) = lane::<(u32, Block)>(2, 0);
        let writer_thread = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < rounds {
                let Some((serial, block)) = writer.receive() else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(serial, expected);
                assert!(block.bytes()[..64].iter().all(|&b| b == serial.to_le_bytes()[0]));
                writer.give_back(block);
                expected += 1;
            }
        });
        let mut free = free;
        for serial in 0..rounds {
            let mut block = loop {
                if let Some(block) = free.pop().or_else(|| worker.take_back()) {
                    break block;
                }
                std::thread::yield_now();
            };
            block.bytes_mut()[..64].fill(serial.to_le_bytes()[0]);
            worker.send((serial, block)).unwrap();
        }
        writer_thread.join().unwrap();
    }
}
