//! The newest heartbeat of every host. Owns what an API node remembers of them; they say how things are, and decide nothing.

use crate::bus::Bus;
use crate::job::{CaptureId, Ledger};
use crate::node::keys::{Names as _, beat_subject};
use crate::node::wire::{Beat, JobRecord, message};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

type Heard = Mutex<HashMap<(String, u64), (Instant, Beat)>>;

/// What was heard.
#[derive(Clone)]
pub(super) struct Beats {
    heard: Arc<Heard>,
    /// A host that is silent for longer does not answer.
    silent: Duration,
    since: Instant,
}

/// What hosts say of a capture now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Live {
    /// The sum of their counts.
    pub ledger: Ledger,
    /// Members that are silent, with how long.
    pub silent: Vec<(String, Option<Duration>)>,
}

impl Beats {
    /// Listens for as long as somebody has it.
    pub fn listen(bus: Arc<dyn Bus>, period: Duration) -> Self {
        let heard: Arc<Heard> = Arc::default();
        tokio::spawn(listen(bus, Arc::downgrade(&heard)));
        Self { heard, silent: 3 * period, since: Instant::now() }
    }

    /// What is known of a capture.
    pub fn of(&self, record: &JobRecord) -> Live {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut live = Live::default();
        // Whom a node that just started has not heard may be well.
        let is_listening = self.since.elapsed() > self.silent;
        for member in record.job.hosts() {
            let beat = heard.get(&(member.identity.name.clone(), member.identity.spool_id));
            match beat {
                Some((at, beat)) => {
                    live.ledger = live.ledger.plus(counts(beat, &record.capture.id));
                    if at.elapsed() > self.silent {
                        live.silent.push((member.identity.name.clone(), Some(at.elapsed())));
                    }
                }
                None if is_listening => live.silent.push((member.identity.name.clone(), None)),
                None => {}
            }
        }
        live
    }
}

fn counts(beat: &Beat, id: &CaptureId) -> Ledger {
    beat.parts.iter().find(|part| part.id == *id).map_or_else(Ledger::default, |part| part.ledger)
}

async fn listen(bus: Arc<dyn Bus>, heard: Weak<Heard>) {
    loop {
        let mut beats = bus.subscribe("hb.>");
        while let Some(told) = beats.recv().await {
            let Some(heard) = heard.upgrade() else { return };
            let beat = message::<Beat>(&told.payload).filter(|beat| beat_subject(&beat.site) == told.subject);
            if let Some(beat) = beat {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.insert((beat.site.host().to_owned(), beat.spool_id), (Instant::now(), beat));
            }
        }
        if heard.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Names of a capture's hosts with their data centers.
pub(super) fn site(record: &JobRecord, host: &str) -> String {
    let member = record.job.hosts().iter().find(|member| member.identity.name == host);
    let colo = member.and_then(|member| record.colo(member.colo));
    colo.map_or_else(|| host.to_owned(), |colo| format!("{host} ({colo})"))
}
