//! How a part comes to the fleet's store: by the host itself, or by the host that speaks for its data center. Owns repeating it
//! until it is durable.
//!
//! Invariant: a version that is durable is never followed by an older one of the same life of the host.

use super::Effect;
use crate::fleet::held::{Answer, Held};
use crate::fleet::record::{Key, Part, Record, any, one};
use crate::fleet::settings::Settings;
use crate::fleet::{Epoch, Now, Up};
use std::time::Duration;

/// The way, and how far it came.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each part")]
pub(super) enum News {
    Store(Held<Part>),
    Branch { noted: u64, sent: Option<(u64, Duration)> },
}

impl News {
    pub fn new(is_branched: bool, boot: Epoch) -> Self {
        // Only this host writes its part, so a first life knows that none is there.
        let held = || if boot <= 1 { Held::absent(boot) } else { Held::new(boot) };
        if is_branched { Self::Branch { noted: 0, sent: None } } else { Self::Store(held()) }
    }

    pub fn answered(&mut self, answer: Answer<Record>, now: Now, backoff: Duration) {
        if let Self::Store(held) = self {
            held.answered(one(answer), now, backoff);
        }
    }

    pub fn noted(&mut self, version: u64) {
        if let Self::Branch { noted, .. } = self {
            *noted = (*noted).max(version);
        }
    }

    /// Whether all that the part says is durable.
    pub fn is_durable(&self, part: &Part) -> bool {
        match self {
            Self::Store(held) => held.is_own() && held.value().is_some_and(|own| own.version >= part.version),
            Self::Branch { noted, .. } => *noted >= part.version,
        }
    }

    /// From now on the host writes what is not durable itself.
    pub fn go_alone(&mut self, part: &Part) {
        if matches!(self, Self::Branch { .. }) && !self.is_durable(part) {
            *self = Self::Store(Held::new(part.epoch));
        }
    }

    pub fn due(&mut self, part: &Part, now: Now, settings: Settings) -> Vec<Effect> {
        // The first version of each life says nothing yet.
        if part.version as u32 == 0 {
            return Vec::new();
        }
        match self {
            Self::Store(held) => {
                if let Some(read) = held.poll(now) {
                    return vec![Effect::Store(Key::Part(part.host), any(read))];
                }
                let durable = held.value().map_or(0, |part| part.version);
                if held.is_ready() && durable < part.version {
                    return vec![Effect::Store(Key::Part(part.host), any(held.write(part.clone())))];
                }
                Vec::new()
            }
            Self::Branch { noted, sent } => {
                let is_sent = sent.is_some_and(|(version, at)| {
                    version == part.version && now.mono < at + 4 * settings.resend
                });
                if *noted >= part.version || is_sent {
                    return Vec::new();
                }
                *sent = Some((part.version, now.mono));
                vec![Effect::Send(Up::Part(Box::new(part.clone())))]
            }
        }
    }
}
