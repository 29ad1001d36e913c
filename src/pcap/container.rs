//! What an object may be: container, compression, what it says of its origin, and the counts at its end. Owns these types;
//! not the bytes, which `merge` makes.
//!
//! Invariant: an [`ObjectFormat`] and the ending of a name stand for each other.

use crate::limits::ZSTD_LEVEL_DEFAULT;
use serde::{Deserialize, Serialize};

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

/// What a compressed object unpacks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
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
