//! How many descriptors the process has open, and may have. Owns that look and when it is too near the end; what happens there is
//! `http`'s and the engine's.
//!
//! Invariant: a process that cannot look any more says so, because it is out of descriptors.

use rustix::process::{Resource, getrlimit};

/// What must be left for a host that is ready: one part in so many of the limit.
const PART_LEFT: u64 = 32;
/// And at least so many: a capture's files on a few queues.
const LEFT_MIN: u64 = 32;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenFiles {
    /// Why nobody can tell, otherwise.
    pub open: Result<u64, String>,
    /// The most that there may be.
    pub limit: u64,
}

impl OpenFiles {
    /// Counts them, on a thread that may wait.
    pub async fn read() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = match tokio::task::spawn_blocking(count).await {
            Ok(open) => open.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Self { open, limit }
    }

    /// Whether there are enough left.
    pub fn check(&self) -> Result<Option<String>, String> {
        let advice = "raise LimitNOFILE, or let captures and uploads end";
        match &self.open {
            Err(error) => Err(format!("open files cannot be counted: {error}; {advice}")),
            Ok(open) if self.limit.saturating_sub(*open) < LEFT_MIN.max(self.limit / PART_LEFT) => {
                Err(format!("{open} of at most {} files are open; {advice}", self.limit))
            }
            Ok(_) => Ok(None),
        }
    }
}

/// Without the one that the look itself needs.
fn count() -> std::io::Result<u64> {
    let mut open = 0_u64;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        entry?;
        open += 1;
    }
    Ok(open.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_opened_is_counted() {
        let before = OpenFiles::read().await.open.unwrap();
        let held: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let now = OpenFiles::read().await;
        assert!(now.open.unwrap() >= before + held.len() as u64 && now.limit > 0);
    }

    #[test]
    fn few_that_are_left_are_said_and_so_is_a_process_that_cannot_look() {
        let at = |open: u64, limit: u64| OpenFiles { open: Ok(open), limit }.check();
        assert_eq!((at(992, 1024), at(63_000, 65_536), at(10, u64::MAX)), (Ok(None), Ok(None), Ok(None)));
        assert!(at(993, 1024).unwrap_err().contains("993 of at most 1024"));
        assert!(at(63_489, 65_536).is_err() && at(2000, 1024).is_err());
        let blind = OpenFiles { open: Err("Too many open files".to_owned()), limit: 1024 };
        assert!(blind.check().unwrap_err().contains("Too many open files"));
    }
}
