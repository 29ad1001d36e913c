//! Who is logged in by a cookie. Owns the sessions, their ends and their bounds; not what a grant opens, which is looked up again
//! for every request, so that a credential that is removed ends with its sessions.
//!
//! Invariant: memory is bounded; an id was made here, is random, and is kept as its hash alone.

use crate::job::AccountId;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a session may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBounds {
    /// From its last use to its end.
    pub idle: Duration,
    /// From its beginning to its end.
    pub life: Duration,
    /// Sessions that hold one account, and sessions of operators.
    pub per_account: usize,
    /// Sessions in all.
    pub all: usize,
}

/// Credentials in one session: as many accounts as somebody looks at.
const GRANTS_MAX: usize = 16;

/// A credential that was presented at a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is; an operator's if none.
    pub account: Option<AccountId>,
    /// What it is compared by: hashes, no secret.
    pub proof: [u8; 96],
}

/// A session as a request finds it.
#[derive(Clone, Debug)]
pub struct Session {
    /// What was presented at its logins, the newest last.
    pub grants: Vec<Grant>,
    /// Until its absolute end.
    pub left: Duration,
}

struct Entry {
    grants: Vec<Grant>,
    begun: Instant,
    used: Instant,
}

/// SHA-256 of an id.
type Key = [u8; 32];

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("this host has no random numbers for a session; ask its operator")]
pub struct Unrandom;

/// See the module.
pub struct Sessions {
    bounds: SessionBounds,
    entries: Mutex<HashMap<Key, Entry>>,
}

fn key(id: &str) -> Key {
    Sha256::digest(id).into()
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(bounds: SessionBounds) -> Self {
        Self { bounds, entries: Mutex::default() }
    }

    /// The bounds.
    #[must_use]
    pub fn bounds(&self) -> SessionBounds {
        self.bounds
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session with `grant` and gives its id. What the session `old` had comes along, and `old` ends. Where there are as
    /// many as may be, the one that was unused longest ends.
    ///
    /// # Errors
    /// Without random bytes.
    pub fn begin(&self, old: Option<&str>, grant: Grant, now: Instant) -> Result<String, Unrandom> {
        let mut bits = [0; 32];
        SystemRandom::new().fill(&mut bits).map_err(|_| Unrandom)?;
        let id = bits.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _never = write!(text, "{byte:02x}");
            text
        });
        let mut entries = self.entries();
        entries.retain(|_, entry| !self.bounds.is_over(entry, now));
        let mut grants = old.and_then(|old| entries.remove(&key(old))).map_or(Vec::new(), |old| old.grants);
        grants.retain(|other| other.account != grant.account);
        grants.push(grant);
        if grants.len() > GRANTS_MAX {
            grants.remove(0);
        }
        for grant in &grants {
            let is_of = |entry: &Entry| entry.grants.iter().any(|other| other.account == grant.account);
            make_room(&mut entries, self.bounds.per_account, is_of);
        }
        make_room(&mut entries, self.bounds.all, |_| true);
        entries.insert(key(&id), Entry { grants, begun: now, used: now });
        Ok(id)
    }

    /// The session of that id, if it has not ended. `uses`: whether somebody used it now; a stream that goes on does not.
    pub fn find(&self, id: &str, now: Instant, uses: bool) -> Option<Session> {
        let mut entries = self.entries();
        let key = key(id);
        let entry = entries.get_mut(&key)?;
        if self.bounds.is_over(entry, now) {
            entries.remove(&key);
            return None;
        }
        if uses {
            entry.used = now;
        }
        let left = (entry.begun + self.bounds.life).saturating_duration_since(now);
        Some(Session { grants: entry.grants.clone(), left })
    }

    /// Ends a session; whether there was one.
    pub fn end(&self, id: &str) -> bool {
        self.entries().remove(&key(id)).is_some()
    }
}

impl SessionBounds {
    fn is_over(&self, entry: &Entry, now: Instant) -> bool {
        now.saturating_duration_since(entry.begun) >= self.life
            || now.saturating_duration_since(entry.used) >= self.idle
    }
}

/// Ends sessions until one more of that kind has room.
fn make_room(entries: &mut HashMap<Key, Entry>, max: usize, is_of: impl Fn(&Entry) -> bool) {
    loop {
        let of = entries.iter().filter(|(_, entry)| is_of(entry));
        if of.clone().count() < max {
            return;
        }
        let Some(oldest) = of.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) else { return };
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SessionBounds = SessionBounds {
        idle: Duration::from_secs(1800),
        life: Duration::from_secs(43_200),
        per_account: 3,
        all: 5,
    };

    fn of(account: &str) -> Grant {
        Grant { account: Some(AccountId(account.to_owned())), proof: [7; 96] }
    }

    fn accounts(session: &Session) -> Vec<&str> {
        session.grants.iter().filter_map(|grant| Some(grant.account.as_ref()?.0.as_str())).collect()
    }

    #[test]
    fn a_session_ends_by_idleness_and_by_age_and_a_stream_prolongs_neither() {
        let (sessions, start) = (Sessions::new(BOUNDS), Instant::now());
        let id = sessions.begin(None, of("a"), start).unwrap();
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        assert!(sessions.find(&id, minutes(29), true).is_some());
        assert!(sessions.find(&id, minutes(58), false).is_some());
        assert!(sessions.find(&id, minutes(59), true).is_none(), "30 minutes after its last use");
        let id = sessions.begin(None, of("a"), start).unwrap();
        for count in 1..36 {
            assert!(sessions.find(&id, minutes(20 * count), true).is_some());
        }
        assert!(sessions.find(&id, minutes(720), true).is_none(), "12 hours after its beginning");
    }

    #[test]
    fn a_login_makes_a_new_id_that_holds_the_accounts_of_the_old_one_which_ends() {
        let (sessions, now) = (Sessions::new(BOUNDS), Instant::now());
        let first = sessions.begin(None, of("a"), now).unwrap();
        let second = sessions.begin(Some(&first), of("b"), now).unwrap();
        assert!(first != second && second.len() == 64 && sessions.find(&first, now, true).is_none());
        assert_eq!(accounts(&sessions.find(&second, now, true).unwrap()), ["a", "b"]);
        // An id that somebody made up is none, also after a login that named it.
        let third = sessions.begin(Some("chosen"), of("a"), now).unwrap();
        assert!(sessions.find("chosen", now, true).is_none());
        assert_eq!(accounts(&sessions.find(&third, now, true).unwrap()), ["a"]);
        assert!(sessions.end(&third) && !sessions.end(&third) && sessions.find(&third, now, true).is_none());
    }

    #[test]
    fn an_account_and_the_host_have_so_many_sessions_and_the_longest_unused_one_makes_room() {
        let (sessions, start) = (Sessions::new(BOUNDS), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let of_a: Vec<_> = (0..3).map(|n| sessions.begin(None, of("a"), at(n)).unwrap()).collect();
        assert!(sessions.find(&of_a[0], at(4), true).is_some());
        let other = sessions.begin(None, of("b"), at(5)).unwrap();
        let fourth = sessions.begin(None, of("a"), at(6)).unwrap();
        let lives = |id: &String| sessions.find(id, at(7), false).is_some();
        assert_eq!(of_a.iter().map(lives).collect::<Vec<_>>(), [true, false, true]);
        assert!(lives(&other) && lives(&fourth));
        for name in ["c", "d", "e", "f"] {
            sessions.begin(None, of(name), at(8)).unwrap();
        }
        assert_eq!(sessions.entries().len(), BOUNDS.all);
    }

    #[test]
    fn no_id_is_kept() {
        let (sessions, now) = (Sessions::new(BOUNDS), Instant::now());
        let id = sessions.begin(None, of("a"), now).unwrap();
        assert!(sessions.entries().keys().all(|key| key[..] != *id.as_bytes() && *key == super::key(&id)));
    }
}
