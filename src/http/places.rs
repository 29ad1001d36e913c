//! The places for connections. Owns how many there are, how many of them one peer and one account may take, and who makes room;
//! not what a connection does.
//!
//! A connection without a right credential (a stranger) keeps its place only as long as nobody needs it. Where a peer has as many as
//! it may, its own oldest stranger makes room; where all places are taken, the oldest stranger of the peer that has most of
//! them. So idle connections and unfinished handshakes keep nobody out.
//!
//! A connection with a right credential counts for its account. Where an account has as many as it may, the one of its own that has
//! been idle longest makes room; if all are at work, the newcomer's request is refused and it stays a stranger. So one account does
//! not take the places of the others, from however many peers it comes.
//!
//! Accounts together keep all places but those that are reserved for operators. There is always a stranger in one of these, or nobody,
//! so that an operator's connection gets in, and his credential keeps it.
//!
//! Invariant: there are never more connections than places, a connection with a right credential is never ended for one of another
//! account, and addresses that are not the host's own never take the last places that are reserved for those that are.

use super::counts::{Cut, closed, opened};
use super::peer::{Peer, Standing};
use super::serve::Bounds;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// See the module.
pub(super) struct Places {
    bounds: Bounds,
    seats: Mutex<Seats>,
    /// A place became free although no connection ended.
    freed: Notify,
}

#[derive(Default)]
struct Seats {
    last: u64,
    /// By age: the oldest first.
    taken: BTreeMap<u64, Seat>,
    by_peer: HashMap<IpAddr, usize>,
    by_account: HashMap<Arc<str>, usize>,
}

struct Seat {
    /// See [`Peer::network`].
    peer: IpAddr,
    /// The first one that a right credential was of.
    account: Option<Arc<str>>,
    /// Whether that is the operators'.
    is_operators: bool,
    standing: Arc<Standing>,
    /// Its task, once there is one.
    task: Option<AbortHandle>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The peer has as many as it may.
    ForPeer,
    /// Until a connection ends.
    Yet,
}

/// What a newcomer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// The place of this one.
    Of(u64),
    /// Its peer has as many as it may, all with a right credential.
    NotForPeer,
    /// All that it could take have a right credential, or are reserved.
    Full,
}

impl Seats {
    fn count(&self, is_of: impl Fn(IpAddr) -> bool) -> usize {
        self.by_peer.iter().filter(|(peer, _)| is_of(**peer)).map(|(_, count)| count).sum()
    }

    fn strangers(&self) -> impl Iterator<Item = (u64, IpAddr)> {
        let strangers = self.taken.iter().filter(|(_, seat)| !seat.standing.has_credential());
        strangers.map(|(id, seat)| (*id, seat.peer))
    }

    /// The oldest stranger of the peer that has most of them.
    fn to_displace(&self, is_candidate: impl Fn(IpAddr) -> bool) -> Option<u64> {
        let mut by_peer: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (id, peer) in self.strangers().filter(|(_, peer)| is_candidate(*peer)) {
            by_peer.entry(peer).or_insert((0, id)).0 += 1;
        }
        // Of peers that have as many, the one that has the oldest.
        let most = by_peer.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
        most.map(|(_, oldest)| oldest)
    }

    fn room(&self, bounds: &Bounds, peer: IpAddr, is_bounded: bool) -> Room {
        let of_peer = self.by_peer.get(&peer).copied().unwrap_or(0);
        // Where one peer may have them all, the bound on all is the one that counts.
        let is_bounded = is_bounded && bounds.connections_per_peer_max < bounds.connections_max;
        if is_bounded && of_peer >= bounds.connections_per_peer_max {
            let oldest = self.strangers().find(|(_, other)| *other == peer);
            return oldest.map_or(Room::NotForPeer, |(id, _)| Room::Of(id));
        }
        let is_remote = |peer: IpAddr| !peer.is_loopback();
        let remote_max = bounds.connections_max - bounds.loopback_reserved;
        let no_remote = is_remote(peer) && self.count(is_remote) >= remote_max;
        if !no_remote && self.taken.len() < bounds.connections_max {
            return Room::Free;
        }
        let spares_local = is_remote(peer) && self.count(|peer| !is_remote(peer)) <= bounds.loopback_reserved;
        let is_candidate = |other| is_remote(other) || !(no_remote || spares_local);
        self.to_displace(is_candidate).map_or(Room::Full, Room::Of)
    }

    fn add(&mut self, peer: IpAddr, places: Weak<Places>) -> (u64, Arc<Standing>) {
        self.last += 1;
        let standing = Arc::new(Standing::new(self.last, places));
        let seat =
            Seat { peer, account: None, is_operators: false, standing: Arc::clone(&standing), task: None };
        self.taken.insert(self.last, seat);
        *self.by_peer.entry(peer).or_default() += 1;
        (self.last, standing)
    }

    fn remove(&mut self, id: u64) -> Option<Seat> {
        let seat = self.taken.remove(&id)?;
        one_less(&mut self.by_peer, &seat.peer);
        if let Some(account) = &seat.account {
            one_less(&mut self.by_account, account);
        }
        Some(seat)
    }

    fn displace(&mut self, id: u64, cut: Cut) {
        if let Some(task) = self.remove(id).and_then(|seat| seat.task) {
            task.abort();
        }
        cut.count();
    }

    /// Counts a connection for an account; whether the account may have it.
    fn admit(&mut self, bounds: &Bounds, id: u64, account: &str, is_operators: bool) -> bool {
        let of_account = self.by_account.get(account).copied().unwrap_or(0);
        let of_accounts = || self.taken.values().filter(|seat| seat.account.is_some() && !seat.is_operators);
        let accounts_max = bounds.connections_max.saturating_sub(bounds.operators_reserved);
        let no_room = !is_operators && bounds.operators_reserved > 0 && of_accounts().count() >= accounts_max;
        if no_room || of_account >= bounds.connections_per_account_max {
            let own = self.taken.iter().filter(|(_, seat)| seat.account.as_deref() == Some(account));
            let idle = own.filter_map(|(other, seat)| Some((seat.standing.idle_since()?, *other))).min();
            let Some((_, longest)) = idle else {
                Cut::AccountFull.count();
                return false;
            };
            self.displace(longest, Cut::AccountFull);
        }
        // If it is no longer there it has made room, and is about to end.
        if let Some(seat) = self.taken.get_mut(&id) {
            let account: Arc<str> = account.into();
            (seat.account, seat.is_operators) = (Some(Arc::clone(&account)), is_operators);
            *self.by_account.entry(account).or_default() += 1;
        }
        true
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Places {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, seats: Mutex::default(), freed: Notify::new() })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a newcomer could get a place; if none could, it may as well wait in the listener's backlog.
    pub fn has_room(&self) -> bool {
        let seats = self.seats();
        seats.taken.len() < self.bounds.connections_max || seats.strangers().next().is_some()
    }

    /// A place for a connection of `peer`, whose own bound counts if `is_bounded`.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(self: &Arc<Self>, peer: Peer, is_bounded: bool) -> Result<Place, NoPlace> {
        let peer = peer.network();
        let mut seats = self.seats();
        match seats.room(&self.bounds, peer, is_bounded) {
            Room::Free => {}
            Room::Of(other) => seats.displace(other, Cut::Displaced),
            Room::NotForPeer => {
                Cut::PeerFull.count();
                return Err(NoPlace::ForPeer);
            }
            Room::Full => return Err(NoPlace::Yet),
        }
        let (id, standing) = seats.add(peer, Arc::downgrade(self));
        drop(seats);
        opened();
        Ok(Place { id, standing, places: Arc::clone(self) })
    }

    /// From now on `task` is what ends when that place is needed.
    pub fn started(&self, id: u64, task: AbortHandle) {
        match self.seats().taken.get_mut(&id) {
            Some(seat) => seat.task = Some(task),
            // It was needed already, or the task has ended.
            None => task.abort(),
        }
    }

    /// Ends the stranger that a newcomer would displace, because the process lacks what a connection needs; whether there was one.
    pub fn shrink(&self) -> bool {
        let mut seats = self.seats();
        let stranger = seats.to_displace(|_| true);
        if let Some(id) = stranger {
            seats.displace(id, Cut::Displaced);
        }
        stranger.is_some()
    }

    /// Lets a connection go on that takes no place: it is a stream, which its own bound holds.
    pub fn exempt(&self, id: u64) {
        self.seats().remove(id);
        self.freed.notify_one();
    }

    /// Waits until a connection gave its place back and goes on.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Counts a connection for the account whose credential it presented. False if the account has as many as it may, all of them
    /// at work.
    pub fn admit(&self, id: u64, account: &str, is_operators: bool) -> bool {
        self.seats().admit(&self.bounds, id, account, is_operators)
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    pub id: u64,
    pub standing: Arc<Standing>,
    places: Arc<Places>,
}

impl Place {
    /// It is the connection of another peer, as its proxy says. False if that peer has as many as it may.
    pub fn is_of(&self, peer: Peer) -> bool {
        let peer = peer.network();
        let mut seats = self.places.seats();
        // Taken out before its peer's others are counted, and it must not make room for itself.
        let Some(seat) = seats.remove(self.id) else { return false };
        let room = seats.room(&self.places.bounds, peer, true);
        match room {
            Room::Of(other) => seats.displace(other, Cut::Displaced),
            Room::NotForPeer | Room::Full => Cut::PeerFull.count(),
            Room::Free => {}
        }
        let has_room = matches!(room, Room::Free | Room::Of(_));
        if has_room {
            *seats.by_peer.entry(peer).or_default() += 1;
            seats.taken.insert(self.id, Seat { peer, ..seat });
        }
        has_room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        closed();
        self.places.seats().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn places(
        connections_max: usize,
        connections_per_peer_max: usize,
        loopback_reserved: usize,
    ) -> Arc<Places> {
        let bounds = Bounds::new(connections_max, Duration::from_secs(1));
        Places::new(Bounds { connections_per_peer_max, loopback_reserved, ..bounds })
    }

    fn peer(text: &str) -> Peer {
        Peer(text.parse().unwrap())
    }

    fn take(places: &Arc<Places>, text: &str) -> Result<Place, NoPlace> {
        places.take(peer(text), true)
    }

    fn is_there(place: &Place) -> bool {
        place.places.seats().taken.contains_key(&place.id)
    }

    #[test]
    fn a_peer_at_its_bound_displaces_its_own_oldest_stranger_and_nobody_else() {
        let places = places(10, 2, 0);
        let other = take(&places, "192.0.2.9").unwrap();
        let [first, second] = ["2001:db8::1", "2001:db8::2"].map(|text| take(&places, text).unwrap());
        let third = take(&places, "2001:db8::3").unwrap();
        assert_eq!([&other, &first, &second, &third].map(is_there), [true, false, true, true]);
        for place in [&second, &third] {
            assert!(place.standing.credential_was_right("a"));
        }
        assert!(take(&places, "2001:db8::4").err() == Some(NoPlace::ForPeer) && is_there(&other));
        drop(second);
        assert!(take(&places, "2001:db8::4").is_ok());
    }

    #[test]
    fn when_all_places_are_taken_the_peer_with_most_strangers_makes_room() {
        let places = places(5, 5, 0);
        let customer = take(&places, "192.0.2.1").unwrap();
        assert!(customer.standing.credential_was_right("a"));
        let quiet = take(&places, "192.0.2.2").unwrap();
        let greedy: Vec<_> = (0..3).map(|_| take(&places, "192.0.2.3").unwrap()).collect();
        let newcomer = take(&places, "192.0.2.4").unwrap();
        assert!([&customer, &quiet, &newcomer].into_iter().all(is_there));
        assert_eq!(greedy.iter().map(is_there).collect::<Vec<_>>(), [false, true, true]);
        for place in greedy.iter().chain([&quiet, &newcomer]) {
            assert!(place.standing.credential_was_right("a"));
        }
        assert!(!places.has_room() && take(&places, "192.0.2.5").err() == Some(NoPlace::Yet));
        drop(customer);
        assert!(places.has_room());
    }

    #[test]
    fn reserved_places_stay_for_the_host_itself_whoever_else_comes() {
        let places = places(4, 4, 2);
        let mut held = Vec::new();
        for host in 0..20 {
            held.push(take(&places, &format!("192.0.2.{host}")).unwrap());
        }
        assert_eq!(held.iter().filter(|place| is_there(place)).count(), 2);
        let own = [take(&places, "127.0.0.1").unwrap(), take(&places, "::1").unwrap()];
        for host in 20..40 {
            held.push(take(&places, &format!("192.0.2.{host}")).unwrap());
            assert!(own.iter().all(is_there));
        }
        // Its own connections do not add up beyond all places either.
        let more: Vec<_> = (0..20).map(|_| take(&places, "127.0.0.2").unwrap()).collect();
        assert!(places.seats().taken.len() <= 4);
        assert_eq!(more.iter().chain(&own).chain(&held).filter(|place| is_there(place)).count(), 4);
    }

    #[test]
    fn a_connection_is_counted_for_the_client_that_its_proxy_names() {
        let places = places(10, 1, 0);
        let [first, second, third] = [0; 3].map(|_| places.take(peer("192.0.2.1"), false).unwrap());
        assert!(first.is_of(peer("198.51.100.1")) && second.is_of(peer("198.51.100.2")));
        assert!(first.standing.credential_was_right("a"));
        assert!(!third.is_of(peer("198.51.100.1")), "its peer has all that it may");
        assert!(is_there(&first) && is_there(&second) && !is_there(&third));
        drop(third);
        let fourth = places.take(peer("192.0.2.1"), false).unwrap();
        assert!(fourth.is_of(peer("198.51.100.2")) && !is_there(&second));
        assert_eq!(places.seats().by_peer.len(), 2);
    }

    #[test]
    fn an_account_at_its_bound_gives_up_its_longest_idle_connection() {
        let bounds = Bounds::new(100, Duration::from_secs(1));
        let places = Places::new(Bounds { connections_per_account_max: 3, ..bounds });
        let of = |host: u8, account: &str| {
            let place = take(&places, &format!("192.0.2.{host}")).unwrap();
            place.standing.request();
            let is_admitted = place.standing.credential_was_right(account);
            (place, is_admitted)
        };
        let (other, _) = of(1, "other");
        other.standing.answered();
        let (stranger, own) = (take(&places, "192.0.2.2").unwrap(), [3, 4, 5].map(|host| of(host, "own").0));
        let (refused, is_admitted) = of(6, "own");
        assert!(!is_admitted && !refused.standing.has_credential(), "all of its own are at work");
        // Its second one is idle longer than its first.
        own[1].standing.answered();
        own[0].standing.answered();
        let (newcomer, is_admitted) = of(7, "own");
        assert!(is_admitted);
        let there = [&other, &stranger, &own[0], &own[1], &own[2], &newcomer, &refused].map(is_there);
        assert_eq!(there, [true, true, true, false, true, true, true]);
        // One that is refused may ask again, and one that is admitted is asked nothing again.
        assert!(refused.standing.credential_was_right("own") && !is_there(&own[0]));
        assert!(newcomer.standing.credential_was_right("own"));
        drop((own, newcomer, refused));
        assert_eq!(places.seats().by_account, HashMap::from([("other".into(), 1)]));
    }

    #[test]
    fn accounts_leave_operators_their_places_for_connections() {
        let bounds = Bounds::new(8, Duration::from_secs(1));
        let places = Places::new(Bounds { operators_reserved: 2, ..bounds });
        let of = |host: u8, account: &str| {
            let place = take(&places, &format!("192.0.2.{host}")).unwrap();
            place.standing.request();
            let is_admitted = place.standing.credential_was_right(account);
            (place, is_admitted)
        };
        let accounts: Vec<_> = (0..16).map(|n| of(n, &format!("account {}", n % 4))).collect();
        assert_eq!(accounts.iter().filter(|(_, is_admitted)| *is_admitted).count(), 6);
        let operators: Vec<_> =
            (100..102).map(|host| take(&places, &format!("192.0.2.{host}")).unwrap()).collect();
        for place in &operators {
            place.standing.request();
            assert!(place.standing.operators_credential_was_right("(operators)") && is_there(place));
        }
        assert!(operators.iter().all(is_there), "and keep them");
        let kept = accounts.iter().filter(|(place, is_admitted)| *is_admitted && is_there(place));
        assert_eq!(kept.count(), 6, "no account lost one for it");
        // An account that is idle somewhere gives that one up for a new one.
        accounts[0].0.standing.answered();
        drop(operators);
        let (newcomer, is_admitted) = of(200, "account 0");
        assert!(is_admitted && is_there(&newcomer) && !is_there(&accounts[0].0));
    }

    #[test]
    fn a_stream_takes_no_place_and_gives_none_back_twice() {
        let places = places(1, 1, 0);
        let stream = take(&places, "192.0.2.1").unwrap();
        assert!(stream.standing.credential_was_right("a"));
        assert_eq!(take(&places, "192.0.2.2").err(), Some(NoPlace::Yet));
        let (instead, is_held) = (Arc::new(()), |instead: &Arc<()>| Arc::strong_count(instead) == 2);
        stream.standing.is_a_stream(Arc::clone(&instead));
        let next = take(&places, "192.0.2.2").unwrap();
        assert!(is_held(&instead), "whatever becomes of the answer");
        drop(stream);
        assert!(!is_held(&instead));
        assert!(is_there(&next) && places.seats().by_account.is_empty() && places.seats().by_peer.len() == 1);
    }

    #[tokio::test]
    async fn a_displaced_connection_s_task_ends() {
        let places = places(1, 1, 0);
        let place = take(&places, "192.0.2.1").unwrap();
        let id = place.id;
        let task = tokio::spawn(async move {
            let _held = place;
            std::future::pending::<()>().await;
        });
        places.started(id, task.abort_handle());
        let newcomer = take(&places, "192.0.2.2").unwrap();
        assert!(task.await.unwrap_err().is_cancelled() && is_there(&newcomer));
        assert!(places.shrink() && !is_there(&newcomer) && !places.shrink());
    }
}
