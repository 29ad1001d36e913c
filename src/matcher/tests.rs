//! Validation by example; evaluation against a naive interpreter and against libpcap.

use super::rule::Rule;
use super::{Bits, Filter, FilterError, FilterV1, Hits, Program};
use crate::limits::{BURST, CAPTURES_MAX};
use crate::packet::Key;
use crate::packet::frames::{self, Extension, Facts, Frame, Ip};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use std::net::IpAddr;

fn sent(json: &str) -> FilterV1 {
    serde_json::from_str(json).unwrap()
}

fn valid(json: &str) -> Result<Filter, FilterError> {
    Filter::try_from(&sent(json))
}

fn refusal(json: &str) -> String {
    valid(json).unwrap_err().to_string()
}

#[test]
fn members_are_read_as_they_are_meant() {
    assert!(valid("{}").unwrap().takes_everything());
    assert!(valid(r#"{"source_address":null,"protocol":null}"#).unwrap().takes_everything());
    let filter = valid(
        r#"{"source_address":"1.2.3.4","source_port":123,"destination_address":"5.6.7.0/24","destination_port":80.0,
            "protocol":6.0}"#,
    );
    let expected = Filter {
        source: Some("1.2.3.4/32".parse().unwrap()),
        destination: Some("5.6.7.0/24".parse().unwrap()),
        source_port: Some(123),
        destination_port: Some(80),
        protocol: Some(6),
    };
    assert_eq!(filter, Ok(expected));
    assert_eq!(valid(r#"{"source_port":0}"#).unwrap().source_port, Some(0));
    assert_eq!(valid(r#"{"source_port":-0.0}"#).unwrap().source_port, Some(0));
    assert_eq!(valid(r#"{"source_port":6.5535e4}"#).unwrap().source_port, Some(65535));
    assert_eq!(valid(r#"{"source_address":"::/0"}"#).unwrap().source, Some("::/0".parse().unwrap()));
    let longest = r#"{"source_address":"0000:0000:0000:0000:0000:fffe:255.255.255.255/128"}"#;
    assert!(valid(longest).is_ok());
}

#[test]
fn numbers_that_are_not_whole_or_out_of_range_are_refused() {
    for value in ["65536", "-1", "80.5", "1e300", "-0.5", "18446744073709551615", "-9223372036854775808"] {
        for member in ["source_port", "destination_port", "protocol"] {
            let refused = valid(&format!(r#"{{"{member}":{value}}}"#));
            assert!(matches!(refused, Err(FilterError::Number { .. })), "{member} {value}");
        }
    }
    assert_eq!(refusal(r#"{"protocol":256}"#), "protocol must be a whole number from 0 to 255, not 256");
}

#[test]
fn what_is_not_an_address_is_refused() {
    let wrong =
        ["", " 1.2.3.4", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "01.2.3.4", "any", "fe80::1%eth0", "1.2.3.4:80"];
    for value in wrong {
        let refused = valid(&format!(r#"{{"source_address":"{value}"}}"#));
        assert!(matches!(refused, Err(FilterError::Address { .. })), "{value}");
    }
    let long = "é".repeat(1 << 20);
    assert!(refusal(&format!(r#"{{"source_address":"{long}"}}"#)).len() < 300);
}

#[test]
fn ambiguous_and_impossible_filters_are_refused_with_the_way_out() {
    assert_eq!(
        refusal(r#"{"destination_address":"10.0.0.1/8"}"#),
        "destination_address 10.0.0.1/8 has host bits set; write 10.0.0.0/8 for the network or 10.0.0.1 for the host"
    );
    assert_eq!(
        refusal(r#"{"source_address":"::ffff:192.0.2.1"}"#),
        "source_address ::ffff:192.0.2.1/128 is an IPv4-mapped address, which no packet carries; write the IPv4 address"
    );
    assert_eq!(
        refusal(r#"{"source_address":"192.0.2.1","destination_address":"2001:db8::/32"}"#),
        "source_address 192.0.2.1/32 and destination_address 2001:db8::/32 are of different IP versions, so no packet \
         can match; use one version or leave one out"
    );
    assert_eq!(
        refusal(r#"{"protocol":1,"destination_port":80}"#),
        "protocol 1 has no ports, so no packet can match destination_port; use protocol 6 (TCP), 17 (UDP) or 132 \
         (SCTP), or leave one out"
    );
}

#[test]
fn unknown_members_and_wrong_types_are_refused() {
    for json in [r#"{"src":"1.2.3.4"}"#, r#"{"source_port":"80"}"#, r#"{"source_address":1}"#, "[]", "1e400"]
    {
        assert!(serde_json::from_str::<FilterV1>(json).is_err(), "{json}");
    }
}

pub(super) fn net(v6: bool) -> BoxedStrategy<IpNet> {
    let length = |max: u8| prop_oneof![4 => Just(max), 1 => (max - 8)..=max, 1 => 0..=max];
    match v6 {
        false => (frames::ipv4(), length(32))
            .prop_map(|(address, length)| IpNet::V4(Ipv4Net::new(address, length).unwrap().trunc()))
            .boxed(),
        true => (frames::ipv6(), length(128))
            .prop_map(|(address, length)| IpNet::V6(Ipv6Net::new(address, length).unwrap().trunc()))
            .boxed(),
    }
}

/// Any filter, also such as validation refuses: evaluation must be right for these, too.
pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let nets = any::<bool>()
        .prop_flat_map(|v6| (prop::option::weighted(0.4, net(v6)), prop::option::weighted(0.3, net(v6))));
    let port = || prop::option::weighted(0.3, frames::port());
    (nets, port(), port(), prop::option::weighted(0.3, frames::protocol())).prop_map(
        |((source, destination), source_port, destination_port, protocol)| Filter {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
        },
    )
}

/// Member by member, from the definition.
pub(super) fn naive(filter: &Filter, facts: &Facts) -> bool {
    let within = |net: Option<IpNet>, address: Option<IpAddr>| match (net, address) {
        (None, _) => true,
        (Some(net), Some(address)) => net.contains(&address),
        (Some(_), None) => false,
    };
    within(filter.source, facts.source)
        && within(filter.destination, facts.destination)
        && filter.source_port.is_none_or(|port| facts.ports.is_some_and(|ports| ports.0 == port))
        && filter.destination_port.is_none_or(|port| facts.ports.is_some_and(|ports| ports.1 == port))
        && filter.protocol.is_none_or(|protocol| facts.protocol == Some(protocol))
}

/// As after a burst of which every packet matched in every slot.
pub(super) fn stale() -> Hits {
    let mut hits = Hits::default();
    (0..CAPTURES_MAX).for_each(|slot| hits.add(slot, u64::MAX));
    hits
}

/// The match bits of every slot.
pub(super) fn row(hits: &Hits) -> [u64; CAPTURES_MAX] {
    std::array::from_fn(|slot| hits.of(slot))
}

pub(super) fn key(frame: &Frame) -> Key {
    let bytes = frame.bytes();
    Key::parse(&bytes, bytes.len() as u32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_program_answers_as_the_naive_interpreter(
        filters in prop::collection::vec(filter(), 0..=CAPTURES_MAX),
        first_slot in 0..CAPTURES_MAX,
        frames in prop::collection::vec(frames::frame(), 0..=BURST),
    ) {
        let slot = |n: usize| (first_slot + n) % CAPTURES_MAX;
        let attached: Vec<_> = filters.iter().enumerate().map(|(n, f)| (slot(n), f, None)).collect();
        let program = Program::compile(&attached);
        prop_assert_eq!(program.needs_keys(), filters.iter().any(|filter| !filter.takes_everything()));

        let keys: Vec<Key> = frames.iter().map(key).collect();
        let mut hits = stale();
        program.evaluate(&keys, &mut hits);
        let mut expected = [0; CAPTURES_MAX];
        for (slot, filter, _) in &attached {
            let matching = frames.iter().map(|frame| naive(filter, &frame.facts()));
            expected[*slot] = matching.enumerate().fold(0, |bits, (i, hit)| bits | u64::from(hit) << i);
        }
        prop_assert_eq!(row(&hits), expected);
        prop_assert_eq!(hits.packets(), expected.iter().fold(0, |all, packets| all | packets));
        let hit: Vec<_> = expected.into_iter().enumerate().filter(|(_, packets)| *packets != 0).collect();
        prop_assert_eq!(hits.iter().collect::<Vec<_>>(), hit);
    }

    #[test]
    fn a_rule_is_a_masked_compare(filter in filter(), frame in frames::frame()) {
        let (rule, key) = (Rule::from(&filter), key(&frame));
        let hit = (0..64).all(|i| key.0[i] & rule.mask.0[i] == rule.value.0[i]);
        prop_assert_eq!(hit, naive(&filter, &frame.facts()));
    }
}

#[test]
fn an_empty_filter_needs_no_keys_and_takes_every_packet() {
    let everything = Filter::default();
    let program = Program::compile(&[(3, &everything, None), (63, &everything, None)]);
    assert!(!program.needs_keys());
    let mut hits = Hits::default();
    program.evaluate(&[Key::EMPTY; 5], &mut hits);
    assert_eq!((hits.of(3), hits.of(63), hits.of(4)), (0b1_1111, 0b1_1111, 0));
    program.evaluate(&[], &mut hits);
    assert_eq!((hits.packets(), hits.iter().next()), (0, None));
    program.evaluate(&[Key::EMPTY; BURST], &mut hits);
    assert_eq!(hits.packets(), u64::MAX);
}

#[test]
fn no_filter_matches_nothing() {
    let program = Program::compile(&[]);
    assert!(!program.needs_keys());
    let mut hits = stale();
    program.evaluate(&[Key::EMPTY; BURST], &mut hits);
    assert_eq!(row(&hits), [0; CAPTURES_MAX]);
}

#[test]
fn bits_are_walked_in_order() {
    assert_eq!(Bits(1 << 63 | 0b101).collect::<Vec<_>>(), [0, 2, 63]);
}

/// The filter in libpcap's language, for frames with up to two VLAN tags. None if it cannot be said.
fn bpf_expression(filter: &Filter) -> Option<String> {
    if filter.takes_everything() {
        return None;
    }
    let family = |v6: bool| -> Option<String> {
        let mut terms = vec![if v6 { "ip6" } else { "ip" }.to_owned()];
        for (direction, net) in [("src", filter.source), ("dst", filter.destination)] {
            let Some(net) = net else { continue };
            if net.addr().is_ipv6() != v6 {
                return None;
            }
            // A net of length 0 is any address of the family, which libpcap cannot say.
            if net.prefix_len() > 0 {
                terms.push(format!("{direction} net {net}"));
            }
        }
        for (direction, port) in [("src", filter.source_port), ("dst", filter.destination_port)] {
            terms.extend(port.map(|port| format!("{direction} port {port}")));
        }
        // Ports are only where no extension header stands between, so the protocol is found without a chain.
        let chain = if v6 && filter.source_port.or(filter.destination_port).is_none() {
            "protochain"
        } else {
            "proto"
        };
        terms.extend(filter.protocol.map(|protocol| match v6 {
            true => format!("ip6 {chain} {protocol}"),
            false => format!("ip proto {protocol}"),
        }));
        Some(format!("({})", terms.join(" and ")))
    };
    let both: Vec<String> = [family(false), family(true)].into_iter().flatten().collect();
    let here = format!("({})", both.join(" or "));
    match here.contains("protochain") {
        // libpcap refuses to look for VLAN tags after it has followed a chain.
        true => Some(here),
        false => Some(format!("{here} or (vlan and ({here} or (vlan and {here})))")),
    }
}

/// Whether libpcap's language can say what we mean for this frame.
fn is_sayable(expression: &str, filter: &Filter, frame: &Frame) -> bool {
    let vlans = if expression.contains("protochain") { 0 } else { 2 };
    let extensions = match &frame.ip {
        Some(Ip::V6 { extensions, .. }) => extensions.as_slice(),
        _ => &[],
    };
    // `protochain` knows the options of RFC 8200 and AH, but loses its place behind AH, and takes what follows in a later
    // fragment for headers.
    let chain_is_known = extensions.iter().enumerate().all(|(i, extension)| match extension {
        Extension::Options(number, _) => matches!(number, 0 | 43 | 60),
        Extension::Fragment(0, _) => true,
        Extension::Fragment(..) | Extension::Authentication(_) => i + 1 == extensions.len(),
    });
    let asks_ports = filter.source_port.or(filter.destination_port).is_some();
    frame.vlans.len() <= vlans && chain_is_known && (!asks_ports || extensions.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_program_answers_as_libpcap(filter in filter(), frames in prop::collection::vec(frames::frame(), BURST)) {
        let Some(expression) = bpf_expression(&filter) else { return Ok(()) };
        let libpcap = pcap::Capture::dead(pcap::Linktype::ETHERNET).unwrap();
        let bpf = libpcap.compile(&expression, false).map_err(|e| TestCaseError::fail(format!("{expression}: {e}")))?;
        let keys: Vec<Key> = frames.iter().map(key).collect();
        let mut hits = Hits::default();
        Program::compile(&[(0, &filter, None)]).evaluate(&keys, &mut hits);
        for (i, frame) in frames.iter().enumerate().filter(|(_, frame)| is_sayable(&expression, &filter, frame)) {
            prop_assert_eq!(hits.of(0) >> i & 1 == 1, bpf.filter(&frame.bytes()), "{} on {:?}", expression, frame);
        }
    }
}

/// The frames of real programs that stand in the repository.
fn recorded() -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real.pcap");
    let mut reader = crate::pcap::Reader::open(&path).unwrap();
    let mut frames = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        frames.push(record.data.to_vec());
    }
    frames
}

/// Filters that one recorded frame answers to: its protocol, its sender, its whole five-tuple where it has one.
fn filters_of(key: &Key) -> Vec<Filter> {
    use crate::packet::flags;
    if key.flags() & (flags::IPV4 | flags::IPV6) == 0 {
        return Vec::new();
    }
    let address = |at: usize| {
        let octets: [u8; 16] = key.0[at..at + 16].try_into().unwrap();
        std::net::Ipv6Addr::from(octets).to_canonical()
    };
    let port = |at: usize| u16::from_be_bytes([key.0[at], key.0[at + 1]]);
    let protocol = key.0[36];
    let mut filters = vec![
        valid(&format!("{{\"protocol\": {protocol}}}")).unwrap(),
        valid(&format!("{{\"source_address\": \"{}\"}}", address(0))).unwrap(),
    ];
    if key.flags() & flags::PORTS != 0 {
        let json = format!(
            "{{\"source_address\": \"{}\", \"destination_address\": \"{}\", \"source_port\": {}, \"destination_port\": {}, \"protocol\": {protocol}}}",
            address(0),
            address(16),
            port(32),
            port(34)
        );
        filters.push(valid(&json).unwrap());
    }
    filters
}

#[test]
fn a_program_answers_as_libpcap_on_the_recorded_frames_of_real_programs() {
    let frames = recorded();
    let keys: Vec<Key> =
        frames.iter().map(|frame| Key::parse(frame, u32::try_from(frame.len()).unwrap())).collect();
    let mut expressions = std::collections::BTreeMap::new();
    for filter in keys.iter().flat_map(filters_of) {
        expressions.insert(bpf_expression(&filter).unwrap(), filter);
    }
    assert!(expressions.len() > 30, "{} different filters", expressions.len());
    let libpcap = pcap::Capture::dead(pcap::Linktype::ETHERNET).unwrap();
    let (mut compared, mut matched) = (0, 0);
    for (expression, filter) in &expressions {
        let bpf = libpcap.compile(expression, false).unwrap();
        let program = Program::compile(&[(0, filter, None)]);
        for (frames, keys) in frames.chunks(BURST).zip(keys.chunks(BURST)) {
            let mut hits = Hits::default();
            program.evaluate(keys, &mut hits);
            for (i, frame) in frames.iter().enumerate() {
                let tagged = frame[12..14] == [0x81, 0x00];
                let at = if tagged { 16 } else { 12 };
                let fragment_v6 = frame[at..at + 2] == [0x86, 0xdd] && frame[at + 8] == 44;
                // See `is_sayable`: no VLAN tags beside a chain, no fragments of IPv6 without one.
                if expression.contains("protochain") && tagged || fragment_v6 {
                    continue;
                }
                let hit = hits.of(0) >> i & 1 == 1;
                assert_eq!(hit, bpf.filter(frame), "{expression} on {frame:02x?}");
                compared += 1;
                matched += u32::from(hit);
            }
        }
    }
    assert!(compared > 10_000 && matched > 500, "{compared} compared, {matched} matched");
}
