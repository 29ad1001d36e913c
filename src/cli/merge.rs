//! `trawl merge`. Owns its progress bar and closing line; the merge itself is in `merge`.
//!
//! Invariant: standard output carries nothing but the merged file, if that is asked for.

use crate::merge::{Totals, merge_files_watched};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A merge that takes less gets no progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Merges `inputs` by time into `output` (`-`: standard output) and says what came of it.
///
/// # Errors
/// What [`merge_files_watched`] says.
pub fn run(output: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    let bytes = inputs.iter().filter_map(|input| input.metadata().ok()).map(|metadata| metadata.len()).sum();
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
    let style = "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    let started = Instant::now();
    let mut shown = false;
    let totals = merge_files_watched(inputs, output, &mut |done_bytes| {
        if !shown && started.elapsed() >= BAR_AFTER {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            shown = true;
        }
        bar.set_position(done_bytes);
    });
    bar.finish_and_clear();
    let summary = describe(&totals?)?;
    if output == Path::new("-") {
        eprintln!("{summary}");
    } else {
        println!("{}: {summary}", output.display());
    }
    Ok(())
}

fn describe(totals: &Totals) -> anyhow::Result<String> {
    let Totals { packets, bytes, first_ns, last_ns, disorder, .. } = *totals;
    let mut text = format!("{packets} packets, {bytes} bytes");
    if packets > 0 {
        let time = |ns: u64| jiff::Timestamp::from_nanosecond(i128::from(ns));
        text += &format!(", from {} to {}", time(first_ns)?, time(last_ns)?);
    }
    if disorder > 0 {
        text += &format!("; {disorder} of them are older than the one before, as in their inputs");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_has_packets_and_both_times_to_the_nanosecond() {
        let (first_ns, last_ns) = (1_700_000_000_000_000_001, 1_700_000_001_500_000_000);
        let totals = Totals { objects: 1, packets: 2, bytes: 176, first_ns, last_ns, disorder: 0 };
        let text = "2 packets, 176 bytes, from 2023-11-14T22:13:20.000000001Z to 2023-11-14T22:13:21.5Z";
        assert_eq!(describe(&totals).unwrap(), text);
        assert_eq!(describe(&Totals::default()).unwrap(), "0 packets, 0 bytes");
    }
}
