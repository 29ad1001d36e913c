//! The table against the document, and what is written against the format.

use super::super::metric::Metric;
use super::*;
use crate::audit::AuditCounts;
use crate::block::Heartbeat;
use crate::engine::{AccountView, CaptureView, Overview};
use crate::job::ClockState;
use crate::job::{AccountId, CaptureId, Kind, Ledger, Status};
use crate::observe::open_files::OpenFiles;
use crate::observe::sources::{DiskView, StageView};
use crate::observe::{PortCounters, PortReading};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

#[path = "../../tests/common/openmetrics.rs"]
mod openmetrics;

#[path = "monitoring_tests.rs"]
mod monitoring;

const DOCUMENT: &str = include_str!("../../docs/METRICS.md");

/// The name without what the format appends to samples.
fn family(metric: &Metric) -> String {
    metric.unit.map_or(format!("{PREFIX}_{}", metric.name), |unit| format!("{PREFIX}_{}_{unit}", metric.name))
}

fn document_table() -> String {
    let mut table = String::new();
    for metric in TABLE {
        let (kind, suffix) = match metric.kind {
            Type::Counter => ("counter", "_total"),
            Type::Gauge => ("gauge", ""),
            Type::Info => ("info", "_info"),
        };
        let (name, labels) = (family(metric), metric.labels.join(", "));
        let unit = metric.unit.unwrap_or("–");
        writeln!(table, "| `{name}{suffix}` | {kind} | {unit} | {labels} | {} |", metric.help).unwrap();
    }
    table
}

#[test]
fn the_document_has_exactly_the_table() {
    let table = document_table();
    let documented: String =
        DOCUMENT.lines().filter(|line| line.starts_with("| `trawl_")).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(documented, table, "docs/METRICS.md must have these rows:\n{table}");
}

fn ports() -> Vec<PortReading> {
    vec![
        PortReading {
            port: "net_pcap0".to_owned(),
            is_required: true,
            is_there: true,
            counters: Some(PortCounters { rx: 5, ..PortCounters::default() }),
            counts_losses: true,
            link_up: true,
            link_mbps: Some(10_000),
            link_changes: 1,
            quiet_seconds: 7,
            gaps: 2,
            gap_seconds: 9,
            xstats: Arc::new(vec![("rx_good_packets".to_owned(), 5)]),
        },
        PortReading {
            port: "a \"b\"\n\\".to_owned(),
            is_required: false,
            is_there: false,
            counters: None,
            counts_losses: false,
            link_up: false,
            link_mbps: None,
            link_changes: 0,
            quiet_seconds: 0,
            gaps: 0,
            gap_seconds: 0,
            xstats: Arc::default(),
        },
    ]
}

fn capture(kind: Kind, status: Status) -> CaptureView {
    CaptureView {
        id: CaptureId::random(),
        kind,
        status,
        ledger: Ledger { rx: 5, matched: 3, unmatched: 2, captured: 3, offered: 5, ..Ledger::default() },
        objects: 1,
        object_bytes: 1000,
        account: AccountId("a".to_owned()),
        seconds_left: 1.0,
        waiting_bytes: 5000,
        stopped: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        warnings: Vec::new(),
        last_error: None,
        is_inherited: false,
        next_try_seconds: Some(2.5),
    }
}

pub(in crate::observe) fn snapshot() -> Snapshot {
    let stage = |name: &str, blocks| {
        let stage = Heartbeat::new(name, blocks);
        stage.beat(3, 2);
        let stalled = (name == "writer0").then(|| "it hangs".to_owned());
        StageView { name: name.to_owned(), blocks: stage.blocks(), reading: stage.read(), stalled }
    };
    Snapshot {
        started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ports: ports(),
        queues: vec![
            ("net_pcap0".to_owned(), Default::default()),
            ("net_pcap0".to_owned(), Default::default()),
        ],
        queue_workers: vec![0, 0],
        stages: vec![stage("worker0", 8), stage("writer0", 0), stage("publisher", 0), stage("engine", 0)],
        captures: true,
        bus_up: Some(true),
        spool_used: 10,
        spool_held: 5,
        spool_max: 100,
        disks: vec![DiskView {
            dir: "/spool".to_owned(),
            used: 10,
            held: 5,
            max: 100,
            free: Some(7),
            failures: 1,
        }],
        account_max: 50,
        uploads: Default::default(),
        log_lines_dropped: 0,
        reloads: [("done", 3), ("refused", 1)],
        stamps: Default::default(),
        audit: Some(AuditCounts { lines: 12, lost: 0, bytes: 4711, is_failing: false }),
        authentication_failures: vec![("denied", 3)],
        refused_requests: vec![(AccountId("b".to_owned()), 3), (AccountId("a".to_owned()), 5)],
        connections_cut: vec![("displaced", 4)],
        open_files: OpenFiles { open: Ok(20), limit: 1024 },
        requests: vec![(("GET", "/accounts/{account_id}/pcaps".to_owned(), 200), 7)],
        engine: Some(Overview {
            captures: vec![
                capture(Kind::Full, Status::Running),
                capture(Kind::Simple, Status::ConversionRunning),
            ],
            accounts: vec![AccountView {
                account: AccountId("a".to_owned()),
                number: 4,
                held_bytes: 7,
                waiting: 2,
                deliveries_at_work: 1,
                deliveries_waiting: 1,
            }],
            clock_state: Some(ClockState {
                synchronised: true,
                max_error_ns: 1,
                estimated_error_ns: 1,
                offset_ns: 0,
                leap_seconds: 0,
            }),
            ..Overview::default()
        }),
    }
}

#[test]
fn what_is_written_is_openmetrics_and_has_every_metric_with_its_labels() {
    let text = encode(snapshot()).unwrap();
    let families = openmetrics::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(families.0.len(), TABLE.len());
    for metric in TABLE {
        let found = &families.0[&family(metric)];
        assert!(!found.samples.is_empty(), "{} has no sample", metric.name);
        assert_eq!(found.unit, metric.unit.unwrap_or_default());
        let expected: BTreeSet<_> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        assert!(
            found.samples.keys().all(|labels| labels.keys().cloned().collect::<BTreeSet<_>>() == expected)
        );
    }
    assert_eq!(families.sum("trawl_capture_rx_packets", &[]), 10);
    assert_eq!(families.sum("trawl_captures", &[("state", "running")]), 1);
    assert_eq!(families.sum("trawl_port_link_up", &[("port", "a \"b\"\n\\")]), 0);
    assert_eq!(families.sum("trawl_stage_stalled", &[("stage", "writer0")]), 1);
}

#[test]
fn without_an_engine_the_rest_is_still_there() {
    let text = encode(Snapshot { engine: None, ..snapshot() }).unwrap();
    let families = openmetrics::parse(&text).unwrap();
    assert_eq!(families.sum("trawl_engine_up", &[]), 0);
    assert_eq!(families.count("trawl_captures"), 0);
    assert_eq!(families.count("trawl_queue_rx_packets"), 2);
}

#[test]
fn the_reader_refuses_what_the_format_forbids() {
    let head = "# HELP a_bytes A.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n";
    assert!(openmetrics::parse(&format!("{head}a_bytes_total{{x=\"1\"}} 5\n# EOF\n")).is_ok());
    for wrong in [
        format!("{head}a_bytes_total 5\n"),
        format!("{head}a_bytes 5\n# EOF\n"),
        format!("{head}a_bytes_total 5\na_bytes_total 6\n# EOF\n"),
        format!("{head}a_bytes_total{{x=\"1\" 5\n# EOF\n"),
        format!("{head}a_bytes_total{{x=\"1\",x=\"2\"}} 5\n# EOF\n"),
        format!("{head}a_bytes_total -5\n# EOF\n"),
        "a_total 5\n# EOF\n".to_owned(),
        "# HELP a A.\n# TYPE a counter\n# UNIT a bytes\n# EOF\n".to_owned(),
    ] {
        assert!(openmetrics::parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_older_format_has_every_family_under_the_name_of_its_samples() {
    let text = encode(snapshot()).unwrap();
    let classic = classic(&text);
    let samples = |text: &str| {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&text), samples(&classic));
    for metric in TABLE {
        let (suffix, kind) = match metric.kind {
            Type::Counter => ("_total", "counter"),
            Type::Gauge => ("", "gauge"),
            Type::Info => ("_info", "gauge"),
        };
        let name = family(metric) + suffix;
        let head = format!("# HELP {name} {}.\n# TYPE {name} {kind}\n{name}", metric.help);
        assert!(classic.contains(&head), "{head}\n{classic}");
    }
    assert!(!classic.contains("# UNIT") && !classic.contains("# EOF"));
}
