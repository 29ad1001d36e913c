//! From a request to a capture whose destination is known to take objects and whose job is being recorded. Owns who may start
//! what; not how a capture runs.
//!
//! Invariant: what is refused leaves nothing behind: no slot, no interval, no job.

use super::capture::{Capture, Phase};
use super::{Effect, Machine, Now, ReplyId, Serial};
use crate::engine::Standing;
use crate::engine::handle::Refusal;
use crate::job::{AccountId, BucketTerms, CaptureId, Job, Kind, Request};
use crate::matcher::Filter;
use crate::pcap::ObjectFormat;
use std::collections::BTreeSet;
use std::time::Duration;

impl Machine {
    pub(super) fn create(
        &mut self,
        now: Now,
        reply: ReplyId,
        id: CaptureId,
        request: Request,
        lags: bool,
        out: &mut Vec<Effect>,
    ) {
        let admitted = match request.offset_time {
            Some(_) => self.accept_look_back(now, reply, id, request, lags, out),
            None => self.open(now, reply, id, request, out),
        };
        if let Err(refusal) = admitted {
            out.push(Effect::Created { reply, answer: Err(refusal) });
        }
    }

    fn open(
        &mut self,
        now: Now,
        reply: ReplyId,
        id: CaptureId,
        request: Request,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (slot, filter) = self.admit(now, &request)?;
        let serial = self.next_serial();
        let is_simple = request.kind == Kind::Simple;
        if is_simple {
            self.simple_started.insert(request.account.clone(), now.mono);
        }
        let one_in = self.config.simple_one_in.filter(|_| is_simple);
        let job = Job { site: self.config.site.clone(), ..Job::accepted_as(id, now.wall, request, one_in) };
        self.take_up(now, (slot, filter), Capture::new(serial, job, Phase::Opening { reply }), out);
        Ok(())
    }

    /// Takes up a capture that has a slot: its destination is tried next.
    pub(super) fn take_up(
        &mut self,
        now: Now,
        (slot, filter): (usize, Filter),
        capture: Capture,
        out: &mut Vec<Effect>,
    ) {
        let serial = capture.serial;
        let capture = Capture {
            slot: Some(slot),
            filter: Some(filter),
            queues: self.config.queues,
            object_bytes_max: self.config.object_bytes_max,
            format: self.format(&capture.job.request),
            streams_left: self.config.streams,
            asked_at: now.mono,
            ..capture
        };
        self.captures.insert(serial, capture);
        out.push(Effect::TryDestination { serial });
    }

    /// Whether a capture may begin now: its slot and its validated filter.
    fn admit(&self, now: Now, request: &Request) -> Result<(usize, Filter), Refusal> {
        if self.is_ending() {
            return Err(Refusal::ShuttingDown);
        }
        self.admit_to_wait(&request.account)?;
        self.admit_to_spool(&request.account)?;
        match request.kind {
            Kind::Full => self.admit_full(request)?,
            Kind::Simple => self.admit_simple(now.mono, request)?,
        }
        let slot = self.free_slot()?;
        self.admit_to_slots(&request.account)?;
        let filter = Filter::try_from(&request.filter).map_err(|e| Refusal::Filter(e.to_string()))?;
        Ok((slot, filter))
    }

    /// A slot for one more capture, if the workers have blocks for it too.
    pub(super) fn free_slot(&self) -> Result<usize, Refusal> {
        let taken: Vec<usize> = self.captures.values().filter_map(|capture| capture.slot).collect();
        let slot = (0..self.config.slots)
            .find(|slot| !taken.contains(slot))
            .ok_or(Refusal::NoSlot(self.config.slots))?;
        if taken.len() >= self.config.admits {
            return Err(Refusal::NoBlocks(self.config.admits));
        }
        Ok(slot)
    }

    /// Leaves a slot for each account that has none, as far as half of them suffice: an account that has one takes no more
    /// than what is left. So captures that match nothing and take no disk keep nobody from the first one.
    fn admit_to_slots(&self, account: &AccountId) -> Result<(), Refusal> {
        let holders = self.captures.values().filter(|capture| capture.slot.is_some());
        let holders: Vec<&AccountId> = holders.map(|capture| &capture.job.request.account).collect();
        if !holders.contains(&account) {
            return Ok(());
        }
        let room = self.config.slots.min(self.config.admits);
        let others: BTreeSet<&AccountId> = holders.iter().copied().collect();
        let kept = self.config.accounts.saturating_sub(others.len()).min(room / 2);
        match room.saturating_sub(holders.len()) > kept {
            true => Ok(()),
            false => Err(Refusal::SlotsKept { slots: room, kept }),
        }
    }

    /// An account's full captures that take packets and were accepted here. One without a slot takes none any more: its upload keeps
    /// nobody from starting the next one.
    fn full_of<'a>(&'a self, account: &'a AccountId) -> impl Iterator<Item = &'a Capture> {
        self.captures.values().filter(move |capture| {
            let request = &capture.job.request;
            let is_own = capture.slot.is_some() && capture.adopted.is_none();
            is_own && request.kind == Kind::Full && request.account == *account
        })
    }

    /// What an account may start now.
    pub(in super::super) fn standing(&self, now: Now, account: &AccountId) -> Standing {
        let look_backs = self.look_backs().filter(|look| look.job.request.account == *account);
        Standing {
            simple_seconds_left: self.simple_left(now.mono, account).unwrap_or_default().as_secs_f64(),
            full_active: self.full_of(account).count(),
            look_backs_active: look_backs.count(),
            is_accepting: !self.is_ending(),
        }
    }

    fn admit_full(&self, request: &Request) -> Result<(), Refusal> {
        let mut others = self.full_of(&request.account);
        match others.nth(self.config.full_per_account.saturating_sub(1)) {
            Some(other) => Err(Refusal::FullCaptureActive(other.job.id.clone())),
            None => Ok(()),
        }
    }

    /// Until an account may start its next simple capture.
    fn simple_left(&self, mono: Duration, account: &AccountId) -> Option<Duration> {
        let since = self.simple_started.get(account).map(|started| mono.saturating_sub(*started))?;
        self.config.simple_interval.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn admit_simple(&self, mono: Duration, request: &Request) -> Result<(), Refusal> {
        let interval = self.config.simple_interval;
        match self.simple_left(mono, &request.account) {
            // Rounded up: after that many seconds the next one is admitted.
            Some(left) => Err(Refusal::SimpleTooSoon {
                interval_seconds: interval.as_secs(),
                seconds_left: left.as_secs() + 1,
            }),
            None => Ok(()),
        }
    }

    /// Simple captures are what Cloudflare's download says they are.
    pub(super) fn format(&self, request: &Request) -> ObjectFormat {
        match request.kind {
            Kind::Simple => ObjectFormat::default(),
            Kind::Full => {
                let host = self.config.object_format;
                ObjectFormat {
                    container: request.format.unwrap_or(host.container),
                    compression: request.compression.unwrap_or(host.compression),
                    ..host
                }
            }
        }
    }

    pub(super) fn opened(
        &mut self,
        now: Now,
        serial: Serial,
        tried: Result<BucketTerms, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let is_ending = self.is_ending();
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        let Phase::Opening { reply } = capture.phase else { return };
        match tried {
            Err(refusal) => self.refuse(serial, refusal, out),
            Ok(_) if is_ending => self.refuse(serial, Refusal::ShuttingDown, out),
            Ok(terms) => {
                (capture.job.keys, capture.job.proof) = (terms.keys, terms.proof);
                capture.started = Some(now.wall);
                capture.wait_in(now, Phase::Recording { reply });
                capture.version += 1;
                let (version, job) = (capture.version, Box::new(capture.job.clone()));
                out.push(Effect::RecordNew { serial, version, job });
            }
        }
    }

    pub(super) fn unrecordable(&mut self, serial: Serial, error: String, out: &mut Vec<Effect>) {
        if self.captures.contains_key(&serial) {
            self.refuse(serial, Refusal::Store(error), out);
        } else {
            self.look_back_unrecordable(serial, error, out);
        }
    }

    /// Answers a create whose capture does not begin, and forgets the capture.
    pub(super) fn refuse(&mut self, serial: Serial, refusal: Refusal, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get(&serial) else { return };
        if !matches!(capture.phase, Phase::Opening { .. } | Phase::Recording { .. }) {
            return;
        }
        capture.refuse(refusal, out);
        self.forgive_interval(serial);
        self.captures.remove(&serial);
        out.push(Effect::Drop { serial });
    }

    /// A capture that did not begin does not count against the interval of simple captures; one that was asked for later does.
    pub(super) fn forgive_interval(&mut self, serial: Serial) {
        if let Some(capture) = self.captures.get(&serial)
            && capture.job.request.kind == Kind::Simple
            && capture.adopted.is_none()
            && self.simple_started.get(&capture.job.request.account) == Some(&capture.asked_at)
        {
            self.simple_started.remove(&capture.job.request.account);
        }
    }
}
