//! The 64-byte match key of one frame: what `filter_v1` can ask about, at fixed places. Owns the layout and the parser.
//!
//! Invariant: bytes that a frame does not have are zero, and the flag that would vouch for them is not set.

/// Bits of [`Key`]'s flag byte.
pub mod flags {
    /// The frame has an IPv4 header; addresses and protocol are valid.
    pub const IPV4: u8 = 1;
    /// The frame has an IPv6 header; addresses are valid.
    pub const IPV6: u8 = 1 << 1;
    /// The protocol byte is valid.
    pub const PROTOCOL: u8 = 1 << 2;
    /// The ports are valid: a first or whole TCP, UDP or SCTP packet.
    pub const PORTS: u8 = 1 << 3;
    /// The frame is a fragment (first or later).
    pub const FRAGMENT: u8 = 1 << 4;
}

/// See the module. 64 bytes, so one cache line and one AVX-512 register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Key(pub [u8; 64]);
