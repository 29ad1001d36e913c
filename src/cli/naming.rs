//! What an output's name promises. Owns the formats that names stand for, and the refusal of those that are not offered.
//!
//! Invariant: no file is written whose name says that it is something else; names are compared without regard to case.

use super::args::{CompressionArg, FormatArg, WriteArgs};
use crate::pcap::{Compression, Container, ObjectFormat};
use std::path::{Path, PathBuf};

/// Endings of names that say how a file is packed, in ways that are not offered.
const PACKED: &[&str] = &[
    "gz", "gzip", "tgz", "bz2", "bz", "tbz", "xz", "txz", "lzma", "lz", "lz4", "lzo", "br", "z", "zip", "7z",
    "rar", "tar", "sz", "snappy",
];

/// Endings of names of other formats for packets, or for what is made of them.
const OTHER: &[&str] = &[
    "erf", "snoop", "5vw", "trc", "etl", "enc", "ncf", "json", "ek", "csv", "txt", "xml", "pdml", "psml",
    "html", "parquet", "ps", "pdf",
];

/// A name that promises what is not offered.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Another way of packing.
    #[error(
        "{}: .{ending} is not offered; name it .pcap, .pcapng, .pcap.zst or .pcapng.zst, or pack standard output (`trawl … -o - | gzip >OUT`)",
        path.display()
    )]
    Packed {
        /// The output.
        path: PathBuf,
        /// How its name ends.
        ending: String,
    },
    /// Another format.
    #[error("{}: .{ending} is not offered; name it .pcap, .pcapng, .pcap.zst or .pcapng.zst", path.display())]
    Other {
        /// The output.
        path: PathBuf,
        /// How its name ends.
        ending: String,
    },
    /// Not what a simple capture's file is.
    #[error("{}: the file of a simple capture is a plain pcap; name it .pcap, then `trawl merge -o {0}`", path.display())]
    NotPlain {
        /// The output.
        path: PathBuf,
    },
}

/// As typed, otherwise as the output's name tells, otherwise plain pcap.
///
/// # Errors
/// [`NameError`] when the name promises what is not offered.
pub fn format(output: &Path, args: &WriteArgs) -> Result<ObjectFormat, NameError> {
    let by_name = by_name(output)?;
    Ok(ObjectFormat {
        container: args.format.map_or(by_name.container, Container::from),
        compression: args.compression.map_or(by_name.compression, Compression::from),
        level: args.level,
    })
}

/// Refuses a name for a file that is plain pcap and nothing else.
///
/// # Errors
/// [`NameError`].
pub fn plain(output: &Path) -> Result<(), NameError> {
    if by_name(output)?.is_plain() { Ok(()) } else { Err(NameError::NotPlain { path: output.to_owned() }) }
}

/// What a name promises.
fn by_name(output: &Path) -> Result<ObjectFormat, NameError> {
    let name = output.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let unpacked = name.strip_suffix(".zst").or_else(|| name.strip_suffix(".zstd"));
    let compression = if unpacked.is_some() { Compression::Zstd } else { Compression::None };
    let ending = unpacked.unwrap_or(&name).rsplit_once('.').map_or("", |(_, ending)| ending);
    let (path, told) = (output.to_owned(), ending.to_owned());
    if PACKED.contains(&ending) {
        return Err(NameError::Packed { path, ending: told });
    }
    if OTHER.contains(&ending) {
        return Err(NameError::Other { path, ending: told });
    }
    let container = if matches!(ending, "pcapng" | "ntar") { Container::PcapNg } else { Container::Pcap };
    Ok(ObjectFormat { container, compression, ..ObjectFormat::default() })
}

impl From<FormatArg> for Container {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Pcap => Self::Pcap,
            FormatArg::Pcapng => Self::PcapNg,
        }
    }
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Self::None,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_outputs_name_tells_the_format_unless_it_is_typed() {
        let format = |arguments: &[&str]| {
            let typed = ["trawl", "merge", "in"].iter().chain(arguments);
            match crate::cli::args::Cli::try_parse_from(typed).unwrap().command {
                crate::cli::args::Command::Merge(args) => {
                    super::format(&args.output, &args.write).unwrap().extension()
                }
                other => panic!("{other:?}"),
            }
        };
        for (arguments, extension) in [
            (&["-w", "x"][..], ".pcap"),
            (&["-o", "x.pcapng.zst"], ".pcapng.zst"),
            (&["-o", "x.PcapNG.ZST"], ".pcapng.zst"),
            (&["-o", "x.PCAPNG"], ".pcapng"),
            (&["-o", "x.pcap.zst"], ".pcap.zst"),
            (&["-o", "x.cap.zstd"], ".pcap.zst"),
            (&["--format", "pcapng", "--compression", "zstd"], ".pcapng.zst"),
            (&["-o", "x.pcapng.zst", "--format", "pcap", "--compression", "none"], ".pcap"),
        ] {
            assert_eq!(format(arguments), extension, "{arguments:?}");
        }
    }

    #[test]
    fn names_that_promise_what_is_not_offered_are_refused() {
        for name in ["x.pcap.gz", "x.PCAP.GZ", "d/x.lz4", "x.pcapng.Xz", "x.tar.zst", "x.gz.zst", "x.bz2"] {
            assert!(matches!(by_name(Path::new(name)), Err(NameError::Packed { .. })), "{name}");
        }
        for name in ["x.erf", "x.JSON", "x.csv.zst"] {
            assert!(matches!(by_name(Path::new(name)), Err(NameError::Other { .. })), "{name}");
        }
        for name in ["gz", "x.gz.pcap", "x.pcap", "x.dump", "-", "/dev/fd/63", "a.gz/x"] {
            assert!(by_name(Path::new(name)).unwrap().is_plain(), "{name}");
        }
        for name in ["x.pcapng", "x.pcap.zst"] {
            assert!(matches!(plain(Path::new(name)), Err(NameError::NotPlain { .. })), "{name}");
        }
    }
}
