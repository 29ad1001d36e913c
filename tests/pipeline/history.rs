//! Looking back, on the whole way: what the recording kept is what a query finds.

use crate::rig::{Options, Rig, Traffic, records, request};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trawl::engine::{Asked, Refusal};
use trawl::history::{Entry, HistoryConfig};
use trawl::job::{AccountId, Job, Kind, OffsetTime, Request, Status, StopReason};
use trawl::limits::LOOK_BACKS_PER_ACCOUNT_MAX;
use trawl::matcher::{FilterV1, PrefixSet};
use trawl::spool::WriteMode;
use trawl::worker::Sample;

fn every_packet(bytes_max: u64, segment_seconds: u64) -> Options {
    let keep = Duration::from_secs(86_400);
    let segment = Duration::from_secs(segment_seconds);
    Options { history: Some(HistoryConfig { sample: None, bytes_max, keep, segment }), ..Options::default() }
}

fn simple(seconds: f64, packet_limit: u64) -> Request {
    let mut request = request("/".into(), seconds);
    (request.kind, request.destination, request.colo) = (Kind::Simple, None, None);
    request.packet_limit = Some(packet_limit);
    request
}

fn back_from(at: jiff::Timestamp, seconds: f64, packet_limit: u64) -> Request {
    Request { offset_time: Some(OffsetTime { sent: at.to_string(), at }), ..simple(seconds, packet_limit) }
}

fn at(ns: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap()
}

/// Times and lengths of the packets in a simple capture's file.
fn found(rig: &Rig, job: &Job) -> Vec<(u64, u32)> {
    assert_eq!(job.objects.len(), 1);
    let records = records(&rig.simple_dir().join(&job.objects[0].name));
    assert_eq!(records.len() as u64, job.ledger.captured);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_back_has_exactly_the_packets_of_its_window() {
    for write in [WriteMode::Direct, WriteMode::Mapped] {
        let frames = 4_000;
        let options = Options { write, ..every_packet(1 << 30, 60) };
        let traffic = vec![Traffic::finite(700, frames), Traffic::finite(64, frames)];
        let rig = Rig::with(options, traffic);
        let live = rig.handle().create(request(rig.bucket(), 60.0)).await.unwrap();
        let live = rig.stop_when(&live, |ledger| ledger.rx == 2 * frames).await;
        let all = records(&rig.bucket().join(&live.objects[0].name));
        assert_eq!(all.len() as u64, 2 * frames, "the oracle is whole");

        let asked = Instant::now();
        let job = rig.capture(back_from(jiff::Timestamp::now(), 60.0, 10_000)).await;
        assert!(asked.elapsed() < Duration::from_secs(10), "it waits for no rotation");
        assert_eq!((job.status, job.stop_reason), (Status::Success, Some(StopReason::TimeLimit)));
        let mut sorted = (found(&rig, &job), all.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        assert_eq!(sorted.0, sorted.1);

        let end_ns = all[6000].0;
        let inside = |(ns, _): &&(u64, u32)| (end_ns - 5_000_000..=end_ns).contains(ns);
        let window = all.iter().filter(inside).count();
        let job = rig.capture(back_from(at(end_ns), 0.005, 10_000)).await;
        assert_eq!(found(&rig, &job).len(), window);
        let job = rig.capture(back_from(at(end_ns), 0.005, 100)).await;
        assert_eq!(job.stop_reason, Some(StopReason::PacketLimit));
        assert_eq!(job.ledger.dropped.limit, window as u64 - 100);
        let newest = found(&rig, &job);
        assert_eq!((newest.len(), newest.last().map(|(ns, _)| *ns)), (100, Some(end_ns)));

        let mut nothing = back_from(at(end_ns), 60.0, 100);
        nothing.filter = FilterV1 { source_address: Some("203.0.113.9".to_owned()), ..FilterV1::default() };
        let job = rig.capture(nothing).await;
        let message = job.error_message.unwrap();
        assert_eq!(job.status, Status::Failed);
        assert!(
            message.starts_with("No packets matched the filter") && message.contains("reaches back"),
            "{message}"
        );
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_stays_within_its_bytes_and_survives_a_restart() {
    let bytes_max = 6 << 20;
    let options = every_packet(bytes_max, 1);
    let rig = Rig::with(options, vec![Traffic::paced(1400, 15_000), Traffic::paced(300, 5_000)]);
    let history = std::sync::Arc::clone(rig.history());
    let until = Instant::now() + Duration::from_secs(60);
    let (mut oldest, mut moved) = (0, 0);
    while moved < 3 {
        assert!(Instant::now() < until, "the ring does not fill: {} bytes", history.bytes());
        assert!(history.bytes() <= bytes_max);
        let now = history.oldest_ns().unwrap_or(0);
        assert!(now >= oldest, "the oldest go first");
        moved += u32::from(oldest != 0 && now > oldest);
        oldest = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(history);
    let rig = rig.restart(options, vec![Traffic::finite(60, 0)]).await;
    let bytes = rig.history().bytes();
    assert!(bytes > bytes_max / 2 && bytes <= bytes_max, "{bytes}");
    let job = rig.capture(back_from(jiff::Timestamp::now(), 300.0, 10_000)).await;
    assert_eq!((job.status, job.ledger.captured), (Status::Success, 10_000));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_waits_for_so_many_look_backs_and_asks_for_no_more() {
    let rig = Rig::with(every_packet(1 << 30, 60), vec![Traffic::finite(60, 0)]);
    // A segment that nobody gets to the end of: a pipe that is held open and written by nobody.
    let ring = rig.spool().join("history");
    let then = jiff::Timestamp::now() - Duration::from_secs(3600);
    let then_ns = u64::try_from(then.as_nanosecond()).unwrap();
    let entry = Entry { first_ns: then_ns, last_ns: then_ns, queue: 0, one_in: 1, number: 0, bytes: 0 };
    let pipe = ring.join(entry.name());
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let held = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let rig = rig.restart(every_packet(1 << 30, 60), vec![Traffic::finite(60, 0)]).await;
    let of = |account: &str| {
        let mut request = back_from(then, 1.0, 1);
        request.account.0 = account.to_owned();
        request
    };
    let mut jobs = Vec::new();
    for _ in 0..LOOK_BACKS_PER_ACCOUNT_MAX {
        jobs.push(rig.handle().create(of("a")).await.unwrap());
    }
    for _ in 0..2 {
        let refusal = rig.handle().create(of("a")).await.unwrap_err();
        assert!(
            matches!(refusal, Refusal::TooManyLookBacks { max: LOOK_BACKS_PER_ACCOUNT_MAX, .. }),
            "{refusal}"
        );
    }
    assert_eq!(rig.handle().list(AccountId("a".to_owned())).await.unwrap().len(), jobs.len());
    jobs.push(rig.handle().create(of("b")).await.unwrap());
    std::fs::remove_file(&pipe).unwrap();
    drop(held);
    for job in &jobs {
        rig.wait(job).await;
    }
    // The last of them may be ended for the store and not yet for the engine.
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(refusal) = rig.handle().create(of("a")).await {
        assert!(Instant::now() < until, "{refusal}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_a_look_back_is_refused() {
    let rig = Rig::start(WriteMode::Auto, vec![Traffic::finite(60, 0)]);
    let refused = rig.handle().create(back_from(jiff::Timestamp::now(), 1.0, 1)).await;
    assert_eq!(refused.unwrap_err(), Refusal::NoHistory);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_capture_counts_what_it_leaves_out_and_says_its_rate() {
    let options = Options { simple_sample: Sample::new(10), ..Options::default() };
    let rig = Rig::with(options, vec![Traffic::paced(300, 50_000), Traffic::paced(60, 50_000)]);
    let job = rig.handle().create(Request { packet_limit: Some(1 << 40), ..simple(60.0, 1) }).await.unwrap();
    assert_eq!(job.sample_one_in, Some(10));
    let job = rig.stop_when(&job, |ledger| ledger.rx >= 100_000).await;
    let ledger = job.ledger;
    assert_eq!((ledger.matched, ledger.unmatched), (ledger.rx, 0));
    let dropped = ledger.dropped;
    assert_eq!(ledger.captured + dropped.sampled + dropped.no_block + dropped.limit, ledger.matched);
    assert_eq!(dropped.no_block, 0);
    // Six standard deviations; what came after the stop is counted as beyond the limit and was not drawn.
    let drawn = ledger.captured + dropped.sampled;
    let bound = 6.0 * (drawn as f64 * 0.09).sqrt();
    assert!((ledger.captured as f64 - drawn as f64 / 10.0).abs() < bound, "{ledger:?}");
    assert_eq!(found(&rig, &job).len() as u64, ledger.captured);
    let progress = rig.handle().progress(AccountId("a".to_owned()), job.id.clone()).await.unwrap();
    assert_eq!(progress.sample_one_in, Some(10));
    rig.stop().await;
}

/// Asks until there is an estimate: what is in the ring is some seconds old.
async fn estimate(rig: &Rig, account: &str, filter: FilterV1) -> trawl::engine::Estimate {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let asked = Asked { filter: filter.clone(), window: Duration::from_secs(1) };
        match rig.handle().estimate(AccountId(account.to_owned()), asked).await {
            Ok(found) if found.to_ns - found.from_ns >= 1_000_000_000 => return found,
            Ok(_) | Err(Refusal::NoEstimate(_) | Refusal::EstimateTooSoon { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(Instant::now() < until, "there is no estimate");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_to_the_packet_what_a_capture_of_that_time_has_and_is_the_account_s_own() {
    let scope = |prefix: &str| Arc::new(PrefixSet::new(&[prefix.parse().unwrap()]));
    let scopes = HashMap::from([
        (AccountId("sees".to_owned()), scope("192.0.2.0/24")),
        (AccountId("sees-nothing".to_owned()), scope("203.0.113.0/24")),
    ]);
    let traffic = vec![Traffic::paced(300, 3_000), Traffic::paced(90, 1_000)];
    let rig = Rig::scoped_with(every_packet(1 << 30, 1), traffic, scopes);
    let live = rig.handle().create(request(rig.bucket(), 60.0)).await.unwrap();
    rig.until(&live, |job| job.ledger.captured > 40_000).await;
    let port = |port: u16| FilterV1 { destination_port: Some(port.into()), ..FilterV1::default() };
    let (all, none) = (estimate(&rig, "sees", port(53)).await, estimate(&rig, "sees", port(54)).await);
    let stranger = estimate(&rig, "sees-nothing", port(53)).await;
    let live = rig.stop_when(&live, |_| true).await;
    let mut packets = Vec::new();
    for object in &live.objects {
        packets.extend(records(&rig.bucket().join(&object.name)));
    }
    let window: Vec<_> = packets.iter().filter(|(ns, _)| (all.from_ns..=all.to_ns).contains(ns)).collect();
    assert!(window.len() > 2_000, "{}", window.len());
    let bytes: u64 = window.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
    assert_eq!((all.packets, all.bytes, all.sample_one_in), (window.len() as u64, bytes, 1));
    assert_eq!((all.packets_low, all.packets_high), (all.packets, all.packets));
    assert_eq!((none.packets, none.packets_high), (0, 0));
    assert_eq!((stranger.packets, stranger.bytes, stranger.packets_high), (0, 0, 0));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_there_is_no_estimate() {
    let rig = Rig::start(WriteMode::Auto, vec![Traffic::finite(60, 0)]);
    let asked = Asked { filter: FilterV1::default(), window: Duration::from_secs(60) };
    let refused = rig.handle().estimate(AccountId("a".to_owned()), asked).await.unwrap_err();
    assert!(matches!(refused, Refusal::NoEstimate(_)), "{refused}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_that_nobody_waits_for_frees_the_account_for_the_next() {
    let rig = Rig::with(every_packet(1 << 30, 1), vec![Traffic::paced(60, 20_000)]);
    estimate(&rig, "b", FilterV1::default()).await;
    let asked = || Asked { filter: FilterV1::default(), window: Duration::from_secs(300) };
    let account = AccountId("a".to_owned());
    let until = Instant::now() + Duration::from_secs(30);
    // Each is dropped while it reads, or before.
    let gone =
        tokio::time::timeout(Duration::from_millis(1), rig.handle().estimate(account.clone(), asked()));
    let _mostly_cut = gone.await;
    while let Err(refusal) = rig.handle().estimate(account.clone(), asked()).await {
        assert!(matches!(refusal, Refusal::EstimateTooSoon { .. }), "{refusal}");
        assert!(Instant::now() < until, "one that nobody waits for holds its place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.stop().await;
}
