//! `net_ring`: frames of every shape, also of those that no wire delivers.

use trawl::{
    dpdk::{
        StartedPort,
        feeder::{Feeder, Odd},
    },
    packet::{Burst, Source},
};

use crate::support::{alone, assert_same, bytes_of, drain, eal_small, frame, start, tagged};

fn feed(eal: &trawl::dpdk::Eal, port: &StartedPort, queue: u16) -> Feeder {
    Feeder::new(eal, port, queue, 2047, 2048).unwrap()
}

#[test]
fn frames_arrive_on_the_queue_that_they_were_put_on_and_on_no_other() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_ring0", 4);
        for (index, queue) in queues.iter_mut().enumerate() {
            let mut feed = feed(&eal, &port, index as u16);
            let frames: Vec<_> = (0..200).map(|i| frame(i + 1000 * index, 60 + i)).collect();
            for frame in &frames {
                feed.put(&[frame], None).unwrap();
            }
            assert_same(&drain(queue, 200), &frames);
        }
        assert_eq!(port.stats().unwrap().ipackets, 800);
    });
}

#[test]
fn buffers_come_back_however_the_frame_is_cut() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_ring0", 1);
        let mut feed = feed(&eal, &port, 0);
        // 2047 buffers, many times over: a leak of one a frame would end this.
        for i in 0..5000 {
            let bytes = frame(i, 100 + i % 1900);
            let (a, b) = bytes.split_at(i % 100);
            let (b, c) = b.split_at(b.len() / 2);
            feed.put(&[a, b, &[], c], None).unwrap();
            let burst = queues[0].receive();
            assert_eq!(burst.len(), 1);
            assert!(bytes_of(&burst, 0) == bytes, "frame {i}");
        }
    });
}

#[test]
fn empty_frames_and_empty_segments_are_frames() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_ring0", 1);
        let mut feed = feed(&eal, &port, 0);
        let shapes: [&[&[u8]]; 5] = [&[&[]], &[&[], &[]], &[&[], &[1, 2, 3]], &[&[7]], &[&[1, 2], &[], &[3]]];
        for shape in shapes {
            feed.put(shape, None).unwrap();
        }
        assert_same(&drain(&mut queues[0], 5), &shapes.map(|shape| shape.concat()));
    });
}

#[test]
fn a_tag_that_the_driver_stripped_is_back_in_the_frame() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_ring0", 1);
        let mut feed = feed(&eal, &port, 0);
        let (whole, cut, short) = (frame(1, 60), frame(2, 1000), frame(3, 11));
        feed.put(&[&whole], Some(0x2abc)).unwrap();
        feed.put(&[&cut[..14], &cut[14..]], Some(5)).unwrap();
        // Too short to have had a tag: it stays as it came.
        feed.put(&[&short], Some(6)).unwrap();
        feed.put(&[&[], &short], Some(6)).unwrap();
        let expected = [tagged(&whole, 0x2abc), tagged(&cut, 5), short.clone(), short];
        assert_same(&drain(&mut queues[0], 4), &expected);
    });
}

#[test]
fn frames_that_nobody_received_do_not_outlive_the_port() {
    alone(|| {
        let eal = eal_small();
        for _ in 0..3 {
            let (port, mut queues) = start(&eal, "net_ring0", 1);
            assert!(queues[0].receive().is_empty());
            let mut feed = feed(&eal, &port, 0);
            for i in 0..100 {
                feed.put(&[&frame(i, 60)], None).unwrap();
            }
            drop((port, queues));
            assert!(feed.put(&[&frame(0, 60)], None).is_err(), "nobody reads the ring any more");
        }
    });
}

const ODD: [Odd; 3] = [Odd::External, Odd::Indirect, Odd::Shared];

/// Buffers as drivers with memory of their own deliver them, each kind alone and all of them within one burst with plain and chained
/// ones: the frames are whole, and every buffer and every piece of foreign memory is given back, once.
#[test]
fn external_indirect_and_shared_buffers_come_back_once_each() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_ring0", 1);
        let mut feed = feed(&eal, &port, 0);
        let all = feed.free();
        assert_eq!(all, (2047, 0));
        for round in 0..200 {
            let mut expected = Vec::new();
            for at in 0..12 {
                let bytes = frame(round * 12 + at, 60 + (round * 31 + at * 97) % 1400);
                // First one kind at a time, then mixed, each kind first once.
                let kind = if round < 50 { round % 5 } else { (at + round) % 5 };
                match ODD.get(kind) {
                    Some(&odd) => feed.put_odd(&bytes, odd).unwrap(),
                    None if kind == 3 => feed.put(&[&bytes], None).unwrap(),
                    None => feed.put(&[&bytes[..20], &bytes[20..]], None).unwrap(),
                }
                let times = if kind == 2 { 2 } else { 1 };
                expected.extend(std::iter::repeat_n(bytes, times));
            }
            assert_same(&drain(&mut queues[0], expected.len()), &expected);
            assert_eq!(feed.free(), all, "round {round}");
        }
    });
}

#[test]
fn odd_buffers_that_nobody_received_come_back_when_the_port_closes() {
    alone(|| {
        let eal = eal_small();
        let (port, queues) = start(&eal, "net_ring0", 1);
        let mut feed = feed(&eal, &port, 0);
        let all = feed.free();
        for odd in ODD {
            feed.put_odd(&frame(1, 100), odd).unwrap();
        }
        assert_ne!(feed.free(), all);
        drop((port, queues));
        assert_eq!(feed.free(), all);
    });
}
