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
    series: Series,
}

fn ns(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

impl Engine {
    /// A capture is about to take packets.
    pub(super) fn begin_series(&mut self, serial: Serial) {
        let now = self.now();
        if let Some(resources) = self.resources.get_mut(&serial) {
            resources.series = Some(Began { at: now.mono, series: Series::new(ns(now.wall)) });
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
            if let Some(Began { at, series }) = resources.and_then(|resources| resources.series.as_mut()) {
                series.add(now.saturating_sub(*at), &ledger);
            }
        }
    }

    /// The series of a capture that is at work, up to these counts.
    pub(super) fn kept_series(&self, serial: Serial, ledger: &Ledger) -> Option<KeptSeries> {
        let Began { series, .. } = self.resources.get(&serial)?.series.as_ref()?;
        let mut series = series.clone();
        series.settle(ledger);
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

    /// A capture's counts over time.
    pub(super) fn series(
        &self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<KeptSeries, Refusal>>,
    ) {
        let recorded = |job: Job| job.series.unwrap_or_else(|| KeptSeries::none(ns(job.submitted)));
        let Some(serial) = self.find(&account, &id) else { return self.stored(account, id, reply, recorded) };
        let live = self.machine.capture(serial).and_then(|capture| {
            self.kept_series(serial, &self.ledger(capture)).or_else(|| capture.job.series.clone())
        });
        let found = live.unwrap_or_else(|| KeptSeries::none(ns(Timestamp::now())));
        // A caller that went away needs no answer.
        let _caller_gone = reply.send(Ok(found));
    }
}
