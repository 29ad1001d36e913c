//! How many captures a worker's blocks are enough for. Owns that arithmetic; who acts on it are `config::check`, `host` and the
//! engine's admission.
//!
//! Every open stream holds a block: each queue of each capture, and of the history's recording, from its first packet until it
//! ends. A stream that finds none loses every packet as `no_block`. So the number of captures is limited by blocks as much as by
//! slots.

/// Blocks of a worker that no open stream holds: one that is on its way to the disk and one that goes on in its place. With
/// fewer, nothing could be handed over once every stream has its block. What rides out a slow disk comes on top.
pub const BLOCKS_SPARE: usize = 2;

/// The blocks of one worker, the one that has the most queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockShare {
    /// Its blocks.
    pub blocks: usize,
    /// Its queues.
    pub queues: usize,
    /// How many workers there are.
    pub workers: usize,
}

impl BlockShare {
    /// What a worker has if so many blocks and queues are dealt over so many workers. A worker without a queue is not started.
    #[must_use]
    pub fn dealt(blocks: usize, queues: usize, workers: usize) -> Self {
        let workers = workers.min(queues).max(1);
        Self::of(blocks, queues.div_ceil(workers), workers)
    }

    /// What a worker has if so many blocks are dealt over so many workers, of which one has so many queues and none has more.
    #[must_use]
    pub fn of(blocks: usize, queues: usize, workers: usize) -> Self {
        Self { blocks: blocks / workers.max(1), queues, workers: workers.max(1) }
    }

    /// Blocks that a worker needs for so many captures at once; the history's recording counts as one.
    #[must_use]
    pub fn needed(&self, captures: usize) -> usize {
        captures * self.queues + BLOCKS_SPARE
    }

    /// Blocks of all workers for that.
    #[must_use]
    pub fn needed_in_all(&self, captures: usize) -> usize {
        self.workers * self.needed(captures)
    }

    /// Captures that can be open at once; the history's recording counts as one.
    #[must_use]
    pub fn captures_max(&self) -> usize {
        self.blocks.saturating_sub(BLOCKS_SPARE) / self.queues.max(1)
    }

    /// Whether one more capture can begin beside `open` captures, which are those that are attached or about to be, with the
    /// history's recording. Otherwise it could find no block and lose every packet: refuse it, and say when to try again.
    #[must_use]
    pub fn admits(&self, open: usize) -> bool {
        open < self.captures_max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_for_every_queue_of_every_capture_and_two_that_move() {
        let one = BlockShare::dealt(8, 1, 1);
        assert_eq!((one.needed(6), one.captures_max(), one.admits(5), one.admits(6)), (8, 6, true, false));
        // 6 queues over 4 workers: two of them have two queues, and 64 blocks each.
        let four = BlockShare::dealt(256, 6, 4);
        assert_eq!(
            (four, four.captures_max(), four.needed(64)),
            (BlockShare { blocks: 64, queues: 2, workers: 4 }, 31, 130)
        );
        assert_eq!(four.needed_in_all(64), 520);
        // More cores than queues: the others start no worker.
        assert_eq!(BlockShare::dealt(64, 2, 8), BlockShare { blocks: 32, queues: 1, workers: 2 });
        assert_eq!(
            (BlockShare::dealt(1, 4, 1).captures_max(), BlockShare::dealt(0, 0, 0).captures_max()),
            (0, 0)
        );
    }

    #[test]
    fn what_is_admitted_is_never_more_than_there_are_blocks_for() {
        for blocks in 0..40 {
            for queues in 1..9 {
                for workers in 1..5 {
                    let share = BlockShare::dealt(blocks, queues, workers);
                    let max = share.captures_max();
                    assert!(max == 0 || share.needed(max) <= share.blocks);
                    assert!(share.needed(max + 1) > share.blocks);
                    assert!((0..50).all(|open| share.admits(open) == (open < max)));
                }
            }
        }
    }
}
