//! `trawl fleet` on real servers.

use crate::cluster::{Cluster, NEWEST, api, trawl};
use serde_json::{Value, json};
use std::process::Command;

fn states(report: &Value) -> Vec<&str> {
    report["streams"].as_array().unwrap().iter().map(|stream| stream["state"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_makes_what_is_missing_and_changes_nothing_that_is_there() {
    let Some(cluster) = Cluster::start_empty(NEWEST).await else { return };
    assert_eq!(states(&cluster.init()), ["made"; 8]);
    let again = cluster.init();
    assert_eq!((states(&again), &again["server"]), (vec!["right"; 8], &json!(NEWEST)));

    let admin = cluster.admin().await;
    let stream = |name: &str| format!("STREAM.INFO.KV_prod_{name}");
    let mut config = api(&admin, &stream("jobs"), "").await["config"].clone();
    assert_eq!(config["num_replicas"], json!(3));
    config["num_replicas"] = json!(1);
    config["max_bytes"] = json!(1 << 30);
    api(&admin, "STREAM.UPDATE.KV_prod_jobs", &config.to_string()).await;
    api(&admin, "STREAM.DELETE.KV_prod_claims", "").await;

    let run = |more: &[&str]| {
        let (node, key) = (cluster.node_config("api1"), cluster.dir().join("ops.nk"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
        command
            .args(["fleet", "init", "--config"])
            .arg(node)
            .arg("--nkey-file")
            .arg(key)
            .args(["--name", "ops"]);
        let output = command.args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run(&["--check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("KV_prod_jobs: num_replicas is 1, and it must be 3"), "{said}");
    assert!(said.contains("KV_prod_claims: is missing") && !said.contains("max_bytes"), "{said}");
    let (code, said) = run(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("KV_prod_claims: made") && said.contains("num_replicas is 1"), "{said}");
    assert_eq!(api(&admin, &stream("jobs"), "").await["config"]["num_replicas"], json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_the_fleet_may_not_make_streams_and_is_told_so() {
    let Some(cluster) = Cluster::start_empty(NEWEST).await else { return };
    let config = cluster.node_config("api1");
    let output = Command::new(env!("CARGO_BIN_EXE_trawl"))
        .args(["fleet", "init", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("does not let this node use"), "{said}");
    let seed = std::fs::read_to_string(cluster.dir().join("api1.nk")).unwrap();
    assert!(!said.contains(seed.trim()));
    // The key is shown by its public half alone.
    let shown = trawl(&["fleet", "key", cluster.dir().join("api1.nk").to_str().unwrap()]);
    assert!(shown.starts_with('U') && !shown.contains(seed.trim()));
}
