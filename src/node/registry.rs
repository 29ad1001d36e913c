//! The hosts of a fleet as its registry has them. Owns the reading of it and who is meant by a data center's name; hosts write
//! themselves into it.
//!
//! Invariant: a host is in it until an operator takes it out, also while it is silent, and an entry counts only under its own key.

use super::keys::{host_key, ops_key};
use super::wire::{HostRecord, OpsRecord};
use crate::bus::Entry;
use crate::fleet::record::Registered;
use std::collections::BTreeMap;

/// Those that take new captures, in order of data center and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    hosts: Vec<HostRecord>,
    /// Every data center of a host that is not retired.
    colos: Vec<String>,
}

impl Registry {
    /// Of all records of the table.
    pub fn of(entries: &[Entry]) -> Self {
        let records: BTreeMap<&str, &[u8]> =
            entries.iter().filter_map(|entry| Some((entry.key.as_str(), entry.value.as_deref()?))).collect();
        let mut found: Vec<(HostRecord, OpsRecord)> = Vec::new();
        for (key, json) in &records {
            let Ok(host) = serde_json::from_slice::<HostRecord>(json) else { continue };
            let identity = &host.registered.identity;
            if host_key(&host.site) != *key || identity.name != host.site.host() {
                continue;
            }
            let ops = records.get(ops_key(&host.site).as_str());
            let ops = ops.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
            found.push((host, ops));
        }
        found.retain(|(_, ops)| !ops.is_retired);
        found.sort_by(|(one, _), (other, _)| one.site.cmp(&other.site));
        let mut colos: Vec<String> = found.iter().map(|(host, _)| host.site.colo().to_owned()).collect();
        colos.dedup();
        let mut hosts: Vec<HostRecord> =
            found.into_iter().filter(|(_, ops)| !ops.is_draining).map(|(host, _)| host).collect();
        // Parts are told from each other by the host's name alone, so the second of a name takes no part.
        let mut names = std::collections::BTreeSet::new();
        hosts.retain(|host| {
            let is_first = names.insert(host.site.host().to_owned());
            if !is_first {
                tracing::warn!(
                    host = host.site.host(),
                    colo = host.site.colo(),
                    "two hosts of the fleet have one name; this one takes no part"
                );
            }
            is_first
        });
        Self { hosts, colos }
    }

    /// Every data center.
    pub fn colos(&self) -> &[String] {
        &self.colos
    }

    /// Those whose data center begins with this name, in whatever case; all if none is named.
    pub fn matching(&self, colo: Option<&str>) -> Vec<&HostRecord> {
        self.hosts.iter().filter(|host| colo.is_none_or(|colo| is_of(host.site.colo(), colo))).collect()
    }

    /// As a lead takes up a capture: the hosts, with their data centers by number, and these by name.
    pub fn numbered(&self, colo: Option<&str>) -> (Vec<Registered>, Vec<String>) {
        let hosts = self.matching(colo);
        let mut colos: Vec<String> = hosts.iter().map(|host| host.site.colo().to_owned()).collect();
        colos.dedup();
        let number = |host: &&HostRecord| colos.iter().position(|colo| colo == host.site.colo());
        let registered = hosts
            .iter()
            .map(|host| Registered { colo: number(host).unwrap_or(0) as u32, ..host.registered.clone() });
        (registered.collect(), colos)
    }
}

/// Whether a data center is meant by a name.
pub(super) fn is_of(colo: &str, name: &str) -> bool {
    !name.is_empty() && colo.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::held::Revision;
    use crate::fleet::record::Identity;
    use crate::job::Site;
    use crate::node::wire::to_bytes;

    fn host(colo: &str, name: &str) -> HostRecord {
        let identity = Identity { name: name.to_owned(), spool_id: 1 };
        let registered = Registered { identity, colo: 0, boot: 1, nonce: 1 };
        HostRecord { registered, site: Site::new(colo, name).unwrap(), version: String::new() }
    }

    fn entry(key: &str, value: Vec<u8>) -> Entry {
        Entry { key: key.to_owned(), revision: Revision::default(), value: Some(value) }
    }

    #[test]
    fn a_host_is_under_its_own_key_until_it_is_retired_and_a_draining_one_takes_nothing_new() {
        let ops = |is_draining, is_retired| to_bytes(&OpsRecord { is_draining, is_retired });
        let registry = Registry::of(&[
            entry("ord03.cap3", to_bytes(&host("ord03", "cap3"))),
            entry("ord02.cap2", to_bytes(&host("ord02", "cap2"))),
            entry("ord02.cap1", to_bytes(&host("ord02", "cap1"))),
            entry("ord02.cap4", to_bytes(&host("ord02", "cap9"))),
            entry("fra01.cap5", to_bytes(&host("fra01", "cap5"))),
            entry("fra01.cap5.ops", ops(true, false)),
            entry("sin01.cap6", to_bytes(&host("sin01", "cap6"))),
            entry("sin01.cap6.ops", ops(false, true)),
            entry("sin01.cap1", to_bytes(&host("sin01", "cap1"))),
            entry("sin01.cap7", b"{".to_vec()),
        ]);
        let names = |colo| -> Vec<&str> {
            registry.matching(colo).into_iter().map(|host| host.site.host()).collect()
        };
        assert_eq!(names(None), ["cap1", "cap2", "cap3"]);
        assert_eq!((names(Some("ORD")), names(Some("ord03"))), (vec!["cap1", "cap2", "cap3"], vec!["cap3"]));
        assert!(
            names(Some("x")).is_empty() && names(Some("ord021")).is_empty() && names(Some("")).is_empty()
        );
        assert_eq!(registry.colos(), ["fra01", "ord02", "ord03", "sin01"]);
        let (hosts, colos) = registry.numbered(Some("ord"));
        assert_eq!(colos, ["ord02", "ord03"]);
        assert_eq!(hosts.iter().map(|host| host.colo).collect::<Vec<_>>(), [0, 0, 1]);
    }
}
