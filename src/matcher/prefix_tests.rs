//! What an account sees, against the definition: a packet that its filter takes, from or to one of its prefixes.

use super::tests::{filter, key, naive, net, row, stale};
use super::{Filter, PrefixSet, Program};
use crate::limits::{BURST, CAPTURES_MAX};
use crate::packet::Key;
use crate::packet::frames::{self, Facts};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(any::<bool>().prop_flat_map(net), 0..40)
}

fn visible(prefixes: &[IpNet], facts: &Facts) -> bool {
    let inside =
        |address: Option<IpAddr>| address.is_some_and(|a| prefixes.iter().any(|net| net.contains(&a)));
    inside(facts.source) || inside(facts.destination)
}

/// A key from one address to another; both of one IP version.
fn between(source: IpAddr, destination: IpAddr) -> Key {
    let mut frame = vec![0; 12];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two IP versions"),
    }
    Key::parse(&frame, frame.len() as u32)
}

fn set(prefixes: &[&str]) -> PrefixSet {
    PrefixSet::new(&prefixes.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
}

fn admits(set: &PrefixSet, source: &str, destination: &str) -> bool {
    set.admits(&between(source.parse().unwrap(), destination.parse().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn an_account_sees_what_its_filter_takes_from_or_to_its_prefixes_and_nothing_else(
        captures in prop::collection::vec((filter(), 0..4_usize), 0..=CAPTURES_MAX),
        accounts in prop::collection::vec(prefixes(), 3),
        frames in prop::collection::vec(frames::frame(), 0..=BURST),
    ) {
        let scopes: Vec<_> = accounts.iter().map(|prefixes| Arc::new(PrefixSet::new(prefixes))).collect();
        // The fourth account sees everything.
        let attached: Vec<_> =
            captures.iter().enumerate().map(|(slot, (filter, who))| (slot, filter, scopes.get(*who))).collect();
        let program = Program::compile(&attached);
        let keys: Vec<Key> = frames.iter().map(key).collect();
        let mut hits = stale();
        program.evaluate(&keys, &mut hits);
        let mut expected = [0; CAPTURES_MAX];
        for (slot, (filter, who)) in captures.iter().enumerate() {
            expected[slot] = frames.iter().map(|frame| frame.facts()).enumerate().fold(0, |bits, (i, facts)| {
                let seen = accounts.get(*who).is_none_or(|prefixes| visible(prefixes, &facts));
                bits | u64::from(seen && naive(filter, &facts)) << i
            });
        }
        prop_assert_eq!(row(&hits), expected);
    }

    #[test]
    fn a_prefix_ends_at_its_first_and_last_address(prefixes in prefixes(), n in any::<prop::sample::Index>()) {
        prop_assume!(!prefixes.is_empty());
        let set = PrefixSet::new(&prefixes);
        let within = |address: IpAddr| prefixes.iter().any(|net| net.contains(&address));
        let ends: Vec<IpAddr> = match n.get(&prefixes) {
            IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V4(a.into())).into()
            }
            IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V6(a.into())).into()
            }
        };
        for address in ends {
            prop_assert_eq!(set.admits(&between(address, address)), within(address), "{} in {:?}", address, &prefixes);
        }
    }
}

#[test]
fn either_end_suffices_and_the_ip_versions_are_apart() {
    let set = set(&["192.0.2.0/25", "2001:db8:7::/48"]);
    assert!(admits(&set, "192.0.2.127", "203.0.113.1") && admits(&set, "203.0.113.1", "192.0.2.0"));
    assert!(!admits(&set, "192.0.2.128", "203.0.113.1"));
    assert!(admits(&set, "2001:db8:7:ffff::1", "::1") && !admits(&set, "2001:db8:8::", "::1"));
    // A literal IPv4-mapped address on the wire is an IPv6 address.
    assert!(!admits(&set, "::ffff:192.0.2.1", "::ffff:192.0.2.2"));
    assert!(!set.admits(&Key::EMPTY));
}

#[test]
fn the_whole_of_one_version_is_not_the_other_nor_what_is_not_ip() {
    let v4 = set(&["0.0.0.0/0", "10.0.0.0/8"]);
    assert!(admits(&v4, "0.0.0.0", "255.255.255.255"));
    assert!(!admits(&v4, "::ffff:10.0.0.1", "::ffff:10.0.0.1") && !v4.admits(&Key::EMPTY));
    assert!(admits(&set(&["::/0"]), "::ffff:10.0.0.1", "::"));
    assert!(!admits(&set(&["::ffff:0:0/96"]), "10.0.0.1", "10.0.0.2"));
    assert!(!admits(&PrefixSet::default(), "10.0.0.1", "10.0.0.2"));
}

#[test]
fn a_filter_that_names_the_whole_internet_shows_no_more_than_the_prefixes() {
    let own = Arc::new(set(&["192.0.2.0/24"]));
    let keys =
        [("192.0.2.1", "198.51.100.1"), ("198.51.100.1", "203.0.113.1"), ("198.51.100.1", "192.0.2.255")]
            .map(|(source, destination)| between(source.parse().unwrap(), destination.parse().unwrap()));
    let any = Filter { source: Some("0.0.0.0/0".parse().unwrap()), ..Filter::default() };
    let others = Filter { source: Some("198.51.100.1/32".parse().unwrap()), ..Filter::default() };
    let program = Program::compile(&[
        (0, &Filter::default(), Some(&own)),
        (1, &any, Some(&own)),
        (2, &others, Some(&own)),
        (3, &others, None),
    ]);
    assert!(program.needs_keys());
    let mut hits = stale();
    program.evaluate(&keys, &mut hits);
    assert_eq!(hits.packets(), 0b111);
    assert_eq!(row(&hits)[..4], [0b101, 0b101, 0b100, 0b110]);
}
