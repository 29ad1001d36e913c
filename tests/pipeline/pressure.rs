//! A spool that fills up because uploads stand still: who is told, who ends, and who goes on.

use crate::retries::{block, unblock};
use crate::rig::{Options, Rig, Traffic, frame, request, verify};
use trawl::job::{AccountId, Status, StopReason};

#[tokio::test(flavor = "multi_thread")]
async fn at_the_spools_limit_the_largest_capture_ends_with_its_reason_and_the_others_go_on() {
    let mut to_port_54 = frame(200);
    to_port_54[37] = 54;
    let traffic = vec![Traffic::paced(1500, 25_000), Traffic::of(&[to_port_54], 2_000)];
    let rig = Rig::with(Options { bytes_max: 160 << 20, ..Options::default() }, traffic);
    let mut request_small = request(rig.bucket(), 60.0);
    request_small.account = AccountId("small".to_owned());
    request_small.filter = serde_json::from_str(r#"{"destination_port": 54}"#).unwrap();
    let small = rig.handle().create(request_small).await.unwrap();
    let away = rig.bucket().join("away");
    let large = rig.handle().create(request(away.clone(), 60.0)).await.unwrap();
    block(&away);

    let full = rig.until(&large, |job| job.stop_reason.is_some()).await;
    assert_eq!(full.stop_reason, Some(StopReason::SpoolFull), "{full:?}");
    let progress = rig.handle().progress(small.request.account.clone(), small.id.clone()).await.unwrap();
    assert!(progress.warnings.iter().any(|text| text.contains("% full")), "{:?}", progress.warnings);
    assert_eq!((progress.status, progress.stop_reason), (Status::Running, None));
    let so_far = progress.ledger.captured;

    // Still at the limit, and nothing is delivered: it goes on all the same.
    let small = rig.stop_when(&small, |ledger| ledger.captured > so_far + 2_000).await;
    assert_eq!((small.status, small.stop_reason), (Status::Success, Some(StopReason::StopRequested)));
    // A machine that is too slow for all of it may lack blocks; that has nothing to do with the spool.
    assert_eq!(small.ledger.dropped.total(), small.ledger.dropped.no_block, "{:?}", small.ledger);
    rig.verify(&small);

    unblock(&away);
    let large = rig.wait(&large).await;
    assert_eq!((large.status, large.stop_reason), (Status::Success, Some(StopReason::SpoolFull)));
    let message = large.error_message.clone().unwrap();
    assert!(message.contains("this capture had the most of them"), "{message}");
    // What a customer reads says what a customer can do.
    assert!(message.contains("let uploads finish") && !message.contains("spool."), "{message}");
    let found = verify(&away, &large);
    assert!(found.frame_bytes > 100 << 20, "what it had is kept: {found:?}");
    rig.assert_freed(&large);
    rig.stop().await;
}
