//! A node's key: an nkey, whose public half the servers know. Owns its file; the seed is shown nowhere.

use crate::named;
use nkeys::KeyPair;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A seed has 58 characters; a file may end its line, and no key is anywhere near this.
const FILE_BYTES_MAX: u64 = 256;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not there, not readable.
    #[error("{path}: {source}")]
    File {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} has mode {mode:04o}: others can read a private key")]
    Mode {
        /// Its file.
        path: PathBuf,
        /// Permissions.
        mode: u32,
    },
    /// Something else.
    #[error("{0} has no seed of a user's nkey (SU and 56 more characters)")]
    Form(PathBuf),
}

impl KeyError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Form(path) => {
                format!("`trawl fleet key {}` makes one; it must be readable to trawl's user", path.display())
            }
            Self::Mode { path, .. } => format!("chmod 600 {}", path.display()),
        }
    }
}

/// See the module.
pub struct Key {
    seed: String,
    public: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.public)
    }
}

impl Key {
    /// Reads it. A file that others than its owner can read holds no secret and is refused.
    ///
    /// # Errors
    /// [`KeyError`]; its [`KeyError::advice`] says what to do.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let file = named::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        let wrong = || KeyError::Form(path.to_owned());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => wrong(),
            _ => failed(error),
        })?;
        let seed = text.trim();
        let pair = KeyPair::from_seed(seed).map_err(|_| wrong())?;
        if !is_user(&pair.public_key()) {
            return Err(wrong());
        }
        Ok(Self { seed: seed.to_owned(), public: pair.public_key() })
    }

    /// Makes a new one in a new file that only its owner can read.
    ///
    /// # Errors
    /// The file is there already, or cannot be made.
    pub fn make(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let pair = KeyPair::new_user();
        let seed = pair.seed().map_err(|error| failed(io::Error::other(error.to_string())))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(format!("{seed}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self { seed, public: pair.public_key() })
    }

    /// For the servers.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// For the client.
    pub(super) fn seed(&self) -> String {
        self.seed.clone()
    }
}

/// Whether a text is the public half of a user's nkey.
#[must_use]
pub fn is_user(text: &str) -> bool {
    text.starts_with('U') && KeyPair::from_public_key(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_its_seed_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats.nk");
        let made = Key::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Key::make(&path).is_err());
        let key = Key::load(&path).unwrap();
        assert_eq!(key.public(), made.public());
        assert!(is_user(key.public()) && !format!("{key:?}").contains(&key.seed));
    }

    #[test]
    fn a_key_that_others_can_read_or_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats.nk");
        Key::make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::Mode { mode: 0o640, .. })));
        for text in ["", "SUA", &KeyPair::new_account().seed().unwrap(), &KeyPair::new_user().public_key()] {
            let path = dir.path().join("other.nk");
            let _ = fs::remove_file(&path);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(matches!(Key::load(&path), Err(KeyError::Form(_))), "{text}");
        }
    }
}
