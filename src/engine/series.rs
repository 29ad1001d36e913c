//! The series of captures: their counts, once a second while they take packets. Owns when they are read and written down; not their
//! form (`job`).
//!
//! Invariant: after the last packet no point is added, and the series that is recorded has the counts of its job.

use super::machine::Serial;
use super::{Engine, Refusal};
use crate::job::{AccountId, CaptureId, Job, KeptSeries, Ledger, Series};
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::oneshot;

const INTERVAL: Duration = Duration::from_secs(1);

/// A series, and when its first step began by the monotonic clock.
pub(super) struct Began {
    at: Duration,
    /// When its workers were told to take no more.
    stopped: Option<Duration>,
    series: Series,
}

impl Began {
    /// How long it has taken packets.
    fn elapsed(&self, now: Duration) -> Duration {
        self.stopped.unwrap_or(now).saturating_sub(self.at)
    }
}

fn ns(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

impl Engine {
    /// A capture is about to take packets: its series begins when its window does.
    pub(super) fn begin_series(&mut self, serial: Serial) {
        let Some(capture) = self.machine.capture(serial) else { return };
        let (at, wall) = (capture.began_at(), capture.started.unwrap_or_else(Timestamp::now));
        if let Some(resources) = self.resources.get_mut(&serial) {
            resources.series = Some(Began { at, stopped: None, series: Series::new(ns(wall)) });
        }
    }

    /// A capture takes no more packets: its series ends here.
    pub(super) fn stop_series(&mut self, serial: Serial) {
        let now = self.started.elapsed();
        let resources = self.resources.get_mut(&serial);
        if let Some(began) = resources.and_then(|resources| resources.series.as_mut()) {
            began.stopped.get_or_insert(now);
        }
    }

    /// Adds a point to each series, once a second.
    pub(super) fn extend_series(&mut self) {
        let now = self.started.elapsed();
        if now.saturating_sub(self.extended_at) < INTERVAL {
            return;
        }
        self.extended_at = now;
        let counting = self.machine.captures().filter(|capture| capture.is_counting());
        let ledgers: Vec<(Serial, Ledger)> =
            counting.map(|capture| (capture.serial, self.ledger(capture))).collect();
        for (serial, ledger) in ledgers {
            let resources = self.resources.get_mut(&serial);
            if let Some(began) = resources.and_then(|resources| resources.series.as_mut()) {
                began.series.add(began.elapsed(now), &ledger);
            }
        }
    }

    /// The series of a capture that is at work, up to these counts.
    pub(super) fn kept_series(&self, serial: Serial, ledger: &Ledger) -> Option<KeptSeries> {
        let began = self.resources.get(&serial)?.series.as_ref()?;
        let mut series = began.series.clone();
        series.add(began.elapsed(self.started.elapsed()), ledger);
        Some(series.kept())
    }

    /// A job as it is recorded: with its series, once it ends or the process does.
    pub(super) fn with_series(&self, serial: Serial, job: Box<Job>) -> Job {
        let mut job = *job;
        if job.status.ended() || *self.leaving.borrow() {
            let ledger = match self.machine.capture(serial) {
                Some(capture) if !job.status.ended() => self.ledger(capture),
                _ => job.ledger,
            };
            job.series = self.kept_series(serial, &ledger).or(job.series);
        }
        job
    }

    /// A capture's counts over time. Those of a process that died are not there, and a look back has none: it reads
    /// what the history has.
    pub(super) fn series(
        &self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<KeptSeries, Refusal>>,
    ) {
        let kept = |job: &Job| job.counts_over_time().ok_or(Refusal::NoSeries);
        let Some(serial) = self.find(&account, &id) else {
            return self.stored(account, id, reply, move |job| kept(&job));
        };
        let found = match (self.machine.capture(serial), self.machine.look_back(serial)) {
            (Some(capture), _) => {
                self.kept_series(serial, &self.ledger(capture)).map_or_else(|| kept(&capture.job), Ok)
            }
            (None, Some(look)) => kept(&look.job),
            (None, None) => Err(Refusal::NotFound(id)),
        };
        // A caller that went away needs no answer.
        let _caller_gone = reply.send(found);
    }
}
