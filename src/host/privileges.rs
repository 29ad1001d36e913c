//! Rights that the process gives up. Owns which; everything else about users and files is the unit's.
//!
//! Invariant: nothing here can keep the host from starting: what cannot be given up is logged and kept.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What neither DPDK nor we ever need, also when started as root.
fn never_needed() -> CapabilitySet {
    CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETFCAP
        | CapabilitySet::KILL
        | CapabilitySet::LINUX_IMMUTABLE
        | CapabilitySet::IPC_OWNER
        | CapabilitySet::SYS_MODULE
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::SYS_PACCT
        | CapabilitySet::SYS_BOOT
        | CapabilitySet::SYS_TIME
        | CapabilitySet::SYS_TTY_CONFIG
        | CapabilitySet::MKNOD
        | CapabilitySet::LEASE
        | CapabilitySet::AUDIT_WRITE
        | CapabilitySet::AUDIT_CONTROL
        | CapabilitySet::AUDIT_READ
        | CapabilitySet::MAC_OVERRIDE
        | CapabilitySet::MAC_ADMIN
        | CapabilitySet::SYSLOG
        | CapabilitySet::WAKE_ALARM
        | CapabilitySet::BLOCK_SUSPEND
}

/// What a thread that speaks HTTP and moves files may keep, so that a host run as root reaches its files.
fn of_files() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
}

fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    capabilities(None).and_then(|mut sets| {
        sets.effective &= kept;
        sets.permitted &= kept;
        sets.inheritable &= kept;
        set_capabilities(None, sets)
    })
}

/// What the system did not let the process give up.
#[derive(Debug, Default)]
pub(super) struct Refused {
    no_new_privs: Option<Errno>,
    bounding_set: Option<Errno>,
    capabilities: Option<Errno>,
    dumpable: Option<Errno>,
}

impl Refused {
    /// Once there is a log.
    pub fn log(&self) {
        if let Some(error) = self.no_new_privs {
            tracing::warn!(%error, "PR_SET_NO_NEW_PRIVS was refused");
        }
        if let Some(error) = self.bounding_set {
            tracing::warn!(%error, "capabilities that are not needed could not be dropped from the bounding set");
        }
        if let Some(error) = self.dumpable {
            tracing::warn!(%error, "PR_SET_DUMPABLE was refused: a core dump may hold packets and keys");
        }
        if let Some(error) = self.capabilities {
            tracing::warn!(%error, "capabilities that are not needed could not be given up");
        }
    }
}

/// Before the first thread, the log's included, so that all inherit it: new files and directories are the user's alone, no
/// program that is run gains rights, and capabilities that are never needed are gone, also from the bounding set.
pub(super) fn at_start() -> Refused {
    umask(Mode::RWXG | Mode::RWXO);
    Refused {
        no_new_privs: set_no_new_privs(true).err(),
        // Before the capability to do this is given up.
        bounding_set: bound(never_needed()).err(),
        capabilities: keep(CapabilitySet::all() - never_needed()).err(),
        ..Refused::default()
    }
}

/// Only a process with `CAP_SETPCAP` may; one without it has nothing to gain either.
fn bound(dropped: CapabilitySet) -> Result<(), Errno> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    dropped.iter().try_for_each(remove_capability_from_bounding_set)
}

/// Once EAL has read what the kernel shows of this process: no core dump, which would hold packets and keys, and no other
/// process of the same user looks into this one (`PR_SET_DUMPABLE`, prctl(2)).
pub(super) fn after_eal() {
    Refused { dumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable).err(), ..Refused::default() }
        .log();
}

/// On each thread of the runtime, which everything from the network reaches: ports, memory and sockets are open, so the
/// rights to open them are given up.
pub(super) fn on_runtime_thread() {
    Refused { capabilities: keep(of_files()).err(), ..Refused::default() }.log();
}
