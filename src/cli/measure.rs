//! What `trawl check --measure` says. Owns the table and the advice; the figures are `host`'s.
//!
//! Invariant: every figure in the table is one that was measured, or that divided by a number of cores.

use crate::config::CoresPlan;
use crate::host::{Limit, Measured};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::Write as _;
use std::path::Path;

/// The table and what it means.
pub fn text(measured: &[Measured], cores: &CoresPlan, spool: &Path) -> String {
    let workers = cores.workers.len();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "frames",
        "source Mpps",
        "memory Mpps",
        "disk Mpps",
        "disk Gbit/s",
        "Mpps/worker",
        "writers busy",
        "limit",
    ]);
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mpps = |pps: f64| format!("{:.2}", pps / 1e6);
    for found in measured {
        table.add_row([
            found.frames.to_owned(),
            mpps(found.source.pps),
            mpps(found.memory.pps),
            mpps(found.disk.pps),
            format!("{:.2}", found.disk.bps / 1e9),
            mpps(found.disk.pps / workers as f64),
            format!("{:.0} %", found.writers_busy * 100.0),
            format!("{:?}", found.limit).to_lowercase(),
        ]);
    }
    let mut text: String = table.to_string().lines().map(|line| format!("{}\n", line.trim())).collect();
    let _infallible = writeln!(
        text,
        "workers on cores {:?}, writers on {:?}, spool {}; sizes with FCS, Gbit/s without",
        cores.workers,
        cores.writers,
        spool.display()
    );
    for limit in [Limit::Source, Limit::Workers, Limit::Writers, Limit::Disk] {
        let at: Vec<_> = measured.iter().filter(|found| found.limit == limit).map(|f| f.frames).collect();
        if !at.is_empty() {
            let _infallible = writeln!(text, "{}: {}", at.join(", "), advice(limit));
        }
    }
    text
}

fn advice(limit: Limit) -> &'static str {
    match limit {
        Limit::Source => "the synthetic source is slower than this host; a real port may bring more",
        Limit::Workers => {
            "the workers' cores are the limit: more of them in cores.workers, with port.queues to match"
        }
        Limit::Writers => "the writers' cores are the limit: more of them in cores.writers",
        Limit::Disk => {
            "the disk is the limit: a faster one, or several striped; blocks.bytes_max rides out peaks only"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Rate;
    use crate::worker::WhenIdle;

    #[test]
    fn the_table_shows_every_stage_and_says_what_to_do() {
        let rate = |pps: f64| Rate { pps, bps: pps * 480.0 };
        let found = Measured {
            frames: "64",
            source: rate(30e6),
            memory: rate(20e6),
            disk: rate(5e6),
            writers_busy: 0.25,
            limit: Limit::Disk,
        };
        let cores =
            CoresPlan { workers: vec![1], writers: vec![0], delivery: vec![0], when_idle: WhenIdle::Spin };
        let text = text(&[found], &cores, Path::new("/spool"));
        for part in ["30.00", "20.00", "5.00", "2.40", "25 %", "disk", "64: the disk is the limit"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
