//! The host check against made-up hosts.

use super::*;
use crate::store::Embedded;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;

/// A sound host below a directory: two cores, 512 hugepages, one NIC each for vfio, the kernel and mlx5.
struct Made {
    root: tempfile::TempDir,
}

impl Made {
    fn sound() -> Self {
        let made = Self { root: tempfile::tempdir().unwrap() };
        made.write("proc/self/status", "Name:\ttrawl\nCpus_allowed_list:\t0-1\n");
        made.write("proc/mounts", "nodev /dev/hugepages hugetlbfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n");
        made.write("etc/fstab", "# comment\n/dev/sda1 / ext4 defaults 0 1\n");
        made.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "512\n");
        made.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
        made.write("sys/class/net/eth0/mtu", "1500\n");
        for (address, driver, interface) in [
            ("0000:03:00.0", "vfio-pci", None),
            ("0000:04:00.0", "ixgbe", Some("eth1")),
            ("0000:05:00.0", "mlx5_core", Some("eth2")),
        ] {
            let device = format!("sys/bus/pci/devices/{address}");
            made.write(&format!("{device}/class"), "0x020000\n");
            symlink(
                format!("../../../../bus/pci/drivers/{driver}"),
                made.host().path(&format!("{device}/driver")),
            )
            .unwrap();
            if let Some(interface) = interface {
                made.write(&format!("{device}/net/{interface}/queues/rx-0/rps_cpus"), "0\n");
            }
        }
        made
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn host(&self) -> Host {
        Host::below(self.root.path())
    }

    /// A config that is sound on this host, with sections added or replaced.
    fn config(&self, port: &str, more: &str) -> PathBuf {
        let dir = self.root.path().display();
        let text = format!(
            "[[port]]\n{port}\n[store]\npath = \"{dir}/trawl.db\"\n[api]\nlisten = \"127.0.0.1:0\"\n{more}\n[spool]\ndir = \"{dir}/spool\"\nbytes_max = \"4MiB\"\nsegment_bytes = \"4MiB\"\n[[account]]\nid = \"a\"\n[[account.credential]]\ntoken_sha256 = \"{:064}\"\n",
            0
        );
        let path = self.root.path().join("trawl.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        path
    }

    /// Errors and warnings as `subject: text | advice`.
    fn findings(&self, port: &str, more: &str) -> Vec<String> {
        let findings = check(&self.config(port, more), &self.host(), None);
        let bad = findings.into_iter().filter(|finding| finding.severity < Severity::Notice);
        bad.map(|finding| format!("{}: {} | {}", finding.subject, finding.text, finding.advice)).collect()
    }
}

#[track_caller]
fn assert_one(findings: &[String], parts: &[&str]) {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    for part in parts {
        assert!(findings[0].contains(part), "{part:?} is not in {findings:#?}");
    }
}

const VFIO: &str = "device = \"0000:03:00.0\"";
/// So few captures that the blocks are enough for them on every queue.
const FEW: &str = "[capture]\ncaptures_max = 8";

#[test]
fn a_sound_host_is_told_nothing() {
    assert_eq!(Made::sound().findings(VFIO, ""), [""; 0]);
}

#[test]
fn too_few_hugepages_come_with_the_command_that_makes_enough() {
    let made = Made::sound();
    let found = made.findings(VFIO, "[dpdk]\neal = [\"-m\", \"2048\"]");
    // 1024 for EAL and 128 for the arena, of which 512 exist.
    assert_one(
        &found,
        &["dpdk.eal: EAL needs 2048 MiB", "1024 MiB are free", "sysctl -w vm.nr_hugepages=1152"],
    );
    let found = made.findings(VFIO, "[dpdk]\neal = [\"-m\", \"1024\"]\n[blocks]\nhugepages = \"require\"");
    assert_one(&found, &["blocks.hugepages: the block arena needs 128", "0 are left", "vm.nr_hugepages=640"]);
    let found = made.findings(VFIO, "[dpdk]\neal = [\"-m\", \"1024\"]");
    assert_one(&found, &["ordinary pages will be used"]);
    assert_eq!(made.findings(VFIO, "[dpdk]\neal = [\"-m\", \"1024\", \"--no-huge\"]"), [""; 0]);
}

#[test]
fn each_directory_of_a_spool_is_looked_at_and_several_on_one_disk_are_told() {
    let made = Made::sound();
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    let root = made.root.path().display();
    let one = format!("dir = \"{root}/spool\"");
    let of = |dirs: &str| {
        fs::write(&config, text.replace(&one, &format!("dirs = [{dirs}]"))).unwrap();
        let found = check(&config, &made.host(), None);
        let bad = found.into_iter().filter(|finding| finding.severity < Severity::Notice);
        bad.map(|finding| format!("{}: {} | {}", finding.subject, finding.text, finding.advice))
            .collect::<Vec<_>>()
    };
    assert_one(
        &of(&format!("\"{root}/spool\", \"{root}/spool1\"")),
        &["spool.dirs: ", "one file system", "spool1"],
    );
    made.write("spool2", "a file");
    let found = of(&format!("\"{root}/spool\", \"{root}/spool2\""));
    assert!(found.iter().any(|one| one.contains("spool2 is not a directory")), "{found:?}");
    // Other names for one directory, and for one in it.
    for target in ["spool", "spool/below"] {
        let (link, target) = (made.root.path().join("link"), made.root.path().join(target));
        fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let found = of(&format!("\"{root}/spool\", \"{root}/link\""));
        assert_one(&found, &["spool.dirs: ", "lead to the same directory", target.to_str().unwrap()]);
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn hugepages_without_a_mount_need_in_memory() {
    let made = Made::sound();
    made.write("proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    assert_one(&made.findings(VFIO, ""), &["no hugetlbfs", "--in-memory"]);
    assert_eq!(made.findings(VFIO, "[dpdk]\neal = [\"--in-memory\"]"), [""; 0]);
}

#[test]
fn cores_that_do_not_exist_and_cores_without_work_are_named() {
    let made = Made::sound();
    assert_one(&made.findings(VFIO, "[cores]\nworkers = [7]"), &["cores.workers: core 7", "choose from 0-1"]);
    assert_one(&made.findings(VFIO, "[cores]\nworkers = [1, 1]"), &["cores.workers: is 1", "twice"]);
    let found = made.findings(VFIO, "[cores]\nworkers = [1, 0]\nwriters = [2]");
    assert!(
        found[0].contains("cores.writers: core 2") && found[1].contains("2 workers for 1 queues"),
        "{found:#?}"
    );
}

#[test]
fn a_pci_port_must_exist_and_be_free_for_dpdk() {
    let made = Made::sound();
    assert_one(
        &made.findings("device = \"0000:09:00.0\"", ""),
        &["no PCI device 0000:09:00.0", "dpdk-devbind.py --status"],
    );
    let kernel = made.findings("device = \"04:00.0\"", "");
    assert_one(&kernel, &["kernel driver ixgbe as eth1", "dpdk-devbind.py --bind=vfio-pci 0000:04:00.0"]);
    assert_eq!(made.findings("device = \"0000:05:00.0\"", ""), [""; 0], "mlx5 stays bound");
    assert_one(
        &made.findings("device = \"0000:05:00.0\"\nqueues = 4", FEW),
        &["eth2 has 1 RX queues", "ethtool -l eth2"],
    );
    assert_one(&made.findings(VFIO, "[dpdk]\neal = [\"--no-pci\"]"), &["--no-pci hides"]);
    made.write("sys/bus/pci/devices/0000:03:00.0/class", "0x010802\n");
    assert_one(&made.findings(VFIO, ""), &["no network device"]);
}

#[test]
fn a_port_that_is_polled_from_another_node_is_told_with_the_cores_of_its_own() {
    let made = Made::sound();
    for (node, list) in [("node0", "0-1\n"), ("node1", "2-3\n")] {
        made.write(&format!("sys/devices/system/node/{node}/cpulist"), list);
    }
    made.write("proc/self/status", "Cpus_allowed_list:\t0-3\n");
    let numa = |node: &str| made.write("sys/bus/pci/devices/0000:03:00.0/numa_node", node);
    numa("-1\n");
    assert_eq!(made.findings(VFIO, ""), [""; 0], "nobody knows where it is");
    numa("1\n");
    assert_one(
        &made.findings(VFIO, "[cores]\nworkers = [1]"),
        &[
            "port[0].workers: 0000:03:00.0 is on NUMA node 1",
            "cores [1] of other nodes",
            "to cores.workers: [2, 3]",
        ],
    );
    let both = "[cores]\nworkers = [1, 3]\n[capture]\ncaptures_max = 8";
    let found = made.findings(&format!("{VFIO}\nqueues = 2"), both);
    assert_one(&found, &["set port.workers = [3]"]);
    let found = made.findings(&format!("{VFIO}\nqueues = 2\nworkers = [3]"), both);
    assert_one(&found, &["2 workers for 2 queues: 1 would have nothing to poll"]);
    assert_eq!(
        made.findings(
            &format!("{VFIO}\nqueues = 2\nworkers = [3]"),
            "[cores]\nworkers = [3]\n[capture]\ncaptures_max = 8"
        ),
        [""; 0]
    );
}

#[test]
fn a_port_that_is_not_required_and_missing_is_a_warning() {
    let made = Made::sound();
    let severity = |required: &str| {
        let config = made.config(&format!("device = \"0000:09:00.0\"\nrequired = {required}"), "");
        let findings = check(&config, &made.host(), None);
        let found = findings.into_iter().find(|finding| finding.text.contains("no PCI device")).unwrap();
        (found.severity, found.text.contains("serves without this port"))
    };
    assert_eq!(severity("true"), (Severity::Error, false));
    assert_eq!(severity("false"), (Severity::Warning, true));
}

#[test]
fn what_dpdk_says_of_a_port_that_is_not_required_is_a_warning() {
    let made = Made::sound();
    let probe = |_: &[String], _: &[PortPlan]| Ok(vec![Err("it is gone".to_owned())]);
    for (required, severity) in [("true", Severity::Error), ("false", Severity::Warning)] {
        let config = made.config(&format!("{VFIO}\nrequired = {required}"), "");
        let findings = check(&config, &made.host(), Some(&probe));
        let found = findings.iter().find(|finding| finding.text.contains("it is gone")).unwrap();
        assert_eq!(found.severity, severity);
    }
}

#[test]
fn a_nic_whose_driver_is_known_is_held_to_it_and_other_buses_are_left_to_dpdk() {
    let made = Made::sound();
    let id = |vendor: &str, device: &str| {
        made.write("sys/bus/pci/devices/0000:03:00.0/vendor", vendor);
        made.write("sys/bus/pci/devices/0000:03:00.0/device", device);
    };
    id("0x15ad\n", "0x07b0\n");
    assert_one(&made.findings("device = \"0000:03:00.0\"\nqueues = 3", ""), &["1, 2, 4, 8"]);
    id("0x1af4\n", "0x1041\n");
    assert_one(
        &made.findings("device = \"0000:03:00.0\"", ""),
        &["does not count what it loses", "tx_dropped"],
    );
    for device in ["f8615163-0000-1000-2000-00155d010203", "auxiliary:mlx5_core.sf.4"] {
        assert_eq!(made.findings(&format!("device = \"{device}\""), ""), [""; 0], "{device}");
    }
}

#[test]
fn a_software_port_has_the_queues_that_its_arguments_give() {
    let made = Made::sound();
    let found = made.findings("device = \"net_pcap0,rx_iface=eth0\"\nqueues = 2", "");
    assert_one(&found, &["port[0].queues: net_pcap0 has 1 RX queues, queues asks for 2", "add one rx_pcap="]);
    assert_one(
        &made.findings("device = \"net_pcap0,rx_pcap=/nowhere.pcap\"", ""),
        &["no file /nowhere.pcap"],
    );
    assert_one(&made.findings("device = \"net_af_packet0,iface=eth9\"", ""), &["no network interface eth9"]);
    assert_one(&made.findings("device = \"eth0\"", ""), &["neither a PCI address nor a DPDK vdev"]);
    assert_eq!(made.findings("device = \"interface:eth0\"\nqueues = 2", FEW), [""; 0]);
    assert_eq!(made.findings("device = \"net_null0\"\nqueues = 8", FEW), [""; 0]);
}

#[test]
fn a_driver_that_changes_frames_is_refused_with_the_port_to_use() {
    let made = Made::sound();
    let found = made.findings("device = \"net_af_packet0,iface=eth0,qpairs=2\"\nqueues = 2", FEW);
    assert_one(
        &found,
        &["port[0].device: net_af_packet", "joins IP fragments", "device = \"interface:eth0\""],
    );
    made.write("sys/class/net/lo/mtu", "65536\n");
    assert_one(
        &made.findings("device = \"net_pcap0,rx_iface=lo\"", ""),
        &["cuts frames at 16128", "interface:lo"],
    );
    assert_one(&made.findings("device = \"interface:eth9\"", ""), &["no network interface eth9"]);
    assert_one(&made.findings("device = \"interface:eth0,promisc=1\"", ""), &["no argument \"promisc\""]);
}

#[test]
fn an_interface_that_makes_frames_nobody_sent_is_refused_with_the_line_that_ends_it() {
    let made = Made::sound();
    let found = |features: fn(&str) -> std::io::Result<Vec<String>>, device: &str| {
        let host = Host { features, ..made.host() };
        let found = check(&made.config(&format!("device = \"{device}\""), ""), &host, None);
        let found = found.into_iter().filter(|finding| finding.severity < Severity::Notice);
        found
            .map(|one| format!("{}: {}: {} | {}", one.severity, one.subject, one.text, one.advice))
            .collect::<Vec<_>>()
    };
    let merging = |_: &str| Ok(["rx-checksum", "rx-gro", "rx-lro"].map(str::to_owned).to_vec());
    for device in ["interface:eth0", "net_pcap0,rx_iface=eth0", "net_pcap0,rx_iface_in=eth0"] {
        assert_one(
            &found(merging, device),
            &["error: port[0].device: eth0 joins", "ethtool -K eth0 gro off lro off"],
        );
    }
    // A bond shows what its members have joined.
    made.write("sys/class/net/bond0/lower_eth0/mtu", "1500\n");
    let below: fn(&str) -> std::io::Result<Vec<String>> =
        |name| Ok(if name == "eth0" { vec!["rx-gro".to_owned()] } else { Vec::new() });
    assert_one(&found(below, "interface:bond0"), &["eth0, below bond0, joins", "ethtool -K eth0 gro off"]);
    let sending = |_: &str| Ok(vec!["tx-checksum-ip-generic".to_owned()]);
    for device in ["interface:eth0,outgoing=1", "net_pcap0,rx_iface=eth0"] {
        assert_one(
            &found(sending, device),
            &["error: port[0].device: what this host sends", "ethtool -K eth0 tx off"],
        );
    }
    for device in ["interface:eth0", "net_pcap0,rx_iface_in=eth0"] {
        assert_eq!(found(sending, device), [""; 0]);
    }
    let unknown = |_: &str| Err(std::io::ErrorKind::Unsupported.into());
    assert_one(
        &found(unknown, "interface:eth0"),
        &["warning: port[0].device: whether eth0", "ethtool -k eth0"],
    );
}

#[test]
fn af_xdp_that_leaves_queues_out_is_refused() {
    let made = Made::sound();
    for queue in 0..4 {
        made.write(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0\n");
    }
    for device in ["net_af_xdp0,iface=eth0", "net_af_xdp0,iface=eth0,start_queue=3"] {
        let found = made.findings(&format!("device = \"{device}\""), "");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert_one(
            &found[..1],
            &["eth0 has 4 RX queues and net_af_xdp takes 1", "ethtool -L eth0 combined 1"],
        );
    }
    let found = made.findings("device = \"net_af_xdp0,iface=eth0,queue_count=4\"\nqueues = 4", FEW);
    assert_one(&found, &["counts a part of its losses only", "interface:eth0"]);
}

#[test]
fn a_port_that_somebody_may_log_in_through_is_warned_of_before_it_is_taken() {
    let made = Made::sound();
    made.write("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n");
    let route = |to: &str, name: &str| format!("Iface\tDestination\tGateway\n{name}\t{to}\t00000000\n");
    let mlx5 = "device = \"0000:05:00.0\"";
    made.write("proc/net/route", &route("000200C0", "eth2"));
    assert_one(
        &made.findings(mlx5, ""),
        &["eth2 has an address: while trawl runs, the kernel gets no frame", "interface:eth2"],
    );
    made.write("proc/net/route", &route("00000000", "eth0"));
    assert_eq!(made.findings(mlx5, ""), [""; 0]);
    let xdp = "device = \"net_af_xdp0,iface=eth0\"";
    assert_one(&made.findings(xdp, "")[1..], &["eth0 carries the default route"]);
    assert_eq!(made.findings("device = \"interface:eth0\"", ""), [""; 0], "it stays with the kernel");
    made.write("proc/net/route", "");
    made.write("proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80 eth2\n");
    assert_eq!(made.findings(mlx5, ""), [""; 0], "an address of the link only");
    made.write("proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80 eth2\n");
    assert_one(&made.findings(mlx5, ""), &["eth2 has an address"]);
    made.write("sys/class/net/eth2/master/ifindex", "9\n");
    assert_one(&made.findings(mlx5, ""), &["eth2 is a part of a bridge or bond and has an address"]);
    made.write("proc/net/route", &route("00000000", "eth1"));
    let bound = made.findings("device = \"0000:04:00.0\"", "");
    assert!(
        bound[1].contains("eth1 carries the default route: bound to vfio-pci, this host gets no frame"),
        "{bound:#?}"
    );
}

#[test]
fn a_spool_on_a_disk_that_is_not_mounted_or_too_small_is_refused() {
    let made = Made::sound();
    made.write("etc/fstab", &format!("/dev/nvme0n1 {} xfs defaults 0 2\n", made.root.path().display()));
    assert_one(&made.findings(VFIO, ""), &["spool.dir: ", "nothing is mounted", "mount /"]);
    let made = Made::sound();
    let config = made.config(VFIO, "");
    let text =
        fs::read_to_string(&config).unwrap().replace("bytes_max = \"4MiB\"", "bytes_max = \"900000TiB\"");
    fs::write(&config, text).unwrap();
    let found = check(&config, &made.host(), None);
    assert_eq!(found[0].subject, "spool.bytes_max");
    assert!(found[0].advice.contains("lower spool.bytes_max to"), "{found:#?}");
}

#[test]
fn ways_to_write_that_keep_nothing_are_warned_of() {
    for write in ["discard", "discard-in-worker"] {
        let made = Made::sound();
        let config = made.config(VFIO, "");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("[spool]", &format!("[spool]\nwrite = \"{write}\""))).unwrap();
        let found = check(&config, &made.host(), None);
        let found: Vec<_> = found.iter().filter(|finding| finding.subject == "spool.write").collect();
        assert!(found.len() == 1 && found[0].severity == Severity::Warning, "{found:#?}");
    }
}

#[test]
fn mapped_writes_are_warned_of_where_the_file_system_takes_o_direct() {
    let made = Made::sound();
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[spool]", "[spool]\nwrite = \"mapped\"")).unwrap();
    let found = check(&config, &made.host(), None);
    let warned = found.iter().any(|one| {
        one.subject == "spool.write"
            && one.severity == Severity::Warning
            && one.text.contains("0.6 core-seconds")
    });
    let dir = made.root.path();
    assert_eq!(warned, !storage::refuses_direct(dir) && !storage::is_in_memory(dir), "{found:#?}");
}

#[test]
fn a_host_without_io_uring_is_warned_of_unless_nothing_would_use_it() {
    let made = Made::sound();
    let host = Host { io_uring: || Err(std::io::ErrorKind::PermissionDenied.into()), ..made.host() };
    let warned = |write: &str| {
        let config = made.config(VFIO, "");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("[spool]", &format!("[spool]\nwrite = \"{write}\""))).unwrap();
        let found = check(&config, &host, None);
        found
            .iter()
            .any(|one| one.severity == Severity::Warning && one.text.contains("io_uring (permission denied)"))
    };
    assert!(!warned("mapped"));
    // A file system without O_DIRECT does not use it either.
    if made.findings(VFIO, "").is_empty()
        && check(&made.config(VFIO, ""), &made.host(), None)
            .iter()
            .all(|one| !one.text.contains("no O_DIRECT"))
    {
        assert!(warned("auto"));
    }
}

#[test]
fn too_few_open_files_are_refused_with_the_number_to_set() {
    let made = Made::sound();
    made.write(
        "proc/self/limits",
        "Max open files            1024                 1024                 files\n",
    );
    assert_one(
        &made.findings(VFIO, "[capture]\ncaptures_max = 30"),
        &["capture.captures_max", "may have 1024 files open", "LimitNOFILE=2048", "ulimit -n"],
    );
    made.write(
        "proc/self/limits",
        "Max open files            1024                 524288               files\n",
    );
    assert_eq!(made.findings(VFIO, "[capture]\ncaptures_max = 40"), [""; 0], "the soft limit is raised");
}

#[test]
fn a_root_of_customers_directories_in_the_spool_is_refused() {
    let made = Made::sound();
    let spool = made.root.path().join("spool");
    fs::create_dir_all(spool.join("in")).unwrap();
    let more = format!("[upload]\nallow_file = true\nfile_roots = [{:?}]", spool.join("in"));
    assert_one(&made.findings(VFIO, &more), &["upload.file_roots", "own directories"]);
}

#[test]
fn a_spool_or_store_that_cannot_be_is_refused() {
    let made = Made::sound();
    made.write("spool", "a file");
    fs::create_dir(made.root.path().join("trawl.db")).unwrap();
    let found = made.findings(VFIO, "");
    assert!(
        found[0].contains("is not a directory") && found[1].contains("trawl.db is a directory"),
        "{found:#?}"
    );
}

#[test]
fn a_key_file_that_others_can_read_is_refused_and_one_that_r2_buckets_need_is_asked_for() {
    let made = Made::sound();
    let found = made.findings(VFIO, "[upload.r2]\nallow = true");
    assert!(found[0].starts_with("store.key_file: is missing"), "{found:#?}");
    let path = made.root.path().join("key");
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    let key_file = format!("[store]\nkey_file = {path:?}");
    fs::write(&config, text.replace("[store]", &key_file)).unwrap();
    let first = || check(&config, &made.host(), None).into_iter().find(|one| one.subject == "store.key_file");
    assert_eq!(first().unwrap().severity, Severity::Error, "there is none");
    fs::write(&path, [7; 32]).unwrap();
    for (mode, refused) in [(0o644, true), (0o640, true), (0o600, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let found = first();
        assert_eq!(found.is_some(), refused, "{found:?}");
        assert!(found.is_none_or(|found| found.advice.starts_with("chmod 600 ")));
    }
}

#[test]
fn private_keys_and_credentials_that_others_can_read_are_found() {
    let made = Made::sound();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
    let in_root = |name: &str| made.root.path().join(name);
    made.write("cert.pem", &cert.pem());
    made.write("key.pem", &key.serialize_pem());
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    let tls = format!("[api]\ntls_cert = {:?}\ntls_key = {:?}", in_root("cert.pem"), in_root("key.pem"));
    fs::write(&config, text.replace("[api]", &tls)).unwrap();
    for (file, mode, subject, severity) in [
        ("key.pem", 0o644, "api.tls_key", Severity::Error),
        ("key.pem", 0o640, "", Severity::Notice),
        ("key.pem", 0o600, "", Severity::Notice),
        ("trawl.toml", 0o644, "config", Severity::Warning),
        ("trawl.toml", 0o640, "", Severity::Notice),
    ] {
        fs::set_permissions(in_root("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(in_root(file), fs::Permissions::from_mode(mode)).unwrap();
        let bad: Vec<_> = check(&config, &made.host(), None)
            .into_iter()
            .filter(|finding| finding.severity < Severity::Notice)
            .map(|finding| (finding.subject, finding.severity))
            .collect();
        let expected = (!subject.is_empty()).then(|| (subject.to_owned(), severity));
        assert_eq!(bad, Vec::from_iter(expected), "{file} {mode:o}");
    }
}

#[test]
fn one_address_for_the_api_and_for_metrics_is_refused() {
    let made = Made::sound();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for observed in [address.to_string(), format!("0.0.0.0:{}", address.port())] {
        let config = made.config(VFIO, &format!("[observe]\nlisten = \"{observed}\""));
        let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:0", &address.to_string());
        fs::write(&config, text).unwrap();
        let found = check(&config, &made.host(), None);
        assert_eq!(
            (found[0].subject.as_str(), found[0].severity),
            ("observe.listen", Severity::Error),
            "{found:#?}"
        );
    }
}

#[test]
fn keys_and_certificates_that_cannot_be_read_are_refused() {
    let made = Made::sound();
    let nowhere = made.root.path().join("nowhere.pem");
    for (more, subject) in [
        (format!("[manifest]\nsigning_key_file = {nowhere:?}"), "manifest.signing_key_file"),
        (format!("[upload]\nca_file = {nowhere:?}"), "upload"),
        (
            format!("[manifest]\ntimestamp_url = \"http://tsa.example/\"\ntimestamp_ca_file = {nowhere:?}"),
            "manifest.timestamp_url",
        ),
    ] {
        assert_one(&made.findings(VFIO, &more), &[subject, "nowhere.pem"]);
    }
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    let tls = format!("[api]\ntls_cert = {nowhere:?}\ntls_key = {nowhere:?}");
    fs::write(&config, text.replace("[api]", &tls)).unwrap();
    let found = check(&config, &made.host(), None);
    assert!(found[0].subject == "api.tls_cert" && found[0].text.contains("nowhere.pem"), "{found:#?}");
}

#[test]
fn a_place_where_no_audit_log_can_be_is_refused_and_one_in_the_spool_warned_of() {
    let made = Made::sound();
    made.write("file", "x");
    let dir = |name: &str| format!("[audit]\ndir = {:?}", made.root.path().join(name));
    assert_eq!(made.findings(VFIO, &dir("audit")), [""; 0]);
    assert_one(&made.findings(VFIO, &dir("file")), &["audit.dir", "is not a directory"]);
    assert_one(&made.findings(VFIO, &dir("spool/audit")), &["audit.dir", "lies in the spool"]);
}

#[test]
fn a_store_without_a_directory_or_of_something_else_is_refused() {
    let made = Made::sound();
    let config = made.config(VFIO, "");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("trawl.db", "none/trawl.db")).unwrap();
    let found = check(&config, &made.host(), None);
    assert!(found[0].subject == "store.path" && found[0].text.contains("no directory"), "{found:#?}");
    made.write("trawl.db", "something else");
    assert_one(&made.findings(VFIO, ""), &["store.path", "is no job database"]);
    made.write("trawl.db", "");
    assert_eq!(made.findings(VFIO, ""), [""; 0], "an empty file becomes one");
}

#[test]
fn a_spool_that_the_job_store_does_not_know_is_refused() {
    let made = Made::sound();
    let store = Embedded::open(&made.root.path().join("trawl.db")).unwrap();
    store.set_spool("0af3b2f8-3ef7-4df4-9d61-1a8a22b4f6c1").unwrap();
    drop(store);
    assert_one(
        &made.findings(VFIO, ""),
        &["spool.dir", "is not the spool that the job store knows", "--new-spool", "findmnt"],
    );
}

#[test]
fn what_a_dead_eal_left_in_hugepages_counts_as_free() {
    let made = Made::sound();
    made.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "128\n");
    let config = "[dpdk]\neal = [\"-m\", \"64\"]\n[blocks]\nhugepages = \"never\"";
    assert_eq!(made.findings(VFIO, config), [""; 0]);
    let config = config.replace("64", "512");
    assert_one(&made.findings(VFIO, &config), &["dpdk.eal", "EAL needs 512 MiB", "256 MiB are free"]);
    made.write("dev/hugepages/rtemap_0", "");
    fs::File::options()
        .write(true)
        .open(made.host().path("/dev/hugepages/rtemap_0"))
        .unwrap()
        .set_len(256 << 20)
        .unwrap();
    assert_eq!(made.findings(VFIO, &config), [""; 0]);
}

#[test]
fn more_blocks_than_memory_are_refused() {
    let made = Made::sound();
    made.write("proc/meminfo", "MemTotal:  1048576 kB\nMemFree: 9 kB\n");
    let found = made.findings(VFIO, "[blocks]\nbytes_max = \"2GiB\"\nhugepages = \"never\"");
    assert_one(&found, &["blocks.bytes_max: are 2GiB", "1024 MiB of memory"]);
}

#[test]
fn an_address_in_use_is_found() {
    let made = Made::sound();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = made.config(VFIO, "");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("127.0.0.1:0", &address)).unwrap();
    let found = check(&config, &made.host(), None);
    assert_eq!(
        (found[0].subject.as_str(), found[0].text.clone()),
        ("api.listen", format!("{address} is in use"))
    );
}

#[test]
fn a_wrong_config_is_reported_together_with_the_host() {
    let made = Made::sound();
    let found = made
        .findings("device = \"0000:09:00.0\"\nqueues = 0", "[cores]\nworkers = [7]\n[log]\nlevel = \"loud\"");
    let subjects: Vec<&str> = found.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(subjects, ["port[0].queues", "log.level", "cores.workers", "port[0].device"]);
}

#[test]
fn dpdk_is_asked_only_on_a_sound_host_and_its_answers_count() {
    let made = Made::sound();
    let probe = |_: &[String], _: &[PortPlan]| Ok(vec![Err("it has 1 queue".to_owned())]);
    let found = check(&made.config(VFIO, ""), &made.host(), Some(&probe));
    let ports: Vec<_> = found.iter().filter(|f| f.subject.starts_with("port")).collect();
    assert!(ports.len() == 1 && ports[0].severity == Severity::Error && ports[0].text == "it has 1 queue");
    let limited = |_: &[String], _: &[PortPlan]| Ok(vec![Ok(vec!["no scatter".to_owned()])]);
    let found = check(&made.config(VFIO, ""), &made.host(), Some(&limited));
    assert!(found.iter().any(|f| f.severity == Severity::Warning && f.text == "no scatter"));
    let fails = |_: &[String], _: &[PortPlan]| Err("no such port".to_owned());
    assert!(
        check(&made.config(VFIO, ""), &made.host(), Some(&fails)).iter().any(|f| f.text == "no such port")
    );
    let never = |_: &[String], _: &[PortPlan]| unreachable!();
    let _ = check(&made.config("device = \"0000:09:00.0\"", ""), &made.host(), Some(&never));
}

#[test]
fn blocks_that_are_too_few_for_all_captures_are_told_with_the_numbers() {
    let made = Made::sound();
    let more =
        |captures: u32| format!("[blocks]\nbytes_max = \"64MiB\"\n[capture]\ncaptures_max = {captures}");
    let port = format!("{VFIO}\nqueues = 2");
    assert_eq!(made.findings(&port, &more(31)), [""; 0]);
    assert_one(
        &made.findings(&port, &more(32)),
        &[
            "blocks.bytes_max: is enough for 31 captures at once and capture.captures_max is 32",
            "a worker has 64 blocks and 2 queues",
            "blocks.bytes_max = \"66MiB\" or more, or capture.captures_max = 31",
        ],
    );
}

#[test]
fn blocks_that_are_too_few_for_one_capture_are_refused() {
    let made = Made::sound();
    let port = format!("{VFIO}\nqueues = 6");
    let more = "[blocks]\nbytes_max = \"8MiB\"\n[capture]\ncaptures_max = 1";
    assert_eq!(made.findings(&port, more), [""; 0]);
    let history = format!("{more}\n[history]\nenabled = true\nbytes_max = \"4MiB\"");
    assert_one(
        &made.findings(&port, &history),
        &["blocks.bytes_max: is 8MiB", "use at least 14MiB", "6 queues"],
    );
}
