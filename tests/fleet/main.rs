//! The bus of a fleet on real NATS servers: its contract, its rights, and its faults.
//!
//! `TRAWL_FLEET_ROUNDS=20` makes more rounds of the faults.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(dead_code, reason = "files that are shared with other tests have more than is used here")]

mod cluster;
#[path = "../../src/bus/conformance.rs"]
mod conformance;
mod faults;
#[cfg(feature = "dpdk")]
mod host;
#[cfg(feature = "dpdk")]
#[path = "../e2e/http.rs"]
mod http;
#[path = "../common/inherit.rs"]
mod inherit;
#[cfg(feature = "dpdk")]
mod nodes;
mod rights;
mod setup;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/skip.rs"]
mod skip;
mod wire;

use cluster::{Cluster, api};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trawl::bus::nats::{Nats, Way};
use trawl::bus::{Away, Bus, Entry, Message, Table};
use trawl::fleet::held::{Answer, Revision};

/// A node that is connected.
async fn node(way: &Way) -> Arc<dyn Bus> {
    let nats: Arc<dyn Bus> = Arc::new(Nats::connect(way).await.unwrap());
    healthy(&nats).await;
    nats
}

/// Waits until the bus answers.
async fn healthy(bus: &Arc<dyn Bus>) {
    let began = Instant::now();
    loop {
        // An operation, because health tells of the last.
        let answer = bus.read(Table::Hosts, "nobody.nowhere").await;
        if bus.health().is_ok() && matches!(answer, Answer::Read(..)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", bus.health());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn conforms(version: &str) {
    let Some(cluster) = Cluster::start(version).await else { return };
    let two = conformance::Two(node(&cluster.way("api1")).await, node(&cluster.way("api2")).await);
    for (name, property) in conformance::ALL {
        let began = Instant::now();
        property(two.clone()).await;
        println!("{version}: {name}: {} ms", began.elapsed().as_millis());
    }
    latency(&two.0, version).await;
    // Watches and listeners of all of it left nothing behind.
    assert_eq!(consumers(&cluster).await, 0);
}

/// Consumers of all streams.
async fn consumers(cluster: &Cluster) -> u64 {
    let admin = cluster.admin().await;
    let mut count = 0;
    for table in Table::ALL {
        let info = api(&admin, &format!("STREAM.INFO.KV_{}_{}", cluster::FLEET, table.name()), "").await;
        count += info["state"]["consumer_count"].as_u64().unwrap();
    }
    count
}

/// Says how long a write takes, one after the other and many at once.
async fn latency(bus: &Arc<dyn Bus>, version: &str) {
    let mut times = Vec::new();
    let mut revision = Revision::default();
    for _ in 0..200 {
        let began = Instant::now();
        let Answer::Wrote(next) = bus.write(Table::Jobs, "latency", revision, vec![b'x'; 2000]).await else {
            continue;
        };
        revision = next;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at =
        |percent: usize| times[times.len() * percent / 100 - usize::from(percent == 100)].as_secs_f64() * 1e3;
    println!(
        "{version}: one write of 2 kB: median {:.1} ms, 99 % {:.1} ms, most {:.1} ms",
        at(50),
        at(99),
        at(100)
    );
    let began = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..32 {
        let bus = Arc::clone(bus);
        writers.spawn(async move {
            let mut revision = Revision::default();
            for _ in 0..20 {
                let key = format!("many.{writer}");
                if let Answer::Wrote(next) = bus.write(Table::Jobs, &key, revision, vec![b'x'; 2000]).await {
                    revision = next;
                }
            }
        });
    }
    writers.join_all().await;
    println!("{version}: 32 writers: {:.0} writes a second", 640.0 / began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_server_is_a_bus() {
    conforms(cluster::NEWEST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_server_is_a_bus() {
    conforms(cluster::VERSIONS[0]).await;
}
