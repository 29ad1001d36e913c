//! Any files may be merged, into any format: what comes out is read back whole, with as many packets as were told of. The
//! first byte chooses the format and whether damage is skipped, the second where the first file ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::path::Path;
use trawl::merge::{MergeInput, MergeOptions, Merged, merge_inputs};
use trawl::pcap::{Compression, Container, ObjectFormat};
use trawl::pcap::{Reader, Unpacked};

/// Bytes that each file is unpacked to at most.
const CONTENT_BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [choice, cut, files @ ..] = input else { return };
    let (first, second) = files.split_at(files.len() * usize::from(*cut) / 256);
    let inputs = [first, second].map(|bytes| {
        let Ok(unpacked) = Unpacked::new(bytes) else { return Vec::new() };
        let mut content = Vec::new();
        let _as_far_as_it_goes = unpacked.take(CONTENT_BYTES_MAX).read_to_end(&mut content);
        content
    });
    let format = ObjectFormat {
        container: if choice & 1 == 0 { Container::Pcap } else { Container::PcapNg },
        compression: if choice & 2 == 0 { Compression::None } else { Compression::Zstd },
        level: 1,
    };
    let out = std::env::temp_dir().join(format!("trawl-fuzz-merge-{}", std::process::id()));
    let streams = inputs.iter().map(|bytes| MergeInput::Stream {
        span: None,
        name: "input".into(),
        open: Box::new(|_| Ok(Box::new(&bytes[..]) as Box<dyn Read>)),
    });
    let options = MergeOptions { keep_going: choice & 4 != 0, ..format.into() };
    let merged = merge_inputs(streams.collect(), &out, options, &mut |_| {});
    let Ok(Merged { totals, findings }) = merged else {
        assert!(!Path::new(&out).exists(), "an output that is not whole");
        return;
    };
    let file = std::fs::File::open(&out).expect("it was written");
    std::fs::remove_file(&out).expect("it is there");
    let mut reader = Reader::new(Unpacked::new(file).expect("it is readable")).expect("it is a capture file");
    reader.allow_mixed_links();
    let mut packets = 0;
    while reader.next_record().expect("it is whole").is_some() {
        packets += 1;
    }
    assert_eq!(packets, totals.packets);
    assert!(findings.partial().len() <= inputs.len());
    assert!(findings.lines().iter().all(|line| !line.is_empty()));
});
