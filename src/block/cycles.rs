//! The processor's cycle counter. Owns the one intrinsic; not its meaning in time, which is `worker::clock`'s.
#![allow(unsafe_code)]

/// Reads the time stamp counter. Its rate is constant on every processor that DPDK supports (`constant_tsc`); on
/// other architectures this is a monotonic clock in ns.
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: RDTSC exists on every x86_64 processor and touches no memory.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
