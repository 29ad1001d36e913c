//! Two accounts on one wire: neither gets a packet that is not from or to its own prefixes, whatever it asks for.

use super::rig::{Rig, Traffic, request};
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use trawl::engine::Refusal;
use trawl::job::{AccountId, Job, Status};
use trawl::matcher::{FilterV1, PrefixSet};
use trawl::pcap::Reader;

const A: u8 = 1;
const B: u8 = 2;
const NOBODY: u8 = 0;

/// A frame's last two bytes say who may see it and which of the frames it is.
fn marked(mut frame: Vec<u8>, who: u8) -> Vec<u8> {
    frame.resize(96, 0);
    frame[94] = who;
    frame
}

fn v4(tags: usize, source: &str, destination: &str, fragment: u16, who: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x81, 0, 0, 7].repeat(tags));
    frame.extend([0x08, 0, 0x45, 0, 0, 60, 0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, 17, 0, 0]);
    frame.extend(source.parse::<Ipv4Addr>().unwrap().octets());
    frame.extend(destination.parse::<Ipv4Addr>().unwrap().octets());
    marked(frame, who)
}

fn v6(tags: usize, source: &str, destination: &str, who: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x88, 0xa8, 0, 7].repeat(tags));
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 17, 64]);
    frame.extend(source.parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
    marked(frame, who)
}

fn arp(sender: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2]);
    frame.extend(sender);
    marked(frame, NOBODY)
}

fn wire() -> Vec<Vec<u8>> {
    let mut frames = vec![
        v4(0, "192.0.2.7", "203.0.113.1", 0, A),
        v4(0, "203.0.113.1", "192.0.2.255", 0, A),
        v4(2, "192.0.2.0", "203.0.113.1", 0, A),
        v4(0, "192.0.2.7", "203.0.113.1", 185, A),
        v4(0, "198.51.100.7", "203.0.113.1", 0, B),
        v4(0, "203.0.113.1", "198.51.100.7", 0, B),
        v4(1, "198.51.100.7", "203.0.113.1", 0, B),
        v4(0, "198.51.100.7", "203.0.113.1", 185, B),
        v4(0, "198.51.100.7", "192.0.2.7", 0, A | B),
        v4(0, "192.0.3.0", "192.0.1.255", 0, NOBODY),
        v6(0, "2001:db8:a::7", "2001:db8:ffff::1", A),
        v6(1, "2001:db8:ffff::1", "2001:db8:a:ffff::7", A),
        v6(0, "2001:db8:b::7", "2001:db8:ffff::1", B),
        v6(0, "2001:db8:b::7", "2001:db8:a::7", A | B),
        // IPv6 packets that carry an IPv4 address of A: nobody's.
        v6(0, "::ffff:192.0.2.7", "::ffff:203.0.113.1", NOBODY),
        arp([192, 0, 2, 7]),
        arp([198, 51, 100, 7]),
    ];
    for (number, frame) in (0..).zip(&mut frames) {
        frame[95] = number;
    }
    frames
}

fn scopes() -> HashMap<AccountId, Arc<PrefixSet>> {
    let set = |prefixes: [&str; 2]| Arc::new(PrefixSet::new(&prefixes.map(|text| text.parse().unwrap())));
    HashMap::from([
        (AccountId("a".to_owned()), set(["192.0.2.0/24", "2001:db8:a::/48"])),
        (AccountId("b".to_owned()), set(["198.51.100.0/24", "2001:db8:b::/48"])),
    ])
}

fn from(address: &str) -> FilterV1 {
    FilterV1 { source_address: Some(address.to_owned()), ..FilterV1::default() }
}

fn to(address: &str) -> FilterV1 {
    FilterV1 { destination_address: Some(address.to_owned()), ..FilterV1::default() }
}

async fn capture(rig: &Rig, account: &str, filter: FilterV1) -> Result<Job, Refusal> {
    let mut request = request(rig.bucket(), 0.3);
    request.account.0 = account.to_owned();
    request.filter = filter;
    let job = rig.handle().create(request).await?;
    Ok(rig.wait(&job).await)
}

/// The frames in a capture's files, by number, with who may see them.
fn found(rig: &Rig, job: &Job) -> BTreeSet<(u8, u8)> {
    rig.verify(job);
    let mut found = BTreeSet::new();
    for object in &job.objects {
        let mut reader = Reader::open(&rig.bucket().join(&object.name)).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            found.insert((record.data[95], record.data[94]));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_filter_shows_an_account_a_packet_of_another() {
    let wire = wire();
    let rig = Rig::scoped(vec![Traffic::of(&wire, 20_000), Traffic::of(&wire, 5_000)], scopes());
    let all = |who: u8| -> BTreeSet<(u8, u8)> {
        wire.iter().filter(|frame| frame[94] & who != 0).map(|frame| (frame[95], frame[94])).collect()
    };
    for (account, who) in [("a", A), ("b", B)] {
        let job = capture(&rig, account, FilterV1::default()).await.unwrap();
        assert_eq!(found(&rig, &job), all(who), "all of its own and nothing else");
        assert_eq!(job.ledger.rx, job.ledger.matched + job.ledger.unmatched);
    }
    let attempts = [
        from("198.51.100.7"),
        to("198.51.100.0/24"),
        from("0.0.0.0/0"),
        to("0.0.0.0/0"),
        from("::/0"),
        from("2001:db8:b::/48"),
        from("0.0.0.0/1"),
        FilterV1 { protocol: Some(17.into()), ..FilterV1::default() },
    ];
    for filter in attempts {
        let job = capture(&rig, "a", filter.clone()).await.unwrap();
        match job.status {
            Status::Success => {
                let found = found(&rig, &job);
                assert!(found.is_subset(&all(A)) && !found.is_empty(), "{filter:?}: {found:?}");
            }
            _ => {
                assert_eq!(job.ledger.matched, 0, "{filter:?}");
                assert!(job.objects.iter().all(|object| object.packets == 0), "{filter:?}");
            }
        }
    }
    for mapped in ["::ffff:198.51.100.7", "::ffff:0:0/96"] {
        assert!(matches!(capture(&rig, "a", from(mapped)).await, Err(Refusal::Filter(_))), "{mapped}");
    }
    // An account without prefixes sees the wire as it is.
    let job = capture(&rig, "operator", FilterV1::default()).await.unwrap();
    assert_eq!(found(&rig, &job).len(), wire.len());
    rig.stop().await;
}
