//! A device as the config names it: a PCI address or a vdev string. Owns what can be known before DPDK is asked: files
//! that must be readable, and the buffers that a driver silently relies on; not the port.
//!
//! Invariant: a device that passes here cannot make its driver write or point past the buffers that we give it.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::drivers::Bus;

/// Drivers known to deliver a long frame in several buffers although they do not announce it.
const CHAINING: &[&str] = &["net_pcap", "net_ring"];

/// What is wrong with a device before DPDK sees it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a name that could be a device.
    #[error(
        "device {device:?}: {reason}; write a PCI address (`0000:01:00.0`) or a vdev (`net_pcap0,rx_pcap=/file`)"
    )]
    Syntax {
        /// As configured.
        device: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file of `net_pcap` that cannot be used.
    #[error("device {device:?} cannot replay {}: {source}; check the path, its permissions and format", path.display())]
    PcapFile {
        /// As configured.
        device: String,
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A parsed device string.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Device {
    /// As configured: what DPDK is given.
    pub string: String,
    /// The part before the first comma.
    pub name: String,
    /// What stands behind it.
    pub rest: String,
    arguments: Vec<(String, String)>,
}

/// What the buffers of a queue must hold at least, or the driver misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Needs {
    /// Data bytes of each buffer.
    pub data_bytes: u32,
    /// No frame is longer than `data_bytes`, so bigger buffers are of no use.
    pub exact: bool,
    /// Buffers that the driver keeps for itself.
    pub buffers: u32,
}

impl Device {
    pub fn parse(string: &str) -> Result<Self, DeviceError> {
        let error = |reason| DeviceError::Syntax { device: string.to_owned(), reason };
        let mut parts = string.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(error("it has no name"));
        }
        let arguments: Vec<(String, String)> = parts
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                (key.to_owned(), value.to_owned())
            })
            .collect();
        let is_blank = |name: &String| name.contains(char::is_whitespace);
        if string.contains('\0') || is_blank(&name) || arguments.iter().any(|(key, _)| is_blank(key)) {
            return Err(error("a blank or zero byte is in it"));
        }
        let rest = string.split_once(',').map_or("", |(_, rest)| rest).to_owned();
        Ok(Self { string: string.to_owned(), name, rest, arguments })
    }

    /// The PCI address with its domain, if the device is named by one.
    pub fn pci_address(&self) -> Option<String> {
        match Bus::of(&self.name) {
            Bus::Pci(address) => Some(address),
            Bus::Other | Bus::Virtual => None,
        }
    }

    /// Whether long frames come in several buffers although the driver does not say so.
    pub fn chains(&self) -> bool {
        CHAINING.iter().any(|driver| self.is_driven_by(driver))
    }

    /// Whether the driver makes its frames up, all of the length that it is told.
    pub fn makes_its_frames(&self) -> bool {
        self.is_driven_by("net_null")
    }

    /// Whether the driver receives nothing, without a word, unless it has TX queues too.
    pub fn wants_tx(&self) -> bool {
        self.is_driven_by("net_vhost") || self.is_driven_by("eth_vhost")
    }

    /// What to do about frames that are longer than a buffer.
    pub fn room_advice(&self) -> &'static str {
        if self.is_driven_by("net_af_packet") || self.is_driven_by("eth_af_packet") {
            "; raise `framesz`, and `blocksz` to a multiple of it, in the device's arguments"
        } else {
            ""
        }
    }

    /// A vdev is the driver's name and a number or word of one's own choice.
    pub fn is_driven_by(&self, driver: &str) -> bool {
        self.name.starts_with(driver)
    }

    /// Checks files, and finds what the driver relies on in its buffers.
    pub fn needs(&self) -> Result<Needs, DeviceError> {
        let mut needs = Needs::default();
        if self.is_driven_by("net_null") {
            // The driver sets this length in every buffer without looking at the buffer's size.
            needs = Needs { data_bytes: self.number("size").unwrap_or(64), exact: true, buffers: 0 };
        } else if self.is_driven_by("net_af_packet") || self.is_driven_by("eth_af_packet") {
            // It refuses buffers that are smaller than its ring's frames, whose size defaults to 2048.
            needs = Needs { data_bytes: self.number("framesz").unwrap_or(2048), exact: true, buffers: 0 };
        } else if self.is_driven_by("net_pcap") {
            let infinite = self.number("infinite_rx").is_some_and(|value| value > 0);
            for (_, path) in self.arguments.iter().filter(|(key, _)| key == "rx_pcap") {
                let contents = survey(Path::new(path), infinite).map_err(|source| DeviceError::PcapFile {
                    device: self.string.clone(),
                    path: path.into(),
                    source,
                })?;
                if infinite {
                    // It keeps a copy of the whole file in the queue's buffers, one packet each.
                    needs.data_bytes = needs.data_bytes.max(contents.frame_bytes_max);
                    needs.buffers = needs.buffers.max(contents.frames);
                }
            }
        } else if self.is_driven_by("net_af_xdp") {
            // It fills its own ring of twice 2048 descriptors from the pool at once, whatever number is asked for.
            // The kernel takes no buffer that is longer than a page with its headers.
            needs = Needs { data_bytes: 2048, exact: true, buffers: 4096 };
        }
        Ok(needs)
    }

    /// How many RX queues the device string itself opens, where it does: each takes its share of the frames, so all must
    /// be polled.
    pub fn listed_queues(&self) -> Option<u16> {
        let number = if self.is_driven_by("net_pcap") {
            let is_source = |key: &str| matches!(key, "rx_pcap" | "rx_iface" | "rx_iface_in" | "iface");
            u32::try_from(self.arguments.iter().filter(|(key, _)| is_source(key)).count()).ok()?
        } else if self.is_driven_by("net_af_packet") || self.is_driven_by("eth_af_packet") {
            self.number("qpairs").unwrap_or(1)
        } else if self.is_driven_by("net_af_xdp") {
            self.number("queue_count").unwrap_or(1)
        } else {
            return None;
        };
        u16::try_from(number).ok()
    }

    /// A number as C's `strtoul` reads it, but for octal: what it would make of more digits is smaller than ours.
    fn number(&self, key: &str) -> Option<u32> {
        let (_, value) = self.arguments.iter().rev().find(|(name, _)| name == key)?;
        let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
        let (digits, radix) = hex.map_or((value.as_str(), 10), |digits| (digits, 16));
        let end = digits.find(|digit: char| !digit.is_digit(radix)).unwrap_or(digits.len());
        if end == 0 { Some(0) } else { Some(u32::from_str_radix(&digits[..end], radix).unwrap_or(u32::MAX)) }
    }
}

/// What a capture file holds, as far as buffers depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Contents {
    frames: u32,
    frame_bytes_max: u32,
}

/// Checks that a file is pcap or pcapng, and walks it `whole` by its lengths or not at all. A torn end is no error: libpcap too delivers what is before it.
fn survey(path: &Path, whole: bool) -> io::Result<Contents> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(|_| not_a_capture())?;
    match magic {
        [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1]
        | [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d]
        | [0x0a, 0x0d, 0x0d, 0x0a]
            if !whole =>
        {
            Ok(Contents::default())
        }
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => survey_pcap(&mut file, u32::from_le_bytes),
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => survey_pcap(&mut file, u32::from_be_bytes),
        [0x0a, 0x0d, 0x0d, 0x0a] => survey_pcapng(&mut file),
        _ => Err(not_a_capture()),
    }
}

fn not_a_capture() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no pcap or pcapng file")
}

fn survey_pcap(file: &mut BufReader<File>, number: fn([u8; 4]) -> u32) -> io::Result<Contents> {
    file.seek(SeekFrom::Start(24))?;
    let mut contents = Contents::default();
    let mut header = [0; 16];
    while file.read_exact(&mut header).is_ok() {
        let bytes = number([header[8], header[9], header[10], header[11]]);
        contents.frames = contents.frames.saturating_add(1);
        contents.frame_bytes_max = contents.frame_bytes_max.max(bytes);
        file.seek_relative(i64::from(bytes))?;
    }
    Ok(contents)
}

fn survey_pcapng(file: &mut BufReader<File>) -> io::Result<Contents> {
    const SECTION: u32 = 0x0a0d_0d0a;
    const PACKET_BLOCKS: [u32; 3] = [2, 3, 6];
    let mut number: fn([u8; 4]) -> u32 = u32::from_le_bytes;
    let mut contents = Contents::default();
    let mut head = [0; 12];
    file.seek(SeekFrom::Start(0))?;
    while file.read_exact(&mut head).is_ok() {
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        if u32::from_be_bytes(word(0)) == SECTION {
            number =
                if word(8) == [0x1a, 0x2b, 0x3c, 0x4d] { u32::from_be_bytes } else { u32::from_le_bytes };
        }
        let block_bytes = number(word(4));
        if block_bytes < 12 {
            return Err(not_a_capture());
        }
        if PACKET_BLOCKS.contains(&number(word(0))) {
            contents.frames = contents.frames.saturating_add(1);
            // The block with its framing is a little longer than the frame: enough for a lower bound on buffers.
            contents.frame_bytes_max = contents.frame_bytes_max.max(block_bytes - 12);
        }
        file.seek_relative(i64::from(block_bytes) - 12)?;
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn pcap(lengths: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1];
        bytes.resize(24, 0);
        for &length in lengths {
            bytes.extend([0; 8]);
            bytes.extend(length.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.resize(bytes.len() + length as usize, 7);
        }
        bytes
    }

    #[test]
    fn a_name_is_needed_and_blanks_are_refused() {
        for string in ["", ",size=1", "net_null0, size=1", "net\0"] {
            assert!(matches!(Device::parse(string), Err(DeviceError::Syntax { .. })), "{string:?}");
        }
    }

    #[test]
    fn buffers_hold_what_the_driver_takes_for_granted() {
        let needs = |string: &str| Device::parse(string).unwrap().needs().unwrap();
        assert_eq!(needs("net_null0").data_bytes, 64);
        assert_eq!(needs("net_null0,size=9000").data_bytes, 9000);
        assert_eq!(needs("net_null0,size=0x100").data_bytes, 256);
        assert_eq!(needs("net_af_packet0,iface=x,framesz=16384").data_bytes, 16384);
        assert_eq!(needs("net_ring0"), Needs::default());
    }

    #[test]
    fn an_endless_replay_needs_a_buffer_for_every_frame_of_its_file() {
        let file = file_of(&pcap(&[60, 9000, 0]));
        let path = file.path().display();
        let device = Device::parse(&format!("net_pcap0,rx_pcap={path},infinite_rx=1")).unwrap();
        assert_eq!(device.needs().unwrap(), Needs { data_bytes: 9000, exact: false, buffers: 3 });
        assert_eq!(device.listed_queues(), Some(1));
        let once = Device::parse(&format!("net_pcap0,rx_pcap={path},rx_pcap={path}")).unwrap();
        assert_eq!(once.needs().unwrap(), Needs::default());
        assert_eq!(once.listed_queues(), Some(2));
    }

    #[test]
    fn numbers_are_read_as_the_drivers_read_them() {
        let size = |value: &str| {
            Device::parse(&format!("net_null0,size={value}")).unwrap().needs().unwrap().data_bytes
        };
        assert_eq!([size("12x"), size("x"), size("0X10"), size("99999999999")], [12, 0, 16, u32::MAX]);
    }

    #[test]
    fn pcapng_blocks_are_counted() {
        let block = |kind: u32, body: &[u8]| {
            let bytes = 12 + u32::try_from(body.len()).unwrap();
            [&kind.to_le_bytes()[..], &bytes.to_le_bytes(), body, &bytes.to_le_bytes()].concat()
        };
        let section = block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        let file = file_of(&[section, block(1, &[0; 8]), block(6, &[0; 120]), block(3, &[0; 64])].concat());
        assert_eq!(survey(file.path(), true).unwrap(), Contents { frames: 2, frame_bytes_max: 120 });
    }

    #[test]
    fn a_file_that_is_missing_or_no_capture_is_named() {
        let other = file_of(b"hello, world");
        for path in ["/nonexistent/x.pcap".into(), other.path().display().to_string()] {
            let device = Device::parse(&format!("net_pcap0,rx_pcap={path}")).unwrap();
            let message = device.needs().unwrap_err().to_string();
            assert!(message.contains(&path), "{message}");
        }
    }
}
