//! What becomes of a port while the host runs: its link, its frames, the times at which its device was away. Owns when something is
//! worth a line in the log; reads nothing, and has no clock.
//!
//! Invariant: one line for each change, however often it is looked at.

use std::time::Duration;

/// A link that is not up by then is told of: autonegotiation takes some seconds.
const LINK_TIME_MAX: Duration = Duration::from_secs(5);

/// What is seen of a port at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Whether its device is there and polled.
    pub is_there: bool,
    /// Whether its link is up.
    pub link_up: bool,
    /// Frames that workers received of it since the start.
    pub received: u64,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    LinkUp,
    NoLink,
    LinkLost,
    /// The link has been up for so long and no frame came.
    Quiet(Duration),
    /// After so long a frame came.
    NotQuiet(Duration),
    Away,
    /// After so long.
    Back(Duration),
}

/// A port's life so far.
#[derive(Clone, Debug)]
pub(super) struct Life {
    quiet_max: Duration,
    since: Duration,
    link_up: Option<bool>,
    link_changes: u64,
    received: u64,
    /// Since when the link is up without a frame.
    quiet_since: Option<Duration>,
    is_quiet_told: bool,
    away_since: Option<Duration>,
    gaps: u64,
    gap_before: Duration,
    now: Duration,
}

impl Life {
    /// Of a port that was started now. A link without a frame is told of after `quiet_max`.
    pub fn new(now: Duration, quiet_max: Duration) -> Self {
        Self {
            quiet_max,
            since: now,
            link_up: None,
            link_changes: 0,
            received: 0,
            quiet_since: None,
            is_quiet_told: false,
            away_since: None,
            gaps: 0,
            gap_before: Duration::ZERO,
            now,
        }
    }

    /// Takes note of what is seen, and says what is new.
    pub fn turn(&mut self, now: Duration, seen: Seen) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.now = now;
        self.presence(seen.is_there, &mut notices);
        if seen.is_there {
            self.link(seen.link_up, &mut notices);
        }
        self.frames(seen, &mut notices);
        notices
    }

    fn presence(&mut self, is_there: bool, notices: &mut Vec<Notice>) {
        match (is_there, self.away_since) {
            (false, None) => {
                (self.away_since, self.link_up, self.since) = (Some(self.now), None, self.now);
                self.gaps += 1;
                notices.push(Notice::Away);
            }
            (true, Some(since)) => {
                let away = self.now.saturating_sub(since);
                self.gap_before += away;
                (self.away_since, self.since) = (None, self.now);
                notices.push(Notice::Back(away));
            }
            _ => {}
        }
    }

    fn link(&mut self, is_up: bool, notices: &mut Vec<Notice>) {
        match (self.link_up, is_up) {
            (None, false) if self.now.saturating_sub(self.since) < LINK_TIME_MAX => return,
            (None, false) => notices.push(Notice::NoLink),
            (None | Some(false), true) => notices.push(Notice::LinkUp),
            (Some(true), false) => notices.push(Notice::LinkLost),
            (Some(_), _) => return,
        }
        self.link_changes += u64::from(self.link_up.is_some());
        self.link_up = Some(is_up);
    }

    fn frames(&mut self, seen: Seen, notices: &mut Vec<Notice>) {
        let came = seen.received != self.received;
        self.received = seen.received;
        let since = *self.quiet_since.get_or_insert(self.now);
        let quiet = self.now.saturating_sub(since);
        if came || !seen.is_there || !seen.link_up {
            if came && self.is_quiet_told {
                notices.push(Notice::NotQuiet(quiet));
            }
            (self.quiet_since, self.is_quiet_told) = (Some(self.now), false);
        } else if quiet >= self.quiet_max && !self.is_quiet_told {
            self.is_quiet_told = true;
            notices.push(Notice::Quiet(quiet));
        }
    }

    /// How long the link is up without a frame.
    pub fn quiet(&self) -> Duration {
        self.quiet_since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since))
    }

    /// Times that the link went up or down.
    pub fn link_changes(&self) -> u64 {
        self.link_changes
    }

    /// Times that the device was away.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// How long, all of them.
    pub fn gap(&self) -> Duration {
        self.gap_before + self.away_since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Seen = Seen { is_there: true, link_up: true, received: 0 };
    const DOWN: Seen = Seen { link_up: false, ..UP };
    const AWAY: Seen = Seen { is_there: false, link_up: false, received: 0 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is told at each second.
    fn told(seen: &[Seen]) -> (Life, Vec<(u64, Notice)>) {
        let mut life = Life::new(Duration::ZERO, seconds(10));
        let told = (0..).zip(seen).flat_map(|(at, seen)| {
            life.turn(seconds(at), *seen).into_iter().map(move |notice| (at, notice)).collect::<Vec<_>>()
        });
        let told = told.collect();
        (life, told)
    }

    #[test]
    fn a_link_that_comes_late_is_waited_for_and_told_once() {
        let (life, notices) = told(&[DOWN, DOWN, UP, UP]);
        assert_eq!(notices, [(2, Notice::LinkUp)]);
        assert_eq!(life.link_changes(), 0, "it was never up before");
        let (life, notices) = told(&[DOWN, DOWN, DOWN, DOWN, DOWN, DOWN, DOWN, UP]);
        assert_eq!(notices, [(5, Notice::NoLink), (7, Notice::LinkUp)]);
        assert_eq!(life.link_changes(), 1);
    }

    #[test]
    fn each_change_of_the_link_is_told_and_counted_once() {
        let (life, notices) = told(&[UP, UP, DOWN, DOWN, UP, UP, DOWN]);
        let expected =
            [(0, Notice::LinkUp), (2, Notice::LinkLost), (4, Notice::LinkUp), (6, Notice::LinkLost)];
        assert_eq!((notices.as_slice(), life.link_changes()), (&expected[..], 3));
    }

    #[test]
    fn a_port_that_hears_nothing_is_told_of_once_and_again_after_a_frame() {
        let mut seen = vec![UP; 13];
        seen.extend([Seen { received: 1, ..UP }; 12]);
        let (life, notices) = told(&seen);
        let expected = [
            (0, Notice::LinkUp),
            (10, Notice::Quiet(seconds(10))),
            (13, Notice::NotQuiet(seconds(13))),
            (23, Notice::Quiet(seconds(10))),
        ];
        assert_eq!((notices.as_slice(), life.quiet()), (&expected[..], seconds(11)));
    }

    #[test]
    fn without_a_link_nobody_expects_frames() {
        let (life, notices) = told(&[[UP].as_slice(), &[DOWN; 30]].concat());
        assert_eq!(notices, [(0, Notice::LinkUp), (1, Notice::LinkLost)]);
        assert_eq!(life.quiet(), Duration::ZERO);
    }

    #[test]
    fn a_device_that_is_away_is_a_gap_of_a_length_and_its_link_is_new_when_it_is_back() {
        let (life, notices) = told(&[UP, AWAY, AWAY, AWAY, DOWN, UP, AWAY]);
        let expected = [
            (0, Notice::LinkUp),
            (1, Notice::Away),
            (4, Notice::Back(seconds(3))),
            (5, Notice::LinkUp),
            (6, Notice::Away),
        ];
        assert_eq!(notices, expected);
        assert_eq!((life.gaps(), life.gap()), (2, seconds(3)));
        let mut life = life;
        life.turn(seconds(8), AWAY);
        assert_eq!((life.gaps(), life.gap()), (2, seconds(5)), "the gap that goes on counts");
    }
}
