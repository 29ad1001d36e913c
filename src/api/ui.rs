//! What the dashboard adds to the API's state: the session of a request, the streams, and the shared live answers. Owns which
//! session counts; not the routes.
//!
//! Invariant: a session opens nothing that its credentials do not open at this moment.

use crate::dashboard::{Live, Session, SessionBounds, Sessions, Site, StreamPlaces};
use crate::limits::{STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX};
use axum::http::request::Parts;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Somebody who looks away for longer comes back to a login.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A working day.
const LIFE_MAX: Duration = Duration::from_secs(12 * 3600);
/// More than one person has browsers. Operators together have as many as one account.
const SESSIONS_PER_ACCOUNT_MAX: usize = 16;
/// Each is some 200 bytes.
const SESSIONS_MAX: usize = 1024;

/// Objects that are read out of buckets at once: each holds a MiB.
const VIEWS_MAX: usize = 16;
/// Of one account.
const VIEWS_PER_ACCOUNT_MAX: usize = 2;

/// What sessions are timed by.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// See the module.
pub struct Ui {
    /// Where the dashboard is.
    pub site: Site,
    /// Who is logged in.
    pub sessions: Arc<Sessions>,
    /// What viewers see.
    pub live: Arc<Live>,
    /// The places for streams.
    pub streams: Arc<StreamPlaces>,
    /// The places for objects that are read out of buckets.
    pub views: Arc<StreamPlaces>,
    /// How fast each of them is read.
    pub view_bytes_per_second: u64,
    /// The system's, but in tests.
    pub clock: Clock,
}

impl Ui {
    /// Nobody is logged in yet.
    #[must_use]
    pub fn new(site: Site, view_bytes_per_second: u64) -> Self {
        let bounds = SessionBounds {
            idle: IDLE_MAX,
            life: LIFE_MAX,
            per_account: SESSIONS_PER_ACCOUNT_MAX,
            all: SESSIONS_MAX,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            site,
            sessions: Arc::new(Sessions::new(bounds)),
            live: Arc::new(Live::new(u64::try_from(now.as_nanos()).unwrap_or(0))),
            views: StreamPlaces::new(VIEWS_MAX, VIEWS_PER_ACCOUNT_MAX),
            view_bytes_per_second,
            clock: Arc::new(Instant::now),
            streams: StreamPlaces::new(STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX),
        }
    }

    /// The same on a host of so many accounts, each of which finds a place.
    #[must_use]
    pub fn with_accounts(self, accounts: usize) -> Self {
        Self {
            views: StreamPlaces::for_accounts(VIEWS_MAX, VIEWS_PER_ACCOUNT_MAX, accounts),
            streams: StreamPlaces::for_accounts(STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX, accounts),
            ..self
        }
    }

    /// On plain HTTP at that address, for hosts of tests.
    #[must_use]
    pub fn at(listen: SocketAddr) -> Self {
        Self::new(Site { is_tls: false, listen, hosts: Vec::new(), origin: None }, 1 << 30)
    }

    /// The id of a request's session, if its cookie may be looked at.
    pub(super) fn session_id(&self, parts: &Parts) -> Option<String> {
        self.site.session_id(&parts.method, &parts.headers).map(str::to_owned)
    }

    /// A request's session. `uses`: whether somebody did something; a page that asks by itself keeps no session alive.
    pub(super) fn session(&self, parts: &Parts, uses: bool) -> Option<Session> {
        let id = self.site.session_id(&parts.method, &parts.headers)?;
        self.sessions.find(id, self.now(), uses)
    }

    /// What sessions count by.
    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }
}
