//! Parts of captures that another node accepted: id, time, window and share come from outside, and more of the share while they run.
//! Owns what of this host still refuses one; not the limits of accounts, which the other node has held.
//!
//! Invariant: a part is captured once, and a share is raised only while its capture may still take packets.

use super::capture::{Capture, Phase};
use super::{Effect, Machine, Now, ReplyId, Serial};
use crate::engine::adopt::Adoption;
use crate::engine::handle::Refusal;
use crate::job::{CaptureId, Job, Kind, StopReason};
use crate::matcher::Filter;
use crate::worker::{Sample, Share};
use std::time::Duration;

/// What another node decided of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Adopted {
    /// The end of its window, by the monotonic clock.
    pub ends_at: Duration,
    /// What it may use first; without limit if none.
    pub share: Option<Share>,
    /// Why it is to end, if that is said before it is attached.
    pub ended: Option<StopReason>,
}

impl Machine {
    /// `known`: whether the store has a job of this id, or why that is not known.
    pub(super) fn adopt(
        &mut self,
        now: Now,
        reply: ReplyId,
        adoption: Adoption,
        known: Result<bool, String>,
        out: &mut Vec<Effect>,
    ) {
        match self.admit_part(&adoption, known) {
            Ok((slot, filter)) => self.open_part(now, reply, adoption, (slot, filter), out),
            Err(refusal) => out.push(Effect::Created { reply, answer: Err(refusal) }),
        }
    }

    fn admit_part(
        &self,
        adoption: &Adoption,
        known: Result<bool, String>,
    ) -> Result<(usize, Filter), Refusal> {
        if self.is_ending() {
            return Err(Refusal::ShuttingDown);
        }
        if known.map_err(Refusal::Store)? || self.has(&adoption.id) {
            return Err(Refusal::Adopted(adoption.id.clone()));
        }
        self.admit_to_spool(&adoption.request.account)?;
        let filter =
            Filter::try_from(&adoption.request.filter).map_err(|e| Refusal::Filter(e.to_string()))?;
        Ok((self.free_slot()?, filter))
    }

    /// Whether a capture or look back of this id has not ended here.
    pub fn has(&self, id: &CaptureId) -> bool {
        let captures = self.captures.values().map(|capture| &capture.job.id);
        captures.chain(self.look_backs.values().map(|look| &look.job.id)).any(|other| other == id)
    }

    fn open_part(
        &mut self,
        now: Now,
        reply: ReplyId,
        adoption: Adoption,
        place: (usize, Filter),
        out: &mut Vec<Effect>,
    ) {
        let Adoption { id, request, terms, submitted, remaining, share, one_in } = adoption;
        let serial = self.next_serial();
        let one_in = one_in.filter(|_| request.kind == Kind::Simple);
        let job = Job {
            site: self.config.site.clone(),
            keys: terms.keys,
            proof: terms.proof,
            ..Job::accepted_as(id, submitted, *request, one_in)
        };
        let capture = Capture {
            adopted: Some(Adopted { ends_at: now.mono.saturating_add(remaining), share, ended: None }),
            ..Capture::new(serial, job, Phase::Opening { reply })
        };
        self.take_up(now, place, capture, out);
    }

    /// More of a share. One that comes after the end raises nothing: what was not used then is given back by the part's end.
    pub(super) fn grant(&mut self, serial: Serial, more: Share, out: &mut Vec<Effect>) {
        if self.captures.get(&serial).is_some_and(|capture| capture.has_share() && capture.may_take()) {
            out.push(Effect::Raise { serial, more });
        }
    }

    /// What is unused of a share goes back, but for `keep`.
    pub(super) fn reclaim(&mut self, serial: Serial, reply: ReplyId, keep: Share, out: &mut Vec<Effect>) {
        out.push(Effect::Lower { serial, reply, keep });
    }

    /// One in so many packets is taken from now on.
    pub(super) fn level(&mut self, serial: Serial, one_in: u32, out: &mut Vec<Effect>) {
        let level = Sample::new(one_in).map(Sample::one_in);
        let is_part = |capture: &&mut Capture| capture.adopted.is_some() && capture.may_take();
        let Some(capture) = self.captures.get_mut(&serial).filter(is_part) else { return };
        if std::mem::replace(&mut capture.job.sample_one_in, level) == level {
            return;
        }
        // Before it is attached nobody has taken a packet, and the workers are told of this level alone.
        if let Some(slot) = capture.slot.filter(|_| capture.takes_packets()) {
            out.push(Effect::Resample { serial, slot });
        }
    }

    /// The other node ends a part, for instance because the limit of all hosts is reached.
    pub(super) fn end_part(&mut self, serial: Serial, why: StopReason, out: &mut Vec<Effect>) {
        let Some(adopted) = self.captures.get_mut(&serial).and_then(|capture| capture.adopted.as_mut())
        else {
            return;
        };
        adopted.ended.get_or_insert(why);
        self.end(serial, why, out);
    }
}

impl Capture {
    /// Whether it may use what another node grants.
    pub fn has_share(&self) -> bool {
        self.adopted.is_some_and(|adopted| adopted.share.is_some())
    }

    /// Whether it takes packets or will.
    pub(super) fn may_take(&self) -> bool {
        self.takes_packets() || self.reply().is_some()
    }

    /// How long its window is when workers are told of it.
    pub fn window_left(&self, now: Duration) -> Duration {
        match self.adopted {
            Some(adopted) => adopted.ends_at.saturating_sub(now),
            None => Duration::from_secs_f64(self.job.request.time_limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::super::{Config, Input};
    use super::*;
    use crate::job::{AccountId, BucketTerms};
    use jiff::Timestamp;

    struct Bench {
        machine: Machine,
        mono: Duration,
    }

    fn packets(packets: u64) -> Share {
        Share { packets, bytes: u64::MAX }
    }

    fn adoption(id: &CaptureId) -> Adoption {
        let job = Job::sample("a", 1);
        Adoption {
            id: id.clone(),
            request: Box::new(crate::job::Request { account: AccountId("a".to_owned()), ..job.request }),
            terms: Default::default(),
            submitted: Timestamp::UNIX_EPOCH,
            remaining: Duration::from_secs(10),
            share: Some(packets(5)),
            one_in: None,
        }
    }

    impl Bench {
        fn new() -> Self {
            Self { machine: Machine::new(config()), mono: Duration::ZERO }
        }

        fn step(&mut self, input: Input) -> Vec<Effect> {
            let (mut out, wall) = (Vec::new(), Timestamp::from_second(1_795_500_000).unwrap());
            self.machine.step(Now { mono: self.mono, wall }, input, &mut out);
            out
        }

        fn adopt(&mut self, id: &CaptureId, known: Result<bool, String>) -> Vec<Effect> {
            self.step(Input::Adopt { reply: 1, adoption: Box::new(adoption(id)), known })
        }

        /// Up to its place in the spool.
        fn placing(&mut self, id: &CaptureId) -> Serial {
            assert!(matches!(self.adopt(id, Ok(false))[..], [Effect::TryDestination { .. }]));
            let serial = self.machine.last_serial;
            self.step(Input::Opened { serial, tried: Ok(BucketTerms::default()) });
            self.step(Input::Recorded { serial, version: 1 });
            serial
        }
    }

    fn refusal(effects: &[Effect]) -> &Refusal {
        let [Effect::Created { answer: Err(refusal), .. }] = effects else { panic!("{effects:?}") };
        refusal
    }

    #[test]
    fn a_part_is_started_past_the_limits_of_its_account_and_once() {
        let mut bench = Bench::new();
        let Config { full_per_account, admits, .. } = config();
        assert_eq!((full_per_account, admits), (1, 3));
        let ids: Vec<_> = (0..4).map(|_| CaptureId::random()).collect();
        bench.placing(&ids[0]);
        // Two simple captures at once.
        bench.placing(&ids[1]);
        assert_eq!(refusal(&bench.adopt(&ids[1], Ok(false))), &Refusal::Adopted(ids[1].clone()));
        assert_eq!(refusal(&bench.adopt(&ids[2], Ok(true))), &Refusal::Adopted(ids[2].clone()));
        let unknown = bench.adopt(&ids[2], Err("no answer".to_owned()));
        assert_eq!(refusal(&unknown), &Refusal::Store("no answer".to_owned()));
        bench.placing(&ids[2]);
        assert_eq!(refusal(&bench.adopt(&ids[3], Ok(false))), &Refusal::NoBlocks(3));
    }

    #[test]
    fn the_window_of_a_part_ends_when_the_other_node_says_however_late_it_is_attached() {
        let mut bench = Bench::new();
        let serial = bench.placing(&CaptureId::random());
        bench.mono = Duration::from_secs(4);
        bench.step(Input::Placed { serial, made: Ok(()) });
        let left = |bench: &Bench| bench.machine.capture(serial).unwrap().window_left(bench.mono);
        assert_eq!(left(&bench), Duration::from_secs(6));
        let tick = || Input::Tick { held: 0, of_accounts: Vec::new() };
        bench.mono = Duration::from_millis(9_999);
        assert!(!bench.step(tick()).iter().any(|effect| matches!(effect, Effect::EndBudget { .. })));
        bench.mono = Duration::from_secs(10);
        assert!(bench.step(tick()).iter().any(|effect| matches!(effect, Effect::EndBudget { .. })));
        bench.mono = Duration::from_secs(11);
        assert_eq!(left(&bench), Duration::ZERO);
    }

    #[test]
    fn what_is_said_before_a_part_is_attached_holds_and_after_its_end_nothing_is_raised() {
        let mut bench = Bench::new();
        let serial = bench.placing(&CaptureId::random());
        let more = packets(7);
        assert!(matches!(bench.step(Input::Grant { serial, more })[..], [Effect::Raise { .. }]));
        assert!(bench.step(Input::Level { serial, one_in: 4 }).is_empty(), "nobody samples yet");
        assert_eq!(bench.machine.capture(serial).unwrap().job.sample_one_in, Some(4));
        assert!(bench.step(Input::EndPart { serial, why: StopReason::PacketLimit }).is_empty());
        let effects = bench.step(Input::Placed { serial, made: Ok(()) });
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Detach { .. })), "{effects:?}");
        let capture = bench.machine.capture(serial).unwrap();
        assert_eq!(
            (capture.job.stop_reason, capture.phase),
            (Some(StopReason::PacketLimit), Phase::Detaching)
        );
        assert!(bench.step(Input::Grant { serial, more }).is_empty());
        assert!(bench.step(Input::Level { serial, one_in: 8 }).is_empty());
        let keep = packets(0);
        assert!(matches!(bench.step(Input::Reclaim { serial, reply: 9, keep })[..], [Effect::Lower { .. }]));
    }

    #[test]
    fn another_level_of_a_part_that_runs_goes_to_the_workers_once() {
        let mut bench = Bench::new();
        let serial = bench.placing(&CaptureId::random());
        bench.step(Input::Placed { serial, made: Ok(()) });
        let level = |one_in| Input::Level { serial, one_in };
        assert!(matches!(bench.step(level(2))[..], [Effect::Resample { .. }]));
        assert!(bench.step(level(2)).is_empty());
        assert!(matches!(bench.step(level(1))[..], [Effect::Resample { .. }]));
        assert_eq!(bench.machine.capture(serial).unwrap().job.sample_one_in, None);
    }
}
