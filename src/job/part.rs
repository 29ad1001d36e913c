//! Names of what a host writes of a capture into its store. Owns the form of these names, made and read; not what stands under them.
//!
//! A host that stands alone writes `pcap_<id>.pcap`, `pcap_<id>_0001.pcap` and `pcap_<id>.json`. Each host of a fleet writes a part of
//! the capture, and its names have its data center and its own name too: `pcap_<id>_<colo>_<host>.pcap` and so on.
//!
//! Invariant: two parts have no name in common, and a name tells its part.

use super::CaptureId;
use serde::{Deserialize, Serialize};

/// Digits of an object's number, at least.
const NUMBER_DIGITS_MIN: usize = 4;

/// Whether a text can name a host or a data center: 1 to 32 of `a-z 0-9 -`.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A host of a fleet, and its data center. Both are labels, and the host's has a letter, so that no name looks like a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Site {
    colo: String,
    host: String,
}

/// A [`Site`] as it was written, before it is believed.
#[derive(Deserialize)]
struct Written {
    colo: String,
    host: String,
}

impl TryFrom<Written> for Site {
    type Error = String;

    fn try_from(Written { colo, host }: Written) -> Result<Self, String> {
        Self::new(&colo, &host).ok_or_else(|| format!("{colo:?} and {host:?} name no data center and host"))
    }
}

impl Site {
    /// None if these are no names of a data center and of a host.
    #[must_use]
    pub fn new(colo: &str, host: &str) -> Option<Self> {
        let is_site = is_label(colo) && is_label(host) && Self::can_name_host(host);
        is_site.then(|| Self { colo: colo.to_owned(), host: host.to_owned() })
    }

    /// Whether a label has what a host of a fleet needs beyond that.
    #[must_use]
    pub fn can_name_host(label: &str) -> bool {
        label.bytes().any(|byte| byte.is_ascii_lowercase())
    }

    /// The data center.
    #[must_use]
    pub fn colo(&self) -> &str {
        &self.colo
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// What one host writes of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartId {
    /// The capture.
    pub capture: CaptureId,
    /// The host; none if it stands alone and its part is the whole.
    pub site: Option<Site>,
}

impl PartId {
    /// The whole of a capture, by a host that stands alone.
    #[must_use]
    pub fn alone(capture: &CaptureId) -> Self {
        Self { capture: capture.clone(), site: None }
    }

    /// What all its names begin with.
    #[must_use]
    pub fn stem(&self) -> String {
        let Self { capture, site } = self;
        match site {
            None => format!("pcap_{capture}"),
            Some(Site { colo, host }) => format!("pcap_{capture}_{colo}_{host}"),
        }
    }

    /// The part and the number of an object, by its name; other files of a part have number 0. None for names of another form. What
    /// stands behind the first dot is not looked at.
    #[must_use]
    pub fn parse(name: &str) -> Option<(Self, u32)> {
        let (id, rest) = name.strip_prefix("pcap_")?.split_at_checked(32)?;
        let capture = CaptureId::parse(id)?;
        let words: Vec<_> = rest.split_once('.')?.0.split('_').collect();
        let is_number =
            |word: &str| word.len() >= NUMBER_DIGITS_MIN && word.bytes().all(|byte| byte.is_ascii_digit());
        let number = |word: &str| if is_number(word) { word.parse().ok() } else { None };
        let (site, number) = match *words.as_slice() {
            [""] => (None, 0),
            ["", last] => (None, number(last)?),
            ["", colo, host] => (Some(Site::new(colo, host)?), 0),
            ["", colo, host, last] => (Some(Site::new(colo, host)?), number(last)?),
            _ => return None,
        };
        Some((Self { capture, site }, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn parts() -> impl Strategy<Value = PartId> {
        let site = ("[a-z0-9-]{1,32}", "[0-9-]{0,15}[a-z][a-z0-9-]{0,16}");
        let site = proptest::option::of(site.prop_map(|(colo, host)| Site::new(&colo, &host).unwrap()));
        ("[0-9a-f]{32}", site).prop_map(|(id, site)| PartId { capture: CaptureId::parse(&id).unwrap(), site })
    }

    proptest! {
        #[test]
        fn a_name_tells_its_part_and_its_number(part in parts(), number in 1..u32::MAX, ending in "[.][a-z.]{0,9}") {
            let stem = part.stem();
            prop_assert_eq!(PartId::parse(&format!("{stem}{ending}")), Some((part.clone(), 0)));
            prop_assert_eq!(PartId::parse(&format!("{stem}_{number:04}{ending}")), Some((part, number)));
        }

        #[test]
        fn any_text_can_be_read_as_a_name(text in ".{0,160}") {
            let _no_panic = (PartId::parse(&text), PartId::parse(&format!("pcap_{ID}{text}")));
        }
    }

    #[test]
    fn only_names_of_our_form_are_ours() {
        for (name, number) in [(".pcap", 0), ("_0001.pcap", 1), (".json", 0), ("_10000.pcap.zst", 10_000)] {
            let (part, found) = PartId::parse(&format!("pcap_{ID}{name}")).unwrap();
            assert_eq!((part.stem(), found), (format!("pcap_{ID}"), number));
        }
        for rest in [
            "",
            "0.pcap",
            "_cap2.pcap",
            "_cap2_0001.pcap",
            "_1.pcap",
            "_.pcap",
            "_0001x.pcap",
            "_ord02__0001.pcap",
        ]
        .into_iter()
        .chain([
            "_ord02_7.pcap",
            "_ord02_cap2_1.pcap",
            "_ORD_cap2.pcap",
            "_ord02_cap2_0001_0001.pcap",
        ]) {
            assert_eq!(PartId::parse(&format!("pcap_{ID}{rest}")), None, "{rest}");
        }
        for name in [
            ID.to_owned(),
            "pcap_short.pcap".to_owned(),
            format!("xpcap_{ID}.pcap"),
            format!("pcap_{}.pcap", ID.to_uppercase()),
        ] {
            assert_eq!(PartId::parse(&name), None, "{name}");
        }
        assert_eq!(PartId::parse("pcap_ééééééééééééééééééééé.pcap"), None);
    }

    #[test]
    fn a_site_that_could_lead_elsewhere_is_not_read() {
        let read = |json: &str| serde_json::from_str::<Site>(json).ok();
        let site = Site::new("ord02", "cap1");
        assert_eq!(read(r#"{"colo":"ord02","host":"cap1"}"#), site);
        assert_eq!(serde_json::to_string(&site).unwrap(), r#"{"colo":"ord02","host":"cap1"}"#);
        for (colo, host) in [("..", "cap1"), ("ord02", "0001"), ("ord02", "a/b"), ("", "cap1"), ("ord02", "")]
        {
            assert_eq!(read(&format!(r#"{{"colo":{colo:?},"host":{host:?}}}"#)), None, "{colo} {host}");
        }
    }
}
