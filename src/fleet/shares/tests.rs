//! Escrow under any order of messages, with hosts that crash and leads that are taken over: never over the limit, and exactly the
//! limit once everybody answers.

use super::{Amount, Desk, Holding, Meter, Pool, Reached, Report};
use crate::fleet::settings::Settings;
use crate::fleet::{Down, Epoch, Now};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// So many frames come to a host.
    Traffic(usize, u64),
    /// Time passes for everybody.
    Turn,
    /// A message under way arrives, is lost, or arrives and stays under way.
    Arrive(usize),
    Lose(usize),
    Double(usize),
    /// A host ends with half of what it captured.
    Crash(usize),
    /// Another lead begins with the durable record.
    TakeOver,
    /// The next write of the lead is lost, and the lead reads again.
    LoseWrite,
}

#[derive(Clone, Debug)]
enum Message {
    Up(u32, Report),
    Down(usize, Down),
}

struct Host {
    holding: Holding,
    budget: Amount,
    offered: Amount,
    used: Amount,
    refused: Option<u32>,
    length: u64,
    is_gone: bool,
}

/// Faults of the host's shell, for the test of the test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KeepsWhatItReturns,
    GrantsAddUp,
}

struct Escrow {
    hosts: Vec<Host>,
    durable: Pool,
    desk: Desk,
    epoch: Epoch,
    now: Duration,
    messages: Vec<Message>,
    loses_write: bool,
    fault: Fault,
    limit: Amount,
}

impl Escrow {
    fn new(limit: Amount, lengths: &[u64], fault: Fault) -> Self {
        let durable = Pool::dealt(limit, &vec![1; lengths.len()], 4);
        let host = |(place, length): (usize, &u64)| {
            let first = durable.holders[place].granted;
            let holding = Holding::new(first, limit, 1, Settings::default());
            let none = Amount::NONE;
            Host {
                holding,
                budget: first,
                offered: none,
                used: none,
                refused: None,
                length: *length,
                is_gone: false,
            }
        };
        Self {
            hosts: lengths.iter().enumerate().map(host).collect(),
            desk: Desk::new(lengths.len(), 1, Settings::default()),
            durable,
            epoch: 1,
            now: Duration::ZERO,
            messages: Vec::new(),
            loses_write: false,
            fault,
            limit,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: self.now }
    }

    fn used(&self) -> Amount {
        self.hosts.iter().map(|host| host.used).sum()
    }

    fn traffic(&mut self, host: usize, frames: u64) {
        let host = &mut self.hosts[host];
        if host.is_gone {
            return;
        }
        host.offered = host.offered.plus(Amount::new(frames, frames * host.length));
        let taken = frames.min(host.budget.packets).min(host.budget.bytes / host.length);
        let taken = Amount::new(taken, taken * host.length);
        host.budget = host.budget.minus(taken);
        host.used = host.used.plus(taken);
        host.refused = (taken.packets < frames).then_some(host.length as u32).or(host.refused);
    }

    fn turn(&mut self) {
        self.now += Duration::from_millis(50);
        let now = self.now();
        for (place, host) in self.hosts.iter_mut().enumerate() {
            let refused = host.refused.take();
            if !host.is_gone {
                host.holding.turn(
                    &Meter { offered: host.offered, used: host.used, lost: 0, refused, kept: Vec::new() },
                    now,
                );
            }
            self.messages.extend(host.holding.report(now).map(|report| Message::Up(place as u32, report)));
        }
        let (next, sent) = self.desk.turn(&self.durable, now);
        self.messages.extend(sent.into_iter().map(|(to, down)| Message::Down(to as usize, down)));
        if let Some(next) = next
            && !std::mem::take(&mut self.loses_write)
        {
            let before = std::mem::replace(&mut self.durable, next);
            self.desk.changed(Some(&before), &self.durable);
        }
        let answers = self.desk.answers(&self.durable);
        self.messages.extend(answers.into_iter().map(|(to, down)| Message::Down(to as usize, down)));
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Up(from, report) => {
                let now = self.now();
                self.desk.told(from, report, now);
            }
            Message::Down(to, Down::Granted { granted, .. }) => self.raise(to, granted),
            Message::Down(to, Down::Recall { round, is_hard, granted }) => {
                self.raise(to, granted);
                let host = &mut self.hosts[to];
                if host.is_gone {
                    return;
                }
                let keep = host.holding.recall(round, is_hard).keep;
                let taken = host.budget.minus(keep);
                if self.fault != Fault::KeepsWhatItReturns {
                    host.budget = host.budget.minus(taken);
                }
                host.holding.reclaimed(round, taken, host.used);
            }
            Message::Down(..) => {}
        }
    }

    fn raise(&mut self, to: usize, granted: Amount) {
        let host = &mut self.hosts[to];
        let more = host.holding.grant(granted);
        if !host.is_gone {
            host.budget = host.budget.plus(more);
            if self.fault == Fault::GrantsAddUp {
                host.budget = host.budget.plus(more);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let (hosts, messages) = (self.hosts.len(), self.messages.len());
        match *step {
            Step::Traffic(host, frames) => self.traffic(host % hosts, frames),
            Step::Turn => self.turn(),
            Step::Arrive(at) if messages > 0 => {
                let message = self.messages.swap_remove(at % messages);
                self.arrive(message);
            }
            Step::Lose(at) if messages > 0 => drop(self.messages.swap_remove(at % messages)),
            Step::Double(at) if messages > 0 => self.arrive(self.messages[at % messages].clone()),
            Step::Crash(host) => {
                let host = &mut self.hosts[host % hosts];
                if !host.is_gone {
                    host.is_gone = true;
                    let half = host.used.packets / 2;
                    host.used = Amount::new(half, half * host.length);
                    host.holding.end(host.used);
                }
            }
            Step::TakeOver => {
                self.epoch += 1;
                self.desk = Desk::new(hosts, self.epoch, Settings::default());
            }
            Step::LoseWrite => self.loses_write = true,
            _ => {}
        }
    }

    /// No more faults, and traffic everywhere: until the limit is closed.
    fn settle(&mut self) -> Option<Reached> {
        for turn in 0..4000 {
            (0..self.hosts.len()).for_each(|host| self.traffic(host, 1 + turn % 7));
            self.turn();
            std::mem::take(&mut self.messages).into_iter().for_each(|message| self.arrive(message));
            if turn % 20 == 0 {
                self.hosts.iter_mut().filter(|host| host.is_gone).for_each(|host| host.holding.repeat());
            }
            if self.durable.reached.is_some() {
                break;
            }
        }
        self.durable.reached
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..4usize;
    let step = prop_oneof![
        4 => (host.clone(), 1..80u64).prop_map(|(host, frames)| Step::Traffic(host, frames)),
        4 => Just(Step::Turn),
        8 => any::<usize>().prop_map(Step::Arrive),
        1 => any::<usize>().prop_map(Step::Lose),
        2 => any::<usize>().prop_map(Step::Double),
        1 => Just(Step::TakeOver),
        1 => Just(Step::LoseWrite),
        1 => host.prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..200)
}

fn limits() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (1..2000u64).prop_map(|packets| Amount::limit(Some(packets), None)),
        (60..200_000u64).prop_map(|bytes| Amount::limit(None, Some(bytes))),
        (1..2000u64, 60..200_000u64).prop_map(|(packets, bytes)| Amount::limit(Some(packets), Some(bytes))),
    ]
}

const LENGTHS: [u64; 4] = [60, 60, 150, 1514];

/// Goes through the steps; what is wrong, if something is.
fn wrong(limit: Amount, steps: &[Step], fault: Fault) -> Option<String> {
    let mut escrow = Escrow::new(limit, &LENGTHS, fault);
    for step in steps {
        escrow.step(step);
        if !escrow.used().fits(escrow.limit) || !escrow.durable.check() {
            return Some(format!("{:?} of {limit:?} after {step:?}: {:?}", escrow.used(), escrow.durable));
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_passes_a_limit(limit in limits(), steps in steps()) {
        prop_assert_eq!(wrong(limit, &steps, Fault::None), None);
    }

    #[test]
    fn a_limit_is_reached_exactly_once_everybody_answers(limit in limits(), steps in steps()) {
        // A crash after the end would take packets that were counted; and one that is left must be able to use the rest.
        let calm: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Crash(0))).collect();
        let mut escrow = Escrow::new(limit, &LENGTHS, Fault::None);
        calm.iter().filter(|_| true).for_each(|step| {
            if !(matches!(step, Step::Crash(_)) && escrow.durable.reached.is_some()) {
                escrow.step(step);
            }
        });
        let is_closed_early = escrow.durable.reached.is_some();
        let reached = escrow.settle();
        let used = escrow.used();
        prop_assert!(used.fits(limit), "{used:?}");
        match reached {
            Some(Reached::Packets) => prop_assert!(is_closed_early || used.packets == limit.packets, "{used:?} of {limit:?}"),
            Some(Reached::Bytes) => prop_assert!(limit.bytes - used.bytes < 1514, "{used:?} of {limit:?}"),
            Some(Reached::Forgotten) | None => prop_assert!(false, "not closed: {used:?} of {limit:?}, {:?}", escrow.durable),
        }
    }

    #[test]
    fn what_is_dealt_at_first_is_at_most_half(
        packets in 1..5000u64,
        weights in prop::collection::vec(1..50u64, 1..40),
    ) {
        let limit = Amount::limit(Some(packets), None);
        let pool = Pool::dealt(limit, &weights, 4);
        prop_assert!(pool.check());
        let dealt: u64 = pool.holders.iter().map(|share| share.granted.packets).sum();
        prop_assert!(dealt <= packets.div_ceil(2));
    }
}

/// Faults of hosts that the same test must find.
#[test]
fn faults_of_a_host_pass_the_limit_and_are_seen() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    for fault in [Fault::KeepsWhatItReturns, Fault::GrantsAddUp] {
        let mut runner = TestRunner::deterministic();
        let seen = (0..2000).any(|_| {
            let limit = Amount::limit(Some(300), None);
            let steps = steps().new_tree(&mut runner).unwrap().current();
            wrong(limit, &steps, fault).is_some()
        });
        assert!(seen);
    }
}

#[test]
fn one_busy_host_of_eight_uses_the_whole_limit() {
    let limit = Amount::limit(Some(10_000), None);
    let mut escrow = Escrow::new(limit, &[60; 8], Fault::None);
    for _ in 0..4000 {
        escrow.traffic(3, 20);
        escrow.turn();
        std::mem::take(&mut escrow.messages).into_iter().for_each(|message| escrow.arrive(message));
    }
    assert_eq!((escrow.used().packets, escrow.durable.reached), (10_000, Some(Reached::Packets)));
}

#[test]
fn what_a_silent_host_holds_is_never_granted_again() {
    let limit = Amount::limit(Some(1000), None);
    let mut escrow = Escrow::new(limit, &[60; 2], Fault::None);
    let held = escrow.durable.holders[1].granted.packets;
    for _ in 0..4000 {
        escrow.traffic(0, 20);
        escrow.turn();
        let messages = std::mem::take(&mut escrow.messages);
        let heard = messages
            .into_iter()
            .filter(|message| !matches!(message, Message::Up(1, _) | Message::Down(1, _)));
        heard.collect::<Vec<_>>().into_iter().for_each(|message| escrow.arrive(message));
    }
    assert_eq!(escrow.durable.reached, Some(Reached::Packets));
    assert_eq!(escrow.used().packets, 1000 - held);
    // It may use what it holds, even now.
    escrow.traffic(1, 2000);
    assert_eq!(escrow.used().packets, 1000);
}

#[test]
fn a_late_answer_to_an_overtaken_grant_does_not_close_the_limit() {
    let limit = Amount::limit(Some(100), None);
    let mut pool = Pool::dealt(limit, &[1, 1], 4);
    pool.grant_of(0, pool.free());
    let mut desk = Desk::new(2, 1, Settings::default());
    let now = |ms: u64| Now { mono: Duration::from_millis(ms), wall: Duration::ZERO };
    let dry = Report {
        at: 1,
        granted: pool.holders[1].granted,
        used: pool.holders[1].granted,
        needs: Some(Amount::new(1, 60)),
        wants: Amount::new(64, 0),
        ..Report::default()
    };
    desk.told(1, dry, now(0));
    let mut round = 0;
    for ms in (0..8000).step_by(50) {
        let (next, sent) = desk.turn(&pool, now(ms));
        assert!(next.is_none(), "host 0 has not said that it knows its grant");
        for (to, down) in sent {
            let Down::Recall { round: number, .. } = down else { continue };
            round = number;
            let known = if to == 0 { Amount::NONE } else { pool.holders[1].granted };
            let answer = Report { at: 2 + ms, granted: known, recalled: number, ..dry };
            desk.told(
                to,
                Report { used: Amount::NONE, needs: (to == 1).then_some(Amount::new(1, 60)), ..answer },
                now(ms),
            );
        }
    }
    assert!(round > 0);
}

#[test]
fn a_few_packets_a_second_reach_a_limit_and_close_it() {
    for (hosts, limit) in [(1, 100), (8, 200)] {
        let mut escrow = Escrow::new(Amount::limit(Some(limit), None), &vec![60; hosts], Fault::None);
        let mut full_at = None;
        for turn in 0..6000 {
            // Two frames a second to each host, not at the same time.
            let all = 0..hosts;
            all.filter(|host| (turn + host) % 10 == 0).for_each(|host| escrow.traffic(host, 1));
            escrow.turn();
            std::mem::take(&mut escrow.messages).into_iter().for_each(|message| escrow.arrive(message));
            if escrow.used().packets == limit {
                full_at = full_at.or(Some(turn));
            }
            if escrow.durable.reached.is_some() {
                break;
            }
        }
        assert_eq!((escrow.used().packets, escrow.durable.reached), (limit, Some(Reached::Packets)));
        assert!(full_at.is_some(), "{hosts} hosts");
    }
}

#[test]
fn a_byte_limit_of_terabytes_is_a_limit() {
    let limit = Amount::limit(None, Some(1 << 45));
    let now = |ms: u64| Now { mono: Duration::from_millis(ms), wall: Duration::ZERO };
    let mut holding = Holding::new(Amount::new(limit.packets / 4, 1 << 43), limit, 1, Settings::default());
    let used = Amount::new(1 << 33, 1 << 43);
    holding.turn(&Meter { offered: used, used, refused: Some(1500), ..Meter::default() }, now(1000));
    let report = holding.report(now(1000)).unwrap();
    assert!(report.wants.bytes > 0 && report.wants.packets == 0, "{report:?}");
    assert_eq!(holding.recall(1, true).keep.bytes, 0, "what is unused stays with it for good");
}

#[test]
fn an_old_recall_takes_nothing_back() {
    let limit = Amount::limit(Some(1000), None);
    let mut holding = Holding::new(Amount::new(100, 0), limit, 1, Settings::default());
    holding.reclaimed(5, Amount::NONE, Amount::NONE);
    assert!(holding.is_old(4, Amount::new(100, 0)), "a round that was answered");
    assert!(!holding.is_old(6, Amount::new(100, 0)));
    let _ = holding.grant(Amount::new(300, 0));
    assert!(holding.is_old(6, Amount::new(100, 0)), "it was sent before a grant that is here");
    assert!(
        !holding.is_old(5, Amount::new(400, 0)),
        "the same round, and with it a grant that was overtaken"
    );
}

#[test]
fn a_recall_that_comes_twice_is_answered_once_all_that_it_took_is_told() {
    let limit = Amount::limit(Some(1000), None);
    let now = Now { mono: Duration::from_secs(1), wall: Duration::ZERO };
    let mut holding = Holding::new(Amount::new(100, 0), limit, 1, Settings::default());
    let (first, second) = (holding.recall(5, true), holding.recall(5, true));
    // The second found nothing left, and is answered first.
    holding.reclaimed(second.round, Amount::NONE, Amount::NONE);
    let early = holding.report(now).map_or(0, |report| report.recalled);
    assert_eq!(early, 0, "the round is taken for answered, and a return is under way");
    holding.reclaimed(first.round, Amount::new(100, 0), Amount::NONE);
    let report = holding.report(now).unwrap();
    assert_eq!((report.recalled, report.returned.packets), (5, 100));
}

#[test]
fn who_asks_first_leaves_as_much_to_each_other_host() {
    let limit = Amount::limit(Some(80_000), None);
    let pool = Pool::dealt(limit, &[1; 8], 4);
    let mut desk = Desk::new(8, 1, Settings::default());
    let now = Now { mono: Duration::from_secs(1), wall: Duration::ZERO };
    for holder in 0..8 {
        let wants = if holder == 0 { Amount::new(1_000_000, 0) } else { Amount::NONE };
        let granted = pool.holders[holder as usize].granted;
        let used = Amount::new(1, 60);
        desk.told(holder, Report { at: 1, granted, used, wants, ..Report::default() }, now);
    }
    let (next, _) = desk.turn(&pool, now);
    let more = next.unwrap().holders[0].granted.minus(pool.holders[0].granted);
    assert_eq!(more.packets, pool.free().packets / 16);
}

#[test]
fn a_grant_that_the_record_does_not_have_is_not_free() {
    let limit = Amount::limit(Some(1000), None);
    let mut pool = Pool::dealt(limit, &[1, 1], 4);
    let known = Amount::new(900, 0);
    pool.report(0, &Report { at: 1, granted: known, ..Report::default() });
    assert_eq!(pool.free().packets, 0);
}

#[test]
fn a_holder_that_gave_everything_back_has_used_nothing_of_it() {
    let limit = Amount::limit(Some(1000), None);
    let mut pool = Pool::dealt(limit, &[1, 1], 4);
    let granted = pool.holders[0].granted;
    pool.report(0, &Report { at: 1, granted, returned: granted, ..Report::default() });
    pool.grant_of(1, pool.free());
    pool.report(0, &Report { at: 2, granted, used: granted, is_final: true, ..Report::default() });
    assert!(pool.check(), "{pool:?}");
}
