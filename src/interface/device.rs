//! A port that stays with the kernel, as the config names it: `interface:eth0,ring_mib=64,outgoing=1`. Owns the words.
//!
//! Invariant: a name that passes here can be an interface's.

use super::link::NAME_BYTES_MAX;

/// What a device string of this kind begins with.
const SCHEME: &str = "interface:";
const RING_MIB: u32 = 64;
const RING_MIB_MAX: u32 = 4096;

/// A parsed device string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The interface.
    pub name: String,
    /// Memory of each queue for frames that wait for their worker, in MiB.
    pub ring_mib: u32,
    /// Whether frames that this host sends are received too.
    pub outgoing: bool,
}

impl Device {
    /// The interface that a device string names; none if it names another kind of device. The error says what is wrong.
    #[must_use]
    pub fn parse(string: &str) -> Option<Result<Self, String>> {
        string.strip_prefix(SCHEME).map(Self::of)
    }

    fn of(rest: &str) -> Result<Self, String> {
        let mut parts = rest.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_name) {
            return Err(format!("{name:?} cannot be an interface's name"));
        }
        let mut device = Self { name, ring_mib: RING_MIB, outgoing: false };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match (key, value, value.parse()) {
                ("ring_mib", _, Ok(mib @ 1..=RING_MIB_MAX)) => device.ring_mib = mib,
                ("outgoing", "0" | "1", _) => device.outgoing = value == "1",
                ("ring_mib", ..) => {
                    return Err(format!("ring_mib is {value:?}, and not 1 to {RING_MIB_MAX}"));
                }
                ("outgoing", ..) => return Err(format!("outgoing is {value:?}, and not 0 or 1")),
                _ => return Err(format!("there is no argument {key:?}, only ring_mib and outgoing")),
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_arguments_are_read_and_others_refused() {
        let device =
            |name: &str, ring_mib, outgoing| Some(Ok(Device { name: name.to_owned(), ring_mib, outgoing }));
        assert_eq!(Device::parse("interface:eth0"), device("eth0", 64, false));
        assert_eq!(Device::parse("interface:bond0.7,outgoing=1,ring_mib=256"), device("bond0.7", 256, true));
        assert_eq!(Device::parse("net_pcap0,rx_iface=eth0"), None);
        for wrong in
            ["", "a/b", "sixteen-bytes-xx", "e 0", "eth0,ring_mib=0", "eth0,outgoing=yes", "eth0,promisc=1"]
        {
            assert!(Device::parse(&format!("interface:{wrong}")).unwrap().is_err(), "{wrong:?}");
        }
    }
}
