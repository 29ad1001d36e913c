//! What the browser's dashboard needs of the server. Owns its embedded files, the sessions, which requests come from its own
//! pages, the live answers that all viewers share, and the rings behind them; not the routes, which are the API's.
//!
//! Invariant: everything here is bounded in memory, and no viewer makes the engine work.

mod browser;
#[cfg(feature = "dashboard")]
pub mod files;
mod journal;
mod live;
mod places;
mod sessions;
mod tracks;

pub use browser::Site;
pub use journal::{Cause, Journal, Line, journal};
pub use live::{Captures, Live, Snapshot};
pub use places::{StreamPlace, StreamPlaces};
pub use sessions::{Grant, Session, SessionBounds, Sessions, Unrandom};
pub use tracks::{Measure, Reading, Tracks};
