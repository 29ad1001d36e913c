//! The deliveries at work: how many there are on the host and for each account, and whose turn is next. Owns the places and
//! the queue for them; not what a delivery does with its place.
//!
//! - A capture that takes packets has a place by right: slots bound how many those are, and a place that it had to wait for
//!   would fill the spool meanwhile. When its last worker has let it go, its delivery goes on if a place is free; otherwise
//!   it stops where it is and waits for its turn.
//! - Every other delivery works on one of `host_max` places, `account_max` of them at most for one account.
//! - A free place goes to the account with the fewest deliveries at work, of equal ones to the one that had its turn
//!   longest ago. Within an account the first come is the first served.
//! - A delivery of which the store confirmed nothing for `patience`, while somebody waits for its place, loses it and
//!   queues again. So a bucket that hangs costs the others at most that long.
//! - So does one that has had its place for `patience`, whatever its store confirms, while an account waits that has none, or two
//!   fewer than its own. So a bucket that is slow costs the others no more.
//!
//! Invariant: there are never more places than that, and a place that is dropped is dealt again at once.

use crate::job::AccountId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often one who waits looks whether a place is held for nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// When a store last confirmed something of a delivery.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// The store confirmed something.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Holder {
    account: AccountId,
    pulse: Pulse,
    since: Instant,
    /// Set once it has to leave.
    leave: watch::Sender<bool>,
}

#[derive(Debug)]
struct Waiter {
    account: AccountId,
    grant: oneshot::Sender<Place>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    holders: BTreeMap<u64, Holder>,
    waiting: VecDeque<Waiter>,
    /// The last place that each account had.
    served: BTreeMap<AccountId, u64>,
}

impl State {
    fn at_work(&self, account: &AccountId) -> usize {
        self.holders.values().filter(|holder| holder.account == *account).count()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Places {
    host_max: usize,
    account_max: usize,
    patience: Duration,
    state: Mutex<State>,
}

/// Deliveries of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtWork {
    /// Whose.
    pub account: AccountId,
    /// That have a place; those of captures that take packets are not counted.
    pub at_work: u64,
    /// That wait for one.
    pub waiting: u64,
}

impl Places {
    /// `host_max` places, at most `account_max` of them for one account.
    #[must_use]
    pub fn new(host_max: usize, account_max: usize, patience: Duration) -> Self {
        Self { host_max, account_max, patience, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    async fn take(self: &Arc<Self>, account: &AccountId) -> Place {
        let (grant, mut granted) = oneshot::channel();
        self.state().waiting.push_back(Waiter { account: account.clone(), grant });
        self.deal();
        loop {
            tokio::select! {
                place = &mut granted => if let Ok(place) = place { return place } else {
                    // Only a bug of ours drops a waiter; it queues again.
                    let (grant, again) = oneshot::channel();
                    granted = again;
                    self.state().waiting.push_back(Waiter { account: account.clone(), grant });
                    self.deal();
                },
                () = tokio::time::sleep(LOOK_INTERVAL) => self.displace(Instant::now()),
            }
        }
    }

    /// A place, if one is free for this account and so nobody waits for it.
    fn take_now(self: &Arc<Self>, account: &AccountId, pulse: &Pulse) -> Option<Place> {
        let mut state = self.state();
        let is_free = state.holders.len() < self.host_max && state.at_work(account) < self.account_max;
        is_free.then(|| self.seat(&mut state, account.clone(), pulse.clone()))
    }

    fn seat(self: &Arc<Self>, state: &mut State, account: AccountId, pulse: Pulse) -> Place {
        state.last += 1;
        let number = state.last;
        let (leave, told) = watch::channel(false);
        pulse.beat();
        state.served.insert(account.clone(), number);
        state.holders.insert(number, Holder { account, pulse: pulse.clone(), since: Instant::now(), leave });
        Place { places: Arc::clone(self), number, pulse, told }
    }

    /// Gives free places to those whose turn it is.
    fn deal(self: &Arc<Self>) {
        while let Some((grant, place)) = self.next() {
            // One that is gone gives its place back by dropping it, which must not happen under the lock.
            let _gone = grant.send(place);
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Place>, Place)> {
        let mut state = self.state();
        state.waiting.retain(|waiter| !waiter.grant.is_closed());
        if state.holders.len() >= self.host_max {
            return None;
        }
        let turn = |state: &State, waiter: &Waiter| {
            let at_work = state.at_work(&waiter.account);
            (at_work < self.account_max)
                .then(|| (at_work, state.served.get(&waiter.account).copied().unwrap_or(0)))
        };
        let waiting = state.waiting.iter().enumerate();
        let turns = waiting.filter_map(|(at, waiter)| Some((turn(&state, waiter)?, at)));
        let (_, at) = turns.min()?;
        let Waiter { account, grant } = state.waiting.remove(at)?;
        Some((grant, self.seat(&mut state, account, Pulse::new())))
    }

    /// Has a delivery leave that gets nowhere, or that has had its turn, if somebody waits for its place: of the account with the most
    /// at work, the one that got nowhere longest.
    fn displace(&self, now: Instant) {
        let state = self.state();
        let is_full = state.holders.len() >= self.host_max;
        for waiter in state.waiting.iter().filter(|waiter| !waiter.grant.is_closed()) {
            let may_go = |holder: &&Holder| is_full || holder.account == waiter.account;
            if state.holders.values().filter(may_go).any(|holder| *holder.leave.borrow()) {
                // One is leaving already.
                continue;
            }
            let idle = |holder: &Holder| now.saturating_duration_since(holder.pulse.last());
            let waiters = state.at_work(&waiter.account);
            let had_its_turn = |holder: &Holder| {
                let theirs = state.at_work(&holder.account);
                holder.account != waiter.account
                    && (waiters == 0 || theirs > waiters + 1)
                    && now.saturating_duration_since(holder.since) >= self.patience
            };
            let stuck = state
                .holders
                .values()
                .filter(may_go)
                .filter(|holder| idle(holder) >= self.patience || had_its_turn(holder));
            if let Some(holder) = stuck.max_by_key(|holder| (state.at_work(&holder.account), idle(holder))) {
                holder.leave.send_replace(true);
            }
        }
    }

    /// What each account has at work and waiting, for those who look.
    #[must_use]
    pub fn read(&self) -> Vec<AtWork> {
        let state = self.state();
        let mut counts = BTreeMap::<&AccountId, (u64, u64)>::new();
        state.holders.values().for_each(|holder| counts.entry(&holder.account).or_default().0 += 1);
        state.waiting.iter().for_each(|waiter| counts.entry(&waiter.account).or_default().1 += 1);
        let row = |(account, (at_work, waiting)): (&AccountId, (u64, u64))| AtWork {
            account: account.clone(),
            at_work,
            waiting,
        };
        counts.into_iter().map(row).collect()
    }
}

/// One of the places, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    number: u64,
    pulse: Pulse,
    told: watch::Receiver<bool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().holders.remove(&self.number);
        self.places.deal();
    }
}

/// What a delivery works on: its right while its capture takes packets, then a place.
#[derive(Debug)]
pub(crate) struct Seat {
    places: Arc<Places>,
    account: AccountId,
    capturing: watch::Receiver<bool>,
    pulse: Pulse,
    place: Option<Place>,
}

impl Seat {
    /// Waits for a place, unless the capture takes packets.
    pub async fn take(places: &Arc<Places>, account: &AccountId, capturing: &watch::Receiver<bool>) -> Self {
        let by_right = *capturing.borrow();
        let place = if by_right { None } else { Some(places.take(account).await) };
        let pulse = place.as_ref().map_or_else(Pulse::new, |place| place.pulse.clone());
        let (places, account) = (Arc::clone(places), account.clone());
        Self { places, account, capturing: capturing.clone(), pulse, place }
    }

    /// Where to note that the store confirmed something.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Whether the store has confirmed nothing for so long that others need not wait for it.
    pub fn is_stuck(&self) -> bool {
        self.place.is_some() && self.pulse.last().elapsed() >= self.places.patience
    }

    /// Returns when the delivery has to stop where it is.
    pub async fn lost(&mut self) {
        if self.place.is_none() {
            // An engine that is gone lets the capture go too.
            let _ended_or_gone = self.capturing.wait_for(|capturing| !capturing).await.is_ok();
            self.place = self.places.take_now(&self.account, &self.pulse);
        }
        if let Some(place) = &mut self.place {
            let is_told = place.told.wait_for(|told| *told).await.is_ok();
            if !is_told {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn account(name: &str) -> AccountId {
        AccountId(name.to_owned())
    }

    fn ended() -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    /// The seats of those who got one at once.
    fn try_seat(places: &Arc<Places>, name: &str) -> Option<Seat> {
        Seat::take(places, &account(name), &ended()).now_or_never()
    }

    #[tokio::test]
    async fn no_account_has_more_than_its_places_and_the_host_no_more_than_all() {
        let places = Arc::new(Places::new(3, 2, Duration::from_secs(60)));
        let seats: Vec<_> = ["b", "b", "b", "a", "a"].iter().map(|name| try_seat(&places, name)).collect();
        let has: Vec<_> = seats.iter().map(Option::is_some).collect();
        assert_eq!(has, [true, true, false, true, false]);
        drop(seats);
        assert!(places.read().is_empty(), "who does not wait any more has no place: {:?}", places.read());
    }

    #[tokio::test]
    async fn a_free_place_goes_to_the_account_that_has_the_fewest_and_then_in_turn() {
        let places = Arc::new(Places::new(2, 2, Duration::from_secs(60)));
        let held = [try_seat(&places, "b").unwrap(), try_seat(&places, "b").unwrap()];
        let wait = |name: &'static str| {
            let places = Arc::clone(&places);
            async move { (name, Seat::take(&places, &account(name), &ended()).await) }.boxed()
        };
        let mut waiting = vec![wait("b"), wait("b"), wait("a"), wait("c"), wait("a")];
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let mut order = Vec::new();
        let mut seats: VecDeque<_> = held.into();
        while !waiting.is_empty() {
            drop(seats.pop_front());
            let ((name, seat), at, _) = futures_util::future::select_all(waiting.iter_mut()).await;
            drop(waiting.remove(at));
            order.push(name);
            seats.push_back(seat);
        }
        assert_eq!(order, ["a", "c", "b", "a", "b"]);
    }

    #[tokio::test]
    async fn a_delivery_that_gets_nowhere_loses_its_place_only_when_somebody_waits_for_it() {
        let patience = Duration::from_secs(60);
        let places = Arc::new(Places::new(2, 2, patience));
        let (mut stuck, mut moving) = (try_seat(&places, "b").unwrap(), try_seat(&places, "b").unwrap());
        let later = Instant::now() + patience;
        places.displace(later);
        assert!(stuck.lost().now_or_never().is_none(), "nobody waits");
        let a = account("a");
        let capturing = ended();
        let mut waiting = Box::pin(Seat::take(&places, &a, &capturing));
        assert!((&mut waiting).now_or_never().is_none());
        places.displace(Instant::now());
        assert!(stuck.lost().now_or_never().is_none(), "not yet");
        while Instant::now() < later - patience + Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        moving.pulse().beat();
        places.displace(later);
        assert!(stuck.lost().now_or_never().is_some() && moving.lost().now_or_never().is_none());
        drop(stuck);
        assert_eq!(waiting.await.account, a);
    }

    #[tokio::test]
    async fn accounts_whose_stores_are_slow_and_never_silent_keep_no_place_from_one_that_has_none() {
        let patience = Duration::from_secs(60);
        let places = Arc::new(Places::new(4, 2, patience));
        let mut held: Vec<_> = ["b", "b", "c", "d"].map(|name| try_seat(&places, name).unwrap()).into();
        let later = Instant::now() + patience + Duration::from_secs(1);
        let (a, d, capturing) = (account("a"), account("d"), ended());
        let mut of_d = Box::pin(Seat::take(&places, &d, &capturing));
        assert!((&mut of_d).now_or_never().is_none());
        let told = |held: &mut Vec<Seat>, places: &Places| {
            // Each store confirmed something just now.
            let state = places.state();
            state.holders.values().for_each(|holder| {
                *holder.pulse.0.lock().unwrap() = later;
            });
            drop(state);
            places.displace(later);
            held.iter_mut().map(|seat| seat.lost().now_or_never().is_some()).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut held, &places), [false; 4], "d has one already, and nobody two more");
        let mut of_a = Box::pin(Seat::take(&places, &a, &capturing));
        assert!((&mut of_a).now_or_never().is_none());
        let left = told(&mut held, &places);
        assert_eq!(left.iter().filter(|is_told| **is_told).count(), 1, "{left:?}");
        assert!(left[0] || left[1], "of the account that has most");
        held.remove(left.iter().position(|is_told| *is_told).unwrap());
        assert_eq!(of_a.await.account, a);
    }

    #[tokio::test]
    async fn a_capture_that_takes_packets_waits_for_nobody_and_stops_at_its_end_if_no_place_is_free() {
        let places = Arc::new(Places::new(1, 1, Duration::from_secs(60)));
        let held = try_seat(&places, "b").unwrap();
        let (takes, capturing) = watch::channel(true);
        let take = || Seat::take(&places, &account("a"), &capturing).now_or_never().unwrap();
        let (mut first, mut second) = (take(), take());
        assert!(first.lost().now_or_never().is_none());
        takes.send_replace(false);
        assert!(first.lost().now_or_never().is_some(), "the only place is taken");
        drop((held, first));
        assert!(second.lost().now_or_never().is_none(), "it goes on in the place that is free");
        assert_eq!(places.read(), [AtWork { account: account("a"), at_work: 1, waiting: 0 }]);
    }
}
