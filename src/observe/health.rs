//! Whether the process lives, and whether it is ready for captures. Owns the checks and their reasons; not the HTTP around
//! them.
//!
//! Invariant: a report is good exactly when each of its checks is, and a check that is not says why.

use super::open_files::OpenFiles;
use super::sources::{CaptureSource, PortReading, Sources, StageView, Tried, try_spool, try_store};
use crate::job::ClockState;
use crate::limits::{EXTENT_BYTES, SPOOL_END_PERCENT};
use crate::spool::Disk;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub ok: bool,
    checks: Vec<Check>,
}

impl Report {
    fn of(checks: Vec<Check>) -> Self {
        Self { ok: checks.iter().all(|check| check.ok), checks }
    }

    /// What is not good, in one line.
    pub fn words(&self) -> String {
        let bad = self.checks.iter().filter(|check| !check.ok);
        let words =
            bad.map(|check| format!("{}: {}", check.name, check.reason.as_deref().unwrap_or("not ok")));
        words.collect::<Vec<_>>().join("; ")
    }
}

fn check(name: impl Into<String>, result: Result<Option<String>, String>) -> Check {
    let (ok, reason) = match result {
        Ok(remark) => (true, remark),
        Err(reason) => (false, Some(reason)),
    };
    Check { name: name.into(), ok, reason }
}

/// Whether every stage makes progress.
pub(super) fn alive(stages: Vec<StageView>) -> Report {
    Report::of(
        stages.into_iter().map(|stage| check(stage.name, stage.stalled.map_or(Ok(None), Err))).collect(),
    )
}

/// Whether a capture that is asked for now would be accepted, and would see packets.
pub(super) async fn ready(sources: &Sources, tried: &Tried) -> Report {
    let ending = sources.is_ending().then(|| "the host is shutting down".to_owned());
    let mut checks = match &sources.capture {
        Some(capture) => captures(sources, capture, ending, tried).await,
        None => vec![
            check("api", ending.map_or(Ok(None), Err)),
            check("open files", OpenFiles::read().await.check()),
        ],
    };
    checks.extend(sources.bus.as_ref().map(|bus| check("fleet", self::bus((bus.health)(), bus.is_needed))));
    checks.extend(sources.audit.as_ref().map(|audit| {
        let failing = audit.failing().map(|why| format!("the audit log cannot be written: {why}"));
        check("audit", if audit.refuses() { failing.map_or(Ok(None), Err) } else { Ok(failing) })
    }));
    Report::of(checks)
}

/// What a host needs that captures.
async fn captures(
    sources: &Sources,
    capture: &CaptureSource,
    ending: Option<String>,
    tried: &Tried,
) -> Vec<Check> {
    let seen = match ending {
        Some(ending) => Err(ending),
        None => sources.overview().await.unwrap_or_else(|| Err("there is none".to_owned())),
    };
    let short = seen.as_ref().is_ok_and(|seen| seen.spool_short);
    let of_disk = |disk: &Arc<Disk>| {
        let free = disk.free_bytes().map_err(|error| error.to_string());
        spool((disk.dir(), disk.held_bytes(), disk.quota().bytes_max()), short, free)
    };
    // One that a disk fails takes no capture as it should be.
    let room = capture.spool.disks().iter().map(of_disk).find(Result::is_err).unwrap_or(Ok(None));
    // A disk that has room may take no write all the same.
    let room = match room {
        Ok(_) => try_spool(&capture.spool, tried).await.map(|()| None),
        short => short,
    };
    let clock = clock(seen.as_ref().ok().and_then(|seen| seen.clock_state));
    vec![
        check("engine", seen.map(|_| None)),
        check("stages", stages(&sources.stages())),
        check("ports", ports(&(sources.ports)())),
        check("spool", room),
        check("open files", OpenFiles::read().await.check()),
        check("store", try_store(&capture.jobs, tried).await.map(|()| None)),
        check("clock", Ok(clock)),
    ]
}

/// A host that captures goes on without its fleet and tells it later; a node of the API has nothing to answer from.
fn bus(health: Result<(), String>, is_needed: bool) -> Result<Option<String>, String> {
    match health {
        Ok(()) => Ok(None),
        Err(why) if is_needed => Err(why),
        Err(why) => Ok(Some(why)),
    }
}

fn stages(stages: &[StageView]) -> Result<Option<String>, String> {
    let stalled =
        stages.iter().filter_map(|stage| Some(format!("{}: {}", stage.name, stage.stalled.as_ref()?)));
    // Of use all the same, at half the rate.
    let slow = stages.iter().filter(|stage| stage.name.starts_with("writer") && !stage.reading.has_ring);
    let slow: Vec<_> = slow.map(|stage| format!("{}: no io_uring", stage.name)).collect();
    match stalled.collect::<Vec<_>>() {
        none if none.is_empty() => Ok((!slow.is_empty()).then(|| slow.join("; "))),
        stalled => Err(stalled.join("; ")),
    }
}

/// A host that watches two mirrors is of use while one of them is down, and says which is; also while one is away that it does not
/// require.
fn ports(ports: &[PortReading]) -> Result<Option<String>, String> {
    let names = |of: fn(&&PortReading) -> bool| {
        ports.iter().filter(of).map(|port| port.port.as_str()).collect::<Vec<_>>().join(", ")
    };
    let unread = names(|port| port.counters.is_none());
    let (away, missed) = (names(|port| !port.is_there), names(|port| !port.is_there && port.is_required));
    let down = names(|port| port.is_there && !port.link_up);
    let said = |what: &str, names: &str| (!names.is_empty()).then(|| format!("{what}: {names}"));
    let remarks: Vec<_> = [said("away", &away), said("no link", &down)].into_iter().flatten().collect();
    let remark = remarks.join("; ");
    if !unread.is_empty() {
        Err(format!("the counters of {unread} cannot be read: the device is gone"))
    } else if !missed.is_empty() || ports.iter().all(|port| !port.link_up) {
        Err(remark)
    } else {
        Ok((!remark.is_empty()).then_some(remark))
    }
}

/// Time stamps are as good as the host's clock; captures are of use all the same.
fn clock(said: Option<ClockState>) -> Option<String> {
    match said {
        Some(said) if said.synchronised => None,
        Some(_) => Some("nothing disciplines the wall clock: start chrony or PTP".to_owned()),
        None => Some("the kernel does not say whether something disciplines the wall clock".to_owned()),
    }
}

/// There the engine ends captures (`engine::machine`); after that it is `short` of room for a while.
fn spool(
    (dir, used, max): (&Path, u64, u64),
    short: bool,
    free: Result<u64, String>,
) -> Result<Option<String>, String> {
    let dir = dir.display();
    let free = free.map_err(|error| format!("{dir} of the spool cannot be looked at: {error}"))?;
    if short || used >= max / 100 * SPOOL_END_PERCENT {
        return Err(format!(
            "{used} of spool.bytes_max {max} bytes are used in {dir}: captures would end; let uploads finish or raise it"
        ));
    }
    if free < EXTENT_BYTES {
        return Err(format!("the file system of {dir} has {free} bytes left"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::PortCounters;

    fn port(name: &str, link_up: bool) -> PortReading {
        let counters = Some(PortCounters::default());
        PortReading {
            port: name.to_owned(),
            is_required: true,
            is_there: true,
            counters,
            counts_losses: true,
            link_up,
            link_mbps: None,
            link_changes: 0,
            quiet_seconds: 0,
            gaps: 0,
            gap_seconds: 0,
            xstats: Default::default(),
        }
    }

    #[test]
    fn one_stage_that_stands_still_fails_the_report_with_its_name() {
        let stage = |name: &str, stalled: Option<&str>| StageView {
            name: name.to_owned(),
            blocks: 0,
            reading: Default::default(),
            stalled: stalled.map(str::to_owned),
        };
        assert!(alive(vec![stage("worker0", None), stage("writer0", None)]).ok);
        let report = alive(vec![stage("worker0", None), stage("writer0", Some("hangs"))]);
        let json = serde_json::to_value(&report).unwrap();
        let checks = serde_json::json!([
            {"name": "worker0", "ok": true}, {"name": "writer0", "ok": false, "reason": "hangs"}
        ]);
        assert_eq!(json, serde_json::json!({"ok": false, "checks": checks}));
        assert_eq!(
            stages(&[stage("worker0", None), stage("writer0", None)]),
            Ok(Some("writer0: no io_uring".to_owned())),
            "it is ready, at half the rate"
        );
        assert_eq!(stages(&[stage("a", Some("b")), stage("c", Some("d"))]), Err("a: b; c: d".to_owned()));
    }

    #[test]
    fn a_host_without_any_link_is_not_ready_and_one_with_some_says_which_are_missing() {
        assert_eq!(ports(&[port("a", true), port("b", true)]), Ok(None));
        assert_eq!(ports(&[port("a", true), port("b", false)]), Ok(Some("no link: b".to_owned())));
        assert_eq!(ports(&[port("a", false), port("b", false)]), Err("no link: a, b".to_owned()));
        let away = PortReading { is_there: false, ..port("c", false) };
        assert_eq!(ports(&[port("a", true), away.clone()]), Err("away: c".to_owned()), "it is required");
        let optional = PortReading { is_required: false, ..away };
        assert_eq!(ports(&[port("a", true), optional.clone()]), Ok(Some("away: c".to_owned())));
        assert_eq!(ports(&[port("a", false), optional]), Err("away: c; no link: a".to_owned()));
        let gone = PortReading { counters: None, ..port("c", true) };
        assert!(ports(&[port("a", true), gone]).unwrap_err().contains("of c cannot be read"));
    }

    #[test]
    fn a_clock_that_nothing_disciplines_is_told_and_no_fault() {
        let said = |synchronised| ClockState {
            synchronised,
            max_error_ns: 1_000_000,
            estimated_error_ns: 1000,
            offset_ns: 0,
            leap_seconds: 0,
        };
        assert_eq!(clock(Some(said(true))), None);
        assert!(clock(Some(said(false))).unwrap().contains("chrony"));
        assert!(clock(None).is_some());
    }

    #[test]
    fn a_spool_in_which_captures_end_is_not_ready() {
        assert_eq!(spool((Path::new("/s"), 949, 1000), false, Ok(EXTENT_BYTES)), Ok(None));
        assert!(
            spool((Path::new("/s"), 900, 1000), true, Ok(EXTENT_BYTES))
                .unwrap_err()
                .contains("900 of spool.bytes_max 1000")
        );
        assert!(
            spool((Path::new("/s"), 950, 1000), false, Ok(EXTENT_BYTES))
                .unwrap_err()
                .contains("950 of spool.bytes_max 1000")
        );
        assert!(spool((Path::new("/s"), 0, 1000), false, Ok(EXTENT_BYTES - 1)).is_err());
        assert!(
            spool((Path::new("/s"), 0, 1000), false, Err("no such directory".to_owned()))
                .unwrap_err()
                .contains("no such directory")
        );
    }
}
