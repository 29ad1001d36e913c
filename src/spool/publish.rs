//! One segment on its way to its published name. Owns the steps and which of them may be done again after a failure; not when
//! that is tried (`publisher`).
//!
//! What an fsync that failed has lost, no later fsync brings back. A direct segment's bytes were acknowledged by the device
//! when they were written, and only metadata waits for the fsync, so it is made again. A mapped segment's pages are copied
//! into a new file, whose own fsync must succeed, and the copy is published.
//!
//! Invariant: a step that failed leaves the segment as the step before it did; the file under the open name stays until the
//! published one is durable.

use super::backing::Backing;
use super::files::Files;
use super::quota::Charge;
use super::salvage;
use super::segment::OpenSegment;
use crate::block::Heartbeat;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COPY_STEP_BYTES: usize = 1 << 20;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Find the whole records of a segment whose writing failed.
    Salvage,
    /// Cut off what was allocated ahead.
    Truncate,
    /// fsync.
    Sync,
    /// Copy what an fsync could not make durable.
    Copy,
    /// Give it its name.
    Rename,
    /// Make the name durable.
    SyncDir,
    /// Nothing: it is published, or it had no packet and is gone.
    Done,
}

impl OpenSegment {
    /// Goes on with its publishing, to the end if nothing fails. Without a packet it is removed instead.
    pub(super) fn publish(&mut self, heartbeat: &Heartbeat) -> io::Result<()> {
        let disk = Arc::clone(&self.disk);
        let files = disk.account().files();
        while self.step != Step::Done {
            self.step = match self.step {
                Step::Salvage => self.salvage(files)?,
                Step::Truncate => {
                    files.truncate(self.backing.file(), &self.open_path, self.bytes)?;
                    // Now: if a later step fails, nobody may be able to ask the disk.
                    if let Backing::Direct { charge, .. } = &mut self.backing {
                        charge.set(self.bytes);
                    }
                    Step::Sync
                }
                Step::Sync => {
                    if let Err(e) = files.sync(self.backing.file(), &self.open_path) {
                        if matches!(self.backing, Backing::Mapped(_)) {
                            self.step = Step::Copy;
                        }
                        return Err(e);
                    }
                    heartbeat.synced();
                    Step::Rename
                }
                Step::Copy => {
                    self.copy()?;
                    heartbeat.synced();
                    Step::Rename
                }
                Step::Rename => {
                    let from =
                        if self.replaced.is_some() { self.copy_path() } else { self.open_path.clone() };
                    files.rename(&from, &self.path)?;
                    Step::SyncDir
                }
                Step::SyncDir => {
                    files.sync_dir_of(&self.path)?;
                    self.settle();
                    Step::Done
                }
                Step::Done => Step::Done,
            };
            if self.step == Step::Truncate && self.packets == 0 {
                self.remove();
                self.step = Step::Done;
            }
        }
        Ok(())
    }

    fn salvage(&mut self, files: &Files) -> io::Result<Step> {
        if self.broken {
            let file = files.open(OpenOptions::new().read(true), &self.open_path)?;
            let found = salvage::whole_records(&file, self.bytes)?;
            self.found(&found);
            self.broken = false;
        }
        let is_mapped = matches!(self.backing, Backing::Mapped(_));
        Ok(if is_mapped && self.length.sync_failed() && self.packets > 0 {
            Step::Copy
        } else {
            Step::Truncate
        })
    }

    fn found(&mut self, found: &salvage::Salvaged) {
        (self.bytes, self.packets, self.frame_bytes) = (found.bytes, found.packets, found.frame_bytes);
        (self.first_ns, self.last_ns) = (found.first_ns, found.last_ns);
    }

    fn copy_path(&self) -> PathBuf {
        self.open_path.with_extension("copy")
    }

    /// Makes a durable copy of its bytes, and that the file to publish.
    fn copy(&mut self) -> io::Result<()> {
        let (path, disk) = (self.copy_path(), Arc::clone(&self.disk));
        let account = disk.account();
        let mut charge = account.charge(&path);
        if !charge.grow(self.bytes) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has no room for a copy"));
        }
        match self.copy_to(&path) {
            Ok((file, found)) => {
                // Pages that the kernel gave up after the failure may have come back from the disk without their contents.
                if found.packets < self.packets {
                    self.found(&found);
                }
                charge.set(self.bytes);
                let copy = Backing::Direct { file: Arc::new(file), charge };
                let first = std::mem::replace(&mut self.backing, copy);
                self.replaced = Some((self.open_path.clone(), first));
                Ok(())
            }
            Err(e) => {
                account.discard(path, Some(charge));
                Err(e)
            }
        }
    }

    fn copy_to(&self, path: &Path) -> io::Result<(File, salvage::Salvaged)> {
        let files = self.disk.account().files();
        let copy = files.open(OpenOptions::new().read(true).write(true).create(true).truncate(true), path)?;
        let (mut buffer, mut at) = (vec![0; COPY_STEP_BYTES], 0);
        while at < self.bytes {
            let step = (self.bytes - at).min(COPY_STEP_BYTES as u64);
            let bytes = &mut buffer[..usize::try_from(step).unwrap_or(COPY_STEP_BYTES)];
            files.read_at(self.backing.file(), &self.open_path, bytes, at)?;
            files.write_at(&copy, path, bytes, at)?;
            at += step;
        }
        let found = salvage::whole_records(&copy, self.bytes)?;
        if found.packets == 0 {
            return Err(io::Error::other("the kernel has given up its pages"));
        }
        files.truncate(&copy, path, found.bytes.min(self.bytes))?;
        files.sync(&copy, path)?;
        Ok((copy, found))
    }

    /// It is durable under its name: what is left of its making goes, and its charge is what the file has.
    fn settle(&mut self) {
        let disk = Arc::clone(&self.disk);
        let account = disk.account();
        account.discard(self.length_path.clone(), None);
        if let Some((path, first)) = self.replaced.take() {
            account.discard(path, Some(first.into_charge()));
        }
        match (self.take_backing(), disk.pool()) {
            (Backing::Mapped(mapped), Some(pool)) => pool.keep(self.path.clone(), mapped, self.bytes),
            (backing, _) => {
                let mut charge = backing.into_charge();
                charge.set(self.bytes);
                account.insert(self.path.clone(), charge);
            }
        }
    }

    fn take_backing(&mut self) -> Backing {
        let file = Arc::clone(self.backing.file());
        let none = Backing::Direct { file, charge: Charge::none(self.disk.account().quota()) };
        std::mem::replace(&mut self.backing, none)
    }

    /// Removes a segment that has no packet.
    fn remove(&mut self) {
        let charge = self.take_backing().into_charge();
        self.disk.account().discard(self.open_path.clone(), Some(charge));
        self.disk.account().discard(self.length_path.clone(), None);
    }

    /// Leaves it on the disk under its open name, with its length file, for a later start or for `trawl recover`.
    pub(super) fn leave(mut self) -> PathBuf {
        let disk = Arc::clone(&self.disk);
        let account = disk.account();
        let backing = self.take_backing();
        if let Some((path, first)) = self.replaced.take() {
            let copy = if self.step == Step::SyncDir { self.path.clone() } else { self.copy_path() };
            account.discard(copy, Some(backing.into_charge()));
            account.keep(path, first.into_charge());
        } else if self.step == Step::SyncDir && account.files().rename(&self.path, &self.open_path).is_err() {
            account.keep(self.path.clone(), backing.into_charge());
            return self.path;
        } else {
            account.keep(self.open_path.clone(), backing.into_charge());
        }
        self.open_path
    }
}
