//! What the kernel says of the wall clock, which chrony, ntpd, phc2sys and timesyncd tell it. Owns the one system call; not what is made
//! of its answer.
//!
//! The call is made by its number: glibc asks by another one, which the server refuses to itself because it can also set clocks. This one
//! can too, and a process without `CAP_SYS_TIME` cannot.
#![allow(unsafe_code)]

/// An answer of adjtimex(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// Whether something disciplines the clock, and said so within the last hours.
    pub is_synchronised: bool,
    /// The most that the clock can be off, in ns, as the one says who disciplines it.
    pub max_error_ns: u64,
    /// How much it is off by the same estimate.
    pub estimated_error_ns: u64,
    /// What is still to be steered away, in ns.
    pub offset_ns: i64,
    /// Seconds that the end of this day adds: 1, 0, or −1.
    pub leap_seconds: i8,
}

/// Asks the kernel. None where it gives no answer.
#[must_use]
pub fn discipline() -> Option<Discipline> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: adjtimex(2) takes one pointer to a `timex` that it may read and write; `timex` is a structure of integers, so all zeros is
    // one of its values, and `modes` of zero changes nothing. The pointer is of this frame and outlives the call.
    let state = unsafe { libc::syscall(libc::SYS_adjtimex, timex.as_mut_ptr()) };
    if state < 0 {
        return None;
    }
    // SAFETY: it was initialised by `zeroed`, and the kernel writes integers only.
    let timex = unsafe { timex.assume_init() };
    let is_nano = timex.status & libc::STA_NANO != 0;
    let micros = |value: i64| u64::try_from(value).unwrap_or(0).saturating_mul(1000);
    Some(Discipline {
        is_synchronised: state != i64::from(libc::TIME_ERROR) && timex.status & libc::STA_UNSYNC == 0,
        max_error_ns: micros(timex.maxerror),
        estimated_error_ns: micros(timex.esterror),
        offset_ns: if is_nano { timex.offset } else { timex.offset.saturating_mul(1000) },
        leap_seconds: match state {
            state if state == i64::from(libc::TIME_INS) => 1,
            state if state == i64::from(libc::TIME_DEL) => -1,
            _ => 0,
        },
    })
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_answer_is_the_one_that_other_programs_get() {
        let Some(said) = discipline() else { return crate::skip::skip("adjtimex", "the kernel refuses it") };
        // The kernel lets the error grow without anybody who disciplines the clock, up to 16 s.
        assert!(said.max_error_ns <= 16_000_000_000, "{said:?}");
        assert!(
            said.is_synchronised || said.max_error_ns >= 16_000_000_000 || said.max_error_ns > 0,
            "{said:?}"
        );
        assert!((-1..=1).contains(&said.leap_seconds));
    }
}
