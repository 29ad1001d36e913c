//! Threads that take what the data plane leaves over. Owns their scheduling class and I/O priority; not which threads those are.
//!
//! - `SCHED_BATCH` with the highest niceness, and not `SCHED_IDLE`: one that is preempted with a lock in its hand (the allocator's, a
//!   channel's) has what waits for it wait too. Beside a writer that takes the whole core it then has 1.4 % of it, an idle one
//!   0.3 %.
//! - Best effort 7, and not the idle class: mq-deadline makes idle requests wait for up to 10 s behind others, and the file
//!   system's journal, which a writer needs, may wait for one of them. BFQ honours the 7; mq-deadline, kyber and none do not.
//!
//! Invariant: a refusal costs speed and nothing else.
#![allow(unsafe_code)]

use std::io;

/// The niceness of these threads.
const NICENESS: i32 = 19;
/// `IOPRIO_WHO_PROCESS` and `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)` of linux/ioprio.h.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const BEST_EFFORT_LAST: libc::c_int = 2 << 13 | 7;

fn answered(answer: libc::c_long) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the calling thread one of them, and the threads that it starts.
///
/// # Errors
/// What the kernel refused first; the rest was tried all the same.
pub fn take_what_is_left() -> io::Result<()> {
    let nice = rustix::process::nice(NICENESS).map(drop).map_err(io::Error::from);
    // SAFETY: 0 is the calling thread, and the kernel only reads the parameter, which lives as long as the call.
    let scheduled =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &libc::sched_param { sched_priority: 0 }) };
    let scheduled = answered(scheduled.into());
    // SAFETY: three integers (ioprio_set(2)); 0 is the calling thread.
    let io = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, BEST_EFFORT_LAST) };
    nice.and(scheduled).and(answered(io))
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    /// Policy, niceness and I/O priority of the calling thread.
    fn class() -> (libc::c_int, i32, libc::c_long) {
        // SAFETY: 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        // SAFETY: two integers; 0 is the calling thread.
        let io = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
        (policy, rustix::process::nice(0).unwrap(), io)
    }

    #[test]
    fn a_thread_that_takes_what_is_left_yields_cores_and_disk_and_so_do_those_that_it_starts() {
        let before = class();
        let classes = std::thread::spawn(|| {
            take_what_is_left().unwrap();
            (class(), std::thread::spawn(class).join().unwrap())
        });
        let left = (libc::SCHED_BATCH, NICENESS, BEST_EFFORT_LAST.into());
        assert_eq!(classes.join().unwrap(), (left, left));
        assert_eq!(class(), before, "the others are as they were");
    }
}
