//! Captures of a fleet from the create at one node to the files.

use super::{Fleet, account, files, packets};
use serde_json::Value;
use std::time::Duration;
use trawl::api::Captures as _;
use trawl::bus::{Bus as _, Table};
use trawl::engine::Refusal;
use trawl::fleet::held::Revision;
use trawl::job::{CaptureId, ObjectRange, Status, StopReason};

/// The fleet's manifest, whose signature holds.
async fn manifest(fleet: &Fleet, id: &CaptureId) -> Value {
    let bus = &fleet.api(1).bus;
    let name = format!("pcap_{id}.json");
    let json = bus.kept(&name).await.unwrap().expect("there is no manifest");
    let signature = bus.kept(&format!("{name}.sig")).await.unwrap().expect("it is not signed");
    assert!(fleet.key.public().verifies(&json, &signature));
    serde_json::from_slice(&json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simple_capture_is_one_uniform_sample_of_all_hosts_and_the_whole_window() {
    let rates = [500, 1000, 2000, 4000];
    let fleet = Fleet::start(rates).await;
    let job = fleet.front(0).create(fleet.simple(3.0, 1000)).await.unwrap();
    assert_eq!(fleet.front(1).list(account()).await.unwrap()[0].id, job.id, "it is seen at once");
    let again = fleet.front(1).create(fleet.simple(1.0, 10)).await.unwrap_err();
    assert!(matches!(again, Refusal::SimpleTooSoon { .. }), "{again}");
    let end = fleet.end(1, &job.id).await;
    assert_eq!((end.status, end.stop_reason), (Status::Success, Some(StopReason::TimeLimit)), "{end:?}");
    assert_eq!((end.ledger.captured, &end.error_message), (1000, &None));
    end.ledger.check().unwrap();
    let found = packets(&[fleet.download(1, &end).await]);
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 1000);
    // Each host gives as it matched: within five standard deviations.
    let manifest = manifest(&fleet, &job.id).await;
    assert_eq!((&manifest["version"], &manifest["complete"]), (&2.into(), &true.into()), "{manifest}");
    for host in manifest["hosts"].as_array().unwrap() {
        let part = host["ledger"]["matched"].as_f64().unwrap() / end.ledger.matched as f64;
        let there = found.get(host["host"].as_str().unwrap()).map_or(0, Vec::len) as f64;
        let spread = (1000.0 * part * (1.0 - part)).sqrt();
        assert!((there - 1000.0 * part).abs() < 5.0 * spread, "{there} of {}: {host}", 1000.0 * part);
    }
    // So does each half of the window.
    let mut times: Vec<u64> = found.values().flatten().map(|(ns, _)| *ns).collect();
    times.sort_unstable();
    let middle = u64::midpoint(times[0], times[999]);
    let first = times.iter().filter(|ns| **ns < middle).count() as f64;
    assert!((first - 500.0).abs() < 5.0 * 1000f64.sqrt() / 2.0, "{first} in the first half");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_exact_over_all_hosts_with_one_that_is_busy() {
    let fleet = Fleet::start([20, 20, 4000, 20]).await;
    let job = fleet.front(0).create(fleet.full(60.0, Some(10_000))).await.unwrap();
    let end = fleet.end(1, &job.id).await;
    assert_eq!((end.status, end.stop_reason), (Status::Success, Some(StopReason::PacketLimit)), "{end:?}");
    let found = packets(&files(&fleet.bucket(), &job.id));
    let sum = found.values().map(Vec::len).sum::<usize>() as u64;
    assert_eq!((sum, end.ledger.captured), (10_000, 10_000));
    assert!(found["cap3"].len() > 9_000, "{:?}", found["cap3"].len());
    let sums = end.object_sums();
    assert_eq!((sums.packets, sums.objects as usize), (10_000, files(&fleet.bucket(), &job.id).len()));
    let manifest = manifest(&fleet, &job.id).await;
    assert_eq!(manifest["ledger"]["captured"], 10_000);
    for host in manifest["hosts"].as_array().unwrap() {
        let own = fleet.bucket().join(host["manifest"].as_str().unwrap());
        let own: Value = serde_json::from_slice(&std::fs::read(own).unwrap()).unwrap();
        assert_eq!(own["ledger"], host["ledger"]);
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_another_node_ends_a_capture_and_its_account_may_start_the_next() {
    let fleet = Fleet::start([200; 4]).await;
    let job = fleet.front(0).create(fleet.full(3600.0, None)).await.unwrap();
    fleet.until(1, &job.id, |job| job.ledger.captured > 100).await;
    let progress = fleet.front(1).progress_with(account(), job.id.clone(), ObjectRange::ALL).await.unwrap();
    assert!(progress.seconds_left > 3000.0 && progress.warnings.is_empty(), "{progress:?}");
    let busy = fleet.front(1).create(fleet.full(3.0, None)).await.unwrap_err();
    assert_eq!(busy, Refusal::FullCaptureActive(job.id.clone()));
    fleet.front(1).stop(account(), job.id.clone()).await.unwrap();
    fleet.front(0).stop(account(), job.id.clone()).await.unwrap();
    let end = fleet.end(0, &job.id).await;
    assert_eq!((end.status, end.stop_reason), (Status::Success, Some(StopReason::StopRequested)), "{end:?}");
    let sum = packets(&files(&fleet.bucket(), &job.id)).values().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(sum, end.ledger.captured);
    let next = fleet.front(1).create(fleet.full(0.5, None)).await.unwrap();
    assert_eq!(fleet.end(0, &next.id).await.status, Status::Success);
    let foreign = fleet.front(0).get(trawl::job::AccountId("b".to_owned()), next.id.clone()).await;
    assert_eq!(foreign.unwrap_err(), Refusal::NotFound(next.id));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_creates_at_all_nodes_at_once_an_account_gets_one() {
    let fleet = Fleet::start([50; 4]).await;
    let creates = (0..24).map(|n| {
        let (front, request) = (fleet.front(n % 2).clone(), fleet.full(2.0, None));
        tokio::spawn(async move { front.create(request).await })
    });
    let mut accepted = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        match create.await.unwrap() {
            Ok(job) => accepted.push(job.id),
            Err(Refusal::FullCaptureActive(_) | Refusal::FleetAway(_)) => {}
            Err(refusal) => panic!("{refusal}"),
        }
    }
    assert_eq!(accepted.len(), 1);
    assert_eq!(fleet.end(0, &accepted[0]).await.status, Status::Success);
    assert_eq!(fleet.front(1).list(account()).await.unwrap().len(), 1);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_meant_by_its_data_center_and_one_that_there_is_not_is_refused_by_name() {
    let fleet = Fleet::start([100; 4]).await;
    let request = fleet.full(3.0, None);
    let elsewhere = trawl::job::Request { colo: Some("fra".to_owned()), ..request.clone() };
    let refused = fleet.front(0).create(elsewhere).await.unwrap_err();
    let there = "tst01, tst02".to_owned();
    assert_eq!(refused, Refusal::NoColo { sent: "fra".to_owned(), there });
    let here = trawl::job::Request { colo: Some("Tst02".to_owned()), ..request };
    let job = fleet.front(0).create(here).await.unwrap();
    let end = fleet.end(0, &job.id).await;
    assert_eq!(end.status, Status::Success);
    let found = packets(&files(&fleet.bucket(), &job.id));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["cap3", "cap4"]);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_without_the_signature_of_a_known_key_is_not_captured() {
    let fleet = Fleet::start([100; 4]).await;
    let job = fleet.front(0).create(fleet.full(3.0, None)).await.unwrap();
    fleet.end(0, &job.id).await;
    let bus = &fleet.api(0).bus;
    let entries = bus.list(Table::Assignments, "tst01").await.unwrap();
    let text = String::from_utf8(entries[0].value.clone().unwrap()).unwrap();
    let forged = CaptureId::random();
    let text = text
        .replace(job.id.as_str(), forged.as_str())
        .replace(r#"\"is_final\":true"#, r#"\"is_final\":false"#);
    let key = format!("tst01.{forged}");
    bus.write(Table::Assignments, &key, Revision::default(), text.into_bytes()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let host = fleet.hosts[0].as_ref().unwrap();
    assert!(host.rig.handle().get(account(), forged).await.is_err());
    assert!(host.rig.handle().get(account(), job.id).await.is_ok());
    fleet.stop().await;
}
