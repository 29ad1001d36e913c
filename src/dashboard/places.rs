//! The places for streams. Owns how many there are and how many of them one account may have; not what a stream carries.
//!
//! Invariant: there are never more streams than places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct StreamPlaces {
    all: usize,
    per_account: usize,
    taken: Mutex<HashMap<String, usize>>,
}

impl StreamPlaces {
    /// So many in all, and of one account; operators together are one more account, whose name is empty.
    #[must_use]
    pub fn new(all: usize, per_account: usize) -> Arc<Self> {
        Arc::new(Self { all, per_account, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a stream of `account`, if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, account: &str) -> Option<StreamPlace> {
        let mut taken = self.taken();
        let of_account = taken.get(account).copied().unwrap_or(0);
        if of_account >= self.per_account || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        *taken.entry(account.to_owned()).or_default() += 1;
        Some(StreamPlace { places: Arc::clone(self), account: account.to_owned() })
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
    account: String,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.account);
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
        let [first, second] = ["a", "a"].map(|account| places.take(account).unwrap());
        assert!(places.take("a").is_none());
        let third = places.take("b").unwrap();
        assert!(places.take("c").is_none() && places.count() == 3);
        drop(first);
        assert!(places.take("c").is_some(), "and it is free again at once");
        drop((second, third));
        assert!(places.count() == 0 && places.taken().is_empty());
    }
}
