//! Every interleaving of the lock-free code under loom's memory model. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --manifest-path loom/Cargo.toml --release`.
#![cfg(all(loom, test))]

#[path = "../../src/worker/budget.rs"]
#[allow(dead_code)]
mod budget;
#[path = "../../src/worker/sequence.rs"]
#[allow(dead_code)]
mod sequence;

use budget::{Budget, Ended, Share};
use loom::sync::Arc;
use loom::thread;
use sequence::Words;

#[test]
fn a_reader_sees_all_of_a_publication_or_none() {
    // Each failed attempt of the reader is a branch without progress; bound them, not the interleavings.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let words = Arc::new(Words::<2>::default());
        let writer = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                words.publish(|p| {
                    p.set(0, 1);
                    p.set(1, 10);
                });
            })
        };
        let (a, b) = words.read(|get| (get(0), get(1)));
        assert_eq!(b, 10 * a);
        writer.join().unwrap();
    });
}

#[test]
fn two_workers_never_take_more_packets_than_there_are_and_leave_none() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(Some(3), None));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(2, [60, 60].into_iter()))
        };
        let mine = budget.take(2, [60, 60].into_iter());
        assert_eq!(mine + other.join().unwrap(), 3);
        assert_eq!(budget.ended(), Some(Ended::Packets));
    });
}

#[test]
fn two_workers_never_pass_the_byte_limit() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(Some(10), Some(100)));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(1, [60].into_iter()))
        };
        let mine = budget.take(1, [60].into_iter());
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!(budget.ended(), Some(Ended::Bytes));
    });
}

/// Two workers, and what they take of a budget with both limits; returns how much together, and why it ended.
fn both_limits(packets: u64, bytes: u64, other: usize, mine: usize, check: impl Fn(usize, Option<Ended>)) {
    let budget = Arc::new(Budget::new(Some(packets), Some(bytes)));
    let thread = {
        let budget = Arc::clone(&budget);
        thread::spawn(move || budget.take(other, std::iter::repeat_n(60, other)))
    };
    let mine = budget.take(mine, std::iter::repeat_n(60, mine));
    check(mine + thread.join().unwrap(), budget.ended());
}

#[test]
fn a_packet_that_the_byte_limit_refuses_is_never_taken_for_the_last_one() {
    loom::model(|| both_limits(2, 60, 2, 1, |taken, why| assert_eq!((taken, why), (1, Some(Ended::Bytes)))));
    loom::model(|| both_limits(3, 120, 2, 1, |taken, why| assert_eq!((taken, why), (2, Some(Ended::Bytes)))));
    loom::model(|| both_limits(2, 60, 1, 1, |taken, why| assert_eq!((taken, why), (1, Some(Ended::Bytes)))));
}

#[test]
fn the_last_packet_is_the_reason_when_every_packet_fits() {
    loom::model(|| {
        both_limits(2, 120, 1, 1, |taken, why| assert_eq!((taken, why), (2, Some(Ended::Packets))))
    });
    loom::model(|| {
        both_limits(2, 120, 2, 1, |taken, why| assert_eq!((taken, why), (2, Some(Ended::Packets))))
    });
}

#[test]
fn a_count_that_came_round_is_never_taken_for_the_last_packet() {
    // With two bits of count one appended packet of five looks like all five, once the others are reserved.
    loom::model(|| {
        let budget = Arc::new(Budget::new(Some(5), Some(240)));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || (0..2).map(|_| budget.take(2, [60; 2].into_iter())).sum::<usize>())
        };
        let mine = budget.take(1, [60].into_iter());
        assert_eq!((mine + other.join().unwrap(), budget.ended()), (4, Some(Ended::Bytes)));
    });
}

fn share(packets: u64, bytes: u64) -> Share {
    Share { packets, bytes }
}

#[test]
fn of_a_share_everything_that_was_granted_is_used_left_or_reclaimed() {
    loom::model(|| {
        let budget = Arc::new(Budget::share(share(2, 90)));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(2, [60, 60].into_iter()) as u64)
        };
        let back = budget.reclaim(share(1, 60));
        let used = other.join().unwrap();
        let left = budget.left();
        assert_eq!(used + back.packets + left.packets, 2);
        assert_eq!(60 * used + back.bytes + left.bytes, 90);
        assert_eq!(budget.ended(), None);
    });
}

#[test]
fn two_workers_never_take_more_than_was_granted_and_a_refused_frame_is_told() {
    loom::model(|| {
        let budget = Arc::new(Budget::share(share(2, 100)));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(1, [60].into_iter()))
        };
        let mine = budget.take(1, [60].into_iter());
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!((budget.refused(), budget.refused()), (Some(60), None));
        assert_eq!(budget.left(), share(1, 40));
    });
}

#[test]
fn a_grant_beside_a_worker_is_neither_lost_nor_given_twice() {
    loom::model(|| {
        let budget = Arc::new(Budget::share(share(1, 60)));
        let other = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(2, [60, 60].into_iter()) as u64)
        };
        budget.grant(share(1, 60));
        let used = other.join().unwrap();
        assert!(used == 1 || used == 2);
        assert_eq!(budget.left(), share(2 - used, 120 - 60 * used));
    });
}
