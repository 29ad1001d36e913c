//! One metric: how it is declared and what its values are. Owns the form; not which there are (`table`).
//!
//! Invariant: a label's value is escaped before it is kept.

use super::sources::Snapshot;
use prometheus_client::registry::Unit;
use std::fmt::Display;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its labels are what it says.
    Info,
}

/// One row of the table.
pub(super) struct Metric {
    pub name: &'static str,
    pub kind: Type,
    pub unit: Option<&'static str>,
    pub labels: &'static [&'static str],
    /// One sentence without its full stop, which the format adds.
    pub help: &'static str,
    pub read: fn(&Snapshot, &mut Samples),
}

/// The values of one metric, with the values of its labels in their order.
#[derive(Debug, Default)]
pub(super) struct Samples(pub(super) Vec<(Vec<String>, u64)>);

impl Samples {
    pub fn push(&mut self, labels: &[&dyn Display], value: u64) {
        self.0.push((labels.iter().map(|label| escaped(&label.to_string())).collect(), value));
    }
}

/// `prometheus-client` writes values of labels as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The format's word for a unit.
pub(super) fn unit(name: &str) -> Unit {
    match name {
        "bytes" => Unit::Bytes,
        "seconds" => Unit::Seconds,
        other => Unit::Other(other.to_owned()),
    }
}
