//! Settings that change while captures run. Owns what that means for the accounts: their numbers at the workers, what they see, and
//! the end of those that are gone; not where settings come from.
//!
//! Invariant: an account that is gone starts nothing and sees no packet more, and one that stays loses none by the change.

use super::{Engine, config};
use crate::block::Payer;
use crate::engine::Settings;
use crate::engine::machine::Input;
use crate::job::AccountId;
use crate::matcher::PrefixSet;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The accounts by their numbers at the workers, and those that are gone.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    /// As metrics call them. None is another account's later.
    numbers: HashMap<AccountId, u64>,
    payers: HashMap<AccountId, usize>,
    gone: HashSet<AccountId>,
}

impl Tenants {
    pub fn new(accounts: &[AccountId]) -> Self {
        let mut tenants = Self::default();
        tenants.renew(accounts);
        tenants
    }

    /// These accounts from now on. One that was there keeps its number; a number that became free is another's, because a block says
    /// with its number whose it is and comes back soon.
    pub fn renew(&mut self, accounts: &[AccountId]) {
        let now: HashSet<&AccountId> = accounts.iter().collect();
        let gone: Vec<_> = self.payers.keys().filter(|account| !now.contains(account)).cloned().collect();
        for account in gone {
            self.payers.remove(&account);
            self.gone.insert(account);
        }
        let taken: HashSet<usize> = self.payers.values().copied().collect();
        let mut free = (0..).filter(|number| !taken.contains(number));
        for account in accounts {
            self.gone.remove(account);
            let next = self.numbers.len() as u64;
            self.numbers.entry(account.clone()).or_insert(next);
            if !self.payers.contains_key(account) {
                self.payers.insert(account.clone(), free.next().unwrap_or(0));
            }
        }
    }

    /// Whose blocks an account's captures take; the host's own, if nobody knows the account.
    pub fn payer(&self, account: &AccountId) -> Payer {
        self.payers.get(account).map_or(Payer::HOST, |number| Payer::account(*number))
    }

    /// What metrics call an account: its place in the config at the start, and of one that came later the next number. It keeps it, and
    /// no other account gets it, as long as the process lives.
    pub fn number(&self, account: &AccountId) -> Option<u64> {
        self.numbers.get(account).copied()
    }

    pub fn is_gone(&self, account: &AccountId) -> bool {
        self.gone.contains(account)
    }
}

impl Engine {
    /// The prefixes that an account may see: every packet if none.
    pub(super) fn scope(&self, account: &AccountId) -> Option<Arc<PrefixSet>> {
        if self.tenants.is_gone(account) {
            return Some(Arc::new(PrefixSet::new(&[])));
        }
        self.planes.settings.scopes.get(account).cloned()
    }

    /// Goes on with `settings`.
    pub(super) fn take_up(&mut self, settings: Settings) {
        self.retries.send_replace(settings.retries());
        self.planes.settings = settings;
        let settings = &self.planes.settings;
        let before = self.tenants.numbers.len();
        self.tenants.renew(&settings.accounts);
        for account in &settings.accounts {
            if let Some(number) = self.tenants.number(account).filter(|number| *number >= before as u64) {
                tracing::info!(%account, number, "metrics call a new account by this number, until trawl is restarted");
            }
        }
        self.planes.spool.set_shares(settings.account.share, settings.account.part);
        self.machine.reconfigure(config(&self.planes, self.assignments.streams()));
        let captures = self.machine.captures().filter(|capture| capture.takes_packets());
        let captures = captures.map(|capture| (capture.serial, capture.job.request.account.clone()));
        let accounts: HashMap<_, _> = captures.collect();
        let scopes: HashMap<u64, _> =
            accounts.iter().map(|(serial, account)| (*serial, self.scope(account))).collect();
        // The history's recording has no account.
        let scope = |serial: u64, own| scopes.get(&serial).map_or(own, Clone::clone);
        self.assignments.set_accounts(self.planes.settings.accounts.len(), scope);
        self.stop_gone();
    }

    /// What captures of accounts that are gone have taken is delivered.
    fn stop_gone(&mut self) {
        let takes = self.machine.captures().filter(|capture| capture.slot.is_some());
        let gone: Vec<_> = takes
            .filter(|capture| self.tenants.is_gone(&capture.job.request.account))
            .map(|capture| (capture.serial, capture.job.id.clone()))
            .collect();
        for (serial, id) in gone {
            tracing::warn!(capture = %id, "capture stops: its account was taken out of the config");
            self.feed(Input::Stop { serial, reply: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_keeps_its_number_and_one_that_is_gone_starts_nothing_until_it_is_back() {
        let ids =
            |names: &[&str]| -> Vec<_> { names.iter().map(|name| AccountId((*name).to_owned())).collect() };
        let [a, b, c] = ["a", "b", "c"].map(|name| AccountId(name.to_owned()));
        let mut tenants = Tenants::new(&ids(&["a", "b"]));
        assert_eq!((tenants.payer(&a), tenants.payer(&b)), (Payer::account(0), Payer::account(1)));
        assert_eq!(tenants.payer(&c), Payer::HOST);
        tenants.renew(&ids(&["c", "b"]));
        assert_eq!((tenants.payer(&b), tenants.payer(&c)), (Payer::account(1), Payer::account(0)));
        assert!(tenants.is_gone(&a) && !tenants.is_gone(&b) && !tenants.is_gone(&c));
        tenants.renew(&ids(&["a", "b", "c"]));
        assert_eq!(tenants.payer(&a), Payer::account(2));
        assert!(!tenants.is_gone(&a));
    }

    #[test]
    fn metrics_call_an_account_by_one_number_whatever_comes_and_goes_before_it_in_the_config() {
        let ids =
            |names: &[&str]| -> Vec<_> { names.iter().map(|name| AccountId((*name).to_owned())).collect() };
        let mut tenants = Tenants::new(&ids(&["a", "b", "c"]));
        let numbers =
            |tenants: &Tenants| ["a", "b", "c", "d"].map(|name| tenants.number(&AccountId(name.to_owned())));
        assert_eq!(numbers(&tenants), [Some(0), Some(1), Some(2), None]);
        for now in [&["c", "b"] as &[_], &["d", "c", "b"], &["b", "a", "d", "c"], &["c"]] {
            tenants.renew(&ids(now));
            let [a, b, c, d] = numbers(&tenants);
            assert_eq!([a, b, c], [Some(0), Some(1), Some(2)], "{now:?}");
            assert!(d.is_none_or(|number| number == 3), "{now:?}");
        }
    }
}
