//! What the Debian package asks for, against what the program needs. The package itself is tried by `scripts/test-package.sh`.

use trawl::drivers::TABLE;

/// Names of drivers that say nothing of their package, and that of a driver that DPDK 22.11 does not have.
const OTHERS: [(&str, Option<&str>); 4] =
    [("net_tun", Some("tap")), ("net_cn9k", Some("cnxk")), ("net_cn10k", Some("cnxk")), ("net_mana", None)];

#[test]
fn every_driver_that_is_known_is_in_the_package_s_dependencies() {
    let manifest = include_str!("../../Cargo.toml");
    let depends = manifest.split("\ndepends = [").nth(1).unwrap().split("\n]").next().unwrap();
    let quoted = depends.split('"').skip(1).step_by(2);
    let drivers: Vec<_> = quoted
        .filter_map(|package| package.strip_prefix("librte-net-")?.strip_suffix("23"))
        .map(|driver| driver.trim_end_matches('-').replace('-', "_"))
        .collect();
    let names = TABLE.iter().flat_map(|driver| driver.names).filter(|name| name.starts_with("net_"));
    let mut found = 0;
    for name in names {
        let other = OTHERS.iter().find(|(of, _)| of == name).map(|(_, package)| *package);
        let Some(plain) = other.unwrap_or_else(|| name.strip_prefix("net_")) else { continue };
        assert!(drivers.iter().any(|driver| plain.starts_with(driver.as_str())), "{name} is in no package");
        found += 1;
    }
    assert!(found > 30, "{found}");
    for other in ["bus-pci23", "bus-vdev23", "bus-auxiliary23", "bus-vmbus23", "mempool-ring23"] {
        assert!(depends.contains(&format!("\"librte-{other}\"")), "{other}");
    }
}
