//! The process's limit on open files. Owns that it is raised; what a config needs is `config::check`'s.
//!
//! Shells and init systems set a soft limit of 1024 for the sake of programs that use select(2), which neither we nor what we
//! link with do.
//!
//! Invariant: nothing here can keep a command from running.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Some containers allow a billion, and the kernel's table grows with what is used only; more than this is never needed.
const FILES_MAX: u64 = 1 << 20;

/// Raises the soft limit to the hard one; the limit that then holds.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(FILES_MAX);
    if wanted <= soft {
        return soft;
    }
    limit.current = Some(wanted);
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(64);
        setrlimit(Resource::Nofile, limit).unwrap();
        let hard = limit.maximum.unwrap_or(u64::MAX).min(FILES_MAX);
        assert_eq!(raise_open_files(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
        assert_eq!(raise_open_files(), hard, "and stays so");
    }
}
