//! What members ask for, carried out. Owns the translation into steps of the engine, notes on the disk, records and messages; decides
//! nothing.
//!
//! Invariant: beginning an effect never waits.

use super::disk::Note;
use super::part::{self, Part, Step};
use super::{Agent, Event, sample};
use crate::bus::{Bus, Table};
use crate::fleet::held::{Answer, Op};
use crate::fleet::member::{Effect, Input};
use crate::fleet::record::{Key, Record};
use crate::fleet::sample::Packet;
use crate::job::CaptureId;
use crate::node::keys::{chunk_key, decoded, lead_subject, part_key};
use crate::node::wire::{ChunkRecord, Facts, PartRecord, ToLead, pack, to_bytes};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

impl Agent {
    pub(super) fn perform(&mut self, id: &CaptureId, effects: Vec<Effect>) {
        effects.into_iter().for_each(|effect| self.carry_out(id, effect));
    }

    fn carry_out(&mut self, id: &CaptureId, effect: Effect) {
        let Some(part) = self.parts.get_mut(id) else { return };
        match effect {
            Effect::Keep(local) => {
                let (signed, facts) = (part.signed.clone(), part.facts.clone());
                let note = Note { id: id.clone(), signed, local: *local, facts };
                let _agent_has_ended = self.notes.send(Box::new(note));
            }
            Effect::Attach { budget, remaining } => {
                let (steps, queue) = mpsc::unbounded_channel();
                let adoption = part::adoption(&part.told, budget, remaining);
                let account = part.account().clone();
                part.steps = Some(steps);
                part.step(Step::Adopt(adoption));
                let (engine, events) = (self.engine.clone(), self.events.clone());
                tokio::spawn(part::speak(engine, account, id.clone(), queue, events));
            }
            Effect::Raise(more) => part.step(Step::Grant(more)),
            Effect::Lower(reclaim) => part.step(Step::Reclaim(reclaim)),
            // Workers go on at the first level: which packets are in the draw follows from their tags alone.
            Effect::Level(_) => {}
            Effect::Detach(why) => part.step(Step::End(part::reason(why))),
            Effect::Deliver => {
                let (engine, events) = (self.engine.clone(), self.events.clone());
                let account = part.account().clone();
                tokio::spawn(part::delivered(engine, account, id.clone(), events));
            }
            Effect::Send(up) => {
                let subject = lead_subject(id, &self.me.name);
                let to_lead = ToLead { id: id.clone(), spool_id: self.me.spool_id, up };
                self.publish(subject, to_bytes(&to_lead));
            }
            Effect::Store(key, op) => self.store(id, key, op),
            Effect::Forget => self.forget(id),
        }
    }

    /// On a record of this host's own.
    fn store(&self, id: &CaptureId, key: Key, op: Op<Record>) {
        let Some(part) = self.parts.get(id) else { return };
        let name = match key {
            Key::Chunk(_, chunk) => chunk_key(id, &self.me.name, chunk),
            _ => part_key(id, &self.me.name),
        };
        let own = Own { agent: self.records(part), id: id.clone(), key, name };
        tokio::spawn(own.carry_out(op));
    }

    fn records(&self, part: &Part) -> Records {
        Records {
            bus: Arc::clone(&self.bus),
            engine: self.engine.clone(),
            events: self.events.clone(),
            site: self.config.site.clone(),
            account: part.account().clone(),
            facts: part.facts.clone(),
            simple_dir: self.config.simple_dir.clone(),
        }
    }

    /// Packets of a simple part are of use to nobody any more. Of a full one nothing is here that the engine does not remove.
    fn forget(&mut self, id: &CaptureId) {
        let Some(part) = self.parts.remove(id) else { return };
        if part.told.request.destination.is_some() {
            return;
        }
        let (engine, dir) = (self.engine.clone(), self.config.simple_dir.clone());
        let (account, id) = (part.account().clone(), id.clone());
        tokio::spawn(async move {
            for file in sample::files(&engine, &dir, &account, &id).await.unwrap_or_default() {
                // The host's own retention removes what is left.
                let _later = tokio::fs::remove_file(file).await;
            }
        });
    }
}

/// What it takes to write records of a part.
struct Records {
    bus: Arc<dyn Bus>,
    engine: crate::engine::Handle,
    events: super::Events,
    site: crate::job::Site,
    account: crate::job::AccountId,
    facts: Facts,
    simple_dir: PathBuf,
}

/// One operation on one record.
struct Own {
    agent: Records,
    id: CaptureId,
    key: Key,
    name: String,
}

impl Own {
    async fn carry_out(self, op: Op<Record>) {
        let Records { bus, events, .. } = &self.agent;
        let answer = match op {
            Op::Read => bus.read(Table::Parts, &self.name).await,
            Op::Write { expected, value } => match self.encode(value).await {
                Ok(json) => bus.write(Table::Parts, &self.name, expected, json).await,
                Err(error) => {
                    tracing::error!(capture = %self.id, %error, "packets of a simple capture cannot be given");
                    events.send(Event::Input(self.id.clone(), Input::Stored(self.key, Answer::Unavailable)));
                    return events.send(Event::Input(self.id, Input::CannotGive));
                }
            },
        };
        let answer = decoded(answer, |_, json| match self.key {
            Key::Chunk(..) => serde_json::from_slice(json).ok().map(|of: ChunkRecord| of.chunk.into()),
            _ => serde_json::from_slice(json).ok().map(|of: PartRecord| of.part.into()),
        });
        events.send(Event::Input(self.id, Input::Stored(self.key, answer)));
    }

    /// The record with its packets.
    async fn encode(&self, record: Record) -> Result<Vec<u8>, String> {
        match record {
            Record::Part(part) => {
                let given = part.sample.as_ref().map(|given| given.packets.clone());
                let packets = self.frames(given.unwrap_or_default()).await?;
                let (site, facts) = (self.agent.site.clone(), self.agent.facts.clone());
                Ok(to_bytes(&PartRecord { part, site, facts, packets }))
            }
            Record::Chunk(chunk) => {
                let frames = self.frames(chunk.packets.clone()).await?;
                Ok(to_bytes(&ChunkRecord { chunk, frames }))
            }
            _ => Err("a host writes its own part alone".to_owned()),
        }
    }

    async fn frames(&self, packets: Vec<Packet>) -> Result<String, String> {
        if packets.is_empty() {
            return Ok(String::new());
        }
        let Records { engine, simple_dir, account, .. } = &self.agent;
        let files = sample::files(engine, simple_dir, account, &self.id).await;
        let files = files.ok_or_else(|| "the capture is not in this host's records".to_owned())?;
        let task = move || {
            let frames = sample::frames(&files, &packets).map_err(|error| error.to_string())?;
            pack(&frames).map_err(|error| error.to_string())
        };
        tokio::task::spawn_blocking(task).await.map_err(|died| died.to_string())?
    }
}
