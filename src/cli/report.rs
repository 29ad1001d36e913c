//! What people read about captures: tables, the ledger's equations, sizes. Owns the text; not where it goes.
//!
//! Invariant: every number that is shown comes from the server as it is; a sum never stands in for its parts; a server's text is one
//! line of visible characters.

use crate::chain::printable;
use crate::job::{ClockSteps, Dropped, Ledger, ObjectInfo, Progress};
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write as _;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// `table` without the padding that would otherwise end its lines.
fn lines(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim())).collect()
}

/// A member of a capture as the API shows it; empty when absent.
fn member(capture: &Value, name: &str) -> String {
    match capture.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text).into_owned(),
        Some(value) => printable(&value.to_string()).into_owned(),
    }
}

/// One line for each capture.
pub fn captures(list: &[Value]) -> String {
    if list.is_empty() {
        return "no captures; start one with `trawl capture start`\n".to_owned();
    }
    let names = ["id", "type", "status", "submitted", "time_limit", "packets_captured", "error_message"];
    let mut table = table(&names);
    for capture in list {
        table.add_row(names.map(|name| member(capture, name)));
    }
    lines(&table)
}

/// Every member of one capture or bucket.
pub fn members(capture: &Value) -> String {
    let mut text = String::new();
    for (name, value) in capture.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _infallible = writeln!(text, "{:<17} {}", printable(name), printable(&value));
    }
    text
}

/// What of a capture is on its host, if the server says.
pub fn on_spool(progress: &Progress) -> String {
    let Some(spool) = &progress.spool else { return String::new() };
    format!(
        "\n{} bytes of it are on the host's spool; the account has {} of its {} there\n",
        spool.held_bytes, spool.account_held_bytes, spool.account_bytes_max
    )
}

/// One line for each bucket.
pub fn buckets(list: &[Value]) -> String {
    if list.is_empty() {
        return "no buckets; add one with `trawl bucket add`\n".to_owned();
    }
    let names = ["id", "status", "destination_conf", "submitted", "validated"];
    let mut table = table(&names);
    for bucket in list {
        table.add_row(names.map(|name| member(bucket, name)));
    }
    lines(&table)
}

/// The objects in the bucket.
pub fn objects(objects: &[ObjectInfo]) -> String {
    if objects.is_empty() {
        return "no objects\n".to_owned();
    }
    let mut table = table(&["object", "bytes", "packets", "first packet", "last packet", "sha256"]);
    for object in objects {
        table.add_row([
            printable(&object.name).into_owned(),
            object.bytes.to_string(),
            object.packets.to_string(),
            time(object.first_ns),
            time(object.last_ns),
            printable(&object.sha256).into_owned(),
        ]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(&table)
}

pub(super) fn time(ns: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) if ns > 0 => time.to_string(),
        _ => "-".to_owned(),
    }
}

/// Every equation of the ledger with its numbers, whether they hold, and what is not in the files.
pub fn ledger(ledger: &Ledger) -> String {
    let Ledger { offered, port, rx, unmatched, matched, captured, captured_bytes, dropped } = ledger;
    let verdict = match ledger.check() {
        Ok(()) => "the counts agree: every packet is accounted for".to_owned(),
        Err(imbalance) => imbalance.to_string(),
    };
    let lost = match ledger.lost() {
        0 => String::new(),
        lost => format!("{lost} packets were lost: see the causes above that are not zero\n"),
    };
    let discarded = match port.discarded {
        0 => String::new(),
        discarded => format!(" + discarded {discarded}"),
    };
    let counts = Dropped::CAUSES.into_iter().zip(dropped.counts());
    let shown = counts.filter(|(cause, count)| *count > 0 || *cause != "share");
    let causes: Vec<_> = shown.map(|(cause, count)| format!("{cause} {count}")).collect();
    let verdict = match (port.warning(), port.uncounted) {
        (Some(warning), _) => format!("{warning}\n{verdict}"),
        (None, true) => {
            format!("more may be lost than is counted: a port does not count what it loses\n{verdict}")
        }
        (None, false) => verdict,
    };
    format!(
        "offered {offered} = rx {rx} + imissed {} + rx_nombuf {} + ierrors {}{discarded}\n\
         rx {rx} = unmatched {unmatched} + matched {matched}\n\
         matched {matched} = captured {captured} + dropped: {}\n\
         captured {captured} packets of {captured_bytes} bytes\n{lost}{verdict}\n",
        port.imissed,
        port.rx_nombuf,
        port.ierrors,
        causes.join(" + "),
    )
}

/// The end of a capture: how it ended, its objects, its ledger.
pub fn ended(progress: &Progress, error_message: Option<&str>) -> String {
    let mut text = format!("{} {}", progress.id, word(&progress.status));
    if let Some(reason) = &progress.stop_reason {
        let _infallible = write!(text, ", stopped by {}", word(reason));
    }
    if let Some(message) = error_message {
        let _infallible = write!(text, ": {}", printable(message));
    }
    if let Some(ClockSteps { count, moved_ns }) = progress.clock_steps {
        let seconds = moved_ns as f64 / 1e9;
        let _infallible = write!(
            text,
            "\nthe host's clock was set {count} times meanwhile, by {seconds:+.3} s: time stamps are those of the clock before"
        );
    }
    format!("{text}\n\n{}\n{}", objects(&progress.objects), ledger(&progress.ledger))
}

/// One line on a capture that is at work; what the ports lost is `missed`. The urgent stands first: a terminal cuts the end.
pub fn moment(progress: &Progress) -> String {
    let ledger = &progress.ledger;
    let (drops, port) = (ledger.dropped.lost(), ledger.port.total());
    let left = match progress.seconds_left.ceil() {
        seconds if seconds > 0.0 => format!(", {seconds:.0} s left"),
        _ => String::new(),
    };
    let (status, bytes) = (word(&progress.status), size(ledger.captured_bytes));
    let mut text =
        format!("{status}{left}: {} packets, {bytes}, {drops} dropped, {port} missed", ledger.captured);
    if !progress.objects.is_empty() {
        let _infallible = write!(text, ", {} objects uploaded", progress.objects.len());
    }
    text
}

/// The API's word for a status or reason.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A size to three digits.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{CaptureId, Status, StopReason};
    use serde_json::json;

    fn progress() -> Progress {
        let mut ledger = Ledger {
            offered: 1_000_010,
            rx: 1_000_000,
            unmatched: 400_000,
            matched: 600_000,
            captured: 599_900,
            captured_bytes: 51_000_000,
            ..Ledger::default()
        };
        ledger.port.imissed = 10;
        ledger.dropped.no_block = 60;
        ledger.dropped.limit = 40;
        Progress {
            id: CaptureId::parse("0123456789abcdef0123456789abcdef").unwrap(),
            status: Status::Success,
            stop_reason: Some(StopReason::TimeLimit),
            ledger,
            seconds_left: 0.0,
            packet_limit: None,
            byte_limit: None,
            warnings: Vec::new(),
            objects: vec![ObjectInfo {
                name: "pcap_0123456789abcdef0123456789abcdef.pcap".to_owned(),
                bytes: 60_598_424,
                packets: 599_900,
                first_ns: 1_795_500_000_000_000_001,
                last_ns: 1_795_500_060_000_000_000,
                sha256: "ab".repeat(32),
                ..Default::default()
            }],
            sample_one_in: None,
            clock_steps: None,
            started: None,
            ended: None,
            delivered: Default::default(),
            spool: None,
        }
    }

    #[test]
    fn the_end_shows_objects_and_every_equation_with_its_numbers() {
        insta::assert_snapshot!(ended(&progress(), None));
        let clock_steps = Some(ClockSteps { count: 2, moved_ns: -300_250_000_000 });
        let text = ended(&Progress { clock_steps, ..progress() }, None);
        assert!(text.contains("set 2 times meanwhile, by -300.250 s"), "{text}");
    }

    #[test]
    fn counts_that_do_not_agree_are_not_called_agreeing() {
        let mut ledger = progress().ledger;
        ledger.captured -= 1;
        let text = super::ledger(&ledger);
        assert!(text.contains("do not agree") && !text.contains("accounted for"), "{text}");
    }

    #[test]
    fn a_moment_is_one_line() {
        let mut progress = progress();
        (progress.status, progress.seconds_left) = (Status::Running, 11.2);
        insta::assert_snapshot!(moment(&progress), @"running, 12 s left: 599900 packets, 48.64 MiB, 60 dropped, 10 missed, 1 objects uploaded");
    }

    #[test]
    fn buckets_are_a_table_too() {
        let list = [json!({
            "id": "9883874ecac311ec8475433579a6bf5f", "status": "pending", "validated": "",
            "destination_conf": "s3://pcaps?region=us-east-1", "submitted": "2026-11-24T00:00:00Z",
            "filename": "ownership-challenge-9883874ecac311ec8475433579a6bf5f.txt",
        })];
        insta::assert_snapshot!(buckets(&list));
        assert!(buckets(&[]).contains("trawl bucket add"));
    }

    #[test]
    fn a_list_is_a_table_of_what_the_server_sent() {
        let list = [
            json!({"id": "a", "type": "full", "status": "failed", "time_limit": 300.0, "error_message": "no packets"}),
            json!({"id": "b", "type": "simple", "status": "success", "submitted": "2026-11-24T00:00:00Z"}),
        ];
        insta::assert_snapshot!(captures(&list));
    }
}
