//! Which features of an interface are on, by the names of `ethtool -k` (the kernel's ethtool-netlink.rst). Owns which of them make
//! frames that nobody sent.
//!
//! Invariant: names are the kernel's; one that is unknown here counts as harmless.

use super::netlink::{GENERIC, ask, attribute, attributes, put, u16_at, unreadable};
use std::io;

/// `struct genlmsghdr`.
const GENERIC_BYTES: usize = 4;
const ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const FEATURES_GET: u8 = 11;
const FEATURES_HEADER: u16 = 1;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_NAME: u16 = 2;
const BITSET_BITS: u16 = 3;
const BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;

/// Features that join received frames into longer ones before anything else sees them, and how `ethtool -K` switches them off.
const MERGING: [(&str, &str); 3] =
    [("rx-gro", "gro off"), ("rx-lro", "lro off"), ("rx-gro-hw", "rx-gro-hw off")];

/// The words of `ethtool -K` against a feature that joins received frames; none if it does not.
#[must_use]
pub fn is_merging(feature: &str) -> Option<&'static str> {
    MERGING.iter().find(|(name, _)| *name == feature).map(|(_, off)| *off)
}

/// Whether a frame that this host sends is seen before its checksum is written: then also before a long one is cut into frames.
#[must_use]
pub fn is_unfinished(feature: &str) -> bool {
    feature.starts_with("tx-checksum-")
}

/// Names of the features that are on.
///
/// # Errors
/// When there is no such interface, the kernel is older than 5.10, or the answer cannot be read.
pub fn active_features(interface: &str) -> io::Result<Vec<String>> {
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    put(&mut body, CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let family = ask(GENERIC, ID_CTRL, &body)?;
    let family = family.get(GENERIC_BYTES..).and_then(|rest| attribute(rest, CTRL_ATTR_FAMILY_ID));
    let family = family.and_then(|id| u16_at(id, 0)).ok_or_else(unreadable)?;
    let (mut body, mut header) = (vec![FEATURES_GET, 1, 0, 0], Vec::new());
    put(&mut header, HEADER_DEV_NAME, &[interface.as_bytes(), &[0]].concat());
    put(&mut body, FEATURES_HEADER | NLA_F_NESTED, &header);
    read(&ask(GENERIC, family, &body)?).ok_or_else(unreadable)
}

fn read(answer: &[u8]) -> Option<Vec<String>> {
    let active = attribute(answer.get(GENERIC_BYTES..)?, FEATURES_ACTIVE)?;
    let bits = attribute(active, BITSET_BITS)?;
    let name =
        |bit| Some(String::from_utf8_lossy(attribute(bit, BIT_NAME)?).trim_end_matches('\0').to_owned());
    attributes(bits).filter(|(kind, _)| *kind == BIT).map(|(_, bit)| name(bit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_the_loopback_interface_are_named() {
        let active = active_features("lo").unwrap();
        // It can be switched off for no interface: what lo sends needs no device.
        assert!(active.iter().any(|name| name == "loopback"), "{active:?}");
        assert!(active_features("trawl-none").is_err());
    }

    #[test]
    fn what_joins_frames_is_told_from_what_does_not() {
        assert_eq!(
            ["rx-gro", "rx-lro", "rx-checksum"].map(is_merging),
            [Some("gro off"), Some("lro off"), None]
        );
        assert!(is_unfinished("tx-checksum-ip-generic") && !is_unfinished("tx-nocache-copy"));
    }
}
