//! Under which keys records stand, and on which subjects messages go. Owns these names, made and read; not what stands there.
//!
//! Invariant: no two records have one key, whatever accounts and hosts are called.

use crate::bus::Table;
use crate::fleet::held::{Answer, Revision};
use crate::fleet::record::{Key, Record};
use crate::job::{AccountId, CaptureId, Site};

/// Partitions of the captures, each led by one node.
pub(super) const PARTITIONS: u8 = 64;

/// The partition of a capture: the first six bits of its id.
pub(super) fn partition(id: &CaptureId) -> u8 {
    id.as_str().get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).map_or(0, |bits| bits >> 2)
}

/// As it stands in keys and subjects.
pub(super) fn partition_name(partition: u8) -> String {
    format!("p{partition:02}")
}

/// An account as it stands in keys, which have no capitals: they and `_` stand behind a `_`.
pub(super) fn account_key(account: &AccountId) -> String {
    let mut key = String::with_capacity(account.0.len());
    for c in account.0.chars() {
        if c.is_ascii_uppercase() || c == '_' {
            key.push('_');
        }
        key.push(c.to_ascii_lowercase());
    }
    key
}

/// A capture's own record.
pub(super) fn job_key(account: &AccountId, id: &CaptureId) -> String {
    format!("{}.{id}", account_key(account))
}

/// The capture of such a key.
pub(super) fn id_of_job_key(key: &str) -> Option<CaptureId> {
    CaptureId::parse(key.rsplit_once('.')?.1)
}

/// Who is who in a capture, where records are numbered.
pub(super) trait Names {
    /// The name of a data center.
    fn colo(&self, colo: u32) -> Option<&str>;
    /// The name of a host.
    fn host(&self, host: u32) -> Option<&str>;
}

/// Where a record of a capture stands. None for one that is not of a capture, or of hosts that it does not have.
pub(super) fn place(
    key: Key,
    account: &AccountId,
    id: &CaptureId,
    names: &impl Names,
) -> Option<(Table, String)> {
    Some(match key {
        Key::Job => (Table::Jobs, job_key(account, id)),
        Key::Pool => (Table::Shares, id.to_string()),
        Key::Shares(colo) => (Table::Shares, format!("{id}.{}", names.colo(colo)?)),
        Key::Assignment(colo) => (Table::Assignments, assignment_key(names.colo(colo)?, id)),
        Key::Part(host) => (Table::Parts, part_key(id, names.host(host)?)),
        Key::Chunk(host, chunk) => (Table::Parts, chunk_key(id, names.host(host)?, chunk)),
        Key::Parts(colo) => (Table::Parts, format!("{id}.all.{}", names.colo(colo)?)),
        Key::Lead | Key::Branch(_) | Key::Registered(_) => return None,
    })
}

/// What the hosts of a data center are told.
pub(super) fn assignment_key(colo: &str, id: &CaptureId) -> String {
    format!("{colo}.{id}")
}

/// A host's part.
pub(super) fn part_key(id: &CaptureId, host: &str) -> String {
    format!("{id}.{host}")
}

/// Some of the packets that a host gives.
pub(super) fn chunk_key(id: &CaptureId, host: &str, chunk: u32) -> String {
    format!("{id}.{host}.{chunk}")
}

/// The capture and the host of a part's key; none of other records of the table.
pub(super) fn of_part_key(key: &str) -> Option<(CaptureId, &str)> {
    let (id, host) = key.split_once('.')?;
    (!host.contains('.')).then_some((CaptureId::parse(id)?, host))
}

/// A host of the registry.
pub(super) fn host_key(site: &Site) -> String {
    format!("{}.{}", site.colo(), site.host())
}

/// What operators say of a host.
pub(super) fn ops_key(site: &Site) -> String {
    format!("{}.ops", host_key(site))
}

/// Where a host tells that it lives.
pub(super) fn beat_subject(site: &Site) -> String {
    format!("hb.{}.{}", site.colo(), site.host())
}

/// Where a host tells the lead of a capture something.
pub(super) fn lead_subject(id: &CaptureId, host: &str) -> String {
    format!("lead.{}.{host}", partition_name(partition(id)))
}

/// The same answer with the record that it has. One that cannot be read is as good as unavailable: nobody decides by it.
pub(super) fn decoded(
    answer: Answer<Vec<u8>>,
    read: impl FnOnce(Revision, &[u8]) -> Option<Record>,
) -> Answer<Record> {
    match answer {
        Answer::Read(revision, None) => Answer::Read(revision, None),
        Answer::Read(revision, Some(json)) => match read(revision, &json) {
            Some(record) => Answer::Read(revision, Some(record)),
            None => Answer::Unavailable,
        },
        Answer::Wrote(revision) => Answer::Wrote(revision),
        Answer::Stale => Answer::Stale,
        Answer::Uncertain => Answer::Uncertain,
        Answer::Unavailable => Answer::Unavailable,
    }
}

/// Where a host is told something.
pub(super) fn host_subject(host: &str) -> String {
    format!("host.{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_accounts_have_two_keys(one in "[A-Za-z0-9_-]{1,8}", other in "[A-Za-z0-9_-]{1,8}") {
            let key = |account: &str| account_key(&AccountId(account.to_owned()));
            prop_assert_eq!(key(&one) == key(&other), one == other);
            let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            prop_assert!(key(&one).chars().all(is_label));
        }
    }

    #[test]
    fn a_part_s_key_tells_its_capture_and_host_and_a_chunk_s_none() {
        let id = CaptureId::random();
        assert_eq!(of_part_key(&part_key(&id, "cap1")), Some((id.clone(), "cap1")));
        assert_eq!(of_part_key(&chunk_key(&id, "cap1", 0)), None);
        let account = AccountId("A".to_owned());
        assert_eq!(id_of_job_key(&job_key(&account, &id)), Some(id.clone()));
        assert!(partition(&id) < PARTITIONS);
        let last = CaptureId::parse("ffffffffffffffffffffffffffffffff").unwrap();
        assert_eq!((partition(&last), partition_name(63)), (63, "p63".to_owned()));
    }
}
