//! Access keys at rest. Owns the host's key file and the encryption under it; not where sealed keys are kept, nor who may
//! use them.
//!
//! Invariant: what is sealed opens under the same key file and for the same account and place only; whatever else was done
//! to it is found. Neither the host's key nor an opened secret is ever printed.

use crate::job::{AccountId, S3Credentials, Sealed};
use crate::named;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a key file: one key of ChaCha20-Poly1305 (RFC 8439).
const KEY_BYTES: usize = 32;

/// First byte of what is sealed. Another one is another way of sealing.
const FORM: u8 = 1;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than its owner may read or change it.
    #[error("{path} has mode {mode:04o}, so others than its owner get at the key")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It has another length.
    #[error("{path} is no key: it must hold exactly 32 bytes")]
    Length {
        /// The file.
        path: PathBuf,
    },
}

impl VaultError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Length { path } => {
                let path = path.display();
                format!("as the user of trawl: (umask 077; head -c 32 /dev/urandom > {path})")
            }
            Self::Mode { path, .. } => format!("chmod 600 {}", path.display()),
        }
    }
}

/// What is sealed does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("they do not open with this host's store.key_file")]
pub struct Locked;

/// What is encrypted.
#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    id: &'a str,
    secret: &'a str,
}

/// Seals and opens with the host's key.
pub struct Vault(LessSafeKey);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// Reads the host's key. A file that others than its owner can read holds no secret and is refused.
    ///
    /// # Errors
    /// [`VaultError`]; its [`VaultError::advice`] says what to do.
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let failed = |source| VaultError::File { path: path.to_owned(), source };
        let file = named::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(VaultError::Mode { path: path.to_owned(), mode });
        }
        let mut key = Vec::with_capacity(KEY_BYTES + 1);
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(failed)?;
        // Only the length can be wrong.
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
        key.map(|key| Self(LessSafeKey::new(key))).map_err(|_| VaultError::Length { path: path.to_owned() })
    }

    /// Encrypts keys for one account and place; `None` if the system gives no random numbers. The nonce is random: at 96 bits
    /// even a host that sealed a key every second would not meet one twice.
    #[must_use]
    pub fn seal(&self, account: &AccountId, place: &str, keys: &S3Credentials) -> Option<Sealed> {
        let plain = Plain { id: &keys.access_key_id, secret: &keys.secret_access_key };
        let mut text = serde_json::to_vec(&plain).ok()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let bound = Aad::from(bound(account, place));
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text).ok()?;
        Some(Sealed::new([&[FORM][..], &nonce, &text].concat()))
    }

    /// Decrypts what was sealed for the same account and place.
    ///
    /// # Errors
    /// [`Locked`] when it was sealed for another, under another key, or has changed.
    pub fn open(&self, account: &AccountId, place: &str, sealed: &Sealed) -> Result<S3Credentials, Locked> {
        let (form, rest) = sealed.as_bytes().split_first().ok_or(Locked)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Locked)?;
        if *form != FORM {
            return Err(Locked);
        }
        let mut text = text.to_vec();
        let bound = Aad::from(bound(account, place));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, bound, &mut text).map_err(|_| Locked)?;
        let Plain { id, secret } = serde_json::from_slice(plain).map_err(|_| Locked)?;
        Ok(S3Credentials { access_key_id: id.to_owned(), secret_access_key: secret.to_owned() })
    }
}

/// The associated data. Each part before its length, so that no two pairs are one sequence of bytes.
fn bound(account: &AccountId, place: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in ["trawl access keys", &account.0, place] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PLACE: &str = "r2://bucket?account-id=0123456789abcdef0123456789abcdef";

    fn key_file(bytes: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn vault(byte: u8) -> Vault {
        Vault::load(key_file(&[byte; 32], 0o600).path()).unwrap()
    }

    fn keys() -> S3Credentials {
        S3Credentials { access_key_id: "an-id".to_owned(), secret_access_key: "a-secret".to_owned() }
    }

    fn account(name: &str) -> AccountId {
        AccountId(name.to_owned())
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_account_and_place_under_the_same_key_only() {
        let vault = vault(7);
        let sealed = vault.seal(&account("a"), PLACE, &keys()).unwrap();
        assert_eq!(vault.open(&account("a"), PLACE, &sealed), Ok(keys()));
        assert_eq!(vault.open(&account("b"), PLACE, &sealed), Err(Locked));
        assert_eq!(vault.open(&account("a"), "r2://other?account-id=0", &sealed), Err(Locked));
        assert_eq!(self::vault(8).open(&account("a"), PLACE, &sealed), Err(Locked));
        for at in 0..sealed.as_bytes().len() {
            let mut changed = sealed.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = Sealed::new(changed);
            assert_eq!(vault.open(&account("a"), PLACE, &changed), Err(Locked), "byte {at}");
            assert_eq!(
                vault.open(&account("a"), PLACE, &Sealed::new(sealed.as_bytes()[..at].to_vec())),
                Err(Locked)
            );
        }
    }

    #[test]
    fn neither_text_nor_debug_of_what_is_sealed_holds_the_secret_and_no_two_are_alike() {
        let vault = vault(7);
        let [one, two] = [(); 2].map(|()| vault.seal(&account("a"), PLACE, &keys()).unwrap());
        assert_ne!(one, two);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Sealed>(&text).unwrap(), one);
        for secret in ["a-secret", "an-id"] {
            assert!(!format!("{one:?} {vault:?} {text}").contains(secret));
            assert!(!one.as_bytes().windows(secret.len()).any(|part| part == secret.as_bytes()));
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_or_of_another_length_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o666] {
            let file = key_file(&[7; 32], mode);
            let error = Vault::load(file.path()).unwrap_err();
            assert!(matches!(error, VaultError::Mode { mode: found, .. } if found == mode), "{error}");
        }
        for mode in [0o600, 0o400] {
            Vault::load(key_file(&[7; 32], mode).path()).unwrap();
        }
        for bytes in [0, 31, 33, 64] {
            let error = Vault::load(key_file(&vec![7; bytes], 0o600).path()).unwrap_err();
            assert!(matches!(error, VaultError::Length { .. }), "{error}");
        }
        let error = Vault::load(Path::new("/nonexistent/key")).unwrap_err();
        assert!(error.advice().contains("/dev/urandom"), "{error}");
    }
}
