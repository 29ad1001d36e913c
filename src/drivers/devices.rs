//! Which devices EAL is to take: those of the config, and no other port of the host. Owns the buses that a device can be on, and what
//! is added to `dpdk.eal` for them; starts nothing.
//!
//! EAL takes every PCI device that is bound to user space unless it is told otherwise, also those of other programs and of virtual
//! machines, and a device that it has taken gets no arguments any more (`rte_pci_ignore_device`, `pci_probe` in `drivers/bus/pci`).
//!
//! Invariant: what is added contradicts nothing that was given.

/// Vdevs that are made of other devices, which may be on any bus.
const COMPOSITE: [&str; 5] = ["net_failsafe", "net_bonding", "eth_bond", "net_vdev_netvsc", "eth_failsafe"];

/// Where DPDK finds a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bus {
    /// By this address, with its domain.
    Pci(String),
    /// On the auxiliary bus or the VMBus. Only DPDK knows what is there.
    Other,
    /// It is made by its driver.
    Virtual,
}

impl Bus {
    /// The bus of a device as it is configured, with or without arguments.
    #[must_use]
    pub fn of(device: &str) -> Self {
        let name = name(device);
        if let Some(address) = pci_address(name.strip_prefix("pci:").unwrap_or(name)) {
            return Self::Pci(address);
        }
        let is_other = ["auxiliary:", "vmbus:"].iter().any(|bus| name.starts_with(bus));
        if is_other || is_uuid(name) { Self::Other } else { Self::Virtual }
    }
}

/// What of `dpdk.eal` keeps a port from being what the config says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// `--no-pci` with a PCI port.
    #[error("--no-pci hides port {device}: remove it, EAL takes the ports of the config only")]
    Hidden {
        /// As configured.
        device: String,
    },
    /// `-b` with the port's address.
    #[error("-b {given} hides port {device}: remove it, EAL takes the ports of the config only")]
    Blocked {
        /// As configured.
        device: String,
        /// As given to EAL.
        given: String,
    },
    /// `-a` with the port's address and other arguments.
    #[error(
        "-a {given} gives port {device} other arguments: remove it, EAL is given each port of the config as it stands there"
    )]
    Other {
        /// As configured.
        device: String,
        /// As given to EAL.
        given: String,
    },
    /// `-b` of another device: EAL takes a list of devices to use or one of devices to leave, not both.
    #[error(
        "with -b {given} the arguments of port {device} cannot reach it: remove -b, EAL takes the ports of the config only"
    )]
    Unreachable {
        /// As configured.
        device: String,
        /// As given to EAL.
        given: String,
    },
}

/// What is added to EAL's arguments, so that it takes these devices, with their arguments, and no others.
///
/// # Errors
/// When what was given keeps one of them away.
pub fn added(given: &[String], devices: &[&str]) -> Result<Vec<String>, Contradiction> {
    let (allowed, blocked) = (values(given, "-a", "--allow"), values(given, "-b", "--block"));
    let has_no_pci = given.iter().any(|argument| argument == "--no-pci");
    let mut added = Vec::new();
    for &device in devices.iter().filter(|device| Bus::of(device) != Bus::Virtual) {
        let (port, is) = (device.to_owned(), |given: &&&str| is_same(given, device));
        if has_no_pci && matches!(Bus::of(device), Bus::Pci(_)) {
            return Err(Contradiction::Hidden { device: port });
        }
        if let Some(given) = blocked.iter().find(is) {
            return Err(Contradiction::Blocked { device: port, given: (*given).to_owned() });
        }
        match (allowed.iter().find(is), blocked.first()) {
            (Some(given), _) if arguments(given) == arguments(device) => {}
            (Some(given), _) => {
                return Err(Contradiction::Other { device: port, given: (*given).to_owned() });
            }
            (None, None) => added.extend(["-a".to_owned(), port]),
            (None, Some(_)) if arguments(device).is_empty() => {}
            (None, Some(given)) => {
                return Err(Contradiction::Unreachable { device: port, given: (*given).to_owned() });
            }
        }
    }
    // The parts of a composite device are found only if EAL looks for them.
    let is_composite = |device: &&&str| COMPOSITE.iter().any(|driver| device.starts_with(driver));
    for &device in devices.iter().filter(is_composite) {
        let parts = device.split([',', '(', ')', '=', ';']).filter_map(pci_address);
        let parts = parts.filter(|address| !allowed.iter().any(|given| is_same(given, address)));
        added.extend(parts.filter(|_| blocked.is_empty()).flat_map(|address| ["-a".to_owned(), address]));
    }
    let is_pci = |device: &&str| matches!(Bus::of(device), Bus::Pci(_));
    let wants_pci = devices.iter().any(is_pci) || devices.iter().any(|device| is_composite(&device));
    if !wants_pci && !has_no_pci && blocked.is_empty() && !allowed.iter().any(is_pci) {
        added.push("--no-pci".to_owned());
    }
    Ok(added)
}

/// What stands before the first comma.
fn name(device: &str) -> &str {
    device.split(',').next().unwrap_or_default()
}

/// What stands behind the first comma.
fn arguments(device: &str) -> &str {
    device.split_once(',').map_or("", |(_, arguments)| arguments)
}

/// Whether two strings name one device, whatever arguments they give it.
fn is_same(one: &str, other: &str) -> bool {
    let bare = |device| name(device).trim_start_matches("vmbus:").to_ascii_lowercase();
    match (Bus::of(one), Bus::of(other)) {
        (Bus::Pci(one), Bus::Pci(other)) => one == other,
        _ => bare(one) == bare(other),
    }
}

/// Values of an option, in its four spellings.
fn values<'a>(given: &'a [String], short: &str, long: &str) -> Vec<&'a str> {
    let mut given = given.iter().map(String::as_str);
    let mut values = Vec::new();
    while let Some(argument) = given.next() {
        if argument == short || argument == long {
            values.extend(given.next());
        } else if let Some(value) = argument.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
            values.push(value);
        } else if let Some(value) = argument.strip_prefix(short) {
            values.push(value);
        }
    }
    values
}

/// `0000:03:00.0`, in full and in lower case, of an address with or without its domain.
#[must_use]
pub fn pci_address(text: &str) -> Option<String> {
    let full = if text.len() == "03:00.0".len() { format!("0000:{text}") } else { text.to_owned() };
    let legal = full.len() == "0000:03:00.0".len()
        && full.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b':',
            10 => byte == b'.',
            _ => byte.is_ascii_hexdigit(),
        });
    legal.then(|| full.to_ascii_lowercase())
}

/// A device of the VMBus.
fn is_uuid(name: &str) -> bool {
    name.len() == 36
        && name.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "7ed6e4b8-5b09-44a9-8d5f-0e5c2c8b1a3d";

    fn given(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn eal(text: &str, devices: &[&str]) -> String {
        match added(&given(text), devices) {
            Ok(added) => added.join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_pci_address_is_told_with_and_without_domain_and_bus() {
        for text in ["0000:0A:00.1", "0a:00.1,mprq_en=1", "pci:0000:0a:00.1"] {
            assert_eq!(Bus::of(text), Bus::Pci("0000:0a:00.1".to_owned()), "{text}");
        }
        for text in ["net_null0", "fade", "0000:0a:00", "interface:eth0"] {
            assert_eq!(Bus::of(text), Bus::Virtual, "{text}");
        }
        assert_eq!([Bus::of("auxiliary:mlx5_core.sf.4"), Bus::of(UUID)], [Bus::Other, Bus::Other]);
    }

    #[test]
    fn eal_is_given_each_port_with_its_arguments() {
        let devices = ["0000:03:00.0,mprq_en=1,rxqs_min_mprq=8", "04:00.0", "net_null0,size=99"];
        assert_eq!(eal("-m 64", &devices), "-a 0000:03:00.0,mprq_en=1,rxqs_min_mprq=8 -a 04:00.0");
        assert_eq!(eal("", &["pci:0000:03:00.0,x=1"]), "-a pci:0000:03:00.0,x=1");
    }

    #[test]
    fn without_a_pci_port_eal_looks_at_no_pci_device() {
        assert_eq!(eal("", &["net_null0"]), "--no-pci");
        assert_eq!(eal("", &["interface:eth0"]), "--no-pci");
        assert_eq!(eal("--no-pci", &["net_null0"]), "");
        assert_eq!(eal("", &["auxiliary:mlx5_core.sf.4,x=1"]), "-a auxiliary:mlx5_core.sf.4,x=1 --no-pci");
        assert_eq!(eal("", &[UUID]), format!("-a {UUID} --no-pci"));
    }

    #[test]
    fn parts_of_a_composite_device_are_found() {
        let device = "net_failsafe0,mac=02:00:00:00:00:01,dev(84:00.0,x=1),dev(net_ring0)";
        assert_eq!(eal("", &[device]), "-a 0000:84:00.0");
        assert_eq!(
            eal("", &["net_bonding0,slave=0000:01:00.0,slave=0000:02:00.0"]),
            "-a 0000:01:00.0 -a 0000:02:00.0"
        );
        assert_eq!(eal("", &["net_vdev_netvsc0,iface=eth1"]), "", "only the driver knows which");
    }

    #[test]
    fn what_the_operator_allows_stays_and_is_not_given_twice() {
        for text in
            ["-a 0000:03:00.0,x=1", "-a0000:03:00.0,x=1", "--allow=03:00.0,x=1", "--allow 03:00.0,x=1"]
        {
            assert_eq!(eal(text, &["0000:03:00.0,x=1", "0000:04:00.0"]), "-a 0000:04:00.0", "{text}");
        }
        assert_eq!(eal("-a 0000:09:00.0", &["net_null0"]), "", "it is for something else");
        assert_eq!(eal("-b 0000:09:00.0", &["0000:03:00.0", "net_null0"]), "");
    }

    #[test]
    fn what_keeps_a_port_away_is_refused_in_words() {
        for (text, device, words) in [
            ("--no-pci", "0000:03:00.0", "--no-pci hides port 0000:03:00.0"),
            ("-b 03:00.0", "0000:03:00.0,x=1", "-b 03:00.0 hides port 0000:03:00.0,x=1"),
            ("-a 0000:03:00.0,x=2", "0000:03:00.0,x=1", "other arguments: remove it"),
            ("-a 0000:03:00.0", "0000:03:00.0,x=1", "other arguments: remove it"),
            ("--block=0000:09:00.0", "0000:03:00.0,x=1", "cannot reach it: remove -b"),
        ] {
            let said = eal(text, &[device]);
            assert!(said.contains(words), "{said}");
        }
    }
}
