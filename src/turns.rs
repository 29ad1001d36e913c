//! Turns at something that few may do at once, such as reading the store. Owns who is next; not what is done.
//!
//! - At most `host_max` turns run at once, and at most `account_max` of one account.
//! - A free turn goes to the account that has the fewest, of equal ones to the one that was served longest ago. Within an
//!   account the first come is the first served.
//! - One who stops waiting is forgotten.
//!
//! Invariant: there are never more turns than that, and a turn that ends is given on at once.

use crate::job::AccountId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug)]
struct Waiter {
    account: AccountId,
    grant: oneshot::Sender<Turn>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// How many each account has.
    held: HashMap<AccountId, usize>,
    waiting: VecDeque<Waiter>,
    served: u64,
    /// The last one that each account had. Accounts are those of the config, so they are few.
    last: HashMap<AccountId, u64>,
}

impl State {
    fn held(&self, account: &AccountId) -> usize {
        self.held.get(account).copied().unwrap_or(0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Turns {
    host_max: usize,
    account_max: usize,
    state: Mutex<State>,
}

impl Turns {
    /// `host_max` turns at once, at most `account_max` of them of one account.
    #[must_use]
    pub fn new(host_max: usize, account_max: usize) -> Arc<Self> {
        Arc::new(Self { host_max, account_max, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, which lasts until it is dropped.
    pub async fn take(self: &Arc<Self>, account: &AccountId) -> Turn {
        loop {
            let (grant, granted) = oneshot::channel();
            self.state().waiting.push_back(Waiter { account: account.clone(), grant });
            self.deal();
            // Only a bug of ours drops a waiter; it queues again.
            if let Ok(turn) = granted.await {
                return turn;
            }
        }
    }

    fn deal(self: &Arc<Self>) {
        while let Some((grant, turn)) = self.next() {
            // One that is gone gives its turn back by dropping it, which must not happen under the lock.
            let _gone = grant.send(turn);
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Turn>, Turn)> {
        let mut state = self.state();
        if state.running >= self.host_max {
            return None;
        }
        state.waiting.retain(|waiter| !waiter.grant.is_closed());
        let may = |waiter: &Waiter| state.held(&waiter.account) < self.account_max;
        let waiting = state.waiting.iter().enumerate().filter(|(_, waiter)| may(waiter));
        let turn = |account: &AccountId| (state.held(account), state.last.get(account).copied().unwrap_or(0));
        let (at, _) = waiting.min_by_key(|(at, waiter)| (turn(&waiter.account), *at))?;
        let Waiter { account, grant } = state.waiting.remove(at)?;
        state.running += 1;
        state.served += 1;
        let served = state.served;
        state.last.insert(account.clone(), served);
        *state.held.entry(account.clone()).or_default() += 1;
        Some((grant, Turn { turns: Arc::clone(self), account }))
    }
}

/// One turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    account: AccountId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.running -= 1;
        if let Some(held) = state.held.get_mut(&self.account) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.account);
            }
        }
        drop(state);
        self.turns.deal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll(wait: Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match wait.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn account(id: &str) -> AccountId {
        AccountId(id.to_owned())
    }

    #[test]
    fn a_turn_goes_to_the_account_that_has_least_and_waited_longest() {
        let turns = Turns::new(2, 2);
        let (a, b, c) = (account("a"), account("b"), account("c"));
        let first = poll(pin!(turns.take(&a))).expect("it is free");
        let second = poll(pin!(turns.take(&a))).expect("it is free");
        let mut of_a = pin!(turns.take(&a));
        let mut of_b = pin!(turns.take(&b));
        let mut of_c = pin!(turns.take(&c));
        assert!(poll(of_a.as_mut()).is_none());
        assert!(poll(of_b.as_mut()).is_none());
        assert!(poll(of_c.as_mut()).is_none());
        drop(first);
        let for_b = poll(of_b.as_mut()).expect("b has none and came before c");
        assert!(poll(of_a.as_mut()).is_none() && poll(of_c.as_mut()).is_none());
        drop(for_b);
        let _for_c = poll(of_c.as_mut()).expect("c has none");
        drop(second);
        assert!(poll(of_a.as_mut()).is_some());
    }

    #[test]
    fn an_account_has_so_many_at_once_and_one_who_left_is_forgotten() {
        let turns = Turns::new(8, 2);
        let a = account("a");
        let held: Vec<_> = (0..2).map(|_| poll(pin!(turns.take(&a))).expect("it is free")).collect();
        {
            let mut leaves = pin!(turns.take(&a));
            assert!(poll(leaves.as_mut()).is_none());
        }
        let mut stays = pin!(turns.take(&a));
        assert!(poll(stays.as_mut()).is_none(), "an account has two at most");
        let _other = poll(pin!(turns.take(&account("b")))).expect("others have theirs");
        drop(held);
        assert!(poll(stays.as_mut()).is_some());
        assert!(turns.state().waiting.is_empty());
    }
}
