//! What must hold after a call has failed. Owns the invariants; each one that is broken is a complaint in words.
//!
//! What is allowed is what the documents promise: a fault that lasts may end a capture with its reason, and the next start
//! delivers what is whole; a call that failed once costs time, and packets only if it was to bring them to the disk.

use crate::disk;
use crate::facts::Facts;
use crate::injector::{End, Fault, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use trawl::deliver::{Manifest, manifest_name};
use trawl::job::{CaptureId, Job, Kind, Status, StopReason};

/// A scenario with its fault, the restart without one, and what the same gave without any.
pub struct Case<'a> {
    pub fault: Option<&'a Fault>,
    pub run: &'a Run,
    /// Whole on the disk between the two.
    pub durable: BTreeMap<CaptureId, Vec<disk::Frame>>,
    /// On the quota by what lay there between the two; whether the number is exact.
    pub quota: (u64, bool),
    pub settled: &'a Run,
    pub state: &'a Path,
    pub baseline: Option<&'a [Summary]>,
}

/// What became of a capture, for the comparison with the run without a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub status: Status,
    pub stop_reason: Option<StopReason>,
    pub captured: u64,
    /// But for what came after a limit.
    pub dropped: u64,
    /// Whether it had ended before the restart.
    pub in_time: bool,
    /// Whether it asked for the past.
    pub look_back: bool,
}

/// What became of a run, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub outcome: String,
    pub complaints: Vec<String>,
    pub summaries: Vec<Summary>,
}

impl Case<'_> {
    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let wrong = &mut verdict.complaints;
        process("the host", self.run, wrong);
        process("the restart", self.settled, wrong);
        let empty = Facts::default();
        let facts = self.run.facts.as_ref().unwrap_or(&empty);
        let after = self.settled.facts.as_ref().unwrap_or(&empty);
        if let Some(why) = &after.start_refused {
            wrong.push(format!("the restart is refused: {why}"));
        }
        wrong.extend(facts.complaints.iter().cloned());
        wrong.extend(after.complaints.iter().map(|complaint| format!("the restart: {complaint}")));
        self.quota(facts, after, wrong);
        let mut kept = Vec::new();
        for job in &after.jobs {
            self.capture(job, facts, &mut kept, wrong);
        }
        for id in facts.asked.iter().filter_map(|asked| asked.id.as_ref()) {
            if !after.jobs.iter().any(|job| job.id == *id) {
                wrong.push("an accepted capture is in no list".to_owned());
            }
        }
        let told =
            facts.jobs.iter().chain(&after.jobs).chain(facts.asked.iter().filter_map(|a| a.job.as_ref()));
        let spool = self.state.join("spool").display().to_string();
        for message in told.filter_map(|job| job.error_message.as_ref()).filter(|said| said.contains(&spool))
        {
            wrong.push(format!("a customer reads a path of the host: {message}"));
        }
        for path in disk::leftovers(self.state, &kept) {
            wrong.push(format!("left over: {}", path.display()));
        }
        verdict.summaries = summaries(facts, after);
        self.against_baseline(facts, &mut verdict);
        verdict.outcome = self.outcome(facts, &verdict);
        verdict
    }

    fn quota(&self, facts: &Facts, after: &Facts, wrong: &mut Vec<String>) {
        let (bytes, exact) = self.quota;
        // What cannot be counted, and the log says so, stays charged until the next start.
        let uncounted = self.run.log.contains("cannot count what a directory of the spool holds");
        if let Some(used) = facts.quota_bytes
            && exact
            && used != bytes
            && !(uncounted && used > bytes)
        {
            wrong.push(format!("the quota says {used} bytes, and {bytes} are on the disk"));
        }
        let (bytes, exact) = disk::quota_bytes(self.state);
        if let Some(used) = after.quota_bytes
            && exact
            && used != bytes
        {
            wrong.push(format!("after the restart the quota says {used} bytes, and {bytes} are on the disk"));
        }
    }

    /// One capture after the restart: it has ended, its ledger balances, and its packets are where it says.
    fn capture(&self, job: &Job, facts: &Facts, kept: &mut Vec<CaptureId>, wrong: &mut Vec<String>) {
        if !job.status.ended() {
            wrong.push(format!("a capture has not ended after the restart: {:?}", job.status));
            kept.push(job.id.clone());
            return;
        }
        if let Err(imbalance) = job.ledger.check() {
            wrong.push(imbalance.to_string());
        }
        let before = facts.asked.iter().filter_map(|asked| asked.job.as_ref()).find(|j| j.id == job.id);
        if let Some(before) = before.filter(|before| before.status.ended())
            && (before.status, before.ledger, before.stop_reason) != (job.status, job.ledger, job.stop_reason)
        {
            wrong.push(format!(
                "the restart changed a capture that had ended: {} to {}",
                short(before),
                short(job)
            ));
        }
        // A look back that failed can be asked again: the history has what it asked for.
        if job.status == Status::Failed && job.request.offset_time.is_some() {
            kept.push(job.id.clone());
            return self.message(job, before, true, wrong);
        }
        let delivered = self.delivered(job, wrong);
        let mut there: BTreeSet<_> = delivered.iter().copied().collect();
        if job.status == Status::Success && there.len() != delivered.len() {
            wrong.push(format!("{} packets are there twice", delivered.len() - there.len()));
        }
        let lost = job.ledger.dropped.total() - job.ledger.dropped.limit;
        if lost > 0 && job.status == Status::Success {
            // A segment that could not be published or read stays, and its directory with it; the ledger counts its packets.
            kept.push(job.id.clone());
            let before = there.len();
            there.extend(self.found_of(&job.id, disk::is_segment, wrong));
            let in_spool = (there.len() - before) as u64;
            if in_spool > lost {
                wrong.push(format!("{in_spool} packets are in the spool alone: {}", short(job)));
            }
        }
        if job.status == Status::Failed {
            kept.push(job.id.clone());
            there.extend(self.found_of(
                &job.id,
                |path| disk::is_segment(path) || disk::is_object(path),
                wrong,
            ));
            self.message(job, before, !there.is_empty(), wrong);
        }
        let lost = self.durable.get(&job.id).into_iter().flatten().filter(|frame| !there.contains(frame));
        let lost = lost.collect::<BTreeSet<_>>().len();
        // A look back and a limit leave out on purpose, and not what is in a file.
        if lost > 0 {
            wrong.push(format!("{lost} packets were whole on the disk and are gone: {}", short(job)));
        }
        if job.status == Status::Success && delivered.len() as u64 != job.ledger.captured {
            wrong.push(format!("{} packets are delivered: {}", delivered.len(), short(job)));
        }
    }

    /// The frames of a capture's objects, which must agree with its manifest.
    fn delivered(&self, job: &Job, wrong: &mut Vec<String>) -> Vec<disk::Frame> {
        let folder = if job.request.kind == Kind::Full { "bucket" } else { "simple" };
        let folder = self.state.join(folder);
        let mut found = Vec::new();
        for object in &job.objects {
            let path = folder.join(&object.name);
            match disk::frames(&path) {
                Ok(frames) if frames.len() as u64 == object.packets => found.extend(frames),
                Ok(frames) => {
                    wrong.push(format!("{} packets in an object of {}", frames.len(), object.packets))
                }
                Err(error) => wrong.push(error),
            }
            if std::fs::metadata(&path).is_ok_and(|meta| meta.len() != object.bytes) {
                wrong.push("an object has not the size that is told".to_owned());
            }
        }
        let manifest = std::fs::read(folder.join(manifest_name(&job.part())));
        match manifest.map(|json| Manifest::parse(&json)) {
            Ok(Ok(manifest)) => {
                if (manifest.ledger, &manifest.objects) != (job.ledger, &job.objects) {
                    wrong.push("manifest and job do not agree".to_owned());
                }
                if manifest.stop_reason != job.stop_reason {
                    wrong.push("manifest and job have two reasons".to_owned());
                }
                let lossless = job.ledger.dropped.total() == job.ledger.dropped.limit;
                if manifest.complete && !lossless {
                    wrong.push(format!("the manifest says complete: {}", short(job)));
                }
            }
            Ok(Err(error)) => wrong.push(format!("the manifest cannot be read: {error}")),
            Err(_) if job.status == Status::Success => wrong.push("there is no manifest".to_owned()),
            Err(_) => {}
        }
        found
    }

    /// The frames of a capture in those of its files, whatever its job says.
    fn found_of(
        &self,
        id: &CaptureId,
        these: impl Fn(&Path) -> bool,
        wrong: &mut Vec<String>,
    ) -> Vec<disk::Frame> {
        let own = disk::files(self.state).into_iter().filter(|path| these(path));
        let own = own.filter(|path| disk::capture_of(path).as_ref() == Some(id));
        let mut found = Vec::new();
        for path in own {
            match disk::frames(&self.state.join(path)) {
                Ok(frames) => found.extend(frames),
                Err(error) => wrong.push(error),
            }
        }
        found
    }

    /// What a failed capture says is true.
    fn message(&self, job: &Job, before: Option<&Job>, packets_are_there: bool, wrong: &mut Vec<String>) {
        let Some(message) = job.error_message.as_ref().filter(|message| !message.is_empty()) else {
            wrong.push("a failed capture says nothing".to_owned());
            return;
        };
        let matched = before.is_some_and(|job| job.ledger.matched > 0) || job.ledger.matched > 0;
        if message.starts_with("No packets matched") && matched {
            wrong.push(format!(
                "it says that no packet matched, and {} had: {}",
                before.unwrap_or(job).ledger.matched,
                short(job)
            ));
        }
        if message.contains("are kept") && !packets_are_there && job.ledger.captured > 0 {
            wrong.push(format!("it says that packets are kept, and there are none: {}", short(job)));
        }
    }

    /// What failed once cost nothing but time, unless it was to bring packets to the disk.
    fn against_baseline(&self, facts: &Facts, verdict: &mut Verdict) {
        let (Some(baseline), Some(fault)) = (self.baseline, self.fault) else { return };
        if !fault.mode.is_transient() || facts.start_refused.is_some() {
            return;
        }
        if facts.asked.iter().any(|asked| asked.refused.is_some()) {
            return;
        }
        for (now, then) in verdict.summaries.iter().zip(baseline) {
            if now == then {
                continue;
            }
            // An end before its time, with its reason; or all frames counted, and those that are lost named.
            let told = matches!(now.stop_reason, Some(StopReason::IoError | StopReason::SpoolFull));
            let named = now.stop_reason == then.stop_reason
                && now.captured + now.dropped == then.captured + then.dropped;
            let as_before = (now.status, now.in_time) == (then.status, then.in_time);
            // The past has a hole there, and says so.
            let unrecorded = now.look_back && now.in_time && keeps_the_past(fault);
            let allowed = brings_packets(fault) && as_before && (told || named) || unrecorded;
            if !allowed {
                verdict.complaints.push(format!("it cost more than time: {now:?} for {then:?}"));
            }
        }
        if verdict.summaries.len() != baseline.len() {
            verdict.complaints.push("not as many captures as without the fault".to_owned());
        }
    }

    fn outcome(&self, facts: &Facts, verdict: &Verdict) -> String {
        if facts.start_refused.is_some() {
            return "start refused".to_owned();
        }
        if facts.asked.iter().any(|asked| asked.refused.is_some()) {
            return "create refused".to_owned();
        }
        if self.run.end == End::Signal(9) {
            return "killed; delivered by the restart".to_owned();
        }
        if self.baseline.is_some_and(|baseline| baseline == verdict.summaries) {
            return "no effect".to_owned();
        }
        let of = |s: &Summary| {
            let when = if s.in_time { "" } else { " by the restart" };
            let reason = s.stop_reason.map_or_else(String::new, |reason| format!("{reason:?}"));
            match s.status {
                Status::Success if s.dropped == 0 => format!("delivered{when}, {reason}"),
                Status::Success => format!("delivered{when}, {reason}, lost packets counted"),
                _ => format!("failed{when}, {reason}"),
            }
        };
        verdict.summaries.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

fn process(who: &str, run: &Run, wrong: &mut Vec<String>) {
    let killed = run.calls.iter().any(|call| call.done == "killed");
    match run.end {
        End::Exited(0) => {}
        End::Signal(9) if killed => {}
        End::Hang => {
            let waits = run.waits.iter().filter(|wait| !wait.contains("hrtimer_nanosleep"));
            wrong.push(format!("{who} hangs: {}", waits.cloned().collect::<Vec<_>>().join(" | ")));
        }
        End::Exited(code) => wrong.push(format!("{who} exits with {code}: {}", panic_of(&run.log))),
        End::Signal(signal) => wrong.push(format!("{who} dies by signal {signal}: {}", panic_of(&run.log))),
    }
    if run.log.contains("panicked at") && run.end == End::Exited(0) {
        wrong.push(format!("{who} panics: {}", panic_of(&run.log)));
    }
}

fn panic_of(log: &str) -> String {
    let mut lines = log.lines().skip_while(|line| !line.contains("panicked at"));
    [lines.next(), lines.next()].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn short(job: &Job) -> String {
    let ledger = job.ledger;
    let dropped = ledger.dropped;
    format!(
        "{:?} {:?} matched {} captured {} (no_block {} limit {} spool {} io {} interrupted {}) {:?}",
        job.status,
        job.stop_reason,
        ledger.matched,
        ledger.captured,
        dropped.no_block,
        dropped.limit,
        dropped.spool,
        dropped.io,
        dropped.interrupted,
        job.error_message
    )
}

/// The captures in the order of their creation.
fn summaries(facts: &Facts, after: &Facts) -> Vec<Summary> {
    let mut jobs: Vec<&Job> = after.jobs.iter().collect();
    jobs.sort_by_key(|job| job.submitted);
    let ended_before = |id: &CaptureId| {
        let asked = facts.asked.iter().filter_map(|asked| asked.job.as_ref());
        asked.chain(&facts.jobs).any(|job| job.id == *id && job.status.ended())
    };
    let of = |job: &&Job| Summary {
        status: job.status,
        stop_reason: job.stop_reason,
        captured: job.ledger.captured,
        dropped: job.ledger.dropped.total() - job.ledger.dropped.limit,
        in_time: ended_before(&job.id),
        look_back: job.request.offset_time.is_some(),
    };
    jobs.iter().map(of).collect()
}

/// Whether the call was to make a place for the history's recording or to bring it into the ring.
fn keeps_the_past(fault: &Fault) -> bool {
    let class = fault.kind.split_once(' ').map_or("", |(_, class)| class);
    class == "spool" || class.starts_with("spool/history/")
}

/// Whether the call was to bring packets of a capture to the disk.
pub fn brings_packets(fault: &Fault) -> bool {
    let Some((call, class)) = fault.kind.split_once(' ') else { return false };
    let segment = class.ends_with(".pcap.open") || class.ends_with(".pcap");
    matches!(call, "write" | "fsync" | "truncate" | "fallocate") && class.starts_with("spool/") && segment
}
