//! EAL and ports as owners: what is refused, what is closed, what can be had again.

use trawl::{
    dpdk::{Eal, EalError, Memory, PortConfig, cycles},
    packet::{Burst, Source},
};

use crate::support::{alone, alone_as_plain_user, eal, eal_small, refusal, start, start_with};

#[test]
fn eal_starts_once_a_process() {
    alone(|| {
        let first = eal_small();
        assert!(matches!(Eal::init(&[]), Err(EalError::Twice)));
        drop(first);
        let message = Eal::init(&[]).unwrap_err().to_string();
        assert!(message.contains("once"), "{message}");
    });
}

#[test]
fn arguments_that_eal_refuses_come_back_with_advice() {
    alone(|| {
        let message = Eal::init(&["--nonsense".into()]).unwrap_err().to_string();
        assert!(message.contains("--nonsense") && message.contains("-m MIB"), "{message}");
    });
}

#[test]
fn a_plain_user_can_use_devices_that_need_no_rights() {
    alone_as_plain_user(|| {
        assert!(!rustix::process::geteuid().is_root());
        let eal = eal(&[]);
        println!("{}", eal.memory());
        let (_port, mut queues) = start(&eal, "net_null0", 1);
        assert_eq!(queues[0].receive().len(), 64);
        // One that needs rights is refused, not fatal.
        refusal(&eal, &PortConfig::new("net_af_packet0,iface=lo", 1));
    });
}

#[test]
fn starting_eal_leaves_the_thread_on_its_cpus() {
    alone(|| {
        let before = rustix::thread::sched_getaffinity(None).unwrap();
        let eal = eal_small();
        assert_eq!(rustix::thread::sched_getaffinity(None).unwrap(), before);
        assert_eq!(eal.memory(), Memory::Ordinary { chosen_by_us: false });
        assert!(eal.version().contains("DPDK"), "{}", eal.version());
    });
}

#[test]
fn more_threads_can_have_an_lcore_than_there_are_cpus() {
    alone(|| {
        let eal = eal_small();
        let _main = eal.register_thread().unwrap();
        for _ in 0..100 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let _outer = eal.register_thread().unwrap();
                        // A second guard changes nothing and takes nothing away.
                        drop(eal.register_thread().unwrap());
                    });
                }
            });
        }
    });
}

#[test]
fn cycles_advance_at_about_their_rate() {
    alone(|| {
        let eal = eal_small();
        let (start, from) = (std::time::Instant::now(), cycles());
        std::thread::sleep(std::time::Duration::from_millis(200));
        let (seconds, counted) = (start.elapsed().as_secs_f64(), cycles() - from);
        let rate = counted as f64 / seconds / eal.cycles_hz() as f64;
        assert!((0.9..1.1).contains(&rate), "{rate}");
    });
}

#[test]
fn a_port_can_be_opened_again_once_all_its_parts_are_gone() {
    alone(|| {
        let eal = eal_small();
        for _ in 0..20 {
            let (port, mut queues) = start(&eal, "net_null0", 2);
            let message = refusal(&eal, &PortConfig::new("net_null0", 1));
            assert!(message.contains("open already"));
            drop(port);
            assert_eq!(queues[1].receive().len(), 64, "a queue keeps its port running");
        }
    });
}

#[test]
fn a_queue_keeps_eal_alive() {
    alone(|| {
        let eal = eal_small();
        let (port, mut queues) = start(&eal, "net_null0", 1);
        drop((eal, port));
        assert_eq!(queues[0].receive().len(), 64);
    });
}

#[test]
fn a_device_of_eals_own_arguments_is_used_as_it_is() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "128", "--vdev=net_null7,size=99"]);
        let (_port, mut queues) = start(&eal, "net_null7", 1);
        // Its length is known to EAL only, so the frame is what the driver says.
        assert_eq!(queues[0].receive().head(0).len(), 99);
    });
}

#[test]
fn a_device_that_eal_took_with_other_arguments_is_refused() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "128", "--vdev=net_null7,size=99"]);
        let message = refusal(&eal, &PortConfig::new("net_null7,size=64", 1));
        assert!(message.contains("taken by EAL with the arguments \"size=99\""), "{message}");
        let (_port, mut queues) = start(&eal, "net_null7,size=99", 1);
        assert_eq!(queues[0].receive().head(0).len(), 99);
    });
}

/// EAL hands on what stands behind a device of `-a`, also that of a vdev, which needs no NIC.
#[test]
fn arguments_of_an_allowed_device_reach_its_driver() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "128", "-a", "net_null7,size=99"]);
        let (_port, mut queues) = start(&eal, "net_null7", 1);
        assert_eq!(queues[0].receive().head(0).len(), 99);
    });
}

const SMALL: [&str; 3] = ["--no-huge", "-m", "128"];

fn eal_for(devices: &[&str]) -> Eal {
    Eal::init_for(&SMALL.map(str::to_owned), devices).unwrap()
}

#[test]
fn a_host_without_a_pci_port_has_eal_look_at_no_pci_device() {
    alone(|| {
        let eal = eal_for(&["net_null0,size=99"]);
        assert!(eal.arguments().contains(&"--no-pci".to_owned()), "{:?}", eal.arguments());
        let (_port, mut queues) = start(&eal, "net_null0,size=99", 1);
        assert_eq!(queues[0].receive().head(0).len(), 99);
    });
}

#[test]
fn eal_starts_with_the_ports_of_the_config_and_takes_no_other() {
    alone(|| {
        let port = "0000:fe:1f.7,mprq_en=1";
        let eal = eal_for(&[port, "net_null0"]);
        let arguments = eal.arguments().join(" ");
        assert!(
            arguments.contains("-a 0000:fe:1f.7,mprq_en=1") && !arguments.contains("--no-pci"),
            "{arguments}"
        );
        assert!(refusal(&eal, &PortConfig::new(port, 1)).contains("no PCI device 0000:fe:1f.7"));
        start(&eal, "net_null0", 1);
    });
}

#[test]
fn eal_starts_for_a_device_of_the_vmbus() {
    alone(|| {
        let port = "7ed6e4b8-5b09-44a9-8d5f-0e5c2c8b1a3d";
        let eal = eal_for(&[port]);
        assert!(eal.arguments().join(" ").contains(&format!("-a {port} --no-pci")));
        refusal(&eal, &PortConfig::new(port, 1));
    });
}

#[test]
fn eal_starts_for_a_device_of_the_auxiliary_bus() {
    alone(|| {
        let port = "auxiliary:mlx5_core.sf.4,dv_flow_en=1";
        let eal = eal_for(&[port]);
        assert!(eal.arguments().join(" ").contains(&format!("-a {port} --no-pci")));
        refusal(&eal, &PortConfig::new(port, 1));
    });
}

#[test]
fn an_argument_that_keeps_a_port_away_is_refused_before_eal_starts() {
    alone(|| {
        let message = Eal::init_for(&["--no-pci".to_owned()], &["0000:03:00.0"]).unwrap_err().to_string();
        assert!(message.contains("--no-pci hides port 0000:03:00.0"), "{message}");
        eal_small();
    });
}

#[test]
fn a_length_beyond_the_buffer_is_not_believed() {
    alone(|| {
        // Plugged in by EAL, so that nobody but the driver knows how long its frames are.
        let eal = eal(&["--no-huge", "-m", "128", "--vdev=net_null7,size=60000"]);
        let (port, mut queues) = start(&eal, "net_null7", 1);
        let burst = queues[0].receive();
        let buffer_bytes = port.facts().buffer_bytes;
        assert!((0..burst.len()).all(|i| burst.wire_len(i) == buffer_bytes));
        assert_eq!(burst.head(0).len(), buffer_bytes as usize);
    });
}

#[test]
fn devices_that_are_not_there_are_refused_with_advice() {
    alone(|| {
        let eal = eal_small();
        for device in ["net_nonsense0", "nonsense"] {
            let message = refusal(&eal, &PortConfig::new(device, 1));
            assert!(message.contains("net_virtio_user") && message.contains("interface:eth0"));
        }
        let message = refusal(&eal, &PortConfig::new("0000:fe:1f.7", 1));
        assert!(message.contains("no PCI device 0000:fe:1f.7"));
        let message = refusal(&eal, &PortConfig::new("net_null0, size=1", 1));
        assert!(message.contains("PCI address"));
        let message = refusal(&eal, &PortConfig::new("net_af_packet0,iface=nonexistent0", 1));
        assert!(message.contains("net_af_packet0"));
    });
}

#[test]
fn more_queues_than_the_device_has_are_refused_with_both_numbers() {
    alone(|| {
        let eal = eal_small();
        let message = refusal(&eal, &PortConfig::new("net_ring0", 17));
        assert!(message.contains("17 queues") && message.contains("has 16"));
        assert!(refusal(&eal, &PortConfig::new("net_ring0", 0)).contains("0 queues"));
        let few = PortConfig { mbufs_per_queue: 512, rx_descriptors: 64, ..PortConfig::new("net_ring0", 16) };
        assert_eq!(start_with(&eal, &few).1.len(), 16);
    });
}

#[test]
fn memory_that_does_not_suffice_is_refused_with_its_size() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "64"]);
        let config = PortConfig { mbufs_per_queue: 1 << 20, ..PortConfig::new("net_null0", 1) };
        let message = refusal(&eal, &config);
        assert!(message.contains("1048576 buffers") && message.contains("MiB"));
        start(&eal, "net_null0", 1);
    });
}
