//! `kill -9` at random moments of capture, rotation, merge, upload and shutdown. After a restart no
//! capture is lost: its objects are readable and equal to its manifest, its ledger balances, and its spool is empty. Frames
//! are not numbered: that none is missing or there twice is not what these tests show.
//!
//! `TRAWL_KILLS` sets how many times, `TRAWL_KILLS_SEED` repeats a run.

use crate::outcome::{Outcome, files_below};
use crate::trawl::Setup;
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trawl::capture::StopReason;

/// SplitMix64: enough to choose moments, and the seed is one number.
struct Moments(u64);

impl Moments {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn kill_at_random_moments(write: &'static str) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("TRAWL_KILLS_SEED", clock);
    eprintln!("TRAWL_KILLS_SEED={seed}");
    let mut moments = Moments(seed);
    let mut trawl = Setup { write, segment_bytes: "4MiB", ..Setup::replay() }.start();
    for kill in 0..number("TRAWL_KILLS", 6) {
        let mut request = trawl.request(json!({"protocol": 17}));
        // Some end by their limit while they are still uploading, some are still capturing.
        request["packet_limit"] = json!(1000 + moments.below(400_000));
        let id = trawl.create(&request);
        std::thread::sleep(Duration::from_millis(moments.below(1500)));
        if moments.below(4) == 0 {
            trawl.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(moments.below(300)));
        }
        trawl.kill_and_restart();
        if moments.below(3) == 0 {
            // Again, in the middle of the recovery.
            trawl.kill_and_restart();
        }
        let progress = trawl.ended(&id);
        let outcome = Outcome::read(&trawl.bucket(), &id);
        assert_eq!(outcome.manifest.ledger, progress.ledger, "kill {kill}");
        assert!(progress.stop_reason.is_some(), "kill {kill}: {progress:?}");
        if progress.stop_reason == Some(StopReason::Interrupted) {
            assert!(outcome.manifest.recovered);
        }
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let left: Vec<_> = files_below(&trawl.spool())
                .into_iter()
                .filter(|path| path.to_string_lossy().contains(&id))
                .collect();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "kill {kill} left {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    trawl.finish();
}

#[test]
fn kill_9_at_random_moments_loses_no_capture_direct() {
    kill_at_random_moments("direct");
}

#[test]
fn kill_9_at_random_moments_loses_no_capture_mapped() {
    kill_at_random_moments("mapped");
}
