//! `trawl check --measure` on this host, however slow it is: every stage gives a figure, and nothing stays behind.

use crate::trawl::{Setup, free_address};
use serde_json::Value;
use std::process::Command;

#[test]
fn check_measures_every_stage_at_every_size_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("spool")).unwrap();
    let config = dir.path().join("trawl.toml");
    std::fs::write(&config, Setup::replay().config(dir.path(), free_address())).unwrap();
    let check = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
        command.args(["check", "--measure", "--config"]).arg(&config).args(more).output().unwrap()
    };
    let output = check(&["--json"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("frames of ").count(), 9, "a line before each measurement: {said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = found["measured"].as_array().unwrap();
    let sizes: Vec<_> = measured.iter().map(|one| one["frames"].as_str().unwrap()).collect();
    assert_eq!(sizes, ["64", "imix", "1518"]);
    for one in measured {
        let rate = |stage: &str| one[stage]["pps"].as_f64().unwrap();
        assert!(rate("source") > 0.0 && rate("memory") > 0.0 && rate("disk") > 0.0, "{one}");
        assert!(one["limit"].is_string(), "{one}");
        let bytes = one["disk"]["bps"].as_f64().unwrap() / 8.0 / rate("disk");
        assert!((59.0..=1515.0).contains(&bytes), "{bytes} bytes a frame: {one}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
}
