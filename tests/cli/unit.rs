//! `config/trawl.service`: what systemd makes of it, and how much it takes away from the process.

use crate::skip::skip;
use std::fs;
use std::process::Command;

/// Of 100 that a service without any hardening has 96; tenths as systemd 252 counts them, and two for newer ones.
const EXPOSURE_MAX: &str = "28";

/// Drop-ins for ports that need more.
const DROP_INS: [(&str, &str); 2] = [
    ("mlx5", include_str!("../../config/systemd/mlx5.conf")),
    ("no-iommu", include_str!("../../config/systemd/no-iommu.conf")),
];

/// Runs `systemd-analyze` on the unit with this program in it; its status and all that it says.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    analyze_with(None, arguments)
}

/// The same with a drop-in.
fn analyze_with(drop_in: Option<&str>, arguments: &[&str]) -> Option<(bool, String)> {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("trawl.service");
    let text = include_str!("../../config/trawl.service");
    fs::write(&unit, text.replace("/usr/bin/trawl", env!("CARGO_BIN_EXE_trawl"))).unwrap();
    if let Some(text) = drop_in {
        let folder = dir.path().join("trawl.service.d");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("drop-in.conf"), text).unwrap();
    }
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(&unit).output() else {
        skip("systemd-analyze", "scripts/install-deps.sh installs it");
        return None;
    };
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    Some((output.status.success(), said))
}

#[test]
fn the_unit_is_one_that_systemd_takes_without_a_word() {
    let Some((is_good, said)) = analyze(&["verify", "--man=no"]) else { return };
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("trawl")).collect();
    assert!(is_good && about_it.is_empty(), "{said}");
}

#[test]
fn the_unit_leaves_the_process_little() {
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let Some((is_good, said)) = analyze(&["security", "--offline=true", "--no-pager", &threshold]) else {
        return;
    };
    assert!(is_good, "{said}");
    let unit = include_str!("../../config/trawl.service");
    for line in [
        "LimitCORE=0",
        "NoNewPrivileges=true",
        "MemoryDenyWriteExecute=true",
        "SystemCallFilter=@system-service",
        "Type=notify",
        "WatchdogSec=30s",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_drop_ins_are_such_that_systemd_takes_them_without_a_word() {
    for (name, text) in DROP_INS {
        let Some((is_good, said)) = analyze_with(Some(text), &["verify", "--man=no"]) else { return };
        let about_it: Vec<_> = said.lines().filter(|line| line.contains("trawl")).collect();
        assert!(is_good && about_it.is_empty(), "{name}: {said}");
        // What is wrong in a drop-in is said: so the drop-in was read.
        let wrong = text.replace("[Service]", "[Service]\nNoSuchKey=1");
        let Some((_, said)) = analyze_with(Some(&wrong), &["verify", "--man=no"]) else { return };
        assert!(said.contains("NoSuchKey"), "{name}: {said}");
    }
}
