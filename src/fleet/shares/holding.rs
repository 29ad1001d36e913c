//! What one host holds of a limit. Owns what to ask for and what to give back; the budget that workers take from is the data
//! plane's, which is told by how much to raise it and says by how much it could be lowered.
//!
//! Invariant: granted − returned is never less than what the budget has given and may still give: the budget is raised after
//! `granted`, and lowered before `returned`.

use super::{Amount, Report, UNLIMITED};
use crate::fleet::settings::Settings;
use crate::fleet::{Epoch, Now, first_number};
use std::time::Duration;

/// What the data plane has counted, cumulative but for the refused frame and the kept packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Matching frames.
    pub offered: Amount,
    /// Of those, captured.
    pub used: Amount,
    /// Matching frames that were lost for another reason than a share: no block, a full spool, an error, after the end of the limit.
    pub lost: u64,
    /// Captured length of the smallest frame that found no share since the last turn.
    pub refused: Option<u32>,
    /// Of a simple capture: packets that sampling kept since the last turn, by stream and the level that they were sampled at.
    pub kept: Vec<(u16, u8, u64)>,
}

/// Lower the budget to `keep` at most; answered with how much it was lowered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// The round that this answers.
    pub round: u64,
    /// What may stay.
    pub keep: Amount,
}

/// A host's end of escrow.
#[derive(Clone, Debug)]
pub struct Holding {
    settings: Settings,
    /// Of the whole fleet: only what it does not limit is never asked for.
    limit: Amount,
    granted: Amount,
    returned: Amount,
    used: Amount,
    offered: Amount,
    /// Matching packets and bytes a second, lately.
    rate: (f64, f64),
    turned: Option<Duration>,
    refused: Option<u32>,
    recalled: u64,
    /// Times that the budget is to be lowered and is not yet, and the last round that was answered meanwhile.
    lowering: u32,
    lowered: u64,
    at: u64,
    sent: Option<(Duration, bool)>,
    /// A report is due whatever is held: a recall is to be answered.
    is_due: bool,
    is_final: bool,
}

impl Holding {
    /// With a first share of the fleet's limit; `boot` is larger after each restart of the host.
    #[must_use]
    pub fn new(first: Amount, limit: Amount, boot: Epoch, settings: Settings) -> Self {
        Self {
            settings,
            limit,
            granted: first,
            returned: Amount::NONE,
            used: Amount::NONE,
            offered: Amount::NONE,
            rate: (0.0, 0.0),
            turned: None,
            refused: None,
            recalled: 0,
            lowering: 0,
            lowered: 0,
            at: first_number(boot),
            sent: None,
            is_due: false,
            is_final: false,
        }
    }

    /// All that was granted; by how much the budget is to be raised.
    #[must_use]
    pub fn grant(&mut self, granted: Amount) -> Amount {
        let more = granted.max(self.granted).minus(self.granted);
        self.granted = self.granted.plus(more);
        if !more.is_none() {
            self.sent = None;
        }
        more
    }

    fn unused(&self) -> Amount {
        self.granted.minus(self.returned).minus(self.used)
    }

    /// A turn of the data plane.
    pub fn turn(&mut self, meter: &Meter, now: Now) {
        let passed = self.turned.map_or(0.0, |turned| now.mono.saturating_sub(turned).as_secs_f64());
        if passed > 0.0 {
            let more = meter.offered.minus(self.offered);
            let weight = (passed / RATE_SECONDS).min(1.0);
            self.rate.0 += weight * (more.packets as f64 / passed - self.rate.0);
            self.rate.1 += weight * (more.bytes as f64 / passed - self.rate.1);
        }
        self.turned = Some(now.mono);
        self.offered = meter.offered;
        self.used = meter.used;
        // A frame that found no share is in need until there is room for it, not only until the next turn: at a few packets a second
        // the answer to a recall would say otherwise, and no limit would ever be closed.
        let waits = self.refused.filter(|length| !Amount::new(1, u64::from(*length)).fits(self.unused()));
        self.refused = match (waits, meter.refused) {
            (Some(before), Some(new)) => Some(before.min(new)),
            (before, new) => before.or(new),
        };
    }

    fn in_time(&self, time: Duration) -> Amount {
        let of = |rate: f64| (rate * time.as_secs_f64()) as u64;
        Amount::new(of(self.rate.0), of(self.rate.1))
    }

    fn needs(&self) -> Option<Amount> {
        let frame = Amount::new(1, u64::from(self.refused?));
        let needs = frame.minus(self.unused());
        (!needs.is_none()).then_some(needs)
    }

    /// What is missing to the reserve; nothing while more than half of it is there, or while no packet comes.
    fn wants(&self, is_dry: bool) -> Amount {
        let reserve = self.in_time(self.settings.reserve);
        if reserve.is_none() && !is_dry && !self.granted.is_none() {
            return Amount::NONE;
        }
        let target = reserve.max(FIRST_WANT);
        let unused = self.unused();
        let of = |target: u64, unused: u64, limit: u64| {
            let is_low = is_dry || unused < target / 2;
            if is_low && limit != UNLIMITED { target.saturating_sub(unused) } else { 0 }
        };
        Amount::new(
            of(target.packets, unused.packets, self.limit.packets),
            of(target.bytes, unused.bytes, self.limit.bytes),
        )
    }

    /// Whether a recall is one that was answered, or was sent before a grant that is here: it takes nothing back any more.
    #[must_use]
    pub fn is_old(&self, round: u64, granted: Amount) -> bool {
        round < self.recalled
            || (round == self.recalled && self.granted == granted)
            || !self.granted.fits(granted)
    }

    /// A recall. What was granted comes with it, so that an overtaken grant is in the answer.
    #[must_use]
    pub fn recall(&mut self, round: u64, is_hard: bool) -> Reclaim {
        let keep = if is_hard { Amount::NONE } else { self.in_time(self.settings.keep) };
        // What is not limited is not asked for again, so it stays.
        let of = |keep: u64, limit: u64| if limit == UNLIMITED { UNLIMITED } else { keep };
        let keep = Amount::new(of(keep.packets, self.limit.packets), of(keep.bytes, self.limit.bytes));
        self.lowering = self.lowering.saturating_add(1);
        Reclaim { round, keep }
    }

    /// The budget was lowered by this, with these counts afterwards. A round is answered once nothing is being lowered any more: a
    /// recall that came twice finds nothing left, and its answer may overtake the one that says what was taken.
    pub fn reclaimed(&mut self, round: u64, taken: Amount, used: Amount) {
        self.returned = self.returned.plus(taken);
        self.used = self.used.max(used);
        self.lowered = self.lowered.max(round);
        self.lowering = self.lowering.saturating_sub(1);
        if self.lowering == 0 {
            self.recalled = self.recalled.max(self.lowered);
            self.is_due = true;
        }
    }

    /// Nothing is captured any more; this much is in the files.
    pub fn end(&mut self, used: Amount) {
        self.used = used;
        self.is_final = true;
        self.is_due = true;
    }

    /// All that was granted, returned or not.
    #[must_use]
    pub fn granted(&self) -> Amount {
        self.granted
    }

    /// What is captured.
    #[must_use]
    pub fn used(&self) -> Amount {
        self.used
    }

    /// What is due to be told.
    pub fn report(&mut self, now: Now) -> Option<Report> {
        let needs = if self.is_final { None } else { self.needs() };
        let is_dry = needs.is_some();
        let wants = if self.is_final { Amount::NONE } else { self.wants(is_dry) };
        let asks = is_dry || !wants.is_none();
        // A host that becomes dry does not wait for the answer to its last ask.
        let is_repeat = self
            .sent
            .is_some_and(|(sent, was_dry)| was_dry >= is_dry && now.mono < sent + self.settings.resend);
        if !self.is_due && (!asks || is_repeat) {
            return None;
        }
        self.is_due = false;
        self.sent = Some((now.mono, is_dry));
        self.at += 1;
        Some(Report {
            at: self.at,
            granted: self.granted,
            returned: self.returned,
            used: self.used,
            wants,
            needs,
            recalled: self.recalled,
            is_final: self.is_final,
        })
    }

    /// The last report again, until it is known to have arrived.
    pub fn repeat(&mut self) {
        self.is_due = true;
    }
}

/// How long a rate is looked at.
const RATE_SECONDS: f64 = 1.0;
/// What a host asks for that has seen no packet yet.
const FIRST_WANT: Amount = Amount::new(64, 64 * 1514);
