//! Receiving takes nothing from the heap: a counting allocator watches this binary.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use trawl::packet::{Burst, Source};

use crate::support::{alone, eal_small, frame, start, write_pcap};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator; counting touches a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn receiving_looking_and_copying_allocate_nothing() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mix.pcap");
        write_pcap(
            &path,
            &(0..1000).map(|i| frame(i, if i % 10 == 0 { 9014 } else { 60 })).collect::<Vec<_>>(),
        );
        let (_null, mut endless) = start(&eal, "net_null0", 1);
        let (_pcap, mut mixed) = start(&eal, format!("net_pcap0,rx_pcap={}", path.display()), 1);
        let mut bytes = vec![0; 9014];
        let before = ALLOCATIONS.get();
        assert!(before > 0, "the allocator counts");
        for queue in [&mut endless[0], &mut mixed[0]] {
            for _ in 0..100 {
                let burst = queue.receive();
                for i in 0..burst.len() {
                    burst.copy_to(i, &mut bytes[..burst.wire_len(i) as usize]);
                }
            }
        }
        assert_eq!(ALLOCATIONS.get(), before);
    });
}
