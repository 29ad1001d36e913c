//! What captures that ended without being delivered keep on the spool. Owns how much of it and how long, for each account.
//!
//! Invariant: an account's failed captures have at most what its bounds say, a moment after the last one failed; the oldest
//! goes first, and what goes is said in its job.

use super::{Effect, Machine, Now, ReplyId, promise};
use crate::engine::handle::Refusal;
use crate::job::{AccountId, CaptureId};
use std::time::Duration;

/// How long a removal that failed waits for its next try.
const RETRY: Duration = Duration::from_secs(60);

/// What one ended capture keeps.
#[derive(Clone, Debug)]
pub(in super::super) struct Kept {
    pub id: CaptureId,
    pub account: AccountId,
    pub bytes: u64,
    /// How old it was when this process took note of it.
    pub age: Duration,
    /// When that was.
    pub(super) since: Duration,
    /// Not before: it is being removed, or could not be.
    pub(super) again_at: Option<Duration>,
    /// Who waits for its removal.
    pub(super) waiting: Vec<ReplyId>,
}

impl Kept {
    pub fn new(id: CaptureId, account: AccountId, bytes: u64, age: Duration) -> Self {
        Self { id, account, bytes, age, since: Duration::ZERO, again_at: None, waiting: Vec::new() }
    }

    fn age(&self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.since))
    }
}

impl Machine {
    /// A capture ended and left this.
    pub(super) fn keep(&mut self, now: Now, kept: Kept) {
        self.kept.retain(|other| other.id != kept.id);
        if kept.bytes > 0 {
            self.kept.push(Kept { since: now.mono, ..kept });
        }
    }

    /// What ended captures of an account keep, the oldest first.
    pub fn kept_of(&self, account: &AccountId) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| kept.account == *account)
    }

    /// What an ended capture of an account keeps, in bytes.
    pub fn kept(&self, account: &AccountId, id: &CaptureId) -> Option<u64> {
        self.kept.iter().find(|kept| kept.account == *account && kept.id == *id).map(|kept| kept.bytes)
    }

    /// Its owner wants it no more, and is answered once it is gone.
    pub(super) fn drop_kept(
        &mut self,
        now: Now,
        account: &AccountId,
        id: &CaptureId,
        reply: Option<ReplyId>,
        out: &mut Vec<Effect>,
    ) {
        let why = "its owner dropped it".to_owned();
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.account == *account && kept.id == *id) else {
            return promise::answer(reply, &Ok(()), out);
        };
        kept.waiting.extend(reply);
        remove(kept, now.mono, why, out);
    }

    /// Keeps every account within its bounds.
    pub(super) fn bound_kept(&mut self, now: Now, out: &mut Vec<Effect>) {
        let bounds = self.account_bounds();
        self.kept.sort_by_key(|kept| std::cmp::Reverse(kept.age(now.mono)));
        let mut sums = std::collections::BTreeMap::<AccountId, u64>::new();
        // The newest stay.
        for kept in self.kept.iter_mut().rev() {
            let sum = sums.entry(kept.account.clone()).or_default();
            *sum = sum.saturating_add(kept.bytes);
            if kept.again_at.is_some_and(|at| now.mono < at) {
                continue;
            }
            if kept.age(now.mono) >= bounds.kept_time {
                let seconds = bounds.kept_time.as_secs();
                remove(
                    kept,
                    now.mono,
                    format!("it was kept for {seconds} s, as long as this host keeps what failed"),
                    out,
                );
            } else if *sum > bounds.kept_bytes {
                let why = format!(
                    "failed captures of account {} had {sum} bytes of the spool, and {} are its most; \
                     the oldest go first",
                    kept.account, bounds.kept_bytes
                );
                remove(kept, now.mono, why, out);
            }
        }
    }

    /// Removes what failed captures of an account left, the oldest first, until `excess` bytes are freed; how many were.
    pub(super) fn drop_kept_for_room(
        &mut self,
        account: &AccountId,
        excess: u64,
        why: &str,
        out: &mut Vec<Effect>,
    ) -> u64 {
        let mut freed = 0;
        for kept in self.kept.iter_mut().filter(|kept| kept.account == *account && kept.again_at.is_none()) {
            if freed >= excess {
                break;
            }
            freed += kept.bytes;
            let since = kept.since;
            remove(kept, since, why.to_owned(), out);
        }
        freed
    }

    /// It is removed, or could not be.
    pub(super) fn kept_dropped(
        &mut self,
        now: Now,
        id: &CaptureId,
        result: Result<(), String>,
        out: &mut Vec<Effect>,
    ) {
        let said = result.clone().map_err(Refusal::Store);
        for kept in self.kept.iter_mut().filter(|kept| kept.id == *id) {
            promise::answer(std::mem::take(&mut kept.waiting), &said, out);
        }
        match result {
            Ok(()) => self.kept.retain(|kept| kept.id != *id),
            Err(error) => {
                tracing::error!(capture = %id, error, "what a failed capture left could not be removed; it is tried again");
                for kept in self.kept.iter_mut().filter(|kept| kept.id == *id) {
                    kept.again_at = Some(now.mono + RETRY);
                }
            }
        }
    }
}

fn remove(kept: &mut Kept, now: Duration, why: String, out: &mut Vec<Effect>) {
    kept.again_at = Some(now + RETRY);
    // What customers read names no key: they cannot turn it.
    let keys = "spool.failed_percent, spool.failed_seconds_max";
    tracing::warn!(capture = %kept.id, account = %kept.account, bytes = kept.bytes, why, keys, "what a failed capture left is removed");
    out.push(Effect::DropKept { account: kept.account.clone(), id: kept.id.clone(), why });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, now};
    use super::*;

    fn kept(n: u32, account: &str, bytes: u64, age_seconds: u64) -> Kept {
        let id = CaptureId::parse(&format!("{n:032x}")).unwrap();
        Kept::new(id, AccountId(account.to_owned()), bytes, Duration::from_secs(age_seconds))
    }

    fn dropped(out: &[Effect]) -> Vec<String> {
        let id = |effect: &Effect| match effect {
            Effect::DropKept { id, .. } => Some(id.as_str().trim_start_matches('0').to_owned()),
            _ => None,
        };
        out.iter().filter_map(id).collect()
    }

    #[test]
    fn what_failed_captures_keep_is_bounded_by_size_and_age_for_each_account_and_the_oldest_goes_first() {
        let mut machine = Machine::new(config());
        let bounds = machine.account_bounds();
        let (half, old) = (bounds.kept_bytes / 2, bounds.kept_time.as_secs());
        for one in [kept(1, "b", half, 30), kept(2, "b", half, 10), kept(3, "b", half, 20)] {
            machine.keep(now(0), one);
        }
        machine.keep(now(0), kept(4, "a", half, 5));
        machine.keep(now(0), kept(5, "a", 1, old - 5));
        let mut out = Vec::new();
        machine.bound_kept(now(1), &mut out);
        assert_eq!(dropped(&out), ["1"], "the oldest of the account that has too much");
        out.clear();
        machine.bound_kept(now(2), &mut out);
        assert!(dropped(&out).is_empty(), "it is under way");
        let first = CaptureId::parse(&format!("{:032x}", 1)).unwrap();
        machine.kept_dropped(now(3), &first, Ok(()), &mut out);
        machine.bound_kept(now(6), &mut out);
        assert_eq!(dropped(&out), ["5"], "the one that is too old");
        out.clear();
        let fifth = CaptureId::parse(&format!("{:032x}", 5)).unwrap();
        machine.kept_dropped(now(7), &fifth, Err("no".to_owned()), &mut out);
        machine.bound_kept(now(8), &mut out);
        assert!(dropped(&out).is_empty());
        machine.bound_kept(now(100), &mut out);
        assert_eq!(dropped(&out), ["5"], "a removal that failed is tried again");
    }
}
