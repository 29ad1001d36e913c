//! The manifest's signature: Ed25519 (RFC 8032) over its exact bytes, in an object of its own. Owns keys and their files.
//!
//! Keys are PEM, a secret one PKCS #8 and a public one SubjectPublicKeyInfo (RFC 8410), and a signature is its 64 bytes as they
//! are, so that `openssl pkeyutl -verify -rawin` can check it too.
//!
//! Invariant: a secret key is in no message and no `Debug`, and in no file that others can read.

use crate::named;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What stands before the 32 bytes of a public key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `create`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a key of this kind.
    #[error("{} holds no Ed25519 {kind} key in PEM; make one with `trawl manifest-key FILE`", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// `secret` or `public`.
        kind: &'static str,
    },
    /// No random numbers.
    #[error("the system gives no random numbers for a key")]
    Random,
}

/// Signs manifests.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl SigningKey {
    /// Reads a secret key.
    ///
    /// # Errors
    /// [`KeyError`] when the file cannot be read or holds none.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let form = || KeyError::Form { path: path.to_owned(), kind: "secret" };
        let der = from_pem(&read(path)?, "PRIVATE KEY").ok_or_else(form)?;
        // OpenSSL writes the first version of PKCS #8, without the public key.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self).map_err(|_| form())
    }

    /// Makes a key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyError`]; so also when the file is there already.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        let failed = |source| KeyError::File { action: "create", path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(to_pem(pkcs8.as_ref(), "PRIVATE KEY").as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Self::load(path)
    }

    /// The signature of these bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }
}

/// Checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`KeyError`] when the file cannot be read or holds none.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let der = from_pem(&read(path)?, "PUBLIC KEY");
        let key = der.and_then(|der| der.strip_prefix(&SPKI_PREFIX).map(<[u8]>::to_vec));
        key.filter(|key| key.len() == 32)
            .map(Self)
            .ok_or_else(|| KeyError::Form { path: path.to_owned(), kind: "public" })
    }

    /// Reads the 64 hexadecimal digits of a key; none if these are others.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes().chunks_exact(2).map(std::str::from_utf8);
        let bytes: Option<Vec<u8>> =
            digits.map(|pair| pair.ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect();
        bytes.filter(|bytes| bytes.len() == 32 && text.len() == 64).map(Self)
    }

    /// As [`PublicKey::from_hex`] reads it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// As [`PublicKey::load`] reads it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(&[&SPKI_PREFIX, self.0.as_slice()].concat(), "PUBLIC KEY")
    }

    /// Whether this signature is of these bytes and by this key.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }
}

fn read(path: &Path) -> Result<String, KeyError> {
    named::read_text(path).map_err(|source| KeyError::File { action: "read", path: path.to_owned(), source })
}

/// PEM (RFC 7468); a key of this kind fits two lines.
fn to_pem(der: &[u8], label: &str) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

fn from_pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    #[test]
    fn a_signature_is_of_these_bytes_and_this_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let key = SigningKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(SigningKey::create(&path), Err(KeyError::File { action: "create", .. })));
        let public_path = dir.path().join("key.pub");
        fs::write(&public_path, key.public().to_pem()).unwrap();
        let public = PublicKey::load(&public_path).unwrap();
        let signature = SigningKey::load(&path).unwrap().sign(b"manifest");
        assert_eq!(signature.len(), SIGNATURE_BYTES);
        assert!(public.verifies(b"manifest", &signature) && !public.verifies(b"manifesT", &signature));
        let other = SigningKey::create(&dir.path().join("other.pem")).unwrap();
        assert!(!other.public().verifies(b"manifest", &signature));
        assert_eq!(PublicKey::from_hex(&public.to_hex()), Some(public));
        for text in ["", "zz", &"é".repeat(32), &"0".repeat(63)] {
            assert_eq!(PublicKey::from_hex(text), None, "{text}");
        }
        assert!(matches!(PublicKey::load(&path), Err(KeyError::Form { kind: "public", .. })));
        assert!(matches!(SigningKey::load(&public_path), Err(KeyError::Form { kind: "secret", .. })));
    }

    #[test]
    fn openssl_reads_the_keys_and_checks_the_signature() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = SigningKey::create(&path("key.pem")).unwrap();
        fs::write(path("pub.pem"), key.public().to_pem()).unwrap();
        fs::write(path("m.json"), "manifest").unwrap();
        fs::write(path("m.json.sig"), key.sign(b"manifest")).unwrap();
        let arguments = "pkeyutl -verify -pubin -inkey pub.pem -rawin -in m.json -sigfile m.json.sig";
        let mut openssl = Command::new("openssl");
        match openssl.args(arguments.split(' ')).current_dir(dir.path()).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => crate::skip::skip("openssl", error),
            output => {
                let output = output.unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}
