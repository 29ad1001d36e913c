//! The other nodes of the simulated world: they have this host capture parts, grant and take back shares, and hear what is with them.
//!
//! Invariant: what a part captured is never more than what was granted and not taken back, whatever fails.

use super::super::*;
use super::world::{Life, World};
use crate::engine::adopt::Adoption;
use crate::worker::Share;

/// What a part may take, in packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    pub granted: u64,
    pub returned: u64,
}

impl Rights {
    pub fn room(self, captured: u64) -> u64 {
        (self.granted - self.returned).checked_sub(captured).expect("more was captured than was granted")
    }
}

fn packets(packets: u64) -> Share {
    Share { packets, bytes: u64::MAX }
}

impl World {
    /// Another node has this host capture its part; sometimes one that it has or had.
    pub(super) fn adopts(&mut self, reply: ReplyId, id: CaptureId, request: Box<Request>) {
        let again = self.chance.permille(300).then(|| self.some_known_id()).flatten();
        let is_again = again.is_some();
        let id = again.unwrap_or(id);
        self.asked.insert(reply, (id.clone(), self.mono));
        let share = self.chance.permille(800).then(|| packets(self.chance.below(50)));
        let adoption = Adoption {
            id: id.clone(),
            request,
            terms: Default::default(),
            submitted: self.now().wall,
            remaining: Duration::from_millis(self.chance.below(20_000)),
            share,
            one_in: Some(2),
        };
        let known =
            if self.fails(30) { Err("no answer".to_owned()) } else { Ok(self.store.contains_key(&id)) };
        self.refused_again.extend(is_again.then_some(reply));
        self.step(Input::Adopt { reply, adoption: Box::new(adoption), known });
    }

    fn some_known_id(&mut self) -> Option<CaptureId> {
        let known: Vec<_> =
            self.store.keys().chain(self.machine.captures().map(|c| &c.job.id)).cloned().collect();
        let at = self.chance.below(known.len() as u64);
        known.get(usize::try_from(at).unwrap()).cloned()
    }

    /// Another node says something to a part, at any time of its life.
    pub(super) fn steers(&mut self) {
        let Some(serial) = self.some_serial(|capture| capture.adopted.is_some()) else { return };
        match self.chance.below(4) {
            0 => {
                let more = packets(self.chance.below(50));
                self.step(Input::Grant { serial, more });
            }
            1 if self.machine.capture(serial).unwrap().has_share() => {
                self.last += 1;
                let (reply, keep) = (self.last, packets(self.chance.below(10)));
                self.reclaims.insert(reply);
                self.step(Input::Reclaim { serial, reply, keep });
                assert!(self.reclaims.is_empty(), "a recall is not answered");
            }
            2 => {
                let one_in = 1 + u32::try_from(self.chance.below(8)).unwrap();
                self.step(Input::Level { serial, one_in });
            }
            _ if self.chance.permille(200) => {
                self.step(Input::EndPart { serial, why: StopReason::PacketLimit });
            }
            _ => {}
        }
    }

    pub(super) fn raise(&mut self, serial: Serial, more: Share) {
        assert!(self.machine.capture(serial).unwrap().may_take(), "raised after its end");
        let life = self.life(serial);
        life.rights.as_mut().expect("it has a share").granted += more.packets;
        let (id, rights) = (life.id.clone(), life.rights.unwrap());
        self.rights.insert(id, rights);
    }

    pub(super) fn lower(&mut self, serial: Serial, reply: ReplyId, keep: Share) {
        let life = self.life(serial);
        let rights = life.rights.as_mut().expect("it has a share");
        rights.returned += rights.room(life.counts.captured).saturating_sub(keep.packets);
        let (id, rights) = (life.id.clone(), *rights);
        self.rights.insert(id, rights);
        assert!(self.reclaims.remove(&reply), "answered twice");
    }

    pub(super) fn resample(&mut self, serial: Serial, slot: usize) {
        assert_eq!(self.life(serial).slot, Some(slot), "another sample for what is not attached");
    }

    /// What is taken of so many matching packets.
    pub(super) fn of_share(life: &mut Life, taken: u64) -> u64 {
        let room = life.rights.map_or(u64::MAX, |rights| rights.room(life.counts.captured));
        let captured = taken.min(room);
        life.counts.share += taken - captured;
        captured
    }

    pub(super) fn shares_hold(&self) {
        for life in self.lives.values() {
            let _never_over = life.rights.map(|rights| rights.room(life.counts.captured));
        }
    }

    /// At the very end, also over crashes: what a part's job says.
    pub(super) fn shares_held(&self) {
        for (id, rights) in &self.rights {
            if let Some(job) = self.store.get(id) {
                let _never_over = rights.room(job.ledger.captured);
            }
        }
    }
}
