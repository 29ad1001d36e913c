//! The memory of parts that are on their way, as permits. Owns what becomes of it when its size changes.
//!
//! Invariant: parts that are on their way count, whatever the size was when they set out.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// The same permits, where there were `was` and are to be `now`.
pub(super) fn after(permits: &Arc<Semaphore>, was: usize, now: usize) -> Arc<Semaphore> {
    let permits = Arc::clone(permits);
    if now >= was {
        permits.add_permits(now - was);
        return permits;
    }
    let owed = (was - now) - permits.forget_permits(was - now);
    if let (1.., Ok(runtime)) = (owed, tokio::runtime::Handle::try_current()) {
        // They go when they come back.
        let permits = Arc::clone(&permits);
        runtime.spawn(async move {
            for _ in 0..owed {
                if let Ok(permit) = permits.acquire().await {
                    permit.forget();
                }
            }
        });
    }
    permits
}

#[cfg(test)]
mod tests {
    use super::super::{S3Config, S3Stores};

    #[tokio::test]
    async fn stores_that_are_renewed_have_no_more_parts_on_their_way_than_one_of_them_may() {
        let stores = |parts_extra| {
            S3Stores::new(S3Config { parts_extra, part_bytes: 8 << 20, ..S3Config::default() }).unwrap()
        };
        let before = stores(40);
        let objects: Vec<_> = std::iter::from_fn(|| before.one_more_object(1)).collect();
        assert!(!objects.is_empty());
        let same = stores(40).after(&before);
        assert!(same.one_more_object(1).is_none(), "what is on its way counts");
        let less = stores(20).after(&same);
        drop(objects);
        let settled = || less.parts.available_permits() == 20;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            if settled() {
                break;
            }
        }
        assert!(settled(), "{}", less.parts.available_permits());
        assert_eq!(stores(30).after(&less).parts.available_permits(), 30);
    }
}
