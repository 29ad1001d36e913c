//! How many bytes of disk the spool may use: `spool.bytes_max` for the whole host, and of that a share for each tenant. Owns
//! these numbers and the charges that make them up. A tenant is a name here; whose it is, others know.
//!
//! A tenant's *part* is what nobody takes from it. Who has more than that may fill the spool to
//! [`SPOOL_COMMON_PERCENT`] only: the rest is for those within their part, until room is made for them.
//!
//! Invariant: what is reserved never exceeds the maximum, nor a tenant's share, nor what tenants beyond their part may
//! fill. A charge goes back when it is dropped, so it is held by whatever holds the file.

use crate::limits::{SPOOL_COMMON_PERCENT, SPOOL_END_PERCENT};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of bytes with a maximum.
#[derive(Debug)]
struct Allowance {
    used: AtomicU64,
    bytes_max: AtomicU64,
}

impl Allowance {
    fn new(bytes_max: u64) -> Self {
        Self { used: AtomicU64::new(0), bytes_max: AtomicU64::new(bytes_max) }
    }

    /// Takes `bytes`, or nothing if that would pass the maximum.
    fn reserve(&self, bytes: u64) -> bool {
        self.reserve_up_to(self.bytes_max(), bytes)
    }

    /// Takes `bytes`, or nothing if that would pass `max`.
    fn reserve_up_to(&self, max: u64, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= max)
            })
            .is_ok()
    }

    /// Takes `bytes`, also beyond the maximum.
    fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back what was taken before.
    fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released {bytes} of {before}");
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Acquire)
    }
}

/// What one tenant has of the quota.
#[derive(Debug)]
pub struct Share {
    tenant: String,
    allowance: Allowance,
    /// What the maximum becomes once no more than that is used.
    lower_max: AtomicU64,
}

impl Share {
    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Bytes taken now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.allowance.used()
    }

    /// The most that it may be.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.allowance.bytes_max()
    }

    fn set_bytes_max(&self, bytes_max: u64) {
        self.lower_max.store(bytes_max, Ordering::Release);
        if bytes_max >= self.bytes_max() {
            self.allowance.bytes_max.store(bytes_max, Ordering::Release);
        }
        self.settle();
    }

    /// Takes up a lower maximum where no more than that is used any more.
    fn settle(&self) {
        let lower = self.lower_max.load(Ordering::Acquire);
        if lower < self.bytes_max() && self.used() <= lower {
            self.allowance.bytes_max.store(lower, Ordering::Release);
        }
    }

    fn release(&self, bytes: u64) {
        self.allowance.release(bytes);
        self.settle();
    }
}

/// A shared allowance of bytes.
#[derive(Debug)]
pub struct Quota {
    allowance: Allowance,
    share_bytes_max: AtomicU64,
    part_bytes: AtomicU64,
    shares: Mutex<BTreeMap<String, Arc<Share>>>,
}

/// What nobody takes from one of so many tenants on a spool of `bytes_max`, of which it may have `share_bytes_max`.
#[must_use]
pub fn part_of(bytes_max: u64, share_bytes_max: u64, tenants: usize) -> u64 {
    share_bytes_max.min(bytes_max / 100 * SPOOL_END_PERCENT / tenants.max(1) as u64)
}

impl Quota {
    /// An allowance of `bytes_max`, of which a tenant may have `share_bytes_max`; nobody takes `part_bytes` of that from it.
    #[must_use]
    pub fn new(bytes_max: u64, share_bytes_max: u64, part_bytes: u64) -> Self {
        Self {
            allowance: Allowance::new(bytes_max),
            share_bytes_max: AtomicU64::new(share_bytes_max),
            part_bytes: AtomicU64::new(part_bytes),
            shares: Mutex::default(),
        }
    }

    /// Gives every tenant, also those that come later, another share and another part of it. Who has more than a lower share keeps the
    /// old one until it has less: nothing that is being written ends because of the change.
    pub fn set_shares(&self, share_bytes_max: u64, part_bytes: u64) {
        // Under the lock, so that a share that is made meanwhile has the new maximum too.
        let shares = self.shares_now();
        self.share_bytes_max.store(share_bytes_max, Ordering::Release);
        self.part_bytes.store(part_bytes, Ordering::Release);
        shares.values().for_each(|share| share.set_bytes_max(share_bytes_max));
    }

    fn part_bytes(&self) -> u64 {
        self.part_bytes.load(Ordering::Acquire)
    }

    /// To what tenants beyond their part may fill it: the maximum, if there is one tenant.
    #[must_use]
    pub fn common_bytes_max(&self) -> u64 {
        common_bytes_max(self.bytes_max(), self.part_bytes())
    }

    /// Whether others have to make room for a tenant: it is within its part, and the spool is beyond what is for all.
    #[must_use]
    pub fn owes(&self, share: &Share) -> bool {
        let common = self.common_bytes_max();
        common < self.bytes_max() && self.used() > common && share.used() < self.part_bytes()
    }

    fn shares_now(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of a tenant, from when it is first asked for.
    #[must_use]
    pub fn share(&self, tenant: &str) -> Arc<Share> {
        let mut shares = self.shares_now();
        let new = || {
            let bytes_max = self.share_bytes_max();
            let (allowance, lower_max) = (Allowance::new(bytes_max), AtomicU64::new(bytes_max));
            Arc::new(Share { tenant: tenant.to_owned(), allowance, lower_max })
        };
        Arc::clone(shares.entry(tenant.to_owned()).or_insert_with(new))
    }

    /// Every share that was asked for.
    #[must_use]
    pub fn shares(&self) -> Vec<Arc<Share>> {
        self.shares_now().values().map(Arc::clone).collect()
    }

    /// Bytes taken now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.allowance.used()
    }

    /// The maximum.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.allowance.bytes_max()
    }

    /// The most that a tenant may have.
    #[must_use]
    pub fn share_bytes_max(&self) -> u64 {
        self.share_bytes_max.load(Ordering::Acquire)
    }
}

/// To what tenants beyond their part may fill a spool of `bytes_max`, of which `part_bytes` are a tenant's part.
#[must_use]
pub fn common_bytes_max(bytes_max: u64, part_bytes: u64) -> u64 {
    let is_alone = part_bytes >= bytes_max / 100 * SPOOL_END_PERCENT;
    if is_alone { bytes_max } else { bytes_max / 100 * SPOOL_COMMON_PERCENT }
}

/// The bytes of one file on the quota and on a tenant's share of it, until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    quota: Arc<Quota>,
    share: Option<Arc<Share>>,
    bytes: u64,
}

impl Charge {
    /// A charge of nothing yet, for no tenant.
    pub fn none(quota: &Arc<Quota>) -> Self {
        Self::of(quota, None)
    }

    /// A charge of nothing yet, for a tenant if there is one.
    pub fn of(quota: &Arc<Quota>, share: Option<Arc<Share>>) -> Self {
        Self { quota: Arc::clone(quota), share, bytes: 0 }
    }

    /// A charge for a file of that many bytes that is on the disk, also beyond the maximum.
    pub fn of_file(quota: &Arc<Quota>, bytes: u64) -> Self {
        let mut charge = Self::none(quota);
        charge.set(bytes);
        charge
    }

    /// The most that may be used once this charge has `bytes` more.
    pub fn limit(&self, bytes: u64) -> u64 {
        let part = self.quota.part_bytes();
        let is_within = self.share.as_ref().is_some_and(|share| share.used().saturating_add(bytes) <= part);
        if is_within { self.quota.bytes_max() } else { self.quota.common_bytes_max() }
    }

    /// Charges `bytes` more, or nothing if that would pass the maximum or the share.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        if !self.quota.allowance.reserve_up_to(self.limit(bytes), bytes) {
            return false;
        }
        if self.share.as_ref().is_some_and(|share| !share.allowance.reserve(bytes)) {
            self.quota.allowance.release(bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Makes this the charge of a file that has `bytes` bytes on the disk, also beyond the maximum.
    pub fn set(&mut self, bytes: u64) {
        let allowances = [Some(&self.quota.allowance), self.share.as_ref().map(|share| &share.allowance)];
        for allowance in allowances.into_iter().flatten() {
            match bytes.checked_sub(self.bytes) {
                Some(more) => allowance.take(more),
                None => allowance.release(self.bytes - bytes),
            }
        }
        self.bytes = bytes;
        if let Some(share) = &self.share {
            share.settle();
        }
    }

    /// Makes it another tenant's, or nobody's, also beyond the share.
    pub fn assign(&mut self, share: Option<Arc<Share>>) {
        if let Some(share) = &share {
            share.allowance.take(self.bytes);
        }
        if let Some(before) = std::mem::replace(&mut self.share, share) {
            before.release(self.bytes);
        }
    }

    /// As [`Charge::assign`], or nothing if that would pass the share.
    #[must_use]
    pub fn try_assign(&mut self, share: &Arc<Share>) -> bool {
        let has_room = share.allowance.reserve(self.bytes);
        if has_room && let Some(before) = self.share.replace(Arc::clone(share)) {
            before.release(self.bytes);
        }
        has_room
    }

    /// Whose it is.
    pub fn share(&self) -> Option<&Arc<Share>> {
        self.share.as_ref()
    }

    /// Bytes of this charge.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_beyond_the_maximum_and_what_is_released_can_be_had_again() {
        let quota = Arc::new(Quota::new(100, 100, 100));
        let there = Charge::of_file(&quota, 20);
        let mut charge = Charge::none(&quota);
        assert!(charge.grow(80));
        assert!(!charge.grow(1) && !charge.grow(u64::MAX));
        charge.set(50);
        assert!(charge.grow(30) && !charge.grow(1));
        assert_eq!((quota.used(), charge.bytes()), (quota.bytes_max(), 80));
        drop(charge);
        assert_eq!(quota.used(), 20);
        drop(there);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn a_tenant_has_its_share_and_the_others_have_theirs() {
        let quota = Arc::new(Quota::new(100, 50, 95));
        let (a, b) = (quota.share("a"), quota.share("b"));
        let mut of_b = Charge::of(&quota, Some(Arc::clone(&b)));
        assert!(of_b.grow(50) && !of_b.grow(1));
        assert_eq!((quota.used(), b.used(), a.used()), (50, 50, 0), "a refused charge leaves nothing");
        let mut of_a = Charge::of(&quota, Some(Arc::clone(&a)));
        assert!(of_a.grow(30));
        of_a.assign(None);
        assert_eq!((quota.used(), a.used()), (80, 0));
        assert!(!of_a.try_assign(&b) && of_a.try_assign(&a) && of_a.share().is_some());
        assert_eq!((quota.used(), a.used(), b.used()), (80, 30, 50));
        of_a.set(60);
        assert_eq!((quota.used(), a.used()), (110, 60), "a file that is there counts, also beyond the share");
        drop((of_a, of_b));
        assert_eq!((quota.used(), a.used(), b.used()), (0, 0, 0));
        assert_eq!(quota.shares().len(), 2);
    }

    #[test]
    fn a_lower_share_ends_nothing_that_is_being_written_and_holds_once_less_is_used() {
        let quota = Arc::new(Quota::new(100, 100, 95));
        let (a, b) = (quota.share("a"), quota.share("b"));
        let mut of_a = Charge::of(&quota, Some(Arc::clone(&a)));
        let mut more_of_a = Charge::of(&quota, Some(Arc::clone(&a)));
        assert!(of_a.grow(60));
        quota.set_shares(50, 47);
        assert_eq!((a.bytes_max(), b.bytes_max(), quota.share("c").bytes_max()), (100, 50, 50));
        assert!(more_of_a.grow(10), "it goes on");
        of_a.set(45);
        assert_eq!(a.bytes_max(), 100, "55 are used");
        drop(more_of_a);
        assert_eq!(a.bytes_max(), 50);
        assert!(of_a.grow(5) && !of_a.grow(1));
        quota.set_shares(100, 95);
        assert!(of_a.grow(1), "a higher one holds at once");
    }

    #[test]
    fn who_is_beyond_its_part_leaves_the_last_of_the_spool_to_those_within_theirs() {
        let quota = Arc::new(Quota::new(1000, 900, part_of(1000, 900, 5)));
        let (greedy, modest) = (quota.share("greedy"), quota.share("modest"));
        let mut of_greedy = Charge::of(&quota, Some(Arc::clone(&greedy)));
        let mut nobodys = Charge::none(&quota);
        assert!(of_greedy.grow(900) && nobodys.grow(70) && !nobodys.grow(1) && !of_greedy.grow(1));
        assert!(!quota.owes(&modest), "there is room for it");
        let mut of_modest = Charge::of(&quota, Some(Arc::clone(&modest)));
        assert!(of_modest.grow(30) && !of_modest.grow(1));
        assert!(quota.owes(&modest) && !quota.owes(&greedy));
        of_greedy.set(200);
        assert!(of_modest.grow(160) && !quota.owes(&modest));
        assert_eq!(part_of(1000, 900, 5), 190);
    }
}
