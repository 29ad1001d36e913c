//! Parts of captures that another node accepted: shares while real workers take from them, names of several hosts in one bucket.

use crate::rig::{Options, Rig, Traffic, request, verify};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use trawl::deliver::{Directory, Manifest, manifests};
use trawl::engine::{Adoption, PartStage, PartState, Refusal, Steer};
use trawl::job::{AccountId, CaptureId, Job, Status, StopReason};
use trawl::worker::Share;

fn account() -> AccountId {
    AccountId("a".to_owned())
}

fn packets(packets: u64) -> Share {
    Share { packets, bytes: 1 << 62 }
}

fn host(name: &'static str, traffic: Vec<Traffic>) -> Rig {
    Rig::with(Options { fleet_host: Some(name), ..Options::default() }, traffic)
}

fn adoption(id: &CaptureId, bucket: &Path, first: u64) -> Adoption {
    Adoption {
        id: id.clone(),
        request: Box::new(request(bucket.to_owned(), 3600.0)),
        terms: Default::default(),
        submitted: jiff::Timestamp::now(),
        remaining: Duration::from_secs(3600),
        share: Some(packets(first)),
        one_in: None,
    }
}

/// Waits until a part is as wanted; its ledger balances whenever it is told.
async fn until(part: &mut watch::Receiver<PartState>, wanted: impl Fn(&PartState) -> bool) -> PartState {
    let is_wanted = |state: &PartState| {
        state.ledger.check().unwrap();
        wanted(state)
    };
    let waited = tokio::time::timeout(Duration::from_secs(150), part.wait_for(is_wanted)).await;
    waited.expect("it is never as wanted").unwrap().clone()
}

async fn part(rig: &Rig, id: &CaptureId) -> watch::Receiver<PartState> {
    rig.handle().part(account(), id.clone()).await.unwrap()
}

async fn steer(rig: &Rig, id: &CaptureId, what: Steer) {
    rig.handle().steer(account(), id.clone(), what).await.unwrap();
}

fn manifest(bucket: &Path, job: &Job) -> Manifest {
    let name = format!("{}.json", job.part().stem());
    Manifest::parse(&std::fs::read(bucket.join(name)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_capture_one_capture_use_exactly_their_shares_and_write_beside_each_other() {
    let queues = || vec![Traffic::endless(300), Traffic::endless(1400)];
    let (one, two) = (host("cap1", queues()), host("cap2", queues()));
    let (id, bucket) = (CaptureId::random(), one.bucket());
    std::fs::create_dir_all(&bucket).unwrap();
    let hosts = [(&one, 1000), (&two, 500)];
    for (rig, first) in hosts {
        rig.handle().adopt(adoption(&id, &bucket, first)).await.unwrap();
        let again = rig.handle().adopt(adoption(&id, &bucket, 9)).await.unwrap_err();
        assert_eq!(again, Refusal::Adopted(id.clone()));
        let dry = until(&mut part(rig, &id).await, |state| state.dry.is_some()).await;
        assert_eq!((dry.ledger.captured, dry.left.unwrap().packets), (first, 0));
        assert!(dry.ledger.dropped.share > 0 && dry.stage <= PartStage::Running, "{dry:?}");
    }
    steer(&one, &id, Steer::Grant(Share { packets: 250, bytes: 0 })).await;
    until(&mut part(&one, &id).await, |state| state.ledger.captured == 1250).await;
    let reclaimed = two.handle().reclaim(account(), id.clone(), packets(0)).await.unwrap();
    assert_eq!((reclaimed.taken.packets, reclaimed.used.packets), (0, 500));
    let mut captured = 0;
    for (rig, packets) in [(&one, 1250), (&two, 500)] {
        let mut told = part(rig, &id).await;
        steer(rig, &id, Steer::End(StopReason::PacketLimit)).await;
        let end = until(&mut told, |state| state.stage >= PartStage::Delivered).await;
        assert_eq!((end.stage, end.ledger.captured), (PartStage::Delivered, packets));
        let job = rig.handle().get(account(), id.clone()).await.unwrap();
        let job = rig.wait(&job).await;
        assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::PacketLimit)));
        captured += verify(&bucket, &job).packets;
        let manifest = manifest(&bucket, &job);
        assert!(manifest.is_part && !manifest.complete, "what found no share is missing");
    }
    assert_eq!(captured, 1750);
    let (place, name) = Directory::of(&bucket.join(format!("pcap_{id}.json")));
    let names = ["cap1", "cap2"].map(|host| format!("pcap_{id}_tst01_{host}.json"));
    assert_eq!(manifests(&place, &name).unwrap(), names);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_is_raised_and_lowered_under_load_is_never_passed() {
    let rig = host("cap1", vec![Traffic::endless(60), Traffic::endless(300), Traffic::endless(1400)]);
    let (id, mut granted, mut returned) = (CaptureId::random(), 5_000, 0);
    rig.handle().adopt(adoption(&id, &rig.bucket(), granted)).await.unwrap();
    let mut told = part(&rig, &id).await;
    for round in 0..60 {
        steer(&rig, &id, Steer::Grant(Share { packets: 3_000, bytes: 0 })).await;
        granted += 3_000;
        if round % 3 == 0 {
            let keep = packets(round * 10);
            let reclaimed = rig.handle().reclaim(account(), id.clone(), keep).await.unwrap();
            returned += reclaimed.taken.packets;
            assert!(reclaimed.used.packets <= granted - returned, "{reclaimed:?}");
        }
        let state = told.borrow_and_update().clone();
        assert!(state.ledger.captured <= granted - returned, "{state:?}");
    }
    // Not the first that is dry: it may have been before the last grant.
    let dry =
        until(&mut told, |state| state.ledger.captured == granted - returned && state.dry.is_some()).await;
    assert_eq!(dry.left.unwrap().packets, 0, "all of it is used");
    steer(&rig, &id, Steer::End(StopReason::PacketLimit)).await;
    let job = rig.handle().get(account(), id.clone()).await.unwrap();
    let job = rig.wait(&job).await;
    assert_eq!(rig.verify(&job).packets, granted - returned);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_ends_by_the_other_node_s_time_and_is_not_captured_again_after_a_restart() {
    let rig = host("cap1", vec![Traffic::paced(300, 20_000)]);
    let id = CaptureId::random();
    let mut asked = Adoption { share: None, ..adoption(&id, &rig.bucket(), 0) };
    asked.remaining = Duration::from_millis(700);
    let job = rig.handle().adopt(asked.clone()).await.unwrap();
    let job = rig.wait(&job).await;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::TimeLimit)));
    assert!(job.request.time_limit == 3600.0 && job.ledger.dropped.share == 0);
    rig.verify(&job);
    let options = Options { fleet_host: Some("cap1"), ..Options::default() };
    let rig = rig.restart(options, vec![Traffic::paced(300, 20_000)]).await;
    assert_eq!(rig.handle().adopt(asked).await.unwrap_err(), Refusal::Adopted(id.clone()));
    let told = part(&rig, &id).await;
    assert_eq!((told.borrow().stage, told.borrow().ledger), (PartStage::Delivered, job.ledger));
    let mut stranger = adoption(&CaptureId::random(), &rig.bucket(), 1);
    stranger.request.account = AccountId("nobody".to_owned());
    let refusal = rig.handle().adopt(stranger).await.unwrap_err();
    assert_eq!(refusal, Refusal::UnknownAccount(AccountId("nobody".to_owned())));
    rig.stop().await;
}
