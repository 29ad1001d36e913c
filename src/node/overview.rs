//! A fleet as its operator sees it: its hosts, whether they live, who leads; and what he says of a host. Owns the look and the words of a
//! host's state; hosts and leads write what is seen.
//!
//! Invariant: a host of the registry is in it, also one that is silent.

use super::keys::{PARTITIONS, beat_subject, host_key, ops_key};
use super::wire::{Beat, HostRecord, OpsRecord, message, to_bytes};
use crate::bus::{Away, Bus, Entry, Table};
use crate::fleet::held::{Answer, Revision};
use crate::fleet::record::Claim;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It was heard.
    Alive,
    /// It said nothing while it was listened to.
    Silent,
    /// An operator took it out for good.
    Retired,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// Its name.
    pub host: String,
    /// Its data center.
    pub colo: String,
    /// How it stands.
    pub state: HostState,
    /// Whether it takes no new captures.
    pub is_draining: bool,
    /// Of trawl.
    pub version: String,
    /// Which of its lives.
    pub life: u64,
    /// Captures that it takes packets for, and parts of captures that are not done; as it said.
    pub running: usize,
    /// See `running`.
    pub parts: usize,
}

/// The fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetView {
    /// In order of data center and name.
    pub hosts: Vec<HostView>,
    /// How many of the partitions of captures each node leads, the most first.
    pub led: Vec<usize>,
    /// Of all partitions.
    pub partitions: usize,
}

/// Why an operator's word does not count.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The bus.
    #[error(transparent)]
    Away(#[from] Away),
    /// Nobody has that name.
    #[error("no host of the fleet is called {0:?}: `trawl fleet hosts` names them")]
    NoHost(String),
    /// It was not written, or may not have been.
    #[error("what is said of {0} could not be recorded; say it again")]
    NotRecorded(String),
}

/// Looks at the registry and the claims, and listens for so long at most, less if every host was heard.
///
/// # Errors
/// The bus is away, or this key may not look.
pub async fn look(bus: &dyn Bus, listening: Duration) -> Result<FleetView, Away> {
    let mut beats = bus.subscribe("hb.>");
    let until = Instant::now() + listening;
    let hosts = hosts(&bus.list(Table::Hosts, "").await?);
    let claims = bus.list(Table::Claims, "").await?;
    let mut heard: BTreeMap<String, Beat> = BTreeMap::new();
    let awaited = hosts.iter().filter(|(_, ops)| !ops.is_retired);
    let awaited: BTreeSet<String> = awaited.map(|(host, _)| beat_subject(&host.site)).collect();
    while !awaited.iter().all(|subject| heard.contains_key(subject)) {
        let Ok(Some(told)) = timeout_at(until, beats.recv()).await else { break };
        if let Some(beat) =
            message::<Beat>(&told.payload).filter(|beat| beat_subject(&beat.site) == told.subject)
        {
            heard.insert(told.subject, beat);
        }
    }
    let view = |(host, ops): (HostRecord, OpsRecord)| view(&host, ops, heard.get(&beat_subject(&host.site)));
    Ok(FleetView {
        hosts: hosts.into_iter().map(view).collect(),
        led: led(&claims),
        partitions: usize::from(PARTITIONS),
    })
}

fn view(host: &HostRecord, ops: OpsRecord, beat: Option<&Beat>) -> HostView {
    let beat = beat.filter(|beat| beat.spool_id == host.registered.identity.spool_id);
    let running = beat.map_or(0, |beat| beat.parts.iter().filter(|part| part.is_running).count());
    HostView {
        host: host.site.host().to_owned(),
        colo: host.site.colo().to_owned(),
        state: match (ops.is_retired, beat) {
            (true, _) => HostState::Retired,
            (false, Some(_)) => HostState::Alive,
            (false, None) => HostState::Silent,
        },
        is_draining: ops.is_draining,
        version: host.version.clone(),
        life: u64::from(host.registered.boot),
        running,
        parts: beat.map_or(0, |beat| beat.parts.len()),
    }
}

/// All hosts that are under their own key, with what is said of them.
fn hosts(entries: &[Entry]) -> Vec<(HostRecord, OpsRecord)> {
    let values: BTreeMap<&str, &[u8]> =
        entries.iter().filter_map(|entry| Some((entry.key.as_str(), entry.value.as_deref()?))).collect();
    let read = |(key, json): (&&str, &&[u8])| {
        let host =
            serde_json::from_slice::<HostRecord>(json).ok().filter(|host| host_key(&host.site) == **key)?;
        let ops = values.get(ops_key(&host.site).as_str());
        let ops = ops.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        Some((host, ops))
    };
    values.iter().filter_map(read).collect()
}

/// How many partitions each holder has, the most first.
fn led(claims: &[Entry]) -> Vec<usize> {
    let mut holders: BTreeMap<_, usize> = BTreeMap::new();
    for claim in
        claims.iter().filter_map(|entry| serde_json::from_slice::<Claim>(entry.value.as_deref()?).ok())
    {
        *holders.entry(claim.holder).or_default() += 1;
    }
    let mut led: Vec<usize> = holders.into_values().collect();
    led.sort_unstable_by(|one, other| other.cmp(one));
    led
}

/// Says that a host takes no new captures, or that it takes them again. What runs there ends as it would.
///
/// # Errors
/// [`OpsError`].
pub async fn drain(bus: &dyn Bus, host: &str, is_draining: bool) -> Result<(), OpsError> {
    let entries = bus.list(Table::Hosts, "").await?;
    let named = hosts(&entries).into_iter().filter(|(record, _)| record.site.host() == host);
    let mut is_there = false;
    for (record, ops) in named {
        is_there = true;
        let key = ops_key(&record.site);
        let revision =
            entries.iter().find(|entry| entry.key == key).map_or_else(Revision::default, |one| one.revision);
        let json = to_bytes(&OpsRecord { is_draining, ..ops });
        match bus.write(Table::Hosts, &key, revision, json).await {
            Answer::Wrote(_) => {}
            _ => return Err(OpsError::NotRecorded(record.site.host().to_owned())),
        }
    }
    if is_there { Ok(()) } else { Err(OpsError::NoHost(host.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::local::{Local, Shared};
    use crate::fleet::record::{Identity, Registered};
    use crate::job::Site;

    async fn register(bus: &Local, colo: &str, name: &str) -> Site {
        let identity = Identity { name: name.to_owned(), spool_id: 1 };
        let registered = Registered { identity, colo: 0, boot: 3, nonce: 1 };
        let site = Site::new(colo, name).unwrap();
        let record = HostRecord { registered, site: site.clone(), version: "1".to_owned() };
        let written = bus.write(Table::Hosts, &host_key(&site), Revision::default(), to_bytes(&record)).await;
        assert!(matches!(written, Answer::Wrote(_)));
        site
    }

    #[tokio::test]
    async fn a_host_that_says_nothing_is_silent_and_one_that_is_drained_says_so() {
        let bus = Local::new(&Shared::new());
        let alive = register(&bus, "ord02", "cap1").await;
        register(&bus, "fra01", "cap2").await;
        drain(&bus, "cap2", true).await.unwrap();
        assert!(matches!(drain(&bus, "cap3", true).await, Err(OpsError::NoHost(_))));
        let beat = Beat { site: alive.clone(), spool_id: 1, boot: 3, parts: Vec::new() };
        let saying = async {
            loop {
                bus.publish(&beat_subject(&alive), to_bytes(&beat)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let view = tokio::select! {
            view = look(&bus, Duration::from_millis(200)) => view.unwrap(),
            () = saying => unreachable!(),
        };
        let states: Vec<_> =
            view.hosts.iter().map(|one| (one.host.as_str(), one.state, one.is_draining)).collect();
        assert_eq!(states, [("cap2", HostState::Silent, true), ("cap1", HostState::Alive, false)]);
        drain(&bus, "cap2", false).await.unwrap();
        assert!(!look(&bus, Duration::ZERO).await.unwrap().hosts[0].is_draining);
    }
}
