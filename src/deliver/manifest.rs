//! The manifest: what was captured, what was lost, and what the objects must be. Owns its form and the objects' names; not
//! the check of objects against it.
//!
//! Invariant: a manifest that [`Manifest::parse`] takes names only its own capture's objects, in order, as plain file names.

use crate::job::{
    AccountId, CaptureId, ClockStates, ClockSteps, Kind, Ledger, LostStream, ObjectInfo, PartId, Site,
    StopReason,
};
use crate::matcher::FilterV1;
use crate::pcap::{Compression, Container, ObjectFormat};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The form that this program writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// Largest manifest that is read: a million objects' worth. What is larger is somebody else's, and memory.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// Name of object `index` of a part, from 0: `pcap_<id>.pcap`, `pcap_<id>_0001.pcap` and so on, with the ending of its
/// format. See [`PartId`] for names of hosts of a fleet.
#[must_use]
pub fn object_name(part: &PartId, index: u32, format: ObjectFormat) -> String {
    let (stem, extension) = (part.stem(), format.extension());
    match index {
        0 => format!("{stem}{extension}"),
        index => format!("{stem}_{index:04}{extension}"),
    }
}

/// The number of an object by its name; none if the name is not one of [`object_name`].
pub(super) fn object_number(name: &str) -> Option<u32> {
    PartId::parse(name).map(|(_, number)| number)
}

/// Name of a part's manifest.
#[must_use]
pub fn manifest_name(part: &PartId) -> String {
    format!("{}.json", part.stem())
}

/// Name of the signature of a part's manifest: 64 bytes, Ed25519.
#[must_use]
pub fn signature_name(part: &PartId) -> String {
    format!("{}.sig", manifest_name(part))
}

/// Name of the time stamp of a part's manifest: an authority's answer (RFC 3161).
#[must_use]
pub fn stamp_name(part: &PartId) -> String {
    format!("{}.tsr", manifest_name(part))
}

/// The limits that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds.
    pub time_limit: f64,
    /// Packets.
    pub packet_limit: Option<u64>,
    /// Captured frame bytes.
    pub byte_limit: Option<u64>,
}

/// Everything about a capture that its files do not say themselves. Stands beside them as `pcap_<id>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The capture.
    pub id: CaptureId,
    /// Whose capture it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The host that captured.
    pub host: String,
    /// Its data centre.
    pub colo: String,
    /// Whether the host is one of a fleet: this is its part of the capture, and the objects' names have data centre and host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
    /// `simple` or `full`.
    pub kind: Kind,
    /// As sent.
    pub filter_v1: FilterV1,
    /// As sent.
    pub limits: Limits,
    /// When the capture was accepted.
    pub submitted: Timestamp,
    /// When the first worker attached it; none if none did.
    pub started: Option<Timestamp>,
    /// When the last worker detached it.
    pub ended: Option<Timestamp>,
    /// Why it stopped taking packets.
    pub stop_reason: Option<StopReason>,
    /// Whether every frame that the filter took within the limits is in the objects: nothing lost in ports, blocks or spool. Never
    /// of ports that do not count what they lose (`ledger.port.uncounted`).
    pub complete: bool,
    /// Snap length of the objects in bytes.
    pub snaplen: u32,
    /// What the objects are.
    #[serde(default)]
    pub format: Container,
    /// What they are compressed by; their `content` says what they unpack to.
    #[serde(default)]
    pub compression: Compression,
    /// The objects, in order of time.
    pub objects: Vec<ObjectInfo>,
    /// The counts.
    pub ledger: Ledger,
    /// RX queues that the counts are the sum of.
    pub queues: u32,
    /// Whether the process died and another one delivered. `captured` is then what is in the objects; of frames after
    /// `counted_until`, those that the filter did not take, those that ports lost, and those that were in memory when the
    /// process died are not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// See `recovered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_until: Option<Timestamp>,
    /// One in so many packets was considered; every one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_one_in: Option<u32>,
    /// Steps of the wall clock while packets were taken, if there were any: the objects' time stamps are those of the clock
    /// before, while `started` and `ended` are of their moments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_steps: Option<ClockSteps>,
    /// Queues of which a part is missing, because the disk that they were written to failed or was full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_streams: Vec<LostStream>,
    /// What the kernel said of the wall clock when the capture began and ended; none if it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStates>,
    /// What a look back was asked for, as sent; the window is `started` to `ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_time: Option<String>,
}

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the form.
    #[error("not a manifest of a capture: {0}")]
    Form(#[from] serde_json::Error),
    /// Another version's form.
    #[error("manifest version {found} is not known; this program reads version {MANIFEST_VERSION}")]
    Version {
        /// As written.
        found: u32,
    },
    /// The id is not one.
    #[error("capture id {id:?} is not 32 lower-case hexadecimal digits")]
    Id {
        /// As written.
        id: String,
    },
    /// A part of a host that cannot be one.
    #[error("data centre {colo:?} and host {host:?} name no host of a fleet")]
    Site {
        /// As written.
        colo: String,
        /// As written.
        host: String,
    },
    /// An object has a name that is not its own.
    #[error("object {index} is named {found:?} and must be named {expected:?}")]
    Name {
        /// Its number, from 0.
        index: usize,
        /// As written.
        found: String,
        /// What it must be.
        expected: String,
    },
}

impl Manifest {
    /// Reads a manifest and holds its names against its id.
    ///
    /// # Errors
    /// [`ManifestError`] says what is not as it must be.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version alone first: a later form may have members that this one must refuse.
        let Version { version: found } = serde_json::from_slice(json)?;
        if found != MANIFEST_VERSION {
            return Err(ManifestError::Version { found });
        }
        let manifest: Self = serde_json::from_slice(json)?;
        if CaptureId::parse(manifest.id.as_str()).is_none() {
            return Err(ManifestError::Id { id: manifest.id.to_string() });
        }
        let part = manifest.part();
        if part.site.is_some() != manifest.is_part {
            return Err(ManifestError::Site { colo: manifest.colo, host: manifest.host });
        }
        for (index, object) in (0u32..).zip(&manifest.objects) {
            let expected = object_name(&part, index, manifest.object_format());
            if object.name != expected {
                return Err(ManifestError::Name {
                    index: index as usize,
                    found: object.name.clone(),
                    expected,
                });
            }
        }
        Ok(manifest)
    }

    /// What it is the manifest of, as the names of its objects say.
    #[must_use]
    pub fn part(&self) -> PartId {
        let site = self.is_part.then(|| Site::new(&self.colo, &self.host)).flatten();
        PartId { capture: self.id.clone(), site }
    }

    /// What its objects' names end with.
    fn object_format(&self) -> ObjectFormat {
        ObjectFormat { container: self.format, compression: self.compression, ..ObjectFormat::default() }
    }

    /// The text that goes into the bucket.
    ///
    /// # Errors
    /// Never in practice: every member has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A capture of nothing, to build upon.
    pub(crate) fn empty(id: &CaptureId) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            id: id.clone(),
            account: None,
            host: "cap1".to_owned(),
            colo: "ord02".to_owned(),
            is_part: false,
            kind: Kind::Full,
            filter_v1: FilterV1::default(),
            limits: Limits { time_limit: 300.0, packet_limit: Some(10_000), byte_limit: None },
            submitted: "2026-11-24T06:00:00Z".parse().unwrap(),
            started: Some("2026-11-24T06:00:00.000001Z".parse().unwrap()),
            ended: Some("2026-11-24T06:05:00Z".parse().unwrap()),
            stop_reason: Some(StopReason::TimeLimit),
            complete: true,
            snaplen: 262_144,
            format: Container::Pcap,
            compression: Compression::None,
            objects: Vec::new(),
            ledger: Ledger::default(),
            queues: 1,
            recovered: false,
            counted_until: None,
            sample_one_in: None,
            clock_steps: None,
            lost_streams: Vec::new(),
            clock: None,
            offset_time: None,
        }
    }

    fn object(name: String) -> ObjectInfo {
        ObjectInfo { name, bytes: 24, sha256: "0".repeat(64), ..ObjectInfo::default() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let id = CaptureId::random();
        let mut manifest = empty(&id);
        manifest.account = Some(AccountId("023e".to_owned()));
        manifest.objects = (0..2)
            .map(|index| object(object_name(&manifest.part(), index, ObjectFormat::default())))
            .collect();
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
        assert_eq!(manifest.objects[1].name, format!("pcap_{id}_0001.pcap"));
        assert!(!String::from_utf8(manifest.to_json().unwrap()).unwrap().contains("is_part"));
    }

    #[test]
    fn the_manifest_of_a_part_names_its_own_objects_and_no_other_host_s() {
        let id = CaptureId::random();
        let mut manifest = Manifest { is_part: true, ..empty(&id) };
        assert_eq!(manifest_name(&manifest.part()), format!("pcap_{id}_ord02_cap1.json"));
        manifest.objects = vec![object(format!("pcap_{id}_ord02_cap1.pcap"))];
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
        for name in ["", "_ord02_cap2", "_ord03_cap1", "_cap1"] {
            manifest.objects = vec![object(format!("pcap_{id}{name}.pcap"))];
            let error = Manifest::parse(&manifest.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, ManifestError::Name { .. }), "{error}");
        }
        for host in ["../cap1", "0001"] {
            let manifest = Manifest { host: host.to_owned(), ..manifest.clone() };
            let error = Manifest::parse(&manifest.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, ManifestError::Site { .. }), "{error}");
        }
    }

    #[test]
    fn another_version_is_named_before_its_members_are_refused() {
        let error = Manifest::parse(br#"{"version": 2, "new": true}"#).unwrap_err();
        assert!(matches!(error, ManifestError::Version { found: 2 }), "{error}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let mut manifest = empty(&CaptureId::random());
        manifest.objects = vec![object("../../etc/shadow".to_owned())];
        assert!(matches!(Manifest::parse(&manifest.to_json().unwrap()), Err(ManifestError::Name { .. })));
    }

    #[test]
    fn members_and_stop_reasons_of_a_newer_program_are_passed_over() {
        let manifest = empty(&CaptureId::random());
        let json = String::from_utf8(manifest.to_json().unwrap()).unwrap();
        let json = json
            .replace("\"queues\"", "\"more\": 1, \"queues\"")
            .replace("\"imissed\"", "\"more\": 1, \"imissed\"");
        assert_eq!(Manifest::parse(json.as_bytes()).unwrap(), manifest);
        let json = json.replace("\"time_limit\",", "\"reason_of_tomorrow\",");
        let read = Manifest::parse(json.as_bytes()).unwrap();
        assert_eq!(read.stop_reason, Some(StopReason::Unknown));
    }

    #[test]
    fn an_objects_name_tells_its_number() {
        let id = CaptureId::random();
        for number in [0, 1, 9_999, 10_000, 402_000] {
            for container in [Container::Pcap, Container::PcapNg] {
                let format = ObjectFormat { container, ..ObjectFormat::default() };
                assert_eq!(object_number(&object_name(&PartId::alone(&id), number, format)), Some(number));
            }
        }
        assert_eq!(object_number("pcap_x.pcap").or(object_number("other")), None);
    }
}
