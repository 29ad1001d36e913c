//! What this host sustains, stage by stage: `trawl check --measure`. Owns the synthetic frames, the order of the stages and the
//! verdict; the stages themselves are the ones that `serve` runs, on the cores, in the blocks and on the disk of the config.
//!
//! Each stage is a data plane of its own, fed by `net_pcap` with as many queues as there are workers: `source` polls and
//! counts, `memory` also copies every frame into blocks that come back at once, `disk` writes them to the spool's file
//! system and frees each segment as soon as it is published.
//!
//! Invariant: nothing stays behind: the files lie in a directory of their own below the spool, which is removed.

use super::dataplane::{DataPlane, HostError, OnWorker};
use super::ports::PortsError;
use super::serve;
use crate::config::Plan;
use crate::dpdk::{Eal, Port, PortConfig};
use crate::limits::{EXTENT_BYTES, FULL_SNAPLEN, SEGMENT_BYTES_MIN};
use crate::matcher::Filter;
use crate::pcap;
use crate::spool::{Failure, Feed, Input, WhenSlow};
use crate::spool::{Spool, SpoolCapture, SpoolConfig, SpoolError, WriteMode};
use crate::worker::{Assigned, Attachment, Budget, Ended, Payer, Window, Wish, Work, WorkerHandle, deal};
use serde::Serialize;
use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that the source plays again and again; as many as `benches/run stages` uses.
const FRAMES: usize = 2000;
/// Bytes of frames on the wire, FCS included, in the proportion of what stands here.
const SIZES: [(&str, &[usize]); 3] =
    [("64", &[64]), ("imix", &[64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 64, 594]), ("1518", &[1518])];
const FCS_BYTES: usize = 4;
/// Larger arenas take longer to fill, and until they are full a disk looks as fast as memory.
const BLOCKS_MAX: usize = 256;
/// The time that a stage is given before it is measured: its blocks are then used for the second time.
const WARM_UP: Duration = Duration::from_secs(1);
/// A stage that passes on at least this share of what the one before it can do is not what limits.
const KEEPS_UP: f64 = 0.95;
/// Share of its time from which a writer's core has nothing left.
const CORE_IS_FULL: f64 = 0.9;
/// Segments of one queue that may exist at once: written, waiting for their fsync, being freed.
const SEGMENTS_AT_ONCE: u64 = 8;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// DPDK.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// Threads or memory.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The cores.
    #[error(transparent)]
    Cores(Box<serve::ServeError>),
    /// The synthetic frames or the directory.
    #[error("cannot use {path}: {source}; it must be writable, as the spool")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The writers gave up.
    #[error("writing to {path} ended early: the disk failed, or has less than {room_mib} MiB of room")]
    Ended {
        /// Where.
        path: PathBuf,
        /// What was needed.
        room_mib: u64,
    },
    /// No frame came.
    #[error("the workers received nothing on cores {0:?}: are they busy with another process?")]
    Nothing(Vec<usize>),
}

/// What one stage passed on in a second, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Frames.
    pub pps: f64,
    /// Bits of frames, without FCS.
    pub bps: f64,
}

/// What keeps a host from more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The synthetic source: a real port may bring more, and the host would take more.
    Source,
    /// The workers' cores: parsing and copying.
    Workers,
    /// The writers' cores.
    Writers,
    /// The disk, while its writers wait for it.
    Disk,
}

/// What was found for frames of one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Bytes on the wire with FCS; or a mix.
    pub frames: &'static str,
    /// Received, and nothing done with it.
    pub source: Rate,
    /// Copied into blocks.
    pub memory: Rate,
    /// Written to the disk.
    pub disk: Rate,
    /// Of the writers' time, the share that they worked while writing to disk.
    pub writers_busy: f64,
    /// The verdict.
    pub limit: Limit,
}

/// Runs every stage for so long, at every size, and tells each one's name before it. Takes over the calling thread's CPU mask, as
/// `serve` does.
///
/// # Errors
/// When DPDK, memory, cores or the disk are not as the config says.
pub fn measure(
    plan: &Plan,
    time: Duration,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Measured>, MeasureError> {
    let name = format!(".measure-{}", std::process::id());
    let dirs: Vec<_> = plan.spool.dirs().map(|dir| dir.join(&name)).collect();
    let at = |path: &Path, source| MeasureError::File { path: path.to_owned(), source };
    dirs.iter().try_for_each(|dir| fs::create_dir_all(dir).map_err(|e| at(dir, e)))?;
    let measured = measure_in(plan, time, &dirs, progress);
    dirs.iter().try_for_each(|dir| fs::remove_dir_all(dir).map_err(|e| at(dir, e)))?;
    measured
}

fn measure_in(
    plan: &Plan,
    time: Duration,
    dirs: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Measured>, MeasureError> {
    let eal = Eal::init_for(&plan.eal, &[]).map_err(PortsError::from)?;
    serve::stay_off_worker_cores(&plan.cores.writers).map_err(|e| MeasureError::Cores(Box::new(e)))?;
    let mut found = Vec::new();
    for (frames, sizes) in SIZES {
        let path = dirs[0].join(format!("{frames}.pcap"));
        write_frames(&path, sizes).map_err(|source| MeasureError::File { path: path.clone(), source })?;
        let bench = Bench { plan, eal: &eal, dirs, frames: &path, time };
        let mut stage = |stage: Stage| {
            progress(&format!("frames of {frames}: {}", stage.what()));
            bench.stage(stage)
        };
        let (source, _) = stage(Stage::Source)?;
        let (memory, _) = stage(Stage::Memory)?;
        let (disk, writers_busy) = stage(Stage::Disk)?;
        let limit = limit(source.pps, memory.pps, disk.pps, writers_busy);
        found.push(Measured { frames, source, memory, disk, writers_busy, limit });
    }
    Ok(found)
}

fn limit(source: f64, memory: f64, disk: f64, writers_busy: f64) -> Limit {
    match () {
        () if disk < KEEPS_UP * memory && writers_busy >= CORE_IS_FULL => Limit::Writers,
        () if disk < KEEPS_UP * memory => Limit::Disk,
        () if memory < KEEPS_UP * source => Limit::Workers,
        () => Limit::Source,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Source,
    Memory,
    Disk,
}

impl Stage {
    fn what(self) -> &'static str {
        match self {
            Self::Source => "receiving",
            Self::Memory => "copying into memory",
            Self::Disk => "writing to the disk",
        }
    }
}

struct Bench<'a> {
    plan: &'a Plan,
    eal: &'a Eal,
    /// One in each directory of the spool.
    dirs: &'a [PathBuf],
    frames: &'a Path,
    time: Duration,
}

impl Bench<'_> {
    /// What that stage passes on, and how busy the writers were.
    fn stage(&self, stage: Stage) -> Result<(Rate, f64), MeasureError> {
        let workers = self.plan.cores.workers.len();
        let queues = u16::try_from(workers).unwrap_or(u16::MAX);
        let files = format!(",rx_pcap={}", self.frames.display()).repeat(workers);
        let port = PortConfig {
            mbufs_per_queue: self.plan.ports[0].mbufs,
            ..PortConfig::new(format!("net_pcap_measure{files},infinite_rx=1"), queues)
        };
        let opened = Port::open(self.eal, &port).and_then(Port::start);
        let (_port, sources) = opened.map_err(PortsError::from)?;
        let spool = Arc::new(Spool::open(self.spool(stage))?);
        let all = deal(&[Wish { queues, cores: &[] }], &self.plan.cores.workers);
        let mut config = serve::data_plane(self.plan, all);
        config.blocks = config.blocks.min(BLOCKS_MAX);
        let eal = self.eal.clone();
        let on_worker: OnWorker = Arc::new(move || Box::new(eal.register_thread()));
        let (plane, mut workers) = DataPlane::start(&config, sources, &spool, &on_worker)?;
        let budget = Arc::new(Budget::new(None, None));
        let freeing = (stage != Stage::Source)
            .then(|| self.attach(&spool, &budget, queues, &mut workers))
            .transpose()?;
        let measured = self.window(&plane, stage);
        plane.stop();
        if let Some(freeing) = freeing {
            let _panicked_if_at_all_on_the_disk = freeing.join();
        }
        if budget.ended().is_some() {
            let room_mib = spool.config().bytes_max >> 20;
            return Err(MeasureError::Ended { path: self.dirs[0].clone(), room_mib });
        }
        match measured {
            (rate, _) if rate.pps == 0.0 => Err(MeasureError::Nothing(self.plan.cores.workers.clone())),
            measured => Ok(measured),
        }
    }

    fn spool(&self, stage: Stage) -> SpoolConfig {
        let of_plan = &self.plan.spool;
        let queues = self.plan.cores.workers.len() as u64;
        let fitting = of_plan.bytes_max / (SEGMENTS_AT_ONCE * queues) / EXTENT_BYTES * EXTENT_BYTES;
        SpoolConfig {
            dir: self.dirs[0].join("spool"),
            more_dirs: self.dirs[1..].iter().map(|dir| dir.join("spool")).collect(),
            segment_bytes: of_plan.segment_bytes.min(fitting).max(SEGMENT_BYTES_MIN),
            write: if stage == Stage::Disk { of_plan.write } else { WriteMode::Discard },
            ..of_plan.clone()
        }
    }

    /// Has every worker capture everything; published segments are freed by a thread that ends with the streams.
    fn attach(
        &self,
        spool: &Arc<Spool>,
        budget: &Arc<Budget>,
        queues: u16,
        workers: &mut [WorkerHandle],
    ) -> Result<std::thread::JoinHandle<()>, MeasureError> {
        const SERIAL: u64 = 1;
        let feed = Arc::new(Feed::without_merge());
        let (published, capture) = (feed.listen_with(WhenSlow::Keep), Arc::clone(budget));
        let dir = spool.config().dir.join("capture");
        // Nobody reads events here: the streams' ends come through the feed.
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let stop = Box::new(move |_: &Failure| capture.end(Ended::Revoked));
        let place = SpoolCapture::new(SERIAL, dir.clone(), usize::from(queues), feed, events, stop);
        let registered = spool.register(place);
        registered.map_err(|source| MeasureError::File { path: dir, source })?;
        for worker in workers {
            let attachment = Attachment {
                serial: SERIAL,
                payer: Payer::account(0),
                snaplen: FULL_SNAPLEN,
                window: Window::open(None),
                budget: Arc::clone(budget),
                sample: None,
                rotate: None,
            };
            let all = Assigned { slot: 0, filter: &Filter::default(), scope: None, attachment };
            // A worker that was just started has room for works.
            let _taken = worker.give(Box::new(Work::new(1, vec![all])));
        }
        let (spool, budget) = (Arc::clone(spool), Arc::clone(budget));
        Ok(std::thread::spawn(move || {
            let mut streams = queues;
            while streams > 0 {
                let Ok(input) = published.inputs().recv() else { break };
                match input {
                    Input::Segment(_, segment) if spool.free(&segment.path).is_err() => {
                        budget.end(Ended::Revoked)
                    }
                    Input::End(_) => streams -= 1,
                    Input::Segment(..) | Input::Hole { .. } | Input::Watermark(..) | Input::Counts(_) => {}
                }
            }
        }))
    }

    fn window(&self, plane: &DataPlane, stage: Stage) -> (Rate, f64) {
        let passed = || {
            let counts = plane.queues.iter().map(|queue| match stage {
                Stage::Source => (queue.totals().rx, queue.totals().rx_bytes),
                Stage::Memory | Stage::Disk => (queue.slot(0).captured, queue.slot(0).captured_bytes),
            });
            counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
        };
        std::thread::sleep(WARM_UP);
        let (before, busy, since) = (passed(), writers_seconds(), Instant::now());
        std::thread::sleep(self.time);
        let (after, seconds) = (passed(), since.elapsed().as_secs_f64());
        let writers = self.plan.cores.writers.len() as f64;
        let rate = Rate {
            pps: (after.0 - before.0) as f64 / seconds,
            bps: (after.1 - before.1) as f64 * 8.0 / seconds,
        };
        (rate, (writers_seconds() - busy) / seconds / writers)
    }
}

/// CPU time of this process's writer threads (`proc_pid_stat(5)`, utime and stime).
fn writers_seconds() -> f64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let ticks = stats.filter_map(|stat| {
        let (head, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        head.contains("(writer").then_some(ticks)
    });
    ticks.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn write_frames(path: &Path, sizes: &[usize]) -> io::Result<()> {
    let file = BufWriter::new(fs::File::create(path)?);
    let mut writer = pcap::Writer::new(file, FULL_SNAPLEN, pcap::format::LINK_ETHERNET)?;
    for number in 0..FRAMES {
        let frame = frame(number, sizes[number % sizes.len()] - FCS_BYTES);
        writer.write(0, frame.len() as u32, &frame)?;
    }
    writer.finish().map(drop)
}

/// An IPv4 frame with UDP, `bytes` long, between benchmark addresses (RFC 2544, appendix C.2.2: 198.18.0.0/15).
fn frame(number: usize, bytes: usize) -> Vec<u8> {
    let [.., high, low] = (number * 40_503).to_be_bytes();
    let length = |header: usize| u16::try_from(bytes - header).unwrap_or(u16::MAX).to_be_bytes();
    let (ip, udp) = (length(14), length(34));
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([
        0x45, 0, ip[0], ip[1], high, low, 0, 0, 64, 17, 0, 0, 198, 18, high, low, 198, 19, low, high,
    ]);
    frame.extend([high | 4, low, low | 4, high, udp[0], udp[1], 0, 0]);
    let sum: u32 = frame[14..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.resize(bytes, number as u8);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_first_stage_that_passes_on_less_than_it_gets() {
        assert_eq!(limit(10.0, 9.8, 9.7, 0.3), Limit::Source);
        assert_eq!(limit(10.0, 6.0, 5.9, 0.3), Limit::Workers);
        assert_eq!(limit(10.0, 6.0, 3.0, 0.3), Limit::Disk);
        assert_eq!(limit(10.0, 9.9, 3.0, 0.97), Limit::Writers);
    }

    #[test]
    fn synthetic_frames_are_valid_ipv4_and_udp_of_the_wanted_length() {
        for bytes in [60, 590, 1514] {
            let frame = frame(1234, bytes);
            let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let Some(etherparse::NetHeaders::Ipv4(ip, _)) = parsed.net else { panic!("no IPv4") };
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let Some(etherparse::TransportHeader::Udp(udp)) = parsed.transport else { panic!("no UDP") };
            assert_eq!((frame.len(), usize::from(udp.length)), (bytes, bytes - 34));
        }
    }
}
