//! Who asks, and for which account. Owns credentials, their comparison and the two roles; not what a role's routes do.
//!
//! Invariant: a handler gets an account only through [`Reader`] or [`Writer`], which exist only for a credential of that
//! account. Others learn nothing from the answer or its time: an unknown account, a wrong credential and another account's
//! credential are one case. Secrets are hashed as they are read and never logged.

use super::ApiState;
use super::attempts::{Attempts, PENALTY, SUMMARY_AFTER};
use super::codes::Code;
use super::envelope::Failure;
use crate::http::{Peer, Standing};
use crate::job::AccountId;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Instant;
use subtle::{Choice, ConstantTimeEq};

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Get and list.
    Read,
    /// Everything.
    Write,
}

/// A credential as it is configured: hashes, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// `X-Auth-Email` and `X-Auth-Key`.
    Key {
        /// Compared without regard to ASCII case.
        email: String,
        /// SHA-256 of the key.
        key_sha256: [u8; 32],
    },
    /// `Authorization: Bearer`.
    Token {
        /// SHA-256 of the token.
        token_sha256: [u8; 32],
    },
}

/// A credential of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What must be sent.
    pub secret: Secret,
    /// What it may do.
    pub role: Role,
}

/// SHA-256 of the account, of the kind of credential with its e-mail address, and of the secret, one after the other. One
/// shape for all, so that comparing takes the same time whatever is compared.
type Proof = [u8; 96];

/// Of an account's id.
const ACCOUNT_CHARS_LOGGED: usize = 32;

/// All accounts of the host.
pub struct Accounts {
    proofs: Vec<(Proof, Role)>,
    failures: Arc<Attempts>,
}

impl Accounts {
    /// The accounts with their credentials. One without a credential is one that nobody can use. After `failures_max` failed
    /// authentications in a row, over all accounts, an address waits for the answer to each further one.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = (AccountId, Vec<Credential>)>, failures_max: u32) -> Self {
        let proofs = accounts.into_iter().flat_map(|(account, credentials)| {
            credentials.into_iter().map(move |credential| {
                let proof = match credential.secret {
                    Secret::Key { email, key_sha256 } => proof(&account.0, Some(&email), key_sha256),
                    Secret::Token { token_sha256 } => proof(&account.0, None, token_sha256),
                };
                (proof, credential.role)
            })
        });
        Self { proofs: proofs.collect(), failures: Arc::new(Attempts::new(failures_max)) }
    }

    /// The strongest role that `presented` has, by comparing with every credential of every account.
    fn role(&self, presented: &Proof) -> Option<Role> {
        let (mut read, mut write) = (Choice::from(0), Choice::from(0));
        for (proof, role) in &self.proofs {
            let hit = proof.ct_eq(presented);
            read |= hit;
            write |= hit & Choice::from(u8::from(*role == Role::Write));
        }
        match (bool::from(write), bool::from(read)) {
            (true, _) => Some(Role::Write),
            (false, true) => Some(Role::Read),
            (false, false) => None,
        }
    }
}

fn proof(account: &str, email: Option<&str>, secret_sha256: [u8; 32]) -> Proof {
    let name = match email {
        Some(email) => format!("key of {}", email.to_ascii_lowercase()),
        None => "token".to_owned(),
    };
    let mut proof = [0; 96];
    proof[..32].copy_from_slice(&Sha256::digest(account));
    proof[32..64].copy_from_slice(&Sha256::digest(name));
    proof[64..].copy_from_slice(&secret_sha256);
    proof
}

/// What the headers present for `account`. E-mail and key decide when both are there, whatever else was sent: the Python
/// SDK sends only them when it also has a token, so the TypeScript SDK, which then sends all three, means the same.
fn presented(headers: &HeaderMap, account: &str) -> Result<Proof, Failure> {
    let email = headers.get("x-auth-email");
    let key = headers.get("x-auth-key");
    if let (Some(email), Some(key)) = (email, key) {
        // An address that is no text is no configured one; comparing its lossy form costs the same and fails.
        let email = String::from_utf8_lossy(email.as_bytes());
        return Ok(proof(account, Some(&email), Sha256::digest(key.as_bytes()).into()));
    }
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        return Err(Failure::new(
            Code::MissingCredential,
            "Missing X-Auth-Key, X-Auth-Email or Authorization headers",
        ));
    };
    // RFC 6750 and RFC 9110: the scheme's case does not count.
    let token = match authorization.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
        _ => return Err(denied()),
    };
    Ok(proof(account, None, Sha256::digest(token).into()))
}

fn denied() -> Failure {
    Failure::new(Code::Authentication, "Authentication error")
}

async fn authenticate(
    parts: &Parts,
    path: &RawPathParams,
    accounts: &Accounts,
) -> Result<(AccountId, Role), Failure> {
    let account = path.iter().find(|(name, _)| *name == "account").map_or("", |(_, value)| value);
    let presented = presented(&parts.headers, account)?;
    let Some(role) = accounts.role(&presented) else {
        // Only a request that came over no connection, as in tests of the routes, has no peer.
        return Err(match parts.extensions.get::<Peer>() {
            Some(peer) => failed(&accounts.failures, *peer, account).await,
            None => denied(),
        });
    };
    if let Some(standing) = parts.extensions.get::<Arc<Standing>>()
        && !standing.credential_was_right(account)
    {
        return Err(Failure::new(
            Code::TooManyConnections,
            "your account has as many connections as it may (api.connections_per_account_max), and all are at work; wait for an \
             answer, or let your clients share connections",
        ));
    }
    Ok((AccountId(account.to_owned()), role))
}

/// The answer to a wrong credential, once it has been counted and told.
async fn failed(failures: &Arc<Attempts>, peer: Peer, account: &str) -> Failure {
    let verdict = failures.failed(peer, Instant::now());
    if verdict.is_told {
        // What stands in a path is a stranger's text: quoted, and no longer than an account's id can be.
        let account: String = account.chars().take(ACCOUNT_CHARS_LOGGED).collect();
        tracing::warn!(
            peer = %peer.0, ?account,
            "authentication failed; more failures within a minute are counted and told in one line"
        );
    }
    if verdict.begins {
        tokio::spawn(summarise(Arc::clone(failures)));
    }
    if !verdict.is_limited {
        return denied();
    }
    tokio::time::sleep(PENALTY).await;
    Failure::new(
        Code::TooManyFailures,
        "too many failed authentications from your address, and this is another one; wait, and correct the credential",
    )
}

async fn summarise(failures: Arc<Attempts>) {
    tokio::time::sleep(SUMMARY_AFTER).await;
    if let Some(summary) = failures.summary() {
        tracing::warn!(
            failures = summary.failures, limited = summary.limited, last_peer = ?summary.last_peer,
            "authentications failed in the last minute"
        );
    }
}

/// The account of the path; the request carries a credential of it.
pub(super) struct Reader(pub(super) AccountId);

/// As [`Reader`], and the credential may change things.
pub(super) struct Writer(pub(super) AccountId);

async fn access(parts: &mut Parts, state: &Arc<ApiState>) -> Result<(AccountId, Role), Failure> {
    // A path that is no text names no account of ours.
    let path = RawPathParams::from_request_parts(parts, state).await.map_err(|_| denied())?;
    authenticate(parts, &path, &state.accounts).await
}

impl FromRequestParts<Arc<ApiState>> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        access(parts, state).await.map(|(account, _)| Self(account))
    }
}

impl FromRequestParts<Arc<ApiState>> for Writer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        match access(parts, state).await? {
            (account, Role::Write) => Ok(Self(account)),
            (_, Role::Read) => Err(Failure::new(
                Code::ReadOnly,
                "this credential may only read; use one with the role write",
            )),
        }
    }
}
