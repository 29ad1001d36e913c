//! What is said of a capture at its end: the manifest, and what customers read. Owns the words; not when it ends.
//!
//! Invariant: nothing is said of packets that is not so: where they are, and why they are fewer.

use super::capture::{Capture, Delivered};
use crate::deliver::{Limits, MANIFEST_VERSION, Manifest};
use crate::job::{CaptureId, Status};

/// In the words of Cloudflare's OpenAPI.
pub(in super::super) const NO_MATCH: &str =
    "No packets matched the filter in the time limit given. Please modify the filter or try again.";
/// Of a capture that a restart found with no packet at all.
pub(super) const INTERRUPTED: &str = "The capture host ended while this capture was running, and no packet of it had reached the \
     disk. Please start it again.";

/// Between two statements of a verdict.
const THEN: &str = "; ";

/// Where packets are that were not delivered. Every statement that they are there has these words.
fn place(id: &CaptureId) -> String {
    format!("on the host in the spool directory {id}")
}

/// What was said of a capture, once what it had on the host is removed: all of it but where that was, and why it is gone.
pub(in super::super) fn gone(said: &str, id: &CaptureId, why: &str) -> String {
    let place = place(id);
    let still_true =
        said.split(THEN).filter(|statement| !statement.is_empty() && !statement.contains(&place));
    let removed = format!("its packets were removed from the host: {why}");
    still_true.chain([removed.as_str()]).collect::<Vec<_>>().join(THEN)
}

impl Capture {
    pub(super) fn manifest(&self, host: &str, colo: &str) -> Manifest {
        let job = &self.job;
        let ledger = job.ledger;
        // Another process may have begun it, under another config.
        let (host, colo) = job.site.as_ref().map_or((host, colo), |site| (site.host(), site.colo()));
        Manifest {
            version: MANIFEST_VERSION,
            id: job.id.clone(),
            account: Some(job.request.account.clone()),
            host: host.to_owned(),
            colo: colo.to_owned(),
            is_part: job.site.is_some(),
            kind: job.request.kind,
            filter_v1: job.request.filter.clone(),
            limits: Limits {
                time_limit: job.request.time_limit,
                packet_limit: job.request.packet_limit,
                byte_limit: job.request.byte_limit,
            },
            submitted: job.submitted,
            started: self.started,
            ended: self.ended,
            stop_reason: job.stop_reason,
            complete: self.recovered.is_none_or(|recovered| recovered.is_final) && ledger.is_whole(),
            snaplen: self.snaplen(),
            format: self.format.container,
            compression: self.format.compression,
            // All of them stand in the journal, from which they are read when the manifest is settled.
            objects: if self.objects_beside().is_some() { Vec::new() } else { job.objects.clone() },
            ledger,
            queues: u32::try_from(self.queues).unwrap_or(u32::MAX),
            recovered: self.recovered.is_some(),
            counted_until: self.recovered.map(|recovered| recovered.known_until),
            sample_one_in: job.sample_one_in,
            clock_steps: job.clock_steps,
            lost_streams: job.lost_streams.clone(),
            clock: job.clock,
            offset_time: None,
        }
    }

    /// Which queues are missing in part, and why.
    pub(super) fn lost_streams_said(&self) -> Option<String> {
        let mut queues: Vec<_> = self.job.lost_streams.iter().map(|lost| lost.queue).collect();
        queues.sort_unstable();
        let queues: Vec<_> = queues.iter().map(u16::to_string).collect();
        let first = self.job.lost_streams.first()?;
        Some(format!(
            "of {} of {} queues ({}) a part is missing, because one of this host's disks failed or was full: {}",
            queues.len(),
            self.queues,
            queues.join(", "),
            first.message
        ))
    }

    /// Which objects are in their store although one before them is not.
    fn ahead_said(&self) -> Option<String> {
        let count = match self.ahead.as_slice() {
            [] if self.is_inherited() && self.job.given_up.is_some() => {
                return Some("the process before this one may have completed others behind them".to_owned());
            }
            [] => return None,
            [one] => return Some(format!("{one}, behind one that is missing, is complete there too")),
            ahead => ahead.len(),
        };
        let (first, last) = (self.ahead.first()?, self.ahead.last()?);
        Some(format!("{count} behind one that is missing are complete there too, from {first} to {last}"))
    }

    /// What became of it, once everything is delivered or given up: the status and what there is to say.
    pub(super) fn verdict(&self) -> (Status, Option<String>) {
        let ledger = &self.job.ledger;
        let place = place(&self.job.id);
        let was_cut_off = self.recovered.is_some_and(|recovered| !recovered.is_final);
        let (status, said) = match (&self.delivered, &self.failure) {
            (Some(Delivered::Gone(e)), _) => return (Status::Failed, Some(e.clone())),
            (Some(Delivered::Failed(e)), _) => {
                let there = self.ahead_said().map(|ahead| format!("{THEN}{ahead}")).unwrap_or_default();
                return (Status::Failed, Some(format!("{e}{there}; its packets are kept {place}")));
            }
            (Some(Delivered::GivenUp(why)), _) => {
                let objects = self.delivered_sums.objects;
                let there = [
                    Some(why.clone()),
                    Some(format!(
                        "{objects} of its objects are complete in their store, one after the other"
                    )),
                    self.ahead_said(),
                    Some("the packets that were not delivered are removed from the host".to_owned()),
                ];
                let said: Vec<_> = there.into_iter().flatten().collect();
                return (Status::Failed, Some(said.join(THEN)));
            }
            (Some(Delivered::ManifestFailed(e)), _) => {
                let said =
                    format!("every object is in the bucket, but not the manifest: {e}; it is kept {place}");
                return (Status::Failed, Some(said));
            }
            (_, Some(failure)) if ledger.captured == 0 => {
                (Status::Failed, Some(failure.message().to_owned()))
            }
            (_, Some(failure)) => (Status::Success, Some(failure.message().to_owned())),
            _ if ledger.captured == 0 && was_cut_off => (Status::Failed, Some(INTERRUPTED.to_owned())),
            // A port that was away says more than a filter that took nothing of it.
            _ if ledger.matched == 0 && ledger.port.warning().is_some() => (Status::Failed, None),
            _ if ledger.matched == 0 => (Status::Failed, Some(NO_MATCH.to_owned())),
            _ if ledger.captured == 0 => (
                Status::Failed,
                Some(format!(
                    "{} packets matched and none could be captured: {:?}",
                    ledger.matched, ledger.dropped
                )),
            ),
            _ => (Status::Success, None),
        };
        let kept = [
            (self.unpublished, "segments could not be published"),
            (self.undelivered, "packets could not be read from the disk and are counted as dropped"),
        ];
        let kept = kept.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| {
            format!("{count} {what}; they are kept {place} and can be got out with `trawl recover`")
        });
        let said = said.into_iter().chain(self.lost_streams_said()).chain(ledger.port.warning());
        let said: Vec<_> = said.chain(kept).collect();
        (status, (!said.is_empty()).then(|| said.join(THEN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_no_longer_said_to_be_there_and_everything_else_is() {
        let id = CaptureId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let place = place(&id);
        for (said, still_said) in [
            (format!("403; is it yours?; its packets are kept {place}"), "403; is it yours?; "),
            (format!("every object is in the bucket; it is kept {place}"), "every object is in the bucket; "),
            (
                format!("full; 2 segments could not be published; they are kept {place} and can be got out"),
                "full; 2 segments could not be published; ",
            ),
            (String::new(), ""),
        ] {
            let expected = format!("{still_said}its packets were removed from the host: too old");
            assert_eq!(gone(&said, &id, "too old"), expected);
        }
    }
}
