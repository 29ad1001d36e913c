//! What the machine asks for in the simulated world, and what must be true when it does.
//!
//! Invariant: an effect for something that is gone, or that comes twice, fails the run.

use super::super::*;
use super::world::{Answer, Change, Dir, INTERVAL, QUEUES, SLOTS, World, Write, bounds};
use crate::deliver::journal::CaptureRecord;
use crate::deliver::{Manifest, Words};
use crate::job::Kind;
use crate::pcap::Origin;

impl World {
    /// Begins an effect; what it answers at once.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Created { reply, answer } => self.created(reply, answer.map(|job| *job)),
            Effect::Promised { reply, answer } => self.promised(reply, answer.is_ok()),
            Effect::TryDestination { serial } => {
                let job = self.machine.capture(serial).unwrap().job.clone();
                self.begin_life(serial, &job);
                self.answers.push(Answer::Open(serial));
            }
            Effect::RecordNew { serial, version, job } => self.record_new(serial, version, *job),
            Effect::Record { serial, version, job } => self.record(serial, version, *job),
            Effect::RecordObjects { .. } => unreachable!("no capture here has so many"),
            Effect::Place { serial } => {
                let id = self.life(serial).id.clone();
                assert!(self.store.contains_key(&id), "a place for a capture that is not recorded");
                self.answers.push(Answer::Place(serial));
            }
            Effect::Deliver { serial } | Effect::DeliverLeft { serial } => self.deliver(serial),
            Effect::Attach { serial, slot } => self.attach(serial, slot),
            Effect::Detach { serial, slot } => self.detach(serial, slot),
            Effect::EndBudget { serial, ended } => return Some(self.end_budget(serial, ended)),
            Effect::RefuseWrites { serial, .. } => self.pays(serial),
            Effect::Raise { serial, more } => self.raise(serial, more),
            Effect::Lower { serial, reply, keep } => self.lower(serial, reply, keep),
            Effect::Resample { serial, slot } => self.resample(serial, slot),
            Effect::GiveUp { serial, .. } => self.give_up(serial),
            Effect::DropKept { account, id, why } => self.drop_kept(&account, &id, &why),
            Effect::Discard { serial } => {
                self.release(serial);
                let id = self.life(serial).id.clone();
                assert!(self.store[&id].status.ended(), "discarded before its outcome was recorded");
                self.answers.push(Answer::Remove(serial));
            }
            Effect::Note { serial } => self.note(serial),
            Effect::SettleCounts { serial, .. } => self.life(serial).needs_counts = false,
            Effect::Publish { serial, manifest } => self.publish(serial, manifest),
            Effect::Seek { serial } => self.answers.push(Answer::Seek(serial)),
            Effect::Remove { serial } => self.remove(serial),
            Effect::Forget { serial } => {
                self.release(serial);
                self.answers.push(Answer::Forget(serial));
            }
            Effect::Drop { serial } => {
                self.life(serial).dropped = true;
                let life = &self.lives[&serial];
                assert!(life.slot.is_none() && life.in_dir == 0, "{life:?} is dropped");
            }
            Effect::Weigh => return Some(self.weigh()),
            Effect::StopRetrying => self.leaving = true,
            Effect::PlaceRecording { serial } => self.answers.push(Answer::PlaceRecording(serial)),
            Effect::AttachRecording { serial } => {
                assert!(self.recording.is_none_or(|before| before < serial));
                self.recording = Some(serial);
            }
            Effect::DetachRecording | Effect::ForgetRecording { .. } => {}
            Effect::LookBack { serial, .. } => {
                self.life(serial);
                assert!(self.looking.insert(serial));
                self.answers.push(Answer::LookBack(serial));
            }
            Effect::Finish { replies } => self.finish(&replies),
        }
        None
    }

    /// An account loses something because the spool is full.
    fn pays(&mut self, serial: Serial) {
        let account = AccountId(self.life(serial).account.clone());
        let (held, bounds) = (self.held[&account], bounds());
        let is_for_itself = held >= bounds.share / 100 * 95;
        assert!(held > bounds.part || is_for_itself, "{account} pays for others with {held} bytes");
    }

    fn give_up(&mut self, serial: Serial) {
        // A process before this one decided it.
        let id = self.life(serial).id.clone();
        let is_known = self.store[&id].given_up.is_some();
        if !self.owner_drops && !is_known {
            let account = AccountId(self.life(serial).account.clone());
            assert!(self.held[&account] > bounds().part, "{account} loses a capture within its part");
            self.taken += 1;
        }
        let life = self.life(serial);
        let id = life.id.clone();
        life.given_up = true;
        if life.delivers && !std::mem::replace(&mut life.delivered, true) {
            let report = Report::Delivered(Outcome::Failed(Words::alike("given up")));
            self.answers.push(Answer::Told(Input::Delivery { serial, report }));
        }
        self.dropped.insert(id);
    }

    /// Who is told that something will be so can rely on it: it is durable.
    fn promised(&mut self, reply: ReplyId, is_kept: bool) {
        let Some((serial, id, is_drop)) = self.deciding.remove(&reply) else {
            return assert!(self.finished, "each decision is answered once");
        };
        let phase = self.machine.capture(serial).map(|capture| capture.phase);
        let is_over = |phase| matches!(phase, capture::Phase::Ending { .. } | capture::Phase::Removing);
        if !is_kept || phase.is_none_or(is_over) {
            return;
        }
        let durable = &self.store[&id];
        assert!(durable.status.ended() || durable.stop_requested.is_some() || is_drop, "{durable:?}");
        assert!(!is_drop || durable.given_up.is_some(), "{durable:?}");
        if is_drop {
            self.promised.insert(id);
        }
    }

    fn drop_kept(&mut self, account: &AccountId, id: &CaptureId, why: &str) {
        assert!(self.store[id].status.ended() && self.store[id].request.account == *account);
        if why.starts_with("the spool was full") {
            assert!(self.held[account] > bounds().part, "{account} loses data within its part");
            self.taken += 1;
        }
        self.dropped.insert(id.clone());
        self.answers.push(Answer::DropKept(id.clone()));
    }

    fn record_new(&mut self, serial: Serial, version: u64, job: Job) {
        if !self.lives.contains_key(&serial) {
            self.begin_life(serial, &job);
        }
        self.life(serial);
        self.writes.insert(serial, Write { version, job, is_new: true });
    }

    fn record(&mut self, serial: Serial, version: u64, job: Job) {
        assert!(!self.life(serial).released, "a write for a capture that is released");
        let is_new = self.writes.get(&serial).is_some_and(|write| write.is_new);
        self.writes.insert(serial, Write { version, job, is_new });
    }

    fn deliver(&mut self, serial: Serial) {
        assert!(!std::mem::replace(&mut self.life(serial).delivers, true), "delivered twice");
        if self.machine.capture(serial).unwrap().recovered.is_some() {
            self.recover(serial);
        }
    }

    fn attach(&mut self, serial: Serial, slot: usize) {
        let (mono, id) = (self.mono, self.life(serial).id.clone());
        assert!(self.spool.contains_key(&id) && slot < SLOTS);
        assert!(self.lives.values().all(|life| life.slot != Some(slot)), "slot {slot} is taken");
        let life = self.life(serial);
        assert!(life.attached_at.is_none(), "attached twice");
        (life.attached_at, life.slot) = (Some(mono), Some(slot));
        self.changes.push_back(Change::Attach(serial));
    }

    fn detach(&mut self, serial: Serial, slot: usize) {
        assert_eq!(self.life(serial).slot, Some(slot));
        let known = |change: &Change| matches!(change, Change::Detach(other) if *other == serial);
        assert!(!self.changes.iter().any(known), "detached twice");
        self.changes.push_back(Change::Detach(serial));
    }

    fn end_budget(&mut self, serial: Serial, ended: Ended) -> Input {
        let mono = self.mono;
        let life = self.life(serial);
        let ran = mono - life.attached_at.expect("it was attached");
        let is_over = life.ends.map_or(ran >= life.limit, |ends| mono >= ends);
        assert!(ended != Ended::Time || is_over, "ended after {ran:?} of {:?}, {:?}", life.limit, life.ends);
        let ended = *life.budget.get_or_insert(ended);
        Input::BudgetEnded { serial, ended }
    }

    /// What is written beside the segments of a capture now.
    pub(super) fn record_of(&self, serial: Serial) -> CaptureRecord {
        let capture = self.machine.capture(serial).unwrap();
        let ledger = capture.ledger(|| self.live(serial));
        CaptureRecord {
            job: capture.flat_job(ledger),
            queues: QUEUES,
            snaplen: capture.snaplen(),
            object_bytes_max: capture.object_bytes_max,
            format: capture.format,
            origin: Origin::default(),
            dirs: Default::default(),
            started: capture.started,
            ended: capture.ended,
            known_until: self.now().wall,
            is_final: capture.is_final(),
        }
    }

    fn note(&mut self, serial: Serial) {
        self.enter_dir(serial);
        let record = self.record_of(serial);
        assert!(record.job.objects.is_empty(), "the record does not grow with the objects");
        self.answers.push(Answer::Note(serial, Box::new(record)));
    }

    fn publish(&mut self, serial: Serial, manifest: Box<Manifest>) {
        self.enter_dir(serial);
        let life = self.life(serial);
        assert!(life.delivered && life.in_dir == 1);
        manifest.ledger.check().unwrap();
        self.answers.push(Answer::Publish(serial, manifest));
    }

    fn remove(&mut self, serial: Serial) {
        self.release(serial);
        let id = self.life(serial).id.clone();
        assert!(self.store[&id].status.ended(), "removed before its outcome was recorded");
        if let Some(dir) = self.spool.get(&id) {
            let Dir { packets, delivered, is_complete, unpublished, .. } = dir;
            assert!(*is_complete || (*packets == 0 && delivered.is_empty()), "{dir:?} is removed");
            assert_eq!(*unpublished, 0, "an unpublished segment is removed");
        }
        self.answers.push(Answer::Remove(serial));
    }

    fn weigh(&self) -> Input {
        let running = self.machine.captures().filter(|capture| capture.takes_packets());
        let weight = |capture: &Capture| (capture.serial, self.lives[&capture.serial].counts.captured_bytes);
        Input::Weighed { captured: running.map(weight).collect() }
    }

    fn finish(&mut self, replies: &[ReplyId]) {
        assert!(!std::mem::replace(&mut self.finished, true), "finished twice");
        // Of these alone: what ended captures left is removed after the end.
        let is_kept = |id: &CaptureId| self.machine.kept.iter().any(|kept| kept.id == *id);
        self.deciding.retain(|_, (_, id, is_drop)| !*is_drop || !is_kept(id));
        assert!(self.deciding.is_empty(), "{:?}", self.deciding);
        assert!(self.machine.captures.is_empty() && self.machine.look_backs.is_empty());
        for reply in replies {
            assert!(self.asked.remove(reply).is_some());
        }
        assert!(self.asked.is_empty(), "nobody is left without an answer: {:?}", self.asked);
    }

    fn created(&mut self, reply: ReplyId, answer: Result<Job, Refusal>) {
        let (id, asked) = self.asked.remove(&reply).expect("each create is answered once");
        let is_again = self.refused_again.remove(&reply);
        let Ok(job) = answer else { return };
        assert!(!is_again, "a part is captured twice");
        assert_eq!(job.id, id);
        assert!(self.store.contains_key(&id), "accepted before it was recorded");
        assert!(self.accepted.insert(id));
        let is_adopted = self.machine.captures().any(|c| c.job.id == job.id && c.adopted.is_some());
        if job.request.kind == Kind::Simple && job.request.offset_time.is_none() && !is_adopted {
            let before = self.simple_accepted.insert(job.request.account.0, asked);
            assert!(before.is_none_or(|before| asked.abs_diff(before) >= INTERVAL), "{before:?} {asked:?}");
        }
    }

    fn enter_dir(&mut self, serial: Serial) {
        let life = self.life(serial);
        assert!(!life.released && life.in_dir == 0, "two write in the directory of {serial}");
        life.in_dir += 1;
        let id = life.id.clone();
        assert!(self.spool.contains_key(&id), "the directory of {serial} is gone");
    }

    fn release(&mut self, serial: Serial) {
        let life = self.life(serial);
        assert!(!life.released && life.in_dir == 0, "released while something is under way: {life:?}");
        life.released = true;
    }
}
