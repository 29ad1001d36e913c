//! Which call can fail how. Owns the table, which is that of the manual pages for files on a local disk.
//!
//! `EINTR` stands only where the kernel returns it for such a file: a call that waits for a lock or writes much.

use crate::injector::Errno;

pub const EIO: Errno = Errno(5, "EIO");
pub const ENOSPC: Errno = Errno(28, "ENOSPC");
pub const EMFILE: Errno = Errno(24, "EMFILE");
pub const ENOMEM: Errno = Errno(12, "ENOMEM");
pub const EINTR: Errno = Errno(4, "EINTR");
pub const EAGAIN: Errno = Errno(11, "EAGAIN");
/// What everything that changes a file says once its file system was turned read-only; it does not say so once.
pub const EROFS: Errno = Errno(30, "EROFS");

pub const ECONNRESET: Errno = Errno(104, "ECONNRESET");
pub const ECONNABORTED: Errno = Errno(103, "ECONNABORTED");
pub const EPIPE: Errno = Errno(32, "EPIPE");

const TABLE: &[(&str, &[Errno])] = &[
    ("open-read", &[EIO, EMFILE, ENOMEM]),
    ("open-dir", &[EIO, EMFILE, ENOMEM]),
    ("open-write", &[EIO, EMFILE, ENOMEM]),
    ("open-create", &[ENOSPC, EMFILE, EIO, ENOMEM]),
    ("mkdir", &[ENOSPC, EIO]),
    ("rmdir", &[EIO]),
    ("unlink", &[EIO, ENOMEM]),
    ("rename", &[EIO, ENOSPC]),
    ("link", &[EIO, ENOSPC]),
    ("stat", &[EIO, ENOMEM]),
    ("statfs", &[EIO]),
    ("readlink", &[EIO]),
    ("chmod", &[EIO]),
    ("utimens", &[EIO]),
    ("truncate", &[EIO, ENOSPC, EINTR]),
    ("fallocate", &[ENOSPC, EIO, EINTR]),
    ("fsync", &[EIO, ENOSPC, EINTR]),
    ("read", &[EIO, ENOMEM, EINTR]),
    ("write", &[ENOSPC, EIO, EINTR]),
    ("copy", &[ENOSPC, EIO, ENOMEM]),
    ("lseek", &[]),
    ("getdents", &[EIO, ENOMEM]),
    ("flock", &[EINTR, ENOMEM]),
    ("dup", &[EMFILE]),
    ("mmap", &[ENOMEM]),
    ("clone", &[EAGAIN]),
    ("accept", &[EMFILE, ECONNABORTED, ENOMEM]),
    ("recv", &[ECONNRESET, ENOMEM]),
    ("send", &[ECONNRESET, EPIPE, ENOMEM]),
    ("setsockopt", &[ENOMEM]),
];

/// The calls that change something.
const CHANGES: &[&str] =
    &["open-create", "open-write", "mkdir", "rmdir", "unlink", "rename", "link", "chmod", "utimens"];

/// What a call can fail with while its cause lasts.
pub fn lasting(call: &str) -> Vec<Errno> {
    let mut errnos: Vec<_> = of(call).iter().copied().filter(|errno| *errno != EINTR).collect();
    errnos.extend(CHANGES.contains(&call).then_some(EROFS));
    errnos
}

/// What a call can fail with.
pub fn of(call: &str) -> &'static [Errno] {
    TABLE.iter().find(|(name, _)| *name == call).map_or(&[], |(_, errnos)| errnos)
}

/// What each call fails with while a cause lasts that showed itself by `errno`: a dead disk says EIO to everything, a full one
/// only to what needs room.
pub fn while_it_lasts(errno: Errno) -> String {
    let can = |call: &str, errnos: &[Errno]| match errno {
        EROFS => CHANGES.contains(&call),
        _ => errnos.contains(&errno),
    };
    let named = TABLE.iter().filter(|(call, errnos)| can(call, errnos));
    named.map(|(call, _)| format!("{call}={}", errno.0)).collect::<Vec<_>>().join(",")
}
