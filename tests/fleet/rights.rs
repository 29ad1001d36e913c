//! What a node's key lets it do on real servers, with the config that the real program prints.

use crate::cluster::{Cluster, NEWEST, api};
use crate::node;
use std::time::Duration;
use trawl::bus::{Away, Bus, Table};
use trawl::fleet::held::{Answer, Revision};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_host_reaches_its_own_and_no_more() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let (api, own) = (
        node(&cluster.way("api1")).await,
        trawl::bus::nats::Nats::connect(&cluster.way("cap1")).await.unwrap(),
    );
    while own.health().is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let none = Revision::default();
    let write = |table, key: &'static str| own.write(table, key, none, b"mine".to_vec());
    for (table, key) in [(Table::Parts, "0a.cap1"), (Table::Parts, "0a.cap1.7"), (Table::Hosts, "ord02.cap1")]
    {
        let Answer::Wrote(revision) = write(table, key).await else { panic!("{key}") };
        assert_eq!(own.read(table, key).await, Answer::Read(revision, Some(b"mine".to_vec())), "{key}");
    }
    for (table, key) in [
        (Table::Parts, "0a.cap2"),
        (Table::Parts, "0a.all.ord02"),
        (Table::Hosts, "fra01.cap1"),
        (Table::Hosts, "ord02.cap1.ops"),
        (Table::Assignments, "ord02.0a"),
        (Table::Accounts, "a"),
        (Table::Claims, "p00"),
    ] {
        assert_eq!(write(table, key).await, Answer::Unavailable, "{key}");
        assert_eq!(api.read(table, key).await, Answer::Read(none, None), "{key}");
    }
    assert!(matches!(api.write(Table::Accounts, "a", none, b"secret".to_vec()).await, Answer::Wrote(_)));
    assert!(matches!(api.write(Table::Parts, "0a.cap2", none, b"secret".to_vec()).await, Answer::Wrote(_)));
    for (table, key) in [(Table::Accounts, "a"), (Table::Parts, "0a.cap2")] {
        assert_eq!(own.read(table, key).await, Answer::Unavailable, "{key}");
    }
    for table in [Table::Accounts, Table::Parts, Table::Hosts] {
        let list = own.list(table, "").await;
        assert!(matches!(list, Err(Away::Forbidden(_))), "{list:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_host_hears_of_its_assignments_without_a_consumer() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let (api, own) = (
        node(&cluster.way("api1")).await,
        trawl::bus::nats::Nats::connect(&cluster.way("cap1")).await.unwrap(),
    );
    let none = Revision::default();
    let assign = |key: &'static str| api.write(Table::Assignments, key, none, key.as_bytes().to_vec());
    assert!(matches!(assign("ord02.0a").await, Answer::Wrote(_)));
    assert!(matches!(assign("fra01.0a").await, Answer::Wrote(_)));
    let mut entries = own.watch(Table::Assignments, "ord02");
    let mut elsewhere = own.watch(Table::Parts, "");
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(20), entries.recv()).await.unwrap().unwrap().key;
    assert_eq!(next().await, "ord02.0a");
    assert!(matches!(assign("ord02.0b").await, Answer::Wrote(_)));
    assert_eq!(next().await, "ord02.0b");
    let listed = own.list(Table::Assignments, "ord02").await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["ord02.0a", "ord02.0b"]);
    assert!(matches!(api.write(Table::Parts, "0a.cap2", none, b"secret".to_vec()).await, Answer::Wrote(_)));
    let heard = tokio::time::timeout(Duration::from_secs(1), elsewhere.recv()).await;
    assert!(heard.is_err(), "{heard:?}");
    assert_eq!(crate::consumers(&cluster).await, 0);
}

/// As a client that is not trawl, with the key of a node.
async fn raw(cluster: &Cluster, node: &str) -> async_nats::Client {
    let way = cluster.way(node);
    let seed = std::fs::read_to_string(way.nkey_file.unwrap()).unwrap();
    let options = async_nats::ConnectOptions::with_nkey(seed.trim().to_owned());
    let options = options
        .custom_inbox_prefix(format!("_INBOX_{node}"))
        .request_timeout(Some(Duration::from_millis(500)));
    options.connect(way.servers).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_makes_consumers_or_changes_a_stream() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let consumer = r#"{"stream_name":"KV_prod_assignments","config":{"deliver_policy":"all","ack_policy":"none","max_deliver":1}}"#;
    for name in ["cap1", "api1", "ops"] {
        let client = raw(&cluster, name).await;
        for (what, question) in [
            ("CONSUMER.CREATE.KV_prod_assignments", consumer),
            ("STREAM.DELETE.KV_prod_parts", ""),
            ("STREAM.PURGE.KV_prod_parts", ""),
            ("STREAM.UPDATE.KV_prod_parts", "{}"),
            ("STREAM.MSG.DELETE.KV_prod_parts", "{\"seq\":1}"),
        ] {
            assert_eq!(api(&client, what, question).await, serde_json::Value::Null, "{name}: {what}");
        }
    }
    assert_eq!(crate::consumers(&cluster).await, 0);
    // Whose key nobody knows is not let in.
    let stranger = nkeys::KeyPair::new_user().seed().unwrap();
    assert!(
        async_nats::ConnectOptions::with_nkey(stranger).connect(cluster.way("api1").servers).await.is_err()
    );
    assert!(async_nats::ConnectOptions::new().connect(cluster.way("api1").servers).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_nodes_know_each_other_by_certificates() {
    let Some(cluster) = Cluster::start_tls(NEWEST).await else { return };
    let file = |name: &str| cluster.dir().join(name);
    let mut way = cluster.way("api1");
    way.ca_file = Some(file("ca.pem"));
    way.certificate = Some((file("node.pem"), file("node.key")));
    let bus = trawl::bus::nats::Nats::connect(&way).await.unwrap();
    let connects = async |bus: &dyn Bus, tries: u32| {
        for _ in 0..tries {
            if bus.health().is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    };
    assert!(connects(&bus, 200).await, "{:?}", bus.health());
    // Without its certificate, or with another authority, nobody connects; and the reason is told.
    way.certificate = None;
    let nameless = trawl::bus::nats::Nats::connect(&way).await.unwrap();
    assert!(!connects(&nameless, 20).await);
    way.ca_file = None;
    let elsewhere = trawl::bus::nats::Nats::connect(&way).await.unwrap();
    assert!(!connects(&elsewhere, 20).await);
    println!("{:?}; {:?}", nameless.health(), elsewhere.health());
}
