//! `net_null`: frames without end, made of nothing.

use trawl::{
    dpdk::{PortConfig, PortStats},
    packet::{Burst, Source},
};

use crate::support::{alone, eal, eal_small, start, start_with};

#[test]
fn every_burst_is_full_and_every_frame_as_long_as_configured() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_null0,size=128", 1);
        assert_eq!(port.stats().unwrap(), PortStats::default());
        for _ in 0..1000 {
            let burst = queues[0].receive();
            assert_eq!(burst.len(), trawl::limits::BURST);
            assert!((0..burst.len()).all(|i| burst.head(i).len() == 128 && burst.wire_len(i) == 128));
        }
        assert_eq!(port.stats().unwrap().ipackets, 64_000);
        assert!(port.link().up);
    });
}

#[test]
fn buffers_hold_the_frames_of_a_driver_that_does_not_ask_for_their_size() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "512"]);
        for (device, len) in [("net_null0,size=9000,copy=1", 9000), ("net_null1,size=60000,copy=1", 60_000)] {
            let config =
                PortConfig { mbufs_per_queue: 1024, rx_descriptors: 256, ..PortConfig::new(device, 1) };
            let (port, mut queues) = start_with(&eal, &config);
            assert!(port.facts().buffer_bytes >= len);
            let burst = queues[0].receive();
            assert_eq!((burst.len(), burst.head(63).len()), (64, len as usize));
        }
    });
}

#[test]
fn queues_are_polled_by_threads_of_their_own() {
    alone(|| {
        let eal = eal_small();
        let (port, queues) = start(&eal, "net_null0", 2);
        std::thread::scope(|scope| {
            for mut queue in queues {
                let eal = eal.clone();
                scope.spawn(move || {
                    let _registered = eal.register_thread().unwrap();
                    let received: usize = (0..500).map(|_| queue.receive().len()).sum();
                    assert_eq!(received, 500 * 64);
                });
            }
        });
        assert_eq!(port.stats().unwrap().ipackets, 2 * 500 * 64);
    });
}

#[test]
fn hugepages_are_used_when_some_are_free() {
    alone(|| {
        let eal = eal(&[]);
        println!("{}", eal.memory());
        let (_port, mut queues) = start(&eal, "net_null0", 1);
        assert_eq!(queues[0].receive().len(), 64);
    });
}

#[test]
fn a_leaked_burst_does_not_starve_the_port() {
    alone(|| {
        let eal = eal_small();
        let (_port, mut queues) = start(&eal, "net_null0", 1);
        for _ in 0..1000 {
            let burst = queues[0].receive();
            assert_eq!(burst.len(), 64);
            std::mem::forget(burst);
        }
    });
}
