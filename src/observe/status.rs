//! How the host stands, in one line for what supervises the process. Owns the words; not who hears them, nor the checks
//! (`health`).
//!
//! Invariant: the line names no account and no bucket: everybody on the host may read it.

use super::health::ready;
use super::sources::{Sources, Tried};
use crate::engine::Overview;
use crate::job::Status as CaptureStatus;
use std::sync::Arc;

/// Looks at the host.
pub struct Status {
    sources: Arc<Sources>,
    tried: Tried,
}

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a capture that is asked for now would be accepted, and would see packets.
    pub ready: bool,
    /// One line.
    pub line: String,
    /// Whether the host ends.
    pub ending: bool,
}

impl Status {
    /// Of this host.
    #[must_use]
    pub fn new(sources: Arc<Sources>) -> Self {
        Self { sources, tried: Tried::default() }
    }

    /// Looks; that takes a bounded time.
    pub async fn look(&self) -> Standing {
        let seen = self.sources.overview().await.and_then(Result::ok);
        let report = ready(&self.sources, &self.tried).await;
        let spool = self.sources.capture.as_ref().map(|capture| &capture.spool);
        let held = spool.map(|spool| (spool.held_bytes(), spool.bytes_max()));
        let ending = self.sources.is_ending();
        let not_ready = (!report.ok && !ending).then(|| report.words());
        let mut line = line(seen.as_ref(), held, not_ready, ending);
        if let Some(last) = self.sources.reloads.last() {
            line += &format!("; {last}");
        }
        Standing { ready: report.ok, line: one_line(&line), ending }
    }
}

/// `spool`: bytes held, and of the quota; none of a node that captures nothing.
fn line(
    seen: Option<&Overview>,
    spool: Option<(u64, u64)>,
    not_ready: Option<String>,
    ending: bool,
) -> String {
    let mut line = if ending { "ends: ".to_owned() } else { String::new() };
    match (seen, spool) {
        (_, None) => line += "serves the API of a fleet",
        (Some(seen), _) => {
            let runs = |status| matches!(status, CaptureStatus::Pending | CaptureStatus::Running);
            let running = seen.captures.iter().filter(|capture| runs(capture.status)).count();
            let waiting = seen.captures.len() - running;
            line += &format!("{running} captures run, {waiting} are not delivered yet");
        }
        (None, _) => line += "captures: no answer of the engine",
    }
    if let Some((held, max)) = spool {
        let percent = u128::from(held) * 100 / u128::from(max.max(1));
        line += &format!("; spool {percent} % of {} GiB", max.div_ceil(1 << 30));
    }
    if let Some(words) = not_ready {
        line += &format!("; not ready: {words}");
    }
    line
}

/// The protocol's messages are lines.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_runs_what_is_full_and_what_is_missing_and_stays_one_line() {
        let seen = Overview::default();
        assert_eq!(
            line(Some(&seen), Some((24 << 30, 200 << 30)), None, false),
            "0 captures run, 0 are not delivered yet; spool 12 % of 200 GiB"
        );
        let not_ready = Some("ports: no link:\n0000:03:00.0".to_owned());
        assert_eq!(
            one_line(&line(None, Some((0, 0)), not_ready, false)),
            "captures: no answer of the engine; spool 0 % of 0 GiB; not ready: ports: no link: 0000:03:00.0"
        );
        assert!(line(Some(&seen), Some((1, 2)), None, true).starts_with("ends: 0 captures run"));
        let away = Some("fleet: no server answers".to_owned());
        assert_eq!(
            line(None, None, away, false),
            "serves the API of a fleet; not ready: fleet: no server answers"
        );
    }
}
