//! Records of a fleet's captures in the words of the API. Owns the translation.
//!
//! Invariant: a host whose packets are not in a capture is named in it.

use super::beats::{Live, site};
use crate::fleet::record::{Phase, Verdict};
use crate::job::{Job, ObjectInfo, ObjectRange, ObjectSums, Progress, Status, StopReason};
use crate::node::leads::stop_reason;
use crate::node::wire::{JobRecord, PartRecord};
use jiff::Timestamp;
use std::time::Duration;

fn time(since_epoch: Duration) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::try_from(since_epoch.as_nanos()).ok()?).ok()
}

fn status(phase: Phase) -> Status {
    match phase {
        Phase::Pending => Status::Pending,
        Phase::Running => Status::Running,
        Phase::ConversionPending => Status::ConversionPending,
        Phase::ConversionRunning => Status::ConversionRunning,
        Phase::Success => Status::Success,
        Phase::Failed => Status::Failed,
    }
}

/// A capture; with what hosts say of it, as long as nothing is published.
pub(super) fn job(record: &JobRecord, live: Option<Live>) -> Job {
    let JobRecord { job, capture } = record;
    let one_in = match job.kind {
        crate::fleet::Kind::Simple { one_in, .. } if one_in > 1 => Some(one_in),
        _ => None,
    };
    let has_ended = job.phase >= Phase::ConversionPending;
    let stop = capture.stop_requested.filter(|_| job.is_stopped);
    let end = time(job.window.end);
    Job {
        started: time(job.window.start).filter(|_| job.phase > Phase::Pending),
        ended: stop.into_iter().chain(end).min().filter(|_| has_ended),
        status: status(job.phase),
        stop_requested: capture.stop_requested,
        stop_reason: job.outcome.as_ref().map(|_| stop_reason(record)),
        error_message: message(record),
        ledger: capture.ledger.unwrap_or_else(|| live.map_or_else(Default::default, |live| live.ledger)),
        objects: capture.objects.clone(),
        objects_beside: capture.delivered.filter(|_| capture.request.destination.is_some()),
        ..Job::accepted_as(capture.id.clone(), capture.submitted, capture.request.clone(), one_in)
    }
}

/// Which hosts are not in it, once that is known, and why a capture without a packet failed.
fn message(record: &JobRecord) -> Option<String> {
    let hosts = record.job.hosts();
    let why = |verdict: Verdict| match verdict {
        Verdict::Delivered => None,
        Verdict::Failed => Some("failed"),
        Verdict::Refused => Some("refused it"),
        Verdict::Missing => Some("never answered"),
        Verdict::Lost => Some("was lost"),
    };
    let absent: Vec<String> = hosts
        .iter()
        .filter_map(|member| {
            Some(format!("{} {}", site(record, &member.identity.name), why(member.verdict?)?))
        })
        .collect();
    let early = record.capture.early.iter().map(|(host, why)| early(record, host, *why));
    let missing = (!absent.is_empty()).then(|| {
        format!("{} of {} hosts are missing in it: {}", absent.len(), hosts.len(), absent.join(", "))
    });
    let notes: Vec<String> = missing.into_iter().chain(early).collect();
    let missing = (!notes.is_empty()).then(|| notes.join("; "));
    if record.job.phase != Phase::Failed {
        return missing.filter(|_| record.job.outcome.is_some());
    }
    let nothing = match hosts.is_empty() {
        true => "No host of the fleet could take it",
        false => "No packets matched the filter before the capture ended",
    };
    Some(missing.map_or_else(|| nothing.to_owned(), |missing| format!("{nothing}; {missing}")))
}

fn early(record: &JobRecord, host: &str, why: StopReason) -> String {
    let why = match why {
        StopReason::SpoolFull => "its spool was full",
        StopReason::IoError => "its disk failed",
        StopReason::Shutdown => "it was shut down",
        StopReason::Interrupted => "its process died",
        _ => "it ended early",
    };
    format!("host {} captured a part of the time only: {why}", site(record, host))
}

/// A capture's progress.
pub(super) fn progress(
    record: &JobRecord,
    live: &Live,
    parts: &[PartRecord],
    range: ObjectRange,
    wall: Duration,
) -> Progress {
    let job = job(record, Some(live.clone()));
    let has_ended = record.job.phase >= Phase::ConversionPending;
    let left = record.job.window.end.saturating_sub(wall);
    let of_parts = parts.iter().filter_map(|part| part.facts.delivered).fold(ObjectSums::default(), plus);
    let is_full = job.request.destination.is_some();
    let delivered = job.objects_beside.unwrap_or_else(|| if is_full { of_parts } else { job.object_sums() });
    let warnings = if has_ended { Vec::new() } else { silent(record, live) };
    let refused = parts.iter().filter_map(|part| {
        Some(format!("host {} ({}): {}", part.site.host(), part.site.colo(), part.facts.why.as_ref()?))
    });
    Progress {
        id: job.id.clone(),
        status: job.status,
        stop_reason: job.stop_reason,
        ledger: job.ledger,
        seconds_left: if has_ended { 0.0 } else { left.as_secs_f64() },
        packet_limit: job.request.packet_limit,
        byte_limit: job.request.byte_limit,
        started: job.started,
        ended: job.ended,
        objects: within(&job.objects, range),
        delivered,
        warnings: warnings.into_iter().chain(refused).collect(),
        sample_one_in: job.sample_one_in,
        clock_steps: None,
        spool: None,
    }
}

fn plus(sum: ObjectSums, more: ObjectSums) -> ObjectSums {
    ObjectSums {
        objects: sum.objects.saturating_add(more.objects),
        bytes: sum.bytes.saturating_add(more.bytes),
        packets: sum.packets.saturating_add(more.packets),
    }
}

fn within(objects: &[ObjectInfo], range: ObjectRange) -> Vec<ObjectInfo> {
    objects.iter().skip(range.from).take(range.count_max).cloned().collect()
}

fn silent(record: &JobRecord, live: &Live) -> Vec<String> {
    let line = |(host, since): &(String, Option<Duration>)| {
        let host = site(record, host);
        match since {
            Some(since) => {
                format!("host {host} is silent for {} s: its packets may be missing", since.as_secs())
            }
            None => format!("host {host} does not answer: its packets may be missing"),
        }
    };
    live.silent.iter().map(line).collect()
}
