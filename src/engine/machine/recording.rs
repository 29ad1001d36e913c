//! The recording that never ends. Owns when it is replaced; not the ring (`history`), nor who looks back into it.
//!
//! What is in an open segment cannot be read. So when somebody looks back at the last seconds, the recording is replaced by
//! one with another number: the workers close all segments of the old one, and the query waits until they are in the ring.
//! The place of the new one is made first, on another thread; until then the old one goes on.
//!
//! Invariant: at most one place is being made, and a recording that failed is tried again.

use super::{Effect, Machine, Now, Serial};
use std::time::Duration;

/// After a failure (quota, disk) the recording is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The recording.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// The number that workers record under; zero before the first one.
    serial: Serial,
    /// The number of the next recording, while its place is being made.
    next: Option<Serial>,
    /// When it failed.
    failed: Option<Duration>,
    began: bool,
}

impl Recording {
    /// What was received up to now is in recordings below this number, if one is to begin; otherwise up to where the ring
    /// does not lag.
    pub fn newest(&self) -> Serial {
        self.next.unwrap_or(self.serial)
    }

    pub fn is_preparing(&self) -> bool {
        self.next.is_some()
    }

    /// The next one, whose place is being made.
    pub fn next(&self) -> Option<Serial> {
        self.next
    }
}

impl Machine {
    /// Begins a recording, or replaces it; what it has so far then goes into the ring. One that is about to begin serves as
    /// well as one more.
    pub(super) fn restart_recording(&mut self, out: &mut Vec<Effect>) {
        if self.is_ending() || self.recording.as_ref().is_none_or(Recording::is_preparing) {
            return;
        }
        let serial = self.next_serial();
        if let Some(recording) = &mut self.recording {
            (recording.next, recording.began) = (Some(serial), true);
            out.push(Effect::PlaceRecording { serial });
        }
    }

    pub(super) fn recording_placed(
        &mut self,
        now: Now,
        serial: Serial,
        made: Result<(), String>,
        out: &mut Vec<Effect>,
    ) {
        let is_ending = self.is_ending();
        let Some(recording) = self.recording.as_mut().filter(|recording| recording.next == Some(serial))
        else {
            return;
        };
        recording.next = None;
        match &made {
            Ok(()) if is_ending => out.push(Effect::ForgetRecording { serial }),
            Ok(()) => {
                (recording.serial, recording.failed) = (serial, None);
                out.push(Effect::AttachRecording { serial });
            }
            Err(error) => {
                tracing::error!(error, "the history's next recording cannot begin; it is tried again");
                // If there is one, it goes on: only its newest packets cannot be looked back at yet.
                if recording.serial == 0 {
                    recording.failed = Some(now.mono);
                }
            }
        }
        self.look_backs_go_on(serial, made.is_ok(), out);
    }

    pub(super) fn recording_failed(&mut self, now: Now, serial: Serial) {
        if let Some(recording) = self.recording.as_mut().filter(|recording| recording.serial == serial) {
            recording.failed.get_or_insert(now.mono);
        }
    }

    /// Begins the first recording, and tries one that failed again.
    pub(super) fn look_after_recording(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(recording) = &mut self.recording else { return };
        let is_due = recording.failed.is_some_and(|failed| now.mono.saturating_sub(failed) >= RETRY);
        if is_due {
            recording.failed = Some(now.mono);
        }
        if is_due || !recording.began {
            self.restart_recording(out);
        }
    }
}
