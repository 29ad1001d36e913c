//! `interface:`: a port that stays with the kernel, through a ring of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use trawl::dpdk::{InterfacePort, RxQueue};
use trawl::packet::{Burst, Source};

use crate::netns::PAIR;
use crate::odd::odd_frames;
use crate::support::{alone_in_netns, assert_same, bytes_of, census, drain, frame, send};

fn start(device: &str, queues: u16) -> (InterfacePort, Vec<RxQueue>) {
    let (port, queues) = InterfacePort::open(device, queues).unwrap();
    (port.start().unwrap(), queues)
}

#[test]
fn an_interface_delivers_every_odd_frame_as_it_was_sent() {
    alone_in_netns(PAIR, || {
        let (port, mut queues) = start("interface:trawl0", 1);
        let frames: Vec<_> = (0..20).flat_map(odd_frames).collect();
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
        let stats = port.stats();
        assert_eq!((stats.ipackets, stats.imissed, stats.ierrors), (frames.len() as u64, 0, 0));
        assert!(port.link().up);
    });
}

/// The ring is far smaller than what comes while nobody reads: what is missing is counted, and what is there is whole.
#[test]
fn what_a_full_ring_loses_is_counted_to_the_frame() {
    alone_in_netns(PAIR, || {
        let (port, mut queues) = start("interface:trawl0,ring_mib=1", 1);
        let mut received = 0;
        for round in 1..=3_u64 {
            let frames: Vec<_> = (0..30).flat_map(|_| odd_frames(round as u32)).collect();
            let sent = frames.len() as u64;
            (0..10).for_each(|_| send("peer0", &frames));
            loop {
                let burst = queues[0].receive();
                let before = received;
                received += burst.len() as u64;
                assert!((0..burst.len()).all(|i| frames.contains(&bytes_of(&burst, i))));
                drop(burst);
                let stats = port.stats();
                if received == before && received + stats.imissed == 10 * sent * round {
                    break;
                }
                assert!(received + stats.imissed <= 10 * sent * round, "{stats:?}");
            }
        }
        assert!(port.stats().imissed > 10 * received, "this was not too much: {received} {:?}", port.stats());
    });
}

/// Each frame comes on one queue, both directions of a flow on the same, and none twice, also not those from around the start.
#[test]
fn queues_of_an_interface_share_its_frames() {
    alone_in_netns(PAIR, || {
        let (port, mut queues) = start("interface:trawl0", 2);
        let frames: Vec<_> = (0..50).flat_map(odd_frames).collect();
        send("peer0", &frames);
        let mut received = Vec::new();
        let mut polled = [0, 0];
        while received.len() < frames.len() {
            for (queue, polled) in queues.iter_mut().zip(&mut polled) {
                let burst = queue.receive();
                *polled += burst.len();
                received.extend((0..burst.len()).map(|i| bytes_of(&burst, i)));
            }
        }
        assert_eq!(census(&received), census(&frames));
        assert_eq!(port.stats().ipackets, frames.len() as u64);
        assert!(polled.iter().all(|&frames| frames > 0), "{polled:?}");
    });
}

#[test]
fn frames_bear_the_kernels_receive_time_however_late_they_are_polled() {
    alone_in_netns(PAIR, || {
        let (_port, mut queues) = start("interface:trawl0", 1);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let (before, frames) = (now(), (0..10).map(|i| frame(i, 60)).collect::<Vec<_>>());
        send("peer0", &frames);
        let after = now();
        let mut times = Vec::new();
        while times.len() < frames.len() {
            let burst = queues[0].receive();
            assert!(burst.is_timed());
            times.extend((0..burst.len()).map(|i| burst.hardware_time_ns(i).unwrap()));
        }
        assert!(times.is_sorted() && before <= times[0] && times[9] <= after, "{before} {times:?} {after}");
    });
}

/// What was there before the start is not received, and what this host sends only if it is asked for.
#[test]
fn an_interface_begins_at_its_start_and_leaves_out_what_goes_out() {
    alone_in_netns(PAIR, || {
        for (device, outgoing) in [("interface:trawl0", false), ("interface:trawl0,outgoing=1", true)] {
            let (port, mut queues) = InterfacePort::open(device, 1).unwrap();
            send("peer0", &[frame(1, 60)]);
            let port = port.start().unwrap();
            send("trawl0", &[frame(2, 60)]);
            send("peer0", &[frame(3, 60)]);
            let expected = if outgoing { vec![frame(2, 60), frame(3, 60)] } else { vec![frame(3, 60)] };
            assert_same(&drain(&mut queues[0], expected.len()), &expected);
            assert_eq!(port.stats().ipackets, expected.len() as u64);
        }
    });
}

#[test]
fn an_interface_that_goes_away_keeps_its_counts_and_is_down() {
    alone_in_netns(PAIR, || {
        let (port, mut queues) = start("interface:trawl0", 1);
        send("peer0", &[frame(1, 60)]);
        assert_eq!(drain(&mut queues[0], 1).len(), 1);
        let before = port.stats();
        let deleted = std::process::Command::new("ip").args(["link", "del", "trawl0"]).status().unwrap();
        assert!(deleted.success() && queues[0].receive().is_empty() && !port.link().up);
        assert_eq!(port.stats(), before);
    });
}

#[test]
fn an_interface_that_is_not_there_or_not_named_is_refused() {
    let refusal = |device: &str| InterfacePort::open(device, 1).unwrap_err().to_string();
    assert!(refusal("interface:trawl-none").contains("there is no interface trawl-none"));
    assert!(refusal("interface:lo,ring=1").contains("no argument \"ring\""));
}
