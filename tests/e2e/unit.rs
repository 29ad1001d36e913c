//! The system calls of a run, held against those that `config/trawl.service` allows. systemd itself does not run here.

use crate::skip::skip;
use crate::trawl::Setup;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

/// The calls of a group, as this systemd knows it.
fn calls(group: &str, found: &mut BTreeSet<String>) {
    let listed = Command::new("systemd-analyze").args(["syscall-filter", group]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    for name in text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match name.starts_with('@') {
            true => calls(name, found),
            false => drop(found.insert(name.to_owned())),
        }
    }
}

/// What the unit allows.
fn allowed() -> BTreeSet<String> {
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    let unit = include_str!("../../config/trawl.service");
    for groups in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (into, groups) = match groups.strip_prefix('~') {
            Some(groups) => (&mut denied, groups),
            None => (&mut allowed, groups),
        };
        for name in groups.split_whitespace() {
            match name.starts_with('@') {
                true => calls(name, into),
                false => drop(into.insert(name.to_owned())),
            }
        }
    }
    allowed.difference(&denied).cloned().collect()
}

#[test]
fn every_system_call_of_a_capture_is_one_that_the_unit_allows() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("systemd-analyze", "scripts/install-deps.sh installs it");
    }
    let traces = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !traces.is_ok_and(|status| status.success()) {
        return skip("strace", "it is not installed or may not trace here");
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let setup = Setup { history_sample: Some(1), ..Setup::replay() };
    // `-D`: the process that the test started, and ends, is trawl and not strace.
    let trawl = setup.start_with_program("strace", &["-D", "-f", "-qq", "-o", trace.to_str().unwrap()]);
    let id = trawl.create(&trawl.request(json!({})));
    trawl.ended(&id);
    let simple = json!({"system": "magic-transit", "type": "simple", "time_limit": 1, "packet_limit": 10});
    let id = trawl.create(&simple);
    trawl.ended(&id);
    trawl.finish();
    let allowed = allowed();
    assert!(
        allowed.contains("read") && !allowed.contains("mount") && !allowed.contains("setuid"),
        "{allowed:?}"
    );
    // strace writes on until trawl's end, which is its last call.
    let text = || std::fs::read_to_string(&trace).unwrap();
    let since = Instant::now();
    while !text().contains("exit_group(") {
        assert!(since.elapsed() < Duration::from_secs(20), "the trace has no end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = text();
    // `PID call(arguments) = result`; the process that strace starts itself is there from its first call on.
    let called: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call))
        .filter(|call| !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .collect();
    assert!(called.len() > 20, "{called:?}");
    // EAL asks for the ports of old virtio devices and goes on without; without CAP_SYS_RAWIO the kernel refuses it too.
    let refused: Vec<_> =
        called.iter().filter(|call| !allowed.contains(**call) && **call != "iopl").collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}
