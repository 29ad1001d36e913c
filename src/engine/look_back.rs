//! A look-back while it reads: the query of the ring, the object and the manifest that are made of the answer. Owns what stands
//! in them; which look-back reads when is the machine's.
//!
//! Invariant: it ends, with the job that it comes to or with a message for the one who asked.

use super::Engine;
use super::machine::{Input, NO_MATCH, Serial};
use crate::deliver::{Limits, MANIFEST_VERSION, Manifest, Vouched, Vouchers, object_name};
use crate::history::{Answer, History, HistoryError, Query};
use crate::job::{
    AccountId, ClockSteps, Dropped, Job, KeptSeries, Kind, Ledger, ObjectInfo, Series, Status, StopReason,
};
use crate::limits::SIMPLE_SNAPLEN;
use crate::matcher::Filter;
use crate::packet::Key;
use crate::pcap::{Compression, Container, ObjectFormat, Reader};
use crate::upload::{FileStore, ObjectStore};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long a look-back waits for the newest segments to reach the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts at one file, and the pause between two: somebody waits for the answer.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// What a look-back needs to read.
struct LookBack {
    job: Job,
    query: Query,
    /// Recordings below this number must be in the ring.
    complete_below: Serial,
    host: String,
    colo: String,
    queues: u32,
    /// See [`crate::job::PortDrops`].
    uncounted: bool,
    dir: PathBuf,
    history: Arc<History>,
    written: Arc<Notify>,
    vouchers: Vouchers,
    leaving: watch::Receiver<bool>,
    /// Steps of the wall clock within the window.
    clock_steps: Option<ClockSteps>,
}

/// The steps that the wall clock made within a window of UTC, by the clock before them or after. The history begins again, in the
/// new time, after each. Those of an earlier process are not known.
fn steps_within(steps: &VecDeque<(u64, ClockSteps)>, start_ns: u64, end_ns: u64) -> Option<ClockSteps> {
    let window = start_ns..=end_ns;
    let is_within = |(after_ns, steps): &&(u64, ClockSteps)| {
        let before_ns = after_ns.saturating_add_signed(steps.moved_ns.saturating_neg());
        window.contains(after_ns) || window.contains(&before_ns)
    };
    steps.iter().filter(is_within).fold(None, |sum, (_, steps)| Some(steps.after(sum)))
}

impl Engine {
    /// What an account may see of the history. The one place to ask: live captures of the same account see the same.
    pub(super) fn visible(&self, account: &AccountId) -> impl Fn(&Key) -> bool + Send + Sync + use<> {
        let scope = self.scope(account);
        move |key| scope.as_ref().is_none_or(|scope| scope.admits(key))
    }

    pub(super) fn look_back(&mut self, serial: Serial, complete_below: Serial) {
        let (Some(look), Some(recorder)) = (self.machine.look_back(serial), &self.recording) else { return };
        let job = look.job.clone();
        let visible = self.visible(&job.request.account);
        let query = match query(&job) {
            Ok(query) => query,
            Err(message) => return self.inputs.push_back(Input::LookedBack { serial, result: Err(message) }),
        };
        let drops = self.planes.ports.latest().drops;
        let clock_steps = steps_within(&self.steps, query.start_ns, query.end_ns);
        let look = LookBack {
            job,
            query,
            complete_below,
            host: self.planes.host.clone(),
            colo: self.planes.colo.clone(),
            queues: u32::try_from(self.planes.queues.len()).unwrap_or(u32::MAX),
            // When a port was away is not known here: since the start is what is certain.
            uncounted: drops.uncounted || drops.gaps > 0,
            dir: self.planes.simple_dir.clone(),
            history: Arc::clone(&recorder.history),
            clock_steps,
            written: Arc::clone(&self.planes.simple_written),
            vouchers: self.vouchers(),
            leaving: self.leaving.subscribe(),
        };
        let task =
            async move { Input::LookedBack { serial, result: look.look(visible).await.map(Box::new) } };
        self.spawn(task, move |_said_in_the_log| Input::LookedBack {
            serial,
            result: Err("the look back died".to_owned()),
        });
    }
}

fn query(job: &Job) -> Result<Query, String> {
    let request = &job.request;
    let at = request.offset_time.as_ref().map(|offset| offset.at).unwrap_or_default();
    let end_ns = u64::try_from(at.as_nanosecond()).unwrap_or(0);
    let window = Duration::from_secs_f64(request.time_limit);
    Ok(Query {
        start_ns: end_ns.saturating_sub(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)),
        end_ns,
        filter: Filter::try_from(&request.filter).map_err(|e| e.to_string())?,
        packets_max: request
            .packet_limit
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX)),
    })
}

impl LookBack {
    /// Asks the history and writes the object and the manifest; returns the ended job.
    async fn look(self, visible: impl Fn(&Key) -> bool + Send + Sync + 'static) -> Result<Job, String> {
        let (history, complete_below) = (Arc::clone(&self.history), self.complete_below);
        let waited = blocking(move || history.wait_for(complete_below, PATIENCE)).await;
        let visible = Arc::new(visible);
        let read = || {
            let (history, query, visible) =
                (Arc::clone(&self.history), self.query.clone(), Arc::clone(&visible));
            blocking(move || Ok((history.look_back(&query, &*visible)?, history.oldest_ns())))
        };
        let asked = match waited {
            Ok(()) => again(read).await,
            Err(late) => Err(late),
        };
        match asked {
            Ok((answer, oldest_ns)) => {
                let id = self.job.id.clone();
                self.deliver(answer, oldest_ns).await.map_err(|error| {
                    tracing::error!(capture = %id, error, "the file of a look back could not be written");
                    "this host could not write the file of the look back; try again, or ask its operator"
                        .to_owned()
                })
            }
            Err(error) => {
                // Which file it was is for the operator.
                tracing::error!(capture = %self.job.id, error, "a look back failed");
                Err("this host could not read its history; try again, or ask its operator".to_owned())
            }
        }
    }

    async fn deliver(self, answer: Answer, oldest_ns: Option<u64>) -> Result<Job, String> {
        let store = FileStore::of_spool(self.dir.clone());
        let (covered, job) = (answer.covered, self.account(&answer, oldest_ns));
        let (name, bytes) = (object_name(&job.part(), 0, ObjectFormat::default()), Bytes::from(answer.pcap));
        again(|| store.put(&name, bytes.clone())).await.map_err(|e| e.to_string())?;
        let manifest = self.manifest(&job, covered);
        let vouched = Vouched::new(manifest, &self.vouchers, self.leaving.clone()).await?;
        again(|| vouched.put(&store)).await.map_err(|e| e.to_string())?;
        self.written.notify_one();
        Ok(job)
    }

    /// The ended job.
    fn account(&self, answer: &Answer, oldest_ns: Option<u64>) -> Job {
        let mut job = self.job.clone();
        let left_out = answer.matched - answer.captured;
        (job.started, job.ended) = (time(self.query.start_ns), time(self.query.end_ns));
        job.stop_reason = Some(if left_out > 0 { StopReason::PacketLimit } else { StopReason::TimeLimit });
        job.ledger = Ledger {
            offered: answer.seen,
            rx: answer.seen,
            unmatched: answer.seen - answer.matched,
            matched: answer.matched,
            captured: answer.captured,
            captured_bytes: answer.captured_bytes,
            ..Ledger::default()
        };
        job.ledger.dropped.limit = left_out;
        job.ledger.port.uncounted = self.uncounted;
        job.sample_one_in = Some(answer.one_in).filter(|n| *n > 1);
        let sha256 = HEXLOWER.encode(&Sha256::digest(&answer.pcap));
        job.objects = vec![ObjectInfo {
            name: object_name(&job.part(), 0, ObjectFormat::default()),
            bytes: answer.pcap.len() as u64,
            packets: answer.captured,
            first_ns: answer.first_ns,
            last_ns: answer.last_ns,
            sha256,
            ..ObjectInfo::default()
        }];
        job.series = self.series(&answer.pcap, &job.ledger);
        job.status = if answer.captured > 0 { Status::Success } else { Status::Failed };
        if answer.captured == 0 {
            let mut message = NO_MATCH.to_owned();
            if !answer.covered {
                let oldest = oldest_ns.and_then(time);
                message += &oldest.map_or_else(
                    || " This host's history is empty.".to_owned(),
                    |oldest| format!(" This host's history reaches back to {oldest:.6}."),
                );
            }
            job.error_message = Some(message);
        }
        job
    }

    /// When its packets passed: nobody counted them then, but their times stand in the file.
    fn series(&self, pcap: &[u8], ledger: &Ledger) -> Option<KeptSeries> {
        let mut reader = Reader::new(pcap).ok()?;
        let mut packets = Vec::new();
        while let Some(record) = reader.next_record().ok()? {
            let at = Duration::from_nanos(record.ns.saturating_sub(self.query.start_ns));
            packets.push((at, record.data.len() as u64));
        }
        let window = Duration::from_nanos(self.query.end_ns.saturating_sub(self.query.start_ns));
        // Those that had no room passed before the first of these.
        let limit = ledger.dropped.limit;
        let left_out =
            Ledger { matched: limit, dropped: Dropped { limit, ..Dropped::default() }, ..Ledger::default() };
        let mut series = Series::new(self.query.start_ns);
        series.add(packets.first().map_or(window, |(at, _)| *at), &left_out);
        series.put(window, packets.into_iter());
        Some(series.kept())
    }

    fn manifest(&self, job: &Job, covered: bool) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            id: job.id.clone(),
            account: Some(job.request.account.clone()),
            host: self.host.clone(),
            colo: self.colo.clone(),
            is_part: job.site.is_some(),
            kind: Kind::Simple,
            filter_v1: job.request.filter.clone(),
            limits: Limits {
                time_limit: job.request.time_limit,
                packet_limit: job.request.packet_limit,
                byte_limit: None,
            },
            submitted: job.submitted,
            started: time(self.query.start_ns),
            ended: time(self.query.end_ns),
            stop_reason: job.stop_reason,
            complete: covered && job.ledger.is_whole(),
            snaplen: SIMPLE_SNAPLEN,
            format: Container::Pcap,
            compression: Compression::None,
            objects: job.objects.clone(),
            ledger: job.ledger,
            queues: self.queues,
            sample_one_in: job.sample_one_in,
            clock_steps: self.clock_steps,
            lost_streams: Vec::new(),
            // What the kernel said then nobody kept.
            clock: None,
            recovered: false,
            counted_until: None,
            offset_time: job.request.offset_time.as_ref().map(|offset| offset.sent.clone()),
        }
    }
}

/// Runs what waits for the disk on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

/// Tries again what a disk refused.
async fn again<T, E: Display, F: Future<Output = Result<T, E>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) => tracing::warn!(%error, "a look back failed at a file and tries it again"),
            done => return done,
        }
        tokio::time::sleep(PAUSE).await;
    }
    attempt().await
}

fn time(ns: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(ns)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_back_says_which_steps_of_the_clock_are_in_its_window() {
        let step = |count, moved_ns| ClockSteps { count, moved_ns };
        let steps = VecDeque::from([(1_000, step(1, 50)), (2_000, step(2, -100)), (9_000, step(1, 8_000))]);
        assert_eq!(steps_within(&steps, 0, 900), None);
        assert_eq!(steps_within(&steps, 900, 960), Some(step(1, 50)), "by the clock before it");
        assert_eq!(steps_within(&steps, 980, 1_990), Some(step(2, 8_050)));
        assert_eq!(steps_within(&steps, 1_999, 2_150), Some(step(2, -100)));
        assert_eq!(steps_within(&steps, 0, u64::MAX), Some(step(4, 7_950)));
    }
}
