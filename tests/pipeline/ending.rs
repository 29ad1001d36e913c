//! How captures end when something is in the way: the store, the delivery, the process, those who asked.

use crate::retries::{block, unblock};
use crate::rig::{Options, Rig, Traffic, new_dir, request, verify};
use std::path::Path;
use std::time::{Duration, Instant};
use trawl::deliver::manifest_name;
use trawl::engine::Refusal;
use trawl::job::{Job, Status, StopReason};
use trawl::store::{Embedded, JobStore};

fn paced() -> Vec<Traffic> {
    vec![Traffic::paced(300, 20_000)]
}

/// Changes a job behind the back of the host, which does not run.
pub(super) fn rewrite(dir: &Path, job: &Job, change: impl Fn(&mut Job)) {
    let jobs = Embedded::open(&dir.join("jobs")).unwrap();
    let mut stored = jobs.get(&job.request.account, &job.id).unwrap().unwrap();
    change(&mut stored.job);
    jobs.compare_and_set(stored.revision, &stored.job).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_the_outcome_cannot_be_recorded_and_it_ends_once_there_is_room() {
    let rig = Rig::with(Options::default(), paced());
    let mut asked = request(rig.bucket(), 60.0);
    asked.packet_limit = Some(5_000);
    let started = rig.handle().create(asked).await.unwrap();
    rig.jobs().fill(true);
    let manifest = rig.bucket().join(manifest_name(&started.part()));
    let until = Instant::now() + Duration::from_secs(60);
    while !manifest.exists() {
        assert!(Instant::now() < until, "it is not delivered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = rig.until(&started, |job| job.error_message.is_some()).await;
    assert!(!told.status.ended() && told.error_message.unwrap().contains("cannot be recorded"));
    assert!(
        rig.spool().join(started.id.as_str()).join(".capture.json").exists(),
        "what a restart needs is there"
    );
    // Somebody who asks for a new one is told, in time.
    let asked = Instant::now();
    let refusal = rig.handle().create(request(rig.bucket(), 1.0)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Store(_)) && asked.elapsed() < Duration::from_secs(30), "{refusal}");
    rig.jobs().fill(false);
    let job = rig.wait(&started).await;
    assert_eq!((job.status, job.error_message.as_deref()), (Status::Success, None));
    assert_eq!(rig.verify(&job).packets, 5_000);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ends_with_a_full_store_leaves_what_the_next_one_ends_well() {
    let rig = Rig::with(Options::default(), paced());
    let mut asked = request(rig.bucket(), 60.0);
    asked.packet_limit = Some(5_000);
    let started = rig.handle().create(asked).await.unwrap();
    rig.jobs().fill(true);
    rig.until(&started, |job| job.ledger.captured == 5_000).await;
    let rig = Rig::up(rig.down().await, Options::default(), vec![Traffic::finite(60, 0)]);
    let job = rig.wait(&started).await;
    assert_eq!(job.status, Status::Success, "{job:?}");
    rig.verify(&job);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_given_up_ends_the_capture_that_still_runs() {
    let options = Options { upload_retention: Duration::from_secs(1), ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(1400, 20_000)]);
    let started = rig.handle().create(request(rig.bucket(), 3600.0)).await.unwrap();
    block(&rig.bucket());
    let job = rig.wait(&started).await;
    assert_eq!((job.status, job.stop_reason), (Status::Failed, Some(StopReason::DeliveryFailed)), "{job:?}");
    assert!(job.error_message.unwrap().contains("are kept on the host"));
    assert!(!rig.segments(&started).is_empty());
    unblock(&rig.bucket());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_job_of_which_the_spool_has_nothing_ends_interrupted_and_publishes_nothing() {
    let dir = new_dir();
    let bucket = dir.path().join("bucket");
    let mut job = Job::accepted(request(bucket.clone(), 60.0), None);
    job.status = Status::Running;
    Embedded::open(&dir.path().join("jobs")).unwrap().create(&job).unwrap();
    let rig = Rig::up(dir, Options::default(), vec![Traffic::finite(60, 0)]);
    let ended = rig.wait(&job).await;
    assert_eq!((ended.status, ended.stop_reason), (Status::Failed, Some(StopReason::Interrupted)));
    let message = ended.error_message.unwrap();
    assert!(message.contains("has nothing of it") && message.contains(job.id.as_str()), "{message}");
    assert!(!bucket.exists(), "nothing is published");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_job_whose_manifest_is_in_the_bucket_ends_as_it_was_delivered() {
    let rig = Rig::with(Options::default(), paced());
    let mut asked = request(rig.bucket(), 60.0);
    asked.packet_limit = Some(5_000);
    let delivered = rig.capture(asked).await;
    rig.verify(&delivered);
    let dir = rig.down().await;
    // As if its end had never been recorded.
    rewrite(dir.path(), &delivered, |job| {
        (job.status, job.ledger, job.objects) = (Status::ConversionRunning, Default::default(), Vec::new());
    });
    let rig = Rig::up(dir, Options::default(), vec![Traffic::finite(60, 0)]);
    let job = rig.wait(&delivered).await;
    assert_eq!((job.status, job.ledger), (Status::Success, delivered.ledger), "{job:?}");
    assert_eq!(verify(&rig.bucket(), &job).packets, 5_000);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_nobody_can_ask_any_more_delivers_and_ends() {
    let rig = Rig::with(Options::default(), paced());
    let started = rig.handle().create(request(rig.bucket(), 3600.0)).await.unwrap();
    rig.until(&started, |job| job.ledger.captured > 0).await;
    let dir = rig.abandon().await;
    let jobs = Embedded::open(&dir.path().join("jobs")).unwrap();
    let job = jobs.get(&started.request.account, &started.id).unwrap().unwrap().job;
    assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::Shutdown)));
    verify(&dir.path().join("bucket"), &job);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_captures_as_there_are_slots_end_together_and_the_host_ends() {
    let rig = Rig::with(Options::default(), vec![Traffic::paced(100, 5_000)]);
    let mut started = Vec::new();
    for n in 0..40 {
        let mut one = request(rig.bucket(), 3600.0);
        one.account.0 = format!("account{n}");
        started.push(rig.handle().create(one).await.unwrap());
    }
    // Those end while others begin.
    for job in &started[..20] {
        rig.handle().stop(job.request.account.clone(), job.id.clone()).await.unwrap();
    }
    for n in 40..52 {
        let mut one = request(rig.bucket(), 3600.0);
        one.account.0 = format!("account{n}");
        started.push(rig.handle().create(one).await.unwrap());
    }
    let dir = rig.down().await;
    let jobs = Embedded::open(&dir.path().join("jobs")).unwrap();
    for job in &started {
        let job = jobs.get(&job.request.account, &job.id).unwrap().unwrap().job;
        assert!(job.status.ended(), "{job:?}");
    }
}
