//! What each account has of the spool, of several directories each by itself. Owns the mark of each account, what a full spool costs whom, and who may start
//! nothing more; the charges themselves are the spool's.
//!
//! - An account's *share* is the most that it may have on the spool. At 95 % of it no capture of the account begins, and the
//!   largest of those that take packets ends.
//! - An account's *part* is what nobody takes from it: 95 % of the spool, divided by the accounts. While the spool is at its
//!   limit, some account has more than its part, and the one with the most of them gives way: its largest capture that takes
//!   packets ends. If it has none, and captures of others take packets, it loses data that is beyond its part: first what
//!   its failed captures left, the oldest first, then captures that wait for their upload, those whose upload fails before
//!   those whose upload goes well, the oldest first.
//! - Beyond 97 % of the spool only accounts within their part write, and wait for the room that the others make.
//!
//! Invariant: an account within its part loses no packet and no capture because of what others have on the spool.

use super::capture::{Capture, Phase};
use super::{Effect, Machine, Serial};
use crate::engine::Now;
use crate::engine::handle::Refusal;
use crate::job::{AccountId, StopReason};
use crate::limits::SPOOL_END_PERCENT;
use crate::spool::{Failure, Holding, part_of};
use std::collections::BTreeMap;

/// The bounds of an account on this host.
#[derive(Clone, Copy, Debug)]
pub struct AccountBounds {
    /// The most that it may have on the spool, in bytes.
    pub share: u64,
    /// What of that nobody takes from it.
    pub part: u64,
    /// Captures that have ended and wait for their upload.
    pub waiting: usize,
    /// Bytes that its failed captures may leave.
    pub kept_bytes: u64,
    /// How long they leave them.
    pub kept_time: std::time::Duration,
}

impl AccountBounds {
    /// Of one of so many accounts on a spool of `bytes_max`, of which it may have `percent`.
    #[must_use]
    pub fn of(bytes_max: u64, percent: u64, accounts: usize) -> Self {
        let share = if percent >= 100 { bytes_max } else { bytes_max / 100 * percent };
        Self {
            share,
            part: part_of(bytes_max, share, accounts),
            waiting: 16,
            kept_bytes: share / 2,
            kept_time: std::time::Duration::from_secs(7 * 86_400),
        }
    }
}

/// What each account has on the spool.
pub(in super::super) type Held = Vec<(AccountId, Holding)>;

#[derive(Debug)]
struct Standing {
    held: Holding,
    /// Where its next capture ends for room.
    end_at: u64,
}

/// Where each account stands.
#[derive(Debug)]
pub(super) struct Shares {
    bounds: AccountBounds,
    mark: u64,
    /// Whether the share is less than the whole spool, whose own mark is enough otherwise.
    is_own: bool,
    standings: BTreeMap<AccountId, Standing>,
}

/// Who has to make room.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// For the others, in bytes: the spool is at its limit.
    pub for_all: Option<u64>,
    /// For itself.
    pub accounts: Vec<AccountId>,
}

impl Shares {
    pub(super) fn new(bounds: AccountBounds, bytes_max: u64) -> Self {
        let mark = bounds.share / 100 * SPOOL_END_PERCENT;
        Self { bounds, mark, is_own: bounds.share < bytes_max, standings: BTreeMap::new() }
    }

    /// Other bounds from now on.
    pub(super) fn set_bounds(&mut self, bounds: AccountBounds, bytes_max: u64) {
        let standings = std::mem::take(&mut self.standings);
        *self = Self { standings, ..Self::new(bounds, bytes_max) };
        self.standings.values_mut().for_each(|standing| standing.end_at = standing.end_at.max(self.mark));
    }

    /// Takes note of what each account has; those of which a capture has to end.
    fn look(&mut self, held: Held) -> Vec<AccountId> {
        let mut over = Vec::new();
        let seen: BTreeMap<AccountId, Holding> = held.into_iter().collect();
        self.standings.retain(|account, _| seen.contains_key(account));
        for (account, held) in seen {
            let new = Standing { held: Holding::default(), end_at: self.mark };
            let standing = self.standings.entry(account.clone()).or_insert(new);
            standing.held = held;
            // It has a share of each directory.
            let held = held.most;
            if held < self.mark {
                standing.end_at = self.mark;
            } else if held >= standing.end_at && self.is_own {
                // What is ended still waits for its upload: the others go on in half of what is left.
                standing.end_at = held + self.bounds.share.saturating_sub(held).div_ceil(2).max(1);
                over.push(account);
            }
        }
        over
    }

    pub(super) fn held(&self, account: &AccountId) -> Holding {
        self.standings.get(account).map_or_else(Holding::default, |standing| standing.held)
    }

    /// Those with more than their part of the fullest directory, the greediest first.
    fn greedy(&self) -> Vec<(u64, AccountId)> {
        let held =
            self.standings.iter().map(|(account, standing)| (standing.held.on_fullest, account.clone()));
        let mut greedy: Vec<_> = held.filter(|(held, _)| *held > self.bounds.part).collect();
        greedy.sort_by(|a, b| b.cmp(a));
        greedy
    }

    /// For people who look at a capture.
    fn warning(&self, account: &AccountId) -> Option<String> {
        let held = self.held(account).most;
        (self.is_own && held >= self.mark).then(|| {
            format!(
                "this account has {held} of its {} bytes of the spool; its captures end until uploads have freed some, and \
                 none begins",
                self.bounds.share
            )
        })
    }
}

/// A capture that takes packets: its bytes in the spool, its number, its account.
type Live = (u64, Serial, AccountId);

fn largest(live: &[Live], account: Option<&AccountId>) -> Option<Serial> {
    let of_account = live.iter().filter(|(_, _, of)| account.is_none_or(|account| account == of));
    super::pressure::first_to_end(of_account.map(|(bytes, serial, _)| (*bytes, *serial)))
}

impl Machine {
    /// The bounds of each account.
    pub fn account_bounds(&self) -> AccountBounds {
        self.shares.bounds
    }

    /// Bytes of an account on the spool at the last look.
    pub fn held_by(&self, account: &AccountId) -> u64 {
        self.shares.held(account).total
    }

    /// What threatens an account's captures.
    pub fn share_warning(&self, account: &AccountId) -> Option<String> {
        self.shares.warning(account)
    }

    /// Looks at the spool: whether somebody has to make room.
    pub(super) fn look_at_spool(&mut self, now: Now, held: u64, of_accounts: Held, out: &mut Vec<Effect>) {
        let accounts = self.shares.look(of_accounts);
        let for_all = self.pressure.look(now.mono, held).then(|| self.pressure.excess());
        if for_all.is_some() || !accounts.is_empty() {
            self.relief = Relief { for_all, accounts };
            out.push(Effect::Weigh);
        }
    }

    /// Whether an account may put more on the spool.
    pub(super) fn admit_to_spool(&self, account: &AccountId) -> Result<(), Refusal> {
        let (bounds, held) = (self.shares.bounds, self.shares.held(account).most);
        let max = if self.pressure.is_short() { bounds.part } else { self.shares.mark };
        match held < max {
            true => Ok(()),
            false => Err(Refusal::ShareFull { held, max, is_short: self.pressure.is_short() }),
        }
    }

    /// Captures of an account that take no more packets and are not delivered.
    pub fn waiting(&self, account: &AccountId) -> usize {
        let is_his = |capture: &&Capture| capture.job.request.account == *account && capture.is_waiting();
        self.captures.values().filter(is_his).count()
    }

    /// Whether an account has not too many captures that wait for their upload.
    pub(super) fn admit_to_wait(&self, account: &AccountId) -> Result<(), Refusal> {
        let max = self.shares.bounds.waiting;
        let mut waiting = self
            .captures
            .values()
            .filter(|capture| capture.job.request.account == *account && capture.is_waiting());
        let oldest = waiting.next().map(|capture| capture.job.id.clone());
        match oldest.filter(|_| waiting.count() + 1 >= max) {
            Some(oldest) => Err(Refusal::TooManyWaiting { max, oldest }),
            None => Ok(()),
        }
    }

    /// Makes room where the last look found too little.
    pub(super) fn weighed(&mut self, captured: &[(Serial, u64)], out: &mut Vec<Effect>) {
        let Relief { for_all, accounts } = std::mem::take(&mut self.relief);
        let live = captured.iter().filter_map(|&(serial, bytes)| {
            let capture = self.captures.get(&serial).filter(|capture| capture.takes_packets())?;
            let bytes = bytes.saturating_sub(capture.object_bytes());
            Some((bytes, serial, capture.job.request.account.clone()))
        });
        let mut live: Vec<Live> = live.collect();
        for account in accounts {
            let Some(serial) = largest(&live, Some(&account)) else { continue };
            live.retain(|(_, other, _)| *other != serial);
            let message = format!(
                "this account holds {} of its {} bytes of the spool and this capture had the most of them; let \
                 uploads finish, or drop a capture that waits",
                self.shares.held(&account).most,
                self.shares.bounds.share
            );
            self.end_for_room(serial, message, out);
        }
        if let Some(needed) = for_all {
            self.relieve(needed, &live, out);
        }
    }

    /// The spool is at its limit: the account with the most of it gives way.
    fn relieve(&mut self, needed: u64, live: &[Live], out: &mut Vec<Effect>) {
        let greedy = self.shares.greedy();
        for (held, account) in &greedy {
            if let Some(serial) = largest(live, Some(account)) {
                return self.end_for_room(serial, self.full_message(), out);
            }
            let is_threat = live.iter().any(|(_, _, other)| other != account);
            let excess = held.saturating_sub(self.shares.bounds.part).min(needed);
            if is_threat && self.take_back(account, excess, out) {
                return;
            }
        }
        // What nobody's share has is on the spool too: the history's open segments.
        if greedy.is_empty()
            && let Some(serial) = largest(live, None)
        {
            self.end_for_room(serial, self.full_message(), out);
        }
    }

    fn full_message(&self) -> String {
        let (used, max) = self.pressure.level();
        format!(
            "this host's spool is full, {used} of {max} bytes, and this capture had the most of them; narrow its filter, give it \
             a byte limit, or let uploads finish"
        )
    }

    fn end_for_room(&mut self, serial: Serial, message: String, out: &mut Vec<Effect>) {
        if let Some(capture) = self.captures.get_mut(&serial) {
            // What customers read names no key: they cannot turn it.
            let keys = "spool.bytes_max, spool.account_percent";
            let account = &capture.job.request.account;
            tracing::warn!(capture = %capture.job.id, %account, message, keys, "a capture ends for room in the spool");
            let failure = capture.failure.get_or_insert(Failure::Full(message)).clone();
            // What waits in its blocks may be more than the room that the others have left.
            out.push(Effect::RefuseWrites { serial, failure });
        }
        self.end(serial, StopReason::SpoolFull, out);
    }

    /// Takes data of an account that is beyond its part. Whether there was any.
    fn take_back(&mut self, account: &AccountId, excess: u64, out: &mut Vec<Effect>) -> bool {
        let why = format!(
            "the spool was full, account {account} had {} bytes of it and more than its part of {}, and captures of others took \
             packets",
            self.shares.held(account).on_fullest,
            self.shares.bounds.part
        );
        let mut freed = self.drop_kept_for_room(account, excess, &why, out);
        let is_his = |capture: &&Capture| {
            capture.job.request.account == *account
                && capture.phase == Phase::Draining
                && capture.job.given_up.is_none()
        };
        let mut waiting: Vec<_> = self
            .captures
            .values()
            .filter(is_his)
            .map(|capture| (capture.trouble.is_none(), capture.job.submitted, capture.serial))
            .collect();
        waiting.sort_unstable();
        for (_, _, serial) in waiting {
            if freed >= excess {
                break;
            }
            let Some(capture) = self.captures.get(&serial) else { continue };
            freed += capture.job.ledger.captured_bytes.saturating_sub(capture.object_bytes()).max(1);
            self.give_up(serial, format!("given up for room: {why}"), out);
        }
        freed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_into_the_spool_beside_each_other() {
        for accounts in 1..200 {
            for percent in [1, 10, 50, 100] {
                let bounds = AccountBounds::of(1 << 30, percent, accounts);
                assert!(bounds.part <= bounds.share);
                assert!(bounds.part * accounts as u64 <= (1 << 30) / 100 * SPOOL_END_PERCENT);
            }
        }
        let bounds = AccountBounds::of(1000, 50, 2);
        assert_eq!((bounds.share, bounds.part), (500, 475));
    }

    #[test]
    fn an_account_at_its_mark_ends_a_capture_and_then_has_half_of_what_is_left_before_the_next() {
        let account = AccountId("a".to_owned());
        let mut shares = Shares::new(AccountBounds::of(1000, 50, 2), 1000);
        let mut look = |held| !shares.look(vec![(account.clone(), Holding::all(held))]).is_empty();
        assert!(!look(474) && look(475) && !look(487) && look(488) && !look(470) && look(475));
        let mut shares = Shares::new(AccountBounds::of(1000, 100, 1), 1000);
        assert!(
            shares.look(vec![(account, Holding::all(1000))]).is_empty(),
            "the spool's own mark is enough"
        );
    }
}
