//! How many captures an account may have, and how often it may start one.

use super::rig::{Options, Rig, Traffic, request};
use std::time::{Duration, Instant};
use trawl::engine::Refusal;
use trawl::job::{Job, Kind, Request};
use trawl::matcher::FilterV1;

fn simple(rig: &Rig, account: &str) -> Request {
    let mut request = request(rig.bucket(), 60.0);
    request.account.0 = account.to_owned();
    (request.kind, request.packet_limit) = (Kind::Simple, Some(10));
    (request.colo, request.destination) = (None, None);
    request
}

fn full(rig: &Rig, account: &str) -> Request {
    let mut request = request(rig.bucket(), 60.0);
    request.account.0 = account.to_owned();
    request
}

async fn create(rig: &Rig, request: Request) -> Result<Job, Refusal> {
    rig.handle().create(request).await
}

async fn end(rig: &Rig, job: &Job) {
    rig.handle().stop(job.request.account.clone(), job.id.clone()).await.unwrap();
    rig.wait(job).await;
}

fn start(options: Options) -> Rig {
    Rig::with(options, vec![Traffic::paced(60, 10_000)])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_account_starts_one_simple_capture_in_an_interval() {
    let rig = start(Options { simple_interval: Duration::from_secs(3600), ..Options::default() });
    for account in ["a", "b"] {
        let job = create(&rig, simple(&rig, account)).await.unwrap();
        rig.wait(&job).await;
        // That it ended changes nothing, and full captures are no simple ones.
        let refusal = create(&rig, simple(&rig, account)).await.unwrap_err();
        let Refusal::SimpleTooSoon { interval_seconds: 3600, seconds_left } = refusal else {
            panic!("{refusal}");
        };
        assert!((3500..=3600).contains(&seconds_left), "{seconds_left}");
        let job = create(&rig, full(&rig, account)).await.unwrap();
        end(&rig, &job).await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interval_runs_out() {
    let rig = start(Options { simple_interval: Duration::from_millis(300), ..Options::default() });
    rig.wait(&create(&rig, simple(&rig, "a")).await.unwrap()).await;
    let until = Instant::now() + Duration::from_secs(60);
    let again = loop {
        match create(&rig, simple(&rig, "a")).await {
            Err(Refusal::SimpleTooSoon { .. }) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answer => break answer.unwrap(),
        }
    };
    rig.wait(&again).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_refused_does_not_count_against_the_interval() {
    let interval = Duration::from_secs(3600);
    let rig = start(Options { simple_interval: interval, captures_max: 1, ..Options::default() });
    let other = create(&rig, full(&rig, "b")).await.unwrap();
    assert_eq!(create(&rig, simple(&rig, "a")).await, Err(Refusal::NoSlot(1)));
    end(&rig, &other).await;
    let filter = FilterV1 { source_address: Some("::ffff:192.0.2.1".to_owned()), ..FilterV1::default() };
    let refusal = create(&rig, Request { filter, ..simple(&rig, "a") }).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Filter(_)), "{refusal}");
    // Its file would have no place.
    std::fs::write(rig.simple_dir(), "").unwrap();
    let refusal = create(&rig, simple(&rig, "a")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Destination(_)), "{refusal}");
    std::fs::remove_file(rig.simple_dir()).unwrap();
    let job = create(&rig, simple(&rig, "a")).await.unwrap();
    rig.wait(&job).await;
    let refusal = create(&rig, simple(&rig, "a")).await.unwrap_err();
    assert!(matches!(refusal, Refusal::SimpleTooSoon { .. }), "{refusal}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_as_many_full_captures_at_once_as_is_configured() {
    let rig = start(Options { full_per_account: 2, ..Options::default() });
    let first = create(&rig, full(&rig, "a")).await.unwrap();
    let second = create(&rig, full(&rig, "a")).await.unwrap();
    for _ in 0..2 {
        let refusal = create(&rig, full(&rig, "a")).await.unwrap_err();
        assert!(matches!(refusal, Refusal::FullCaptureActive(_)), "{refusal}");
    }
    let theirs = create(&rig, full(&rig, "b")).await.unwrap();
    end(&rig, &first).await;
    let third = create(&rig, full(&rig, "a")).await.unwrap();
    for job in [&second, &theirs, &third] {
        end(&rig, job).await;
    }
    rig.stop().await;
}
