//! Bad input, from customers and operators: a clear error, nothing started, the process as well as before.

use crate::frames::real_pcap;
use crate::outcome::Outcome;
use crate::trawl::{Setup, free_address};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use trawl::job::Status;

#[test]
fn bad_requests_are_refused_in_the_envelope_and_harm_nothing() {
    let trawl = Setup::replay().start();
    let good = trawl.request(json!({}));
    let with = |member: &str, value: Value| {
        let mut request = good.clone();
        request[member] = value;
        request.to_string()
    };
    let bad = [
        String::from("{"),
        String::from("[]"),
        String::from("null"),
        String::from("{}"),
        with("system", json!("magic-firewall")),
        with("type", json!("complete")),
        with("time_limit", json!(0)),
        with("time_limit", json!(-1)),
        with("time_limit", json!(1e300)),
        with("time_limit", json!("60")),
        with("packet_limit", json!(0)),
        with("packet_limit", json!(1.5)),
        with("byte_limit", json!(-7)),
        with("colo_name", json!("lhr01")),
        with("destination_conf", json!("ftp://example.com/x")),
        with("destination_conf", json!("file:///../../etc")),
        with("destination_conf", json!("s3://")),
        with("filter_v1", json!({"source_port": 65536})),
        with("filter_v1", json!({"source_port": -1})),
        with("filter_v1", json!({"protocol": 256})),
        with("filter_v1", json!({"source_address": "192.0.2.300"})),
        with("filter_v1", json!({"source_address": "192.0.2.0/33"})),
        with("filter_v1", json!({"source_mac": "02:00:00:00:00:01"})),
        with("snap_length", json!(64)),
        format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
    ];
    for body in &bad {
        let message = trawl.ask("POST", "", body.as_bytes()).refusal();
        assert!(!message.is_empty(), "{body}");
    }
    assert_eq!(trawl.ask("GET", "", &[]).result(), json!([]), "nothing was started");
    for path in ["/00000000000000000000000000000000", "/xyz", "/00000000000000000000000000000000/progress"] {
        trawl.ask("GET", path, &[]).refusal();
    }
    trawl.ask("PUT", "/00000000000000000000000000000000/stop", &[]).refusal();

    let mut request = good.clone();
    request["packet_limit"] = json!(100);
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    assert_eq!(Outcome::read(&trawl.bucket(), &id).frames.len(), 100);
    trawl.finish();
}

#[test]
fn a_body_over_the_limit_is_refused_without_being_read_to_its_end() {
    let trawl = Setup::replay().start();
    let body = vec![b' '; 8 << 20];
    assert_eq!(trawl.ask("POST", "", &body).status, 413);
    trawl.finish();
}

#[test]
fn strangers_see_nothing() {
    let trawl = Setup::replay().start();
    let path = "/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/pcaps";
    let other = "/client/v4/accounts/ffffffffffffffffffffffffffffffff/pcaps";
    let token = [("Authorization", "Bearer end-to-end")];
    for (headers, path) in [(&[][..], path), (&[("Authorization", "Bearer wrong")], path), (&token, other)] {
        let answer = trawl.ask_as(headers, path);
        assert!(matches!(answer.status, 400 | 401 | 403), "{answer:?}");
        answer.refusal();
    }
    trawl.finish();
}

#[test]
fn one_full_capture_at_a_time_is_a_conflict_that_names_the_other() {
    let trawl = Setup::replay().start();
    let request = trawl.request(json!({"protocol": 17, "destination_port": 53}));
    let id = trawl.create(&request);
    let answer = trawl.ask("POST", "", request.to_string().as_bytes());
    assert!(answer.refusal().contains(&id), "{answer:?}");
    trawl.until(&id, Duration::from_secs(20), |progress| progress.ledger.captured > 0);
    trawl.ask("PUT", &format!("/{id}/stop"), &[]);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    trawl.finish();
}

#[test]
fn a_config_that_cannot_work_ends_the_start_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    let good = Setup::replay().config(folder.path(), free_address());
    let missing = folder.path().join("missing.pcap");
    let cut = folder.path().join("cut.pcap");
    std::fs::write(&cut, &std::fs::read(real_pcap()).unwrap()[..10]).unwrap();
    for (text, named) in [
        (good.replace("[spool]", "[spool]\nspeed = 3"), "speed"),
        (good.replace("queues = 1", "queues = 0"), "queues"),
        (good.replace("queues = 1", "queues = 2"), "queues"),
        (good.replace("bytes_max = \"1GiB\"", "bytes_max = \"1 parsec\""), "parsec"),
        (good.replace("workers = [", "workers = [4095, "), "4095"),
        (good.replace(&real_pcap().display().to_string(), &missing.display().to_string()), "missing.pcap"),
        (good.replace(&real_pcap().display().to_string(), &cut.display().to_string()), "net_pcap0"),
    ] {
        let output = serve(folder.path(), &text);
        let printed =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code().map(|code| code != 0), Some(true), "{named}: {printed}");
        assert!(printed.contains(named), "{named}: {printed}");
        assert!(!printed.contains("panicked"), "{named}: {printed}");
    }
}

/// `trawl serve` with a config that must end it; `timeout` sees to it that a test of a failure cannot hang.
fn serve(folder: &Path, config: &str) -> Output {
    let path = folder.join("trawl.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "30", env!("CARGO_BIN_EXE_trawl"), "serve", "--config"]).arg(path);
    command.output().unwrap()
}
