//! A sequence lock over a row of counters: one writer publishes many words at once, readers see all of one publication
//! or none of it. Owns the protocol; not the meaning of the words.
//!
//! H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012: relaxed data accesses
//! between an acquire load and an acquire fence on the reader's side, a release fence and a release store on the writer's.
//!
//! Invariant: the sequence is odd exactly while the writer is between `begin` and `commit`.

#[cfg(loom)]
use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};

/// `N` counters with one writer.
#[derive(Debug)]
pub struct Words<const N: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; N],
}

impl<const N: usize> Default for Words<N> {
    fn default() -> Self {
        Self { sequence: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const N: usize> Words<N> {
    /// Publishes what `set` stores. Only ever called by the one writer.
    #[inline]
    pub fn publish(&self, set: impl FnOnce(&mut Publication<'_, N>)) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        set(&mut Publication { words: &self.words });
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// Copies out what `get` loads, all of one publication.
    pub fn read<T>(&self, get: impl Fn(&dyn Fn(usize) -> u64) -> T) -> T {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let values = get(&|i| self.words[i].load(Ordering::Relaxed));
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return values;
                }
            }
            spin_loop();
        }
    }
}

/// The writer's view during one publication.
#[derive(Debug)]
pub struct Publication<'a, const N: usize> {
    words: &'a [AtomicU64; N],
}

impl<const N: usize> Publication<'_, N> {
    /// Stores one word.
    #[inline]
    pub fn set(&mut self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_reader_never_sees_half_a_publication() {
        let rounds = if cfg!(miri) { 50 } else { 200_000 };
        let words = Arc::new(Words::<3>::default());
        let writer = Arc::clone(&words);
        let thread = std::thread::spawn(move || {
            for n in 1..=rounds {
                writer.publish(|p| {
                    p.set(0, n);
                    p.set(1, 2 * n);
                    p.set(2, 3 * n);
                });
            }
        });
        loop {
            let [a, b, c] = words.read(|get| [get(0), get(1), get(2)]);
            assert_eq!((b, c), (2 * a, 3 * a));
            if a == rounds {
                break;
            }
        }
        thread.join().unwrap();
    }
}
