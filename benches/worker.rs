//! What each kind of work costs one worker: it polls a real DPDK port (`net_pcap`, `infinite_rx`) in this process, and is given one
//! work after the other for some milliseconds each, round after round, so that a drift of the machine falls on all alike.
//!
//!     benches/run worker [--sizes 64] [--rounds 40] [--milliseconds 25] [--works nothing,history,…] [--eal "-m 256"]
//!
//! Figures are frames received per second, and the ratio to the first of the works in the same round: medians, and the
//! quartiles of the ratio. Writers throw blocks away, so no disk is in them. At the end of each work its counts are held against
//! each other. Needs two cores and root or hugepages as DPDK does; without `--bench`, as `cargo test --benches` calls it, it does nothing.

use clap::Parser;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trawl::block::Hugepages;
use trawl::dpdk::{Eal, Port, PortConfig};
use trawl::host::{DataPlane, DataPlaneConfig, OnWorker};
use trawl::limits::{FULL_SNAPLEN, SIMPLE_SNAPLEN};
use trawl::matcher::{Filter, FilterV1};
use trawl::spool::Feed;
use trawl::spool::{Spool, SpoolCapture, SpoolConfig, WriteMode};
use trawl::worker::{
    Assigned, Attachment, Budget, Payer, Sample, Timers, WhenIdle, Window, Work, WorkerHandle,
};

/// After a change of work, before its time is measured.
const SETTLE: Duration = Duration::from_millis(3);
/// What `[history]` keeps by default: one in so many.
const HISTORY: u32 = 1000;

#[derive(Parser)]
struct Arguments {
    /// Bytes of a frame with FCS, or imix.
    #[arg(long, default_value = "64")]
    size: String,
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// For each work in each round.
    #[arg(long, default_value_t = 25)]
    milliseconds: u64,
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "nothing,history,reject1,reject1+history,all,filter1,reject64,split64,snap160,sample10"
    )]
    works: Vec<String>,
    #[arg(long, default_value = "-m 256", allow_hyphen_values = true)]
    eal: String,
    /// Set by cargo.
    #[arg(long)]
    bench: bool,
}

/// One capture of a work.
#[derive(Clone)]
struct Part {
    filter: String,
    snaplen: u32,
    one_in: u32,
}

impl Part {
    fn full(filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), snaplen: FULL_SNAPLEN, one_in: 1 }
    }

    fn simple(one_in: u32) -> Self {
        Self { filter: "{}".to_owned(), snaplen: SIMPLE_SNAPLEN, one_in }
    }
}

/// The captures of a work by its name. All that make-frames.py makes is UDP from 198.18.0.0/16.
fn parts(name: &str) -> Result<Vec<Part>, String> {
    let rejecting = |n: u32| {
        Part::full(format!(r#"{{"source_address":"10.0.0.{n}","destination_port":443,"protocol":6}}"#))
    };
    let disjoint = |n: u32| Part::full(format!(r#"{{"source_address":"198.18.{}.0/22"}}"#, 4 * n));
    let named = |name: &str| match name {
        "nothing" => Ok(Vec::new()),
        "history" => Ok(vec![Part::simple(HISTORY)]),
        "all" => Ok(vec![Part::full("{}")]),
        "filter1" => Ok(vec![Part::full(r#"{"source_address":"198.18.0.0/16"}"#)]),
        "reject1" => Ok(vec![rejecting(0)]),
        "reject64" => Ok((0..64).map(rejecting).collect()),
        "split64" => Ok((0..64).map(disjoint).collect()),
        "snap160" => Ok(vec![Part::simple(1)]),
        "sample10" => Ok(vec![Part::simple(10)]),
        other => Err(format!("no work is called {other:?}")),
    };
    let parts = name.split('+').map(named).collect::<Result<Vec<_>, _>>()?;
    Ok(parts.concat())
}

/// The running worker, and what gives it work.
struct Bench {
    plane: DataPlane,
    handle: WorkerHandle,
    spool: Arc<Spool>,
    serial: u64,
    generation: u64,
}

impl Bench {
    /// Attaches `parts` instead of what was attached.
    fn give(&mut self, parts: &[Part]) -> Result<(), Box<dyn Error>> {
        let filters =
            parts.iter().map(|part| Ok(Filter::try_from(&serde_json::from_str::<FilterV1>(&part.filter)?)?));
        let filters = filters.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let mut captures = Vec::new();
        for (slot, part) in parts.iter().enumerate() {
            self.serial += 1;
            let dir = self.spool.config().dir.join(self.serial.to_string());
            let (feed, events) = (Arc::new(Feed::new(1)), tokio::sync::mpsc::unbounded_channel().0);
            self.spool.register(SpoolCapture::new(self.serial, dir, 1, feed, events, Box::new(|_| {})))?;
            let attachment = Attachment {
                serial: self.serial,
                payer: Payer::account(0),
                snaplen: part.snaplen,
                window: Window::open(None),
                budget: Arc::new(Budget::new(None, None)),
                sample: Sample::new(part.one_in),
                rotate: None,
            };
            captures.push(Assigned { slot, filter: &filters[slot], scope: None, attachment });
        }
        self.generation += 1;
        let work = Work::new(self.generation, captures);
        self.handle
            .give(Box::new(work))
            .map_err(|_| "the worker takes no work: has it a core of its own?")?;
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.handle.take_back().is_none() {
            if Instant::now() > deadline {
                return Err("the worker does not take its work: has it a core of its own?".into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Frames a second with this work.
    fn rate(&mut self, parts: &[Part], time: Duration) -> Result<f64, Box<dyn Error>> {
        self.give(parts)?;
        std::thread::sleep(SETTLE);
        let queue = Arc::clone(&self.plane.queues[0]);
        let (before, since) = (queue.totals(), Instant::now());
        std::thread::sleep(time);
        let (after, seconds) = (queue.totals(), since.elapsed().as_secs_f64());
        for slot in 0..parts.len() {
            let counts = queue.slot(slot);
            let kept = counts.captured + counts.no_block + counts.limit + counts.sampled;
            if counts.matched != kept || counts.no_block > 0 {
                return Err(
                    format!("a capture's counts do not add up, or it had no block: {counts:?}").into()
                );
            }
        }
        if after.rx != after.matched + after.unmatched || after.rx == before.rx {
            return Err(format!("the queue's counts do not add up, or nothing came: {after:?}").into());
        }
        Ok((after.rx - before.rx) as f64 / seconds)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return Ok(());
    }
    let works = arguments.works.iter().map(|name| parts(name)).collect::<Result<Vec<_>, _>>()?;
    let dir = tempfile::tempdir()?;
    let frames = dir.path().join("frames.pcap");
    write_frames(&frames, &arguments.size)?;
    let cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let [main, .., poll] = cores[..] else { return Err("two cores are needed".into()) };
    core_affinity::set_for_current(core_affinity::CoreId { id: main });
    let eal = Eal::init(
        &format!("--no-pci --in-memory --log-level=error {}", arguments.eal)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    )?;
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", frames.display());
    let (_port, sources) = Port::open(&eal, &PortConfig::new(device, 1))?.start()?;
    let spool = Arc::new(Spool::open(SpoolConfig {
        dir: dir.path().join("spool"),
        more_dirs: Vec::new(),
        bytes_max: 1 << 30,
        share_bytes_max: u64::MAX,
        part_bytes: u64::MAX,
        segment_bytes: 1 << 30,
        write: WriteMode::Discard,
        fsync_interval: Duration::from_secs(1),
        pool_bytes: 0,
    })?);
    let config = DataPlaneConfig {
        worker_cores: vec![poll],
        worker_nodes: Vec::new(),
        queue_workers: Vec::new(),
        bypasses_lanes: false,
        when_idle: WhenIdle::Spin,
        writer_cores: vec![main],
        blocks: 256,
        accounts: 1,
        hugepages: Hugepages::Auto,
        timers: Timers { flush: Duration::from_secs(1), rotate: Duration::from_secs(3600) },
    };
    let on_worker: OnWorker = Arc::new(move || Box::new(eal.register_thread()));
    let (plane, mut handles) = DataPlane::start(&config, sources, &spool, &on_worker)?;
    let handle = handles.pop().ok_or("no worker")?;
    let mut bench = Bench { plane, handle, spool, serial: 0, generation: 0 };
    let mut rates = vec![Vec::new(); works.len()];
    for _ in 0..arguments.rounds {
        for (parts, rates) in works.iter().zip(&mut rates) {
            rates.push(bench.rate(parts, Duration::from_millis(arguments.milliseconds))?);
        }
    }
    print(&arguments, &rates);
    bench.give(&[])?;
    bench.plane.stop();
    Ok(())
}

fn print(arguments: &Arguments, rates: &[Vec<f64>]) {
    let first = &arguments.works[0];
    println!(
        "| work, frames of {} | Mpps | ns a frame | / {first} (quartiles) |\n|---|---|---|---|",
        arguments.size
    );
    for (name, own) in arguments.works.iter().zip(rates) {
        let ratios: Vec<f64> = own.iter().zip(&rates[0]).map(|(own, first)| own / first).collect();
        let (mpps, ratio) = (quantile(own, 0.5) / 1e6, quantile(&ratios, 0.5));
        let (low, high) = (quantile(&ratios, 0.25), quantile(&ratios, 0.75));
        println!("| {name} | {mpps:.2} | {:.2} | {ratio:.3} ({low:.3} – {high:.3}) |", 1e3 / mpps);
    }
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn write_frames(path: &Path, size: &str) -> Result<(), Box<dyn Error>> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/run");
    let status =
        Command::new(benches).args(["frames", "--size", size, "--count", "2000"]).arg(path).status()?;
    if status.success() { Ok(()) } else { Err(format!("benches/run frames ended with {status}").into()) }
}
