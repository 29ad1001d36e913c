//! The spool's file system and the job store's place. Owns what is asked of both.
//!
//! Invariant: a directory that does not exist yet is judged by the one that it would be created in.

use super::{Finding, Host};
use crate::config::{ByteSize, Plan, WriteMode};
use crate::ownership::Vault;
use crate::spool::SpoolLock;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
const MEMORY_MAGICS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

pub(super) fn check(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    spool(plan, host, findings);
    store(plan, findings);
    key_file(plan, findings);
}

/// The nearest directory above `path`, or itself, that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| ancestor.exists())
}

fn is_writable(dir: &Path) -> Result<(), Errno> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(CWD, dir, access, AtFlags::EACCESS)
}

fn spool(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let spool = &plan.spool;
    let shown = spool.dir.display();
    if let Some(mount) = unmounted(&spool.dir, host) {
        let text =
            format!("{shown} is on {}, which /etc/fstab lists but nothing is mounted on", mount.display());
        findings.push(Finding::error("spool.dir", text, format!("mount {}", mount.display())));
        return;
    }
    let Some(dir) = existing(&spool.dir) else {
        findings.push(Finding::error(
            "spool.dir",
            format!("{shown} is on no file system"),
            "correct the path",
        ));
        return;
    };
    if !dir.is_dir() {
        let text = format!("{} is not a directory", dir.display());
        findings.push(Finding::error("spool.dir", text, "name a directory"));
        return;
    }
    if let Err(error) = is_writable(dir) {
        let text = format!("{} is not writable: {error}", dir.display());
        let advice =
            format!("install -d -m 0700 -o <user of trawl> {shown}, on a file system that is mounted rw");
        findings.push(Finding::error("spool.dir", text, advice));
        return;
    }
    if dir != spool.dir {
        let text = format!("{shown} does not exist yet");
        findings.push(Finding::notice(
            "spool.dir",
            text,
            "`trawl serve` creates it; make sure that its disk is mounted",
        ));
    }
    if let Some(holder) = SpoolLock::holder(&spool.dir) {
        let text = format!("{shown} is in use by {holder}");
        let advice = "end that process before another one is started, or name another directory";
        findings.push(Finding::error("spool.dir", text, advice));
    }
    room(plan, dir, findings);
    direct_writes(plan, dir, findings);
}

/// Free space against the quota.
fn room(plan: &Plan, dir: &Path, findings: &mut Vec<Finding>) {
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => {
            let text = format!("the file system of {} does not answer: {error}", dir.display());
            findings.push(Finding::error("spool.dir", text, "check the disk and its mount"));
            return;
        }
    };
    let free = stat.f_bavail * stat.f_frsize;
    let used = bytes_below(&plan.spool.dir);
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
            0 => "free space, or put spool.dir on a larger disk".to_owned(),
            mib => {
                format!("lower spool.bytes_max to \"{mib}MiB\" or less, or put spool.dir on a larger disk")
            }
        };
        findings.push(Finding::error("spool.bytes_max", text, advice));
    }
    if stat.f_favail == 0 && stat.f_files > 0 {
        let text = format!("the file system of {} has no free inode", dir.display());
        findings.push(Finding::error("spool.dir", text, "remove files there"));
    }
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

/// Whether the file system takes `O_DIRECT`, tried with a file that never gets a name.
fn direct_writes(plan: &Plan, dir: &Path, findings: &mut Vec<Finding>) {
    let in_memory = rustix::fs::statfs(dir).is_ok_and(|stat| MEMORY_MAGICS.contains(&stat.f_type));
    if in_memory {
        let text = format!(
            "{} is kept in memory (tmpfs): captures compete with everything else for it",
            dir.display()
        );
        findings.push(Finding::notice("spool.dir", text, "use a disk for captures that matter"));
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let refused = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).err() == Some(Errno::INVAL);
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
        WriteMode::Discard | WriteMode::DiscardInWorker => findings.push(Finding::warning(
            "spool.write",
            "throws every packet away: no capture will hold one",
            "keep this for benches; \"auto\" is what captures need",
        )),
        _ => {}
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
        None if plan.upload.r2.is_some() => {
            let text = "is missing, so access keys of r2:// buckets are refused";
            let advice = "name a file of 32 random bytes with mode 0600, or set upload.r2.allow = false";
            findings.push(Finding::warning(subject, text, advice));
        }
        None => {}
    }
}

fn store(plan: &Plan, findings: &mut Vec<Finding>) {
    let path = &plan.store.path;
    let shown = path.display();
    if path.is_dir() {
        let advice = "name a file in it, such as trawl.db";
        findings.push(Finding::error("store.path", format!("{shown} is a directory"), advice));
        return;
    }
    if path.exists() {
        let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        if let Err(error) = rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS) {
            let text = format!("{shown} cannot be read and written: {error}");
            findings.push(Finding::error("store.path", text, "give it to the user of trawl, mode 0600"));
        }
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
