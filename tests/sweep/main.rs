//! Every operation that can fail is made to fail, once or from then on, and the invariants are checked after each (as SQLite's
//! tests do).
//!
//! `failnth.c` sees every system call of a scenario's process and makes one of them fail. A first run without a fault tells
//! which calls there are. Each test sweeps one scenario: in `scripts/test.sh` so many of its calls that every kind is hit, with
//! `TRAWL_SWEEP=all` all of them. What io_uring does is no call: the scenarios run without it, so that each write is one.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]

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
const CHILD_TEST: &str =
    "no_call_that_fails_breaks_a_promise_while_a_capture_is_written_merged_and_delivered";

#[test]
fn no_call_that_fails_breaks_a_promise_while_a_capture_is_written_merged_and_delivered() {
    if scenario::run_if_asked() {
        return;
    }
    sweep::sweep("full_direct");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_mapped_segments_become_compressed_pcapng() {
    sweep::sweep("full_mapped_zstd");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_a_shutdown_ends_a_capture() {
    sweep::sweep("shutdown_direct");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_a_simple_capture_is_taken_and_the_past_is_asked() {
    sweep::sweep("simple_and_look_back");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_a_simple_capture_is_fetched_over_http() {
    sweep::sweep("simple_over_http");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_the_next_process_delivers_what_a_dead_one_left() {
    sweep::sweep("recover_direct");
}

#[test]
fn no_call_that_fails_breaks_a_promise_while_the_next_process_delivers_mapped_segments() {
    sweep::sweep("recover_mapped");
}
