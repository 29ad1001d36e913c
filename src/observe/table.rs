//! Every metric, declared once: name, type, unit, labels, meaning, and where its values come from. Owns the list.
//!
//! Invariant: labels take bounded values: ports, queues, stages, routes, reasons, the accounts' numbers (their
//! ids are nobody's business who may only read metrics), and the captures that have not ended.

use super::metric::{Metric, Samples, Type};
use super::sources::{DiskView, PortCounters, Snapshot, StageView};
use crate::block::HeartbeatReading;
use crate::engine::{AccountView, CaptureView, Overview};
use crate::job::{Dropped, Kind, Status};
use jiff::Timestamp;
use std::time::UNIX_EPOCH;

const PACKETS: Option<&str> = Some("packets");
const BYTES: Option<&str> = Some("bytes");

type Read = fn(&Snapshot, &mut Samples);
type Labels = &'static [&'static str];

const fn counter(
    name: &'static str,
    unit: Option<&'static str>,
    labels: Labels,
    help: &'static str,
    read: Read,
) -> Metric {
    Metric { name, kind: Type::Counter, unit, labels, help, read }
}

const fn gauge(
    name: &'static str,
    unit: Option<&'static str>,
    labels: Labels,
    help: &'static str,
    read: Read,
) -> Metric {
    Metric { name, kind: Type::Gauge, unit, labels, help, read }
}

fn port(s: &Snapshot, out: &mut Samples, get: fn(&PortCounters) -> u64) {
    for port in &s.ports {
        if let Some(counters) = &port.counters {
            out.push(&[&port.port], get(counters));
        }
    }
}

fn stage(s: &Snapshot, out: &mut Samples, of: fn(&StageView) -> bool, get: fn(&HeartbeatReading) -> u64) {
    for stage in s.stages.iter().filter(|stage| of(stage)) {
        out.push(&[&stage.name], get(&stage.reading));
    }
}

fn disks(s: &Snapshot, out: &mut Samples, get: fn(&DiskView) -> Option<u64>) {
    for disk in &s.disks {
        if let Some(value) = get(disk) {
            out.push(&[&disk.dir], value);
        }
    }
}

fn is_writer(stage: &StageView) -> bool {
    stage.name.starts_with("writer")
}

fn is_publisher(stage: &StageView) -> bool {
    stage.name.starts_with("publisher")
}

fn has_messages(stage: &StageView) -> bool {
    is_writer(stage) || is_publisher(stage)
}

fn has_blocks(stage: &StageView) -> bool {
    stage.blocks > 0
}

fn kind(capture: &CaptureView) -> &'static str {
    match capture.kind {
        Kind::Simple => "simple",
        Kind::Full => "full",
    }
}

fn capture(s: &Snapshot, out: &mut Samples, get: fn(&CaptureView) -> u64) {
    for capture in s.engine.iter().flat_map(|engine| &engine.captures) {
        out.push(&[&capture.id, &kind(capture)], get(capture));
    }
}

fn capture_reasons<const N: usize>(
    s: &Snapshot,
    out: &mut Samples,
    get: fn(&CaptureView) -> [(&'static str, u64); N],
) {
    for capture in s.engine.iter().flat_map(|engine| &engine.captures) {
        for (reason, count) in get(capture) {
            out.push(&[&capture.id, &kind(capture), &reason], count);
        }
    }
}

fn engine(s: &Snapshot, out: &mut Samples, get: fn(&Overview) -> u64) {
    if let Some(engine) = &s.engine {
        out.push(&[], get(engine));
    }
}

fn accounts(s: &Snapshot, out: &mut Samples, get: fn(&AccountView) -> u64) {
    for account in s.engine.iter().flat_map(|engine| &engine.accounts) {
        out.push(&[&account.number], get(account));
    }
}

/// An account that the engine does not know yet, or no more, has no number.
fn refused(s: &Snapshot, out: &mut Samples) {
    for account in s.engine.iter().flat_map(|engine| &engine.accounts) {
        let of_account = s.refused_requests.iter().find(|(id, _)| *id == account.account);
        if let Some((_, count)) = of_account {
            out.push(&[&account.number], *count);
        }
    }
}

fn states(s: &Snapshot, out: &mut Samples) {
    let Some(engine) = &s.engine else { return };
    for (status, name) in [
        (Status::Pending, "pending"),
        (Status::Running, "running"),
        (Status::ConversionPending, "conversion_pending"),
        (Status::ConversionRunning, "conversion_running"),
    ] {
        out.push(&[&name], engine.captures.iter().filter(|capture| capture.status == status).count() as u64);
    }
}

fn dropped(capture: &CaptureView) -> [(&'static str, u64); Dropped::CAUSES.len()] {
    let counts = capture.ledger.dropped.counts();
    std::array::from_fn(|cause| (Dropped::CAUSES[cause], counts[cause]))
}

fn lost_in_ports(capture: &CaptureView) -> [(&'static str, u64); 4] {
    let port = &capture.ledger.port;
    [
        ("imissed", port.imissed),
        ("rx_nombuf", port.rx_nombuf),
        ("ierrors", port.ierrors),
        ("discarded", port.discarded),
    ]
}

/// What full captures have on the spool.
pub(super) fn waiting_bytes(engine: &Overview) -> u64 {
    let full = engine.captures.iter().filter(|capture| capture.kind == Kind::Full);
    full.map(|capture| capture.waiting_bytes).sum()
}

/// The age of the oldest capture that takes no more packets.
pub(super) fn oldest_seconds(engine: &Overview) -> u64 {
    let now = Timestamp::now();
    let ages =
        engine.captures.iter().filter_map(|capture| Some(now.duration_since(capture.stopped?).as_secs()));
    u64::try_from(ages.max().unwrap_or(0)).unwrap_or(0)
}

/// Until the first delivery that failed is tried again.
pub(super) fn next_try_seconds(engine: &Overview) -> Option<u64> {
    let seconds = engine.captures.iter().filter_map(|capture| capture.next_try_seconds);
    seconds.min_by(f64::total_cmp).map(|seconds| seconds.ceil() as u64)
}

/// The worker that polls a queue.
pub(super) fn worker_of(s: &Snapshot, queue: usize) -> String {
    format!("worker{}", s.queue_workers.get(queue).copied().unwrap_or(0))
}

/// In the order in which they are written.
#[rustfmt::skip]
pub(super) const TABLE: &[Metric] = &[
    Metric { name: "build", kind: Type::Info, unit: None, labels: &["version", "dpdk"],
        help: "Version of trawl, and whether it was built with DPDK",
        read: |_, out| out.push(&[&env!("CARGO_PKG_VERSION"), &cfg!(feature = "dpdk")], 1) },
    gauge("start_time", Some("seconds"), &[], "When the process started, since the UNIX epoch",
        |s, out| out.push(&[], s.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())),
    // ports
    counter("port_rx", PACKETS, &["port"], "Frames that the port delivered, by its own count",
        |s, out| port(s, out, |c| c.rx)),
    counter("port_rx", BYTES, &["port"], "Bytes of those; whether with FCS is up to the driver",
        |s, out| port(s, out, |c| c.rx_bytes)),
    counter("port_missed", PACKETS, &["port"], "Frames lost because a queue was full: its worker was too slow (imissed)",
        |s, out| port(s, out, |c| c.imissed)),
    counter("port_errors", PACKETS, &["port"], "Frames that were damaged or too long (ierrors)",
        |s, out| port(s, out, |c| c.ierrors)),
    counter("port_no_buffer", PACKETS, &["port"], "Times that no packet buffer was free (rx_nombuf)",
        |s, out| port(s, out, |c| c.rx_nombuf)),
    counter("port_discarded", PACKETS, &["port"], "Frames lost by other counters of the driver (docs/NICS.md)",
        |s, out| port(s, out, |c| c.discarded)),
    gauge("port_counts_losses", None, &["port"], "1 if the driver counts what the port loses; 0 if more may be lost than is counted",
        |s, out| for p in &s.ports { out.push(&[&p.port], u64::from(p.counts_losses)) }),
    gauge("port_present", None, &["port"], "1 while the device is there; at 0 it is tried again until it is",
        |s, out| for p in &s.ports { out.push(&[&p.port], u64::from(p.is_there)) }),
    counter("port_gaps", None, &["port"], "Times that the device was gone or reset: what came meanwhile is in no count",
        |s, out| for p in &s.ports { out.push(&[&p.port], p.gaps) }),
    counter("port_gap", Some("seconds"), &["port"], "How long that was",
        |s, out| for p in &s.ports { out.push(&[&p.port], p.gap_seconds) }),
    gauge("port_driver_value", None, &["port", "counter"], "What the driver counts, by its names; they may go back",
        |s, out| for p in &s.ports {
            for (name, value) in p.xstats.iter() { out.push(&[&p.port, name], *value) }
        }),
    gauge("port_quiet", Some("seconds"), &["port"], "How long the link has been up and no frame came",
        |s, out| for p in &s.ports { out.push(&[&p.port], p.quiet_seconds) }),
    counter("port_link_changes", None, &["port"], "Times that the link went up or down",
        |s, out| for p in &s.ports { out.push(&[&p.port], p.link_changes) }),
    gauge("port_link_up", None, &["port"], "1 while the link is up",
        |s, out| for p in &s.ports { out.push(&[&p.port], u64::from(p.link_up)) }),
    gauge("port_link", Some("bytes_per_second"), &["port"], "Speed of the link, if it is known",
        |s, out| for p in &s.ports {
            if let Some(mbps) = p.link_mbps { out.push(&[&p.port], u64::from(mbps) * 125_000) }
        }),
    // queues
    counter("queue_rx", PACKETS, &["port", "queue"], "Frames that a worker received",
        |s, out| for (n, (port, q)) in s.queues.iter().enumerate() { out.push(&[port, &n], q.rx) }),
    counter("queue_rx", BYTES, &["port", "queue"], "Bytes of those, without FCS",
        |s, out| for (n, (port, q)) in s.queues.iter().enumerate() { out.push(&[port, &n], q.rx_bytes) }),
    counter("queue_matched", PACKETS, &["port", "queue"], "Of those, taken by at least one capture or by the history",
        |s, out| for (n, (port, q)) in s.queues.iter().enumerate() { out.push(&[port, &n], q.matched) }),
    counter("queue_unmatched", PACKETS, &["port", "queue"], "Of those, taken by none",
        |s, out| for (n, (port, q)) in s.queues.iter().enumerate() { out.push(&[port, &n], q.unmatched) }),
    // time
    counter("clock_steps", None, &[], "Times that the wall clock was set by more than half a second, as the workers saw it",
        |s, out| engine(s, out, |e| e.clock.count)),
    gauge("clock_synchronised", None, &[], "1 while the kernel says that something disciplines the wall clock: chrony, ntpd, PTP",
        |s, out| if let Some(said) = s.engine.as_ref().and_then(|e| e.clock_state) { out.push(&[], u64::from(said.synchronised)) }),
    // stages
    counter("stage_turns", None, &["stage"], "Turns of a thread's loop or house-keeping; stands still only if the thread does",
        |s, out| stage(s, out, |_| true, |r| r.beats)),
    gauge("stage_stalled", None, &["stage"], "1 while the stage makes no progress although it should (observe.watchdog_seconds)",
        |s, out| for v in &s.stages { out.push(&[&v.name], u64::from(v.stalled.is_some())) }),
    gauge("stage_queued_messages", None, &["stage"], "Messages that wait in the rings before a writer or the publisher",
        |s, out| stage(s, out, has_messages, |r| r.queued)),
    gauge("stage_queued_most_messages", None, &["stage"], "The most of those since the process started",
        |s, out| stage(s, out, has_messages, |r| r.queued_max)),
    gauge("worker_blocks", None, &["stage"], "Blocks of the arena that a worker has in all",
        |s, out| for v in s.stages.iter().filter(|v| has_blocks(v)) { out.push(&[&v.name], v.blocks) }),
    gauge("worker_blocks_free", None, &["stage"], "Of those, the free ones: at none, frames are dropped as no_block",
        |s, out| stage(s, out, has_blocks, |r| r.blocks_free)),
    gauge("worker_blocks_free_least", None, &["stage"], "The fewest of those since the process started",
        |s, out| stage(s, out, has_blocks, |r| r.blocks_free_min)),
    gauge("worker_blocks_waiting", None, &["stage"], "Of those, the ones that wait for the disk",
        |s, out| stage(s, out, has_blocks, |r| r.blocks_waiting)),
    gauge("writer_in_flight_writes", None, &["stage"], "Writes that a writer has started and that have not ended",
        |s, out| stage(s, out, is_writer, |r| r.in_flight)),
    counter("writer_writes", None, &["stage"], "Writes to segments that ended well",
        |s, out| stage(s, out, is_writer, |r| r.writes)),
    counter("writer_written", BYTES, &["stage"], "Bytes of those, with the padding of last pages",
        |s, out| stage(s, out, is_writer, |r| r.written_bytes)),
    gauge("io_uring_up", None, &[], "1 if all writers have io_uring; one without it writes one block at a time, at about half the rate",
        |s, out| out.push(&[], u64::from(s.stages.iter().filter(|v| is_writer(v)).all(|v| v.reading.has_ring)))),
    counter("spool_fsyncs", None, &[], "Times that a segment was made durable",
        |s, out| out.push(&[], s.stages.iter().map(|v| v.reading.fsyncs).sum())),
    // spool
    gauge("spool_used", BYTES, &[], "Taken of the quota, with mapped segments that wait to be used",
        |s, out| out.push(&[], s.spool_used)),
    gauge("spool_held", BYTES, &[], "Of those, what holds packets or is about to",
        |s, out| out.push(&[], s.spool_held)),
    gauge("spool_limit", BYTES, &[], "The quota: spool.bytes_max of each directory",
        |s, out| out.push(&[], s.spool_max)),
    gauge("spool_dir_used", BYTES, &["dir"], "Taken of the quota of one of the spool's directories",
        |s, out| disks(s, out, |disk| Some(disk.used))),
    gauge("spool_dir_free", BYTES, &["dir"], "What the file system of one of the spool's directories has left",
        |s, out| disks(s, out, |disk| disk.free)),
    counter("spool_dir_failures", None, &["dir"], "Times that a capture lost what it wrote into one of the spool's directories",
        |s, out| disks(s, out, |disk| Some(disk.failures))),
    gauge("spool_alarm", None, &[], "1 while the spool is above spool.high_water_percent",
        |s, out| engine(s, out, |e| u64::from(e.spool_alarm))),
    counter("spool_alarms", None, &[], "Times that it came there",
        |s, out| engine(s, out, |e| e.spool_alarms)),
    // accounts
    gauge("account_spool_held", BYTES, &["account"], "Of the spool, what one account has",
        |s, out| accounts(s, out, |a| a.held_bytes)),
    gauge("account_spool_limit", BYTES, &[], "The most that one account may have",
        |s, out| out.push(&[], s.account_max)),
    gauge("account_waiting", None, &["account"], "Captures of an account that have ended and are not delivered",
        |s, out| accounts(s, out, |a| a.waiting)),
    gauge("account_deliveries", None, &["account", "state"], "Of those, the deliveries that are at work, and that wait for their turn",
        |s, out| if let Some(e) = &s.engine {
            for a in &e.accounts {
                out.push(&[&a.number, &"at_work"], a.deliveries_at_work);
                out.push(&[&a.number, &"waiting"], a.deliveries_waiting);
            }
        }),
    // captures
    gauge("engine_up", None, &[], "1 if the engine answered; without it there are no metrics of captures",
        |s, out| if s.captures { out.push(&[], u64::from(s.engine.is_some())) }),
    gauge("fleet_up", None, &[], "1 if this node reaches what its fleet shares; absent where there is no [fleet.nats]",
        |s, out| if let Some(up) = s.bus_up { out.push(&[], u64::from(up)) }),
    gauge("captures", None, &["state"], "Captures that have not ended, by state",
        states),
    counter("captures_ended", None, &["status"], "Captures that ended since the process started",
        |s, out| if let Some(e) = &s.engine {
            out.push(&[&"success"], e.succeeded);
            out.push(&[&"failed"], e.failed);
        }),
    counter("capture_offered", PACKETS, &["capture", "kind"], "Frames that the ports saw while the capture was attached",
        |s, out| capture(s, out, |c| c.ledger.offered)),
    counter("capture_lost_in_port", PACKETS, &["capture", "kind", "reason"], "Of those, lost in the ports",
        |s, out| capture_reasons(s, out, lost_in_ports)),
    counter("capture_rx", PACKETS, &["capture", "kind"], "Of those, received by workers",
        |s, out| capture(s, out, |c| c.ledger.rx)),
    counter("capture_unmatched", PACKETS, &["capture", "kind"], "Of those received, not taken by the filter",
        |s, out| capture(s, out, |c| c.ledger.unmatched)),
    counter("capture_matched", PACKETS, &["capture", "kind"], "Of those received, taken by the filter",
        |s, out| capture(s, out, |c| c.ledger.matched)),
    gauge("capture_captured", PACKETS, &["capture", "kind"], "Of those matched, kept; falls when the spool cannot keep some",
        |s, out| capture(s, out, |c| c.ledger.captured)),
    gauge("capture_captured", BYTES, &["capture", "kind"], "Frame bytes of those kept",
        |s, out| capture(s, out, |c| c.ledger.captured_bytes)),
    counter("capture_dropped", PACKETS, &["capture", "kind", "reason"], "Of those matched, not kept",
        |s, out| capture_reasons(s, out, dropped)),
    gauge("capture_objects", None, &["capture", "kind"], "Objects that are complete in the bucket",
        |s, out| capture(s, out, |c| c.objects)),
    gauge("capture_objects", BYTES, &["capture", "kind"], "Bytes of those",
        |s, out| capture(s, out, |c| c.object_bytes)),
    // merge and upload
    counter("merge_objects", None, &[], "Objects that merges completed, again for those that were begun again",
        |s, out| out.push(&[], s.uploads.merged_objects)),
    counter("merge", BYTES, &[], "Bytes that merges made, again for those that were begun again",
        |s, out| out.push(&[], s.uploads.merged_bytes)),
    counter("upload_objects", None, &[], "Objects that stores confirmed",
        |s, out| out.push(&[], s.uploads.objects)),
    counter("upload", BYTES, &[], "Bytes of those",
        |s, out| out.push(&[], s.uploads.bytes)),
    counter("upload_retries", None, &[], "Requests to stores that were sent again",
        |s, out| out.push(&[], s.uploads.retries)),
    counter("upload_failures", None, &[], "Attempts to deliver a capture that failed; each is begun again until upload.retention_seconds",
        |s, out| out.push(&[], s.uploads.failures)),
    counter("delivery_stood_back", Some("seconds"), &[], "Time in which at least one delivery stood back for captures",
        |s, out| engine(s, out, |e| e.pace.stood_back.as_secs())),
    gauge("deliveries_standing_back", None, &[], "Deliveries that stand back now",
        |s, out| engine(s, out, |e| e.pace.standing_back)),
    gauge("deliveries_share", None, &[], "1 while deliveries have upload.share_percent of the time",
        |s, out| engine(s, out, |e| u64::from(e.pace.shares))),
    gauge("upload_waiting", BYTES, &[], "On the spool in whole segments of full captures, and not delivered",
        |s, out| engine(s, out, waiting_bytes)),
    gauge("upload_oldest", Some("seconds"), &[], "Age of the oldest capture that waits for its upload",
        |s, out| engine(s, out, oldest_seconds)),
    gauge("upload_next_try", Some("seconds"), &[], "Until the first failed delivery is tried again; absent if none waits",
        |s, out| if let Some(seconds) = s.engine.as_ref().and_then(next_try_seconds) { out.push(&[], seconds) }),
    counter("timestamps", None, &["result"], "Manifests that got their time stamp (stamped), and that did not in time (missed)",
        |s, out| { out.push(&[&"stamped"], s.stamps.stamped); out.push(&[&"missed"], s.stamps.missed); }),
    gauge("queue_worker", None, &["port", "queue", "stage"], "Always 1: which worker polls which queue",
        |s, out| for (n, (port, _)) in s.queues.iter().enumerate() { out.push(&[port, &n, &worker_of(s, n)], 1) }),
    // log
    counter("log_lines_dropped", None, &[], "Log lines that were not written: standard error took none, or not fast enough",
        |s, out| out.push(&[], s.log_lines_dropped)),
    // config
    counter("config_reloads", None, &["result"], "Reloads of the config that were done, and that were refused and changed nothing",
        |s, out| for (result, count) in s.reloads { out.push(&[&result], count) }),
    // audit
    counter("audit_lines", None, &[], "Lines of the audit log that were written; absent without one, as the next three",
        |s, out| if let Some(audit) = &s.audit { out.push(&[], audit.lines) }),
    counter("audit_lost_entries", None, &[], "What found no room while the audit log could not be written; a line tells how many",
        |s, out| if let Some(audit) = &s.audit { out.push(&[], audit.lost) }),
    gauge("audit_writable", None, &[], "1 if the last line of the audit log could be written; it is tried again each second",
        |s, out| if let Some(audit) = &s.audit { out.push(&[], u64::from(!audit.is_failing)) }),
    gauge("audit", BYTES, &[], "Size of all files of the audit log",
        |s, out| if let Some(audit) = &s.audit { out.push(&[], audit.bytes) }),
    // connections
    gauge("open_files", None, &[], "Descriptors that the process has open; absent when it has none left to look",
        |s, out| if let Ok(open) = &s.open_files.open { out.push(&[], *open) }),
    gauge("open_files_limit", None, &[], "The most that it may have",
        |s, out| out.push(&[], s.open_files.limit)),
    counter("connections_cut", None, &["reason"], "Connections to the API, health and metrics that this host ended or did not serve",
        |s, out| for (reason, count) in &s.connections_cut { out.push(&[reason], *count) }),
    // api
    counter("api_authentication_failures", None, &["answer"], "Wrong credentials, answered 401 (denied) or 429 (limited)",
        |s, out| for (answer, count) in &s.authentication_failures { out.push(&[answer], *count) }),
    counter("account_requests_refused", None, &["account"], "Requests answered 429: more than its rate",
        refused),
    counter("api_requests", None, &["method", "route", "status"], "Requests that the API answered; unmatched paths count as route=none",
        |s, out| for ((method, route, status), count) in &s.requests { out.push(&[method, route, status], *count) }),
];
