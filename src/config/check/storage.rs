//! The spool's file system and the job store's place. Owns what is asked of both.
//!
//! Invariant: a directory that does not exist yet is judged by the one that it would be created in.

use super::{Finding, Host};
use crate::config::{ByteSize, Plan};
use crate::deliver::SigningKey;
use crate::limits::{HISTORY_DIR, SOCKET_PATH_BYTES_MAX};
use crate::named;
use crate::ownership::Vault;
use crate::spool::{SpoolLock, WriteMode, standing_of_all};
use crate::stamp::Authority;
use crate::store::{Embedded, backup_socket};
use crate::upload::{FileStore, Stores};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a redb file begins with (its `docs/design.md`).
const DATABASE_MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1A, 0x0A, 0xA9, 0x0D, 0x0A];

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
const MEMORY_MAGICS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// What only a host that captures has.
pub(super) fn check_spool(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    spool(plan, host, findings);
    store(plan, findings);
}

pub(super) fn check(plan: &Plan, findings: &mut Vec<Finding>) {
    key_file(plan, findings);
    signing_key(plan, findings);
    authority(plan, findings);
    audit(plan, findings);
    secret_files(plan, findings);
    buckets(plan, findings);
}

/// The nearest directory above `path`, or itself, that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| ancestor.try_exists().unwrap_or(true))
}

fn is_writable(dir: &Path) -> Result<(), Errno> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(CWD, dir, access, AtFlags::EACCESS)
}

fn spool(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    for dir in plan.spool.dirs() {
        spool_dir(plan, dir, host, findings);
    }
    let history = plan.spool.dir.join(HISTORY_DIR);
    if plan.history.is_some() && history.metadata().is_ok_and(|found| !found.is_dir()) {
        let text = format!("{} is not a directory", history.display());
        findings.push(Finding::error("history.enabled", text, "move it aside"));
    }
    writes(plan, host, findings);
    one_disk(plan, findings);
}

/// The key that names the spool's directories.
fn dir_key(plan: &Plan) -> &'static str {
    if plan.spool.more_dirs.is_empty() { "spool.dir" } else { "spool.dirs" }
}

/// Several directories are to be several disks.
fn one_disk(plan: &Plan, findings: &mut Vec<Finding>) {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen: Vec<(u64, &Path)> = Vec::new();
    let mut real: Vec<(PathBuf, &Path)> = Vec::new();
    for dir in plan.spool.dirs() {
        // Their names differ, by the rules; what they lead to may not.
        let Some(is) = whole(dir) else { continue };
        match real.iter().find(|(other, _)| is.starts_with(other) || other.starts_with(&is)) {
            Some((_, other)) => {
                let text = format!(
                    "{} and {} lead to the same directory, or one lies in the other: {}",
                    other.display(),
                    dir.display(),
                    is.display()
                );
                let advice = "each is a directory of its own: look at the symbolic links in their names";
                findings.push(Finding::error("spool.dirs", text, advice));
                continue;
            }
            None => real.push((is, dir)),
        }
        let Some(device) = existing(dir).and_then(|found| Some(found.metadata().ok()?.dev())) else {
            continue;
        };
        match seen.iter().find(|(other, _)| *other == device) {
            Some((_, other)) => {
                let text = format!(
                    "{} and {} are on one file system: it is no faster than with one of them, it fails both, and spool.bytes_max \
                     counts for each",
                    other.display(),
                    dir.display()
                );
                findings.push(Finding::warning("spool.dirs", text, "give each directory a disk of its own"));
            }
            None => seen.push((device, dir)),
        }
    }
}

/// A directory without symbolic links, also one that is still to be made.
fn whole(dir: &Path) -> Option<PathBuf> {
    let there = existing(dir)?;
    let below = dir.strip_prefix(there).ok()?;
    Some(there.canonicalize().ok()?.join(below))
}

fn spool_dir(plan: &Plan, of_spool: &Path, host: &Host, findings: &mut Vec<Finding>) {
    let (key, shown) = (dir_key(plan), of_spool.display());
    if let Some(mount) = unmounted(of_spool, host) {
        let text =
            format!("{shown} is on {}, which /etc/fstab lists but nothing is mounted on", mount.display());
        findings.push(Finding::error(key, text, format!("mount {}", mount.display())));
        return;
    }
    let Some(dir) = existing(of_spool) else {
        findings.push(Finding::error(key, format!("{shown} is on no file system"), "correct the path"));
        return;
    };
    if dir.metadata().is_ok_and(|found| !found.is_dir()) {
        let text = format!("{} is not a directory", dir.display());
        findings.push(Finding::error(key, text, "name a directory"));
        return;
    }
    if let Err(error) = is_writable(dir) {
        let text = format!("{} is not writable: {error}", dir.display());
        let advice =
            format!("install -d -m 0700 -o <user of trawl> {shown}, on a file system that is mounted rw");
        findings.push(Finding::error(key, text, advice));
        return;
    }
    lock_file(key, of_spool, findings);
    if dir != of_spool {
        let text = format!("{shown} does not exist yet");
        findings.push(Finding::notice(
            key,
            text,
            "`trawl serve` creates it; make sure that its disk is mounted",
        ));
    }
    room(plan, (of_spool, dir), findings);
    direct_writes(plan, dir, findings);
}

/// Of another user, perhaps of a run as root.
fn lock_file(key: &'static str, dir: &Path, findings: &mut Vec<Finding>) {
    let path = dir.join(".lock");
    if let Err(error) = usable(&path) {
        let text = format!("{} cannot be read and written: {error}", path.display());
        let advice = format!("chown -R <user of trawl> {}", dir.display());
        findings.push(Finding::error(key, text, advice));
    }
}

/// Whether a file can be read and written, if it is there.
fn usable(path: &Path) -> Result<(), Errno> {
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        answer => answer,
    }
}

/// What `trawl serve` finds out by itself once it has spool and store, because a process that was killed may hold both for a moment
/// longer: whether another process has them, and whether the one is the other's.
pub(super) fn claims(plan: &Plan, findings: &mut Vec<Finding>) {
    let (key, store) = (dir_key(plan), &plan.store.path);
    for dir in plan.spool.dirs() {
        if let Some(holder) = SpoolLock::holder(dir) {
            let text = format!("{} is in use by {holder}", dir.display());
            let advice = "end that process before another one is started, or name another directory";
            findings.push(Finding::error(key, text, advice));
        }
    }
    let held = |file: File| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    if named::open(store).is_ok_and(held) {
        let text = format!("{} is in use by another process", store.display());
        findings.push(Finding::error("store.path", text, "end the other trawl, or name a file of its own"));
    }
    let known = Embedded::spool_of(&plan.store.path).unwrap_or_default();
    let dirs: Vec<_> = plan.spool.dirs().collect();
    if let Err(refused) = standing_of_all(&dirs, &known.split_whitespace().collect::<Vec<_>>()) {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let advice = format!("findmnt --target {}", dirs.join("; findmnt --target "));
        findings.push(Finding::error(key, refused.to_string(), advice));
    }
}

/// Free space against the quota.
fn room(plan: &Plan, (of_spool, dir): (&Path, &Path), findings: &mut Vec<Finding>) {
    let key = dir_key(plan);
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => {
            let text = format!("the file system of {} does not answer: {error}", dir.display());
            findings.push(Finding::error(key, text, "check the disk and its mount"));
            return;
        }
    };
    let free = stat.f_bavail * stat.f_frsize;
    let used = bytes_below(of_spool);
    if free + used < plan.spool.bytes_max {
        let text = format!(
            "the quota is {}, but the file system of {} has {} MiB free and the spool holds {} MiB",
            ByteSize(plan.spool.bytes_max),
            dir.display(),
            free >> 20,
            used >> 20
        );
        let usable = (free + used) >> 20;
        let advice = match usable {
            0 => format!("free space, or put {key} on a larger disk"),
            mib => {
                format!("lower spool.bytes_max to \"{mib}MiB\" or less, or put {key} on a larger disk")
            }
        };
        // What else lies on that disk changes by the hour, and a host that was killed must be able to start and deliver.
        findings.push(Finding::warning("spool.bytes_max", text, advice));
    }
    pool(plan, dir, free + used, findings);
    if stat.f_favail == 0 && stat.f_files > 0 {
        let text = format!("the file system of {} has no free inode", dir.display());
        findings.push(Finding::error(key, text, "remove files there"));
    }
}

/// What mapped writes fill at start.
fn pool(plan: &Plan, dir: &Path, room: u64, findings: &mut Vec<Finding>) {
    let is_mapped = match plan.spool.write {
        WriteMode::Mapped => true,
        WriteMode::Auto => refuses_direct(dir),
        _ => false,
    };
    if is_mapped && plan.spool.pool_bytes > room {
        let text = format!(
            "is {}, which is written at the start, and the file system of {} has {} MiB of room",
            ByteSize(plan.spool.pool_bytes),
            dir.display(),
            room >> 20
        );
        findings.push(Finding::error("spool.pool_bytes", text, "lower it, or free space"));
    }
}

/// Tried with a file that never gets a name.
pub(super) fn refuses_direct(dir: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).err() == Some(Errno::INVAL)
}

/// Disk space of all files below `dir`; what cannot be read counts as nothing.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    bytes
}

pub(super) fn is_in_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| MEMORY_MAGICS.contains(&stat.f_type))
}

/// Whether writes are those that are fast, where they do not depend on a file system: the process gets io_uring, and nothing is thrown
/// away.
fn writes(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let takes_direct = |dir| existing(dir).is_some_and(|dir| !refuses_direct(dir));
    match plan.spool.write {
        WriteMode::Direct | WriteMode::Auto if plan.spool.dirs().any(takes_direct) => {
            io_uring(host, findings)
        }
        WriteMode::Discard => findings.push(Finding::warning(
            "spool.write",
            "throws every packet away: no capture will hold one",
            "keep this for benches; \"auto\" is what captures need",
        )),
        _ => {}
    }
}

/// Whether the file system takes `O_DIRECT`.
fn direct_writes(plan: &Plan, dir: &Path, findings: &mut Vec<Finding>) {
    let in_memory = is_in_memory(dir);
    if in_memory {
        let text = format!(
            "{} is kept in memory (tmpfs): captures compete with everything else for it",
            dir.display()
        );
        findings.push(Finding::notice(dir_key(plan), text, "use a disk for captures that matter"));
    }
    let refused = refuses_direct(dir);
    let text = format!("the file system of {} has no O_DIRECT", dir.display());
    match plan.spool.write {
        WriteMode::Direct if refused => {
            findings.push(Finding::error(
                "spool.write",
                text,
                "set \"auto\" or \"mapped\", or use ext4 or XFS",
            ));
        }
        WriteMode::Auto if refused => {
            let text = format!("{text}: segments are written through mappings, at a fraction of the speed");
            findings.push(Finding::notice("spool.write", text, "use ext4 or XFS for the spool"));
        }
        WriteMode::Mapped if !refused && !in_memory => {
            let text = format!(
                "the file system of {} takes O_DIRECT, but segments are written through mappings: each page faults again after each \
                 write-back, which costs a writer 0.6 core-seconds or more for each GB, where O_DIRECT takes 0.02",
                dir.display()
            );
            findings.push(Finding::warning("spool.write", text, "set \"auto\""));
        }
        _ => {}
    }
}

/// Without it a writer waits for each block before it begins the next.
fn io_uring(host: &Host, findings: &mut Vec<Finding>) {
    if let Err(error) = (host.io_uring)() {
        let text = format!(
            "this process gets no io_uring ({error}): each writer writes one block at a time, at about half the rate"
        );
        let advice = "sysctl kernel.io_uring_disabled=0; in a container let its seccomp profile pass io_uring_setup, \
                      io_uring_enter and io_uring_register";
        findings.push(Finding::warning("spool.write", text, advice));
    }
}

/// The innermost mount point of `/etc/fstab` that `dir` lies below, if nothing is mounted on it.
fn unmounted(dir: &Path, host: &Host) -> Option<PathBuf> {
    let points = |text: String| -> Vec<PathBuf> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.filter_map(|line| line.split_whitespace().nth(1)).map(PathBuf::from).collect()
    };
    let mounted = points(host.read("/proc/mounts").ok()?);
    let listed = points(host.read("/etc/fstab").ok()?);
    let holder = listed.into_iter().filter(|point| point.is_absolute() && dir.starts_with(point));
    holder.max_by_key(|point| point.as_os_str().len()).filter(|point| !mounted.contains(point))
}

/// The key that encrypts buckets' access keys; read as `trawl serve` reads it.
fn key_file(plan: &Plan, findings: &mut Vec<Finding>) {
    let subject = "store.key_file";
    match &plan.store.key_file {
        Some(path) => {
            if let Err(error) = Vault::load(path) {
                findings.push(Finding::error(subject, error.to_string(), error.advice()));
            }
        }
        None if plan.upload.stores.r2.is_some() => {
            let text = "is missing, so access keys of r2:// buckets are refused";
            let advice = "name a file of 32 random bytes with mode 0600, or set upload.r2.allow = false";
            findings.push(Finding::warning(subject, text, advice));
        }
        None => {}
    }
}

/// The key that signs manifests; read as `trawl serve` reads it.
fn signing_key(plan: &Plan, findings: &mut Vec<Finding>) {
    if let Some(path) = &plan.manifest.signing_key_file
        && let Err(error) = SigningKey::load(path)
    {
        let advice =
            format!("`trawl manifest-key {}` makes one; it must be readable to trawl's user", path.display());
        findings.push(Finding::error("manifest.signing_key_file", error.to_string(), advice));
    }
}

/// What asking for time stamps needs; nobody is asked.
fn authority(plan: &Plan, findings: &mut Vec<Finding>) {
    if let Some(Err(error)) = plan.manifest.authority.as_ref().map(Authority::new) {
        let advice = "name a file of certificates in PEM that trawl's user can read";
        findings.push(Finding::error("manifest.timestamp_url", error.to_string(), advice));
    }
}

/// The audit log's place.
fn audit(plan: &Plan, findings: &mut Vec<Finding>) {
    let (Some(audit), subject) = (&plan.audit, "audit.dir") else { return };
    let shown = audit.dir.display();
    let Some(dir) = existing(&audit.dir) else { return };
    if dir.metadata().is_ok_and(|found| !found.is_dir()) {
        let text = format!("{} is not a directory", dir.display());
        findings.push(Finding::error(subject, text, "name a directory of its own"));
    } else if let Err(error) = is_writable(dir) {
        let text = format!("{} is not writable: {error}", dir.display());
        let advice = format!("install -d -m 0700 -o <user of trawl> {shown}");
        findings.push(Finding::error(subject, text, advice));
    }
    if plan.spool.dirs().any(|dir| audit.dir.starts_with(dir)) {
        let text = format!("{shown} lies in the spool: captures that fill it would stop the log");
        findings.push(Finding::warning(subject, text, "name a directory on another disk"));
    }
}

/// Files with secrets that others can read. `store.key_file` is looked at when it is read.
fn secret_files(plan: &Plan, findings: &mut Vec<Finding>) {
    use std::os::unix::fs::PermissionsExt;
    let tls_key = plan.api.tls.as_ref().map(|(_, key)| key.as_path());
    let signing_key = plan.manifest.signing_key_file.as_deref();
    // A group may be that of the keys, as `ssl-cert` is.
    for (subject, path, closed_to, mode_right) in
        [("manifest.signing_key_file", signing_key, 0o077, 600), ("api.tls_key", tls_key, 0o007, 640)]
    {
        // A file that cannot be read is a finding of the code that reads it.
        let Some((path, Ok(found))) = path.map(|path| (path, std::fs::metadata(path))) else { continue };
        let mode = found.permissions().mode() & 0o7777;
        if mode & closed_to != 0 {
            let text = format!("{} has mode {mode:04o}: others can read a private key", path.display());
            findings.push(Finding::error(subject, text, format!("chmod {mode_right} {}", path.display())));
        }
    }
}

/// The files that speaking to buckets needs; nothing is contacted.
fn buckets(plan: &Plan, findings: &mut Vec<Finding>) {
    if let Err(error) = Stores::new(plan.upload.stores.clone()) {
        findings.push(Finding::error("upload", error.to_string(), "correct the value or the file"));
    }
    let stores = &plan.upload.stores;
    for root in stores.file_roots.iter().filter(|root| FileStore::is_closed_root(root, &stores.file_closed)) {
        let text =
            format!("{} is in this host's own directories, where no customer may write", root.display());
        findings.push(Finding::error("upload.file_roots", text, "name another directory"));
    }
    if plan.captures() {
        beside_the_spool(plan, findings);
    }
}

/// What is delivered to `file://` is in no quota, so it must not be able to fill the spool's disk.
fn beside_the_spool(plan: &Plan, findings: &mut Vec<Finding>) {
    use std::os::unix::fs::MetadataExt;
    let stores = &plan.upload.stores;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|found| found.dev());
    let Some(spool) = device(&plan.spool.dir).filter(|_| stores.allow_file) else { return };
    let is_beside = |root: &&PathBuf| {
        device(root) == Some(spool) && !FileStore::is_closed_root(root, &stores.file_closed)
    };
    let beside: Vec<_> =
        stores.file_roots.iter().filter(is_beside).map(|root| root.display().to_string()).collect();
    let named = match (stores.file_roots.is_empty(), beside.is_empty()) {
        (true, _) => "any directory".to_owned(),
        (false, true) => return,
        (false, false) => beside.join(", "),
    };
    let text = format!(
        "file:// destinations may be in {named}, on the file system of the spool: what is delivered there is in no quota, and a \
         full disk ends every capture"
    );
    let advice =
        "name directories of another file system in upload.file_roots, or bound them by a project quota";
    findings.push(Finding::warning("upload.file_roots", text, advice));
}

fn store(plan: &Plan, findings: &mut Vec<Finding>) {
    let path = &plan.store.path;
    let shown = path.display();
    if path.metadata().is_ok_and(|found| found.is_dir()) {
        let advice = "name a file in it, such as trawl.db";
        findings.push(Finding::error("store.path", format!("{shown} is a directory"), advice));
        return;
    }
    if let Err(error) = usable(path) {
        let text = format!("{shown} cannot be read and written: {error}");
        findings.push(Finding::error("store.path", text, "give it to the user of trawl, mode 0600"));
    }
    database(path, findings);
    socket(path, findings);
    if let Some(dir) = path.parent()
        && !dir.metadata().is_ok_and(|found| found.is_dir())
    {
        let text = format!("there is no directory {}", dir.display());
        let advice = format!("install -d -m 0700 -o <user of trawl> {}", dir.display());
        findings.push(Finding::error("store.path", text, advice));
        return;
    }
    if plan.spool.dirs().any(|dir| path.starts_with(dir)) {
        let text =
            format!("{shown} lies in the spool: with its disk the records of its captures are lost too");
        findings.push(Finding::warning("store.path", text, "name a file on another disk"));
    }
    let Some(dir) = path.parent().and_then(existing) else { return };
    if let Err(error) = is_writable(dir) {
        let text = format!("{} is not writable: {error}", dir.display());
        findings.push(Finding::error(
            "store.path",
            text,
            "give the directory to the user of trawl, mode 0700",
        ));
    }
}

/// The socket beside it, at which `trawl backup` asks.
fn socket(store: &Path, findings: &mut Vec<Finding>) {
    let socket = backup_socket(store);
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let text = format!(
            "the socket {} beside it has a path of {bytes} bytes, and the kernel takes {SOCKET_PATH_BYTES_MAX}",
            socket.display()
        );
        let most = SOCKET_PATH_BYTES_MAX - (bytes - store.as_os_str().len());
        findings.push(Finding::error("store.path", text, format!("use a path of at most {most} bytes")));
    }
}

/// The head of a file that is there: whether it is a database.
fn database(path: &Path, findings: &mut Vec<Finding>) {
    let mut file = match named::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let text = format!("{}: {error}", path.display());
            return findings.push(Finding::error("store.path", text, "name a file, or a name that is free"));
        }
        Err(_) => return,
    };
    let mut head = Vec::new();
    let read = Read::by_ref(&mut file).take(DATABASE_MAGIC.len() as u64).read_to_end(&mut head);
    if read.is_ok() && !head.is_empty() && head != DATABASE_MAGIC {
        let text = format!("{} is no job database", path.display());
        findings.push(Finding::error("store.path", text, "move it aside, or name another file"));
    }
}
