//! `net_pcap`: a file as a port, once and endlessly.

use trawl::{
    dpdk::PortConfig,
    packet::{Burst, Source},
};

use crate::support::{
    alone, assert_same, bytes_of, drain, eal_small, frame, refusal, start, start_with, write_pcap,
};

const LENGTHS: [usize; 8] = [60, 64, 65, 1514, 0, 1, 13, 2048];

#[test]
fn a_file_is_replayed_once_with_every_byte() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("once.pcap");
        let frames: Vec<_> = (0..1000).map(|i| frame(i, LENGTHS[i % LENGTHS.len()])).collect();
        write_pcap(&path, &frames);
        let (port, mut queues) = start(&eal, format!("net_pcap0,rx_pcap={}", path.display()), 1);
        assert_same(&drain(&mut queues[0], frames.len()), &frames);
        let stats = port.stats().unwrap();
        assert_eq!(stats.ipackets, 1000);
        assert_eq!(stats.ibytes, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!((stats.imissed, stats.ierrors, stats.rx_nombuf), (0, 0, 0));
        assert!(port.xstats().iter().any(|(name, value)| name == "rx_good_packets" && *value == 1000));
    });
}

#[test]
fn a_frame_longer_than_a_buffer_comes_whole_in_several() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jumbo.pcap");
        let frames: Vec<_> =
            [9014, 2049, 4096, 65_535, 60].iter().enumerate().map(|(i, &len)| frame(i, len)).collect();
        write_pcap(&path, &frames);
        let (_port, mut queues) = start(&eal, format!("net_pcap0,rx_pcap={}", path.display()), 1);
        {
            let burst = queues[0].receive();
            assert_eq!(burst.len(), 5);
            assert!(burst.head(0).len() < 9014, "one buffer would make this test say nothing");
            let received: Vec<_> = (0..5).map(|i| bytes_of(&burst, i)).collect();
            assert_same(&received, &frames);
        }
        assert!(queues[0].receive().is_empty());
    });
}

#[test]
fn an_endless_replay_repeats_the_file_and_gets_buffers_for_all_of_it() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop.pcap");
        let frames: Vec<_> = (0..6000).map(|i| frame(i, 60 + i % 1000)).collect();
        write_pcap(&path, &frames);
        let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", path.display());
        let (port, mut queues) = start(&eal, device, 1);
        assert!(port.facts().buffers > 6000, "a whole file in the queue's own buffers");
        let mut received = Vec::new();
        while received.len() < 15_000 {
            let burst = queues[0].receive();
            received.extend((0..burst.len()).map(|i| bytes_of(&burst, i)));
        }
        for (i, bytes) in received.iter().enumerate() {
            assert!(*bytes == frames[i % 6000], "frame {i}");
        }
    });
}

#[test]
fn an_endless_replay_of_jumbo_frames_gets_buffers_of_their_size() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop.pcap");
        write_pcap(&path, &[frame(0, 9014), frame(1, 60)]);
        let (_port, mut queues) =
            start(&eal, format!("net_pcap0,rx_pcap={},infinite_rx=1", path.display()), 1);
        let burst = queues[0].receive();
        assert_eq!(bytes_of(&burst, 0), frame(0, 9014));
        assert_eq!(bytes_of(&burst, 1), frame(1, 60));
    });
}

#[test]
fn each_file_is_a_queue_and_all_must_be_read() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.pcap"), folder.path().join("b.pcap"));
        write_pcap(&a, &[frame(1, 60)]);
        write_pcap(&b, &[frame(2, 60), frame(3, 60)]);
        let device = format!("net_pcap0,rx_pcap={},rx_pcap={}", a.display(), b.display());
        for queues in [1, 3] {
            let message = refusal(&eal, &PortConfig::new(&device, queues));
            assert!(message.contains(&format!("{queues} queues")) && message.contains("has 2"));
        }
        let (_port, mut queues) = start(&eal, &device, 2);
        assert_same(&drain(&mut queues[0], 1), &[frame(1, 60)]);
        assert_same(&drain(&mut queues[1], 2), &[frame(2, 60), frame(3, 60)]);
    });
}

#[test]
fn a_missing_or_wrong_file_is_named_before_the_driver_sees_it() {
    alone(|| {
        let eal = eal_small();
        let message = refusal(&eal, &PortConfig::new("net_pcap0,rx_pcap=/nonexistent.pcap", 1));
        assert!(message.contains("/nonexistent.pcap") && message.contains("No such file"));
        let message = refusal(&eal, &PortConfig::new("net_pcap0,rx_pcap=/etc/passwd", 1));
        assert!(message.contains("no pcap"));
    });
}

#[test]
fn a_torn_file_delivers_what_is_whole() {
    alone(|| {
        let eal = eal_small();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("torn.pcap");
        write_pcap(&path, &[frame(0, 100), frame(1, 100)]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        let config = PortConfig::new(format!("net_pcap0,rx_pcap={}", path.display()), 1);
        let (_port, mut queues) = start_with(&eal, &config);
        assert_same(&drain(&mut queues[0], 1), &[frame(0, 100)]);
    });
}
