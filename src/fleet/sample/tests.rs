//! The sample is uniform: exactly, by going through every outcome of small cases, and by chi-square for large ones.

use super::{
    Chance, Counts, Dice, Hashed, Kept, LEVEL_MAX, Packet, Tags, cap, choose, common_level, draw, level_max,
    mix,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Dice that go through every outcome, each exactly once: an odometer whose wheels are as large as what is asked for.
#[derive(Default)]
struct Every {
    wheels: Vec<(u64, u64)>,
    at: usize,
}

impl Dice for Every {
    fn below(&mut self, bound: u64) -> u64 {
        if self.at == self.wheels.len() {
            self.wheels.push((0, bound));
        }
        let (value, size) = self.wheels[self.at];
        assert_eq!(size, bound, "an outcome is weighed by the sizes of its wheels");
        self.at += 1;
        value
    }
}

impl Every {
    /// The next outcome; false after the last one.
    fn turn(&mut self) -> bool {
        self.at = 0;
        while let Some((value, size)) = self.wheels.pop() {
            if value + 1 < size {
                self.wheels.push((value + 1, size));
                return true;
            }
        }
        false
    }
}

#[test]
fn every_set_is_drawn_equally_often() {
    for (of, count) in [(1, 1), (5, 2), (5, 5), (6, 3), (3, 7), (4, 0)] {
        let mut often: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
        let mut every = Every::default();
        loop {
            *often.entry(choose(&mut every, of, count).into_iter().collect()).or_default() += 1;
            if !every.turn() {
                break;
            }
        }
        let sets = binomial(of, count.min(of));
        assert_eq!(often.len() as u64, sets, "{count} of {of}");
        assert!(often.values().all(|times| times == often.values().next().unwrap()), "{often:?}");
        assert!(often.keys().all(|set| set.len() as u64 == count.min(of)));
    }
}

fn binomial(of: u64, count: u64) -> u64 {
    (0..count).fold(1, |product, step| product * (of - step) / (step + 1))
}

#[test]
fn quotas_are_hypergeometric() {
    let of = [2, 1, 0, 3];
    let packets = 3;
    let mut often: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
    let (mut every, mut outcomes) = (Every::default(), 0);
    loop {
        *often.entry(draw(&mut every, &of, packets)).or_default() += 1;
        outcomes += 1;
        if !every.turn() {
            break;
        }
    }
    for (quotas, times) in &often {
        let ways: u64 = of.iter().zip(quotas).map(|(of, quota)| binomial(*of, *quota)).product();
        assert_eq!(times * binomial(6, packets), ways * outcomes, "{quotas:?}");
    }
    assert_eq!(often.values().sum::<u64>(), outcomes);
}

/// Tags that a test names; few bits, so that all of them can be gone through.
#[derive(Clone, Default)]
struct Table(Rc<RefCell<Vec<u64>>>);

impl Tags for Table {
    fn bits(&self, _: u16, sequence: u64) -> u64 {
        self.0.borrow()[sequence as usize]
    }
    fn level_max(&self) -> u8 {
        LEVELS
    }
}

const LEVELS: u8 = 3;

/// One host with these tags, its level settled after each packet or at the end only. Packets that the data plane would not have
/// kept at the level of the moment are not told. What it keeps, and the tags of that by number.
fn host(tags: &[u64], cap: u64, settles_often: bool) -> (Kept<Table>, Vec<usize>) {
    let mut told = Vec::new();
    let table = Table::default();
    let mut kept = Kept::new(table.clone(), cap, LEVEL_MAX);
    for (packet, bits) in tags.iter().enumerate() {
        let level = kept.level();
        if bits & ((1 << level) - 1) == 0 {
            told.push(packet);
            table.0.borrow_mut().push(*bits);
            kept.took(0, level, 1);
        }
        if settles_often {
            kept.settle();
        }
    }
    kept.settle();
    (kept, told)
}

/// Probabilities of packets to be in the file, in units that are the same for all: over every combination of tags.
fn inclusion(sizes: &[usize], cap: u64, packets: u64, level_of: impl Fn(&[Counts]) -> u8) -> Vec<u64> {
    // Any number of packets that can be there divides it.
    const UNIT: u64 = 60;
    let all: usize = sizes.iter().sum();
    let mut sums = vec![0; all];
    for outcome in 0..1u64 << (u32::from(LEVELS) * all as u32) {
        let bits = |packet: usize| outcome >> (packet * usize::from(LEVELS)) & ((1 << LEVELS) - 1);
        let mut first = 0;
        let mut hosts = Vec::new();
        for size in sizes {
            let tags: Vec<u64> = (first..first + size).map(bits).collect();
            let (kept, told) = host(&tags, cap, outcome % 2 == 0);
            hosts.push((first, kept, told));
            first += size;
        }
        let counts: Vec<Counts> =
            hosts.iter().map(|(_, kept, told)| kept.counts(told.len() as u64)).collect();
        let level = level_of(&counts);
        let there: u64 = counts.iter().map(|counts| counts.at(level)).sum();
        for (first, kept, told) in &hosts {
            for packet in kept.at(level) {
                sums[first + told[packet.sequence as usize]] += UNIT * packets.min(there) / there;
            }
        }
    }
    sums
}

#[test]
fn every_packet_of_every_host_is_in_the_file_with_the_same_probability() {
    for (sizes, cap, packets) in
        [(vec![4, 1], 2, 1), (vec![3, 1, 1], 2, 2), (vec![5], 3, 1), (vec![2, 2], 1, 1)]
    {
        let sums = inclusion(&sizes, cap, packets, |counts| common_level(counts.iter(), cap).min(LEVELS));
        assert!(sums[0] > 0 && sums.iter().all(|sum| *sum == sums[0]), "{sizes:?}: {sums:?}");
    }
}

#[test]
fn the_level_of_the_busiest_host_would_favour_others() {
    let busiest = |counts: &[Counts]| counts.iter().map(|counts| counts.level).max().unwrap();
    let sums = inclusion(&[4, 1], 2, 1, busiest);
    assert!(sums[4] > sums[0], "{sums:?}");
}

#[test]
fn a_first_come_sample_would_favour_the_beginning() {
    // One packet of four, the first that one in two keeps.
    let mut often = [0; 4];
    for outcome in 0..16u32 {
        if let Some(first) = (0..4).find(|packet| outcome >> packet & 1 == 0) {
            often[first] += 1;
        }
    }
    assert!(often.is_sorted_by(|earlier, later| earlier > later), "{often:?}");
}

#[test]
fn counts_at_each_level_are_what_is_there() {
    let mut kept = Kept::new(Hashed { seed: 7, host: 3 }, 100, LEVEL_MAX);
    for turn in 0..50 {
        let level = kept.level();
        kept.took(turn % 2, level, 40 >> level);
        kept.settle();
    }
    let counts = kept.counts(2000);
    assert!(counts.level > 0 && counts.at(counts.level) <= 100);
    for level in counts.level..20 {
        assert_eq!(counts.at(level), kept.at(level).count() as u64, "level {level}");
    }
}

#[test]
fn workers_that_hear_of_a_level_late_change_nothing() {
    let tags = Hashed { seed: 1, host: 1 };
    let mut at_once = Kept::new(tags, 10, LEVEL_MAX);
    let mut late = Kept::new(tags, 10, LEVEL_MAX);
    for _ in 0..200 {
        at_once.took(0, 0, 1);
        at_once.settle();
    }
    late.took(0, 0, 200);
    late.settle();
    assert_eq!((at_once.level(), at_once.counts(0)), (late.level(), late.counts(0)));
}

#[test]
fn a_restart_picks_the_same_packets_and_another_round_others() {
    let mut kept = Kept::new(Hashed { seed: 5, host: 2 }, 1000, LEVEL_MAX);
    kept.took(0, 0, 500);
    let pick = |round: u64| kept.pick(&mut Chance::new(&[5, 2, round]), 0, 50);
    assert_eq!(pick(1), pick(1));
    assert_ne!(pick(1), pick(2));
}

/// Chi-square with its degrees of freedom, as a normal deviate (Wilson and Hilferty, 1931).
fn deviate(observed: &[u64], expected: &[f64]) -> f64 {
    let chi: f64 = observed.iter().zip(expected).map(|(o, e)| (*o as f64 - e).powi(2) / e).sum();
    let freedom = observed.len() as f64 - 1.0;
    ((chi / freedom).cbrt() - (1.0 - 2.0 / (9.0 * freedom))) / (2.0 / (9.0 * freedom)).sqrt()
}

/// p < 0.001.
const DEVIATE_MAX: f64 = 3.09;

/// A whole capture at rates of 1 : 10 : 100, two queues at 1 : 3, in 20 slices of time: packets of the file by host, and by slice.
fn capture(seed: u64, packets: u64, level_of: impl Fn(&[Counts], u64) -> u8) -> (Vec<u64>, Vec<u64>) {
    let rates = [10u64, 100, 1000];
    let slices = 20;
    let mut hosts = Vec::new();
    for (host, rate) in rates.iter().enumerate() {
        let mut plane = Chance::new(&[seed, host as u64]);
        let mut kept = Kept::new(Hashed { seed, host: host as u32 }, cap(packets), LEVEL_MAX);
        let mut slice_of: BTreeMap<Packet, usize> = BTreeMap::new();
        let mut next = [0; 2];
        for slice in 0..slices {
            for number in 0..*rate {
                let stream = usize::from(number % 4 > 0);
                if plane.below(1 << kept.level()) == 0 {
                    slice_of.insert(Packet { stream: stream as u16, sequence: next[stream] }, slice);
                    next[stream] += 1;
                    kept.took(stream as u16, kept.level(), 1);
                }
            }
            kept.settle();
        }
        hosts.push((kept, slice_of, rate * slices as u64));
    }
    let counts: Vec<Counts> = hosts.iter().map(|(kept, _, matched)| kept.counts(*matched)).collect();
    let level = level_of(&counts, cap(packets));
    let there: Vec<u64> = counts.iter().map(|counts| counts.at(level)).collect();
    let quotas = draw(&mut Chance::new(&[seed, 99]), &there, packets);
    assert_eq!(quotas.iter().sum::<u64>(), packets);
    let mut by_slice = vec![0; slices];
    for ((kept, slice_of, _), quota) in hosts.iter().zip(&quotas) {
        for packet in kept.pick(&mut Chance::new(&[seed, 100]), level, *quota) {
            by_slice[slice_of[&packet]] += 1;
        }
    }
    (quotas, by_slice)
}

fn many(level_of: impl Fn(&[Counts], u64) -> u8 + Copy) -> (f64, f64) {
    let (mut by_host, mut by_slice) = (vec![0; 3], vec![0; 20]);
    let (runs, packets) = (200, 200);
    for seed in 0..runs {
        let (hosts, slices) = capture(seed, packets, level_of);
        by_host.iter_mut().zip(hosts).for_each(|(sum, host)| *sum += host);
        by_slice.iter_mut().zip(slices).for_each(|(sum, slice)| *sum += slice);
    }
    let all = (runs * packets) as f64;
    let hosts = [1.0, 10.0, 100.0].map(|rate| all * rate / 111.0);
    (deviate(&by_host, &hosts), deviate(&by_slice, &[all / 20.0; 20]))
}

#[test]
fn packets_fall_on_hosts_by_their_traffic_and_evenly_on_the_window() {
    let (hosts, slices) = many(|counts, cap| common_level(counts.iter(), cap));
    assert!(hosts.abs() < DEVIATE_MAX && slices.abs() < DEVIATE_MAX, "{hosts} {slices}");
}

#[test]
fn equal_shares_of_hosts_would_be_seen() {
    let equal = deviate(&[100, 100, 100], &[1.0, 10.0, 100.0].map(|rate| 300.0 * rate / 111.0));
    assert!(equal > 10.0, "{equal}");
}

#[test]
fn a_cap_leaves_enough_of_the_next_level() {
    // Sum of the lower tail of Binomial(cap + 1, 1/2), by its logarithm.
    for packets in [1u64, 2, 10, 100, 1000] {
        let trials = cap(packets) + 1;
        let mut log_term = -(trials as f64) * std::f64::consts::LN_2;
        let mut sum = log_term.exp();
        for hits in 1..packets {
            log_term += ((trials - hits + 1) as f64 / hits as f64).ln();
            sum += log_term.exp();
        }
        assert!(sum < 1e-30, "{packets}: {sum}");
    }
}

#[test]
fn seeds_give_sequences_of_their_own() {
    let mut one = Chance::new(&[1, 2]);
    let (mut other, mut again) = (Chance::new(&[2, 1]), Chance::new(&[1, 2]));
    let numbers: Vec<u64> = (0..8).map(|_| one.next()).collect();
    assert_eq!(numbers, (0..8).map(|_| again.next()).collect::<Vec<_>>());
    assert_ne!(numbers, (0..8).map(|_| other.next()).collect::<Vec<_>>());
    assert_ne!(mix(&[0]), mix(&[0, 0]));
    let mut often = [0u64; 10];
    (0..100_000).for_each(|_| often[one.below(10) as usize] += 1);
    assert!(deviate(&often, &[10_000.0; 10]).abs() < DEVIATE_MAX, "{often:?}");
}

#[test]
fn a_crash_that_takes_the_tail_of_one_queue_leaves_no_level_below_that_of_a_segment() {
    // Both queues had 110 packets before the level rose. One lost its last 40, the other one has all and what came afterwards.
    let mut kept = Kept::new(Hashed { seed: 11, host: 1 }, 208, LEVEL_MAX);
    for (stream, level, packets) in [(0, 0, 70), (1, 0, 110), (1, 1, 25)] {
        kept.took(stream, level, packets);
    }
    kept.settle();
    let counts = kept.counts(1000);
    assert_eq!(counts.level, 1, "packets of the second level would count twice as much as others");
    assert_eq!(counts.at(1), kept.at(1).count() as u64);
}

#[test]
fn counts_of_others_do_not_overflow() {
    let all = Counts { level: 48, matched: u64::MAX, kept: vec![u64::MAX] };
    assert_eq!(common_level([&all, &all].into_iter(), 100), 48);
    assert_eq!(draw(&mut Chance::new(&[1]), &[u64::MAX, u64::MAX], 3).iter().sum::<u64>(), 3);
}

#[test]
fn workers_are_never_told_a_sample_beyond_32_bits() {
    for one_in in [1, 2, 3, 100, 65_536, u32::MAX / 2, u32::MAX] {
        let most = level_max(one_in);
        assert!(
            u64::from(one_in) << most <= u64::from(u32::MAX)
                && u64::from(one_in) << (most + 1) > u64::from(u32::MAX)
        );
    }
    let mut kept = Kept::new(Hashed { seed: 1, host: 0 }, 1, level_max(1 << 30));
    kept.took(0, 0, 1000);
    kept.settle();
    assert_eq!(kept.level(), 1);
    let counts = kept.counts(1000);
    assert!(counts.is_possible() && counts.at(1) > 1, "{counts:?}");
}
