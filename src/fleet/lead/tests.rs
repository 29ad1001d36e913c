//! The lead alone, with a store that answers at once: what other nodes write, lose or never say.

use super::{Branch, Effect, Input, Lead, Output};
use crate::fleet::held::{Answer, Op};
use crate::fleet::record::{
    Assignment, Identity, Job, Key, Outcome, Part, Parts, Phase, Record, Registered, Stage, Tally, Verdict,
};
use crate::fleet::sample::{Counts, Packet};
use crate::fleet::settings::Settings;
use crate::fleet::shares::{Amount, Pool, Reached, Report};
use crate::fleet::{Colo, Down, Host, Kind, Now, Up, Window, first_number};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Amount = Amount::new(1000, 1_000_000);
const WINDOW: Duration = Duration::from_secs(10);

struct Fleet {
    lead: Lead,
    settings: Settings,
    store: BTreeMap<Key, (u64, Record)>,
    revision: u64,
    now: Duration,
    published: Option<Outcome>,
}

fn registry(colos: &[Colo]) -> Vec<Registered> {
    let host = |(host, colo): (usize, &Colo)| Registered {
        identity: Identity { name: format!("host{host}"), spool_id: 1 },
        colo: *colo,
    };
    colos.iter().enumerate().map(host).collect()
}

impl Fleet {
    fn new(kind: Kind, colos: &[Colo], settings: Settings) -> Self {
        let job = Job {
            epoch: 0,
            kind,
            window: Window { start: Duration::ZERO, end: WINDOW },
            seed: 1,
            is_stopped: false,
            phase: Phase::Pending,
            is_over: false,
            has_pool: false,
            members: None,
            is_branched: false,
            quotas: None,
            outcome: None,
        };
        let mut fleet = Self {
            lead: Lead::new(1, registry(colos), settings),
            settings,
            store: BTreeMap::new(),
            revision: 1,
            now: Duration::ZERO,
            published: None,
        };
        fleet.store.insert(Key::Job, (1, job.into()));
        fleet
    }

    fn full(colos: &[Colo]) -> Self {
        Self::new(Kind::Full { limit: Some(LIMIT) }, colos, Settings::default())
    }

    fn step(&mut self, input: Input) {
        let now = Now { mono: self.now, wall: self.now };
        for effect in self.lead.step(input, now) {
            match effect {
                Effect::Store(key, op) => {
                    let answer = self.answer(key, op);
                    self.step(Input::Stored(key, answer));
                }
                Effect::Publish(outcome, _) => {
                    self.published = Some(*outcome);
                    self.step(Input::Published);
                }
                Effect::Send(..) => {}
            }
        }
    }

    fn answer(&mut self, key: Key, op: Op<Record>) -> Answer<Record> {
        let Op::Write { expected, value } = op else { return Answer::Read(self.store.get(&key).cloned()) };
        if self.store.get(&key).map_or(0, |(revision, _)| *revision) != expected {
            return Answer::Stale;
        }
        self.revision += 1;
        self.store.insert(key, (self.revision, value));
        Answer::Wrote(self.revision)
    }

    /// Ticks for so long; these hosts live.
    fn pass(&mut self, seconds: u64, living: &[Host]) {
        for tick in 0..seconds * 20 {
            self.now += Duration::from_millis(50);
            if tick % 20 == 0 {
                living.iter().for_each(|host| self.step(Input::Heard(*host, true)));
            }
            self.step(Input::Tick);
        }
    }

    fn saw(&mut self, part: Part) {
        self.step(Input::Saw(Key::Part(part.host), 9, part.into()));
    }

    fn take_over(&mut self, epoch: u32, colos: &[Colo]) {
        self.lead = Lead::new(epoch, registry(colos), self.settings);
    }

    fn get<R: TryFrom<Record>>(&self, key: Key) -> Option<R> {
        self.store.get(&key).and_then(|(_, record)| R::try_from(record.clone()).ok())
    }

    fn job(&self) -> Job {
        self.get(Key::Job).unwrap()
    }

    fn pool(&self) -> Pool {
        self.get(Key::Pool).unwrap()
    }

    fn verdicts(&self) -> Vec<Option<Verdict>> {
        self.job().hosts().iter().map(|member| member.verdict).collect()
    }
}

fn part(host: Host, stage: Stage, captured: u64) -> Part {
    Part {
        epoch: 1,
        host,
        version: first_number(1) + stage as u64,
        stage,
        refusal: None,
        is_interrupted: false,
        tally: Tally {
            matched: captured,
            captured: Amount::new(captured, captured * 60),
            ..Tally::default()
        },
        counts: None,
        sample: None,
    }
}

fn simple(host: Host, kept: u64) -> Part {
    let counts = Counts { level: 0, matched: kept, kept: vec![kept] };
    let tally = Tally { matched: kept, captured: Amount::new(kept, 0), ..Tally::default() };
    Part { counts: Some(counts), tally, ..part(host, Stage::Counted, kept) }
}

#[test]
fn a_part_counts_only_under_the_key_of_its_host() {
    let mut fleet = Fleet::full(&[0, 1]);
    fleet.pass(1, &[0, 1]);
    let forged = Part { version: u64::MAX, ..part(1, Stage::Refused, 0) };
    fleet.step(Input::Saw(Key::Part(0), 9, forged.clone().into()));
    let parts = Parts { epoch: 1, parts: vec![Some(forged)] };
    fleet.step(Input::Saw(Key::Parts(0), 9, parts.into()));
    fleet.pass(1, &[0, 1]);
    assert!(!fleet.pool().holders[1].is_final, "a host gave back the rights of another");
    assert!(fleet.lead.parts[1].is_none());
}

#[test]
fn a_host_whose_numbers_cannot_be_true_has_failed_and_keeps_what_it_holds() {
    let huge = Amount::new(u64::MAX, u64::MAX);
    let tally = Tally { matched: u64::MAX, captured: huge, share: u64::MAX, ..Tally::default() };
    let twice = Packet { stream: 0, sequence: 1 };
    let counts = |level, kept| Some(Counts { level, matched: 1, kept });
    let one = part(1, Stage::Delivered, 1);
    for wrong in [
        Part { tally, ..one.clone() },
        Part { counts: counts(0, vec![2]), ..one.clone() },
        Part { counts: counts(0, vec![0, 1]), ..one.clone() },
        Part { counts: counts(200, vec![1]), ..one.clone() },
        Part { sample: Some((1, vec![twice, twice])), ..one },
    ] {
        let mut fleet = Fleet::full(&[0, 0]);
        fleet.pass(1, &[0, 1]);
        fleet.saw(wrong);
        fleet.saw(part(0, Stage::Delivered, 7));
        fleet.pass(5, &[0, 1]);
        assert_eq!(fleet.verdicts(), [Some(Verdict::Delivered), Some(Verdict::Failed)]);
        let left = fleet.published.unwrap().limit.unwrap();
        assert_eq!(left.held.len(), 1, "{left:?}");
    }
}

#[test]
fn members_are_those_of_the_job_whatever_is_registered_later() {
    for settings in [Settings::default(), Settings { branch_beyond: 0, ..Settings::default() }] {
        let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 0, 1], settings);
        fleet.pass(1, &[0]);
        // The first host is retired, another one is registered.
        fleet.take_over(2, &[0, 1]);
        fleet.saw(part(1, Stage::Counted, 3));
        fleet.pass(1, &[0, 2]);
        fleet.saw(part(2, Stage::Counted, 5));
        fleet.step(Input::Heard(2, true));
        fleet.pass(1, &[0, 2]);
        assert_eq!(fleet.job().hosts().len(), 3);
        assert!(fleet.lead.parts[1].is_some() && fleet.lead.parts[2].is_some());
    }
}

#[test]
fn a_capture_without_hosts_fails_at_once() {
    for kind in [Kind::Full { limit: Some(LIMIT) }, Kind::Full { limit: None }, Kind::Simple { packets: 9 }] {
        let mut fleet = Fleet::new(kind, &[], Settings::default());
        fleet.pass(2, &[]);
        assert_eq!(fleet.job().phase, Phase::Failed);
        assert!(fleet.lead.is_done());
        assert!(fleet.revision < 20, "the job is written again and again");
    }
}

#[test]
fn a_limit_whose_record_is_lost_is_closed_and_not_dealt_again() {
    let mut fleet = Fleet::full(&[0, 0]);
    fleet.pass(1, &[0, 1]);
    assert!(fleet.job().has_pool);
    fleet.store.remove(&Key::Pool);
    fleet.take_over(2, &[0, 0]);
    fleet.pass(1, &[0, 1]);
    let pool = fleet.pool();
    assert_eq!((pool.reached, pool.free()), (Some(Reached::Forgotten), Amount::NONE));
    assert!(pool.check());
}

#[test]
fn no_host_is_assigned_before_the_job_says_that_the_limit_has_a_record() {
    let mut fleet = Fleet::full(&[0]);
    for _ in 0..40 {
        fleet.now += Duration::from_millis(20);
        fleet.step(Input::Tick);
        let is_assigned = fleet.store.contains_key(&Key::Assignment(0));
        assert!(!is_assigned || fleet.job().has_pool);
    }
    assert!(fleet.store.contains_key(&Key::Assignment(0)));
}

#[test]
fn first_shares_are_read_from_the_record_and_not_worked_out_again() {
    for branch_beyond in [0, 9] {
        let settings = Settings { branch_beyond, ..Settings::default() };
        let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 0], settings);
        fleet.pass(1, &[]);
        // A lead of another version dealt other shares, and died before it assigned anything.
        fleet.store.remove(&Key::Assignment(0));
        let key = if branch_beyond == 0 { Key::Shares(0) } else { Key::Pool };
        let mut pool: Pool = fleet.get(key).unwrap();
        let other = Amount::new(7, 700);
        pool.holders[1].first = other;
        pool.holders[1].granted = other;
        fleet.store.insert(key, (fleet.revision, pool.into()));
        fleet.take_over(2, &[0, 0]);
        fleet.pass(1, &[]);
        let assignment: Assignment = fleet.get(Key::Assignment(0)).unwrap();
        assert_eq!(assignment.hosts[1].share, other, "branches beyond {branch_beyond}");
    }
}

#[test]
fn a_host_that_dies_after_its_counts_is_not_delivered_because_nothing_of_it_was_drawn() {
    let mut fleet = Fleet::new(Kind::Simple { packets: 1 }, &[0, 0], Settings::default());
    fleet.pass(9, &[0, 1]);
    fleet.saw(simple(0, 5));
    fleet.saw(simple(1, 5));
    fleet.pass(1, &[]);
    let quotas = fleet.job().quotas.unwrap();
    let drawn = quotas.of.iter().position(|of| *of == Some(1)).unwrap();
    let dead = 1 - drawn;
    let sample = Some((1, vec![Packet { stream: 0, sequence: 2 }]));
    fleet.saw(Part { version: 2 << 32, sample, ..simple(drawn as Host, 5) });
    fleet.pass(1, &[drawn as Host]);
    assert!(fleet.job().outcome.is_none(), "nobody knows that host {dead} could have given a packet");
    fleet.pass(20, &[drawn as Host]);
    let sample = Some((2, vec![Packet { stream: 0, sequence: 2 }]));
    fleet.saw(Part { version: 3 << 32, sample, ..simple(drawn as Host, 5) });
    fleet.pass(2, &[drawn as Host]);
    assert_eq!(fleet.verdicts()[dead], Some(Verdict::Lost));
    assert_eq!(fleet.verdicts()[drawn], Some(Verdict::Delivered));
}

#[test]
fn a_sample_of_another_size_than_was_drawn_is_none() {
    let mut fleet = Fleet::new(Kind::Simple { packets: 2 }, &[0], Settings::default());
    fleet.pass(9, &[0]);
    fleet.saw(simple(0, 5));
    fleet.pass(1, &[0]);
    let packet = |sequence| Packet { stream: 0, sequence };
    fleet.saw(Part { version: 2 << 32, sample: Some((1, vec![packet(0)])), ..simple(0, 5) });
    fleet.pass(2, &[0]);
    assert!(fleet.job().outcome.is_none());
    fleet.saw(Part { version: 3 << 32, sample: Some((1, vec![packet(0), packet(3)])), ..simple(0, 5) });
    fleet.pass(2, &[0]);
    assert_eq!(fleet.published.unwrap().tally.captured.packets, 2);
}

#[test]
fn a_host_that_lives_and_never_ends_is_not_waited_for_without_bound() {
    let mut fleet = Fleet::full(&[0]);
    fleet.pass(200, &[0]);
    assert_eq!(fleet.verdicts(), [Some(Verdict::Lost)]);
}

#[test]
fn hosts_that_go_on_after_the_window_are_told_that_it_is_over() {
    let mut fleet = Fleet::full(&[0, 1]);
    fleet.pass(1, &[0, 1]);
    fleet.saw(part(0, Stage::Counted, 1));
    fleet.pass(9, &[0, 1]);
    assert!(!fleet.job().is_over);
    fleet.pass(5, &[0, 1]);
    let assignment: Assignment = fleet.get(Key::Assignment(1)).unwrap();
    assert!(assignment.is_over);
}

#[test]
fn an_outcome_that_could_not_be_published_is_published_later() {
    let mut fleet = Fleet::full(&[0]);
    fleet.lead.is_publishing = true;
    fleet.pass(1, &[0]);
    fleet.saw(part(0, Stage::Delivered, 1));
    fleet.pass(1, &[0]);
    assert!(fleet.published.is_none());
    fleet.step(Input::NotPublished);
    fleet.pass(3, &[0]);
    assert!(fleet.published.is_some());
}

#[test]
fn a_lead_that_finds_no_job_looks_again() {
    let mut fleet = Fleet::full(&[0]);
    let job = fleet.store.remove(&Key::Job).unwrap();
    fleet.pass(1, &[]);
    fleet.store.insert(Key::Job, job);
    fleet.pass(1, &[]);
    assert!(fleet.job().members.is_some());
}

/// A branch of one host in this epoch, with a store that answers at once. What it tells the lead after a round of the lead of
/// another epoch; the host answers with what it is asked.
fn answers(branch_epoch: u32, lead_epoch: u32) -> Vec<Report> {
    let settings = Settings::default();
    let mut branch = Branch::new(0, vec![0], true, branch_epoch, settings);
    let mut pool = Pool::dealt(Amount::new(100, 100_000), &[1], 1);
    let granted = pool.holders[0].granted;
    let (mut told, mut asked) = (Vec::new(), Vec::new());
    for tick in 1..400u64 {
        let now = Now { mono: Duration::from_millis(50 * tick), wall: Duration::ZERO };
        if tick % 100 == 0 {
            let round = first_number(lead_epoch) + tick / 100;
            let granted = Amount::new(100, 100_000);
            branch.from_above(Down::Recall { round, is_hard: true, granted }, now);
            asked.push(round);
        }
        for output in branch.tick(now) {
            match output {
                Output::Store(key, Op::Read) => {
                    let found = (key == Key::Shares(0)).then(|| (tick, pool.clone().into()));
                    branch.stored(key, Answer::Read(found), now);
                }
                Output::Store(key, Op::Write { value, .. }) => {
                    pool = value.try_into().unwrap_or(pool);
                    branch.stored(key, Answer::Wrote(1000 + tick), now);
                }
                Output::Down(_, Down::Recall { round, .. }) => {
                    let report =
                        Report { at: tick, granted, returned: granted, recalled: round, ..Report::default() };
                    branch.told(0, Up::Share(report), now);
                }
                Output::Down(..) => {}
                Output::Up(report) => told.push(report),
            }
        }
    }
    assert!(told.iter().all(|report| asked.contains(&report.recalled) || report.recalled == 0), "{told:?}");
    told
}

#[test]
fn a_branch_answers_the_round_that_it_was_asked_whatever_its_own_epoch_is() {
    for (branch_epoch, lead_epoch) in [(3, 2), (1, 1), (1, 5)] {
        let told = answers(branch_epoch, lead_epoch);
        let last = told.last().map(|report| report.recalled);
        assert_eq!(last, Some(first_number(lead_epoch) + 3), "epochs {branch_epoch}, {lead_epoch}");
    }
}

#[test]
fn a_branch_passes_on_only_the_own_part_of_a_host() {
    let mut branch = Branch::new(0, vec![0, 1], true, 1, Settings::default());
    let now = Now { mono: Duration::from_secs(1), wall: Duration::ZERO };
    branch.told(0, Up::Part(Box::new(part(1, Stage::Refused, 0))), now);
    let outputs: Vec<Output> = (1..60)
        .flat_map(|tick| {
            let now = Now { mono: Duration::from_millis(1000 + 50 * tick), wall: Duration::ZERO };
            let outputs = branch.tick(now);
            for output in &outputs {
                if let Output::Store(key, Op::Read) = output {
                    branch.stored(*key, Answer::Read(None), now);
                }
            }
            outputs
        })
        .collect();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Store(Key::Parts(_), Op::Write { .. }))));
}
