//! What can be asked of the engine without changing anything. Owns the answers: from memory for captures that are at work, from
//! the store for all others, which other threads read.
//!
//! Invariant: the engine's task never reads the store.

use super::listed::{Listed, Wanted};
use super::machine::{Capture, Input, Serial, progress};
use super::overview::{AccountView, CaptureView, Overview};
use super::{Engine, Refusal, Reply, clock_state};
use crate::job::{AccountId, CaptureId, Job, Ledger, ObjectRange, OnSpool, Progress};
use crate::limits::LIST_CAPTURES_MAX;
use crate::store::{JobStore, Page, PageQuery, StoreError, Stored};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Reads a page from the store; what is at work is as it is now.
fn page(
    jobs: &dyn JobStore,
    account: &AccountId,
    wanted: &Wanted,
    mut at_work: HashMap<CaptureId, Job>,
    is_given_up: &dyn Fn() -> bool,
) -> Result<Listed, Refusal> {
    let failed = |error: StoreError| Refusal::Store(error.to_string());
    let before = match &wanted.before {
        None => None,
        Some(id) => {
            let found = jobs.get(account, id).map_err(failed)?;
            Some(found.ok_or_else(|| Refusal::NotFound(id.clone()))?.job)
        }
    };
    let is_wanted = |stored: &Job| {
        let now = at_work.get(&stored.id).filter(|_| !stored.status.ended()).unwrap_or(stored);
        wanted.admits(now)
    };
    let is_wanted: Option<&dyn Fn(&Job) -> bool> = wanted.is_filtered().then_some(&is_wanted);
    let query = PageQuery { before: before.as_ref(), count_max: wanted.count_max, is_wanted, is_given_up };
    let Page { jobs, next, total } = jobs.page(account, &query).map_err(failed)?;
    let now = |stored: Stored| match at_work.remove(&stored.job.id) {
        Some(job) if !stored.job.status.ended() => job,
        _ => stored.job,
    };
    Ok(Listed { jobs: jobs.into_iter().map(now).collect(), next, total })
}

/// The progress of a capture that is not at work.
fn stored_progress(
    jobs: &dyn JobStore,
    account: &AccountId,
    id: &CaptureId,
    range: ObjectRange,
) -> Result<Progress, Refusal> {
    let failed = |error: StoreError| Refusal::Store(error.to_string());
    let Stored { job, .. } =
        jobs.get(account, id).map_err(failed)?.ok_or_else(|| Refusal::NotFound(id.clone()))?;
    let mut found = progress(&job, range);
    if job.objects_beside.is_some() {
        found.objects = jobs.objects(account, id, range).map_err(failed)?;
    }
    Ok(found)
}

impl Engine {
    /// The counts of a capture up to now.
    pub(super) fn ledger(&self, capture: &Capture) -> Ledger {
        capture.ledger(|| capture.slot.map(|slot| self.counted(capture.serial, slot)).unwrap_or_default())
    }

    /// The account's capture or look-back of that id, if it is at work.
    pub(super) fn find(&self, account: &AccountId, id: &CaptureId) -> Option<Serial> {
        // The account first: another account's capture takes as long as one that does not exist.
        let is_it = |job: &Job| job.request.account == *account && job.id == *id;
        let captures = self.machine.captures().filter(|capture| capture.is_accepted());
        let look_backs = self.machine.look_backs().filter(|look| look.is_accepted());
        let captures = captures.map(|capture| (&capture.job, capture.serial));
        let mut all = captures.chain(look_backs.map(|look| (&look.job, look.serial)));
        all.find(|(job, _)| is_it(job)).map(|(_, serial)| serial)
    }

    /// The job of a capture or look-back that is at work, as it is now.
    fn view(&self, serial: Serial) -> Option<Job> {
        match self.machine.capture(serial) {
            Some(capture) => Some(capture.view(self.ledger(capture))),
            None => self.machine.look_back(serial).map(|look| look.view()),
        }
    }

    pub(super) fn get(
        &self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<Job, Refusal>>,
    ) {
        match self.find(&account, &id).and_then(|serial| self.view(serial)) {
            // A caller that went away needs no answer.
            Some(job) => drop(reply.send(Ok(job))),
            None => self.stored(account, id, reply, Ok),
        }
    }

    pub(super) fn progress(
        &self,
        account: AccountId,
        id: CaptureId,
        range: ObjectRange,
        reply: oneshot::Sender<Result<Progress, Refusal>>,
    ) {
        let spool = Some(OnSpool {
            held_bytes: self.held_bytes(&account, &id),
            account_held_bytes: self.machine.held_by(&account),
            account_bytes_max: self.machine.account_bounds().share * self.planes.spool.disks().len() as u64,
        });
        let Some(serial) = self.find(&account, &id) else {
            let jobs = Arc::clone(&self.planes.jobs);
            tokio::task::spawn_blocking(move || {
                let found = stored_progress(&*jobs, &account, &id, range);
                let _caller_gone = reply.send(found.map(|found| Progress { spool, ..found }));
            });
            return;
        };
        let found = match self.machine.capture(serial) {
            Some(capture) => {
                let mut found = capture.progress(self.ledger(capture), self.now().mono, range);
                found
                    .warnings
                    .extend(self.machine.pressure().warning(self.planes.spool.fullest().held_bytes()));
                found.warnings.extend(self.machine.share_warning(&account));
                found.warnings.extend(self.planes.pace.warning());
                Some(found)
            }
            None => self.machine.look_back(serial).map(|look| progress(&look.view(), range)),
        };
        let found = found.map(|found| Progress { spool, ..found });
        let in_store = self.machine.capture(serial).map(|capture| capture.objects(range).0);
        if let (Some(in_store @ ObjectRange { count_max: 1.., .. }), Some(mut found)) =
            (in_store, found.clone())
        {
            let jobs = Arc::clone(&self.planes.jobs);
            tokio::task::spawn_blocking(move || {
                let stored = jobs.objects(&account, &id, in_store);
                let stored = stored.map_err(|error| Refusal::Store(error.to_string()));
                let _caller_gone = reply.send(stored.map(|mut objects| {
                    // Those that are still being recorded are listed once they are, and none behind them before.
                    if objects.len() == in_store.count_max {
                        objects.append(&mut found.objects);
                    }
                    Progress { objects, ..found }
                }));
            });
            return;
        }
        let _caller_gone = reply.send(found.ok_or(Refusal::NotFound(id)));
    }

    /// Bytes of a capture in whole segments on the spool.
    fn held_bytes(&self, account: &AccountId, id: &CaptureId) -> u64 {
        let is_his = self.machine.kept(account, id).is_some() || self.find(account, id).is_some();
        let spool = &self.planes.spool;
        if is_his { spool.bytes_below(&spool.config().dir.join(id.as_str())) } else { 0 }
    }

    /// What an account's captures that take no more packets have on the spool.
    pub(super) fn held(&self, account: &AccountId) -> Vec<(CaptureId, u64)> {
        let spool = &self.planes.spool;
        let bytes = |id: &CaptureId| spool.bytes_below(&spool.config().dir.join(id.as_str()));
        let mut held: Vec<_> =
            self.machine.kept_of(account).map(|kept| (kept.id.clone(), bytes(&kept.id))).collect();
        let waiting = self.machine.captures().filter(|capture| {
            capture.is_accepted() && !capture.takes_packets() && capture.job.request.account == *account
        });
        held.extend(waiting.map(|capture| (capture.job.id.clone(), bytes(&capture.job.id))));
        held.retain(|(_, bytes)| *bytes > 0);
        held
    }

    /// Drops what of a capture is on the host.
    pub(super) fn discard(
        &mut self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let Some(serial) = self.find(&account, &id) else {
            if self.machine.kept(&account, &id).is_some() {
                let reply = Some(self.reply(Reply::Promise(reply)));
                return self.feed(Input::DropKept { account, id, reply });
            }
            return self.stored(account, id, reply, |_| Ok(()));
        };
        let takes_packets = self.machine.capture(serial).is_some_and(Capture::takes_packets);
        let is_placing = self.machine.capture(serial).is_some_and(|capture| capture.reply().is_some());
        if takes_packets || is_placing {
            return drop(reply.send(Err(Refusal::StillCapturing(id))));
        }
        let reply = Some(self.reply(Reply::Promise(reply)));
        self.feed(Input::GiveUp { serial, reply });
    }

    /// Answers from the store, on a thread that may wait for it.
    pub(super) fn stored<T: Send + 'static>(
        &self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<T, Refusal>>,
        answer: impl FnOnce(Job) -> Result<T, Refusal> + Send + 'static,
    ) {
        let jobs = Arc::clone(&self.planes.jobs);
        self.read_aside(account.clone(), reply, move |_| match jobs.get(&account, &id) {
            Ok(Some(stored)) => answer(stored.job),
            Ok(None) => Err(Refusal::NotFound(id)),
            Err(error) => Err(Refusal::Store(error.to_string())),
        });
    }

    /// Reads the store in the account's turn, on a thread that may wait for it. Nothing is read for a caller that went away;
    /// `read` is given what says so.
    fn read_aside<T: Send + 'static>(
        &self,
        account: AccountId,
        mut reply: oneshot::Sender<T>,
        read: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) {
        let turns = Arc::clone(&self.reads);
        tokio::spawn(async move {
            let turn = tokio::select! {
                turn = turns.take(&account) => turn,
                () = reply.closed() => return,
            };
            let work = move || {
                let found = read(&|| reply.is_closed());
                drop(turn);
                let _caller_gone = reply.send(found);
            };
            // One that panics drops the reply, which its caller sees.
            let _said_in_the_log = tokio::task::spawn_blocking(work).await;
        });
    }

    /// The account's captures and look-backs that are at work, as they are now, without their objects: a list shows none.
    fn at_work(&self, account: &AccountId) -> HashMap<CaptureId, Job> {
        let captures = self.machine.captures().filter(|capture| capture.is_accepted());
        let captures = captures.map(|capture| (&capture.job, capture.serial));
        let look_backs = self.machine.look_backs().filter(|look| look.is_accepted());
        let all = captures.chain(look_backs.map(|look| (&look.job, look.serial)));
        let mine = all.filter(|(job, _)| job.request.account == *account);
        let view = |serial| match self.machine.capture(serial) {
            Some(capture) => Some(capture.flat_view(self.ledger(capture))),
            None => self.machine.look_back(serial).map(|look| look.view()),
        };
        mine.filter_map(|(_, serial)| view(serial)).map(|job| (job.id.clone(), job)).collect()
    }

    /// A page of the account's captures.
    pub(super) fn page(
        &self,
        account: AccountId,
        wanted: Wanted,
        reply: oneshot::Sender<Result<Listed, Refusal>>,
    ) {
        let at_work = self.at_work(&account);
        let jobs = Arc::clone(&self.planes.jobs);
        self.read_aside(account.clone(), reply, move |is_given_up| {
            page(&*jobs, &account, &wanted, at_work, is_given_up)
        });
    }

    pub(super) fn list(&self, account: AccountId, reply: oneshot::Sender<Vec<Job>>) {
        let mut at_work = self.at_work(&account);
        let jobs = Arc::clone(&self.planes.jobs);
        self.read_aside(account.clone(), reply, move |_| {
            let stored = jobs.list(&account, LIST_CAPTURES_MAX).unwrap_or_else(|error| {
                tracing::error!(%error, "the list of captures could not be read; it has those at work alone");
                Vec::new()
            });
            let is_full = stored.len() >= LIST_CAPTURES_MAX;
            let mut list: Vec<Job> = stored
                .into_iter()
                .map(|stored| match at_work.remove(&stored.job.id) {
                    // It may have ended since the engine looked.
                    Some(job) if !stored.job.status.ended() => job,
                    _ => stored.job,
                })
                .collect();
            if !is_full {
                list.extend(at_work.into_values());
                list.sort_by(|a, b| (b.submitted, &b.id).cmp(&(a.submitted, &a.id)));
            }
            list
        });
    }

    fn account_views(&self) -> Vec<AccountView> {
        let places = self.planes.places.read();
        let of_places = |account: &AccountId| places.iter().find(|row| row.account == *account);
        let view = |account: &AccountId| AccountView {
            account: account.clone(),
            number: self.tenants.number(account).unwrap_or_default(),
            held_bytes: self.machine.held_by(account),
            waiting: self.machine.waiting(account) as u64,
            deliveries_at_work: of_places(account).map_or(0, |row| row.at_work),
            deliveries_waiting: of_places(account).map_or(0, |row| row.waiting),
        };
        self.planes.settings.accounts.iter().map(view).collect()
    }

    fn look_back_views(&self) -> Vec<CaptureView> {
        let view = |job: Job| CaptureView {
            id: job.id,
            account: job.request.account,
            kind: job.request.kind,
            status: job.status,
            ledger: job.ledger,
            objects: 0,
            object_bytes: 0,
            seconds_left: 0.0,
            waiting_bytes: 0,
            stopped: None,
            warnings: Vec::new(),
            last_error: None,
            is_inherited: false,
            next_try_seconds: None,
        };
        let accepted = self.machine.look_backs().filter(|look| look.is_accepted());
        accepted.map(|look| view(look.view())).collect()
    }

    pub(super) fn overview(&self) -> Overview {
        let accepted = self.machine.captures().filter(|capture| capture.is_accepted());
        let now = self.now().mono;
        let spool = &self.planes.spool;
        let view = |capture: &Capture, ledger: Ledger| CaptureView {
            id: capture.job.id.clone(),
            account: capture.job.request.account.clone(),
            seconds_left: capture.seconds_left(now),
            waiting_bytes: spool.bytes_below(&spool.config().dir.join(capture.job.id.as_str())),
            stopped: capture.ended,
            warnings: capture.warnings(&ledger),
            last_error: capture.last_error(),
            is_inherited: capture.is_inherited(),
            kind: capture.job.request.kind,
            status: capture.job.status,
            ledger,
            objects: capture.object_sums().objects,
            object_bytes: capture.object_bytes(),
            next_try_seconds: capture.next_try(now).map(|left| left.as_secs_f64()),
        };
        let pressure = self.machine.pressure();
        let (spool_alarm, spool_alarms) = pressure.alarms();
        let ended = self.machine.ended();
        Overview {
            captures: accepted.map(|capture| view(capture, self.ledger(capture))).collect(),
            look_backs: self.look_back_views(),
            accounts: self.account_views(),
            succeeded: ended.succeeded,
            failed: ended.failed,
            spool_alarm,
            spool_alarms,
            spool_short: pressure.is_short(),
            clock: self.planes.clock.read(),
            clock_state: clock_state(),
            pace: self.planes.pace.read(),
        }
    }
}
