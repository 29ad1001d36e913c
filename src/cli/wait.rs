//! Following a capture to its end. Owns the polling, the bar and what Ctrl-C does; not the final report.
//!
//! Invariant: the first interrupt asks the server to stop, the second leaves; nothing else ends the wait early but a
//! server that stays away.

use super::client::{self, Client};
use super::{out, report};
use crate::job::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long a server may stay away (a restart) before the wait is given up.
const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// Between two questions: often enough for a bar to move.
const PERIOD_BAR: Duration = Duration::from_millis(250);

/// Between two lines where there is no terminal.
const PERIOD_LINES: Duration = Duration::from_secs(1);

/// Why a wait ended without the capture's end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A second interrupt.
    #[error("detached; capture {id} may still be running: `trawl capture show {id}`")]
    Left {
        /// The capture.
        id: String,
    },
    /// The server refused, or stayed away.
    #[error("{source}; capture {id} may still be running: `trawl capture show {id}`")]
    Server {
        /// The capture.
        id: String,
        /// Its words.
        source: client::Error,
    },
}

/// Where progress is shown: always standard error, because standard output is the result.
pub enum Display {
    /// A bar that is redrawn.
    Bar(ProgressBar),
    /// A line now and then.
    Lines,
}

impl Display {
    /// A bar on a terminal, lines otherwise. The bar is full after `seconds`, or when a limit is used up.
    #[must_use]
    pub fn new(seconds: f64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let length = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_millis();
        let bar = ProgressBar::with_draw_target(u64::try_from(length).ok(), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} [{bar:10}] {wide_msg}");
        Self::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn period(&self) -> Duration {
        match self {
            Self::Bar(_) => PERIOD_BAR,
            Self::Lines => PERIOD_LINES,
        }
    }

    fn show(&self, progress: &Progress) {
        match self {
            Self::Bar(bar) => {
                bar.set_position(position(progress, bar.length().unwrap_or(0)));
                bar.set_message(report::moment(progress));
                bar.tick();
            }
            Self::Lines => out::note(&report::moment(progress)),
        }
    }

    fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines => out::note(text),
        }
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// How much of `length` ms is done: by time, or by the limit that is nearest.
fn position(progress: &Progress, length: u64) -> u64 {
    let left = (progress.seconds_left * 1000.0) as u64;
    let share = |done: u64, limit: Option<u64>| {
        let part = u128::from(done.min(limit.unwrap_or(u64::MAX))) * u128::from(length);
        limit.map_or(0, |limit| (part / u128::from(limit.max(1))) as u64)
    };
    length
        .saturating_sub(left)
        .max(share(progress.ledger.captured, progress.packet_limit))
        .max(share(progress.ledger.captured_bytes, progress.byte_limit))
}

/// Ctrl-C, as often as it is pressed. From here on it no longer ends the process by itself.
///
/// # Errors
/// When the signal cannot be caught.
pub fn interrupts() -> std::io::Result<mpsc::Receiver<()>> {
    let mut signal = signal(SignalKind::interrupt())?;
    let (pressed, interrupts) = mpsc::channel(2);
    tokio::spawn(async move { while signal.recv().await.is_some() && pressed.send(()).await.is_ok() {} });
    Ok(interrupts)
}

/// Asks for the capture's progress until it has ended.
///
/// # Errors
/// [`Error::Left`] after the second interrupt; [`Error::Server`] when the server refuses or stays away.
pub async fn follow(
    client: &Client,
    id: &str,
    display: &Display,
    mut interrupts: mpsc::Receiver<()>,
) -> Result<Progress, Error> {
    let ended = watch(client, id, display, &mut interrupts).await;
    display.clear();
    ended
}

async fn watch(
    client: &Client,
    id: &str,
    display: &Display,
    interrupts: &mut mpsc::Receiver<()>,
) -> Result<Progress, Error> {
    let left = || Error::Left { id: id.to_owned() };
    let mut tick = tokio::time::interval(display.period());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut absent_since = None;
    let mut stop_is_requested = false;
    loop {
        let question = async {
            tick.tick().await;
            client.progress(id).await
        };
        let answer = tokio::select! {
            answer = question => answer,
            Some(()) = interrupts.recv() => {
                if stop_is_requested {
                    return Err(left());
                }
                stop_is_requested = true;
                display.say("asking the server to stop the capture; Ctrl-C again detaches at once");
                tokio::select! {
                    stopped = client.stop(id) => stopped.map_err(|source| Error::Server { id: id.to_owned(), source })?,
                    Some(()) = interrupts.recv() => return Err(left()),
                }
                continue;
            }
        };
        match answer {
            Ok(progress) => {
                absent_since = None;
                display.show(&progress);
                if progress.status.ended() {
                    return Ok(progress);
                }
            }
            Err(error) => {
                let since = *absent_since.get_or_insert_with(Instant::now);
                if !error.is_transient() || since.elapsed() > ABSENCE_MAX {
                    return Err(Error::Server { id: id.to_owned(), source: error });
                }
                display.say(&format!("{error}; trying again"));
            }
        }
    }
}
