//! The manifest of a capture that many hosts took together (version 2), read: which hosts are in it, and the check of their parts. Owns
//! this reading; who writes it is `node`'s.
//!
//! ```text
//!  pcap_<id>.json ─▶ hosts ─▶ pcap_<id>_<colo>_<host>.json ─▶ its objects
//!                └─▶ objects (of a simple capture: one file)
//! ```
//!
//! Invariant: what a host's own manifest says counts only as far as the whole says the same.

use super::manifest::{ManifestError, manifest_name};
use super::verify::{
    Finding, Place, Step, Verified, VerifyError, Wanted, examine, read_text, signed, verify_at,
};
use crate::job::{AccountId, CaptureId, Kind, Ledger, ObjectInfo, PartId};
use crate::pcap::{Compression, Container};
use serde::Deserialize;
use std::io;

/// The form of such a manifest. Version 1 is one host's.
pub const WHOLE_VERSION: u32 = 2;

/// What is read of it. Members that are not known here are of no matter to the check.
#[derive(Clone, Debug, Deserialize)]
pub struct Whole {
    /// The fleet.
    pub fleet: String,
    /// The capture.
    pub id: CaptureId,
    /// Whose it is.
    pub account: AccountId,
    /// Its kind.
    pub kind: Kind,
    /// Every host's packets are there, of the whole window.
    pub complete: bool,
    /// Every host that was to capture.
    pub hosts: Vec<WholeHost>,
    /// The sum of the hosts whose packets are delivered.
    pub ledger: Ledger,
    /// Files of a simple capture.
    pub objects: Vec<ObjectInfo>,
}

/// A host.
#[derive(Clone, Debug, Deserialize)]
pub struct WholeHost {
    /// Its name.
    pub host: String,
    /// Its data center.
    pub colo: String,
    /// What became of its part.
    pub verdict: Option<String>,
    /// Its counts, if its packets are delivered.
    pub ledger: Option<Ledger>,
    /// Its own manifest's name.
    pub manifest: Option<String>,
}

impl WholeHost {
    /// Whether its packets are in the capture.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.verdict.as_deref() == Some("Delivered")
    }
}

/// The result of a check.
#[derive(Debug)]
pub struct WholeVerified {
    /// The manifest.
    pub whole: Whole,
    /// The hosts' parts.
    pub parts: Vec<Verified>,
    /// Packets in the objects found.
    pub packets: u64,
    /// What is wrong with the whole, beside what is wrong with a part.
    pub findings: Vec<Finding>,
}

impl WholeVerified {
    /// All that is wrong.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.findings.len() + self.parts.iter().map(|part| part.findings.len()).sum::<usize>()
    }
}

/// The manifest of that name with its text, if it is there and of this version.
///
/// # Errors
/// [`VerifyError`] when it cannot be read, or is of another capture than its name says.
pub fn read_whole(place: &dyn Place, name: &str) -> Result<Option<(Whole, Vec<u8>)>, VerifyError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let json = match read_text(place, name) {
        Ok(json) => json,
        Err(VerifyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_whole = |version: Version| version.version == WHOLE_VERSION;
    if !serde_json::from_slice(&json).is_ok_and(is_whole) {
        return Ok(None);
    }
    let wrong = |source: serde_json::Error| VerifyError::Manifest {
        path: place.path(name),
        source: ManifestError::from(source),
    };
    let whole: Whole = serde_json::from_slice(&json).map_err(wrong)?;
    let expected = manifest_name(&PartId::alone(&whole.id));
    match name == expected {
        true => Ok(Some((whole, json))),
        false => Err(VerifyError::Name { path: place.path(name), id: whole.id, expected }),
    }
}

/// Checks the whole and the parts of all hosts that it names. A key must have signed the whole; what hosts signed by keys of their own
/// is not asked, because their ledgers must be those of the whole.
///
/// # Errors
/// As [`read_whole`]; so also when it is not there.
pub fn verify_whole(
    place: &dyn Place,
    name: &str,
    wanted: &Wanted<'_>,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Option<WholeVerified>, VerifyError> {
    let Some((whole, json)) = read_whole(place, name)? else { return Ok(None) };
    let part = PartId::alone(&whole.id);
    let mut findings: Vec<Finding> =
        wanted.key.and_then(|key| signed(place, &part, &json, key)).into_iter().collect();
    let (mut parts, mut packets, mut sum) = (Vec::new(), 0, Ledger::default());
    for host in whole.hosts.iter().filter(|host| host.is_delivered()) {
        sum = sum.plus(host.ledger.unwrap_or_default());
        let Some(name) = &host.manifest else { continue };
        match verify_at(place, name, &Wanted::default(), watch) {
            Ok(verified) => {
                packets += verified.packets;
                if Some(verified.manifest.ledger) != host.ledger {
                    let why =
                        "has another ledger than the manifest over all hosts has for this one".to_owned();
                    findings.push(Finding::Part { name: name.clone(), why });
                }
                parts.push(verified);
            }
            // A host that saw no packet has nothing to deliver.
            Err(_) if host.ledger.is_some_and(|ledger| ledger.captured == 0) => {}
            Err(error) => findings.push(Finding::Part { name: name.clone(), why: error.to_string() }),
        }
    }
    let is_simple = whole.kind == Kind::Simple;
    if is_simple {
        packets += files(place, &whole, &mut findings, watch);
        sum = Ledger { captured: whole.ledger.captured, ..sum };
    }
    let ledger = &whole.ledger;
    if packets != ledger.captured {
        findings.push(Finding::Sum { what: "packets", held: packets, expected: ledger.captured });
    }
    // What was left out of the one file of a simple capture is counted once more, by the whole alone.
    if !is_simple && sum != *ledger {
        findings.push(Finding::HostSum);
    }
    if let Err(imbalance) = ledger.check() {
        findings.push(imbalance.into());
    }
    Ok(Some(WholeVerified { whole, parts, packets, findings }))
}

/// Checks the files of a simple capture; says how many packets they have.
fn files(
    place: &dyn Place,
    whole: &Whole,
    findings: &mut Vec<Finding>,
    watch: &mut dyn FnMut(Step<'_>),
) -> u64 {
    let mut packets = 0;
    for object in &whole.objects {
        let from = findings.len();
        // A name that is not the capture's own may lead anywhere.
        match PartId::parse(&object.name) {
            Some((part, _)) if part == PartId::alone(&whole.id) => {}
            _ => {
                findings.push(Finding::Foreign { name: object.name.clone() });
                continue;
            }
        }
        let format = (Container::default(), Compression::default());
        let found = examine(place, format, object, findings, watch);
        packets += found.map_or(0, |found| found.packets);
        watch(Step::Object(object, &findings[from..]));
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::super::verify::Directory;
    use super::*;
    use crate::deliver::{Manifest, empty_manifest};
    use std::fs;
    use std::path::Path;

    fn part(dir: &Path, id: &CaptureId, host: &str) -> Manifest {
        let part = Manifest { is_part: true, host: host.to_owned(), ..empty_manifest(id) };
        fs::write(dir.join(manifest_name(&part.part())), part.to_json().unwrap()).unwrap();
        part
    }

    fn whole(id: &CaptureId, parts: &[&Manifest], more: &str) -> String {
        let ledger = |part: &Manifest| serde_json::to_string(&part.ledger).unwrap();
        let hosts: Vec<String> = parts
            .iter()
            .map(|one| {
                format!(
                    r#"{{"host":"{}","colo":"{}","verdict":"Delivered","ledger":{},"manifest":"{}"}}"#,
                    one.host,
                    one.colo,
                    ledger(one),
                    manifest_name(&one.part())
                )
            })
            .collect();
        let sum = parts.iter().fold(Ledger::default(), |sum, one| sum.plus(one.ledger));
        format!(
            r#"{{"version":2,"later":1,"fleet":"prod","id":"{id}","account":"a","kind":"full","complete":false,
                "hosts":[{}{more}],"ledger":{},"objects":[]}}"#,
            hosts.join(","),
            serde_json::to_string(&sum).unwrap()
        )
    }

    #[test]
    fn a_whole_is_verified_with_the_parts_of_its_hosts_and_names_who_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let id = CaptureId::random();
        let (one, other) = (part(dir.path(), &id, "cap1"), part(dir.path(), &id, "cap2"));
        let path = dir.path().join(manifest_name(&PartId::alone(&id)));
        let lost = r#",{"host":"cap3","colo":"fra01","verdict":"Lost"}"#;
        fs::write(&path, whole(&id, &[&one, &other], lost)).unwrap();
        let check = || {
            let (place, name) = Directory::of(&path);
            verify_whole(&place, &name, &Wanted::default(), &mut |_| ()).unwrap().unwrap()
        };
        let verified = check();
        assert_eq!((verified.faults(), verified.parts.len(), verified.whole.hosts.len()), (0, 2, 3));
        // A part that says other counts than the whole, a sum that is none, and one that is gone and had packets.
        let mut other = one.clone();
        other.ledger.offered += 1;
        fs::write(&path, whole(&id, &[&other], "")).unwrap();
        assert!(matches!(check().findings[0], Finding::Part { .. }), "{:?}", check().findings);
        let text = whole(&id, &[&one], "").replacen("\"offered\":", "\"offered\":1", 1);
        fs::write(&path, text).unwrap();
        assert!(check().findings.iter().any(|one| matches!(one, Finding::HostSum | Finding::Part { .. })));
    }

    #[test]
    fn a_manifest_of_one_host_is_no_whole_and_one_under_another_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let id = CaptureId::random();
        let name = manifest_name(&part(dir.path(), &id, "cap1").part());
        let (place, name) = Directory::of(&dir.path().join(name));
        assert!(read_whole(&place, &name).unwrap().is_none());
        assert!(read_whole(&place, "pcap_none.json").unwrap().is_none());
        let other = manifest_name(&PartId::alone(&CaptureId::random()));
        fs::write(dir.path().join(&other), whole(&id, &[], "")).unwrap();
        assert!(matches!(read_whole(&place, &other), Err(VerifyError::Name { .. })));
    }
}
