//! No allocation per packet or burst: the test binary's allocator counts what threads do that asked to be counted.

use super::rig::{Rig, Traffic, request};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trawl::spool::WriteMode;

struct Counting;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static CALLS: AtomicU64 = AtomicU64::new(0);

fn count() {
    // A thread that is ending has no thread-locals any more, and is not polling either.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller keeps the contract, and all memory is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_neither_allocates_nor_frees_while_packets_flow_and_captures_come_and_go() {
    let on_worker: trawl::host::OnWorker = Arc::new(|| {
        COUNTED.set(true);
        CALLS.store(0, Ordering::Relaxed);
        Box::new(())
    });
    let rig =
        Rig::counted(WriteMode::Direct, vec![Traffic::endless(300), Traffic::endless(1500)], &on_worker);
    let at_start = CALLS.load(Ordering::Relaxed);
    for n in 0..5 {
        let mut short = request(rig.bucket(), 60.0);
        short.packet_limit = Some(50_000);
        short.account.0 = format!("account{n}");
        let job = rig.capture(short).await;
        assert_eq!(job.ledger.captured, 50_000);
    }
    assert_eq!(CALLS.load(Ordering::Relaxed) - at_start, 0, "calls of the allocator on the worker's thread");
    COUNTED.set(true);
    drop(vec![0_u8; 10]);
    COUNTED.set(false);
    assert_eq!(CALLS.load(Ordering::Relaxed) - at_start, 2, "the counting itself works");
    rig.stop().await;
}
