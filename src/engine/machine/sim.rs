//! The machine in a world of chance: any order of outcomes, any failure, clocks that are set, crashes and shutdowns. Owns the
//! choice of what happens next; the world and what must hold in it are in `world`.
//!
//! A run is named by its seed. `TRAWL_SIM_SEED=17` repeats one run, `TRAWL_SIM_RUNS=100000` makes so many of them.
//!
//! Invariant: a run ends with everything answered, so what is not at rest then never would be.

mod answers;
mod effects;
mod parts;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use world::World;

/// Random numbers of which each seed gives a sequence of its own (splitmix64).
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Whether something happens that happens so often in a thousand times.
    fn permille(&mut self, often: u64) -> bool {
        self.below(1000) < often
    }
}

/// Happenings of one run.
const HAPPENINGS: u64 = 1000;
const RUNS: u64 = 1500;
/// Steps of the machine in that many runs, at least.
const STEPS: u64 = 1_000_000;

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..HAPPENINGS {
        world.something_happens();
    }
    world.come_to_rest();
    TAKEN.fetch_add(world.taken, Relaxed);
    world.steps
}

/// Captures and leftovers that accounts lost to others in all runs.
static TAKEN: AtomicU64 = AtomicU64::new(0);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
#[cfg_attr(miri, ignore)]
fn whatever_happens_in_any_order_every_capture_ends_and_nothing_is_lost() {
    if let Some(seed) = variable("TRAWL_SIM_SEED") {
        run(seed);
        return;
    }
    let runs = variable("TRAWL_SIM_RUNS").unwrap_or(RUNS);
    let first = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap() * 1_000_000;
    // Half of the runs are the same each time, half are new.
    let seeds = (0..runs).map(|run| if run % 2 == 0 { run } else { first + run });
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut dealt: Vec<Vec<u64>> = vec![Vec::new(); threads];
    seeds.enumerate().for_each(|(n, seed)| dealt[n % threads].push(seed));
    let steps: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = dealt
            .iter()
            .map(|seeds| {
                scope.spawn(move || {
                    let of_one = |seed: &u64| {
                        std::panic::catch_unwind(|| run(*seed))
                            .unwrap_or_else(|_| panic!("repeat it with TRAWL_SIM_SEED={seed}"))
                    };
                    seeds.iter().map(of_one).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let taken = TAKEN.load(Relaxed);
    println!("{steps} steps in {runs} runs; {taken} times an account lost data to others");
    assert!(runs < RUNS || (steps >= STEPS && taken >= runs / 10));
}

#[test]
fn chance_is_the_same_for_the_same_seed() {
    let (mut a, mut b) = (Chance(5), Chance(5));
    assert!((0..100).all(|_| a.next() == b.next()));
}
