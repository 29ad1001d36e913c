//! The prefixes of one account: which packets it may see, whatever its filters say. Owns the table and its lookup.
//!
//! One tree for each IP version, of which each step decides one byte of an address. A node says of each of 256 values of
//! its byte whether all addresses behind it are inside, some, or none; only "some" has a node below. So a lookup costs at
//! most as many steps as the longest prefix has bytes, however many prefixes there are. Rejected: sorted ranges, whose
//! binary search grows with their number; a hash table for each length, whose number a tenant drives up.
//!
//! Invariant: an address is inside exactly if a prefix of its IP version holds it; a packet that is not IP never is.

use crate::packet::{Key, flags, offset};
use ipnet::IpNet;

/// All addresses of one step, by their byte.
#[derive(Clone, Debug, Default)]
struct Node {
    /// Values that are inside with all that is behind them.
    whole: [u64; 4],
    /// Values that have a node below.
    partly: [u64; 4],
    /// Place of the first of those nodes; they stand in the order of their values.
    below: u32,
    /// How many bits of `partly` are set before each of its words.
    before: [u8; 4],
}

/// Where an address goes from a node.
enum Step {
    Inside,
    Outside,
    Below(usize),
}

impl Node {
    #[inline]
    fn step(&self, byte: u8) -> Step {
        let (word, bit) = (usize::from(byte >> 6), 1_u64 << (byte & 63));
        if self.whole[word] & bit != 0 {
            return Step::Inside;
        }
        if self.partly[word] & bit == 0 {
            return Step::Outside;
        }
        let rank = u32::from(self.before[word]) + (self.partly[word] & (bit - 1)).count_ones();
        Step::Below((self.below + rank) as usize)
    }
}

/// A set of prefixes of one IP version.
#[derive(Clone, Debug, Default)]
struct Tree {
    /// All that belong to one node stand together; the root is the first. None: no prefix.
    nodes: Box<[Node]>,
}

impl Tree {
    /// `prefixes` as address bytes and length in bits.
    fn new(prefixes: Vec<(&[u8], u8)>) -> Self {
        if prefixes.is_empty() {
            return Self::default();
        }
        let mut nodes = vec![Node::default()];
        // Breadth first, so that the nodes below one node stand together.
        let mut open = std::collections::VecDeque::from([(0, 0, prefixes)]);
        while let Some((place, depth, prefixes)) = open.pop_front() {
            let mut node = Node { below: nodes.len() as u32, ..Node::default() };
            let mut below: Vec<Vec<(&[u8], u8)>> = vec![Vec::new(); 256];
            for (address, length) in prefixes {
                let bits = usize::from(length).saturating_sub(depth * 8);
                let byte = usize::from(address.get(depth).copied().unwrap_or(0));
                if bits > 8 {
                    below[byte].push((address, length));
                } else {
                    let first = byte & (0xff00_usize >> bits);
                    (first..first + (256 >> bits))
                        .for_each(|value| node.whole[value >> 6] |= 1 << (value & 63));
                }
            }
            for (value, prefixes) in below.into_iter().enumerate() {
                let (word, bit) = (value >> 6, 1 << (value & 63));
                if !prefixes.is_empty() && node.whole[word] & bit == 0 {
                    node.partly[word] |= bit;
                    open.push_back((nodes.len(), depth + 1, prefixes));
                    nodes.push(Node::default());
                }
            }
            for word in 1..4 {
                node.before[word] = node.before[word - 1] + node.partly[word - 1].count_ones() as u8;
            }
            nodes[place] = node;
        }
        Self { nodes: nodes.into() }
    }

    #[inline]
    fn contains(&self, address: &[u8]) -> bool {
        let mut place = 0;
        for &byte in address {
            let Some(node) = self.nodes.get(place) else { return false };
            match node.step(byte) {
                Step::Inside => return true,
                Step::Outside => return false,
                Step::Below(next) => place = next,
            }
        }
        false
    }
}

/// What an account may see. Made once at start, shared by all its captures.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet {
    v4: Tree,
    v6: Tree,
}

impl PrefixSet {
    /// The set of these prefixes; bits behind a prefix's length do not count.
    #[must_use]
    pub fn new(prefixes: &[IpNet]) -> Self {
        let v4: Vec<_> = prefixes
            .iter()
            .filter_map(|net| match net {
                IpNet::V4(net) => Some((net.network().octets(), net.prefix_len())),
                IpNet::V6(_) => None,
            })
            .collect();
        let v6: Vec<_> = prefixes
            .iter()
            .filter_map(|net| match net {
                IpNet::V6(net) => Some((net.network().octets(), net.prefix_len())),
                IpNet::V4(_) => None,
            })
            .collect();
        Self {
            v4: Tree::new(v4.iter().map(|(address, length)| (&address[..], *length)).collect()),
            v6: Tree::new(v6.iter().map(|(address, length)| (&address[..], *length)).collect()),
        }
    }

    /// Whether the packet is from or to one of the prefixes.
    #[inline]
    #[must_use]
    pub fn admits(&self, key: &Key) -> bool {
        // The flag decides and not the address: an IPv6 packet may carry a literal ::ffff:192.0.2.1.
        let (tree, skipped) = match key.flags() & (flags::IPV4 | flags::IPV6) {
            flags::IPV4 => (&self.v4, 12),
            flags::IPV6 => (&self.v6, 0),
            _ => return false,
        };
        let [source, destination] =
            [offset::SOURCE, offset::DESTINATION].map(|at| &key.0[at + skipped..at + 16]);
        tree.contains(source) || tree.contains(destination)
    }
}
