//! A queue whose device is taken away and given back while its worker polls.

use trawl::dpdk::{InterfacePort, RxQueue};
use trawl::packet::{Burst, Source};

use crate::netns::PAIR;
use crate::support::{alone, alone_in_netns, assert_same, bytes_of, drain, eal_small, frame, send, start};

#[test]
fn a_queue_delivers_nothing_while_its_device_is_away_and_goes_on_with_the_next() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_null0,size=64", 1);
        let slot = queues[0].slot();
        assert_eq!(queues[0].receive().len(), 64);
        slot.take();
        assert!(!slot.is_done(), "nobody polled yet");
        assert!(queues[0].receive().is_empty() && slot.is_done());
        port.unplug();
        assert!(queues[0].receive().is_empty());
        // It was closed and unplugged: it can be had again with another length.
        let (_port, again) = start(&eal, "net_null0,size=99", 1);
        again.into_iter().for_each(|queue| slot.give(queue));
        assert_eq!(queues[0].receive().head(0).len(), 99);
        assert!(slot.is_done());
    });
}

#[test]
fn a_queue_begins_without_a_device_and_one_that_is_gone_keeps_none() {
    alone(|| {
        let eal = eal_small();
        let mut queue = RxQueue::without_device(0);
        assert!(queue.receive().is_empty() && queue.receive().wire_bytes() == 0);
        let slot = queue.slot();
        let (port, given) = start(&eal, "net_null0", 1);
        given.into_iter().for_each(|queue| slot.give(queue));
        assert!(!slot.is_done());
        drop((queue, port));
        assert!(slot.is_done());
        start(&eal, "net_null0", 1);
    });
}

/// The part of a failsafe device may come and go below it; the whole is closed and opened as any other.
#[test]
fn a_failsafe_device_delivers_the_frames_of_its_part_and_can_be_opened_again() {
    alone(|| {
        let eal = eal_small();
        let open = |bytes| start(&eal, format!("net_failsafe0,dev(net_null0,size={bytes})"), 1);
        let (port, mut queues) = open(99);
        assert_eq!(queues[0].receive().head(0).len(), 99);
        let slot = queues[0].slot();
        slot.take();
        assert!(queues[0].receive().is_empty() && slot.is_done());
        port.unplug();
        let (_port, again) = open(72);
        again.into_iter().for_each(|queue| slot.give(queue));
        assert_eq!(queues[0].receive().head(0).len(), 72);
    });
}

/// What the kernel received before its interface went away is received, and then the next interface's frames.
#[test]
fn a_ring_is_read_to_its_end_before_it_is_taken() {
    alone_in_netns(PAIR, || {
        let run = |line: &str| {
            assert!(std::process::Command::new("sh").args(["-ec", line]).status().unwrap().success());
        };
        let begin = || {
            let (port, queues) = InterfacePort::open("interface:trawl0", 1).unwrap();
            (port.start().unwrap(), queues)
        };
        let (port, mut queues) = begin();
        let frames: Vec<_> = (0..150).map(|i| frame(i, 60)).collect();
        send("peer0", &frames);
        let mut received = Vec::new();
        // Once one of them is there, the kernel has handed over all of their block.
        while received.is_empty() {
            let burst = queues[0].receive();
            received.extend((0..burst.len()).map(|i| bytes_of(&burst, i)));
        }
        run("ip link del trawl0");
        let slot = queues[0].slot();
        slot.take();
        received.extend(drain(&mut queues[0], frames.len() - received.len()));
        assert_same(&received, &frames);
        assert!(slot.is_done());
        drop(port);
        PAIR[2..].iter().for_each(|line| run(line));
        let (_port, again) = begin();
        again.into_iter().for_each(|queue| slot.give(queue));
        assert!(queues[0].receive().is_empty());
        send("peer0", &frames);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
    });
}
