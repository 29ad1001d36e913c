//! Which life of a host this is. Owns taking a number for it in the registry by compare-and-set; who else is registered is the lead's.
//!
//! A disk that is brought back from a copy, or that is copied to a second machine, remembers a number that was given out. So a number
//! counts only once the registry has it, and a host accepts captures only with one. Of two machines with one name the later one
//! goes on, and the earlier one learns that it is over.
//!
//! Invariant: no two lives of a name get the same number, and each number is above all that its disk remembers.

use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::record::{Identity, Record, Registered, any, one};
use crate::fleet::settings::Settings;
use crate::fleet::{Colo, Epoch, Now};
use std::time::Duration;

/// One life of a host.
#[derive(Clone, Debug)]
pub struct Life {
    settings: Settings,
    identity: Identity,
    colo: Colo,
    /// Drawn by this life, so that it knows its own write whose answer was lost.
    nonce: u64,
    /// Numbers up to this one were used by its disk.
    least: Epoch,
    revision: Revision,
    seen: Option<Registered>,
    writing: Option<Registered>,
    is_known: bool,
    is_busy: bool,
    next: Duration,
    boot: Option<Epoch>,
    is_over: bool,
}

impl Life {
    /// A host starts. `least` is the largest number that its disk knows of, 0 if none.
    #[must_use]
    pub fn new(identity: Identity, colo: Colo, nonce: u64, least: Epoch, settings: Settings) -> Self {
        Self {
            settings,
            identity,
            colo,
            nonce,
            least,
            revision: Revision::default(),
            seen: None,
            writing: None,
            is_known: false,
            is_busy: false,
            next: Duration::ZERO,
            boot: None,
            is_over: false,
        }
    }

    /// Its number, once it is durable, and as long as no later life of this name is known.
    #[must_use]
    pub fn boot(&self) -> Option<Epoch> {
        self.boot.filter(|_| !self.is_over)
    }

    /// Whether another machine goes on in this name: two have the same, or one was replaced and not stopped.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) -> Option<Op<Record>> {
        if self.is_busy || self.is_over || now.mono < self.next {
            return None;
        }
        self.is_busy = true;
        let is_there = self.boot.is_some() && self.seen.is_some();
        let last = self.seen.as_ref().map_or(0, |seen| seen.boot).max(self.least);
        // After the last number that there is, this host takes no part any more.
        let number = self.boot.or_else(|| last.checked_add(1));
        let Some(boot) = number.filter(|_| self.is_known && !is_there) else {
            // Somebody may have come later.
            self.is_known = false;
            return Some(Op::Read);
        };
        let value = Registered { identity: self.identity.clone(), colo: self.colo, boot, nonce: self.nonce };
        self.writing = Some(value.clone());
        Some(any(Op::Write { expected: self.revision, value }))
    }

    /// The store answers.
    pub fn answered(&mut self, answer: Answer<Record>, now: Now) {
        self.is_busy = false;
        self.is_known = false;
        let written = self.writing.take();
        self.next = now.mono + self.settings.backoff;
        match (one::<Registered>(answer), written) {
            (Answer::Wrote(revision), Some(value)) => self.see(revision, Some(value)),
            (Answer::Read(revision, found), _) if revision >= self.revision => self.see(revision, found),
            // Somebody else wrote, this write may have landed, or the read was an old one.
            _ => {}
        }
        if self.boot.is_some() && self.seen.is_some() {
            self.next = now.mono + self.settings.takeover;
        }
    }

    fn see(&mut self, revision: Revision, found: Option<Registered>) {
        (self.revision, self.is_known) = (revision, true);
        if let Some(found) = &found {
            if found.nonce == self.nonce {
                self.boot = Some(found.boot);
            } else {
                self.is_over |= self.boot.is_some();
            }
        }
        self.seen = found;
    }
}
