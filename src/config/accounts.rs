//! Accounts and their credentials, validated. Owns the rules about both.
//!
//! Invariant: no message repeats a hash, because somebody may have written the secret in its place.

use super::file;
use super::plan::Account;
use super::rules::Rules;
use crate::api::{Credential, Role, Secret};
use crate::job::AccountId;
use ipnet::IpNet;
use std::collections::HashSet;

/// Longest account id that the API's paths take.
const ACCOUNT_ID_CHARS_MAX: usize = 32;

pub(super) fn resolve(rules: &mut Rules, accounts: &[file::Account]) -> Vec<Account> {
    let mut ids = HashSet::new();
    let mut plans = Vec::with_capacity(accounts.len());
    for (at, account) in accounts.iter().enumerate() {
        let key = format!("account[{at}]");
        let id = &account.id;
        let legal = (1..=ACCOUNT_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !legal {
            rules.wrong(format!("{key}.id"), format!("{id:?}"), "write 1 to 32 letters, digits, - or _");
        } else if !ids.insert(id.as_str()) {
            rules.wrong(
                format!("{key}.id"),
                format!("{id:?}"),
                "an earlier [[account]] has this id; merge the two",
            );
        }
        let prefixes = account.prefixes.iter().enumerate();
        let prefixes =
            prefixes.filter_map(|(n, text)| prefix(rules, format!("{key}.prefixes[{n}]"), text)).collect();
        plans.push(Account {
            id: AccountId(id.clone()),
            prefixes,
            credentials: credentials(rules, &key, &account.credential),
        });
    }
    plans
}

/// SHA-256 of the operators' tokens.
pub(super) fn operators(rules: &mut Rules, operators: &[file::Operator]) -> Vec<[u8; 32]> {
    let hashes = operators.iter().enumerate();
    hashes
        .filter_map(|(at, one)| hash(rules, format!("operator[{at}].token_sha256"), &one.token_sha256))
        .collect()
}

/// Host bits are refused, not cut off: cutting would show the account more than somebody meant to.
pub(super) fn prefix(rules: &mut Rules, key: String, text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Some(net),
        Ok(net) => {
            let advice = format!(
                "bits are set behind the prefix; write {} or {}/{}",
                net.trunc(),
                net.addr(),
                net.max_prefix_len()
            );
            rules.wrong(key, format!("{text:?}"), advice);
            None
        }
        Err(_) => {
            let advice = "write address/length, such as \"192.0.2.0/24\", \"2001:db8::/32\" or, for one host, \"192.0.2.1/32\"";
            rules.wrong(key, format!("{text:?}"), advice);
            None
        }
    }
}

fn credentials(rules: &mut Rules, account: &str, credentials: &[file::Credential]) -> Vec<Credential> {
    if credentials.is_empty() {
        let advice = "nobody could use this account; add an [[account.credential]] with token_sha256, or email and key_sha256";
        rules.wrong(format!("{account}.credential"), "[]", advice);
    }
    let mut plans: Vec<Credential> = Vec::with_capacity(credentials.len());
    for (at, credential) in credentials.iter().enumerate() {
        let key = format!("{account}.credential[{at}]");
        let choices = [("write", Role::Write), ("read", Role::Read)];
        let role = rules.choice(&format!("{key}.role"), &credential.role, &choices);
        let Some(secret) = secret(rules, &key, credential) else { continue };
        if plans.iter().any(|other| other.secret == secret) {
            rules.wrong(&key, "(not shown)", "this account has the credential already; remove one");
        }
        plans.push(Credential { secret, role });
    }
    plans
}

fn secret(rules: &mut Rules, key: &str, credential: &file::Credential) -> Option<Secret> {
    match (&credential.email, &credential.key_sha256, &credential.token_sha256) {
        (Some(email), Some(sha256), None) => {
            if !email.contains('@') || email.contains(char::is_whitespace) {
                rules.wrong(format!("{key}.email"), format!("{email:?}"), "write an e-mail address");
            }
            let key_sha256 = hash(rules, format!("{key}.key_sha256"), sha256)?;
            Some(Secret::Key { email: email.clone(), key_sha256 })
        }
        (None, None, Some(sha256)) => {
            Some(Secret::Token { token_sha256: hash(rules, format!("{key}.token_sha256"), sha256)? })
        }
        given => {
            let names = [
                given.0.is_some().then_some("email"),
                given.1.is_some().then_some("key_sha256"),
                given.2.is_some().then_some("token_sha256"),
            ];
            let names: Vec<&str> = names.into_iter().flatten().collect();
            let given = if names.is_empty() { "{}".to_owned() } else { format!("{{{}}}", names.join(", ")) };
            rules.wrong(key, given, "give either email and key_sha256, or token_sha256 alone");
            None
        }
    }
}

fn hash(rules: &mut Rules, key: String, text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex {
        let advice = "write the SHA-256 as 64 hexadecimal digits, never the secret itself: printf %s \"$SECRET\" | sha256sum";
        rules.wrong(key, format!("({} characters, not shown)", text.chars().count()), advice);
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}
