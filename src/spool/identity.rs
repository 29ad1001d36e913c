//! Which spool this is. Owns the file that names it and what follows when it is not the one that the job store knows; not where
//! the store keeps that.
//!
//! A spool whose disk is not mounted looks like an empty one, and an empty one would end every unfinished capture with nothing.
//!
//! Invariant: a spool keeps its name for as long as its files lie there, and no two have the same.

use super::SpoolError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NAME: &str = ".spool-id";

/// Why a spool is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It has no name, or another one.
    #[error(
        "{dir} is not the spool that the job store knows: that is spool {known}, here is {found}. Mount its disk there; if it is gone for good, run `trawl serve --new-spool` once, which ends the captures that were not delivered"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The name in the job store.
        known: String,
        /// What is there instead.
        found: String,
    },
    /// One of its directories is not there.
    #[error(
        "no directory of spool.dirs is spool {known}, which the job store knows: name its directory too; if it is gone for good, run `trawl serve --new-spool` once, and captures that were not delivered go on without what was in it"
    )]
    Missing {
        /// The name in the job store.
        known: String,
    },
    /// A directory beside those that are known has a name.
    #[error(
        "{dir} is spool {found}, which the job store does not know: it is of another host, or of an earlier config. Name an empty directory, or take it as it is with `trawl serve --new-spool`"
    )]
    Stranger {
        /// The directory.
        dir: PathBuf,
        /// Its name.
        found: String,
    },
    /// Its name cannot be read any more.
    #[error(
        "{dir}/.spool-id is damaged: it holds no UUID. If this is the disk with this host's captures, write {known} into it; if not, run `trawl serve --new-spool` once, which ends the captures that were not delivered"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The name in the job store.
        known: String,
    },
}

/// What to do about a spool.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one.
    Known,
    /// The job store knows none: it takes this one, or one that is made.
    First,
}

/// The name of the spool in `dir`, if it has one.
///
/// # Errors
/// When the file cannot be read, or holds no name.
pub fn spool_id(dir: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(dir.join(NAME)) {
        Ok(text) => match uuid::Uuid::parse_str(text.trim()) {
            Ok(id) => Ok(Some(id.to_string())),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{NAME} holds no UUID"))),
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The name of the spool in `dir`, which gets one if it has none or a damaged one; it survives a power cut. Only under the
/// spool's lock, and after [`standing`].
///
/// # Errors
/// When the file cannot be read or written.
pub fn name_spool(dir: &Path) -> io::Result<String> {
    match spool_id(dir) {
        Ok(Some(id)) => return Ok(id),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
        _ => {}
    }
    let id = uuid::Uuid::new_v4().to_string();
    let half = dir.join(format!("{NAME}.half"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&half, dir.join(NAME))?;
    File::open(dir)?.sync_all()?;
    Ok(id)
}

/// Holds the spool in `dir` against the one that is known.
///
/// # Errors
/// [`SpoolError::Identity`] if it is another one, or its name is damaged; or its name cannot be read.
pub fn standing(dir: &Path, known: Option<&str>) -> Result<Standing, SpoolError> {
    match (spool_id(dir), known) {
        (Ok(found), _) => Ok(judge(dir, known, found.as_deref())?),
        (Err(error), known) if error.kind() == io::ErrorKind::InvalidData => match known {
            None => Ok(Standing::First),
            Some(known) => {
                Err(IdentityError::Damaged { dir: dir.to_owned(), known: known.to_owned() }.into())
            }
        },
        (Err(source), _) => Err(SpoolError::Dir { dir: dir.to_owned(), source }),
    }
}

/// Holds the directories of a spool against the names that are known, of which there is one for each: the first is the home's, the
/// others have no order. Directories without a name are added, once all that are known are there.
///
/// # Errors
/// As [`standing`]; and [`IdentityError::Missing`].
pub fn standing_of_all(dirs: &[&Path], known: &[&str]) -> Result<(), SpoolError> {
    let (Some((home, others)), Some((first, more))) = (dirs.split_first(), known.split_first()) else {
        return dirs.iter().try_for_each(|dir| standing(dir, None).map(drop));
    };
    standing(home, Some(*first))?;
    let (mut missing, mut unnamed) = (more.to_vec(), Vec::new());
    for dir in others {
        let id = match spool_id(dir) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(SpoolError::Dir { dir: (*dir).to_owned(), source: error });
            }
            id => id.ok().flatten(),
        };
        match missing.iter().position(|name| Some(*name) == id.as_deref()) {
            Some(at) => drop(missing.swap_remove(at)),
            None => unnamed.push((*dir, id)),
        }
    }
    match (missing.first(), unnamed.first()) {
        // Its disk may not be mounted.
        (Some(known), Some((dir, _))) => standing(dir, Some(*known)).map(drop),
        (Some(known), None) => Err(IdentityError::Missing { known: (*known).to_owned() }.into()),
        (None, _) => match unnamed.into_iter().find_map(|(dir, id)| Some((dir, id?))) {
            Some((dir, found)) => Err(IdentityError::Stranger { dir: dir.to_owned(), found }.into()),
            None => Ok(()),
        },
    }
}

/// Holds the spool that was found in `dir` against the one that is known.
///
/// # Errors
/// [`IdentityError::Foreign`].
pub fn judge(dir: &Path, known: Option<&str>, found: Option<&str>) -> Result<Standing, IdentityError> {
    match (known, found) {
        (None, _) => Ok(Standing::First),
        (Some(known), Some(found)) if known == found => Ok(Standing::Known),
        (Some(known), found) => Err(IdentityError::Foreign {
            dir: dir.to_owned(),
            known: known.to_owned(),
            found: found.map_or_else(|| "none".to_owned(), |id| format!("spool {id}")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_gets_a_name_once_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(spool_id(dir.path()).unwrap(), None);
        assert_eq!(spool_id(&dir.path().join("nowhere")).unwrap(), None);
        let id = name_spool(dir.path()).unwrap();
        assert_eq!(
            (name_spool(dir.path()).unwrap(), spool_id(dir.path()).unwrap()),
            (id.clone(), Some(id.clone()))
        );
        let other = tempfile::tempdir().unwrap();
        assert_ne!(name_spool(other.path()).unwrap(), id);
    }

    #[test]
    fn of_several_directories_each_that_is_known_must_be_there_and_new_ones_are_added() {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let [a, b, c] = [0, 1, 2].map(|n| dirs[n].path());
        standing_of_all(&[a, b], &[]).unwrap();
        let [id_a, id_b] = [a, b].map(|dir| name_spool(dir).unwrap());
        let known = [id_a.as_str(), id_b.as_str()];
        standing_of_all(&[a, b], &known).unwrap();
        standing_of_all(&[a, c, b], &known).unwrap();
        let refused = |dirs: &[&Path], known: &[&str]| standing_of_all(dirs, known).unwrap_err().to_string();
        assert!(refused(&[b, a], &known).contains(&format!("that is spool {id_a}, here is spool {id_b}")));
        assert!(refused(&[a], &known).contains(&format!("is spool {id_b}")));
        let unmounted = refused(&[a, c], &known);
        assert!(
            unmounted.contains(&format!("{} is not", c.display())) && unmounted.contains("none"),
            "{unmounted}"
        );
        assert!(refused(&[a, b], &known[..1]).contains(&id_b), "it is of another host");
        std::fs::write(b.join(NAME), "half a na").unwrap();
        assert!(refused(&[a, b], &known).contains(&format!("write {id_b} into it")));
    }

    #[test]
    fn a_damaged_name_is_refused_with_what_to_write_into_it_and_replaced_where_none_is_known() {
        let dir = tempfile::tempdir().unwrap();
        for damage in ["half a na", "", "\0\0\0\0"] {
            std::fs::write(dir.path().join(NAME), damage).unwrap();
            assert_eq!(spool_id(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
            let refused = standing(dir.path(), Some("a-b-c")).unwrap_err().to_string();
            assert!(refused.contains("write a-b-c into it") && refused.contains("--new-spool"), "{refused}");
            assert_eq!(standing(dir.path(), None).unwrap(), Standing::First);
            let id = name_spool(dir.path()).unwrap();
            assert_eq!(standing(dir.path(), Some(&id)).unwrap(), Standing::Known);
        }
    }

    #[test]
    fn only_the_spool_that_is_known_is_taken_once_one_is() {
        let dir = Path::new("/spool");
        assert_eq!(judge(dir, None, None), Ok(Standing::First), "both are new");
        assert_eq!(
            judge(dir, None, Some("a")),
            Ok(Standing::First),
            "the store is of a version that knew none"
        );
        assert_eq!(judge(dir, Some("a"), Some("a")), Ok(Standing::Known));
        for found in [None, Some("b")] {
            let refused = judge(dir, Some("a"), found).unwrap_err().to_string();
            assert!(
                refused.contains("spool a") && refused.contains("Mount") && refused.contains("--new-spool"),
                "{refused}"
            );
        }
    }
}
