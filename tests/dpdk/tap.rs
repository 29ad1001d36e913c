//! `net_tap`: an interface that the port itself makes.

use std::{process::Command, time::Instant};

use trawl::dpdk::Spread;

use crate::support::{
    PATIENCE, alone_in_netns, assert_same, census, drain, eal_small, frame, send, start, tagged,
};

const QUIET: &[&str] =
    &["sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set lo up"];

#[test]
fn tap_delivers_what_the_kernel_sends_into_it() {
    alone_in_netns(QUIET, || {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_tap0,iface=trawl0", 1);
        let mut frames: Vec<_> = (0..200).map(|i| frame(i, 60 + i * 7)).collect();
        frames.push(tagged(&frame(200, 60), 9));
        send("trawl0", &frames);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
        assert_eq!(port.stats().unwrap().ipackets, 201);
    });
}

#[test]
fn tap_delivers_jumbo_frames_once_the_interface_sends_them() {
    alone_in_netns(QUIET, || {
        let eal = eal_small();
        let (_port, mut queues) = start(&eal, "net_tap0,iface=trawl0", 1);
        assert!(
            Command::new("ip").args(["link", "set", "trawl0", "mtu", "9000"]).status().unwrap().success()
        );
        let frames = [frame(0, 9014), frame(1, 60)];
        send("trawl0", &frames);
        assert_same(&drain(&mut queues[0], 2), &frames);
    });
}

#[test]
fn tap_with_two_queues_loses_nothing_and_claims_no_rss() {
    alone_in_netns(QUIET, || {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_tap0,iface=trawl0", 2);
        assert_eq!(port.facts().spread, Spread::Device);
        let frames: Vec<_> = (0..100).map(|i| frame(i, 60 + i)).collect();
        send("trawl0", &frames);
        let mut received: Vec<_> = queues.iter_mut().flat_map(|queue| drain(queue, 0)).collect();
        let end = Instant::now() + PATIENCE;
        while received.len() < frames.len() && Instant::now() < end {
            received.extend(queues.iter_mut().flat_map(|queue| drain(queue, 0)));
        }
        assert_eq!(census(&received), census(&frames));
    });
}

#[test]
fn the_interface_goes_with_its_port() {
    alone_in_netns(QUIET, || {
        let eal = eal_small();
        for _ in 0..2 {
            let started = start(&eal, "net_tap0,iface=trawl0", 1);
            drop(started);
            let gone = !Command::new("ip").args(["link", "show", "trawl0"]).status().unwrap().success();
            assert!(gone);
        }
    });
}
