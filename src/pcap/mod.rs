//! The pcap file format. Owns header and record layout, the streaming reader and the writer; not what packets mean.
//!
//! Invariant: any bytes are a legal input; a reader never panics and never allocates by what a length field claims.

pub mod format;

mod buffer;
mod error;
mod ng;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use error::ReadError;
pub use format::{file_header, record_header};
pub(crate) use reader::Place;
pub use reader::{Reader, Record};
pub use writer::Writer;
