//! DPDK's environment (EAL): started once a process, before any port. Owns its life, the registration of threads and
//! the lock of the control path; not the arguments' meaning, see `arguments`.
//!
//! Invariant: as long as anything of DPDK is alive in Rust, so is EAL; it is cleaned up once, by the last owner.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_int},
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{
    arguments::{Host, Memory, complete, huge_free_bytes},
    sys,
};
use crate::drivers::{Contradiction, added};

/// EAL cannot be started again in a process, not even after it was cleaned up.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Why EAL or one of its threads did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// A second start.
    #[error("DPDK's EAL was started before in this process, and can be once only: keep the first `Eal`")]
    Twice,
    /// An argument that C cannot take.
    #[error("EAL argument {0:?} contains a zero byte: remove it from `dpdk.eal`")]
    Argument(String),
    /// An argument that keeps a port away.
    #[error("dpdk.eal: {0}")]
    Contradiction(#[from] Contradiction),
    /// `rte_eal_init` refused.
    #[error(
        "DPDK's EAL does not start with arguments {arguments:?}: {code}; its log above says why. Memory: {memory}; \
         with too little of it free ask for less by `-m MIB` or add `--no-huge`"
    )]
    Init {
        /// All arguments, ours included.
        arguments: Vec<String>,
        /// What it was to work with.
        memory: Memory,
        /// Its reason.
        code: Code,
    },
    /// The thread's CPU mask cannot be read or restored.
    #[error("the thread's CPU affinity cannot be read or set: {0}")]
    Affinity(#[source] std::io::Error),
    /// No lcore id for a thread.
    #[error(
        "the thread gets no lcore id from DPDK: {0}; it has too many threads, or a secondary process is attached"
    )]
    Thread(Code),
}

/// An error number of DPDK, as a positive errno or one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub i32);

impl Code {
    /// EINVAL.
    pub(super) const INVALID: Self = Self(22);
    /// ENOTSUP.
    pub(super) const NOT_SUPPORTED: Self = Self(95);
    /// ENODEV.
    pub(super) const NO_DEVICE: Self = Self(19);

    /// From a return value, which may be negative; -1 says nothing more than that it failed.
    pub(super) fn of(returned: c_int) -> Self {
        Self(returned.saturating_abs())
    }

    /// From `rte_errno` of this thread.
    pub(super) fn last() -> Self {
        // SAFETY: reads a thread-local variable; no preconditions.
        Self::of(unsafe { sys::trawl_errno() })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: returns a pointer to a constant or to a per-thread buffer, both NUL-terminated; it is read before
        // this thread calls again.
        let text = unsafe { CStr::from_ptr(sys::rte_strerror(self.0)) };
        write!(out, "{} (DPDK error {})", text.to_string_lossy(), self.0)
    }
}

/// EAL, running. Clones share it; the last owner cleans it up.
#[derive(Clone, Debug)]
pub struct Eal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    memory: Memory,
    arguments: Vec<String>,
    /// Ports that are open. Its lock is also the lock of the control path, which is not thread-safe in DPDK.
    ports: Mutex<BTreeSet<u16>>,
    /// EAL keeps pointers into its arguments.
    _held: Vec<CString>,
}

impl Eal {
    /// Starts EAL with these arguments, and with ours where they leave open what to do: one lcore, memory that other
    /// processes do not see, no telemetry socket, `--no-huge` on a host without free hugepages (see
    /// [`Eal::memory`]). EAL logs to stderr and syslog. The calling thread keeps its CPU affinity.
    ///
    /// It takes these devices, with their arguments, and no others of the host.
    ///
    /// # Errors
    /// When the arguments keep one of the devices away, it was started before in this process, or DPDK refuses.
    pub fn init_for(arguments: &[String], devices: &[&str]) -> Result<Self, EalError> {
        Self::init(&[arguments, &added(arguments, devices)?].concat())
    }

    /// As [`Eal::init_for`], with every device of the host that DPDK finds.
    ///
    /// # Errors
    /// When it was started before in this process, or DPDK refuses.
    pub fn init(arguments: &[String]) -> Result<Self, EalError> {
        let before = sched_getaffinity(None).map_err(|error| EalError::Affinity(error.into()))?;
        let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).unwrap_or(0);
        let (arguments, memory) = complete(arguments, Host { huge_free_bytes: huge_free_bytes(), cpu });
        let mut held = vec![c"trawl".to_owned()];
        for argument in &arguments {
            held.push(CString::new(argument.as_str()).map_err(|_| EalError::Argument(argument.clone()))?);
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Twice);
        }
        let mut argv: Vec<*mut c_char> = held.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
        argv.push(std::ptr::null_mut());
        // SAFETY: argv holds argc pointers to NUL-terminated strings and a closing null; EAL reorders the pointers but
        // writes to no string; the strings live in `held` as long as EAL; STARTED makes this the only call.
        let returned = unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        let code = Code::last();
        sched_setaffinity(None, &before).map_err(|error| EalError::Affinity(error.into()))?;
        if returned < 0 {
            return Err(EalError::Init { arguments, memory, code });
        }
        let ports = Mutex::new(BTreeSet::new());
        Ok(Self { inner: Arc::new(Inner { memory, arguments, ports, _held: held }) })
    }

    /// What memory EAL got; worth a line in the log.
    pub fn memory(&self) -> Memory {
        self.inner.memory
    }

    /// All arguments that EAL was started with.
    pub fn arguments(&self) -> &[String] {
        &self.inner.arguments
    }

    /// Gives the calling thread an lcore id, and with it a cache in every mempool, until the guard drops. Pin the
    /// thread first. A thread that has an id keeps it.
    ///
    /// # Errors
    /// When DPDK has no id left.
    pub fn register_thread(&self) -> Result<Registered, EalError> {
        // SAFETY: reads a thread-local variable.
        let known = unsafe { sys::trawl_thread_is_known() } != 0;
        // SAFETY: EAL runs, since self is alive; the thread has no id yet.
        if !known && unsafe { sys::rte_thread_register() } != 0 {
            return Err(EalError::Thread(Code::last()));
        }
        Ok(Registered { _eal: self.clone(), ours: !known, _this_thread: PhantomData })
    }

    /// The control path of DPDK is not thread-safe: every call into it holds this lock.
    pub(super) fn control(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        // The set is changed in single calls, so it is whole even if a holder panicked.
        self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: all that uses DPDK's memory holds a clone of Eal, so nothing does any more.
        unsafe { sys::rte_eal_cleanup() };
    }
}

/// A thread with an lcore id; gives it back on drop, on the thread that it belongs to.
#[derive(Debug)]
pub struct Registered {
    _eal: Eal,
    ours: bool,
    _this_thread: PhantomData<*const ()>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: the guard is not Send, so this is the thread that rte_thread_register was called on.
            unsafe { sys::rte_thread_unregister() };
        }
    }
}

/// The CPU's time stamp counter. It is read in order with nothing: two readings around a short piece of code say little.
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: reads a register that user space may read on every platform that DPDK supports.
    unsafe { sys::trawl_cycles() }
}

impl Eal {
    /// Counts of [`cycles`] in a second, as EAL measured it at start.
    pub fn cycles_hz(&self) -> u64 {
        // SAFETY: EAL runs, so the figure is set; it is only read.
        unsafe { sys::rte_get_tsc_hz() }
    }

    /// DPDK's name and version.
    pub fn version(&self) -> String {
        let _one_by_one = self.control();
        // SAFETY: a NUL-terminated string in static memory, composed by the first call; the lock makes calls one by one.
        let version = unsafe { CStr::from_ptr(sys::rte_version()) };
        version.to_string_lossy().into_owned()
    }
}
