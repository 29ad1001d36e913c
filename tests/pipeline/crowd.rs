//! Captures beside each other under full load: what one does, or what happens to it, costs the others nothing.

use super::rig::{MARKED, Options, Rig, Traffic, request};
use std::path::PathBuf;
use trawl::job::{Job, Request, Status, StopReason};
use trawl::limits::BURST;

/// Starts and stops; each is a program swap.
const SWAPS: usize = 1000;
/// Captures that begin and end at the same time.
const AT_ONCE: usize = 5;

/// One frame of each burst, for an account of its own.
fn sifting(bucket: PathBuf, account: &str) -> Request {
    let mut request = request(bucket, 3600.0);
    request.account.0 = account.to_owned();
    request.filter.destination_address = Some(MARKED.to_owned());
    request
}

async fn stop(rig: &Rig, job: &Job) {
    rig.handle().stop(job.request.account.clone(), job.id.clone()).await.unwrap();
}

/// What is true of a capture that had every marked frame while it was attached, whatever the disk could take.
fn assert_nothing_uncounted(rig: &Rig, job: &Job) {
    let ledger = &job.ledger;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::StopRequested)), "{job:?}");
    assert_eq!(ledger.rx, ledger.matched * BURST as u64, "every burst was matched: {ledger:?}");
    // A burst that was on its way when the stop came is beyond the capture's end.
    assert!(ledger.dropped.limit <= 1, "{ledger:?}");
    let found = rig.verify(job);
    assert_eq!(found.packets + ledger.dropped.no_block + ledger.dropped.limit, ledger.matched);
    assert!(found.missing <= ledger.dropped.no_block, "{} are missing: {ledger:?}", found.missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_program_swaps_under_full_load_cost_a_running_capture_no_packet() {
    let rig = Rig::with(Options::default(), vec![Traffic::endless(200).marking()]);
    let steady = rig.handle().create(sifting(rig.bucket(), "steady")).await.unwrap();
    rig.until(&steady, |job| job.ledger.captured > 0).await;
    for _ in 0..SWAPS / (2 * AT_ONCE) {
        let mut others = Vec::new();
        for n in 0..AT_ONCE {
            let other = sifting(rig.bucket(), &format!("account{n}"));
            others.push(rig.handle().create(other).await.unwrap());
        }
        for other in &others {
            rig.until(other, |job| job.ledger.captured > 0).await;
            stop(&rig, other).await;
        }
        for other in &others {
            assert_nothing_uncounted(&rig, &rig.wait(other).await);
        }
    }
    stop(&rig, &steady).await;
    let job = rig.wait(&steady).await;
    println!("{:?}", job.ledger);
    assert_nothing_uncounted(&rig, &job);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_uses_up_the_quota_ends_alone_and_the_others_miss_nothing() {
    // No object is ever complete, so nothing is freed.
    let options = Options { bytes_max: 512 << 20, segment_bytes: 1 << 30, ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(1500, 60_000), Traffic::paced(60, 2000).marking()]);
    let small = rig.handle().create(sifting(rig.bucket(), "small")).await.unwrap();
    rig.until(&small, |job| job.ledger.captured > 0).await;
    let large = rig.capture(request(rig.bucket(), 3600.0)).await;
    assert_eq!(
        (large.status, large.stop_reason),
        (Status::Success, Some(StopReason::SpoolFull)),
        "{large:?}"
    );
    rig.verify(&large);
    let then = rig.until(&small, |_| true).await.ledger.captured;
    let job = rig.stop_when(&small, |ledger| ledger.captured > then + 1000).await;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::StopRequested)), "{job:?}");
    assert_eq!(job.ledger.dropped.spool + job.ledger.dropped.io, 0, "{:?}", job.ledger);
    let found = rig.verify(&job);
    assert!(found.missing <= job.ledger.dropped.no_block, "{} are missing: {:?}", found.missing, job.ledger);
    rig.stop().await;
}
