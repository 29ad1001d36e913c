//! Captures that outlive their process. Owns what a restart does with them.
//!
//! A capture whose process died ends with what is on the disk (`interrupted`) and is not continued: its time window has a
//! hole already, and the customer is told sooner.
//!
//! Invariant: a capture that was accepted is in the job store or in the spool, and the next process delivers it; nothing is
//! published for a capture of which the spool has nothing.

use super::capture::{Capture, Delivered, Phase, Recovered};
use super::{Effect, Machine, Now, Serial, Sought};
use crate::deliver::Manifest;
use crate::deliver::journal::CaptureRecord;
use crate::job::{Job, Status, StopReason};
use crate::limits::RECOVERED_OBJECT_BYTES;

/// A job that another process left unfinished.
#[derive(Debug)]
pub(in super::super) struct Inherited {
    /// The serial that it was given: its revision is known to the store's writer under it.
    pub serial: Serial,
    pub job: Job,
    pub remains: Remains,
}

/// What the spool has of it.
#[derive(Debug)]
pub(in super::super) enum Remains {
    /// No directory, or one without a segment, a journal or a record.
    Nothing,
    /// A directory. `queues`: the capture's, as its record or the names of its segments tell.
    Directory { record: Option<Box<CaptureRecord>>, settled: Option<Box<Manifest>>, queues: usize },
}

impl Machine {
    /// A serial for a job that is about to be inherited.
    pub fn serial_for_inherited(&mut self) -> Serial {
        self.next_serial()
    }

    pub(super) fn inherit(&mut self, inherited: Inherited, out: &mut Vec<Effect>) {
        let Inherited { serial, mut job, remains } = inherited;
        let (record, settled, queues) = match remains {
            Remains::Nothing => return self.seek(serial, job, out),
            Remains::Directory { record, settled, queues } => (record, settled, queues),
        };
        if let Some(record) = &record
            && job.status != Status::ConversionRunning
        {
            job.ledger = record.job.ledger;
        }
        if let Some(record) = &record {
            job.clock_steps = record.job.clock_steps.or(job.clock_steps);
            if !record.job.lost_streams.is_empty() {
                job.lost_streams.clone_from(&record.job.lost_streams);
            }
            job.clock = record.job.clock.or(job.clock);
            (job.started, job.ended) = (record.started.or(job.started), record.ended.or(job.ended));
        }
        if let Some(manifest) = settled {
            (job.ledger, job.stop_reason) = (manifest.ledger, manifest.stop_reason);
            (job.clock_steps, job.clock, job.lost_streams) =
                (manifest.clock_steps, manifest.clock, manifest.lost_streams);
        }
        job.stop_reason.get_or_insert(StopReason::Interrupted);
        (job.status, job.error_message) = (Status::ConversionRunning, None);
        (job.objects, job.objects_beside) = (Vec::new(), None);
        tracing::warn!(capture = %job.id, "the process that captured it died; what is in the spool is delivered");
        let known_until = record.as_ref().map_or(job.submitted, |record| record.known_until);
        let is_final = record.as_ref().is_some_and(|record| record.is_final);
        let capture = Capture {
            queues,
            object_bytes_max: record
                .as_ref()
                .map_or(RECOVERED_OBJECT_BYTES, |record| record.object_bytes_max),
            format: record.as_ref().map_or_else(|| self.format(&job.request), |record| record.format),
            started: record.as_ref().and_then(|record| record.started),
            ended: record.as_ref().and_then(|record| record.ended),
            recovered: Some(Recovered { known_until, is_final }),
            ..Capture::new(serial, job, Phase::Draining)
        };
        let capture = self.captures.entry(serial).or_insert(capture);
        capture.record(out);
        if let Some(why) = capture.job.given_up.clone() {
            // Before the delivery begins: nothing more of it leaves the host.
            out.push(Effect::GiveUp { serial, why });
        }
        out.push(Effect::DeliverLeft { serial });
    }

    /// Nothing of it is in the spool: it was delivered, or its packets are gone. Only the bucket knows.
    fn seek(&mut self, serial: Serial, mut job: Job, out: &mut Vec<Effect>) {
        tracing::warn!(capture = %job.id, "an unfinished capture has nothing in the spool; its manifest is looked for");
        (job.objects, job.objects_beside) = (Vec::new(), None);
        let known_until = job.submitted;
        let capture = Capture {
            queues: self.config.queues,
            recovered: Some(Recovered { known_until, is_final: false }),
            ..Capture::new(serial, job, Phase::Seeking)
        };
        self.captures.insert(serial, capture);
        out.push(Effect::Seek { serial });
    }

    pub(super) fn sought(&mut self, now: Now, serial: Serial, found: Sought, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial).filter(|capture| capture.phase == Phase::Seeking)
        else {
            return;
        };
        match found {
            Sought::Manifest(manifest) => {
                let Manifest { ledger, stop_reason, objects, clock_steps, clock, lost_streams, .. } =
                    *manifest;
                capture.complete_are(objects, out);
                let job = &mut capture.job;
                (job.ledger, job.clock_steps, job.clock, job.lost_streams) =
                    (ledger, clock_steps, clock, lost_streams);
                job.stop_reason = stop_reason.or(job.stop_reason);
                capture.delivered = Some(Delivered::Done);
                self.conclude(now, serial, out);
            }
            Sought::Nothing(why) => {
                let job = &mut capture.job;
                job.stop_reason.get_or_insert(StopReason::Interrupted);
                job.status = Status::Failed;
                job.error_message = Some(nothing_left(job, why));
                self.conclude_as_is(now, serial, out);
            }
            Sought::Left => {
                // It stays as it is in the store, and the next process looks again.
                capture.phase = Phase::Removing;
                out.push(Effect::Forget { serial });
            }
        }
    }
}

fn nothing_left(job: &Job, why: Option<String>) -> String {
    let place = match &job.request.destination {
        Some(destination) => destination.to_string(),
        None => "the host's directory of simple captures".to_owned(),
    };
    let sought = match why {
        None => "no manifest of it is there".to_owned(),
        Some(error) => format!("whether a manifest of it is there could not be found out: {error}"),
    };
    format!(
        "The capture host ended while this capture was running, and its spool has nothing of it: its packets were delivered to \
         {place} or are gone ({sought}). Look there for objects that begin with pcap_{}",
        job.id
    )
}
