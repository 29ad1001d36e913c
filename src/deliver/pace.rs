//! Captures first: how long a delivery waits before its next piece of work. Owns the decision and the time in which deliveries stood
//! back; not what presses on the host, nor the work.
//!
//! - A delivery stands back while captures press: too many of a worker's blocks wait for the disk. It goes on once they have not
//!   pressed for [`CALM`]. A worker that always finds frames is no reason while its blocks are written in time: deliveries have no
//!   part of its core, and a narrow filter on a busy link would hold them up for nothing.
//! - Deliveries that stand back still do one piece of work in each [`TRICKLE`], in turn: the one that has stood back longest is
//!   next. So with N deliveries each gets on by 10 / N MiB a second, also beside a capture that never ends.
//! - While the spool is above its high-water mark, deliveries work `share_percent` of the time although captures press. Captures
//!   that press write as fast as the disk takes it, so this comes within the time that the disk needs to fill the spool.
//!
//! Invariant: the state is a pure function of the readings and the time that it is given; nothing here is done for a packet.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Captures press no more when they have not for so long.
const CALM: Duration = Duration::from_millis(10);
/// While captures press, one delivery does one piece of work in this time: 10 MiB a second.
const TRICKLE: Duration = Duration::from_millis(100);
/// In which deliveries have their share of the time.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks of a delivery that stands back.
const LOOK: Duration = Duration::from_millis(5);
/// A reading is good for so long.
const FRESH: Duration = Duration::from_millis(1);
/// Standing back for so long is worth a line in the log.
const LONG: Duration = Duration::from_secs(10);
/// One that has not stood back for so long does so no longer.
const PAUSE: Duration = Duration::from_secs(1);
/// The spool is below its high-water mark again when it is so many percent below.
const HIGH_WATER_MARGIN: u64 = 5;

/// What presses on the host at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of the worker that has the fewest free: the blocks that wait for the disk, in percent of those that no stream is filling.
    pub waiting_percent: u64,
    /// How full the spool is, or the fullest share of an account, in percent.
    pub spool_percent: u64,
}

/// What the operator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceRules {
    /// Blocks waiting for the disk, in percent, from which on deliveries stand back; 100 for never.
    pub wait_percent: u64,
    /// Fill level of the spool, in percent, from which on deliveries have a share.
    pub high_water_percent: u64,
    /// That share, in percent of the time.
    pub share_percent: u64,
}

/// Something that the log should tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The spool passed the high-water mark.
    Shares,
    /// It is below again.
    CapturesFirst,
    /// Deliveries have stood back for [`LONG`].
    StandsBack,
    /// They go on after that.
    GoesOn,
}

#[derive(Debug, Default)]
struct State {
    /// When a reading was taken last.
    read_at: Option<Duration>,
    /// When captures pressed last, and since when without a pause of [`CALM`].
    pressed: Option<(Duration, Duration)>,
    shares: bool,
    /// When a piece of work was done last although captures pressed.
    trickled: Duration,
    /// Deliveries that stand back, by number; the least has done so longest.
    waiting: BTreeSet<u64>,
    /// The number of the last one.
    number: u64,
    /// Since when there have been some.
    waiting_since: Duration,
    /// How long there were some before that.
    stood_back: Duration,
    /// Since when they have stood back with pauses of less than [`PAUSE`], and when the last one did.
    lately: Option<(Duration, Duration)>,
    is_told: bool,
}

impl State {
    /// Takes a reading. What of it the log should tell.
    fn read(&mut self, rules: &PaceRules, now: Duration, load: Load) -> [Option<Change>; 2] {
        self.read_at = Some(now);
        let mark = rules.wait_percent;
        // Twice as many as below which they press no more.
        let mark = if self.pressed.is_some() { mark / 2 } else { mark };
        let presses = rules.wait_percent < 100 && load.waiting_percent > mark;
        match &mut self.pressed {
            Some((last, _)) if presses => *last = now,
            None if presses => self.pressed = Some((now, now)),
            Some((last, _)) if now.saturating_sub(*last) >= CALM => self.pressed = None,
            _ => {}
        }
        let low = rules.high_water_percent.saturating_sub(HIGH_WATER_MARGIN);
        let from = if self.shares { low } else { rules.high_water_percent };
        let shares = load.spool_percent >= from;
        let changed =
            (shares != self.shares).then_some(if shares { Change::Shares } else { Change::CapturesFirst });
        self.shares = shares;
        [changed, self.tell(now)]
    }

    fn tell(&mut self, now: Duration) -> Option<Change> {
        let since = self.stands_back_since(now);
        let is_over = self.pressed.is_none() || self.shares;
        match (self.is_told, since) {
            (false, Some(since)) if now.saturating_sub(since) >= LONG => {
                self.is_told = true;
                Some(Change::StandsBack)
            }
            (true, None) => {
                self.is_told = false;
                is_over.then_some(Change::GoesOn)
            }
            _ => None,
        }
    }

    /// Since when deliveries have stood back for captures that press all the time, but for the pieces of work that they may do.
    fn stands_back_since(&self, now: Duration) -> Option<Duration> {
        let (_, pressed_since) = self.pressed.filter(|_| !self.shares)?;
        let (since, last) = self.lately?;
        let is_now = !self.waiting.is_empty() || now.saturating_sub(last) < PAUSE;
        is_now.then_some(since.max(pressed_since))
    }

    /// Whether a delivery may do a piece of work now; one that stands back says its number.
    fn may_go(&mut self, rules: &PaceRules, now: Duration, number: Option<u64>) -> bool {
        if self.pressed.is_none() {
            return true;
        }
        let phase = now.as_millis() % PERIOD.as_millis();
        if self.shares && phase < u128::from(rules.share_percent) * PERIOD.as_millis() / 100 {
            return true;
        }
        let is_next = self.waiting.first().copied() == number;
        let is_due = is_next && now.saturating_sub(self.trickled) >= TRICKLE;
        if is_due {
            self.trickled = now;
        }
        is_due
    }

    /// A delivery stands back from now on; its number.
    fn enter(&mut self, now: Duration) -> u64 {
        if self.waiting.is_empty() {
            self.waiting_since = now;
            let since = self.lately.filter(|(_, last)| now.saturating_sub(*last) < PAUSE);
            self.lately = Some((since.map_or(now, |(since, _)| since), now));
        }
        self.number += 1;
        self.waiting.insert(self.number);
        self.number
    }

    fn leave(&mut self, now: Duration, number: u64) {
        self.waiting.remove(&number);
        if self.waiting.is_empty() {
            self.stood_back += now.saturating_sub(self.waiting_since);
            self.lately = self.lately.map(|(since, _)| (since, now));
        }
    }

    /// How long deliveries have stood back.
    fn stood_back(&self, now: Duration) -> Duration {
        let is_over = self.waiting.is_empty();
        self.stood_back + if is_over { Duration::ZERO } else { now.saturating_sub(self.waiting_since) }
    }
}

/// How captures and deliveries stand to each other now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaceView {
    /// How long deliveries have stood back since the process started: the time in which at least one did.
    pub stood_back: Duration,
    /// How many do now.
    pub standing_back: u64,
    /// Whether they have their share although captures press.
    pub shares: bool,
}

/// See the module.
pub struct Pace {
    rules: PaceRules,
    load: Box<dyn Fn() -> Load + Send + Sync>,
    began: Instant,
    state: Mutex<State>,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pace({:?})", self.rules)
    }
}

/// A delivery that stands back, until it is dropped.
struct Standing<'a> {
    pace: &'a Pace,
    number: u64,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let now = self.pace.now();
        self.pace.state().leave(now, self.number);
    }
}

impl Pace {
    /// A pace by these rules; `load` is read at most once a millisecond, by the one that asks.
    #[must_use]
    pub fn new(rules: PaceRules, load: impl Fn() -> Load + Send + Sync + 'static) -> Self {
        let (load, state) = (Box::new(load), Mutex::default());
        Self { rules, load, began: Instant::now(), state }
    }

    /// One at which deliveries never stand back.
    #[must_use]
    pub fn unhindered() -> Self {
        let rules = PaceRules { wait_percent: 100, high_water_percent: 100, share_percent: 100 };
        Self::new(rules, Load::default)
    }

    /// One at which deliveries stand back without end and do no piece of work.
    #[cfg(test)]
    pub(super) fn standstill() -> Self {
        let rules = PaceRules { wait_percent: 1, high_water_percent: 100, share_percent: 1 };
        let pace = Self::new(rules, || Load { waiting_percent: 100, ..Load::default() });
        pace.state().trickled = Duration::MAX;
        pace
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes a reading, if the last one is not fresh.
    fn look(&self, now: Duration) {
        if self.rules.wait_percent >= 100 {
            return;
        }
        let mut state = self.state();
        if state.read_at.is_some_and(|at| now.saturating_sub(at) < FRESH) {
            return;
        }
        let load = (self.load)();
        let changes = state.read(&self.rules, now, load);
        drop(state);
        changes.into_iter().flatten().for_each(|change| self.log(change, load));
    }

    fn may_go(&self, number: Option<u64>) -> bool {
        let now = self.now();
        self.look(now);
        self.state().may_go(&self.rules, now, number)
    }

    fn log(&self, change: Change, load: Load) {
        let Load { waiting_percent, spool_percent } = load;
        let share_percent = self.rules.share_percent;
        match change {
            Change::Shares => tracing::warn!(
                spool_percent,
                share_percent,
                "the spool is above spool.high_water_percent: deliveries have upload.share_percent of the time, also if captures then \
                 lose packets"
            ),
            Change::CapturesFirst => {
                tracing::info!(
                    spool_percent,
                    "the spool is below spool.high_water_percent: captures go first again"
                );
            }
            Change::StandsBack => tracing::info!(
                waiting_percent,
                spool_percent,
                "captures need the disk: deliveries stand back and do 10 MiB a second together, until blocks are free again or the \
                 spool is at spool.high_water_percent"
            ),
            Change::GoesOn => tracing::info!(spool_percent, "deliveries that stood back for captures go on"),
        }
    }

    /// Waits until a delivery may do its next piece of work. `waits` is called now and then as long as it does.
    pub async fn turn(&self, waits: impl Fn()) {
        if self.may_go(None) {
            return;
        }
        let now = self.now();
        let standing = Standing { pace: self, number: self.state().enter(now) };
        loop {
            waits();
            tokio::time::sleep(LOOK).await;
            if self.may_go(Some(standing.number)) {
                return;
            }
        }
    }

    /// For those who look.
    #[must_use]
    pub fn read(&self) -> PaceView {
        let now = self.now();
        self.look(now);
        let state = self.state();
        PaceView {
            stood_back: state.stood_back(now),
            standing_back: state.waiting.len() as u64,
            shares: state.shares,
        }
    }

    /// For people who look at a capture that waits for its upload.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let now = self.now();
        let since = self.state().stands_back_since(now)?;
        let seconds = now.saturating_sub(since).as_secs();
        (seconds >= LONG.as_secs()).then(|| {
            format!(
                "uploads have stood back for captures for {seconds} s: they need the disk; nothing is lost"
            )
        })
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
