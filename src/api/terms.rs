//! What may change while requests are answered: who may ask, what may be asked for, and what is said of it. Owns its exchange; not
//! where it comes from.
//!
//! Invariant: a request is judged by one state of all three.

use super::auth::Accounts;
use super::routes;
use super::{Offers, Rules};
use crate::dashboard::Sessions;
use crate::job::AccountId;
use bytes::Bytes;
use std::sync::{Arc, PoisonError, RwLock};

/// See the module.
pub struct Terms {
    /// Who may ask.
    pub accounts: Accounts,
    /// What may be asked for.
    pub rules: Rules,
    /// What is said of it.
    pub offers: Offers,
    /// The OpenAPI document with these rules.
    pub(super) document: Bytes,
}

impl Terms {
    /// Of these.
    #[must_use]
    pub fn new(accounts: Accounts, rules: Rules, offers: Offers) -> Self {
        let document = routes::document(&rules);
        Self { accounts, rules, offers, document }
    }
}

/// The terms that hold now. Clones have the same.
#[derive(Clone)]
pub struct CurrentTerms(Arc<RwLock<Arc<Terms>>>);

impl CurrentTerms {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(terms))))
    }

    /// Those that hold now.
    #[must_use]
    pub fn now(&self) -> Arc<Terms> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests from now on are judged by `terms`. Peers that failed to authenticate owe what they owed.
    pub fn replace(&self, terms: Terms) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let accounts = terms.accounts.after(&held.accounts);
        *held = Arc::new(Terms { accounts, ..terms });
    }

    /// Requests of each account that were refused because it had asked more than its rate.
    #[must_use]
    pub fn refused_requests(&self) -> Vec<(AccountId, u64)> {
        self.now().accounts.refused_requests()
    }

    /// Ends sessions of the dashboard that were opened by credentials that are none any more.
    pub fn end_sessions(&self, sessions: &Sessions) {
        let terms = self.now();
        sessions.end_closed(|grant| terms.accounts.opens(grant));
    }
}
