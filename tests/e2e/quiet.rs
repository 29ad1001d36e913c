//! No system call per packet or burst: `strace` watches the poll thread of the real process under full load.

use crate::skip::skip;
use crate::trawl::Setup;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;
use trawl::job::Status;

/// Whether `strace` may attach here; some sandboxes forbid ptrace.
fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

#[test]
fn a_worker_makes_no_system_call_while_packets_flow() {
    if !can_trace() {
        return skip("strace", "it is not installed or may not trace here");
    }
    let trawl = Setup { spool_bytes_max: "8GiB", ..Setup::replay() }.start();
    let id = trawl.create(&trawl.request(json!({"protocol": 6})));
    trawl.until(&id, Duration::from_secs(20), |progress| progress.status == Status::Running);
    let before = trawl.progress(&id).ledger;
    let summary = trawl.spool().join("strace");
    let mut strace = Command::new("strace")
        .args(["-q", "-c", "-o"])
        .arg(&summary)
        .args(["-p", &trawl.thread("worker0").to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let pid = Pid::from_child(&strace);
    assert!(test_kill_process(pid).is_ok(), "strace ended early");
    kill_process(pid, Signal::INT).unwrap();
    strace.wait().unwrap();
    let after = trawl.progress(&id).ledger;
    assert!(after.rx > before.rx + 10_000, "{before:?} {after:?}");
    let calls = std::fs::read_to_string(summary).unwrap();
    assert!(
        calls.trim().is_empty(),
        "system calls of the worker while {} frames came:\n{calls}",
        after.rx - before.rx
    );
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    trawl.ended(&id);
    trawl.finish();
}
