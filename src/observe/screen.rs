//! The one look a second at the host and its captures that all viewers of the dashboard share. Owns the form in which operators see
//! the host; not the counters, nor who looks.
//!
//! Invariant: the engine is asked once a second, however many look; readiness, which writes to the job store, every fifth. Of a
//! capture's failures the constant kind is shown, never the words for its account, which name its places.

use super::health::{Report, alive, ready};
use super::sources::{DiskView, PortCounters, Snapshot, Sources, StageView, Tried};
use super::table::{next_try_seconds, oldest_seconds, waiting_bytes, worker_of};
use crate::dashboard::{self, Live, Measure, Reading, StreamPlaces};
use crate::engine::CaptureView;
use crate::http::connections_open;
use crate::job::Job;
use crate::store::Changes;
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;

const TURN: Duration = Duration::from_secs(1);
/// Turns between two looks at readiness.
const READY_TURNS: u64 = 5;
/// Turns of which the worst is shown as the last minute's.
const MINUTE_TURNS: usize = 60;
/// How long, and how many of them, captures are shown after their end: as long as the plots reach back.
const RECENT_NS: u64 = 900_000_000_000;
const RECENT_MAX: usize = 256;

/// The worst of each second of the last minute, by stage: messages that waited, blocks that were free.
#[derive(Default)]
struct Minute(HashMap<String, VecDeque<(u64, u64)>>);

/// The captures that ended lately, with their final counts: what the points of a series add up to lacks the time before the first
/// point and after the last.
#[derive(Default)]
struct Recent(VecDeque<(u64, Value)>);

impl Recent {
    fn add(&mut self, ended: &[Job], now_ns: u64) {
        self.0.extend(ended.iter().map(|job| {
            let (id, account, ledger) = (&job.id, &job.request.account, &job.ledger);
            (now_ns, json!({"id": id, "account": account, "ended_ns": now_ns, "ledger": ledger}))
        }));
        let oldest = now_ns.saturating_sub(RECENT_NS);
        while self.0.len() > RECENT_MAX || self.0.front().is_some_and(|(at, _)| *at < oldest) {
            self.0.pop_front();
        }
    }
}

impl Minute {
    fn add(&mut self, stage: &StageView) -> (u64, u64) {
        let seconds = self.0.entry(stage.name.clone()).or_default();
        if seconds.len() >= MINUTE_TURNS {
            seconds.pop_front();
        }
        seconds.push_back((stage.reading.queued_max_lately, stage.reading.blocks_free_min_lately));
        let most = seconds.iter().map(|(queued, _)| *queued).max().unwrap_or(0);
        (most, seconds.iter().map(|(_, free)| *free).min().unwrap_or(0))
    }
}

/// Looks once a second for as long as it runs.
pub async fn keep_looking(sources: Arc<Sources>, live: Arc<Live>, streams: Arc<StreamPlaces>) {
    let (tried, mut minute, mut report) = (Tried::default(), Minute::default(), None);
    let (mut recent, began) = (Recent::default(), Instant::now());
    let mut changes = sources.capture.as_ref().map(|capture| capture.jobs.watch());
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for turn in 0_u64.. {
        turns.tick().await;
        if turn % READY_TURNS == 0 || report.is_none() {
            report = Some(ready(&sources, &tried).await);
        }
        let snapshot = sources.read().await;
        for stage in &sources.stages {
            stage.turn();
        }
        let ended = changes.as_mut().map(ended).unwrap_or_default();
        recent.add(&ended, ns(SystemTime::now()));
        let mut host = host(&sources, &snapshot, report.as_ref(), &mut minute, streams.count());
        host["ended"] = recent.0.iter().map(|(_, shown)| shown.clone()).collect();
        let measures = measures(&snapshot);
        live.take(dashboard::Snapshot {
            now_ns: ns(SystemTime::now()),
            elapsed: began.elapsed(),
            overview: snapshot.engine,
            ended,
            host,
            measures,
        });
    }
}

fn ns(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The jobs that were recorded as ended since the last look.
fn ended(changes: &mut Changes) -> Vec<Job> {
    let mut ended = Vec::new();
    while let Some(change) = changes.next().now_or_never() {
        match change {
            Ok(Some(stored)) if stored.job.status.ended() => ended.push(stored.job.clone()),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // Viewers find what is missing when they list.
            Err(missed) => tracing::debug!(%missed, "live answers lack captures that ended"),
        }
    }
    ended
}

fn host(
    sources: &Sources,
    s: &Snapshot,
    ready: Option<&Report>,
    minute: &mut Minute,
    streams: usize,
) -> Value {
    let port = |port: &super::PortReading| {
        let PortCounters { rx, rx_bytes, imissed, ierrors, rx_nombuf, discarded } =
            port.counters.unwrap_or_default();
        json!({"device": port.port, "link_up": port.link_up, "link_mbps": port.link_mbps, "rx": rx,
            "rx_bytes": rx_bytes, "imissed": imissed, "ierrors": ierrors, "rx_nombuf": rx_nombuf,
            "discarded": discarded, "counts_losses": port.counts_losses, "is_read": port.counters.is_some(), "is_there": port.is_there,
            "quiet_seconds": port.quiet_seconds, "gaps": port.gaps})
    };
    let queue = |(n, (port, q)): (usize, &(String, crate::worker::QueueTotals))| {
        json!({"port": port, "queue": n, "worker": worker_of(s, n), "rx": q.rx, "rx_bytes": q.rx_bytes,
            "matched": q.matched, "unmatched": q.unmatched})
    };
    // By its number: no answer of the API tells where on the host something is.
    let disk = |(number, disk): (usize, &DiskView)| {
        json!({"number": number, "used": disk.used, "held": disk.held, "max": disk.max, "free": disk.free,
            "failures": disk.failures})
    };
    // That of the directory that has least.
    let disk_free = s.disks.iter().filter_map(|disk| disk.free).min();
    let stages: Vec<_> = s.stages.iter().map(|stage| shown(stage, minute)).collect();
    json!({
        "now_ns": ns(SystemTime::now()), "started_ns": ns(s.started), "version": env!("CARGO_PKG_VERSION"),
        "dpdk": sources.dpdk, "health": alive(sources.stages()), "ready": ready,
        "ports": s.ports.iter().map(port).collect::<Vec<_>>(),
        "queues": s.queues.iter().enumerate().map(queue).collect::<Vec<_>>(),
        "stages": stages,
        "spool": {"used": s.spool_used, "held": s.spool_held, "max": s.spool_max,
            "alarm": s.engine.as_ref().is_some_and(|engine| engine.spool_alarm),
            "alarms": s.engine.as_ref().map_or(0, |engine| engine.spool_alarms),
            "high_water_percent": sources.high_water_percent, "disk_free": disk_free,
            "dirs": s.disks.iter().enumerate().map(disk).collect::<Vec<_>>()},
        "upload": upload(s),
        "captures": captures(s),
        "api": {"connections": connections_open(), "connections_max": sources.connections_max, "streams": streams},
    })
}

fn shown(stage: &StageView, minute: &mut Minute) -> Value {
    let (queued, free) = minute.add(stage);
    let r = &stage.reading;
    json!({"name": stage.name, "stalled": stage.stalled, "turns": r.beats, "queued": r.queued,
        "queued_max": {"second": r.queued_max_lately, "minute": queued, "start": r.queued_max},
        "blocks": stage.blocks, "blocks_free": r.blocks_free,
        "blocks_free_min": {"second": r.blocks_free_min_lately, "minute": free, "start": r.blocks_free_min},
        "in_flight": r.in_flight, "writes": r.writes, "written_bytes": r.written_bytes})
}

fn upload(s: &Snapshot) -> Value {
    let counts = &s.uploads;
    let mut waiting = s.engine.iter().flat_map(|engine| &engine.captures);
    let last_error = waiting.find_map(|capture| capture.last_error);
    json!({"objects": counts.objects, "bytes": counts.bytes, "retries": counts.retries, "failures": counts.failures,
        "waiting_bytes": s.engine.as_ref().map_or(0, waiting_bytes),
        "oldest_seconds": s.engine.as_ref().map(oldest_seconds), "last_error": last_error,
        "next_try_seconds": s.engine.as_ref().and_then(next_try_seconds)})
}

fn captures(s: &Snapshot) -> Value {
    let captures = s.engine.iter().flat_map(|engine| engine.captures.iter().chain(&engine.look_backs));
    let shown = captures.map(|capture| {
        let lag = capture.stopped.map(|stopped| jiff::Timestamp::now().duration_since(stopped).as_secs());
        json!({"id": capture.id, "account": capture.account, "kind": capture.kind, "status": capture.status,
            "ledger": capture.ledger, "waiting_bytes": capture.waiting_bytes, "upload_lag_seconds": lag,
            "last_error": capture.last_error, "next_try_seconds": capture.next_try_seconds.map(f64::ceil)})
    });
    shown.collect()
}

/// What the series of the past quarter of an hour has.
fn measures(s: &Snapshot) -> Vec<Measure> {
    let mut all: Vec<Measure> = Vec::new();
    for port in &s.ports {
        let Some(c) = &port.counters else { continue };
        let of = format!("ports/{}", port.port);
        for (name, count) in [
            ("rx", c.rx),
            ("rx_bytes", c.rx_bytes),
            ("imissed", c.imissed),
            ("ierrors", c.ierrors),
            ("rx_nombuf", c.rx_nombuf),
            ("discarded", c.discarded),
        ] {
            all.push((of.clone(), name, Reading::Count(count)));
        }
    }
    for (n, (_, queue)) in s.queues.iter().enumerate() {
        all.push((format!("queues/{n}"), "rx", Reading::Count(queue.rx)));
        all.push((format!("queues/{n}"), "matched", Reading::Count(queue.matched)));
    }
    for stage in &s.stages {
        let (of, r) = (format!("stages/{}", stage.name), &stage.reading);
        all.push((of.clone(), "queued_max", Reading::Level(r.queued_max_lately)));
        all.push((of.clone(), "written_bytes", Reading::Count(r.written_bytes)));
        if stage.blocks > 0 {
            all.push((of, "blocks_free_min", Reading::Level(r.blocks_free_min_lately)));
        }
    }
    all.push(("spool".to_owned(), "used", Reading::Level(s.spool_used)));
    all.push(("spool".to_owned(), "held", Reading::Level(s.spool_held)));
    all.push(("upload".to_owned(), "bytes", Reading::Count(s.uploads.bytes)));
    all.push(("upload".to_owned(), "retries", Reading::Count(s.uploads.retries)));
    all.extend(s.engine.iter().flat_map(|engine| &engine.captures).flat_map(losses));
    all
}

/// What a capture lost. Of one that another process captured, what it lost before is not counted in the first second of this one.
fn losses(capture: &CaptureView) -> Vec<Measure> {
    let dropped = &capture.ledger.dropped;
    let counts = [("no_block", dropped.no_block), ("spool", dropped.spool), ("io", dropped.io)];
    let of = format!("captures/{}", capture.id);
    let measures = counts.into_iter().filter_map(|(name, count)| match capture.is_inherited {
        true => Some((of.clone(), name, Reading::Count(count))),
        // Most captures lose nothing: they take no place.
        false => (count > 0).then(|| (of.clone(), name, Reading::FromZero(count))),
    });
    measures.collect()
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
