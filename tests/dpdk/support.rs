//! What the device tests share: a process of one's own, frames, and draining a queue.

use std::{
    collections::BTreeMap,
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

pub use crate::netns::alone_in_netns;
use crate::netns::{CHILD, expect_success, this_test};
use trawl::{
    dpdk::{Eal, Port, PortConfig, RxQueue, StartedPort},
    packet::{Burst, Source},
};

/// IEEE 802's ethertype for experiments: no kernel sends it by itself.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// How long a frame may take on the way.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the body in a process of its own.
pub fn alone(body: impl FnOnce()) {
    if env::var_os("NEXTEST").is_some() || env::var_os(CHILD).is_some() {
        return body();
    }
    let exe = env::current_exe().unwrap();
    expect_success(Command::new(exe).args(this_test()).env(CHILD, "1").output().unwrap());
}

/// Runs the body in a process of its own that has this environment too, which is made for it.
pub fn alone_with(environment: impl FnOnce() -> Vec<(&'static str, PathBuf)>, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let exe = env::current_exe().unwrap();
    let mut command = Command::new(exe);
    expect_success(command.args(this_test()).env(CHILD, "1").envs(environment()).output().unwrap());
}

/// Runs the body in a process of its own that has no rights.
pub fn alone_as_plain_user(body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() || !rustix::process::geteuid().is_root() {
        return alone(body);
    }
    // The build's folders need not be readable for others.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let exe = folder.path().join("dpdk");
    std::fs::copy(env::current_exe().unwrap(), &exe).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(exe).args(this_test());
    expect_success(command.current_dir("/").env(CHILD, "1").env("HOME", "/").output().unwrap());
}

/// EAL for a test: no hardware, and little memory.
pub fn eal(more: &[&str]) -> Eal {
    let mut arguments = vec!["--no-pci".to_owned()];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Eal::init(&arguments).unwrap()
}

/// EAL without hugepages.
pub fn eal_small() -> Eal {
    eal(&["--no-huge", "-m", "256"])
}

pub fn start(eal: &Eal, device: impl Into<String>, queues: u16) -> (StartedPort, Vec<RxQueue>) {
    start_with(eal, &PortConfig::new(device, queues))
}

pub fn start_with(eal: &Eal, config: &PortConfig) -> (StartedPort, Vec<RxQueue>) {
    let started = Port::open(eal, config).unwrap().start().unwrap();
    println!("{:?}", started.0.facts());
    started
}

/// The error of a port that cannot be opened, as the user sees it.
pub fn refusal(eal: &Eal, config: &PortConfig) -> String {
    let message = Port::open(eal, config).unwrap_err().to_string();
    println!("{message}");
    message
}

/// Frame number `index` with `len` bytes, all of them telling it from other frames.
pub fn frame(index: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    bytes.extend(ETHERTYPE);
    bytes.extend(u32::try_from(index).unwrap().to_be_bytes());
    bytes.extend((bytes.len()..len.max(18)).map(|at| (at * 31 + index * 7 + (at >> 8)) as u8));
    bytes.truncate(len);
    bytes
}

/// The same frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// All bytes of frame `i`, checked against its head.
pub fn bytes_of(burst: &impl Burst, i: usize) -> Vec<u8> {
    let mut bytes = vec![0; burst.wire_len(i) as usize];
    burst.copy_to(i, &mut bytes);
    assert!(bytes.starts_with(burst.head(i)), "head and copy differ");
    let mut part = vec![0; bytes.len() / 2];
    burst.copy_to(i, &mut part);
    assert!(bytes.starts_with(&part), "a short copy differs from a whole one");
    bytes
}

/// Receives until `count` frames have come or patience ends; then looks whether there are too many: what was sent is in the
/// device's ring when the sender has returned.
pub fn drain(queue: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let end = Instant::now() + PATIENCE;
    while frames.len() < count && Instant::now() < end {
        let burst = queue.receive();
        frames.extend((0..burst.len()).map(|i| bytes_of(&burst, i)));
    }
    for _ in 0..3 {
        let burst = queue.receive();
        frames.extend((0..burst.len()).map(|i| bytes_of(&burst, i)));
    }
    frames
}

/// Asserts that the same frames came in the same order, without printing megabytes.
pub fn assert_same(received: &[Vec<u8>], sent: &[Vec<u8>]) {
    assert_eq!(received.len(), sent.len(), "number of frames");
    for (i, (received, sent)) in received.iter().zip(sent).enumerate() {
        assert_eq!(received.len(), sent.len(), "length of frame {i}");
        assert!(received == sent, "bytes of frame {i}: {:02x?}", &received[..received.len().min(64)]);
    }
}

/// How often each frame came.
pub fn census(frames: &[Vec<u8>]) -> BTreeMap<&[u8], usize> {
    let mut census = BTreeMap::new();
    for frame in frames {
        *census.entry(frame.as_slice()).or_default() += 1;
    }
    census
}

/// Sends frames by a raw socket of the kernel.
pub fn send(interface: &str, frames: &[Vec<u8>]) {
    let mut socket = pcap::Capture::from_device(interface).unwrap().immediate_mode(true).open().unwrap();
    for frame in frames {
        socket.sendpacket(frame.as_slice()).unwrap();
    }
}

/// Writes a classic pcap file (little-endian, microseconds).
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1_u32] {
        bytes.extend(word.to_le_bytes());
    }
    for (i, frame) in frames.iter().enumerate() {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [1_700_000_000 + i as u32, 0, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).unwrap();
}
