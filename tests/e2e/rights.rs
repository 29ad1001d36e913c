//! What the running process may still do, and who may read what it writes.

use crate::trawl::Setup;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// CAP_NET_ADMIN and CAP_NET_RAW, by the kernel's numbers (linux/capability.h).
const NET: u64 = 1 << 12 | 1 << 13;
/// CAP_SYS_MODULE, CAP_SYS_PTRACE and CAP_SETUID.
const NEVER: u64 = 1 << 16 | 1 << 19 | 1 << 7;

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// None if the file was published under another name meanwhile.
fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

/// Root owns what the kernel shows of a process that is not dumpable, whoever's it is; what is a root's process anyway is told by
/// its memory map, in which no block is part of a dump ("dd": do not dump).
fn leaves_no_core(process: u32) -> bool {
    let map = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    map.lines().any(|line| line.starts_with("VmFlags") && line.contains(" dd"))
}

#[test]
fn rights_are_given_up_and_files_are_the_users_alone() {
    let trawl = Setup::replay().start();
    let mut runtime_threads = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", trawl.id())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let permitted = u64::from_str_radix(&field(&status, "CapPrm"), 16).unwrap();
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{status}");
        assert_eq!(permitted & NEVER, 0, "{status}");
        let bounding = u64::from_str_radix(&field(&status, "CapBnd"), 16).unwrap();
        assert_eq!(bounding & NEVER, 0, "{status}");
        assert_eq!(field(&status, "Seccomp"), "2", "a filter on every thread: {status}");
        if field(&status, "Name").starts_with("tokio") {
            runtime_threads += 1;
            assert_eq!(permitted & NET, 0, "{status}");
        }
    }
    assert!(runtime_threads > 0);
    assert!(leaves_no_core(trawl.id()), "a dump would hold packets and keys");
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, std::time::Duration::from_secs(30), |progress| progress.ledger.captured > 0);
    let dir = trawl.spool().join(&id);
    assert_eq!(mode(&dir), Some(0o700));
    for file in std::fs::read_dir(&dir).unwrap() {
        assert!(mode(&file.unwrap().path()).is_none_or(|mode| mode == 0o600));
    }
    trawl.ask("PUT", &format!("/{id}/stop"), &[]);
    trawl.ended(&id);
    trawl.finish();
}
