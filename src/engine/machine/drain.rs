//! From the last packet to a complete delivery. Owns when counts are final and what the delivery's end means; not the manifest.
//!
//! Invariant: a delivery that cannot succeed ends its capture at once, and counts are final before anything says them.

use super::capture::{Capture, Counted, Delivered, Phase, Trouble};
use super::{Effect, Machine, Now, Serial};
use crate::deliver::{Found, Outcome, Report};
use crate::job::{Status, StopReason};
use crate::pcap::Container;
use crate::spool::{Failure, Lost};

impl Machine {
    /// Every worker has let a capture go: its counts are final and its slot is free.
    pub(super) fn detached(&mut self, now: Now, serial: Serial, counted: Counted, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if capture.phase != Phase::Detaching {
            return;
        }
        let Counted { totals, ports } = counted;
        capture.counted = Some((totals, ports.since(capture.ports_from)));
        (capture.phase, capture.slot, capture.ended) = (Phase::Draining, None, Some(now.wall));
        capture.job.ended = capture.ended;
        if let Some(clock) = &mut capture.job.clock {
            clock.end = self.clock;
        }
        capture.job.status = Status::ConversionPending;
        capture.record(out);
        self.drain(now, serial, out);
    }

    pub(super) fn stream_ended(
        &mut self,
        now: Now,
        serial: Serial,
        (lost, failure): (Lost, Option<&Failure>),
        unpublished: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        match failure {
            Some(Failure::Io(_)) => capture.lost_by_disk += lost.packets,
            Some(Failure::Full(_)) => capture.lost_for_room += lost.packets,
            None => {}
        }
        capture.lost.packets += lost.packets;
        capture.lost.frame_bytes += lost.frame_bytes;
        capture.unpublished += unpublished;
        match capture.streams_left.checked_sub(1) {
            Some(left) => capture.streams_left = left,
            None => {
                tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, "a stream ended twice: this is a bug")
            }
        }
        self.drain(now, serial, out);
    }

    pub(super) fn delivery(&mut self, now: Now, serial: Serial, report: Report, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if matches!(capture.phase, Phase::Ending { .. } | Phase::Leaving { .. } | Phase::Removing) {
            return;
        }
        match report {
            Report::Recovered(Found { objects, packets, frame_bytes }) => {
                capture.job.ledger = capture.job.ledger.recovered(packets, frame_bytes);
                capture.complete_are(objects, out);
                capture.record(out);
            }
            Report::Trouble(error, pause) => {
                let account = &capture.job.request.account;
                tracing::warn!(capture = %capture.job.id, %account, %error, "a delivery failed and is tried again");
                capture.job.error_message = Some(error.customer().to_owned());
                capture.trouble = Some(Trouble { kind: error.kind(), said: error.into_customer() });
                capture.next_try = Some(now.mono + pause);
            }
            Report::Object(info) => {
                capture.complete(info, out);
                (capture.trouble, capture.job.error_message) = (None, None);
            }
            Report::Lost { packets, frame_bytes } => {
                capture.unreadable(Lost { packets, frame_bytes });
                capture.record(out);
            }
            Report::Ahead(objects) => {
                capture.ahead = objects.into_iter().map(|object| object.name).collect();
            }
            Report::Delivered(outcome) => self.delivered(now, serial, outcome, out),
        }
    }

    /// Ends the delivery of a capture that takes no more packets; what of it is on the host goes. The decision is recorded: a
    /// process that dies before it is carried out leaves it to the next one.
    pub(super) fn give_up(&mut self, serial: Serial, why: String, out: &mut Vec<Effect>) {
        let may_go = |capture: &&mut Capture| capture.job.given_up.is_none() && capture.is_waiting();
        let Some(capture) = self.captures.get_mut(&serial).filter(may_go) else { return };
        let account = &capture.job.request.account;
        tracing::warn!(capture = %capture.job.id, %account, why, "a capture is given up; what was not delivered is removed");
        capture.job.given_up = Some(why.clone());
        out.push(Effect::GiveUp { serial, why });
        capture.record(out);
    }

    fn delivered(&mut self, now: Now, serial: Serial, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial).filter(|capture| capture.delivered.is_none())
        else {
            return;
        };
        capture.delivered = Some(match outcome {
            Outcome::Done => Delivered::Done,
            Outcome::Left => Delivered::Left,
            Outcome::Failed(error) if capture.job.given_up.is_some() => {
                Delivered::GivenUp(error.into_customer())
            }
            Outcome::Failed(error) => {
                tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, %error, "a capture cannot be delivered and ends");
                Delivered::Failed(error.into_customer())
            }
            Outcome::Gone(error) => {
                tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, %error, "a capture has lost its directory and ends");
                Delivered::Gone(error.into_customer())
            }
        });
        if matches!(capture.delivered, Some(Delivered::Failed(_) | Delivered::Gone(_))) {
            // Nothing of it would ever be freed, and the spool belongs to the other captures too.
            self.end(serial, StopReason::DeliveryFailed, out);
        }
        self.drain(now, serial, out);
    }

    /// The counts beside the segments are written down.
    pub(super) fn noted(&mut self, now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        capture.notes.in_flight = false;
        if capture.notes.wanted {
            capture.note(out);
            return;
        }
        match capture.phase {
            Phase::Draining => self.drain(now, serial, out),
            Phase::Leaving { .. } => self.release(now, serial, out),
            _ => {}
        }
    }

    /// Goes on once counts and streams are final, and closes once the delivery is over.
    pub(super) fn drain(&mut self, now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if capture.phase != Phase::Draining || capture.streams_left > 0 {
            return;
        }
        if !capture.settled && capture.recovered.is_none() {
            capture.job.ledger = capture.ledger(Counted::default);
            capture.settled = true;
            capture.job.status = Status::ConversionRunning;
            // Only pcapng has a place for them.
            if capture.format.container == Container::PcapNg {
                out.push(Effect::SettleCounts { serial, counts: capture.counts() });
            }
            capture.note(out);
            capture.record(out);
        }
        // One writer in the directory at a time, and none once it closes.
        if capture.notes.in_flight {
            return;
        }
        match &capture.delivered {
            None => {}
            Some(Delivered::Done) => self.publish(serial, out),
            Some(
                Delivered::Failed(_)
                | Delivered::Gone(_)
                | Delivered::ManifestFailed(_)
                | Delivered::GivenUp(_),
            ) => {
                self.conclude(now, serial, out);
            }
            Some(Delivered::Left) => self.leave(now, serial, out),
        }
    }
}
