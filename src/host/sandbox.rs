//! System calls that the server never makes once it has started. Owns their list; the kernel refuses them (seccomp(2)).
//!
//! An attacker who takes over a thread of the process can run no program, inspect no other process, and change neither the kernel
//! nor a mount. It is a list of what is refused, not of what is allowed: DPDK's drivers and the runtime make calls that differ
//! from one NIC and kernel to the next, and a call that is refused by mistake costs packets.
//!
//! Invariant: nothing here can keep the host from starting: a kernel without seccomp is told of and that is all.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;

/// By number. `bpf` is missing because a port of AF_XDP detaches its program at the end.
const REFUSED: &[i64] = &[
    // Other programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_personality,
    // Mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The host's name and time, users, and the kernel's keys.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    // The engine asks by `adjtimex` what the clock's state is; setting it by that takes a capability that the process has given up.
    libc::SYS_clock_adjtime,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Refuses them (`EPERM`) to every thread of this process, for as long as it lives.
pub(super) fn enter() {
    match program().and_then(|program| seccompiler::apply_filter_all_threads(&program)) {
        Ok(()) => tracing::debug!(calls = REFUSED.len(), "system calls that are not needed are refused"),
        Err(error) => tracing::warn!(%error, "system calls that are not needed stay allowed"),
    }
}

fn program() -> Result<BpfProgram, seccompiler::Error> {
    let refused: BTreeMap<_, _> = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, arch)?;
    Ok(filter.try_into()?)
}
