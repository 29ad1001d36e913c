//! One filter as a masked compare: a key matches if `key & mask == value`. Owns where a filter's members are in a key;
//! not how many rules are evaluated at once.
//!
//! Invariant: whatever a rule asks about, it also asks for the flag that vouches for it.

use super::Filter;
use crate::packet::{Key, flags, offset};
use ipnet::IpNet;

/// See the module. `value` has no bit that `mask` has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub mask: Key,
    pub value: Key,
}

impl Rule {
    fn ask(&mut self, at: usize, mask: &[u8], value: &[u8]) {
        for (i, (mask, value)) in mask.iter().zip(value).enumerate() {
            self.mask.0[at + i] |= mask;
            self.value.0[at + i] |= value & mask;
        }
    }

    fn ask_flag(&mut self, flag: u8) {
        self.ask(offset::FLAGS, &[flag], &[flag]);
    }

    fn ask_address(&mut self, at: usize, net: &IpNet) {
        // The family's flag stands for the twelve bytes before a mapped IPv4 address.
        match net {
            IpNet::V4(net) => {
                self.ask(at + 12, &net.netmask().octets(), &net.addr().octets());
                self.ask_flag(flags::IPV4);
            }
            IpNet::V6(net) => {
                self.ask(at, &net.netmask().octets(), &net.addr().octets());
                self.ask_flag(flags::IPV6);
            }
        }
    }
}

impl From<&Filter> for Rule {
    fn from(filter: &Filter) -> Self {
        let mut rule = Self { mask: Key::EMPTY, value: Key::EMPTY };
        for (at, net) in [(offset::SOURCE, filter.source), (offset::DESTINATION, filter.destination)] {
            if let Some(net) = net {
                rule.ask_address(at, &net);
            }
        }
        let ports =
            [(offset::SOURCE_PORT, filter.source_port), (offset::DESTINATION_PORT, filter.destination_port)];
        for (at, port) in ports {
            if let Some(port) = port {
                rule.ask(at, &[0xff; 2], &port.to_be_bytes());
                rule.ask_flag(flags::PORTS);
            }
        }
        if let Some(protocol) = filter.protocol {
            rule.ask(offset::PROTOCOL, &[0xff], &[protocol]);
            rule.ask_flag(flags::PROTOCOL);
        }
        rule
    }
}
