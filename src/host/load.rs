//! What presses on the host: how far workers are behind, and how full the spool is. Owns where these readings come from; what follows
//! from them is `deliver::Pace`'s.
//!
//! Invariant: a reading waits for nobody; what the data plane publishes is read with plain loads.

use crate::block::Heartbeat;
use crate::deliver::Load;
use crate::spool::{Disk, Spool};
use std::sync::Arc;

/// Reads it.
pub(super) fn of(heartbeats: &[Arc<Heartbeat>], spool: &Arc<Spool>) -> impl Fn() -> Load + use<> {
    let workers: Vec<_> = heartbeats.iter().filter(|one| one.blocks() > 0).map(Arc::clone).collect();
    let spool = Arc::clone(spool);
    move || Load { spool_percent: spool_percent(&spool), ..of_workers(&workers) }
}

fn percent(part: u64, of: u64) -> u64 {
    part.saturating_mul(100) / of.max(1)
}

fn of_workers(workers: &[Arc<Heartbeat>]) -> Load {
    let mut load = Load::default();
    for worker in workers {
        let now = worker.read();
        // Blocks that streams are filling never wait for the disk.
        let waiting_percent = percent(now.blocks_waiting, now.blocks_waiting + now.blocks_free);
        load.waiting_percent = load.waiting_percent.max(waiting_percent);
    }
    load
}

/// Of the fullest directory. An account whose share is full loses captures as a full spool does.
fn spool_percent(spool: &Spool) -> u64 {
    let of_disk = |disk: &Arc<Disk>| {
        let shares = disk.quota().shares().into_iter().map(|share| percent(share.used(), share.bytes_max()));
        percent(disk.held_bytes(), disk.quota().bytes_max()).max(shares.max().unwrap_or(0))
    };
    spool.disks().iter().map(of_disk).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_is_furthest_behind_counts_and_blocks_that_are_being_filled_do_not() {
        let workers = [Arc::new(Heartbeat::new("worker0", 64)), Arc::new(Heartbeat::new("worker1", 64))];
        // 40 streams fill a block each.
        workers[0].free(24);
        workers[0].waiting(0);
        workers[1].free(18);
        workers[1].waiting(6);
        assert_eq!(of_workers(&workers), Load { waiting_percent: 25, spool_percent: 0 });
    }
}
