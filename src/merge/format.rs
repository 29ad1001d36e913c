//! How an object is written. Owns the choice of container and compression, what is said in every object of a capture, and
//! what is counted at its end; not the bytes, which `objects` and `seal` make.
//!
//! Invariant: all of it is settled before the first byte of an object that depends on it, and kept beside the spool, so that
//! a merge that is begun again by another process, or another version of it, makes the same bytes.

use crate::limits::ZSTD_LEVEL_DEFAULT;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What packets stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Classic pcap with nanosecond time stamps.
    #[default]
    Pcap,
    /// pcapng: interfaces, counts and comments.
    PcapNg,
}

/// What the container stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// zstd frames one after another, each of up to a block of content.
    Zstd,
}

/// Both, which an object's name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFormat {
    /// `pcap` or `pcapng`.
    pub container: Container,
    /// `none` or `zstd`.
    pub compression: Compression,
    /// Level of zstd.
    pub level: i32,
}

impl Default for ObjectFormat {
    fn default() -> Self {
        Self { container: Container::Pcap, compression: Compression::None, level: ZSTD_LEVEL_DEFAULT }
    }
}

impl ObjectFormat {
    /// How the name of a file of this format ends, with its first dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match (self.container, self.compression) {
            (Container::Pcap, Compression::None) => ".pcap",
            (Container::PcapNg, Compression::None) => ".pcapng",
            (Container::Pcap, Compression::Zstd) => ".pcap.zst",
            (Container::PcapNg, Compression::Zstd) => ".pcapng.zst",
        }
    }

    /// Whether an object is the classic pcap that it always was.
    #[must_use]
    pub fn is_plain(self) -> bool {
        (self.container, self.compression) == (Container::Pcap, Compression::None)
    }
}

/// What every pcapng object of a capture says of where it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// `shb_hardware`.
    pub hardware: String,
    /// `shb_os`.
    pub os: String,
    /// `shb_userappl`.
    pub application: String,
    /// Comments of the section.
    pub comments: Vec<String>,
    /// `if_name` of each queue.
    pub interfaces: Vec<String>,
}

/// How a capture's objects are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Snap length.
    pub snaplen: u32,
    /// Size at which objects are cut, before compression; a single larger record excepted.
    pub object_bytes_max: u64,
    /// Container and compression.
    pub format: ObjectFormat,
    /// What pcapng objects say.
    pub origin: Arc<Origin>,
}

impl Shape {
    /// Classic pcap.
    #[must_use]
    pub fn plain(snaplen: u32, object_bytes_max: u64) -> Self {
        let (format, origin) = (ObjectFormat::default(), Arc::default());
        Self { snaplen, object_bytes_max, format, origin }
    }
}

/// Frames counted over a whole capture and all of its queues, once they are final; for the end of its last pcapng object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// That the ports saw, lost ones included (`isb_ifrecv`).
    pub offered: u64,
    /// That ports lost (`isb_ifdrop`).
    pub port_drops: u64,
    /// That the filter took (`isb_filteraccept`).
    pub matched: u64,
    /// That were taken, and lost for want of memory or disk (`isb_osdrop`).
    pub host_drops: u64,
    /// That are in the objects (`isb_usrdeliv`).
    pub captured: u64,
}
