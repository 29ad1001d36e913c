//! What `monitoring/` names against the table of metrics, and its alerts against the runbook.

use super::*;
use serde_json::Value;

const RULES: &str = include_str!("../../monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../monitoring/dashboard.json");
const RUNBOOK: &str = include_str!("../../docs/RUNBOOK.md");

/// On no panel: the same is there as a rate, or beside it as another count.
const NOT_SHOWN: [&str; 27] = [
    // Absent without a fleet; readiness tells of it.
    "trawl_fleet_up",
    // An alert tells of it.
    "trawl_clock_synchronised",
    // An alert tells of those that are missing.
    "trawl_timestamps_total",
    // Absent without an audit log; an alert tells of one that cannot be written.
    "trawl_audit_lines_total",
    "trawl_audit_lost_entries_total",
    "trawl_audit_writable",
    "trawl_audit_bytes",
    // An alert tells of what was refused.
    "trawl_config_reloads_total",
    "trawl_port_counts_losses",
    // Its driver chooses the names.
    "trawl_port_driver_value",
    "trawl_stage_turns_total",
    "trawl_stage_queued_most_messages",
    "trawl_writer_writes_total",
    "trawl_io_uring_up",
    "trawl_spool_fsyncs_total",
    // Health and the capture say it.
    "trawl_spool_dir_failures_total",
    "trawl_spool_alarm",
    "trawl_spool_alarms_total",
    "trawl_account_spool_limit_bytes",
    "trawl_capture_offered_packets_total",
    "trawl_capture_rx_packets_total",
    "trawl_capture_unmatched_packets_total",
    "trawl_capture_captured_packets",
    "trawl_capture_objects",
    "trawl_merge_objects_total",
    "trawl_queue_worker",
    // Absent while none waits.
    "trawl_upload_next_try_seconds",
];

/// The names of samples, as queries use them.
fn samples() -> BTreeSet<String> {
    let suffix = |metric: &Metric| match metric.kind {
        Type::Counter => "_total",
        Type::Gauge => "",
        Type::Info => "_info",
    };
    TABLE.iter().map(|metric| family(metric) + suffix(metric)).collect()
}

/// What begins with `trawl_` in a query.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("trawl_"))
}

/// The queries of every panel, each with its title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        panel["targets"].as_array().into_iter().flatten().map(move |target| (title.clone(), target.clone()))
    });
    targets.map(|(title, target)| (title, target["expr"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_exist() {
    let (samples, queries) = (samples(), queries());
    assert!(queries.len() > 40, "{}", queries.len());
    for (title, query) in &queries {
        assert!(names(query).count() > 0, "{title}: {query}");
        let missing: Vec<_> = names(query).filter(|name| !samples.contains(*name)).collect();
        assert!(missing.is_empty(), "{title}: {missing:?}");
    }
    let rules = RULES.lines().filter(|line| !line.trim_start().starts_with(['#', 's']));
    let missing: Vec<_> = rules.flat_map(names).filter(|name| !samples.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_metric_is_on_a_panel_or_is_known_to_be_on_none() {
    let queries = queries();
    let shown: BTreeSet<_> = queries.iter().flat_map(|(_, query)| names(query)).collect();
    let not_shown: BTreeSet<_> = NOT_SHOWN.into_iter().collect();
    let forgotten: Vec<_> = samples()
        .into_iter()
        .filter(|name| !shown.contains(name.as_str()) && !not_shown.contains(name.as_str()))
        .collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

#[test]
fn every_alert_has_a_place_in_the_runbook() {
    let value = |line: &'static str, key: &str| line.trim_start().strip_prefix(key);
    let alerts: Vec<_> = RULES.lines().filter_map(|line| value(line, "- alert: ")).collect();
    let places: Vec<_> = RULES.lines().filter_map(|line| value(line, "runbook_url: ")).collect();
    assert!(alerts.len() > 15 && alerts.len() == places.len(), "{alerts:?}");
    for (alert, place) in alerts.iter().zip(places) {
        let anchor = format!("file:///usr/share/doc/trawl/docs/RUNBOOK.md#{}", alert.to_lowercase());
        assert_eq!(place, anchor);
        assert!(RUNBOOK.lines().any(|line| line == format!("## {alert}")), "docs/RUNBOOK.md has no {alert}");
    }
    let headings = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## "));
    let unknown: Vec<_> = headings.filter(|heading| !alerts.contains(heading)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are no alerts");
}
