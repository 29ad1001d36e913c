//! Who asks, and for which account. Owns credentials, their comparison and the two roles; not what a role's routes do.
//!
//! Invariant: a handler gets an account only through [`Reader`] or [`Writer`], which exist only for a credential of that
//! account. Others learn nothing from the answer or its time: an unknown account, a wrong credential and another account's
//! credential are one case. Secrets are hashed as they are read and never logged.

use super::ApiState;
use super::attempts::{Attempts, PENALTY, SUMMARY_AFTER};
use super::codes::Code;
use super::envelope::Failure;
use super::opened::Opened;
use super::rates::Rates;
use super::trail::{self, Trail};
use crate::audit::{Audit, Entry, Outcome};
use crate::dashboard::{Grant, Session, journal};
use crate::http::{Peer, Standing};
use crate::job::AccountId;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde_json::json;
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

/// As it is written.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
    }
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
pub(super) type Proof = [u8; 96];

/// For whom connections of operators count: no account has such an id.
pub(super) const OPERATOR: &str = "(operator)";

/// Of an account's id.
const ACCOUNT_CHARS_LOGGED: usize = 32;

/// All accounts of the host.
pub struct Accounts {
    ids: Vec<AccountId>,
    proofs: Vec<(Proof, Role)>,
    operators: Vec<Proof>,
    failures: Arc<Attempts>,
    rates: Rates,
}

impl Accounts {
    /// The accounts with their credentials. One without a credential is one that nobody can use. After `failures_max` failed
    /// authentications in a row, over all accounts, an address waits for the answer to each further one.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = (AccountId, Vec<Credential>)>, failures_max: u32) -> Self {
        let accounts: Vec<_> = accounts.into_iter().collect();
        let failures = Arc::new(Attempts::new(failures_max));
        failures.count_for(accounts.iter().map(|(account, _)| account.clone()));
        let ids = accounts.iter().map(|(account, _)| account.clone()).collect();
        let proofs = accounts.into_iter().flat_map(|(account, credentials)| {
            credentials.into_iter().map(move |credential| {
                let proof = match credential.secret {
                    Secret::Key { email, key_sha256 } => proof(&account.0, Some(&email), key_sha256),
                    Secret::Token { token_sha256 } => proof(&account.0, None, token_sha256),
                };
                (proof, credential.role)
            })
        });
        Self { ids, proofs: proofs.collect(), operators: Vec::new(), failures, rates: Rates::new(None) }
    }

    /// The same, where each account may ask so many requests a second.
    #[must_use]
    pub fn with_rate(self, requests_per_second: u32) -> Self {
        Self { rates: Rates::new(Some(requests_per_second)), ..self }
    }

    /// Requests of each account that were refused because it had asked more than its rate.
    pub(super) fn refused_requests(&self) -> Vec<(AccountId, u64)> {
        self.ids.iter().map(|account| (account.clone(), self.rates.refused(account))).collect()
    }

    /// The same with operators, by the SHA-256 of their tokens. They see the host, and no account's captures but their counts.
    #[must_use]
    pub fn with_operators(self, tokens_sha256: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let operators = tokens_sha256.into_iter().map(operator_proof).collect();
        Self { operators, ..self }
    }

    /// What a grant opens now: a role of its account. Nothing, once its credential is gone.
    pub(super) fn role_of(&self, grant: &Grant) -> Option<Role> {
        grant.account.as_ref().and_then(|_| self.role(&grant.proof))
    }

    /// Whether a grant is an operator's.
    pub(super) fn is_operator(&self, grant: &Grant) -> bool {
        grant.account.is_none() && self.has_operator(&grant.proof)
    }

    /// Whether a grant opens anything now.
    pub(super) fn opens(&self, grant: &Grant) -> bool {
        self.role_of(grant).is_some() || self.is_operator(grant)
    }

    /// The same accounts, with the failures that were counted before them.
    pub(super) fn after(self, before: &Self) -> Self {
        before.failures.count_for(self.ids.iter().cloned());
        let rates = self.rates.after(&before.rates, &self.ids);
        Self { rates, failures: Arc::clone(&before.failures), ..self }
    }

    pub(super) fn has_operator(&self, presented: &Proof) -> bool {
        let hits = self.operators.iter().map(|proof| proof.ct_eq(presented));
        bool::from(hits.fold(Choice::from(0), |any, hit| any | hit))
    }

    /// The strongest role that `presented` has, by comparing with every credential of every account.
    pub(super) fn role(&self, presented: &Proof) -> Option<Role> {
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

/// No account has an empty id.
fn operator_proof(token_sha256: [u8; 32]) -> Proof {
    proof("", None, token_sha256)
}

/// What a token of an account proves, or one of an operator.
pub(super) fn token_proof(account: Option<&AccountId>, token: &[u8]) -> Proof {
    proof(account.map_or("", |account| account.0.as_str()), None, Sha256::digest(token).into())
}

/// What an e-mail address with its key proves.
pub(super) fn key_proof(account: &AccountId, email: &str, key: &[u8]) -> Proof {
    proof(&account.0, Some(email), Sha256::digest(key).into())
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

/// Whether the headers alone decide, whatever cookie came with them.
pub(super) fn has_credential(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || (headers.contains_key("x-auth-email") && headers.contains_key("x-auth-key"))
}

/// What the headers present for `account`. E-mail and key decide when both are there, whatever else was sent: the Python
/// SDK sends only them when it also has a token, so the TypeScript SDK, which then sends all three, means the same.
pub(super) fn presented(headers: &HeaderMap, account: &str) -> Result<Proof, Failure> {
    let email = headers.get("x-auth-email");
    let key = headers.get("x-auth-key");
    if let (Some(email), Some(key)) = (email, key) {
        // An address that is no text is no configured one; comparing its lossy form costs the same and fails.
        let email = String::from_utf8_lossy(email.as_bytes());
        return Ok(proof(account, Some(&email), Sha256::digest(key.as_bytes()).into()));
    }
    // Which of two counts is not for us to guess: a proxy may have checked the other one.
    if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err(denied());
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

pub(super) fn denied() -> Failure {
    Failure::new(Code::Authentication, "Authentication error")
}

async fn authenticate(
    parts: &Parts,
    path: &RawPathParams,
    state: &ApiState,
) -> Result<(AccountId, Role), Failure> {
    let account = path.iter().find(|(name, _)| *name == "account").map_or("", |(_, value)| value);
    let presented = match presented(&parts.headers, account) {
        Err(missing) if has_credential(&parts.headers) => return Err(missing),
        Err(missing) => {
            let of_account = |grant: &&Grant| grant.account.as_ref().is_some_and(|own| own.0 == account);
            let session = by_session(parts, state, Some(account)).ok_or(missing)?;
            // One that the session has not is compared too, and opens nothing.
            session.grants.iter().find(of_account).map_or([0; 96], |grant| grant.proof)
        }
        Ok(presented) => {
            opened_by_credential(parts, Some(account), presented);
            presented
        }
    };
    let terms = state.terms.now();
    let Some(role) = terms.accounts.role(&presented) else {
        return Err(refused(&terms.accounts, parts, account).await);
    };
    trail::known(parts, Some(account), &presented, role_name(role))?;
    admitted(parts, Some(account))?;
    let account = AccountId(account.to_owned());
    if terms.accounts.rates.may(&account, Instant::now()) {
        return Ok((account, role));
    }
    // So that refusals cost the host less than answers would.
    tokio::time::sleep(PENALTY).await;
    Err(Failure::new(
        Code::TooManyRequests,
        "your account asks more requests a second than it may (api.requests_per_second_max); wait a second, and ask less often",
    ))
}

/// The session that opens an account, or the host. Reading is no use of it: timers of open pages read too.
fn by_session(parts: &Parts, state: &ApiState, account: Option<&str>) -> Option<Session> {
    let session = state.ui.session(parts, false)?;
    if let (Some(opened), Some(id)) = (parts.extensions.get::<Opened>(), state.ui.session_id(parts)) {
        opened.by_session(id, account.map(|account| AccountId(account.to_owned())));
    }
    Some(session)
}

/// What a credential in a header opens ends with it, as what a session opens does.
fn opened_by_credential(parts: &Parts, account: Option<&str>, proof: Proof) {
    if let Some(opened) = parts.extensions.get::<Opened>() {
        let account = account.map(|account| AccountId(account.to_owned()));
        opened.by_credential(Grant { account, proof });
    }
}

/// The answer to a wrong credential.
pub(super) async fn refused(accounts: &Accounts, parts: &Parts, account: &str) -> Failure {
    // Only a request that came over no connection, as in tests of the routes, has no peer.
    match parts.extensions.get::<Peer>() {
        Some(peer) => {
            let audit = Trail::of(parts).map(|trail| trail.audit().clone());
            failed(&accounts.failures, *peer, account, audit).await
        }
        None => denied(),
    }
}

/// Notes that a request's credential of an account was right, or an operator's if none.
pub(super) fn admitted(parts: &Parts, account: Option<&str>) -> Result<(), Failure> {
    let Some(standing) = parts.extensions.get::<Arc<Standing>>() else { return Ok(()) };
    let is_admitted = match account {
        Some(account) => standing.credential_was_right(account),
        None => standing.operators_credential_was_right(OPERATOR),
    };
    if is_admitted {
        return Ok(());
    }
    Err(Failure::new(
        Code::TooManyConnections,
        "your account (api.connections_per_account_max), or all accounts together (api.connections_max), have as many connections \
         as they may, and all of yours are at work; wait for an answer, or let your clients share connections",
    ))
}

/// The answer to a wrong credential, once it has been counted and told.
async fn failed(failures: &Arc<Attempts>, peer: Peer, account: &str, audit: Option<Audit>) -> Failure {
    let verdict = failures.failed(peer, account, Instant::now());
    if verdict.is_told {
        journal().failure("authentication failed", account, peer.0.to_string());
        // What stands in a path is a stranger's text: quoted, and no longer than an account's id can be.
        let account: String = account.chars().take(ACCOUNT_CHARS_LOGGED).collect();
        if let Some(audit) = &audit {
            let (account, peer) = (Some(account.clone()), Some(peer.0.to_string()));
            let result = Outcome::Refused;
            audit.tell(Entry { account, peer, result, ..Entry::new("authentication.refuse") });
        }
        tracing::warn!(
            peer = %peer.0, ?account,
            "authentication failed; more failures within a minute are counted and told in one line"
        );
    }
    if verdict.begins {
        tokio::spawn(summarise(Arc::clone(failures), audit));
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

async fn summarise(failures: Arc<Attempts>, audit: Option<Audit>) {
    tokio::time::sleep(SUMMARY_AFTER).await;
    let Some(summary) = failures.summary() else { return };
    let peer = summary.last_peer.map(|peer| peer.to_string());
    let named: Vec<_> =
        summary.named.iter().map(|(account, times)| format!("{}: {times}", account.0)).collect();
    tracing::warn!(
        failures = summary.failures,
        limited = summary.limited,
        last_peer = ?peer,
        accounts = named.join(", "),
        "authentications failed in the last minute"
    );
    if let Some(audit) = audit {
        let about = json!({"failures": summary.failures, "limited": summary.limited, "accounts": named});
        let entry =
            Entry { peer: peer.clone(), result: Outcome::Refused, ..Entry::new("authentication.refuse") };
        audit.tell(entry.with(about));
    }
    for (account, times) in &summary.named {
        let message = format!("{times} authentications for this account failed within a minute");
        journal().failure(&message, &account.0, peer.clone().unwrap_or_default());
    }
}

/// The account of the path; the request carries a credential of it.
pub(super) struct Reader(pub(super) AccountId);

/// As [`Reader`], with the credential's role.
pub(super) struct Member(pub(super) AccountId, pub(super) Role);

/// Who may see the host.
pub(super) struct Operator;

/// As [`Reader`], and the credential may change things.
pub(super) struct Writer(pub(super) AccountId);

async fn access(parts: &mut Parts, state: &Arc<ApiState>) -> Result<(AccountId, Role), Failure> {
    // A path that is no text names no account of ours.
    let path = RawPathParams::from_request_parts(parts, state).await.map_err(|_| denied())?;
    authenticate(parts, &path, state).await
}

impl FromRequestParts<Arc<ApiState>> for Member {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        access(parts, state).await.map(|(account, role)| Self(account, role))
    }
}

impl FromRequestParts<Arc<ApiState>> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        let terms = state.terms.now();
        let is_operator = match presented(&parts.headers, "") {
            Err(missing) if has_credential(&parts.headers) => return Err(missing),
            Err(missing) => {
                let session = by_session(parts, state, None).ok_or(missing)?;
                session.grants.iter().any(|grant| terms.accounts.is_operator(grant))
            }
            Ok(presented) => {
                opened_by_credential(parts, None, presented);
                terms.accounts.has_operator(&presented)
            }
        };
        if !is_operator {
            return Err(refused(&terms.accounts, parts, OPERATOR).await);
        }
        admitted(parts, None).map(|()| Self)
    }
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
            (account, Role::Write) => {
                // Only a person changes something.
                if !has_credential(&parts.headers) {
                    let _used = state.ui.session(parts, true);
                }
                Ok(Self(account))
            }
            (_, Role::Read) => Err(Failure::new(
                Code::ReadOnly,
                "this credential may only read; use one with the role write",
            )),
        }
    }
}
