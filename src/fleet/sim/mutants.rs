//! Deliberate faults of the world around the core, each of which the checker must find: a check that finds none holds nothing. Owns
//! which invariant each of them breaks.
//!
//! Invariant: the same seeds without the fault pass.

use super::network::Place;
use super::plan::{ACCEPTED, Crash, Mutant, Plan, SECOND};
use super::run;
use crate::fleet::Kind;
use crate::fleet::shares::Amount;

/// Seeds that are tried for one fault.
const SEEDS: u64 = 600;

/// Runs with a fault until the checker complains; in how many words it does. `shape` makes what the fault needs to show.
fn found(mutant: Mutant, says: &[&str], shape: impl Fn(&mut Plan)) {
    for seed in 0..SEEDS {
        let plan = || {
            let mut plan = Plan::by_chance(seed);
            // What the store loses, or a host forges, would hide the fault.
            (plan.purged, plan.recreated, plan.forged, plan.new_disks) = Default::default();
            shape(&mut plan);
            plan
        };
        let Err(wrong) = run(Plan { mutant, ..plan() }) else { continue };
        if says.iter().any(|word| wrong.contains(word)) {
            run(plan()).unwrap_or_else(|wrong| panic!("without {mutant:?}, seed {seed}: {wrong}"));
            return;
        }
        panic!("{mutant:?}, seed {seed}: found by another check: {wrong}");
    }
    panic!("{mutant:?} was not found in {SEEDS} runs");
}

/// A limit that busy hosts reach, so that shares go to and fro.
fn limited(plan: &mut Plan) {
    plan.kind = Kind::Full { limit: Some(Amount::limit(Some(3000), None)) };
    plan.rates.iter_mut().for_each(|rate| *rate = rate.max(150.0));
    plan.window = 30 * SECOND;
    plan.quiet_at = ACCEPTED + 70 * SECOND;
    plan.stop_at = None;
    plan.refuse_permille = 0;
}

fn flat(plan: &mut Plan) {
    limited(plan);
    plan.settings.branch_beyond = usize::MAX;
}

fn simple(plan: &mut Plan) {
    plan.kind = Kind::Simple { packets: 100, one_in: 1 };
    plan.rates.iter_mut().for_each(|rate| *rate = rate.max(20.0));
}

fn crashing(plan: &mut Plan) {
    flat(plan);
    let at = ACCEPTED + 5 * SECOND;
    plan.crashes.push(Crash { node: Place::Host(0), at, back: Some(at + SECOND) });
}

const OVER: &[&str] = &["is the limit", "is durable, and it has", "is more than there is", "and was given"];

#[test]
fn a_store_that_does_not_compare_revisions_is_found() {
    found(
        Mutant::StoreIgnoresRevisions,
        &["after", "changed", "forgotten", "is durable", "twice", "limit"],
        flat,
    );
}

#[test]
fn a_grant_that_is_told_before_it_is_durable_is_found() {
    found(Mutant::TellsBeforeItIsDurable, OVER, flat);
}

#[test]
fn a_budget_that_is_not_lowered_by_what_is_returned_is_found() {
    found(Mutant::KeepsWhatItReturns, OVER, flat);
}

#[test]
fn a_host_that_captures_again_after_a_restart_is_found() {
    found(Mutant::ForgetsThatItAccepted, &["is the limit", "are told", "after Part"], crashing);
}

#[test]
fn a_grant_that_counts_twice_is_found() {
    found(Mutant::GrantsAddUp, OVER, flat);
}

#[test]
fn a_limit_that_is_granted_again_because_a_host_is_silent_is_found() {
    let says = [OVER, &["are accounted for"]].concat();
    found(Mutant::SilenceIsAReturn, &says, flat);
}

#[test]
fn a_limit_that_is_closed_before_it_is_used_up_is_found() {
    found(Mutant::AnswersWithoutReturning, &["at the end, and used", "every host answered"], flat);
}

#[test]
fn a_host_that_is_not_named_because_it_is_down_is_found() {
    found(Mutant::OnlyTheLivingAreMembers, &["hosts are members"], |plan| {
        let last = plan.hosts.len() as u32 - 1;
        plan.crashes.push(Crash { node: Place::Host(last), at: SECOND, back: None });
    });
}

#[test]
fn two_outcomes_of_one_capture_are_found() {
    found(Mutant::PublishesAgain, &["the job says otherwise"], flat);
}

#[test]
fn a_phase_that_goes_back_is_found() {
    found(
        Mutant::FrontWritesOldJobs,
        &["after Running", "the members changed", "after Conversion"],
        |plan| {
            flat(plan);
            plan.stop_at = Some(ACCEPTED + 20 * SECOND);
        },
    );
}

#[test]
fn a_host_that_counts_a_packet_that_is_not_there_is_found() {
    found(Mutant::CountsOneMore, &["are told"], |plan| plan.kind = Kind::Full { limit: None });
}

#[test]
fn a_packet_that_is_in_the_file_twice_is_found() {
    found(Mutant::GivesAPacketTwice, &["is in the file twice"], simple);
}

#[test]
fn a_file_with_more_packets_than_were_asked_for_is_found() {
    found(Mutant::GivesOneMore, &["are in the file, and"], simple);
}

#[test]
fn a_store_that_forgets_what_it_acknowledged_is_found() {
    found(
        Mutant::StoreForgetsWrites,
        &["is durable", "after", "is the limit", "changed", "not over", "otherwise", "nobody knows"],
        |plan| {
            flat(plan);
            plan.elections.push((ACCEPTED + 6 * SECOND, ACCEPTED + 7 * SECOND));
        },
    );
}

#[test]
fn a_capture_that_never_ends_is_found() {
    found(Mutant::NeverTellsOfDelivery, &["not over"], flat);
}

#[test]
fn a_refusal_that_a_restart_forgets_is_found() {
    found(
        Mutant::RefusalsAreNotKept,
        &["is the limit", "is durable, and it has", "are told", "after"],
        |plan| {
            limited(plan);
            plan.refuse_permille = 1000;
            plan.refuse_until = ACCEPTED + 6 * SECOND;
            let at = ACCEPTED + 5 * SECOND;
            for host in 0..plan.hosts.len() as u32 {
                plan.crashes.push(Crash { node: Place::Host(host), at, back: Some(at + 2 * SECOND) });
            }
        },
    );
}

#[test]
fn a_host_that_captures_before_its_disk_knows_is_found() {
    found(Mutant::AttachesBeforeItIsKept, &["is the limit", "is durable, and it has", "are told"], |plan| {
        flat(plan);
        plan.keep_max = 10 * SECOND;
        for host in 0..plan.hosts.len() as u32 {
            let at = ACCEPTED + (2 + u64::from(host) % 6) * SECOND;
            plan.crashes.push(Crash { node: Place::Host(host), at, back: Some(at + SECOND) });
        }
    });
}
