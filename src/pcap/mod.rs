//! The pcap file format. Owns header and record layout, the streaming reader, unpacking and the writers; not what packets mean.
//!
//! Invariant: any bytes are a legal input; a reader never panics and never allocates by what a length field claims.

pub mod format;

pub(crate) mod blocks;
pub(crate) mod boundary;
mod buffer;
mod care;
mod classic;
mod container;
mod error;
mod interface;
mod ng;
mod oddity;
mod options;
mod place;
mod reader;
#[cfg(test)]
mod tests;
mod unpack;
mod writer;

pub use care::Tolerance;
pub use container::{Compression, Container, Content, Counts, ObjectFormat, Origin};
pub use error::ReadError;
pub use format::{file_header, record_header};
pub(crate) use interface::InterfaceInfo;
pub use oddity::{Oddities, Oddity};
pub(crate) use options::Options;
pub(crate) use place::Place;
pub use place::Record;
pub use reader::Reader;
pub use unpack::Unpacked;
pub use writer::Writer;
