//! Every interleaving of the lock-free code under loom's memory model. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --manifest-path loom/Cargo.toml --release`.
#![cfg(all(loom, test))]

#[path = "../../src/worker/budget.rs"]
#[allow(dead_code)]
mod budget;
#[path = "../../src/worker/sequence.rs"]
#[allow(dead_code)]
mod sequence;

use budget::{Budget, Ended};
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
