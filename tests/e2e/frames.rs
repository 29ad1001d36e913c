//! Frames in files: reading, writing, and what `tshark` and `capinfos` say of them. Owns no expectation.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The recorded frames of real programs.
pub fn real_pcap() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real.pcap")
}

/// All frames of a pcap file with their time stamps in ns, by libpcap: a reader that is not ours.
pub fn read(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut file = pcap::Capture::from_file_with_precision(path, pcap::Precision::Nano)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut frames = Vec::new();
    loop {
        match file.next_packet() {
            Ok(packet) => {
                let stamp = packet.header.ts;
                // With nanosecond precision libpcap puts nanoseconds into `tv_usec`.
                let ns = stamp.tv_sec as u64 * 1_000_000_000 + stamp.tv_usec as u64;
                assert_eq!(
                    packet.header.caplen,
                    packet.header.len,
                    "{}: a full capture cuts no frame",
                    path.display()
                );
                frames.push((ns, packet.data.to_vec()));
            }
            Err(pcap::Error::NoMorePackets) => return frames,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// How often each frame occurs.
pub fn tally<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> HashMap<Vec<u8>, u64> {
    let mut counts = HashMap::new();
    for frame in frames {
        *counts.entry(frame.to_vec()).or_default() += 1;
    }
    counts
}

/// The frames of a file that `tshark` selects by a display filter.
pub fn select(path: &Path, display_filter: &str) -> Vec<Vec<u8>> {
    let output =
        run("tshark", &["-n", "-r", &text(path), "-Y", display_filter, "-T", "fields", "-e", "frame.number"]);
    let frames = read(path);
    let select = |line: &str| frames[line.trim().parse::<usize>().unwrap() - 1].1.clone();
    output.lines().map(select).collect()
}

/// The number of packets by `capinfos`, which reads the whole file and fails on a cut one.
pub fn capinfos_packets(path: &Path) -> u64 {
    let output = run("capinfos", &["-M", "-c", &text(path)]);
    let line = output
        .lines()
        .find(|line| line.starts_with("Number of packets"))
        .unwrap_or_else(|| panic!("{output}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What a `.zst` file holds, by the `zstd` program, in a folder of its own; none for other files.
pub fn unpack(path: &Path) -> Option<(TempDir, PathBuf)> {
    let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".zst")?;
    let folder = tempfile::tempdir().unwrap();
    let unpacked = folder.path().join(name);
    run("zstd", &["-q", "-d", &text(path), "-o", &text(&unpacked)]);
    Some((folder, unpacked))
}

/// What `capinfos` and, of each block, `tshark` say of a pcapng file.
pub fn describe(path: &Path) -> (String, String) {
    let path = &text(path);
    let blocks = ["-r", path, "-X", "read_format:MIME Files Format", "-V"];
    (run("capinfos", &[path]), run("tshark", &blocks))
}

/// Writes a pcap file of the given frames.
pub fn write<'a>(path: &Path, frames: impl IntoIterator<Item = &'a [u8]>) {
    let mut file = File::create(path).unwrap();
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    // Magic number, version 2.4, two unused, snap length, Ethernet.
    file.write_all(&words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1])).unwrap();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        file.write_all(&words(&[1_700_000_000, 0, length, length])).unwrap();
        file.write_all(frame).unwrap();
    }
}

/// Runs a tool and gives what it prints.
#[track_caller]
fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}; scripts/install-deps.sh installs it"));
    assert!(output.status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
