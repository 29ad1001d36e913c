//! The books of the spool: which files nobody has open and what each is charged, and whose each directory is. Owns these
//! charges, and the files that should be gone and could not be removed; the charge of an open or mapped segment is held by
//! the segment. "Account" means the books here, not a customer: that is a tenant, and its part of the quota its share.
//!
//! Invariant: a charge goes when its file goes, and not before.

use super::files::Files;
use super::quota::{Charge, Quota, Share};
use crate::limits::{HISTORY_DIR, SIMPLE_DIR};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends of the names of files that count: the journals and lengths of captures are too small.
const COUNTED: [&str; 3] = [".pcap", ".open", ".pcap.copy"];

#[derive(Debug, Default)]
struct State {
    charges: HashMap<PathBuf, Charge>,
    /// Files that are of no use and could not be removed. Those that count are in `charges` too.
    leftovers: Vec<PathBuf>,
    /// Whose a directory is.
    tenants: HashMap<PathBuf, Arc<Share>>,
    /// What lies in [`SIMPLE_DIR`], by tenant.
    simple: HashMap<String, Charge>,
}

impl State {
    fn share(&self, path: &Path) -> Option<Arc<Share>> {
        path.parent().and_then(|dir| self.tenants.get(dir)).cloned()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    quota: Arc<Quota>,
    files: Files,
    state: Mutex<State>,
}

impl Account {
    /// Charges what is below `dir`, to nobody's share yet. The history keeps its own books, and the files of simple captures
    /// are told by [`Account::set_simple`].
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn open(dir: &Path, quota: Arc<Quota>, files: Files) -> io::Result<Self> {
        let account = Self { quota, files, state: Mutex::default() };
        let others = [dir.join(HISTORY_DIR), dir.join(SIMPLE_DIR)];
        counted_below(dir, &mut |path, bytes| {
            if !others.iter().any(|other| path.starts_with(other)) {
                account.insert(path, Charge::of_file(&account.quota, bytes));
            }
        })?;
        Ok(account)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quota that is charged.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// The file system.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Makes a capture's directory a tenant's, with what is in it.
    pub fn assign(&self, dir: &Path, share: &Arc<Share>) {
        let mut state = self.state();
        for (_, charge) in state.charges.iter_mut().filter(|(path, _)| path.starts_with(dir)) {
            charge.assign(Some(Arc::clone(share)));
        }
        state.tenants.insert(dir.to_owned(), Arc::clone(share));
    }

    /// A charge of nothing yet, for the tenant that has the directory of `path`.
    pub fn charge(&self, path: &Path) -> Charge {
        Charge::of(&self.quota, self.share(path))
    }

    /// Whose a file is.
    pub fn share(&self, path: &Path) -> Option<Arc<Share>> {
        self.state().share(path)
    }

    /// Whose a directory is.
    pub fn tenant_of(&self, dir: &Path) -> Option<Arc<Share>> {
        self.state().tenants.get(dir).cloned()
    }

    /// Bytes of what nobody has open or mapped below `dir`.
    pub fn bytes_below(&self, dir: &Path) -> u64 {
        let state = self.state();
        state.charges.iter().filter(|(path, _)| path.starts_with(dir)).map(|(_, charge)| charge.bytes()).sum()
    }

    /// Charges what each tenant has in [`SIMPLE_DIR`], and nothing for those that are not named.
    pub fn set_simple(&self, held: &HashMap<String, u64>) {
        let mut state = self.state();
        state.simple.retain(|tenant, _| held.contains_key(tenant));
        for (tenant, bytes) in held {
            let new = || Charge::of(&self.quota, Some(self.quota.share(tenant)));
            state.simple.entry(tenant.clone()).or_insert_with(new).set(*bytes);
        }
    }

    /// Keeps the charge of a file.
    pub fn insert(&self, path: PathBuf, charge: Charge) {
        self.state().charges.insert(path, charge);
    }

    /// Lets go of a file: its charge goes to the caller.
    pub fn take(&self, path: &Path) -> Option<Charge> {
        self.state().charges.remove(path)
    }

    /// Keeps a file that nobody has open any more, charged for what it has on the disk.
    pub fn keep(&self, path: PathBuf, mut charge: Charge) {
        match fs::symlink_metadata(&path) {
            Ok(found) => {
                charge.set(found.len());
                self.insert(path, charge);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // The larger guess: the file may well be there.
            Err(_) => self.insert(path, charge),
        }
    }

    /// Removes a file that is of no use. If that fails it stays charged, and [`Account::tidy`] tries again.
    pub fn discard(&self, path: PathBuf, charge: Option<Charge>) {
        if self.files.remove(&path).is_ok() {
            return;
        }
        if let Some(charge) = charge {
            self.keep(path.clone(), charge);
        }
        self.state().leftovers.push(path);
    }

    /// Tries again to remove what could not be removed, until one fails.
    pub fn tidy(&self) {
        loop {
            let Some(path) = self.state().leftovers.pop() else { return };
            if self.files.remove(&path).is_err() {
                self.state().leftovers.push(path);
                return;
            }
            drop(self.take(&path));
        }
    }

    /// Makes the charges of what is below `dir` what its files have on the disk. No segment of it may be open or mapped.
    pub fn settle(&self, dir: &Path) {
        let mut found = HashMap::new();
        let read = counted_below(dir, &mut |path, bytes| {
            found.insert(path, bytes);
        });
        if let Err(e) = read
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), error = %e, "cannot count what a directory of the spool holds");
            return;
        }
        let mut state = self.state();
        state.charges.retain(|path, _| !path.starts_with(dir) || found.contains_key(path));
        for (path, bytes) in found {
            let share = state.share(&path);
            state.charges.entry(path).or_insert_with(|| Charge::of(&self.quota, share)).set(bytes);
        }
        if dir.try_exists().is_ok_and(|is_there| !is_there) {
            state.tenants.remove(dir);
        }
    }
}

/// What a file system keeps for itself at its root: none of it is the spool's, and only root may look into it.
const FOUND_BY_FSCK: &str = "lost+found";

/// Passes every file that counts to `each`, with its length.
fn counted_below(dir: &Path, each: &mut dyn FnMut(PathBuf, u64)) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        let name = entry.file_name();
        let counts = COUNTED.iter().any(|end| name.as_encoded_bytes().ends_with(end.as_bytes()));
        if meta.is_dir() {
            if name == FOUND_BY_FSCK {
                continue;
            }
            counted_below(&entry.path(), each)?;
        } else if counts {
            each(entry.path(), meta.len());
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    /// A spool on a file system of its own, as is recommended. Its `lost+found` cannot even be read without root's rights.
    #[test]
    fn what_fsck_found_at_the_root_of_a_file_system_is_not_charged() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("lost+found", 100), ("a-capture", 50)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("q000-00000000.pcap"), vec![7; bytes]).unwrap();
        }
        let quota = Arc::new(Quota::new(1000, 1000, 1000));
        let account = Account::open(dir.path(), Arc::clone(&quota), Files::default()).unwrap();
        assert_eq!(account.quota().used(), 50);
    }
}
