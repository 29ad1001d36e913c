//! How a capture's objects are written. Owns the choice between the host's format and the request's, and what pcapng objects
//! say of a capture; not how that is laid out.
//!
//! Invariant: counts are on the disk before the merge hears of them.

use super::Engine;
use super::active::Active;
use crate::deliver::journal::{self, settle_counts};
use crate::job::{Job, Kind, Request};
use crate::pcap::{Container, Counts, ObjectFormat, Origin};
use crate::spool::Input;

impl Engine {
    /// Simple captures are what Cloudflare's download says they are.
    pub(super) fn format(&self, request: &Request) -> ObjectFormat {
        match request.kind {
            Kind::Simple => ObjectFormat::default(),
            Kind::Full => {
                let host = self.planes.object_format;
                ObjectFormat {
                    container: request.format.unwrap_or(host.container),
                    compression: request.compression.unwrap_or(host.compression),
                    ..host
                }
            }
        }
    }

    pub(super) fn origin(&self, job: &Job) -> Origin {
        let filter = serde_json::to_string(&job.request.filter).unwrap_or_default();
        let comments = vec![
            format!("capture {}", job.id),
            format!("host {}, colo {}", self.planes.host, self.planes.colo),
            format!("filter_v1 {filter}"),
        ];
        Origin { comments, ..self.planes.origin.clone() }
    }

    /// Tells the merge what was counted, once that is final, if what it writes says so.
    pub(super) fn tell_counts(&self, active: &mut Active) {
        let feed = active.feed.take();
        // Only pcapng has a place for them.
        let Some(feed) = feed.filter(|_| active.format.container == Container::PcapNg) else { return };
        let (ledger, dir) = (active.job.ledger, self.dir(active));
        let counts = Counts {
            offered: ledger.offered,
            port_drops: ledger.port.imissed + ledger.port.rx_nombuf + ledger.port.ierrors,
            matched: ledger.matched,
            host_drops: ledger.dropped.no_block + ledger.dropped.spool + ledger.dropped.io,
            captured: ledger.captured,
        };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = settle_counts(&dir, &counts) {
                tracing::error!(dir = %dir.display(), %error, "a capture's counts could not be kept; its file will not say them");
            }
            // As the next process would find them.
            feed.tell(Input::Counts(journal::counts(&dir).unwrap_or_default()));
        });
    }
}
