//! What is unusual in a file of unknown origin. Owns the kinds and their counts; the readers count, the commands print.
//!
//! Invariant: whatever a tolerant reader changes or leaves out of a file is counted here, each kind once.

use std::fmt;

/// A kind of deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Packets with more bytes captured than the packet had on the wire.
    Lengths,
    /// Packets whose fraction of a second is one second or more.
    Fraction,
    /// Packets whose time is finer than a nanosecond.
    FinerTime,
    /// Packets whose time no count of nanoseconds since 1970 can be.
    FarTime,
    /// Packets that have no time: those of simple packet blocks.
    NoTime,
    /// Zero bytes behind the last packet.
    ZeroTail,
    /// Blocks of secrets, such as TLS keys.
    Secrets,
    /// Blocks of name resolution.
    Names,
    /// Blocks of interface statistics.
    Statistics,
    /// Entries of the systemd journal.
    Journal,
    /// Custom blocks.
    Custom,
    /// Blocks of other types.
    OtherBlocks,
    /// Comments of packets.
    PacketComments,
    /// Other options of packets, such as flags.
    PacketOptions,
    /// Options of interfaces beyond name, resolution, offset and length of the check sequence.
    InterfaceOptions,
    /// Options of sections.
    SectionOptions,
    /// Inputs that give the length of a frame check sequence.
    CheckSequence,
}

impl Oddity {
    /// Every kind, in the order in which they are told.
    pub const ALL: [Self; 17] = [
        Self::Lengths,
        Self::Fraction,
        Self::FinerTime,
        Self::FarTime,
        Self::NoTime,
        Self::ZeroTail,
        Self::Secrets,
        Self::Names,
        Self::Statistics,
        Self::Journal,
        Self::Custom,
        Self::OtherBlocks,
        Self::PacketComments,
        Self::PacketOptions,
        Self::InterfaceOptions,
        Self::SectionOptions,
        Self::CheckSequence,
    ];

    /// What was done about so many of them.
    #[must_use]
    pub fn describe(self, count: u64) -> String {
        let (one, many, done) = match self {
            Self::Lengths => (
                "packet has",
                "packets have",
                "more bytes captured than on the wire; the length on the wire was raised",
            ),
            Self::Fraction => (
                "packet has",
                "packets have",
                "a fraction of one second or more; it was carried over to the seconds",
            ),
            Self::FinerTime => {
                ("packet time is", "packet times are", "finer than a nanosecond; the rest was cut off")
            }
            Self::FarTime => {
                ("packet time is", "packet times are", "before 1970 or after 2554; the nearest one was taken")
            }
            Self::NoTime => {
                ("packet has", "packets have", "no time (a simple packet block); it is written as 1970")
            }
            Self::ZeroTail => {
                ("zero byte", "zero bytes", "behind the last packet (a preallocated file) were skipped")
            }
            _ => return self.left_out(count),
        };
        format!("{count} {} {done}", if count == 1 { one } else { many })
    }

    fn left_out(self, count: u64) -> String {
        let (one, many) = match self {
            Self::Secrets => ("block of secrets (TLS keys)", "blocks of secrets (TLS keys)"),
            Self::Names => ("block of name resolution", "blocks of name resolution"),
            Self::Statistics => ("block of interface statistics", "blocks of interface statistics"),
            Self::Journal => ("systemd journal entry", "systemd journal entries"),
            Self::Custom => ("custom block", "custom blocks"),
            Self::OtherBlocks => ("block of another type", "blocks of other types"),
            Self::PacketComments => ("packet comment", "packet comments"),
            Self::PacketOptions => ("packet option", "packet options"),
            Self::InterfaceOptions => ("interface option", "interface options"),
            Self::SectionOptions => ("section option", "section options"),
            _ => ("length of a frame check sequence", "lengths of frame check sequences"),
        };
        format!("{count} {} not kept", if count == 1 { one } else { many })
    }

    /// Whether the packets are changed, and not only what stands beside them.
    #[must_use]
    pub fn is_put_right(self) -> bool {
        matches!(
            self,
            Self::Lengths | Self::Fraction | Self::FinerTime | Self::FarTime | Self::NoTime | Self::ZeroTail
        )
    }

    /// Whether a pcapng output keeps what a pcap output cannot.
    #[must_use]
    pub fn is_kept_by_pcapng(self) -> bool {
        matches!(
            self,
            Self::Secrets
                | Self::Names
                | Self::Custom
                | Self::PacketComments
                | Self::PacketOptions
                | Self::CheckSequence
        )
    }
}

/// How often each kind was met.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities([u64; Oddity::ALL.len()]);

impl Oddities {
    pub(crate) fn add(&mut self, oddity: Oddity, count: u64) {
        self.0[oddity as usize] += count;
    }

    /// How often this kind was met.
    #[must_use]
    pub fn count(&self, oddity: Oddity) -> u64 {
        self.0[oddity as usize]
    }
}

impl fmt::Debug for Oddities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = Oddity::ALL.iter().map(|oddity| (oddity, self.count(*oddity)));
        f.debug_map().entries(met.filter(|(_, count)| *count > 0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_of_its_own_and_its_number_in_its_text() {
        for (place, oddity) in Oddity::ALL.into_iter().enumerate() {
            assert_eq!(oddity as usize, place);
            for count in [1, 256] {
                assert!(oddity.describe(count).starts_with(&format!("{count} ")), "{oddity:?}");
            }
        }
    }
}
