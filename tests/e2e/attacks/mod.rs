//! The attack suite: one host, one victim, and all other accounts (one, or nineteen) with strangers beside them attack it, while the
//! host is ended and started again in the middle.
//!
//! Invariant: for the whole time of each attack the victim's captures have each of their packets, and the API answers it as it does
//! in quiet: the median within 50 ms of quiet's, 99 of 100 within a second. Each attack says how it was answered, and fails if
//! it did not meet the bound that is to hold it.
//!
//! Attackers ask at bounded rates: what is held is that the bounds hold, not that two cores can do the work of many.

mod connections;
mod host;
mod latency;
mod on_stores;
mod siege;
mod strangers;
mod victim;

use crate::proxy::Fault;
use crate::trawl::Setup;
use host::Host;
use siege::{Attack, Restart, besiege};

/// One of two accounts attacks, and SIGTERM ends the host; nineteen of twenty do, and `kill -9` does.
const TWO: (usize, Restart) = (2, Restart::Ordered);
const TWENTY: (usize, Restart) = (20, Restart::Killed);

/// Uploads that give up a try and make way quickly, so that what they do to each other shows in seconds.
const QUICK: &str = "part_bytes = \"5MiB\"\nretry_seconds_max = 1\nretry_pause_ms_max = 1000\nattempt_seconds_max = 1\nturn_seconds = 1";

/// A bucket that takes what is sent and never answers: uploads that hang, captures that begin and are stopped at once, and
/// ownership challenges.
async fn silent_bucket((accounts, restart): (usize, Restart)) {
    let setup = Setup { capture: "waiting_per_account = 6", upload: QUICK, ..Setup::replay() };
    let Some(host) = Host::with_store(setup, accounts, Fault::Stall).await else { return };
    let attacks = [
        Attack::new("uploads that hang", on_stores::waiting_captures, 1040),
        Attack::new("challenges", on_stores::challenges, 1043),
        Attack::new("captures that begin and end", on_stores::begin_and_stop, 204),
    ];
    besiege(&host, &attacks, restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bucket_costs_the_other_nothing() {
    silent_bucket(TWO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nineteen_silent_buckets_cost_the_other_nothing() {
    silent_bucket(TWENTY).await;
}

/// A bucket that refuses all objects: captures that fill the share of the spool, and look backs beside them.
async fn full_spool((accounts, restart): (usize, Restart)) {
    let setup = Setup {
        spool_bytes_max: "256MiB",
        // Six for each of twenty accounts, and the victim's captures need three.
        blocks_bytes: "256MiB",
        segment_bytes: "4MiB",
        pool_bytes: "0B",
        history_sample: Some(10_000),
        simple_interval_seconds: 800,
        capture: "waiting_per_account = 100",
        upload: QUICK,
        ..Setup::replay()
    };
    let denied = Fault::Answer("403 Forbidden", "AccessDenied");
    let Some(host) = Host::with_store(setup, accounts, denied).await else { return };
    let attacks = [
        Attack::new("captures that fill the spool", on_stores::large_captures, 1041),
        Attack::new("look backs", on_stores::look_backs, 1021).or(1041),
    ];
    besiege(&host, &attacks, restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_share_costs_the_other_nothing() {
    full_spool(TWO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nineteen_full_shares_cost_the_other_nothing() {
    full_spool(TWENTY).await;
}

/// The same bucket: captures of one packet each, as many as may wait.
async fn many_small((accounts, restart): (usize, Restart)) {
    let denied = Fault::Answer("403 Forbidden", "AccessDenied");
    let setup = Setup { capture: "waiting_per_account = 4", upload: QUICK, ..Setup::replay() };
    let Some(host) = Host::with_store(setup, accounts, denied).await else { return };
    let attacks = [Attack::new("captures of one packet", on_stores::one_packet_captures, 1040)];
    besiege(&host, &attacks, restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_captures_cost_the_other_nothing() {
    many_small(TWO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_captures_of_nineteen_cost_the_other_nothing() {
    many_small(TWENTY).await;
}

/// Connections: of strangers that never read, of eight peers with right credentials, and requests whose bodies never end.
async fn held_connections((accounts, restart): (usize, Restart)) {
    let host = Host::without_store(Setup::replay(), accounts);
    let attacks = [
        Attack::new("connections that never read", strangers::deaf, 200),
        Attack::new("eight peers with right credentials", connections::held_by_eight_peers, 0),
        Attack::new("bodies that never end", connections::endless_bodies, 0),
    ];
    besiege(&host, &attacks, restart).await;
    assert!(host.cut("account_full") > 0, "no account met its bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_connections_cost_the_other_nothing() {
    held_connections(TWO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_connections_of_nineteen_cost_the_other_nothing() {
    held_connections(TWENTY).await;
}

/// One peer with right credentials that takes all it may, wrong credentials, and what is no HTTP.
async fn credentials((accounts, restart): (usize, Restart)) {
    let host = Host::without_store(Setup::replay(), accounts);
    let attacks = [
        Attack::new("one peer with right credentials", connections::held_by_one_peer, 0),
        Attack::new("wrong credentials", strangers::wrong_credentials, 1027),
        Attack::new("what is no request", strangers::no_requests, 400),
        Attack::new("requests without end", connections::requests_without_end, 1069),
    ];
    besiege(&host, &attacks, restart).await;
    assert!(host.cut("peer_full") + host.cut("account_full") > 0, "no bound was met");
    let log = host.trawl().log();
    let lines = log.lines().filter(|line| line.contains("authentication failed")).count();
    // Ten a minute, of two processes.
    assert!((1..=40).contains(&lines), "{lines} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_cost_the_other_nothing() {
    credentials(TWO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_among_twenty_cost_the_other_nothing() {
    credentials(TWENTY).await;
}
