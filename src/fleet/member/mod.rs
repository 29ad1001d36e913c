//! One host's part of one capture. Owns when it begins, asks, gives back and ends; the data plane, the disk and the bucket carry
//! out its effects and answer each once.
//!
//! ```text
//!  assigned ─▶ Accepting ─▶ Attaching ─▶ Running ─▶ Ending ─▶ Noting ─▶ Delivering ─▶ Waiting ─▶ Gone
//!                                                     restart ───▲        (full)        (for `is_final`)
//! ```
//!
//! - *Accepting*: the assignment goes to the host's own disk before a packet is captured, so a restart knows of it.
//! - *Ending*: the host's own clock, a stop or a reached limit ended it; workers let it go.
//! - *Noting*: what is final goes to the disk before anybody hears of it: counts, a sample, that everything is delivered.
//! - *Waiting*: a simple part gives its quota when asked, and holds its packets until the lead says that nothing is asked any more.
//!
//! Invariant: a capture that this host has once accepted is never captured again: a restart ends it with what was durable.

mod life;
mod news;
mod pack;
#[cfg(test)]
mod tests;

use super::record::{Assignment, Identity, Key, Part, RULES, Record, Refusal, Stage, Tally};
use super::sample::{Chance, Hashed, Kept, Packet, cap, level_max};
use super::settings::Settings;
use super::shares::{Amount, Holding, Meter, Reached, Reclaim, Report};
use super::{Down, Epoch, Host, Kind, Now, Up, first_number, held};
pub use life::Life;
use news::News;
use pack::Pack;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Why a host ends its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The window is over by the host's clock.
    Time,
    /// The customer, or the lead, wants no more.
    Stopped,
    /// The fleet's limit is reached.
    Limit(Reached),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The assignment is heard, again or with more flags.
    Assigned(Assignment),
    /// The last [`Effect::Keep`] is durable.
    Kept,
    /// It could not be written, and is not there.
    KeepFailed,
    /// The data plane captures.
    Attached,
    /// It cannot, and captured nothing.
    NotAttached,
    /// The data plane's counts, regularly while it captures.
    Turn(Meter),
    /// The budget was lowered by `taken`; `used` was captured by then.
    Reclaimed {
        /// Of the recall.
        round: u64,
        /// Rights that nobody here can use any more.
        taken: Amount,
        /// Captured.
        used: Amount,
    },
    /// Workers let it go; these counts are final.
    Detached(Meter),
    /// The delivery is done, or can never be.
    Delivered(bool),
    /// Packets that were picked for the file cannot be read.
    CannotGive,
    /// From above.
    Told(Down),
    /// The store answers on a record of the host's own.
    Stored(Key, held::Answer<Record>),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is carried out at once and never kept")]
pub enum Effect {
    /// Write this to the host's own disk; answered by [`Input::Kept`] or [`Input::KeepFailed`].
    Keep(Box<Local>),
    /// Capture, with this budget (none is without limit); answered by [`Input::Attached`] or [`Input::NotAttached`].
    Attach {
        /// What may be used.
        budget: Option<Amount>,
        /// For so long at most.
        remaining: Duration,
    },
    /// Raise the budget.
    Raise(Amount),
    /// Lower the budget; answered by [`Input::Reclaimed`], before which nothing is told.
    Lower(Reclaim),
    /// Sample at this level from now on: one in `one_in << level`.
    Level(u8),
    /// Let it go; answered by [`Input::Detached`].
    Detach(Ended),
    /// Bring the files to the customer's bucket; answered by [`Input::Delivered`].
    Deliver,
    /// Tell the lead or the host that speaks for the data center.
    Send(Up),
    /// On a record of the host's own in the fleet's store: its part, or a chunk of its sample.
    Store(Key, held::Op<Record>),
    /// What was kept of its packets can go. The note that it was accepted stays.
    Forget,
}

/// What the host's own disk knows of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// As it was accepted.
    pub assignment: Assignment,
    /// Its place in the capture's list.
    pub host: Host,
    /// Once it is refused, or its counts are final.
    pub part: Option<Part>,
    /// Packets of a simple capture.
    pub kept: Option<Kept>,
    /// Nothing is left to do; only that it was accepted is still to be known.
    pub is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Accepting,
    Attaching,
    Running,
    Ending,
    Noting,
    Delivering,
    Waiting,
    Gone,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Member {
    settings: Settings,
    host: Host,
    assignment: Assignment,
    state: State,
    holding: Option<Holding>,
    kept: Option<Kept>,
    part: Part,
    news: News,
    pack: Pack,
    reached: Option<Reached>,
    /// When the window is over, by the monotonic clock: a wall clock that steps does not end it.
    ends_at: Duration,
    /// What could not be kept is kept again then.
    keep_at: Option<Duration>,
}

impl Member {
    /// A host hears of a capture for the first time. `boot` is larger after each of its restarts. None if the capture is not for this
    /// host, or is stopped or over. A host by whose clock the window is over says so.
    #[must_use]
    pub fn accept(
        assignment: Assignment,
        me: &Identity,
        boot: Epoch,
        settings: Settings,
        now: Now,
    ) -> Option<(Self, Vec<Effect>)> {
        if assignment.rules != RULES {
            return Self::refused(assignment, me, boot, Refusal::Rules, settings, now);
        }
        if now.wall >= assignment.window.end {
            return Self::refused(assignment, me, boot, Refusal::Clock, settings, now);
        }
        let mut member = Self::assigned_to(assignment, me, boot, settings, now)?;
        if let Kind::Full { limit: Some(limit) } = member.assignment.kind {
            member.holding = Some(Holding::new(member.first_share(), limit, boot, settings));
        }
        member.kept = member.sampling();
        let keep = Effect::Keep(Box::new(member.local(false)));
        Some((member, vec![keep]))
    }

    /// The host does not take the capture, and says so once that is on its disk: a restart must not take what was refused, because
    /// its share is dealt to others. None if the capture is not for this host, or is over anyway.
    #[must_use]
    pub fn refused(
        assignment: Assignment,
        me: &Identity,
        boot: Epoch,
        why: Refusal,
        settings: Settings,
        now: Now,
    ) -> Option<(Self, Vec<Effect>)> {
        let mut member = Self::assigned_to(assignment, me, boot, settings, now)?;
        member.refuse(why);
        let effects = member.keep();
        Some((member, effects))
    }

    /// After a restart: what the disk knew. `meter` is what was durable of a capture that had not ended by then.
    #[must_use]
    pub fn recovered(local: Local, boot: Epoch, settings: Settings, meter: &Meter) -> (Self, Vec<Effect>) {
        let mut member = Self::new(local.assignment, local.host, boot, settings);
        member.kept = local.kept;
        if let Kind::Full { limit: Some(limit) } = member.assignment.kind {
            // Nothing is used any more, so what was granted does not matter; the lead knows it.
            member.holding = Some(Holding::new(Amount::NONE, limit, boot, settings));
        }
        let effects = match local.part {
            Some(part) if local.is_gone => {
                (member.part, member.state) = (part, State::Gone);
                Vec::new()
            }
            Some(part) => {
                member.part = Part { epoch: boot, version: first_number(boot) + 1, ..part };
                let round = member.part.sample.as_ref().map(|given| given.round);
                let asked = member.assignment.quotas.as_ref().map(|quotas| quotas.round);
                match (round.filter(|_| round == asked), member.picked()) {
                    // Chunks may not be durable yet.
                    (Some(round), Some(packets)) => member.give_packets(round, packets),
                    _ => member.part.sample = None,
                }
                member.note()
            }
            None => {
                member.part.is_interrupted = true;
                member.kept = member.sampling();
                member.count(meter)
            }
        };
        (member, effects)
    }

    /// None if it is not for this host, or nobody is to begin any more.
    fn assigned_to(
        assignment: Assignment,
        me: &Identity,
        boot: Epoch,
        settings: Settings,
        now: Now,
    ) -> Option<Self> {
        let host = assignment.hosts.iter().find(|assigned| assigned.identity == *me)?.host;
        if assignment.is_stopped || assignment.is_over || assignment.is_final {
            return None;
        }
        let mut member = Self::new(assignment, host, boot, settings);
        // A clock that is behind does not make the window longer.
        let window = member.assignment.window;
        let length = window.end.saturating_sub(window.start);
        member.ends_at = now.mono.saturating_add(window.end.saturating_sub(now.wall).min(length));
        Some(member)
    }

    fn new(assignment: Assignment, host: Host, boot: Epoch, settings: Settings) -> Self {
        let part = Part {
            epoch: boot,
            host,
            version: first_number(boot),
            stage: Stage::Running,
            refusal: None,
            is_interrupted: false,
            tally: Tally::default(),
            counts: None,
            sample: None,
        };
        Self {
            settings,
            host,
            state: State::Accepting,
            holding: None,
            kept: None,
            part,
            news: News::new(assignment.is_branched, boot),
            pack: Pack::new(boot),
            assignment,
            reached: None,
            ends_at: Duration::ZERO,
            keep_at: None,
        }
    }

    fn first_share(&self) -> Amount {
        let mut hosts = self.assignment.hosts.iter();
        hosts.find(|assigned| assigned.host == self.host).map_or(Amount::NONE, |assigned| assigned.share)
    }

    /// What a simple capture begins with.
    fn sampling(&self) -> Option<Kept> {
        let Kind::Simple { packets, one_in } = self.assignment.kind else { return None };
        let tags = Hashed { seed: self.assignment.seed, host: self.host };
        Some(Kept::new(tags, cap(packets), level_max(one_in)))
    }

    fn refuse(&mut self, why: Refusal) {
        self.part.refusal = Some(why);
        self.advance(Stage::Refused);
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether all that this host can say by itself is durable in the fleet's store: a simple part says more once it is asked.
    #[must_use]
    pub fn is_told(&self) -> bool {
        let least = if matches!(self.assignment.kind, Kind::Simple { .. }) {
            Stage::Counted
        } else {
            Stage::Delivered
        };
        self.is_gone() || (self.part.stage >= least && self.news.is_durable(&self.part))
    }

    /// How far the part is, for heartbeats.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.part.stage
    }

    /// One input; what is to be done about it.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = match (input, self.state) {
            (Input::Assigned(assignment), _) => self.assigned(assignment, now),
            (Input::Kept, State::Accepting) => self.attach(now),
            (Input::Kept, State::Noting) => self.note(),
            (Input::KeepFailed, State::Accepting) => {
                self.refuse(Refusal::Disk);
                self.keep_again(now)
            }
            (Input::KeepFailed, State::Noting) => self.keep_again(now),
            (Input::NotAttached, State::Attaching) => self.fail(),
            (Input::CannotGive, State::Waiting) if self.part.stage == Stage::Counted => self.fail(),
            (Input::Attached, State::Attaching) => {
                self.state = State::Running;
                if !matches!(self.assignment.kind, Kind::Simple { .. }) {
                    self.part.version += 1;
                }
                Vec::new()
            }
            // Counts that came since the last turn count in whatever order a host hears that it is attached.
            (Input::Turn(meter), State::Attaching | State::Running | State::Ending) => self.turn(&meter, now),
            (Input::Reclaimed { round, taken, used }, _) => {
                if let Some(holding) = &mut self.holding {
                    holding.reclaimed(round, taken, used);
                }
                Vec::new()
            }
            // Also by itself: a spool that is full, or a process that is asked to end.
            (Input::Detached(meter), State::Running | State::Ending) => self.count(&meter),
            (Input::Delivered(is_there), State::Delivering) => {
                self.advance(if is_there { Stage::Delivered } else { Stage::Failed });
                self.keep()
            }
            (Input::Told(down), _) => self.told(down),
            (Input::Stored(Key::Chunk(_, chunk), answer), _) => {
                self.pack.answered(chunk, answer, now, self.settings.backoff);
                Vec::new()
            }
            (Input::Stored(_, answer), _) => {
                self.news.answered(answer, now, self.settings.backoff);
                Vec::new()
            }
            _ => Vec::new(),
        };
        effects.extend(self.due(now));
        effects.extend(self.leave());
        effects
    }

    fn attach(&mut self, now: Now) -> Vec<Effect> {
        self.state = State::Attaching;
        let budget = self.holding.as_ref().map(Holding::granted);
        vec![Effect::Attach { budget, remaining: self.ends_at.saturating_sub(now.mono) }]
    }

    /// What it has, if anything, cannot be brought to anybody.
    fn fail(&mut self) -> Vec<Effect> {
        self.part.sample = None;
        self.advance(Stage::Failed);
        self.keep()
    }

    fn keep_again(&mut self, now: Now) -> Vec<Effect> {
        self.state = State::Noting;
        self.keep_at = Some(now.mono + self.settings.backoff);
        Vec::new()
    }

    /// An assignment only gains flags, so an older one than was seen says nothing.
    fn assigned(&mut self, assignment: Assignment, now: Now) -> Vec<Effect> {
        if assignment.serial <= self.assignment.serial {
            return Vec::new();
        }
        self.assignment = assignment;
        let mut effects = self.ends(now);
        effects.extend(self.give());
        effects
    }

    /// Ends the part once nothing is asked any more and all that there is to say is durable. A delivery that is under way goes on first.
    fn leave(&mut self) -> Vec<Effect> {
        // Packets that are not given by now are wanted no more.
        let is_told = self.news.is_durable(&self.part) || !self.pack.is_durable();
        if !self.assignment.is_final || self.state != State::Waiting || !is_told {
            return Vec::new();
        }
        self.state = State::Gone;
        let local = Local { is_gone: true, kept: None, ..self.local(true) };
        vec![Effect::Keep(Box::new(local)), Effect::Forget]
    }

    fn turn(&mut self, meter: &Meter, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(holding) = &mut self.holding {
            holding.turn(meter, now);
        }
        if let Some(kept) = &mut self.kept {
            for (stream, level, packets) in &meter.kept {
                kept.took(*stream, *level, *packets);
            }
            if kept.settle() {
                effects.push(Effect::Level(kept.level()));
            }
        }
        effects.extend(self.ends(now));
        effects
    }

    fn ends(&mut self, now: Now) -> Vec<Effect> {
        let why = if let Some(reached) = self.reached {
            Ended::Limit(reached)
        } else if self.assignment.is_stopped || self.assignment.is_final {
            Ended::Stopped
        } else if self.assignment.is_over || now.mono >= self.ends_at {
            Ended::Time
        } else {
            return Vec::new();
        };
        if self.state != State::Running {
            return Vec::new();
        }
        self.state = State::Ending;
        vec![Effect::Detach(why)]
    }

    fn told(&mut self, down: Down) -> Vec<Effect> {
        match down {
            Down::Noted { version } => self.news.noted(version),
            Down::Granted { granted, reached } => {
                self.reached = self.reached.or(reached);
                return self.raise(granted);
            }
            Down::Recall { round, is_hard, granted } => {
                let is_old = self.holding.as_ref().is_some_and(|holding| holding.is_old(round, granted));
                let mut effects = self.raise(granted);
                let Some(holding) = &mut self.holding else { return effects };
                if self.state == State::Running && !is_old {
                    effects.push(Effect::Lower(holding.recall(round, is_hard)));
                } else {
                    // Before the workers have it and after they let it go, there is nothing to lower that is not told anyway.
                    holding.repeat();
                }
                return effects;
            }
        }
        Vec::new()
    }

    fn raise(&mut self, granted: Amount) -> Vec<Effect> {
        let is_running = self.state == State::Running;
        let Some(holding) = self.holding.as_mut().filter(|_| is_running) else { return Vec::new() };
        let more = holding.grant(granted);
        if more.is_none() { Vec::new() } else { vec![Effect::Raise(more)] }
    }

    /// Counts are final.
    fn count(&mut self, meter: &Meter) -> Vec<Effect> {
        self.advance(Stage::Counted);
        self.part.tally = Tally {
            matched: meter.offered.packets,
            captured: meter.used,
            share: meter.offered.packets.saturating_sub(meter.used.packets).saturating_sub(meter.lost),
            sampled: 0,
            lost: meter.lost,
        };
        if let Some(kept) = &mut self.kept {
            for (stream, level, packets) in &meter.kept {
                kept.took(*stream, *level, *packets);
            }
            kept.settle();
            let counts = kept.counts(meter.offered.packets);
            let captured = Amount::new(counts.at(counts.level), 0);
            let sampled = meter.offered.packets.saturating_sub(captured.packets).saturating_sub(meter.lost);
            self.part.tally =
                Tally { matched: meter.offered.packets, captured, share: 0, sampled, lost: meter.lost };
            self.part.counts = Some(counts);
        }
        self.keep()
    }

    /// What is to be told goes to the disk first, so that a restart never says less than was said.
    fn keep(&mut self) -> Vec<Effect> {
        self.state = State::Noting;
        self.keep_at = None;
        vec![Effect::Keep(Box::new(self.local(true)))]
    }

    /// The part is on the disk: now others may hear of it.
    fn note(&mut self) -> Vec<Effect> {
        if let Some(holding) = &mut self.holding {
            holding.end(self.part.tally.captured);
        }
        if matches!(self.assignment.kind, Kind::Full { .. }) && self.part.stage == Stage::Counted {
            self.state = State::Delivering;
            return vec![Effect::Deliver];
        }
        self.state = State::Waiting;
        self.give()
    }

    /// Gives the quota that is asked for, once for each round.
    fn give(&mut self) -> Vec<Effect> {
        let asked = self.assignment.quotas.as_ref().map_or(0, |quotas| quotas.round);
        let is_given = self.part.sample.as_ref().is_some_and(|given| given.round >= asked);
        if self.state != State::Waiting || self.part.stage != Stage::Counted || is_given {
            return Vec::new();
        }
        let Some(packets) = self.picked() else { return Vec::new() };
        self.give_packets(asked, packets);
        self.part.version += 1;
        self.keep()
    }

    fn give_packets(&mut self, round: u32, packets: Vec<Packet>) {
        let settings = self.settings;
        let most = if self.assignment.is_branched { settings.chunk_branched } else { settings.chunk };
        self.part.sample = Some(self.pack.give(round, packets, most, settings.chunk));
    }

    /// The packets of the quota: the same ones after a restart.
    fn picked(&self) -> Option<Vec<Packet>> {
        let (kept, quotas) = (self.kept.as_ref()?, self.assignment.quotas.as_ref()?);
        let place = self.assignment.hosts.iter().position(|assigned| assigned.host == self.host)?;
        let quota = quotas.of.get(place).copied().flatten().filter(|quota| *quota > 0)?;
        let mut dice = Chance::new(&[self.assignment.seed, u64::from(self.host), u64::from(quotas.round)]);
        Some(kept.pick(&mut dice, quotas.level, quota))
    }

    fn advance(&mut self, stage: Stage) {
        self.part.stage = stage;
        self.part.version += 1;
    }

    fn local(&self, is_counted: bool) -> Local {
        Local {
            assignment: self.assignment.clone(),
            host: self.host,
            part: is_counted.then(|| self.part.clone()),
            kept: self.kept.clone().filter(|_| is_counted),
            is_gone: false,
        }
    }

    /// What is to be told, as far as it is due.
    fn due(&mut self, now: Now) -> Vec<Effect> {
        if self.keep_at.is_some_and(|at| now.mono >= at) {
            return self.keep();
        }
        // What is not on the disk is told to nobody.
        if matches!(self.state, State::Accepting | State::Attaching | State::Noting | State::Gone) {
            return Vec::new();
        }
        if self.assignment.is_final {
            // Nobody gathers parts any more: a late one goes to the store by itself.
            self.news.go_alone(&self.part);
        }
        if !self.pack.is_durable() {
            return self.pack.due(self.host, now).into_iter().collect();
        }
        let mut effects = self.news.due(&self.part, now, self.settings);
        let report: Option<Report> = self.holding.as_mut().and_then(|holding| holding.report(now));
        effects.extend(report.map(|report| Effect::Send(Up::Share(report))));
        effects
    }
}
