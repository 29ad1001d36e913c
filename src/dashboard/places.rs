//! The places for streams, and for objects that are looked at. Owns how many there are, how many of them one account may have, and
//! those that are operators' alone; not what a stream carries.
//!
//! Invariant: there are never more streams than places, and what accounts take is never an operator's place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An account's id; none stands for the operators.
type Payer = Option<String>;

/// See the module.
#[derive(Debug)]
pub struct StreamPlaces {
    all: usize,
    per_account: usize,
    /// Accounts of the host.
    accounts: usize,
    taken: Mutex<HashMap<Payer, usize>>,
}

impl StreamPlaces {
    /// So many for all accounts together, and for each of them. Operators together have as many as one account, beside those.
    #[must_use]
    pub fn new(all: usize, per_account: usize) -> Arc<Self> {
        Arc::new(Self { all, per_account, accounts: 1, taken: Mutex::default() })
    }

    /// The same on a host of so many accounts. One that has a place takes no more than leaves one for each that has none, as
    /// far as half of the places suffice.
    #[must_use]
    pub fn for_accounts(all: usize, per_account: usize, accounts: usize) -> Arc<Self> {
        Arc::new(Self { all, per_account, accounts, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Payer, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a stream of `account`, or of an operator if none; if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, account: Option<&str>) -> Option<StreamPlace> {
        let payer: Payer = account.map(str::to_owned);
        let mut taken = self.taken();
        let of_accounts: usize =
            taken.iter().filter(|(payer, _)| payer.is_some()).map(|(_, count)| count).sum();
        let own = taken.get(&payer).copied().unwrap_or(0);
        let holders = taken.keys().flatten().count();
        let kept = if own == 0 { 0 } else { self.accounts.saturating_sub(holders).min(self.all / 2) };
        let is_full = payer.is_some() && of_accounts + kept >= self.all;
        if is_full || own >= self.per_account {
            return None;
        }
        *taken.entry(payer.clone()).or_default() += 1;
        Some(StreamPlace { places: Arc::clone(self), payer })
    }

    /// Streams now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken().values().sum()
    }
}

/// A stream's place, until it is dropped.
#[derive(Debug)]
pub struct StreamPlace {
    places: Arc<StreamPlaces>,
    payer: Payer,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.payer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.payer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_and_all_have_so_many_places_and_a_stream_that_ends_gives_its_own_back() {
        let places = StreamPlaces::new(3, 2);
        let [first, second] = ["a", "a"].map(|account| places.take(Some(account)).unwrap());
        assert!(places.take(Some("a")).is_none());
        let third = places.take(Some("b")).unwrap();
        assert!(places.take(Some("c")).is_none() && places.count() == 3);
        drop(first);
        assert!(places.take(Some("c")).is_some(), "and it is free again at once");
        drop((second, third));
        assert!(places.count() == 0 && places.taken().is_empty());
    }

    #[test]
    fn accounts_leave_a_place_for_each_that_has_none() {
        let places = StreamPlaces::for_accounts(16, 4, 12);
        let taken: Vec<_> = (0..11 * 4).filter_map(|n| places.take(Some(&format!("{}", n % 11)))).collect();
        assert_eq!(taken.len(), 15, "eleven take all but the twelfth's");
        let last = places.take(Some("11"));
        assert!(last.is_some() && places.take(Some("11")).is_none() && places.take(None).is_some());
        // Where there are more accounts than places, half of them serve for more than one.
        let places = StreamPlaces::for_accounts(16, 16, 100);
        assert_eq!((0..16).filter_map(|_| places.take(Some("a"))).collect::<Vec<_>>().len(), 8);
    }

    #[test]
    fn accounts_leave_operators_their_places_for_streams() {
        let places = StreamPlaces::new(8, 4);
        let of_accounts: Vec<_> = (0..64).filter_map(|n| places.take(Some(&format!("{}", n / 4)))).collect();
        assert_eq!(of_accounts.len(), 8);
        let of_operators: Vec<_> = (0..64).filter_map(|_| places.take(None)).collect();
        assert_eq!((of_operators.len(), places.count()), (4, 12));
        // Nor do operators take what is the accounts'.
        drop(of_accounts);
        assert!(places.take(Some("")).is_some());
    }
}
