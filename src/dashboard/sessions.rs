//! Who is logged in by a cookie. Owns the sessions, their ends and their bounds; not what a grant opens, which is looked up again
//! for every request, so that a credential that is removed ends with its sessions.
//!
//! Invariant: memory is bounded; an id was made here, is random, and is kept as its hash alone; a credential's logins end no session
//! of one that has fewer, and an account's none of an operator.

use crate::job::AccountId;
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a session may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBounds {
    /// From its last use to its end.
    pub idle: Duration,
    /// From a login to the end of what it opened.
    pub life: Duration,
    /// Sessions that hold one account, and sessions of operators.
    pub per_account: usize,
    /// Sessions of accounts in all; those of operators come beside them.
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
    /// Until the first of them ends by its age.
    pub left: Duration,
}

/// A grant, and when it was presented: a later login of another account does not renew it.
struct Held {
    grant: Grant,
    begun: Instant,
}

struct Entry {
    held: Vec<Held>,
    used: Instant,
}

impl Entry {
    fn is_operators(&self) -> bool {
        self.held.iter().any(|held| held.grant.account.is_none())
    }
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

    /// Begins a session with `grant` and gives its id. What the session `old` had comes along with its age, and `old` ends. Where an
    /// account has as many as it may, the credential that has most of them ends the one that it left unused longest; where all
    /// accounts have, the account that has most. Sessions of operators are counted apart, so that no account ends one.
    ///
    /// # Errors
    /// Without random bytes.
    pub fn begin(&self, old: Option<&str>, grant: Grant, now: Instant) -> Result<String, Unrandom> {
        let mut bits = [0; 32];
        SystemRandom::new().fill(&mut bits).map_err(|_| Unrandom)?;
        let id = HEXLOWER.encode(&bits);
        let mut entries = self.entries();
        entries.retain(|_, entry| self.bounds.keeps(entry, now));
        let mut held = old.and_then(|old| entries.remove(&key(old))).map_or(Vec::new(), |old| old.held);
        held.retain(|other| other.grant.account != grant.account);
        held.push(Held { grant, begun: now });
        if held.len() > GRANTS_MAX {
            held.remove(0);
        }
        let entry = Entry { held, used: now };
        self.bounds.make_room_for(&entry, &mut entries);
        entries.insert(key(&id), entry);
        Ok(id)
    }

    /// The session of that id, if it has not ended. `uses`: whether somebody used it now; a stream that goes on does not, and
    /// neither does what a page asks by itself.
    pub fn find(&self, id: &str, now: Instant, uses: bool) -> Option<Session> {
        let mut entries = self.entries();
        let key = key(id);
        let entry = entries.get_mut(&key)?;
        if !self.bounds.keeps(entry, now) {
            entries.remove(&key);
            return None;
        }
        if uses {
            entry.used = now;
        }
        let ends = entry.held.iter().map(|held| held.begun + self.bounds.life).min()?;
        let grants = entry.held.iter().map(|held| held.grant.clone()).collect();
        Some(Session { grants, left: ends.saturating_duration_since(now) })
    }

    /// Ends what sessions hold of grants that open nothing any more, and sessions of which nothing is left: they do not come back with
    /// a credential that is written down again.
    pub fn end_closed(&self, opens: impl Fn(&Grant) -> bool) {
        self.entries().retain(|_, entry| {
            entry.held.retain(|held| opens(&held.grant));
            !entry.held.is_empty()
        });
    }

    /// Ends a session; whether there was one.
    pub fn end(&self, id: &str) -> bool {
        self.entries().remove(&key(id)).is_some()
    }
}

impl SessionBounds {
    /// Takes grants away that are too old; whether anything is left of the session.
    fn keeps(&self, entry: &mut Entry, now: Instant) -> bool {
        entry.held.retain(|held| now.saturating_duration_since(held.begun) < self.life);
        !entry.held.is_empty() && now.saturating_duration_since(entry.used) < self.idle
    }

    fn make_room_for(&self, newcomer: &Entry, entries: &mut HashMap<Key, Entry>) {
        let proof_of = |entry: &Entry, account: Option<&AccountId>| -> Vec<[u8; 96]> {
            let of = entry.held.iter().filter(|held| held.grant.account.as_ref() == account);
            of.map(|held| held.grant.proof).collect()
        };
        if newcomer.is_operators() {
            return make_room(entries, self.per_account, newcomer, |entry| proof_of(entry, None));
        }
        for account in newcomer.held.iter().map(|held| held.grant.account.as_ref()) {
            make_room(entries, self.per_account, newcomer, |entry| match entry.is_operators() {
                true => Vec::new(),
                false => proof_of(entry, account),
            });
        }
        make_room(entries, self.all, newcomer, |entry| match entry.is_operators() {
            true => Vec::new(),
            false => entry.held.iter().map(|held| held.grant.account.clone()).collect(),
        });
    }
}

/// Ends sessions until `newcomer` has room among those that have a payer: of the payer that has most of them, with the newcomer,
/// the one that was unused longest.
fn make_room<P: Eq + Hash>(
    entries: &mut HashMap<Key, Entry>,
    max: usize,
    newcomer: &Entry,
    payers: impl Fn(&Entry) -> Vec<P>,
) {
    loop {
        let of: Vec<_> = entries.iter().map(|(key, entry)| (*key, entry.used, payers(entry))).collect();
        let of: Vec<_> = of.into_iter().filter(|(.., payers)| !payers.is_empty()).collect();
        if of.len() < max {
            return;
        }
        let mut counts: HashMap<P, usize> = HashMap::new();
        for payer in payers(newcomer) {
            *counts.entry(payer).or_default() += 1;
        }
        for payer in entries.values().flat_map(&payers) {
            *counts.entry(payer).or_default() += 1;
        }
        let most = |payers: &[P]| payers.iter().filter_map(|payer| counts.get(payer)).max().copied();
        let ends = of.iter().max_by_key(|(_, used, payers)| (most(payers), Reverse(*used)));
        let Some((key, ..)) = ends else { return };
        entries.remove(key);
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

    fn by(account: Option<&str>, proof: u8) -> Grant {
        Grant { account: account.map(|account| AccountId(account.to_owned())), proof: [proof; 96] }
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
    fn a_second_account_does_not_renew_the_first_and_each_ends_by_its_own_age() {
        let (sessions, start) = (Sessions::new(BOUNDS), Instant::now());
        let hours = |count: u64| start + Duration::from_secs(3600 * count);
        // Somebody uses it all the time.
        let used_until = |id: &str, from: u64, to: u64| {
            for third in 3 * from..3 * to {
                assert!(sessions.find(id, start + Duration::from_secs(1200 * third), true).is_some());
            }
        };
        let first = sessions.begin(None, of("a"), start).unwrap();
        used_until(&first, 0, 11);
        let both = sessions.begin(Some(&first), of("b"), hours(11)).unwrap();
        assert_eq!(sessions.find(&both, hours(11), true).unwrap().left, Duration::from_secs(3600));
        used_until(&both, 11, 12);
        let session = sessions.find(&both, hours(12), true).unwrap();
        assert_eq!((accounts(&session), session.left), (vec!["b"], Duration::from_secs(11 * 3600)));
        // Nor does it come back with a third.
        let third = sessions.begin(Some(&both), of("c"), hours(12)).unwrap();
        assert_eq!(accounts(&sessions.find(&third, hours(12), true).unwrap()), ["b", "c"]);
        used_until(&third, 12, 23);
        assert_eq!(accounts(&sessions.find(&third, hours(23), true).unwrap()), ["c"]);
        used_until(&third, 23, 24);
        assert!(sessions.find(&third, hours(24), true).is_none());
    }

    #[test]
    fn the_logins_of_one_credential_end_its_own_sessions_and_none_of_another() {
        let (sessions, start) = (Sessions::new(BOUNDS), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let writer = sessions.begin(None, by(Some("a"), 1), at(0)).unwrap();
        let readers: Vec<_> =
            (1..=16).map(|n| sessions.begin(None, by(Some("a"), 2), at(n)).unwrap()).collect();
        assert!(sessions.find(&writer, at(17), false).is_some(), "it was unused longest");
        let alive = readers.iter().filter(|id| sessions.find(id, at(17), false).is_some());
        assert_eq!(alive.count(), BOUNDS.per_account - 1);
        // Where each has one, it is the one that was unused longest.
        let third = sessions.begin(None, by(Some("a"), 3), at(18)).unwrap();
        let fourth = sessions.begin(None, by(Some("a"), 4), at(19)).unwrap();
        assert!(sessions.find(&writer, at(20), false).is_none());
        assert!([&third, &fourth].iter().all(|id| sessions.find(id, at(20), false).is_some()));
    }

    #[test]
    fn accounts_end_no_session_of_an_operator_nor_of_one_that_has_fewer() {
        let (sessions, start) = (Sessions::new(BOUNDS), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let operator = sessions.begin(None, by(None, 9), at(0)).unwrap();
        let quiet = sessions.begin(None, of("quiet"), at(1)).unwrap();
        for n in 2..100 {
            let name = ["greedy", "busy"][usize::from(n % 4 == 0)];
            sessions.begin(None, of(name), at(n)).unwrap();
        }
        let lives = |id: &String| sessions.find(id, at(100), false).is_some();
        assert!(lives(&operator) && lives(&quiet));
        // An operator who is also logged in to an account is one.
        let both = sessions.begin(Some(&operator), of("greedy"), at(101)).unwrap();
        for n in 102..200 {
            sessions.begin(None, of("greedy"), at(n)).unwrap();
        }
        assert!(sessions.find(&both, at(200), false).is_some());
        for n in 201..300 {
            sessions.begin(None, by(None, 8), at(n)).unwrap();
        }
        assert!(sessions.find(&both, at(300), false).is_some(), "another operator has more");
        assert!(sessions.entries().len() <= BOUNDS.all + BOUNDS.per_account);
    }

    #[test]
    fn no_id_is_kept() {
        let (sessions, now) = (Sessions::new(BOUNDS), Instant::now());
        let id = sessions.begin(None, of("a"), now).unwrap();
        assert!(sessions.entries().keys().all(|key| key[..] != *id.as_bytes() && *key == super::key(&id)));
    }
}
