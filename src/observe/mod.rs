//! What operators see: the log, health, metrics. Owns the log's form and where it goes, the watchdog over threads, and the
//! list of metrics; not what is written to the log, nor the counters, which live where things are counted.
//!
//! Invariant: looking at health and metrics makes no thread of the data plane wait.

mod health;
mod lines;
mod log;
mod metric;
mod metrics;
mod open_files;
mod reloads;
mod requests;
mod screen;
mod server;
mod sources;
mod status;
mod table;
mod warnings;
mod watchdog;

pub use log::{Error, flush, init, refilter, say};
pub use reloads::Reloads;
pub use requests::{Requests, counted};
pub use screen::keep_looking;
pub use server::{bounds, router};
pub use sources::{BusSource, CaptureSource, PortCounters, PortReading, QueueSource, Sources};
pub use status::{Standing, Status};
pub use watchdog::{Alive, Verdicts, Watchdog};
