//! How a file is read, and what was met on the way. Owns the choice between exact and tolerant reading, and the blocks that
//! a merge copies.
//!
//! Invariant: exact reading counts nothing and changes nothing; what is kept to be copied is bounded by [`CARRIED_BYTES_MAX`].

use super::oddity::{Oddities, Oddity};

/// Blocks kept between two packets of one file: as long as Wireshark takes one block to be at most.
pub(super) const CARRIED_BYTES_MAX: usize = 16 << 20;

/// How a file of unknown origin is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Keep what a pcapng output can hold: secrets, names, custom blocks, packet options.
    pub copies_blocks: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// None where only what a correct writer writes is taken.
    tolerance: Option<Tolerance>,
    pub(super) oddities: Oddities,
    /// Blocks in the layout of this program's sections.
    pub(super) carried: Vec<u8>,
    /// Records of nothing but zeros, met and not yet given out.
    pub(super) zero_records: u64,
}

impl Care {
    pub(super) fn new(tolerance: Option<Tolerance>) -> Self {
        Self { tolerance, ..Self::default() }
    }

    #[inline]
    pub(super) fn is_tolerant(&self) -> bool {
        self.tolerance.is_some()
    }

    pub(super) fn copies(&self) -> bool {
        self.tolerance.is_some_and(|tolerance| tolerance.copies_blocks)
    }

    /// Counts, if the file is read tolerantly.
    pub(super) fn note(&mut self, oddity: Oddity, count: u64) {
        if self.is_tolerant() {
            self.oddities.add(oddity, count);
        }
    }
}
