//! The arena: memory that is mapped, touched and locked before the first packet, cut into blocks. Owns the mapping;
//! not the blocks' contents.
//!
//! Invariant: every [`Block`] of an arena covers its own bytes and no other's, and the mapping outlives them all.
#![allow(unsafe_code)]

use crate::limits::{BLOCK_BYTES, PAGE_BYTES};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Whether the arena lies in hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Where the host has enough free ones; ordinary pages otherwise.
    Auto,
    /// Ordinary pages.
    Never,
    /// Fail without.
    Require,
}

/// Why no arena could be made.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The kernel gave no memory.
    #[error(
        "cannot map {bytes} bytes for blocks in {kind}: {source}; lower blocks.bytes_max or free memory (hugepages: /proc/sys/vm/nr_hugepages)"
    )]
    Map {
        /// Size asked for.
        bytes: usize,
        /// "hugepages" or "ordinary pages".
        kind: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// What the arena turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFacts {
    /// Whether it lies in hugepages.
    pub hugepages: bool,
    /// Whether it is locked into memory.
    pub locked: bool,
    /// Its size in bytes.
    pub bytes: usize,
}

struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory; all access goes through `Block`s, which cover disjoint ranges.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` itself hands out no access.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.base, self.bytes);
    }
}

/// Maps arenas.
#[derive(Debug)]
pub struct Arena;

impl Arena {
    /// Maps, touches and, where the limits allow, locks `blocks` blocks.
    ///
    /// # Errors
    /// [`ArenaError::Map`] when there is no memory.
    pub fn map(blocks: usize, hugepages: Hugepages) -> Result<(Vec<Block>, ArenaFacts), ArenaError> {
        Self::map_near(blocks, hugepages, None)
    }

    /// As [`Arena::map`], in the memory of a NUMA node as far as that has any left.
    ///
    /// # Errors
    /// As [`Arena::map`].
    pub fn map_near(
        blocks: usize,
        hugepages: Hugepages,
        node: Option<u32>,
    ) -> Result<(Vec<Block>, ArenaFacts), ArenaError> {
        // A whole number of 2 MiB hugepages: a hugetlb mapping must be one to be unmapped again.
        let bytes = (blocks * BLOCK_BYTES).next_multiple_of(2 << 20);
        let (base, huge) = match hugepages {
            Hugepages::Never => (map(bytes, false), false),
            Hugepages::Require => (map(bytes, true), true),
            Hugepages::Auto => match map(bytes, true) {
                Ok(base) => (Ok(base), true),
                Err(_) => (map(bytes, false), false),
            },
        };
        let kind = if huge { "hugepages" } else { "ordinary pages" };
        let base = base.map_err(|source| ArenaError::Map { bytes, kind, source })?;
        let mapping = Arc::new(Mapping { base, bytes });
        if let Some(node) = node {
            prefer(base, bytes, node);
        }
        let locked = lock(base, bytes);
        let blocks = (0..blocks)
            .map(|i| {
                // SAFETY: i < blocks, so base + i * BLOCK_BYTES lies inside the mapping of at least blocks * BLOCK_BYTES bytes.
                let start = unsafe { base.add(i * BLOCK_BYTES) };
                // SAFETY: the range is inside the mapping, nobody else has it, and writing makes it initialised and resident.
                unsafe { start.write_bytes(0, BLOCK_BYTES) };
                Block { start, _mapping: Arc::clone(&mapping), payer: Payer::HOST }
            })
            .collect();
        Ok((blocks, ArenaFacts { hugepages: huge, locked, bytes }))
    }
}

/// For whom a block is in use: it goes with the block to the writer and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payer(u32);

impl Payer {
    /// The host itself.
    pub const HOST: Self = Self(0);

    /// An account, by a number of its own.
    #[must_use]
    pub fn account(number: usize) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1))
    }
}

/// One block: [`BLOCK_BYTES`] bytes, aligned to [`PAGE_BYTES`]. Not `Clone`: who holds it owns its bytes.
pub struct Block {
    start: NonNull<u8>,
    _mapping: Arc<Mapping>,
    payer: Payer,
}

const _: () = assert!(BLOCK_BYTES.is_multiple_of(PAGE_BYTES));

// SAFETY: a block is the only owner of its range of plain memory, so it may move to another thread like a `Vec<u8>`.
unsafe impl Send for Block {}

impl Block {
    /// For whom it is in use.
    #[must_use]
    pub fn payer(&self) -> Payer {
        self.payer
    }

    /// From now on it is in use for `payer`.
    pub fn set_payer(&mut self, payer: Payer) {
        self.payer = payer;
    }

    /// The whole block.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is valid and initialised for BLOCK_BYTES (`Arena::map` wrote them), `&self` excludes writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), BLOCK_BYTES) }
    }

    /// Asks for the two cache lines behind the one of byte `at`, which are about to be written. Changes nothing.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for ahead in [1, 2] {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = self.start.as_ptr().wrapping_add(at + ahead * 64);
            // SAFETY: a prefetch is a hint: it reads and writes nothing that the program can see, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast_const().cast()) };
        }
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        let _ = at;
    }

    /// The whole block, to be written.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` excludes every other access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), BLOCK_BYTES) }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:p})", self.start)
    }
}

#[cfg(not(miri))]
fn map(bytes: usize, huge: bool) -> std::io::Result<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    let huge_flag = if huge { MapFlags::HUGETLB } else { MapFlags::empty() };
    // SAFETY: a null hint and no FIXED flag: the kernel picks a free range, so no existing memory is touched.
    let base = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            // Not populated: pages come when they are written below, from the node that is preferred by then.
            MapFlags::PRIVATE | huge_flag,
        )
    }?;
    if !huge {
        // SAFETY: base..base+bytes was mapped just above; the advice changes no contents.
        let _refusal_costs_speed_only = unsafe { madvise(base, bytes, Advice::LinuxHugepage) };
    }
    // Packets are no part of a core dump.
    // SAFETY: as above.
    let _refusal_costs_secrecy_of_a_dump_only = unsafe { madvise(base, bytes, Advice::LinuxDontDump) };
    NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mmap returned null"))
}

/// Pages that are not there yet come from this node, or from another if it has none left (mbind(2)). A kernel that cannot says so and
/// costs speed only.
#[cfg(not(miri))]
fn prefer(base: NonNull<u8>, bytes: usize, node: u32) {
    const MPOL_PREFERRED: libc::c_long = 1;
    let (word, bit) = ((node / u64::BITS) as usize, node % u64::BITS);
    let mut mask = [0_u64; 16];
    let Some(nodes) = mask.get_mut(word) else { return };
    *nodes = 1 << bit;
    let bits = mask.len() * u64::BITS as usize;
    // SAFETY: base..base+bytes is a mapping of ours; the mask has so many bits; a policy changes no contents.
    let _speed_only = unsafe {
        libc::syscall(libc::SYS_mbind, base.as_ptr(), bytes, MPOL_PREFERRED, mask.as_ptr(), bits, 0_u32)
    };
}

#[cfg(miri)]
fn prefer(_: NonNull<u8>, _: usize, _: u32) {}

#[cfg(not(miri))]
fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: `base` and `bytes` are those of a mapping by `map`, and the last block that pointed into it is gone.
    let _cannot_fail_for_a_whole_mapping = unsafe { rustix::mm::munmap(base.as_ptr().cast(), bytes) };
}

#[cfg(not(miri))]
fn lock(base: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the range is mapped; locking changes no contents.
    unsafe { rustix::mm::mlock(base.as_ptr().cast(), bytes) }.is_ok()
}

#[cfg(miri)]
fn layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, PAGE_BYTES).expect("sizes are whole pages")
}

#[cfg(miri)]
fn map(bytes: usize, huge: bool) -> std::io::Result<NonNull<u8>> {
    if huge {
        return Err(std::io::Error::other("no hugepages under miri"));
    }
    // SAFETY: the layout has a size of at least one page.
    NonNull::new(unsafe { std::alloc::alloc(layout(bytes)) })
        .ok_or_else(|| std::io::Error::other("no memory"))
}

#[cfg(miri)]
fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: allocated by `map` with the same layout.
    unsafe { std::alloc::dealloc(base.as_ptr(), layout(bytes)) };
}

#[cfg(miri)]
fn lock(_: NonNull<u8>, _: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_disjoint() {
        let (mut blocks, facts) = Arena::map(3, Hugepages::Never).unwrap();
        assert!(!facts.hugepages && facts.bytes >= 3 * BLOCK_BYTES);
        for (i, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.bytes().as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!(block.bytes()[BLOCK_BYTES - 1], 0);
            block.bytes_mut()[0] = u8::try_from(i).unwrap() + 1;
            block.bytes_mut()[BLOCK_BYTES - 1] = u8::try_from(i).unwrap() + 1;
        }
        for (i, block) in blocks.iter().enumerate() {
            assert_eq!(usize::from(block.bytes()[0]), i + 1);
            assert_eq!(usize::from(block.bytes()[BLOCK_BYTES - 1]), i + 1);
        }
    }

    /// The kernel lists the policy of each mapping in `numa_maps`, where it has one.
    #[cfg(not(miri))]
    #[test]
    fn an_arena_near_a_node_is_mapped_with_that_preference() {
        let (mut blocks, _) = Arena::map_near(2, Hugepages::Never, Some(0)).unwrap();
        blocks[1].bytes_mut()[0] = 1;
        let Ok(maps) = std::fs::read_to_string("/proc/self/numa_maps") else { return };
        let first = blocks[0].bytes().as_ptr() as usize;
        let address = format!("{first:x} ");
        let line = maps.lines().find(|line| line.trim_start_matches('0').starts_with(&address));
        assert!(line.is_some_and(|line| line.contains("prefer")), "{address}: {maps}");
    }

    #[test]
    fn a_block_may_outlive_its_brothers_and_cross_threads() {
        let (mut blocks, _) = Arena::map(2, Hugepages::Never).unwrap();
        let mut last = blocks.pop().unwrap();
        drop(blocks);
        std::thread::spawn(move || last.bytes_mut()[7] = 1).join().unwrap();
    }
}
