//! What the kernel's RTM_GETLINK says of an interface (rtnetlink(7)). Owns which of its counters are losses.
//!
//! Invariant: counters are those that the kernel keeps for as long as the interface lives; the caller takes differences.

use super::netlink::{ROUTE, ask, attribute, attributes, put, u32_at, u64_at, unreadable};
use std::io;

const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const IFINFO_BYTES: usize = 16;
/// IFNAMSIZ without its zero.
pub(super) const NAME_BYTES_MAX: usize = 15;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_STATS64: u16 = 23;
/// The physical link is there.
const IFF_LOWER_UP: u32 = 1 << 16;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub index: u32,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Whether its link is up.
    pub is_up: bool,
    /// The longest payload of a frame.
    pub mtu: u32,
    /// What it counts.
    pub counters: Counters,
}

/// What an interface counts (`struct rtnl_link_stats64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that it handed to the kernel.
    pub rx_packets: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Damaged frames.
    pub rx_errors: u64,
    /// Frames that the kernel did not process: no protocol wanted them, or the queue between driver and kernel was full.
    pub rx_dropped: u64,
    /// Frames that the device had no room for.
    pub rx_missed: u64,
}

/// What the kernel says of the interface of that name.
///
/// # Errors
/// When there is none, or the answer cannot be read.
pub fn facts(name: &str) -> io::Result<Facts> {
    let mut body = vec![0; IFINFO_BYTES];
    put(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    read(&ask(ROUTE, RTM_GETLINK, &body)?).ok_or_else(unreadable)
}

/// Frames that this host dropped, of all interfaces, because a CPU's queue between drivers and protocols was full: the second
/// column of `/proc/net/softnet_stat`.
///
/// # Errors
/// When it cannot be read.
pub fn host_drops() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/softnet_stat")?;
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(dropped).sum::<Option<u64>>().ok_or_else(unreadable)
}

fn read(answer: &[u8]) -> Option<Facts> {
    let kind = u32_at(answer, 0)?;
    let (index, flags) = (u32_at(answer, 4)?, u32_at(answer, 8)?);
    // Bytes 2 and 3 of the struct, in the host's order.
    let kind = u16::from_ne_bytes(kind.to_ne_bytes()[2..].try_into().ok()?);
    let rest = answer.get(IFINFO_BYTES..)?;
    // In the struct's order: packets received and sent, bytes of both, errors of both, drops of both, multicast, collisions;
    // then errors of length, overrun, CRC, frame, FIFO, and missed.
    let stats = attribute(rest, IFLA_STATS64)?;
    let counter = |at: usize| u64_at(stats, 8 * at);
    let counters = Counters {
        rx_packets: counter(0)?,
        rx_bytes: counter(2)?,
        rx_errors: counter(4)?,
        rx_dropped: counter(6)?,
        rx_missed: counter(15)?,
    };
    let mtu = attributes(rest).find(|(kind, _)| *kind == IFLA_MTU).and_then(|(_, value)| u32_at(value, 0))?;
    let is_ethernet = matches!(kind, ARPHRD_ETHER | ARPHRD_LOOPBACK);
    Some(Facts { index, is_ethernet, is_up: flags & IFF_LOWER_UP != 0, mtu, counters })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every network namespace has a loopback interface, and it is number 1.
    #[test]
    fn the_loopback_interface_is_described_and_a_missing_one_is_told() {
        let lo = facts("lo").unwrap();
        assert!(lo.index == 1 && lo.is_ethernet && lo.mtu >= 1280, "{lo:?}");
        assert_eq!(facts("trawl-none").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_no_answer() {
        let mut whole = vec![0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        put(&mut whole, IFLA_MTU, &1500_u32.to_ne_bytes());
        put(&mut whole, IFLA_STATS64, &(0..24_u64).flat_map(u64::to_ne_bytes).collect::<Vec<_>>());
        let counters = Counters { rx_packets: 0, rx_bytes: 2, rx_errors: 4, rx_dropped: 6, rx_missed: 15 };
        let expected = Facts { index: 7, is_ethernet: true, is_up: true, mtu: 1500, counters };
        assert_eq!(read(&whole), Some(expected));
        assert!((0..whole.len()).all(|bytes| read(&whole[..bytes]).is_none()));
    }
}
