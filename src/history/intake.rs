//! The thread that brings one recording's published segments into the ring. Owns the recording's end, and when a segment
//! that cannot be taken in is tried again.
//!
//! Invariant: when a recording is closed, all that it published is in the ring or was reported as lost. A segment that is lost
//! stays in the recording's directory, and the next start takes it in.

use super::{Entry, History};
use crate::spool::{Input, Listener, Segment};
use crate::worker::Sample;
use crossbeam::channel::RecvTimeoutError;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the ring is trimmed by age while nothing arrives, and a recording is looked at that should be over.
const TURN: Duration = Duration::from_secs(5);
/// How long a segment that cannot be taken in is tried again.
const RETRY: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a recording that was replaced may be silent before nobody waits for it any more.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Works until every queue has ended or the feed is gone.
pub(super) fn run(history: &History, serial: u64, queues: usize, told: &Listener) {
    let mut intake = Intake::new(history, serial, queues, Instant::now());
    while intake.is_open() {
        let wait = intake.due.map_or(TURN, |due| due.saturating_duration_since(Instant::now()).min(TURN));
        match told.inputs().recv_timeout(wait) {
            Ok(input) => intake.take(input, Instant::now()),
            Err(RecvTimeoutError::Timeout) => history.tidy(),
            Err(RecvTimeoutError::Disconnected) => {
                intake.left = 0;
                if intake.is_open() {
                    std::thread::sleep(wait.min(PAUSE_MAX));
                }
            }
        }
        intake.turn(Instant::now());
    }
    history.spool.forget(serial);
    history.close(serial);
}

/// One recording's way into the ring.
pub(super) struct Intake<'a> {
    history: &'a History,
    serial: u64,
    /// Queues that have not ended.
    left: usize,
    /// Up to when each queue's segments are known, ns since the UNIX epoch.
    known_ns: Vec<u64>,
    waiting: VecDeque<(PathBuf, Entry)>,
    /// Since when the first of these cannot be taken in, the next pause, and when it is tried again.
    failing: Option<(Instant, Duration)>,
    due: Option<Instant>,
    heard: Instant,
    is_waited_for: bool,
}

impl<'a> Intake<'a> {
    pub fn new(history: &'a History, serial: u64, queues: usize, now: Instant) -> Self {
        let known_ns = vec![super::now_ns(); queues];
        let (waiting, failing, due) = (VecDeque::new(), None, None);
        Self {
            history,
            serial,
            left: queues,
            known_ns,
            waiting,
            failing,
            due,
            heard: now,
            is_waited_for: true,
        }
    }

    pub fn is_open(&self) -> bool {
        self.left > 0 || !self.waiting.is_empty()
    }

    pub fn take(&mut self, input: Input, now: Instant) {
        self.heard = now;
        match input {
            Input::Segment(queue, Segment { path, first_ns, last_ns, bytes, .. }) => {
                let entry = Entry {
                    first_ns,
                    last_ns,
                    queue: u16::try_from(queue).unwrap_or(u16::MAX),
                    one_in: self.history.config.sample.map_or(1, Sample::one_in),
                    number: 0,
                    bytes,
                };
                if let Some(known_ns) = self.known_ns.get_mut(queue) {
                    *known_ns = last_ns;
                }
                self.waiting.push_back((path, entry));
            }
            // When it began and ended is not known: between the segments around it.
            Input::Hole { queue, .. } => {
                let from_ns = self.known_ns.get(queue).copied().unwrap_or(0);
                self.history.miss(from_ns, super::now_ns().max(from_ns));
            }
            Input::End(_) => self.left = self.left.saturating_sub(1),
            Input::Watermark(..) | Input::Counts(_) => {}
        }
    }

    /// Takes in what waits, in order, and stops being waited for where nothing comes any more.
    pub fn turn(&mut self, now: Instant) {
        if self.due.is_none_or(|due| due <= now) {
            self.adopt(now);
        }
        let silent = now.saturating_duration_since(self.heard);
        let replaced = self.history.replaced(self.serial);
        let is_overdue = |since: Instant| now.saturating_duration_since(since) >= SILENT_MAX;
        if self.is_waited_for && silent >= SILENT_MAX && replaced.is_some_and(is_overdue) {
            self.is_waited_for = false;
            let from_ns = self.known_ns.iter().copied().min().unwrap_or(0);
            self.history.miss(from_ns, super::now_ns().max(from_ns));
            self.history.close(self.serial);
            let recording = self.serial;
            tracing::error!(
                recording,
                "a recording of the history that was replaced does not end; nobody waits for it"
            );
        }
    }

    fn adopt(&mut self, now: Instant) {
        self.due = None;
        while let Some((path, entry)) = self.waiting.front() {
            let Err(error) = self.history.adopt(path, *entry) else {
                self.failing = None;
                self.waiting.pop_front();
                continue;
            };
            let segment = path.display();
            let (since, pause) = *self.failing.get_or_insert((now, PAUSE_MIN));
            if now.saturating_duration_since(since) < RETRY {
                if pause == PAUSE_MIN {
                    tracing::warn!(%segment, %error, "a segment cannot be taken into the history; it is tried again");
                }
                self.failing = Some((since, (pause * 2).min(PAUSE_MAX)));
                self.due = Some(now + pause);
                return;
            }
            tracing::error!(%segment, %error, "a segment could not be taken into the history; the next start tries again");
            self.history.miss(entry.first_ns, entry.last_ns);
            self.waiting.pop_front();
        }
    }
}
