//! `net_af_packet` and `net_af_xdp`: an interface of the kernel as a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trawl::block::{Arena, Heartbeat, Hugepages, Payer, lane};
use trawl::dpdk::PortConfig;
use trawl::matcher::Filter;
use trawl::spool::Message;
use trawl::worker::{
    Assigned, Attachment, Budget, QueueCounters, Timers, WhenIdle, Window, Work, WorkerParts, lane_notices,
    worker,
};

use crate::support::{
    PATIENCE, alone_in_netns, assert_same, census, drain, eal, eal_small, frame, refusal, send, start,
    start_with, tagged,
};

/// A pair of interfaces on which nothing but the test sends.
const PAIR: &[&str] = &[
    "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    "ip link add trawl0 mtu 9000 type veth peer name peer0 mtu 9000",
    "ip link set trawl0 up && ip link set peer0 up",
];

/// XDP copies a frame into one page with its headers.
const PAIR_SMALL: &[&str] = &[
    "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    "ip link add trawl0 type veth peer name peer0",
    "ip link set trawl0 up && ip link set peer0 up",
];

#[test]
fn af_packet_delivers_what_the_peer_sends() {
    alone_in_netns(PAIR, || {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_af_packet0,iface=trawl0", 1);
        let frames: Vec<_> = (0..200).map(|i| frame(i, 60 + i * 7)).collect();
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
        assert_eq!(port.stats().unwrap().ipackets, 200);
        assert!(port.link().up);
    });
}

/// The socket holds what came since the device was opened. A capture that its worker takes up at once has none of it.
#[test]
fn af_packet_frames_from_before_a_worker_began_are_in_no_capture() {
    alone_in_netns(PAIR, || {
        let eal = eal_small();
        let (_port, queues) = start(&eal, "net_af_packet0,iface=trawl0", 1);
        send("peer0", &(0..200).map(|i| frame(i, 60)).collect::<Vec<_>>());
        let (blocks, _) = Arena::map(4, Hugepages::Never).unwrap();
        let (worker_end, _writer_end) = lane::<Message>(4, lane_notices());
        let (counters, stop) = (Arc::new(QueueCounters::default()), Arc::new(AtomicBool::new(false)));
        let (worker, mut handle) = worker(WorkerParts {
            queues: queues.into_iter().map(|queue| (0, queue, Arc::clone(&counters))).collect(),
            blocks,
            accounts: 0,
            lanes: vec![worker_end],
            segment_bytes_max: 64 << 20,
            timers: Timers { flush: Duration::from_secs(1), rotate: Duration::from_secs(60) },
            when_idle: WhenIdle::Spin,
            stop: Arc::clone(&stop),
            heartbeat: Arc::new(Heartbeat::new("worker0", 4)),
            clock_steps: None,
        });
        let attachment = Attachment {
            serial: 1,
            payer: Payer::HOST,
            snaplen: 160,
            window: Window::open(None),
            budget: Arc::new(Budget::new(None, None)),
            sample: None,
            rotate: None,
        };
        let all = Assigned { slot: 0, filter: &Filter::default(), scope: None, attachment };
        handle.give(Box::new(Work::new(1, vec![all]))).unwrap();
        let thread = std::thread::spawn(move || worker.run());
        let patience = Instant::now() + PATIENCE;
        while handle.take_back().is_none() {
            assert!(Instant::now() < patience, "the worker does not take its work");
        }
        send("peer0", &(0..10).map(|i| frame(i, 60)).collect::<Vec<_>>());
        while counters.slot(0).captured < 10 && Instant::now() < patience {}
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        let counts = counters.slot(0);
        assert_eq!((counts.rx, counts.matched, counts.captured), (10, 10, 10));
    });
}

#[test]
fn af_packet_keeps_the_vlan_tag_that_the_kernel_strips() {
    alone_in_netns(PAIR, || {
        let eal = eal_small();
        let (_port, mut queues) = start(&eal, "net_af_packet0,iface=trawl0", 1);
        let frames = [frame(0, 60), tagged(&frame(1, 60), 0x6123), tagged(&tagged(&frame(2, 100), 7), 8)];
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], 3), &frames);
    });
}

#[test]
fn af_packet_takes_jumbo_frames_if_its_own_are_large_enough() {
    alone_in_netns(PAIR, || {
        let eal = eal_small();
        let device = "net_af_packet0,iface=trawl0,blocksz=65536,framesz=16384,framecnt=256";
        let (port, mut queues) = start(&eal, device, 1);
        assert!(port.facts().buffer_bytes >= 9014);
        let frames = [frame(0, 9014), frame(1, 60), frame(2, 4097)];
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], 3), &frames);
    });
}

#[test]
fn af_packet_spreads_over_its_queues_and_all_must_be_read() {
    alone_in_netns(PAIR, || {
        let eal = eal_small();
        let device = "net_af_packet0,iface=trawl0,qpairs=2";
        assert!(refusal(&eal, &PortConfig::new(device, 1)).contains("has 2"));
        let (_port, mut queues) = start(&eal, device, 2);
        let frames: Vec<_> = (0..100).map(|i| frame(i, 60 + i)).collect();
        send("peer0", &frames);
        let (mut first, mut second) = (queues.remove(0), queues.remove(0));
        // Which queue a frame comes on is the kernel's choice.
        let mut received = drain(&mut first, 1);
        received.extend(drain(&mut first, 0));
        received.extend(drain(&mut second, 100 - received.len()));
        received.extend(drain(&mut first, 100 - received.len()));
        assert_eq!(census(&received), census(&frames));
    });
}

#[test]
fn af_xdp_delivers_what_the_peer_sends() {
    alone_in_netns(PAIR_SMALL, || {
        let eal = eal(&[]);
        let config = PortConfig { frame_bytes_max: 1518, ..PortConfig::new("net_af_xdp0,iface=trawl0", 1) };
        let (port, mut queues) = start_with(&eal, &config);
        let frames: Vec<_> = (0..200).map(|i| frame(i, 60 + i * 7)).collect();
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
        let stats = port.stats().unwrap();
        assert_eq!((stats.ipackets, stats.imissed), (200, 0));
    });
}

#[test]
fn af_xdp_keeps_the_vlan_tag() {
    alone_in_netns(PAIR_SMALL, || {
        let eal = eal_small();
        let (_port, mut queues) = start(&eal, "net_af_xdp0,iface=trawl0", 1);
        let frames = [tagged(&frame(1, 60), 0x6123), frame(2, 60)];
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], 2), &frames);
    });
}
