//! How slowly a client may take its answers. Owns the clock over writes that wait; not what is written.
//!
//! A connection may wait for its client for a bounded time, and each byte that goes out gives some of that time back. So a client
//! that reads nothing, or a byte a second, is cut off in about that time, and one that reads steadily never is. The kernel's
//! `TCP_USER_TIMEOUT` alone is not enough: any byte that is acknowledged starts it again.
//!
//! A view holds a place that others wait for, so its reader must take more.
//!
//! Invariant: the time that writes have waited, less the time that bytes gave back, never exceeds the bound; beyond it every
//! write fails.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes that give a second back.
const BYTES_PER_SECOND_MIN: u64 = 1024;
/// The same while the answer is a view.
const VIEW_BYTES_PER_SECOND_MIN: u64 = 32 << 10;

/// How many bytes a second a client must take at least; shared with those who know what the answer is.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<AtomicU64>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(BYTES_PER_SECOND_MIN)))
    }
}

impl Pace {
    /// An answer begins: a view or not.
    pub fn set(&self, is_view: bool) {
        let least = if is_view { VIEW_BYTES_PER_SECOND_MIN } else { BYTES_PER_SECOND_MIN };
        self.0.store(least, Ordering::Relaxed);
    }

    fn bytes_per_second_min(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time that writes may still wait.
#[derive(Debug)]
struct Budget {
    most: Duration,
    left: Duration,
    /// Since when a write waits.
    waits: Option<Instant>,
    pace: Pace,
}

impl Budget {
    fn new(most: Duration) -> Self {
        Self { most, left: most, waits: None, pace: Pace::default() }
    }

    /// A write waits; when it must end, if it has only begun to.
    fn waits(&mut self, now: Instant) -> Option<Instant> {
        let begins = self.waits.is_none();
        self.waits.get_or_insert(now);
        begins.then(|| now + self.left)
    }

    /// So many bytes went out.
    fn wrote(&mut self, bytes: usize, now: Instant) {
        let waited = self.waits.take().map_or(Duration::ZERO, |since| now - since);
        let given = Duration::from_micros(bytes as u64 * 1_000_000 / self.pace.bytes_per_second_min());
        self.left = (self.left.saturating_sub(waited) + given).min(self.most);
    }
}

/// A stream whose writes wait for a bounded time.
pub(super) struct Paced<S> {
    stream: S,
    budget: Budget,
    end: Pin<Box<Sleep>>,
    is_cut: bool,
    /// Called when a write has waited too long.
    late: fn(),
}

impl<S: Unpin> Paced<S> {
    /// `late` is called, once, when writes have waited for more than `wait_max`.
    pub fn new(stream: S, wait_max: Duration, late: fn()) -> Self {
        let budget = Budget::new(wait_max);
        Self { stream, budget, end: Box::pin(sleep(wait_max)), is_cut: false, late }
    }

    /// The same at a pace that may change with each answer.
    pub fn at(mut self, pace: Pace) -> Self {
        self.budget.pace = pace;
        self
    }

    fn paced(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = write(Pin::new(&mut self.stream), cx);
        match &written {
            Poll::Pending => {
                if let Some(end) = self.budget.waits(Instant::now()) {
                    self.end.as_mut().reset(end);
                }
                if self.end.as_mut().poll(cx).is_ready() {
                    self.is_cut = true;
                    (self.late)();
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            Poll::Ready(Ok(bytes)) => self.budget.wrote(*bytes, Instant::now()),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.paced(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.paced(cx, |stream, cx| stream.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const WAIT_MAX: Duration = Duration::from_secs(30);

    fn served(bytes: usize) -> u64 {
        served_with(bytes, false)
    }

    /// For how many seconds a client is served that takes `bytes` once a second, at most an hour.
    fn served_with(bytes: usize, is_view: bool) -> u64 {
        let (mut budget, start) = (Budget::new(WAIT_MAX), Instant::now());
        budget.pace.set(is_view);
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            let end = budget.waits(now).unwrap();
            if end <= now + Duration::from_secs(1) {
                return second;
            }
            budget.wrote(bytes, now + Duration::from_secs(1));
        }
        3600
    }

    #[test]
    fn a_client_that_reads_a_byte_a_second_is_cut_off_and_one_that_reads_steadily_is_not() {
        assert_eq!(served(0), 29);
        assert_eq!(served(1), 30);
        assert_eq!(served(BYTES_PER_SECOND_MIN as usize / 2), 58);
        assert_eq!(served(BYTES_PER_SECOND_MIN as usize), 3600);
    }

    #[test]
    fn the_reader_of_a_view_must_take_more_and_the_next_answer_is_none() {
        assert_eq!(served_with(VIEW_BYTES_PER_SECOND_MIN as usize, true), 3600);
        assert!(served_with(VIEW_BYTES_PER_SECOND_MIN as usize / 2, true) < 60);
        let pace = Pace::default();
        pace.set(true);
        pace.set(false);
        assert_eq!(pace.bytes_per_second_min(), BYTES_PER_SECOND_MIN);
    }

    #[test]
    fn time_in_which_nothing_waits_to_be_written_does_not_count() {
        let (mut budget, mut now) = (Budget::new(WAIT_MAX), Instant::now());
        for _ in 0..10 {
            now += 10 * WAIT_MAX;
            assert!(budget.waits(now).unwrap() > now + WAIT_MAX / 2);
            now += Duration::from_secs(1);
            budget.wrote(1024, now);
        }
    }

    #[tokio::test]
    async fn a_write_that_waits_too_long_fails_and_so_does_every_later_one() {
        let (mut client, server) = duplex(8);
        let mut server = Paced::new(server, Duration::from_millis(20), || ());
        let error = server.write_all(&[7; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // There is room again, and still nothing more is written.
        client.read_exact(&mut [0; 8]).await.unwrap();
        assert!(server.write_all(&[7; 1]).await.is_err());
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
