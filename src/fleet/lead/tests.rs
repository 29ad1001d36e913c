//! The lead alone, with a store that answers at once: what other nodes write, lose or never say.

use super::{Branch, Contender, Effect, Input, Lead, Output};
use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::record::{
    Assignment, Chunk, Claim, Given, Identity, Job, Key, Outcome, Part, Parts, Phase, Record, Registered,
    Stage, Tally, Verdict,
};
use crate::fleet::sample::{Counts, Packet};
use crate::fleet::settings::Settings;
use crate::fleet::shares::{Amount, Pool, Reached, Report};
use crate::fleet::{Colo, Down, Host, Kind, Now, Up, Window, first_number};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Amount = Amount::new(1000, 1_000_000);
const WINDOW: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

struct Fleet {
    lead: Lead,
    settings: Settings,
    store: BTreeMap<Key, (Revision, Record)>,
    revision: u64,
    sent: Vec<(u32, Down)>,
    now: Duration,
    published: Option<Outcome>,
    /// What a server that is behind answers to the next read of the limit's record.
    old: Option<(Revision, Record)>,
}

fn at(sequence: u64) -> Revision {
    Revision { incarnation: 1, sequence }
}

fn registry(colos: &[Colo]) -> Vec<Registered> {
    let host = |(host, colo): (usize, &Colo)| Registered {
        identity: Identity { name: format!("host{host}"), spool_id: 1 },
        colo: *colo,
        boot: 1,
        nonce: 1,
    };
    colos.iter().enumerate().map(host).collect()
}

impl Fleet {
    fn new(kind: Kind, colos: &[Colo], settings: Settings) -> Self {
        let job = Job::accepted(kind, Window { start: Duration::ZERO, end: WINDOW }, 1);
        let mut fleet = Self {
            lead: Lead::new(1, registry(colos), settings),
            settings,
            store: BTreeMap::new(),
            revision: 1,
            sent: Vec::new(),
            now: Duration::ZERO,
            published: None,
            old: None,
        };
        fleet.store.insert(Key::Job, (at(1), job.into()));
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
                Effect::Find(_) if self.published.is_some() => self.step(Input::Published),
                Effect::Find(_) => self.step(Input::NotFound),
                Effect::Send(to, down) => self.sent.push((to, down)),
            }
        }
    }

    fn answer(&mut self, key: Key, op: Op<Record>) -> Answer<Record> {
        let old = self.old.take_if(|_| key == Key::Pool && op == Op::Read);
        let here = old.as_ref().or(self.store.get(&key));
        let revision = here.map_or(at(0), |(revision, _)| *revision);
        let Op::Write { expected, value } = op else {
            return Answer::Read(revision, here.map(|(_, record)| record.clone()));
        };
        if revision != expected && !(expected == Revision::default() && here.is_none()) {
            return Answer::Stale;
        }
        self.revision += 1;
        self.store.insert(key, (at(self.revision), value));
        Answer::Wrote(at(self.revision))
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
        self.step(Input::Saw(Key::Part(part.host), at(9), part.into()));
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

fn given(round: u32, packets: Vec<Packet>) -> Option<Given> {
    Some(Given { round, packets, chunks: 0 })
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
    fleet.step(Input::Saw(Key::Part(0), at(9), forged.clone().into()));
    let parts = Parts { epoch: 1, parts: vec![Some(forged)] };
    fleet.step(Input::Saw(Key::Parts(0), at(9), parts.into()));
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
        Part { sample: given(1, vec![twice, twice]), ..one },
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
    for kind in [
        Kind::Full { limit: Some(LIMIT) },
        Kind::Full { limit: None },
        Kind::Simple { packets: 9, one_in: 1 },
    ] {
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
        fleet.store.insert(key, (at(fleet.revision), pool.into()));
        fleet.take_over(2, &[0, 0]);
        fleet.pass(1, &[]);
        let assignment: Assignment = fleet.get(Key::Assignment(0)).unwrap();
        assert_eq!(assignment.hosts[1].share, other, "branches beyond {branch_beyond}");
    }
}

#[test]
fn a_host_that_dies_after_its_counts_is_not_delivered_because_nothing_of_it_was_drawn() {
    let mut fleet = Fleet::new(Kind::Simple { packets: 1, one_in: 1 }, &[0, 0], Settings::default());
    fleet.pass(9, &[0, 1]);
    fleet.saw(simple(0, 5));
    fleet.saw(simple(1, 5));
    fleet.pass(1, &[]);
    let quotas = fleet.job().quotas.unwrap();
    let drawn = quotas.of.iter().position(|of| *of == Some(1)).unwrap();
    let dead = 1 - drawn;
    let sample = given(1, vec![Packet { stream: 0, sequence: 2 }]);
    fleet.saw(Part { version: 2 << 32, sample, ..simple(drawn as Host, 5) });
    fleet.pass(1, &[drawn as Host]);
    assert!(fleet.job().outcome.is_none(), "nobody knows that host {dead} could have given a packet");
    fleet.pass(20, &[drawn as Host]);
    let sample = given(2, vec![Packet { stream: 0, sequence: 2 }]);
    fleet.saw(Part { version: 3 << 32, sample, ..simple(drawn as Host, 5) });
    fleet.pass(2, &[drawn as Host]);
    assert_eq!(fleet.verdicts()[dead], Some(Verdict::Lost));
    assert_eq!(fleet.verdicts()[drawn], Some(Verdict::Delivered));
}

#[test]
fn a_sample_of_another_size_than_was_drawn_is_none() {
    let mut fleet = Fleet::new(Kind::Simple { packets: 2, one_in: 1 }, &[0], Settings::default());
    fleet.pass(9, &[0]);
    fleet.saw(simple(0, 5));
    fleet.pass(1, &[0]);
    let packet = |sequence| Packet { stream: 0, sequence };
    fleet.saw(Part { version: 2 << 32, sample: given(1, vec![packet(0)]), ..simple(0, 5) });
    fleet.pass(2, &[0]);
    assert!(fleet.job().outcome.is_none());
    fleet.saw(Part { version: 3 << 32, sample: given(1, vec![packet(0), packet(3)]), ..simple(0, 5) });
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
                    let found = (key == Key::Shares(0)).then(|| pool.clone().into());
                    branch.stored(key, Answer::Read(at(tick), found), now);
                }
                Output::Store(key, Op::Write { value, .. }) => {
                    pool = value.try_into().unwrap_or(pool);
                    branch.stored(key, Answer::Wrote(at(1000 + tick)), now);
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
                    branch.stored(*key, Answer::Read(at(0), None), now);
                }
            }
            outputs
        })
        .collect();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Store(Key::Parts(_), Op::Write { .. }))));
}

#[test]
fn a_lead_that_takes_over_after_a_draw_keeps_why_a_host_was_left_out() {
    let mut fleet = Fleet::new(Kind::Simple { packets: 1, one_in: 1 }, &[0, 0], Settings::default());
    fleet.pass(9, &[0, 1]);
    fleet.saw(part(1, Stage::Refused, 0));
    fleet.saw(simple(0, 5));
    fleet.pass(2, &[0, 1]);
    assert_eq!(fleet.job().quotas.unwrap().of, [Some(1), None]);
    // It hears both hosts and has not been told of the refusal.
    fleet.take_over(2, &[0, 0]);
    let sample = given(1, vec![Packet { stream: 0, sequence: 2 }]);
    fleet.pass(1, &[0, 1]);
    fleet.saw(Part { version: 2 << 32, sample, ..simple(0, 5) });
    fleet.pass(2, &[0, 1]);
    assert_eq!(fleet.verdicts(), [Some(Verdict::Delivered), Some(Verdict::Refused)]);
}

#[test]
fn a_part_that_a_lead_was_not_told_of_is_read_before_its_host_is_lost() {
    for stage in [Stage::Delivered, Stage::Refused, Stage::Failed] {
        for branch_beyond in [0, 9] {
            let settings = Settings { branch_beyond, ..Settings::default() };
            let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 0], settings);
            fleet.pass(2, &[0, 1]);
            let there = part(1, stage, 0);
            let parts = Parts { epoch: 1, parts: vec![None, Some(there.clone())] };
            fleet.store.insert(Key::Part(1), (at(7), there.into()));
            fleet.store.insert(Key::Parts(0), (at(8), parts.into()));
            fleet.pass(90, &[]);
            let is_lost = fleet.verdicts()[1] == Some(Verdict::Lost);
            assert!(!is_lost && fleet.verdicts()[1].is_some(), "{stage:?}, branches beyond {branch_beyond}");
            assert_eq!(fleet.verdicts()[0], Some(Verdict::Lost));
        }
    }
}

#[test]
fn a_limit_is_not_closed_while_another_host_begins_to_speak_for_a_data_center() {
    let settings = Settings { branch_beyond: 0, ..Settings::default() };
    let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 1], settings);
    fleet.pass(1, &[0, 1]);
    let mut closed_after = None;
    for half in 0..200u64 {
        let granted = fleet.pool().holders[0].granted;
        let recalls = fleet.sent.iter().rev().filter_map(|(to, down)| match down {
            Down::Recall { round, .. } if *to == 0 => Some(*round),
            _ => None,
        });
        let recalled = recalls.max().unwrap_or(0);
        let wants = Amount::new(64, 0);
        let needs = Some(Amount::new(1, 60));
        let used = granted;
        let report = Report { at: half + 1, granted, used, wants, needs, recalled, ..Report::default() };
        fleet.step(Input::Told(0, report));
        for _ in 0..10 {
            fleet.now += Duration::from_millis(50);
            fleet.step(Input::Tick);
        }
        closed_after = closed_after.or(fleet.pool().reached.map(|_| half / 2));
    }
    let after = closed_after.expect("a data center that never answers keeps a limit open");
    assert!((28..60).contains(&after), "closed after {after} s, and a change of the speaker takes 20");
}

#[test]
fn a_second_writer_in_the_same_epoch_stands_back() {
    let mut fleet = Fleet::full(&[0]);
    fleet.pass(1, &[0]);
    // The claims were lost, and epoch 1 is given out again.
    fleet.take_over(1, &[0]);
    fleet.pass(1, &[0]);
    assert_eq!(fleet.lead.deposed_by(), Some(1));
}

#[test]
fn shares_of_a_data_center_that_are_lost_are_not_dealt_again() {
    let settings = Settings { branch_beyond: 0, ..Settings::default() };
    let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 0], settings);
    fleet.pass(1, &[]);
    let before: Assignment = fleet.get(Key::Assignment(0)).unwrap();
    for is_assigned in [true, false] {
        fleet.store.remove(&Key::Shares(0));
        if !is_assigned {
            fleet.store.remove(&Key::Assignment(0));
        }
        let mut job = fleet.job();
        job.is_stopped = true;
        let (revision, _) = fleet.store[&Key::Job];
        fleet.revision += 1;
        assert!(revision < at(fleet.revision));
        fleet.store.insert(Key::Job, (at(fleet.revision), job.into()));
        fleet.take_over(if is_assigned { 2 } else { 3 }, &[0, 0]);
        fleet.pass(2, &[]);
        assert!(!fleet.store.contains_key(&Key::Shares(0)), "rights that were returned are dealt again");
        let after: Assignment = fleet.get(Key::Assignment(0)).unwrap();
        let share = if is_assigned { before.hosts[1].share } else { Amount::NONE };
        assert_eq!(after.hosts[1].share, share);
        assert!(after.is_stopped);
    }
}

/// A contender and the one record that it contends for.
struct Contest {
    contender: Contender,
    revision: Revision,
    claim: Option<Claim>,
    now: Duration,
    wall: Duration,
}

impl Contest {
    fn new() -> Self {
        let contender = Contender::new((1, 1), Duration::ZERO, Settings::default());
        Self { contender, revision: at(0), claim: None, now: Duration::ZERO, wall: HOUR }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: self.wall + self.now }
    }

    /// Passes so many seconds; without answers to writes, if they are lost.
    fn pass(&mut self, seconds: u64, loses_answers: bool) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            let Some(op) = self.contender.tick(self.now()) else { continue };
            let answer = match op {
                Op::Read => Answer::Read(self.revision, self.claim.map(Into::into)),
                Op::Write { expected, value } if expected == self.revision => {
                    self.revision.sequence += 1;
                    self.claim = value.try_into().ok();
                    if loses_answers { Answer::Uncertain } else { Answer::Wrote(self.revision) }
                }
                Op::Write { .. } => Answer::Stale,
            };
            self.contender.answered(answer, self.now());
        }
    }
}

#[test]
fn a_renewal_whose_answer_is_lost_is_one() {
    let mut contest = Contest::new();
    contest.pass(5, false);
    contest.pass(60, true);
    assert_eq!(contest.contender.holds(contest.now()), Some(1));
}

#[test]
fn claims_that_are_lost_are_given_out_above_all_that_were_seen() {
    let mut contest = Contest::new();
    let other = Claim { epoch: 17, holder: (2, 1), beat: 0 };
    (contest.revision, contest.claim) = (at(40), Some(other));
    contest.pass(3, false);
    // The stream is created again.
    (contest.revision, contest.claim) = (Revision { incarnation: 2, sequence: 0 }, None);
    contest.pass(20, false);
    assert_eq!(contest.contender.holds(contest.now()), Some(18));
}

#[test]
fn a_holder_whose_claim_is_lost_with_its_stream_holds_it_on() {
    let mut contest = Contest::new();
    contest.pass(5, false);
    (contest.revision, contest.claim) = (Revision { incarnation: 2, sequence: 0 }, None);
    for _ in 0..20 {
        contest.pass(1, false);
        assert_eq!(contest.contender.holds(contest.now()), Some(1));
    }
    assert_eq!(contest.claim.map(|claim| claim.epoch), Some(1));
}

#[test]
fn a_holder_that_meets_records_of_later_epochs_claims_above_them() {
    let mut contest = Contest::new();
    contest.pass(5, false);
    contest.contender.at_least(17);
    assert_eq!(contest.contender.holds(contest.now()), None);
    contest.pass(5, false);
    assert_eq!(contest.contender.holds(contest.now()), Some(18));
    // One that another writer made in the very same epoch is no less a reason.
    contest.contender.at_least(18);
    assert_eq!(contest.contender.holds(contest.now()), None);
}

#[test]
fn a_sample_in_chunks_counts_once_it_is_whole_and_each_packet_is_another() {
    let packet = |sequence| Packet { stream: 0, sequence };
    let write = |fleet: &mut Fleet, chunk, round, sequences: [u64; 2]| {
        let packets = sequences.map(packet).to_vec();
        fleet.revision += 1;
        let record = Chunk { epoch: 1, round, packets }.into();
        fleet.store.insert(Key::Chunk(0, chunk), (at(fleet.revision), record));
    };
    for (last, is_whole) in [([2, 3], true), ([1, 3], false)] {
        let mut fleet = Fleet::new(Kind::Simple { packets: 4, one_in: 1 }, &[0], Settings::default());
        fleet.pass(9, &[0]);
        fleet.saw(simple(0, 9));
        fleet.pass(1, &[0]);
        write(&mut fleet, 0, 1, [0, 1]);
        write(&mut fleet, 1, 0, last);
        let sample = Some(Given { round: 1, packets: Vec::new(), chunks: 2 });
        fleet.saw(Part { version: 2 << 32, sample, ..simple(0, 9) });
        fleet.pass(2, &[0]);
        assert!(fleet.job().outcome.is_none(), "a chunk is of another round");
        write(&mut fleet, 1, 1, last);
        fleet.pass(3, &[0]);
        let told = fleet.published.map(|outcome| outcome.tally.captured.packets);
        assert_eq!(told, is_whole.then_some(4), "{last:?}");
    }
}

#[test]
fn a_host_that_says_it_captured_more_than_it_was_granted_or_what_it_gave_back_has_failed() {
    for (captured, returns) in [(900, false), (100, true)] {
        let mut fleet = Fleet::full(&[0, 0]);
        fleet.pass(1, &[0, 1]);
        let granted = fleet.pool().holders[0].granted;
        if returns {
            // Once others ask, it is theirs.
            fleet.step(Input::Told(1, Report { at: 9, granted, returned: granted, ..Report::default() }));
            fleet.step(Input::Told(0, Report { at: 1, granted, wants: LIMIT, ..Report::default() }));
            fleet.pass(1, &[0, 1]);
        }
        fleet.saw(part(1, Stage::Delivered, captured));
        fleet.saw(part(0, Stage::Delivered, 7));
        fleet.pass(5, &[0, 1]);
        assert_eq!(fleet.verdicts(), [Some(Verdict::Delivered), Some(Verdict::Failed)]);
        assert_eq!(fleet.published.unwrap().tally.captured.packets, 7);
    }
}

#[test]
fn a_host_that_lives_and_never_says_what_came_of_its_files_is_not_waited_for_for_ever() {
    let settings = Settings { delivery: Duration::from_secs(300), ..Settings::default() };
    let mut fleet = Fleet::new(Kind::Full { limit: Some(LIMIT) }, &[0, 0], settings);
    fleet.pass(1, &[0, 1]);
    fleet.saw(part(0, Stage::Delivered, 7));
    fleet.saw(part(1, Stage::Counted, 5));
    fleet.pass(WINDOW.as_secs() + 290, &[0, 1]);
    assert!(fleet.published.is_none(), "deliveries take their time");
    fleet.pass(20, &[0, 1]);
    assert_eq!(
        fleet.verdicts(),
        [Some(Verdict::Delivered), Some(Verdict::Lost)],
        "nobody says that it failed"
    );
    let outcome = fleet.published.unwrap();
    assert_eq!(outcome.limit.unwrap().undelivered.packets, 5, "what it captured in vain is stated");
}

#[test]
fn a_lead_decides_by_no_record_of_a_limit_that_it_has_only_read() {
    let mut fleet = Fleet::full(&[0, 0]);
    fleet.pass(1, &[0, 1]);
    fleet.old = fleet.store.get(&Key::Pool).cloned();
    let mut pool = fleet.pool();
    pool.holders[1].granted = Amount::new(500, 500_000);
    fleet.revision += 1;
    fleet.store.insert(Key::Pool, (at(fleet.revision), pool.into()));
    fleet.take_over(2, &[0, 0]);
    fleet.saw(part(0, Stage::Delivered, 1));
    fleet.saw(part(1, Stage::Delivered, 400));
    fleet.pass(5, &[0, 1]);
    assert_eq!(fleet.verdicts(), [Some(Verdict::Delivered); 2]);
    assert!(fleet.old.is_none(), "no old record was read");
}

#[test]
fn a_branch_answers_no_round_by_a_record_that_it_has_only_read() {
    let now = |ms| Now { mono: Duration::from_millis(ms), wall: Duration::ZERO };
    let granted = Amount::new(100, 100_000);
    // Everything is given back already: there is nothing to change.
    let mut pool = Pool { given_back: granted, ..Pool::dealt(granted, &[1], 1) };
    pool.holders[0].returned = granted;
    let mut branch = Branch::new(0, vec![0], true, 2, Settings::default());
    branch.stored(Key::Shares(0), Answer::Read(at(1), Some(pool.into())), now(1));
    branch.from_above(Down::Recall { round: 7, is_hard: true, granted }, now(2));
    let report =
        Report { at: 1, granted, returned: granted, recalled: first_number(2) + 1, ..Report::default() };
    branch.told(0, Up::Share(report), now(3));
    let outputs = branch.tick(now(100));
    let is_write = |output: &Output| matches!(output, Output::Store(Key::Shares(0), Op::Write { .. }));
    assert!(outputs.iter().any(is_write), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Up(_))), "{outputs:?}");
    branch.stored(Key::Shares(0), Answer::Wrote(at(2)), now(110));
    let outputs = branch.tick(now(200));
    let answer = |output: &Output| matches!(output, Output::Up(report) if report.recalled == 7);
    assert!(outputs.iter().any(answer), "{outputs:?}");
}

#[test]
fn a_host_of_a_simple_capture_that_others_are_waited_for_with_has_not_failed() {
    let kind = Kind::Simple { packets: 2, one_in: 1 };
    let settings = Settings { delivery: WINDOW, ..Settings::default() };
    let mut fleet = Fleet::new(kind, &[0, 0], settings);
    fleet.pass(1, &[0, 1]);
    fleet.saw(simple(0, 5));
    fleet.pass(60, &[0, 1]);
    fleet.saw(simple(1, 0));
    fleet.pass(1, &[0, 1]);
    let quotas = fleet.job().quotas.expect("one host has counted late");
    assert_eq!(quotas.of, [Some(2), Some(0)]);
}

#[test]
fn a_host_that_has_counted_and_gives_no_counts_does_not_hold_up_a_simple_capture() {
    for stage in [Stage::Counted, Stage::Delivered] {
        let mut fleet = Fleet::new(Kind::Simple { packets: 2, one_in: 1 }, &[0, 0], Settings::default());
        fleet.pass(1, &[0, 1]);
        fleet.saw(simple(0, 5));
        fleet.saw(part(1, stage, 5));
        fleet.pass(30, &[0, 1]);
        assert_eq!(fleet.verdicts(), [None, Some(Verdict::Failed)]);
        assert_eq!(fleet.job().quotas.unwrap().of, [Some(2), None]);
    }
}

#[test]
fn a_file_whose_packets_are_lost_is_looked_for_and_is_not_waited_for_for_ever() {
    let colos = [0, 0];
    let packets: Vec<_> = (0..2).map(|sequence| Packet { stream: 0, sequence }).collect();
    for (is_known, is_there, phase) in
        [(true, false, Phase::Success), (false, true, Phase::Success), (false, false, Phase::Failed)]
    {
        let mut fleet = Fleet::new(Kind::Simple { packets: 2, one_in: 1 }, &colos, Settings::default());
        fleet.pass(1, &[0, 1]);
        fleet.saw(simple(0, 5));
        fleet.saw(simple(1, 0));
        fleet.pass(1, &[0, 1]);
        let gives = Part { version: first_number(1) + 9, sample: given(1, packets.clone()), ..simple(0, 5) };
        fleet.saw(gives.clone());
        fleet.pass(1, &[0, 1]);
        // The lead published, and its successor does not hear of it.
        let job = Job { phase: Phase::ConversionRunning, ..fleet.job() };
        fleet.store.insert(Key::Job, (at(fleet.revision), job.into()));
        if is_known {
            fleet.store.insert(Key::Part(0), (at(1), gives.into()));
        }
        fleet.published = fleet.published.filter(|_| is_there);
        fleet.take_over(2, &colos);
        fleet.pass(30, &[0, 1]);
        assert_eq!(fleet.job().phase.is_end(), is_known || is_there, "it may be there a little later");
        fleet.pass(120, &[0, 1]);
        assert_eq!(fleet.job().phase, phase);
        assert_eq!(fleet.published.is_some(), phase == Phase::Success);
    }
}

#[test]
fn a_lead_leaves_a_job_of_other_rules_alone() {
    let mut fleet = Fleet::full(&[0]);
    let mut job = fleet.job();
    job.rules += 1;
    fleet.store.insert(Key::Job, (at(2), job.clone().into()));
    fleet.pass(30, &[0]);
    assert_eq!(fleet.job(), job);
}

#[test]
fn a_wall_clock_that_steps_neither_ends_nor_prolongs_a_claim() {
    for wall in [Duration::ZERO, 2 * HOUR] {
        let mut contest = Contest::new();
        contest.pass(5, false);
        contest.wall = wall;
        assert_eq!(contest.contender.holds(contest.now()), Some(1));
        contest.now += Settings::default().takeover;
        assert_eq!(contest.contender.holds(contest.now()), None);
    }
}
