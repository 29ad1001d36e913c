//! The async runtime. Owns how it is built; not what runs on it.
//!
//! Invariant: blocking work always has a thread. Tokio panics where it has none and the system refuses one, so the first is
//! made at the start, which fails without it, and none is given back: while the system refuses further ones, work waits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A thread for blocking work that has none stays that long: longer than any process lives.
const KEPT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// One of `workers` threads, of which each runs `on_start` first, as those for blocking work do.
///
/// # Errors
/// When the system refuses a thread or a descriptor.
pub fn with_workers(workers: usize, on_start: fn()) -> io::Result<Runtime> {
    with_thread(Builder::new_multi_thread().worker_threads(workers).on_thread_start(on_start))
}

/// One that runs on the thread that waits for it.
///
/// # Errors
/// As [`with_workers`].
pub fn on_this_thread() -> io::Result<Runtime> {
    with_thread(&mut Builder::new_current_thread())
}

fn with_thread(builder: &mut Builder) -> io::Result<Runtime> {
    let builder = builder.enable_all().thread_keep_alive(KEPT);
    let build = || -> io::Result<_> {
        let runtime = builder.build()?;
        let first = runtime.spawn_blocking(|| {});
        Ok((runtime, first))
    };
    // An error says better what the panic would.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let built = catch_unwind(AssertUnwindSafe(build));
    std::panic::set_hook(hook);
    let Ok(built) = built else {
        let message =
            "the system refuses a further thread: raise LimitNPROC or TasksMax, or end other processes";
        return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
    };
    let (runtime, first) = built?;
    runtime.block_on(first).map_err(io::Error::other)?;
    Ok(runtime)
}
