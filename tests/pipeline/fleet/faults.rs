//! What becomes of a fleet's captures when nodes die, and when the bus is away, slow or loses what it is told.

use super::{Fleet, account, files, options, packets, traffic};
use crate::rig::Rig;
use std::time::Duration;
use trawl::api::Captures as _;
use trawl::bus::local::{Fate, Local};
use trawl::engine::Refusal;
use trawl::job::{Job, ObjectRange, Status, StopReason};

/// Every packet in the files of a full capture, counted once.
fn counted(fleet: &Fleet, job: &Job) -> u64 {
    packets(&files(&fleet.bucket(), &job.id)).values().map(Vec::len).sum::<usize>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent_is_named_and_the_others_are_delivered() {
    let mut fleet = Fleet::start([200; 4]).await;
    let dead = fleet.hosts[3].take().unwrap().down().await;
    let job = fleet.front(0).create(fleet.full(1.5, None)).await.unwrap();
    fleet.until(0, &job.id, |job| job.ledger.captured > 10).await;
    let progress = fleet.front(0).progress_with(account(), job.id.clone(), ObjectRange::ALL).await.unwrap();
    assert!(progress.warnings.iter().any(|warning| warning.contains("cap4 (tst02)")), "{progress:?}");
    let end = fleet.end(1, &job.id).await;
    assert_eq!(end.status, Status::Success);
    let message = end.error_message.clone().unwrap();
    assert!(message.contains("1 of 4") && message.contains("cap4 (tst02) never answered"), "{message}");
    assert_eq!(counted(&fleet, &end), end.ledger.captured);
    dead.stop().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_what_a_dead_one_led() {
    for (seconds, packets_max) in [(60.0, Some(4_000)), (4.0, None)] {
        let mut fleet = Fleet::start([300; 4]).await;
        let job = fleet.front(1).create(fleet.full(seconds, packets_max)).await.unwrap();
        fleet.until(1, &job.id, |job| job.ledger.captured > 100).await;
        // Whichever leads it: one of the two goes away, and the next time the other one.
        let dead = usize::from(packets_max.is_none());
        fleet.kill_api(dead);
        let end = fleet.end(1 - dead, &job.id).await;
        assert_eq!((end.status, &end.error_message), (Status::Success, &None), "{end:?}");
        assert_eq!(counted(&fleet, &end), end.ledger.captured);
        assert!(packets_max.is_none_or(|packets| packets == end.ledger.captured), "{end:?}");
        fleet.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_restarted_delivers_what_it_had_and_gives_the_rest_of_its_share_back() {
    let mut fleet = Fleet::start([300, 300, 300, 2000]).await;
    let job = fleet.front(0).create(fleet.full(60.0, Some(8_000))).await.unwrap();
    fleet.until(1, &job.id, |job| job.ledger.captured > 1000).await;
    let dir = fleet.hosts[3].take().unwrap().down().await.down().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rig = Rig::up(dir, options(3), traffic(3, 2000));
    let back = fleet.host(3, rig);
    fleet.hosts[3] = Some(back);
    let end = fleet.end(1, &job.id).await;
    assert_eq!((end.status, end.stop_reason), (Status::Success, Some(StopReason::PacketLimit)), "{end:?}");
    assert_eq!((counted(&fleet, &end), end.ledger.captured), (8_000, 8_000));
    let message = end.error_message.unwrap();
    assert!(message.contains("cap4 (tst02) captured a part of the time only"), "{message}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_go_on_without_the_bus_and_say_so_when_it_is_back() {
    let fleet = Fleet::start([200; 4]).await;
    let job = fleet.front(0).create(fleet.full(3.0, None)).await.unwrap();
    fleet.until(0, &job.id, |job| job.ledger.captured > 10).await;
    let all = || fleet.hosts.iter().flatten().map(|host| &host.bus);
    all().for_each(|bus| bus.faults(|faults| faults.is_away = true));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(counted(&fleet, &job) > 4 * 3 * 100, "they deliver by themselves");
    all().for_each(|bus| bus.faults(|faults| faults.is_away = false));
    let end = fleet.end(1, &job.id).await;
    assert_eq!((end.status, &end.error_message), (Status::Success, &None), "{end:?}");
    assert_eq!(counted(&fleet, &end), end.ledger.captured);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_bus_says_that_it_knows_nothing() {
    let fleet = Fleet::start([50; 4]).await;
    let job = fleet.front(0).create(fleet.full(3.0, None)).await.unwrap();
    fleet.end(0, &job.id).await;
    let (front, bus) = (fleet.front(0), &fleet.api(0).bus);
    bus.faults(|faults| faults.is_away = true);
    let refused = |refusal: Refusal| assert!(matches!(refusal, Refusal::FleetAway(_)), "{refusal}");
    refused(front.create(fleet.full(3.0, None)).await.unwrap_err());
    refused(front.list(account()).await.unwrap_err());
    refused(front.get(account(), job.id.clone()).await.unwrap_err());
    refused(front.stop(account(), job.id.clone()).await.unwrap_err());
    bus.faults(|faults| faults.is_away = false);
    assert_eq!(front.list(account()).await.unwrap().len(), 1);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_create_that_gets_lost_makes_one_capture_and_no_refusal() {
    let fleet = Fleet::start([50; 4]).await;
    for fate in [Fate::AnswerLost, Fate::Lost, Fate::Late(Duration::from_millis(300))] {
        // Of a front whose node leads nothing, so that the next write is its own.
        let bus = std::sync::Arc::new(Local::new(&fleet.shared));
        let config = trawl::node::FrontConfig {
            settings: super::settings(),
            simple_interval: Duration::from_secs(60),
            full_per_account: 1,
            simple_one_in: 1,
        };
        let front = trawl::node::Front::new(config, bus.clone());
        bus.faults(|faults| faults.fates = [fate].into());
        let before = fleet.front(1).list(account()).await.unwrap().len();
        let job = front.create(fleet.full(3.0, None)).await.unwrap();
        assert_eq!(fleet.end(1, &job.id).await.status, Status::Success, "{fate:?}");
        assert_eq!(fleet.front(1).list(account()).await.unwrap().len(), before + 1, "{fate:?}");
    }
    fleet.stop().await;
}

/// Writes get lost, their answers too, or come late; messages come late and twice, or not at all; reads are old.
fn disturb(bus: &Local, seed: usize) {
    let fates = [
        Fate::Answered,
        Fate::AnswerLost,
        Fate::Answered,
        Fate::Lost,
        Fate::Late(Duration::from_millis(400)),
    ];
    bus.faults(|faults| {
        faults.fates = (0..60).map(|n| fates[(n * 7 + seed) % fates.len()]).collect();
        faults.delay = Duration::from_millis(20 * (seed as u64 % 4));
        faults.is_doubled = seed % 2 == 1;
        faults.messages_lost = 5;
        faults.reads_behind = seed as u64 % 3;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_samples_are_exact_over_a_bus_that_loses_delays_and_doubles() {
    let mut fleet = Fleet::start([100, 100, 2000, 100]).await;
    fleet.is_disturbed = true;
    let simple = fleet.front(1).create(fleet.simple(4.0, 500)).await.unwrap();
    let full = fleet.front(0).create(fleet.full(60.0, Some(5_000))).await.unwrap();
    let apis = fleet.apis.iter().flatten().map(|api| &api.bus);
    let hosts = fleet.hosts.iter().flatten().map(|host| &host.bus);
    apis.chain(hosts).enumerate().for_each(|(seed, bus)| disturb(bus, seed));
    // No server is behind without end. In a table that nobody writes to, so many writes ago would stay as long ago.
    let heal = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let apis = fleet.apis.iter().flatten().map(|api| &api.bus);
        let hosts = fleet.hosts.iter().flatten().map(|host| &host.bus);
        apis.chain(hosts).for_each(|bus| bus.faults(|faults| faults.reads_behind = 0));
        std::future::pending().await
    };
    let end = tokio::select! {
        end = fleet.end(1, &full.id) => end,
        end = heal => end,
    };
    assert_eq!((end.status, end.stop_reason), (Status::Success, Some(StopReason::PacketLimit)), "{end:?}");
    assert_eq!((counted(&fleet, &end), end.ledger.captured), (5_000, 5_000));
    let end = fleet.end(0, &simple.id).await;
    assert_eq!((end.status, &end.error_message), (Status::Success, &None), "{end:?}");
    let found = packets(&[fleet.download(0, &end).await]);
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 500);
    fleet.stop().await;
}
