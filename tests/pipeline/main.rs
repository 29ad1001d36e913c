//! The whole way from a queue to files, without DPDK: real threads, blocks, spool, merge, engine and file store; only the
//! frames are made up. Every test ends by holding the ledger against its equations and the files against the manifest.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/api.rs"]
mod api;
mod crowd;
mod ending;
mod fleet;
mod history;
mod parts;
mod pressure;
mod quiet;
mod retries;
mod rig;
mod rules;
mod series;
mod strangers;
mod tenants;

use rig::{Rig, Traffic, request};
use std::time::Duration;
use trawl::job::{Status, StopReason};
use trawl::spool::WriteMode;

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_limit_is_exact_over_all_queues() {
    for write in [WriteMode::Direct, WriteMode::Mapped] {
        let rig =
            Rig::start(write, vec![Traffic::endless(60), Traffic::endless(1500), Traffic::endless(300)]);
        let mut request = request(rig.bucket(), 60.0);
        request.packet_limit = Some(10_000);
        let job = rig.capture(request).await;
        assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::PacketLimit)));
        assert_eq!(job.ledger.captured, 10_000);
        assert_eq!(rig.verify(&job).packets, 10_000);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_limit_is_never_passed_and_nearly_reached() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::endless(1000), Traffic::endless(1000)]);
    let mut request = request(rig.bucket(), 60.0);
    request.byte_limit = Some(5_000_500);
    let job = rig.capture(request).await;
    assert_eq!(job.stop_reason, Some(StopReason::ByteLimit));
    assert_eq!(rig.verify(&job).frame_bytes, 5_000_000);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_of_a_finite_source_is_in_the_file_in_order() {
    for write in [WriteMode::Direct, WriteMode::Mapped] {
        let frames = 40_000;
        let rig = Rig::start(write, vec![Traffic::finite(700, frames), Traffic::finite(64, frames)]);
        let started = rig.handle().create(request(rig.bucket(), 60.0)).await.unwrap();
        let job = rig.stop_when(&started, |ledger| ledger.rx == 2 * frames).await;
        assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::StopRequested)));
        let found = rig.verify(&job);
        let ledger = job.ledger;
        assert_eq!(ledger.captured + ledger.dropped.no_block, 2 * frames);
        assert_eq!(found.packets, ledger.captured);
        if ledger.dropped.no_block == 0 {
            assert_eq!(found.in_sequence, 2 * frames, "each queue's frames keep their order");
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_larger_than_a_segment_becomes_several_objects_while_it_runs() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::paced(1400, 20_000)]);
    let started = rig.handle().create(request(rig.bucket(), 4.0)).await.unwrap();
    let early = rig.until(&started, |job| !job.objects.is_empty()).await;
    assert_eq!(early.status, Status::Running, "the first object is there before the capture ends");
    let job = rig.wait(&started).await;
    assert!(job.objects.len() > 3, "{} objects", job.objects.len());
    rig.verify(&job);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stream_is_rotated_by_time_though_no_packet_comes() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::finite(100, 10), Traffic::finite(100, 0)]);
    let started = rig.handle().create(request(rig.bucket(), 4.0)).await.unwrap();
    rig.until(&started, |_| !rig.segments(&started).is_empty()).await;
    let job = rig.wait(&started).await;
    assert_eq!(rig.verify(&job).packets, 10);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_would_pass_the_quota_ends_with_that_reason_and_keeps_what_it_has() {
    for write in [WriteMode::Direct, WriteMode::Mapped] {
        let rig = Rig::with_quota(write, vec![Traffic::endless(1500)], 24 << 20);
        // Objects that are not finished hold their segments in the spool, so an endless source must run into the quota.
        let job = rig.capture(request(rig.bucket(), 30.0)).await;
        assert_eq!(job.stop_reason, Some(StopReason::SpoolFull), "{job:?}");
        assert_eq!(job.status, Status::Success);
        assert!(
            job.error_message
                .as_deref()
                .is_some_and(|m| m.contains("spool is full") && !m.contains("spool.")),
            "{:?}",
            job.error_message
        );
        assert!(rig.verify(&job).packets > 1000);
        let second = rig.capture(request(rig.bucket(), 0.3)).await;
        assert!(second.ledger.matched > 0, "the process goes on");
        rig.verify(&second);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_what_was_captured_and_no_match_is_a_failure_that_says_so() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::paced(200, 2_000)]);
    let started = rig.handle().create(request(rig.bucket(), 60.0)).await.unwrap();
    rig.until(&started, |job| job.ledger.captured > 500).await;
    rig.handle().stop(started.request.account.clone(), started.id.clone()).await.unwrap();
    rig.handle().stop(started.request.account.clone(), started.id.clone()).await.unwrap();
    let job = rig.wait(&started).await;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::StopRequested)));
    assert!(rig.verify(&job).packets > 500);
    let mut nothing = request(rig.bucket(), 0.2);
    nothing.filter.source_address = Some("203.0.113.77".to_owned());
    let job = rig.capture(nothing).await;
    assert_eq!(job.status, Status::Failed);
    assert!(job.error_message.as_deref().is_some_and(|m| m.starts_with("No packets matched")));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_that_begin_and_end_under_load_take_nothing_from_the_others() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::paced(120, 100_000), Traffic::paced(120, 50_000)]);
    let steady = rig.handle().create(request(rig.bucket(), 4.0)).await.unwrap();
    let mut others = Vec::new();
    for n in 0..12 {
        let mut short = request(rig.bucket(), 0.2);
        short.account.0 = format!("short{n}");
        others.push(rig.handle().create(short).await.unwrap());
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    for other in &others {
        rig.verify(&rig.wait(other).await);
    }
    let job = rig.wait(&steady).await;
    assert_eq!(job.ledger.rx, job.ledger.matched);
    rig.verify(&job);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_captures_cleanly_and_delivers_them() {
    let rig = Rig::start(WriteMode::Direct, vec![Traffic::paced(500, 5_000)]);
    let started = rig.handle().create(request(rig.bucket(), 3600.0)).await.unwrap();
    rig.until(&started, |job| job.ledger.captured > 0).await;
    let job = rig.shut_down_and_reopen(&started).await;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::Shutdown)));
}
