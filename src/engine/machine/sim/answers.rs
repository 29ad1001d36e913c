//! How the simulated world answers, and how processes end in it: what is durable then, and what the next one finds.
//!
//! Invariant: what is durable was made so by a write that the machine asked for.

use super::super::*;
use super::world::{Answer, Dir, QUEUES, World, config};
use crate::deliver::{Manifest, Words};
use crate::job::StopReason;

impl World {
    /// One of the answers that are under way arrives.
    pub(super) fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let at = usize::try_from(self.chance.below(self.answers.len() as u64)).unwrap();
        let answer = self.answers.remove(at);
        let input = match answer {
            Answer::Told(input) => {
                if let Input::Delivery { serial, .. } = &input {
                    self.lives.get_mut(serial).unwrap().recovers = false;
                }
                input
            }
            Answer::Open(serial) => {
                let refusal = Refusal::Destination("no".to_owned());
                Input::Opened {
                    serial,
                    tried: if self.fails(100) {
                        Err(refusal)
                    } else {
                        Ok(crate::job::BucketTerms::default())
                    },
                }
            }
            Answer::Place(serial) => {
                let failed = self.fails(100);
                self.placed(serial, failed);
                Input::Placed { serial, made: if failed { Err("no directory".to_owned()) } else { Ok(()) } }
            }
            Answer::StreamEnd(serial) => self.stream_ends(serial),
            Answer::Note(serial, record) => {
                let life = self.lives.get_mut(&serial).unwrap();
                life.in_dir -= 1;
                let id = life.id.clone();
                if !self.fails(50) {
                    self.spool.get_mut(&id).unwrap().record = Some(*record);
                }
                Input::Noted { serial }
            }
            Answer::Publish(serial, manifest) => {
                self.lives.get_mut(&serial).unwrap().in_dir -= 1;
                let outcome = self.published(serial, *manifest);
                Input::Closed { serial, outcome }
            }
            Answer::Seek(serial) => {
                let manifest = self.bucket.get(&self.lives[&serial].id).cloned();
                let found = match manifest {
                    _ if self.leaving && self.chance.permille(300) => Sought::Left,
                    Some(manifest) => Sought::Manifest(Box::new(manifest)),
                    None => Sought::Nothing(None),
                };
                Input::Sought { serial, found }
            }
            Answer::Remove(serial) => self.removes(serial),
            Answer::Forget(serial) => Input::Removed { serial, result: Ok(()), kept: self.kept(serial) },
            Answer::DropKept(id) => {
                let result = self.remove_dir(&id);
                Input::KeptDropped { id, result }
            }
            Answer::PlaceRecording(serial) => Input::RecordingPlaced {
                serial,
                made: if self.fails(100) { Err("no".to_owned()) } else { Ok(()) },
            },
            Answer::LookBack(serial) => self.looked_back(serial),
        };
        self.step(input);
    }

    fn looked_back(&mut self, serial: Serial) -> Input {
        self.looking.remove(&serial);
        let job = self.machine.look_back(serial).unwrap().job.clone();
        let job = Box::new(Job { status: Status::Success, ..job });
        Input::LookedBack { serial, result: if self.fails(200) { Err("late".to_owned()) } else { Ok(job) } }
    }

    fn remove_dir(&mut self, id: &CaptureId) -> Result<(), String> {
        if self.fails(100) {
            return Err("busy".to_owned());
        }
        self.spool.remove(id);
        Ok(())
    }

    fn removes(&mut self, serial: Serial) -> Input {
        let id = self.lives[&serial].id.clone();
        let result = self.remove_dir(&id);
        Input::Removed { serial, result, kept: self.kept(serial) }
    }

    /// Bytes that are left of a capture in the spool.
    fn kept(&self, serial: Serial) -> u64 {
        self.spool.get(&self.lives[&serial].id).map_or(0, |dir| dir.packets * 100 + dir.unpublished)
    }

    fn placed(&mut self, serial: Serial, failed: bool) {
        if failed {
            return;
        }
        let (id, record) = (self.lives[&serial].id.clone(), Some(self.record_of(serial)));
        self.spool.insert(id, Dir { record, ..Dir::default() });
    }

    fn stream_ends(&mut self, serial: Serial) -> Input {
        let unpublished = u64::from(self.fails(30));
        let life = self.lives.get_mut(&serial).unwrap();
        life.streams_left -= 1;
        let lost =
            if life.streams_left == 0 { life.lost_left } else { self.chance.below(life.lost_left + 1) };
        life.lost_left -= lost;
        let dir = self.spool.get_mut(&life.id).unwrap();
        dir.unpublished += unpublished;
        dir.given_up += if unpublished > 0 { lost } else { 0 };
        if life.streams_left == 0 {
            // All that is not lost is published.
            let lost = self.machine.capture(serial).map_or(0, |capture| capture.lost.packets) + lost;
            dir.packets = life.counts.captured - lost;
        }
        let lost = Lost { packets: lost, frame_bytes: lost * 100 };
        Input::StreamEnded { serial, lost, unpublished, failure: None }
    }

    fn published(&mut self, serial: Serial, manifest: Manifest) -> Outcome {
        let id = self.lives[&serial].id.clone();
        let dir = self.spool.get_mut(&id).unwrap();
        // The first one counts.
        let manifest = dir.settled.get_or_insert(manifest).clone();
        if self.fails(50) {
            return Outcome::Failed(Words::alike("not there"));
        }
        if self.leaving && self.chance.permille(300) {
            return Outcome::Left;
        }
        self.bucket.insert(id, manifest);
        Outcome::Done
    }

    /// The process dies; of what was under way some is durable.
    pub(super) fn crash(&mut self) {
        for write in std::mem::take(&mut self.writes).into_values() {
            if self.chance.permille(500) && !self.is_store_broken {
                self.make_durable(&write);
            }
        }
        for answer in std::mem::take(&mut self.answers) {
            if self.chance.permille(500) {
                continue;
            }
            match answer {
                Answer::Place(serial) => self.placed(serial, false),
                Answer::Publish(serial, manifest) => drop(self.published(serial, *manifest)),
                Answer::Remove(serial) => drop(self.spool.remove(&self.lives[&serial].id)),
                Answer::Note(serial, record) => {
                    self.spool.get_mut(&self.lives[&serial].id).unwrap().record = Some(*record);
                }
                _ => {}
            }
        }
        let lives = std::mem::take(&mut self.lives);
        for life in lives.values().filter(|life| life.attached_at.is_some() && life.streams_left > 0) {
            // Of what was captured, so much had reached the disk.
            if let Some(dir) = self.spool.get_mut(&life.id) {
                dir.packets = self.chance.below(life.counts.captured - dir.given_up + 1);
            }
        }
        self.asked.clear();
        self.deciding.clear();
        self.restart();
    }

    /// The next process begins with what is durable.
    pub(super) fn restart(&mut self) {
        self.machine = Machine::new(config());
        self.mono = Duration::ZERO;
        self.lives.clear();
        self.writes.clear();
        self.changes.clear();
        self.answers.clear();
        self.looking.clear();
        self.deciding.clear();
        self.simple_accepted.clear();
        (self.recording, self.leaving, self.finished) = (None, false, false);
        // What could not be published is by now: the recovery of a directory begins with that.
        for dir in self.spool.values_mut() {
            let given_up = std::mem::take(&mut dir.given_up);
            // Unless objects went on without it.
            let went_on = dir.is_complete || !dir.delivered.is_empty();
            dir.packets += if went_on { 0 } else { given_up };
            dir.unpublished = 0;
        }
        let unfinished: Vec<_> = self.store.values().filter(|job| !job.status.ended()).cloned().collect();
        for job in unfinished {
            if job.request.offset_time.is_some() {
                let stop_reason = Some(StopReason::Interrupted);
                self.store.insert(job.id.clone(), Job { status: Status::Failed, stop_reason, ..job });
                continue;
            }
            let serial = self.machine.serial_for_inherited();
            self.begin_life(serial, &job);
            let remains = match self.spool.get(&job.id) {
                None => Remains::Nothing,
                Some(dir) => Remains::Directory {
                    record: dir.record.clone().map(Box::new),
                    settled: dir.settled.clone().map(Box::new),
                    queues: QUEUES,
                },
            };
            self.step(Input::Inherited(Box::new(Inherited { serial, job, remains })));
        }
        // Those that ended and are wholly delivered are removed by the survey of the spool.
        let (store, spool) = (&self.store, &mut self.spool);
        spool.retain(|id, dir| {
            let job = &store[id];
            let keeps_manifest = job.status == Status::Failed && job.ledger.captured > 0;
            !job.status.ended() || !dir.is_complete || keeps_manifest
        });
        let ended = self.spool.iter().filter(|(id, _)| self.store[*id].status.ended());
        let kept: Vec<_> = ended
            .map(|(id, dir)| {
                let account = self.store[id].request.account.clone();
                Kept::new(id.clone(), account, dir.packets * 100, Duration::ZERO)
            })
            .collect();
        for kept in kept {
            self.step(Input::Kept(Box::new(kept)));
        }
    }
}
