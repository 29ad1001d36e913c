//! `scripts/setup-host.sh` on a folder that looks like a host: what it prints, changes, refuses and takes back.

use std::fs;
use std::path::Path;
use std::process::Command;

const PORT: &str = "0000:03:00.0";

/// A host with one port of the driver `ixgbe`, two interrupts, four cores and an IOMMU.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8"),
        ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
        ("sys/devices/system/cpu/online", "0-3"),
        ("proc/irq/24/smp_affinity_list", "0-3"),
        ("proc/irq/25/smp_affinity_list", "2"),
        ("sys/kernel/iommu_groups/1/type", "DMA"),
        ("sys/bus/pci/drivers_probe", ""),
        ("sys/bus/pci/drivers/vfio-pci/module", ""),
        ("sys/bus/pci/drivers/ixgbe/unbind", ""),
        ("sys/bus/pci/devices/0000:03:00.0/driver_override", "(null)"),
        ("etc/default/grub.d/keep", ""),
    ] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }
    let driver = root.path().join("sys/bus/pci/devices/0000:03:00.0/driver");
    std::os::unix::fs::symlink("../../drivers/ixgbe", driver).unwrap();
    root
}

/// Success, standard output, standard error.
fn setup(root: &Path, arguments: &[&str]) -> (bool, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup-host.sh");
    let output =
        Command::new("bash").arg(script).args(arguments).env("TRAWL_SETUP_ROOT", root).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap().trim().to_owned()
}

/// Every file below a folder with what is in it.
fn everything(dir: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap() {
            meta if meta.is_dir() => all.extend(everything(&path)),
            meta if meta.is_file() => {
                all.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
            _ => {}
        }
    }
    all.sort();
    all
}

const ALL: &[&str] =
    &["--hugepages-2m", "2100", "--hugepages-1g", "2", "--port", "03:00.0", "--isolate", "2-3", "--grub"];

#[test]
fn a_dry_run_prints_every_command_and_changes_nothing() {
    let root = host();
    let before = everything(root.path());
    let (success, out, error) = setup(root.path(), &[&["--dry-run"], ALL].concat());
    assert!(success, "{out}{error}");
    for part in [
        "echo 2100 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "echo 2 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        "vm.nr_hugepages = 2100",
        "echo 0000:03:00.0 > /sys/bus/pci/devices/0000:03:00.0/driver/unbind",
        "echo vfio-pci > /sys/bus/pci/devices/0000:03:00.0/driver_override",
        "echo 0000:03:00.0 > /sys/bus/pci/drivers_probe",
        "echo 0,1 > /proc/irq/24/smp_affinity_list",
        "isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3 irqaffinity=0,1",
        "nothing was changed",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(everything(root.path()), before);
}

#[test]
fn what_was_set_is_taken_back_to_what_it_was() {
    let root = host();
    let root = root.path();
    let (success, out, error) = setup(root, ALL);
    assert!(success, "{out}{error}");
    assert_eq!(read(root, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "2100");
    assert_eq!(read(root, "etc/sysctl.d/60-trawl.conf"), "vm.nr_hugepages = 2100");
    assert_eq!(read(root, "sys/bus/pci/devices/0000:03:00.0/driver_override"), "vfio-pci");
    assert_eq!(read(root, "sys/bus/pci/drivers/ixgbe/unbind"), PORT);
    assert_eq!(read(root, "proc/irq/25/smp_affinity_list"), "0,1");
    assert!(read(root, "etc/default/grub.d/60-trawl.cfg").contains("hugepagesz=1G hugepages=2 isolcpus=2-3"));

    let (success, out, error) = setup(root, &["--undo"]);
    assert!(success, "{out}{error}");
    assert_eq!(read(root, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "8");
    assert_eq!(read(root, "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"), "0");
    assert_eq!(read(root, "proc/irq/24/smp_affinity_list"), "0-3");
    assert_eq!(read(root, "proc/irq/25/smp_affinity_list"), "2");
    assert_eq!(read(root, "sys/bus/pci/devices/0000:03:00.0/driver_override"), "");
    for gone in
        ["etc/sysctl.d/60-trawl.conf", "etc/default/grub.d/60-trawl.cfg", "var/lib/trawl/setup-host.state"]
    {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    assert!(setup(root, &["--undo"]).1.contains("nothing to undo"));
}

#[test]
fn a_port_that_is_in_use_stays_with_the_kernel_unless_forced() {
    let root = host();
    let root = root.path();
    fs::create_dir_all(root.join("sys/bus/pci/devices/0000:03:00.0/net/eth7")).unwrap();
    fs::create_dir_all(root.join("sys/class/net/eth7/master")).unwrap();
    let (success, out, error) = setup(root, &["--port", PORT]);
    assert!(!success && error.contains("eth7 is a part of a bridge or bond"), "{out}{error}");
    assert_eq!(read(root, "sys/bus/pci/devices/0000:03:00.0/driver_override"), "(null)");
    let (success, out, error) = setup(root, &["--port", PORT, "--force"]);
    assert!(success, "{out}{error}");

    let (success, _, error) = setup(root, &["--port", "0000:09:00.0"]);
    assert!(!success && error.contains("there is no PCI device"), "{error}");
    for gone in ["sys/kernel/iommu_groups/1", "sys/class/net/eth7"] {
        fs::remove_dir_all(root.join(gone)).unwrap();
    }
    let (success, _, error) = setup(root, &["--port", PORT]);
    assert!(!success && error.contains("no IOMMU"), "{error}");
    assert!(!setup(root, &["--isolate", "0-3"]).0, "a host needs a core of its own");
}
