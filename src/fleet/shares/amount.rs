//! Packets and bytes, counted together. Owns the arithmetic in both at once, which never wraps.
//!
//! Invariant: a difference that would be negative is zero, and a sum stays at the largest number.

use serde::{Deserialize, Serialize};

/// A limit that is none: more than any fleet captures, and still far from where sums would stop.
pub const UNLIMITED: u64 = 1 << 62;

/// So many packets and captured frame bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Bytes of their captured frames, without file headers.
    pub bytes: u64,
}

impl Amount {
    /// Nothing.
    pub const NONE: Self = Self { packets: 0, bytes: 0 };

    /// So many of each.
    #[must_use]
    pub const fn new(packets: u64, bytes: u64) -> Self {
        Self { packets, bytes }
    }

    /// A limit; one that is not given is [`UNLIMITED`].
    #[must_use]
    pub fn limit(packets: Option<u64>, bytes: Option<u64>) -> Self {
        let of = |limit: Option<u64>| limit.unwrap_or(UNLIMITED).min(UNLIMITED);
        Self::new(of(packets), of(bytes))
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self::new(of(self.packets, other.packets), of(self.bytes, other.bytes))
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is more than `other`, in each.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.each(other, u64::min)
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    /// `part` of `whole` of it, rounded down.
    #[must_use]
    pub fn part(self, part: u64, whole: u64) -> Self {
        let of = |amount: u64| {
            let share = u128::from(amount) * u128::from(part) / u128::from(whole.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        Self::new(of(self.packets), of(self.bytes))
    }

    /// In each, this part of it in proportion to another two amounts.
    #[must_use]
    pub fn in_proportion(self, part: Self, whole: Self) -> Self {
        Self::new(self.part(part.packets, whole.packets).packets, self.part(part.bytes, whole.bytes).bytes)
    }

    /// Whether neither is more than that of `other`.
    #[must_use]
    pub fn fits(self, other: Self) -> bool {
        self.packets <= other.packets && self.bytes <= other.bytes
    }

    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::NONE, Self::plus)
    }
}
