//! What a host is put through while one of its system calls fails. Owns the steps; what must hold afterwards is `audit`'s.
//!
//! A scenario runs in a process of its own, below `failnth`. It never panics on what a fault brings about: whatever it saw
//! goes into its [`Facts`].

use crate::client;
use crate::facts::{Asked, Facts, ORDER, Order};
use crate::rig::{Host, Options, nothing, request};
use crate::source::{Gate, Gated};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use trawl::engine::Handle;
use trawl::history::HistoryConfig;
use trawl::job::{AccountId, CaptureId, Job, Kind, OffsetTime, Request, Status};
use trawl::pcap::{Compression, Container};
use trawl::spool::WriteMode;
use trawl::worker::Timers;

/// Takes up what the scenario left and delivers it.
pub const SETTLE: &str = "settle";

/// Frames of each queue.
pub const FRAMES: u64 = 1_200;
/// Their bytes, by queue.
pub const FRAME_BYTES: [usize; 2] = [1_000, 800];
const PER_SECOND: u64 = 4_000;
const SEGMENT_BYTES: u64 = 1 << 20;
/// In the directory that the process works in: what one left is taken up in copies of its directory.
const BUCKET: &str = "/proc/self/cwd/bucket";
const ACCOUNT: &str = "a";
/// A shutdown waits for no upload; for a segment as long as its publishing is tried again, for a look back as long as that waits
/// for the history.
const SHUTDOWN_MAX: Duration = Duration::from_secs(45);
/// After this time a host without a capture has none.
const NO_CAPTURE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(3);

/// Runs what this process was started for; `false`: it was started for no scenario.
pub fn run_if_asked() -> bool {
    let Ok(order) = std::env::var(ORDER) else { return false };
    let order: Order = serde_json::from_str(&order).unwrap();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.with_max_level(tracing::Level::INFO).init();
    let runtime = trawl::host::with_workers(2, || {}).unwrap();
    let _not_there = std::fs::File::open("/sweep/begin");
    let facts = runtime.block_on(run(&order));
    let _not_there = std::fs::File::open("/sweep/end");
    facts.write(&order.facts);
    // What still waits for the failed disk would keep the runtime from its end.
    runtime.shutdown_background();
    true
}

async fn run(order: &Order) -> Facts {
    let mapped = order.scenario.contains("mapped");
    let history = order.scenario.contains("look_back").then_some(HistoryConfig {
        sample: None,
        bytes_max: 4 << 20,
        keep: Duration::from_secs(86_400),
        segment: Duration::from_millis(150),
    });
    let options = Options {
        write: if mapped { WriteMode::Mapped } else { WriteMode::Direct },
        segment_bytes: SEGMENT_BYTES,
        history,
        timers: Timers { flush: Duration::from_millis(30), rotate: Duration::from_millis(120) },
        upload_pause_max: Duration::from_millis(40),
        ..Options::default()
    };
    let gate = Gate::default();
    let sources = FRAME_BYTES.map(|bytes| Gated::new(&gate, bytes, FRAMES, PER_SECOND)).into();
    let mut facts = Facts::default();
    let host = match Host::open(&order.dir, options, sources, &nothing(), HashMap::new()) {
        Ok(host) => host,
        Err(error) => {
            facts.start_refused = Some(format!("{error:#}"));
            return facts;
        }
    };
    let mut scene = Scene {
        handle: host.handle.clone(),
        dir: &order.dir,
        gate,
        patience: Duration::from_millis(order.patience_ms),
        lasts: order.lasts,
        facts,
    };
    match order.scenario.as_str() {
        "full_direct" => scene.full(None, None).await,
        "full_mapped_zstd" => scene.full(Some(Container::PcapNg), Some(Compression::Zstd)).await,
        "shutdown_direct" => scene.taken().await,
        "simple_and_look_back" => scene.simple_and_look_back().await,
        "simple_over_http" => scene.simple_over_http(&host).await,
        "die_direct" | "die_mapped" => scene.die().await,
        _ => scene.settle().await,
    }
    let Scene { mut facts, .. } = scene;
    end(host, &mut facts).await;
    facts
}

/// Ends the host as `serve` does.
async fn end(host: Host, facts: &mut Facts) {
    let Host { handle, plane, engine, history, spool, .. } = host;
    if tokio::time::timeout(SHUTDOWN_MAX, handle.shutdown()).await.is_err() {
        facts.complaints.push("the shutdown does not end".to_owned());
        return;
    }
    match tokio::time::timeout(SHUTDOWN_MAX, engine).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => facts.complaints.push(format!("the engine died: {error}")),
        Err(_) => facts.complaints.push("the engine does not end".to_owned()),
    }
    plane.stop();
    if let Some(history) = history
        && let Err(error) = history.finish(Duration::from_secs(2))
    {
        facts.complaints.push(format!("the history is not taken in: {error}"));
    }
    facts.quota_bytes = Some(spool.used_bytes());
}

struct Scene<'a> {
    handle: Handle,
    dir: &'a Path,
    gate: Gate,
    patience: Duration,
    lasts: bool,
    facts: Facts,
}

fn account() -> AccountId {
    AccountId(ACCOUNT.to_owned())
}

impl Scene<'_> {
    /// Creates a capture; its place among those that were asked for, if it was accepted.
    async fn create(&mut self, request: Request) -> Option<usize> {
        let answer = tokio::time::timeout(self.patience, self.handle.create(request)).await;
        let mut asked = Asked { refused: None, id: None, job: None, ran: false };
        match answer {
            Ok(Ok(job)) => (asked.id, asked.job) = (Some(job.id.clone()), Some(job)),
            Ok(Err(refusal)) => asked.refused = Some(refusal.to_string()),
            // The API answers for it once its time is over.
            Err(_) if self.lasts => asked.refused = Some("no answer".to_owned()),
            Err(_) => self.facts.complaints.push("a create is not answered".to_owned()),
        }
        let accepted = asked.id.is_some().then_some(self.facts.asked.len());
        self.facts.asked.push(asked);
        accepted
    }

    /// Waits until a capture is as wanted, for as long as the patience lasts; whether it is.
    async fn until(&mut self, at: usize, wanted: impl Fn(&Job) -> bool) -> bool {
        let deadline = Instant::now() + self.patience;
        let Some(id) = self.facts.asked[at].id.clone() else { return false };
        loop {
            if let Some(job) = self.get(&id).await {
                if let Err(imbalance) = job.ledger.check() {
                    self.facts.complaints.push(imbalance.to_string());
                }
                let done = wanted(&job);
                self.facts.asked[at].job = Some(job);
                if done {
                    return true;
                }
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn get(&self, id: &CaptureId) -> Option<Job> {
        // A store that cannot be read is asked again.
        self.handle.get(account(), id.clone()).await.ok()
    }

    async fn stop(&self, at: usize) {
        if let Some(id) = self.facts.asked[at].id.clone() {
            let _ended_already = self.handle.stop(account(), id).await;
        }
    }

    /// Lets the frames come once the workers have the capture, and waits for the last one.
    async fn take_all(&mut self, at: usize) {
        let running = |job: &Job| job.status != Status::Pending;
        self.facts.asked[at].ran = self.until(at, running).await;
        self.gate.store(true, Ordering::Release);
        self.until(at, |job| job.status.ended() || job.ledger.rx >= 2 * FRAMES || job.stop_reason.is_some())
            .await;
    }

    fn full_request(&self) -> Request {
        Request { account: account(), ..request(BUCKET.into(), 60.0) }
    }

    async fn full(&mut self, format: Option<Container>, compression: Option<Compression>) {
        let request = Request { format, compression, ..self.full_request() };
        let Some(at) = self.create(request).await else { return };
        self.take_all(at).await;
        self.stop(at).await;
        self.until(at, |job| job.status.ended()).await;
    }

    /// A capture that has all frames and is not stopped: the shutdown ends it.
    async fn taken(&mut self) {
        let Some(at) = self.create(self.full_request()).await else { return };
        self.take_all(at).await;
    }

    async fn simple_and_look_back(&mut self) {
        let simple = self.simple_request();
        if let Some(at) = self.create(simple.clone()).await {
            self.take_all(at).await;
            self.until(at, |job| job.status.ended()).await;
        }
        self.gate.store(true, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let at = jiff::Timestamp::now();
        let offset_time = Some(OffsetTime { sent: at.to_string(), at });
        let back = Request { offset_time, packet_limit: Some(50), ..simple };
        if let Some(at) = self.create(back).await {
            self.until(at, |job| job.status.ended()).await;
        }
    }

    fn simple_request(&self) -> Request {
        let limit = Some(100);
        Request {
            kind: Kind::Simple,
            destination: None,
            colo: None,
            packet_limit: limit,
            ..self.full_request()
        }
    }

    /// A simple capture whose file a client fetches, again and again until it has it.
    async fn simple_over_http(&mut self, host: &Host) {
        let served = client::serve(host, self.dir).await;
        if let Some(at) = self.create(self.simple_request()).await {
            self.take_all(at).await;
            self.until(at, |job| job.status.ended()).await;
            if let (Ok(served), Some(job)) = (&served, &self.facts.asked[at].job)
                && let Err(why) = served.fetch(job, &self.dir.join("simple"), self.patience).await
                && !self.lasts
            {
                self.facts.complaints.push(format!("a client does not get its file: {why}"));
            }
        }
        match served {
            Ok(served) => served.end().await,
            Err(error) => self.facts.start_refused = Some(error.to_string()),
        }
    }

    /// Dies once some objects are complete and some segments open.
    async fn die(&mut self) {
        let Some(at) = self.create(self.full_request()).await else { return };
        self.gate.store(true, Ordering::Release);
        let far = |job: &Job| !job.objects.is_empty() && job.ledger.rx >= FRAMES * 3 / 2;
        assert!(self.until(at, far).await, "no object is complete: {:?}", self.facts);
        self.facts.write(&self.dir.with_extension("died"));
        std::process::abort();
    }

    /// Waits until everything that was left is delivered.
    async fn settle(&mut self) {
        let begun = Instant::now();
        loop {
            if let Ok(jobs) = self.handle.list(account()).await {
                let done = jobs.iter().all(|job| job.status.ended());
                // A list that cannot be read is empty.
                let empty = jobs.is_empty() && begun.elapsed() < NO_CAPTURE;
                self.facts.jobs = jobs;
                if done && !empty {
                    return;
                }
            }
            if begun.elapsed() > self.patience {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
