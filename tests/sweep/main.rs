//! Every operation that can fail is made to fail, once or from then on, and the invariants are checked after each (as SQLite's
//! tests do).
//!
//! `failnth.c` sees every system call of a scenario's process and makes one of them fail. A first run without a fault tells
//! which calls there are. Each test sweeps one scenario: in `scripts/test.sh` so many of its calls that every kind is hit, with
//! `TRAWL_SWEEP=all` all of them, with `TRAWL_SWEEP=3/20` every 20th, beginning with the third. What io_uring does is no call: the scenarios run without it, so that each write is one.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/api.rs"]
mod api;
mod audit;
mod client;
mod disk;
mod errnos;
mod facts;
mod injector;
mod plan;
#[path = "../pipeline/rig.rs"]
#[allow(dead_code)]
mod rig;
mod scenario;
mod source;
mod sweep;

/// The test that a scenario's process runs.
const CHILD_TEST: &str = "every_failing_call_is_survived_by_a_full_capture";

#[test]
fn every_failing_call_is_survived_by_a_full_capture() {
    if scenario::run_if_asked() {
        return;
    }
    sweep::sweep("full_direct");
}

#[test]
fn every_failing_call_is_survived_by_mapped_segments() {
    sweep::sweep("full_mapped_zstd");
}

#[test]
fn every_failing_call_is_survived_by_a_shutdown() {
    sweep::sweep("shutdown_direct");
}

#[test]
fn every_failing_call_is_survived_by_a_look_back() {
    sweep::sweep("simple_and_look_back");
}

#[test]
fn every_failing_call_is_survived_by_a_download() {
    sweep::sweep("simple_over_http");
}

#[test]
fn every_failing_call_is_survived_by_a_recovery() {
    sweep::sweep("recover_direct");
}

#[test]
fn every_failing_call_is_survived_by_a_mapped_recovery() {
    sweep::sweep("recover_mapped");
}
