//! What another process left. Owns the survey of job store and spool at start; what is done with it is the machine's.
//!
//! Invariant: everything that a dead process accepted is found here, in the store or in the spool.

use super::machine::{Inherited, Input, Kept, Remains, Serial};
use super::{Engine, Planes, Resources};
use crate::deliver::journal::{CaptureRecord, Entry, Journal, settled};
use crate::deliver::{Known, Manifest, has_remains, queues_of, sweep, sweep_store, swept};
use crate::job::{CaptureId, Job, LostStream, PartId, Site, Status, StopReason};
use crate::pcap::Origin;
use crate::spool::{Feed, Spool};
use crate::store::{StoreError, Stored};
use crate::worker::Budget;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What another process left.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// The jobs that have not ended, and the captures in the spool that the job store does not know; with what the spool has
    /// of each.
    unfinished: Vec<(Stored, OnDisk)>,
    /// Ended captures that are still in the spool: one of those that went to the same place for the same account, and the parts
    /// of all of them.
    failed: Vec<(Job, Vec<PartId>)>,
    /// What each of those keeps there.
    kept: Vec<Kept>,
}

/// What a capture's directory says.
#[derive(Debug)]
struct OnDisk {
    exists: bool,
    record: Option<CaptureRecord>,
    settled: Option<Manifest>,
    /// Queues that the names of its segments tell.
    queues: usize,
}

impl OnDisk {
    fn read(spool: &Spool, dir: &Path, id: &CaptureId) -> Self {
        let mut record = CaptureRecord::read(dir).unwrap_or_else(|error| {
            tracing::error!(capture = %id, %error, "a capture's record cannot be read; it is delivered without");
            None
        });
        let settled = settled(dir).unwrap_or_else(|error| {
            tracing::error!(capture = %id, %error, "a capture's manifest cannot be read");
            None
        });
        if let Some(record) = record.as_mut().filter(|_| settled.is_none()) {
            name_lost(spool, dir, record);
        }
        let exists = record.is_some() || settled.is_some() || has_remains(dir);
        Self { exists, record, settled, queues: queues_of(spool, dir) }
    }
}

/// Names the queues of a capture whose directory of the spool is not there any more, unless all of it was delivered before.
fn name_lost(spool: &Spool, dir: &Path, record: &mut CaptureRecord) {
    let is_complete = |entries: Vec<Entry>| entries.last().is_some_and(|last| last.is_last);
    if Journal::read(dir).is_ok_and(is_complete) {
        return;
    }
    let job = &mut record.job;
    for queue in spool.without_dir(&record.dirs) {
        if job.lost_streams.iter().any(|lost| lost.queue == queue) {
            continue;
        }
        let spool = record.dirs.get(&queue).map_or("", String::as_str);
        tracing::error!(capture = %job.id, account = %job.request.account, queue, spool, "the directory that a queue was written to is not in spool.dirs any more; what was not delivered of it is missing");
        let message = "the disk that it was written to was not there when the host started again".to_owned();
        job.lost_streams.push(LostStream { queue, reason: StopReason::IoError, message });
    }
}

/// Finds what another process left. Waits for the disk.
pub(super) fn inherit(planes: &Planes) -> Result<Inheritance, StoreError> {
    let (mut left, mut failed, mut kept) = (Vec::new(), Vec::<(Job, Vec<_>)>::new(), Vec::new());
    let spool_dir = &planes.spool.config().dir;
    for stored in planes.jobs.unfinished()? {
        let Stored { job, .. } = &stored;
        if !is_own(job, planes.site.as_ref(), &spool_dir.join(job.id.as_str())) {
            tracing::warn!(capture = %job.id, site = ?job.site, "an unfinished capture of another host is left alone");
            continue;
        }
        match job.request.offset_time {
            None => left.push(stored),
            Some(_) => interrupt(planes, stored)?,
        }
    }
    let known = |record: &CaptureRecord| {
        let job = &record.job;
        match planes.jobs.get(&job.request.account, &job.id) {
            Ok(None) => Known::Not,
            // What is here is all that its manifest can be made of.
            Ok(Some(stored)) if lacks_manifest(&stored.job, spool_dir) => Known::Unfinished,
            Ok(Some(stored)) if stored.job.status.ended() => Known::Ended,
            _ => Known::Unfinished,
        }
    };
    match sweep(&planes.spool, known) {
        Ok(found) => {
            kept.extend(found.failed.iter().map(|record| left_by(planes, record)));
            for job in found.failed.into_iter().map(|record| record.job) {
                let place = |job: &Job| (job.request.account.clone(), job.request.destination.clone());
                let part = job.part();
                match failed.iter_mut().find(|(other, _)| place(other) == place(&job)) {
                    Some((_, parts)) => parts.push(part),
                    None => failed.push((job, vec![part])),
                }
            }
            for record in found.strangers {
                tracing::warn!(capture = %record.job.id, "a capture in the spool is in no job store; it is taken up");
                left.push(planes.jobs.create(&record.job)?);
            }
        }
        Err(error) => tracing::error!(%error, "the spool could not be looked through for left captures"),
    }
    let look = |stored: Stored| {
        let dir = spool_dir.join(stored.job.id.as_str());
        let left = OnDisk::read(&planes.spool, &dir, &stored.job.id);
        if left.exists {
            planes.spool.assign(&dir, &stored.job.request.account.0);
        }
        (stored, left)
    };
    Ok(Inheritance { unfinished: left.into_iter().map(look).collect(), failed, kept })
}

/// What an ended capture keeps in the spool. Its age is that of its record, by a clock that may have been set since.
fn left_by(planes: &Planes, record: &CaptureRecord) -> Kept {
    let (spool, job) = (&planes.spool, &record.job);
    let (dir, account) = (spool.config().dir.join(job.id.as_str()), job.request.account.clone());
    spool.assign(&dir, &account.0);
    let age = Timestamp::now().duration_since(record.known_until);
    let age = Duration::try_from(age).unwrap_or_default();
    Kept::new(job.id.clone(), account, spool.bytes_below(&dir), age)
}

/// Whether a failed capture's objects are all in the bucket and its manifest is not.
fn lacks_manifest(job: &Job, spool_dir: &Path) -> bool {
    let is_complete = |entries: Vec<Entry>| entries.last().is_some_and(|last| last.is_last);
    job.status == Status::Failed
        && job.ledger.captured > 0
        && Journal::read(&spool_dir.join(job.id.as_str())).is_ok_and(is_complete)
}

/// Whether an unfinished capture is this host's to take up. One that another host of the fleet began is not, unless this spool has
/// something of it: then the host was called otherwise, and its names stay as they are.
fn is_own(job: &Job, site: Option<&Site>, dir: &Path) -> bool {
    let is_of_another = job.site.as_ref().is_some_and(|of| site != Some(of));
    // What cannot be looked at may be there.
    !is_of_another || dir.try_exists().unwrap_or(true)
}

/// Ends a look-back whose process died: it has nothing in the spool, and can be asked for again.
fn interrupt(planes: &Planes, stored: Stored) -> Result<(), StoreError> {
    let mut job = stored.job;
    job.status = Status::Failed;
    job.stop_reason = Some(StopReason::Interrupted);
    job.error_message = Some("the capture host ended before it had looked back; ask again".to_owned());
    planes.jobs.compare_and_set(stored.revision, &job).map(drop)
}

impl Engine {
    /// Takes over what another process left.
    pub(super) fn take_over(&mut self) {
        let Inheritance { unfinished, failed, kept } = std::mem::take(&mut self.inheritance);
        for kept in kept {
            self.feed(Input::Kept(Box::new(kept)));
        }
        for (stored, left) in unfinished {
            let serial = self.machine.serial_for_inherited();
            self.take_over_one(serial, stored, left);
        }
        for (job, parts) in failed {
            let route = self.route(&job);
            let spool = Arc::clone(&self.planes.spool);
            self.sweeps.spawn(async move {
                if sweep_store(&route, &parts).await {
                    let _died = tokio::task::spawn_blocking(move || swept(&spool, &parts)).await;
                }
            });
        }
    }

    fn take_over_one(&mut self, serial: Serial, stored: Stored, left: OnDisk) {
        let Stored { revision, job } = stored;
        let OnDisk { exists, record, settled, queues } = left;
        if let Some(writer) = &self.writer {
            writer.known(serial, revision);
        }
        // Without its record: of as many as this process has, or more if it has segments of them.
        let queues = record.as_ref().map_or(self.planes.queues.len(), |record| record.queues).max(queues);
        let origin = record.as_ref().map_or_else(Origin::default, |record| record.origin.clone());
        let resources = Resources {
            budget: Arc::new(Budget::new(None, None)),
            feed: Arc::new(Feed::new(queues)),
            origin: Arc::new(origin),
            dirs: Some(record.as_ref().map_or_else(BTreeMap::new, |record| record.dirs.clone())),
            capturing: watch::Sender::new(false),
            given_up: watch::Sender::new(None),
            series: None,
            part: None,
            dry: None,
        };
        self.resources.insert(serial, resources);
        let remains = match exists {
            false => Remains::Nothing,
            true => {
                let (record, settled) = (record.map(Box::new), settled.map(Box::new));
                Remains::Directory { record, settled, queues }
            }
        };
        self.feed(Input::Inherited(Box::new(Inherited { serial, job, remains })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_takes_up_its_own_captures_and_another_host_s_only_if_the_spool_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let (here, absent) = (dir.path(), dir.path().join("absent"));
        let site = |host: &str| Site::new("ord02", host);
        let job = |site: Option<Site>| Job { site, ..Job::sample("a", 1) };
        assert!(is_own(&job(None), None, &absent) && is_own(&job(None), site("cap1").as_ref(), &absent));
        assert!(is_own(&job(site("cap1")), site("cap1").as_ref(), &absent));
        assert!(!is_own(&job(site("cap2")), site("cap1").as_ref(), &absent));
        assert!(!is_own(&job(site("cap2")), None, &absent));
        assert!(is_own(&job(site("cap2")), site("cap1").as_ref(), here));
    }
    #[test]
    fn a_queue_whose_directory_is_gone_is_named_unless_all_of_it_was_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::in_dir(dir.path());
        let id = crate::spool::name_spool(dir.path()).unwrap();
        let capture = dir.path().join("capture");
        std::fs::create_dir(&capture).unwrap();
        let mut record = CaptureRecord {
            job: Job::sample("a", 1),
            queues: 2,
            snaplen: 160,
            object_bytes_max: 1,
            format: Default::default(),
            origin: Origin::default(),
            dirs: BTreeMap::from([(0, id), (1, "gone".to_owned())]),
            started: None,
            ended: None,
            known_until: Timestamp::UNIX_EPOCH,
            is_final: false,
        };
        for _ in 0..2 {
            name_lost(&spool, &capture, &mut record);
            let lost: Vec<_> = record.job.lost_streams.iter().map(|lost| lost.queue).collect();
            assert_eq!(lost, [1], "once");
        }
        record.job.lost_streams.clear();
        let mut journal = Journal::open(&capture).unwrap();
        let object = crate::job::ObjectInfo::default();
        journal.append(Entry { object, cuts: Vec::new(), is_last: true, gaps: Vec::new() }).unwrap();
        name_lost(&spool, &capture, &mut record);
        assert!(record.job.lost_streams.is_empty());
    }
}
