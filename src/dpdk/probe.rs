//! Finding a device: asking DPDK for it, and the host for the reason when DPDK has none. Owns the advice; opens nothing
//! that it does not hand over.
//!
//! Invariant: a port is handed to one owner at a time.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    fs,
    path::PathBuf,
};

use super::{
    device::{Device, DeviceError},
    eal::{Code, Eal},
    opened::PortError,
    sys,
};

/// Kernel drivers that leave a device to user space, and those whose DPDK driver works through the kernel's.
const USABLE: &[&str] = &["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core", "mana"];

/// The port of a device, and whether it was plugged in for this.
pub(super) fn probe(eal: &Eal, device: &Device) -> Result<(u16, bool), PortError> {
    let invalid = |_| DeviceError::Syntax { device: device.string.clone(), reason: "a zero byte is in it" };
    let string = CString::new(device.string.as_str()).map_err(invalid)?;
    // DPDK names a device of a bus without the bus.
    let bare = ["auxiliary:", "vmbus:", "pci:"].iter().find_map(|bus| device.name.strip_prefix(bus));
    let name = device.pci_address().unwrap_or_else(|| bare.unwrap_or(&device.name).to_owned());
    let name = CString::new(name).map_err(invalid)?;
    let mut ports = eal.control();
    // SAFETY: name is NUL-terminated; control is held, so the list of ports does not change.
    let find = || u16::try_from(unsafe { sys::trawl_port_find(name.as_ptr()) }).ok();
    let (port, plugged) = match find() {
        Some(port) => {
            has_its_arguments(port, device)?;
            (port, false)
        }
        None => {
            // SAFETY: string is NUL-terminated and copied; control is held.
            let returned = unsafe { sys::rte_dev_probe(string.as_ptr()) };
            let failed =
                |code| PortError::Probe { device: device.string.clone(), code, advice: advice(device) };
            if returned != 0 {
                return Err(failed(Code::of(returned)));
            }
            (find().ok_or_else(|| failed(Code::NO_DEVICE))?, true)
        }
    };
    if !ports.insert(port) {
        return Err(PortError::Open { device: device.string.clone() });
    }
    Ok((port, plugged))
}

/// A device that EAL took keeps the arguments that it had then. The caller holds the control lock.
fn has_its_arguments(port: u16, device: &Device) -> Result<(), PortError> {
    let mut has = [0; 512];
    // SAFETY: the port exists; at most so many bytes are written, and the last of them is zero.
    let is_known = unsafe { sys::trawl_port_arguments(port, has.as_mut_ptr(), has.len()) } == 0;
    // SAFETY: as above.
    let has = unsafe { CStr::from_ptr(has.as_ptr()) }.to_string_lossy();
    if device.rest.is_empty() || !is_known || has == device.rest {
        return Ok(());
    }
    Err(PortError::Arguments { device: device.string.clone(), has: has.into_owned() })
}

fn advice(device: &Device) -> String {
    match device.pci_address() {
        Some(address) => pci_advice(&address),
        None => format!(
            "a port that stays with the kernel is interface:eth0; a vdev's name begins with its driver's, such as net_pcap, \
             net_null, net_ring, net_af_xdp, net_tap or net_virtio_user; {:?} is unknown to DPDK, its plug-in is not installed, or it refuses the \
             arguments (its log above says which)",
            device.name
        ),
    }
}

fn pci_advice(address: &str) -> String {
    let folder = PathBuf::from("/sys/bus/pci/devices").join(address);
    if folder.try_exists().is_ok_and(|is_there| !is_there) {
        return format!("the host has no PCI device {address}: see `lspci -D` or `dpdk-devbind.py --status`");
    }
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
    match driver {
        Some(driver) if USABLE.contains(&&*driver) => format!(
            "it is bound to {driver}, so the arguments of EAL (`--no-pci`, `-a`, `-b`), the rights on /dev/vfio or a \
             missing DPDK driver keep it away (the log above says which)"
        ),
        Some(driver) => format!(
            "it is bound to the kernel driver {driver}: `modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}` \
             takes it from the kernel, and its IP addresses with it"
        ),
        None => format!(
            "it is bound to no driver: `modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_device_that_is_missing_is_told_from_one_that_the_kernel_holds() {
        assert!(pci_advice("ffff:ff:1f.7").contains("has no PCI device"));
    }
}
