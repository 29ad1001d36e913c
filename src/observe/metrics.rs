//! Metrics in the OpenMetrics text format, and in the older one of Prometheus. Owns the writing of them all; a metric's form is in
//! `metric`, which there are in `table`.
//!
//! Invariant: what is written is what is declared: each row of the table once, under its name, with its labels.

use super::metric::{Samples, Type, unit};
use super::sources::Snapshot;
use super::table::TABLE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// OpenMetrics 1.0, which Prometheus reads.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The older text format, which other tools read.
pub(super) const CLASSIC_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "trawl";

/// A scrape's values.
#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in TABLE {
            let mut samples = Samples::default();
            (metric.read)(&self.0, &mut samples);
            let unit = metric.unit.map(unit);
            let kind = match metric.kind {
                Type::Counter => MetricType::Counter,
                Type::Gauge => MetricType::Gauge,
                Type::Info => MetricType::Info,
            };
            let help = format!("{}.", metric.help);
            let mut family = encoder.encode_descriptor(metric.name, &help, unit.as_ref(), kind)?;
            for (values, value) in samples.0 {
                assert_eq!(values.len(), metric.labels.len(), "the row of {} is wrong", metric.name);
                let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
                match metric.kind {
                    Type::Info => family.encode_info(&labels)?,
                    _ if labels.is_empty() => number(&mut family, metric.kind, value)?,
                    _ => number(&mut family.encode_family(&labels)?, metric.kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn number(encoder: &mut MetricEncoder<'_>, kind: Type, value: u64) -> fmt::Result {
    match kind {
        Type::Counter => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

/// All metrics with the values of `snapshot`.
pub(super) fn encode(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape(snapshot)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// The same in the older format: it knows no units and no infos, and its families have the names of their samples.
pub(super) fn classic(text: &str) -> String {
    let (mut out, mut help) = (String::with_capacity(text.len()), None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take() {
                out += &format!("# HELP {name}{suffix} {words}\n");
            }
            out += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out += line;
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
