//! Series of captures on the whole way: what they count, when they end, and that they outlive the process.

use super::ending::rewrite;
use super::rig::{Options, Rig, Traffic, request};
use serde_json::Value;
use std::time::{Duration, Instant};
use trawl::engine::Refusal;
use trawl::job::{AccountId, CaptureId, Job, Kind, Status};

async fn series(rig: &Rig, job: &Job) -> Value {
    let of: (AccountId, CaptureId) = (job.request.account.clone(), job.id.clone());
    rig.handle().series(of.0, of.1).await.unwrap().value()
}

/// The points of a count; none of a cause that the series does not name, because it never was one.
fn points(series: &Value, name: &str) -> Vec<i64> {
    let Some(list) = series.get(name).or_else(|| series["dropped"].get(name)) else { return Vec::new() };
    list.as_array().unwrap().iter().map(|count| count.as_i64().unwrap()).collect()
}

/// Every count of a series against the ledger.
fn assert_sums(series: &Value, job: &Job) {
    let (ledger, dropped) = (&job.ledger, &job.ledger.dropped);
    for (name, count) in [
        ("matched", ledger.matched),
        ("captured", ledger.captured),
        ("bytes", ledger.captured_bytes),
        ("no_block", dropped.no_block),
        ("limit", dropped.limit),
        ("sampled", dropped.sampled),
        ("spool", dropped.spool),
        ("io", dropped.io),
        ("interrupted", dropped.interrupted),
        ("share", dropped.share),
    ] {
        assert_eq!(points(series, name).iter().sum::<i64>(), count as i64, "{name}: {series}");
    }
}

/// Waits until the series of a capture that goes on has so many points more.
async fn until_longer(rig: &Rig, job: &Job, by: usize) {
    let (from, deadline) =
        (points(&series(rig, job).await, "matched").len(), Instant::now() + Duration::from_secs(60));
    while points(&series(rig, job).await, "matched").len() < from + by {
        assert!(Instant::now() < deadline, "the series of a capture that runs does not grow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn simple(account: &str, rig: &Rig) -> trawl::job::Request {
    let mut request = request(rig.bucket(), 60.0);
    (request.kind, request.destination, request.colo) = (Kind::Simple, None, None);
    (request.account.0, request.packet_limit) = (account.to_owned(), Some(u64::MAX));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_of_a_capture_ends_with_it_and_outlives_a_restart() {
    let rig = Rig::with(Options::default(), vec![Traffic::paced(200, 2_000)]);
    let goes_on = rig.handle().create(simple("b", &rig)).await.unwrap();
    let job = rig.handle().create(request(rig.bucket(), 3.0)).await.unwrap();
    until_longer(&rig, &job, 2).await;
    let job = rig.wait(&job).await;
    assert_eq!(job.status, Status::Success);
    let ended = series(&rig, &job).await;
    assert_sums(&ended, &job);
    let count = points(&ended, "captured").len();
    assert!((3..=5).contains(&count), "a point a second for three seconds: {ended}");
    assert!(points(&ended, "captured").iter().filter(|point| **point > 0).count() >= 3, "{ended}");
    let took = ended["to_ns"].as_u64().unwrap() - ended["from_ns"].as_u64().unwrap();
    assert!(took >= 3_000_000_000 && took <= count as u64 * 1_000_000_000, "{ended}");
    let of = (job.request.account.clone(), job.id.clone());
    let progress = rig.handle().progress(of.0.clone(), of.1.clone()).await.unwrap();
    let (started, stopped) = (progress.started.unwrap(), progress.ended.unwrap());
    assert_eq!(ended["from_ns"].as_u64().map(i128::from), Some(started.as_nanosecond()), "{ended}");
    // Both are of the wall clock, which is slewed; the limit is of the monotonic one.
    assert!(job.submitted <= started && stopped.duration_since(started).as_millis() >= 2_990);
    // Two seconds later, by the series of one that goes on, it is the same, and so it is after a restart.
    until_longer(&rig, &goes_on, 2).await;
    assert_eq!(series(&rig, &job).await, ended);
    rig.handle().stop(goes_on.request.account.clone(), goes_on.id.clone()).await.unwrap();
    let goes_on = rig.wait(&goes_on).await;
    let other = series(&rig, &goes_on).await;
    assert_sums(&other, &goes_on);
    let rig = rig.restart(Options::default(), vec![Traffic::finite(60, 0)]).await;
    assert_eq!((series(&rig, &job).await, series(&rig, &goes_on).await), (ended, other));
    let again = rig.handle().progress(of.0, of.1).await.unwrap();
    assert_eq!((again.started, again.ended), (Some(started), Some(stopped)));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_of_less_than_a_second_has_its_packets_in_one_point() {
    let rig = Rig::with(Options::default(), vec![Traffic::endless(200)]);
    let mut request = request(rig.bucket(), 60.0);
    request.packet_limit = Some(500);
    let job = rig.capture(request).await;
    let found = series(&rig, &job).await;
    assert_sums(&found, &job);
    assert!(points(&found, "captured").len() <= 2 && found["step_ns"] == 1_000_000_000, "{found}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_whose_upload_waits_gets_no_points_while_it_does_and_keeps_its_series_for_the_next_process()
{
    let options = Options { upload_pause_max: Duration::from_millis(200), ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(200, 2_000)]);
    let goes_on = rig.handle().create(simple("b", &rig)).await.unwrap();
    let bucket = rig.bucket().join("taken");
    let job = rig.handle().create(request(bucket.clone(), 2.0)).await.unwrap();
    // From now on its directory is a file, so that nothing is taken there.
    std::fs::remove_dir_all(&bucket).ok();
    std::fs::create_dir_all(rig.bucket()).unwrap();
    std::fs::write(&bucket, "a file").unwrap();
    let waits =
        rig.until(&job, |job| job.status == Status::ConversionRunning && job.error_message.is_some()).await;
    let stopped = series(&rig, &waits).await;
    assert_sums(&stopped, &waits);
    let overview = rig.handle().overview().await.unwrap();
    let row = overview.captures.iter().find(|row| row.id == job.id).unwrap();
    assert!(row.next_try_seconds.is_some_and(|seconds| seconds <= 0.2), "{:?}", row.next_try_seconds);
    until_longer(&rig, &goes_on, 2).await;
    assert_eq!(series(&rig, &job).await, stopped);
    rig.handle().stop(goes_on.request.account.clone(), goes_on.id.clone()).await.unwrap();
    rig.wait(&goes_on).await;
    let rig = rig.restart(options, vec![Traffic::finite(60, 0)]).await;
    assert_eq!(series(&rig, &job).await, stopped, "while the next process goes on with it");
    std::fs::remove_file(&bucket).unwrap();
    // The host makes no directory that went away: it may be a disk that is not mounted.
    std::fs::create_dir(&bucket).unwrap();
    let job = rig.wait(&job).await;
    assert_eq!(job.status, Status::Success, "{:?}", job.error_message);
    assert_eq!(series(&rig, &job).await, stopped);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_a_dead_process_had_are_told_from_none_yet_before_and_after_the_capture_ends() {
    let options = Options { upload_pause_max: Duration::from_millis(200), ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(200, 2_000)]);
    let bucket = rig.bucket().join("taken");
    let job = rig.handle().create(request(bucket.clone(), 1.0)).await.unwrap();
    std::fs::remove_dir_all(&bucket).ok();
    std::fs::create_dir_all(rig.bucket()).unwrap();
    std::fs::write(&bucket, "a file").unwrap();
    rig.until(&job, |job| job.status == Status::ConversionRunning && job.error_message.is_some()).await;
    let dir = rig.down().await;
    // As a process leaves it that is killed: what it counted second by second is only in its memory.
    rewrite(dir.path(), &job, |job| job.series = None);
    let rig = Rig::up(dir, options, vec![Traffic::finite(60, 0)]);
    let of = || (job.request.account.clone(), job.id.clone());
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.handle().get(of().0, of().1).await.unwrap().ledger.captured == 0 {
        assert!(Instant::now() < deadline, "the next process does not take it up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = async || rig.handle().series(of().0, of().1).await.map(|series| series.value());
    assert!(matches!(asked().await, Err(Refusal::NoSeries)), "{:?}", asked().await);
    let overview = rig.handle().overview().await.unwrap();
    assert!(overview.captures.iter().any(|row| row.id == job.id && row.is_inherited));
    std::fs::remove_file(&bucket).unwrap();
    std::fs::create_dir(&bucket).unwrap();
    assert_eq!(rig.wait(&job).await.status, Status::Success);
    assert!(matches!(asked().await, Err(Refusal::NoSeries)), "{:?}", asked().await);
    // One that waits for its turn has none yet.
    let next = rig.handle().create(simple("b", &rig)).await.unwrap();
    let found = rig.handle().series(next.request.account.clone(), next.id.clone()).await;
    assert!(found.is_ok(), "{found:?}");
    rig.handle().stop(next.request.account.clone(), next.id.clone()).await.unwrap();
    rig.wait(&next).await;
    rig.stop().await;
}
