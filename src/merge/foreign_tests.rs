//! Files that other programs write, odd and damaged ones among them: read as `tshark` reads them, with what was changed told.

use super::formats::output;
use super::*;
use crate::pcap::{Oddity, ReadError};

/// Bytes of a packet's data.
const DATA: [u8; 60] = [7; 60];

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Layout {
    big_endian: bool,
}

const LITTLE: Layout = Layout { big_endian: false };
const BIG: Layout = Layout { big_endian: true };

impl Layout {
    fn words(self, words: &[u32]) -> Vec<u8> {
        let word = |word: &u32| if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
        words.iter().flat_map(word).collect()
    }

    fn halves(self, halves: &[u16]) -> Vec<u8> {
        let half = |half: &u16| if self.big_endian { half.to_be_bytes() } else { half.to_le_bytes() };
        halves.iter().flat_map(half).collect()
    }

    /// A classic file: its records are seconds, fraction, captured, wire; each has `extension` behind its header.
    fn classic(
        self,
        magic: u32,
        version: [u16; 2],
        link: u32,
        extension: &[u8],
        records: &[[u32; 4]],
    ) -> Vec<u8> {
        let mut file = self.words(&[magic]);
        file.extend(self.halves(&version));
        file.extend(self.words(&[0, 0, 0, link]));
        for record in records {
            file.extend(self.words(record));
            file.extend(extension);
            file.extend(DATA);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let bytes = body.len().next_multiple_of(4) as u32 + 12;
        let mut block = self.words(&[kind, bytes]);
        block.extend(body);
        block.resize(bytes as usize - 4, 0);
        block.extend(self.words(&[bytes]));
        block
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = self.halves(&[code, value.len() as u16]);
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn section(self, options: &[u8]) -> Vec<u8> {
        let mut body = self.words(&[0x1a2b_3c4d]);
        body.extend(self.halves(&[1, 0]));
        body.extend([0xff; 8]);
        body.extend(options);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link_type: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
        let fields = [self.halves(&[link_type, 0]), self.words(&[snaplen])].concat();
        self.block(1, &[&fields, options].concat())
    }

    /// An enhanced packet block.
    fn packet(self, time: u64, wire: u32, options: &[u8]) -> Vec<u8> {
        let fields = self.words(&[0, (time >> 32) as u32, time as u32, DATA.len() as u32, wire]);
        self.block(6, &[&fields, &DATA[..], options].concat())
    }

    fn secrets(self, text: &[u8]) -> Vec<u8> {
        let fields = self.words(&[0x544c_534b, text.len() as u32]);
        self.block(10, &[&fields, text].concat())
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn merge(&self, inputs: &[PathBuf], out: &str, keep_going: bool) -> Result<Merged, MergeError> {
        let container = if out.ends_with("ng") { Container::PcapNg } else { Container::Pcap };
        let format = ObjectFormat { container, ..ObjectFormat::default() };
        let inputs = inputs.iter().cloned().map(MergeInput::File).collect();
        let options = MergeOptions { keep_going, ..format.into() };
        merge_inputs(inputs, &self.path(out), options, &mut |_| {})
    }
}

/// Time, length and captured length of each packet, as `tshark` reads them; a file that ends early is read as far as it goes.
fn seen(path: &Path) -> Option<Vec<String>> {
    let fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len"];
    let Ok(tshark) = Command::new("tshark").arg("-nr").arg(path).args(fields).output() else {
        crate::skip::skip("tshark", "scripts/install-deps.sh installs it");
        return None;
    };
    Some(
        String::from_utf8(tshark.stdout)
            .unwrap()
            .lines()
            .filter(|l| !l.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn every_kind_of_classic_file_is_merged_as_tshark_reads_it() {
    let folder = Folder::new();
    let usual = [[1_700_000_000, 5, 60, 60], [1_700_000_001, 999_999, 60, 1000]];
    let swapped = [[1_700_000_000, 5, 60, 60], [1_700_000_001, 999_999, 1000, 60]];
    let mut files = vec![
        ("fcs", LITTLE.classic(0xa1b2_c3d4, [2, 4], 1 | 1 << 26 | 2 << 28, &[], &usual)),
        ("version2", LITTLE.classic(0xa1b2_c3d4, [2, 2], 1, &[], &swapped)),
        ("version5", LITTLE.classic(0xa1b2_c3d4, [2, 5], 1, &[], &usual)),
    ];
    for layout in [LITTLE, BIG] {
        let extension = [layout.words(&[3]), layout.halves(&[8]), vec![0, 0]].concat();
        files.extend([
            ("us", layout.classic(0xa1b2_c3d4, [2, 4], 1, &[], &usual)),
            ("ns", layout.classic(0xa1b2_3c4d, [2, 4], 1, &[], &usual)),
            ("modified", layout.classic(0xa1b2_cd34, [2, 4], 1, &extension, &usual)),
            ("version3", layout.classic(0xa1b2_c3d4, [2, 3], 1, &[], &swapped)),
        ]);
        let mut ixia = layout.classic(0x1c00_01ac, [2, 4], 1, &[], &usual);
        ixia.splice(24..24, layout.words(&[152]));
        files.push(("ixia", ixia));
    }
    for (name, bytes) in files {
        let file = folder.file(name, &bytes);
        for out in ["out.pcap", "out.pcapng"] {
            let merged = folder.merge(std::slice::from_ref(&file), out, false).unwrap();
            assert_eq!((merged.totals.packets, merged.findings.lines()), (2, vec![]), "{name}");
            let Some(expected) = seen(&file) else { return };
            assert_eq!((seen(&folder.path(out)).unwrap(), expected.len()), (expected, 2), "{name}");
        }
    }
    // What was known of check sequences still is.
    let out = folder.file("again", &LITTLE.classic(0xa1b2_c3d4, [2, 4], 1 | 1 << 26 | 2 << 28, &[], &usual));
    folder.merge(&[out], "fcs.pcap", false).unwrap();
    assert_eq!(std::fs::read(folder.path("fcs.pcap")).unwrap()[20..24], [1, 0, 0, 0x24]);
}

#[test]
fn times_of_every_resolution_and_text_of_any_bytes_are_read() {
    let folder = Folder::new();
    for (resolution, time, ns) in [
        (12, 17_250_000_000_000_u64, 17_250_000_000_u64),
        (9, 17_250_000_000, 17_250_000_000),
        (6, 17_250_000, 17_250_000_000),
        (0, 17, 17_000_000_000),
        (0x80 | 10, 17 << 10 | 256, 17_250_000_000),
        (0x80 | 32, 17 << 32 | 1 << 30, 17_250_000_000),
        (0x80 | 59, 17 << 59 | 1 << 57, 17_250_000_000),
    ] {
        for layout in [LITTLE, BIG] {
            let options = [
                layout.option(9, &[resolution]),
                layout.option(2, b"Ger\xe4t"),
                layout.option(3, b"\xff\xfe"),
            ];
            let file = folder.file(
                "in.pcapng",
                &[
                    layout.section(&layout.option(2, b"CPU \xe9")),
                    layout.interface(1, 0, &options.concat()),
                    layout.packet(time, 60, &[]),
                ]
                .concat(),
            );
            let merged = folder.merge(&[file], "out.pcapng", false).unwrap();
            assert_eq!((merged.totals.packets, merged.totals.first_ns), (1, ns), "{resolution:#x}");
            let bytes = std::fs::read(folder.path("out.pcapng")).unwrap();
            assert!(bytes.windows(6).any(|text| text == "Gerät".as_bytes()));
        }
    }
}

#[test]
fn what_tshark_takes_although_it_is_wrong_is_put_right_and_counted() {
    let folder = Folder::new();
    let odd = [[10, 5, 60, 40], [11, 1_500_000, 60, 60], [13, 0, 60, 60]];
    let file = folder.file("odd.pcap", &LITTLE.classic(0xa1b2_c3d4, [2, 4], 1, &[], &odd));
    let merged = folder.merge(std::slice::from_ref(&file), "out.pcap", false).unwrap();
    assert_eq!(merged.totals.packets, 3);
    assert_eq!(merged.findings.count(Oddity::Lengths), 1);
    assert_eq!(merged.findings.count(Oddity::Fraction), 1);
    let packets = read(&std::fs::read(folder.path("out.pcap")).unwrap());
    let times: Vec<_> = packets.iter().map(|(ns, wire, _)| (*ns, *wire)).collect();
    assert_eq!(times, [(10_000_005_000, 60), (12_500_000_000, 60), (13_000_000_000, 60)]);
    let lines = merged.findings.lines().join("\n");
    assert!(lines.contains("1 packet has") && lines.contains("odd.pcap"), "{lines}");
    if let Some(expected) = seen(&file) {
        assert_eq!(expected.len(), 3, "{expected:?}");
    }
    let ng = [LITTLE.section(&[]), LITTLE.interface(1, 0, &[]), LITTLE.packet(1, 40, &[])].concat();
    let merged = folder.merge(&[folder.file("odd.pcapng", &ng)], "out.pcap", false).unwrap();
    assert_eq!(merged.findings.count(Oddity::Lengths), 1);
    // An exact reader, which checks this program's own files, takes none of it.
    for bytes in [std::fs::read(file).unwrap(), ng] {
        let mut reader = match Reader::new(&bytes[..]) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(matches!(error, ReadError::Field { .. }), "{error}");
                continue;
            }
        };
        assert!(matches!(reader.next_record(), Err(ReadError::Field { .. })));
    }
}

#[test]
fn the_zero_tail_of_a_preallocated_file_is_no_packets() {
    let folder = Folder::new();
    let classic = LITTLE.classic(0xa1b2_3c4d, [2, 4], 1, &[], &[[10, 5, 60, 60], [11, 5, 60, 60]]);
    let ng = [
        LITTLE.section(&[]),
        LITTLE.interface(1, 0, &[]),
        LITTLE.packet(1, 60, &[]),
        LITTLE.packet(2, 60, &[]),
    ];
    for (whole, step) in [
        (classic.clone(), 1),
        (ng.concat(), 1),
        (BIG.classic(0xa1b2_c3d4, [2, 4], 1, &[], &[[10, 5, 60, 60], [11, 5, 60, 60]]), 3),
    ] {
        for zeros in (1..40).step_by(step).chain([4096, 3 << 20]) {
            let mut bytes = whole.clone();
            bytes.resize(whole.len() + zeros, 0);
            let merged = folder.merge(&[folder.file("in", &bytes)], "out.pcap", false).unwrap();
            assert_eq!(merged.totals.packets, 2, "{zeros}");
            assert_eq!(merged.findings.count(Oddity::ZeroTail), zeros as u64);
            assert!(merged.findings.partial().is_empty());
        }
    }
    // Zeros that packets follow are records, as tshark takes them.
    let mut bytes = classic.clone();
    bytes.resize(classic.len() + 3 * 16, 0);
    bytes.extend(&classic[24..]);
    let file = folder.file("middle", &bytes);
    let merged = folder.merge(std::slice::from_ref(&file), "out.pcap", false).unwrap();
    assert_eq!((merged.totals.packets, merged.findings.count(Oddity::ZeroTail)), (7, 0));
    if let Some(expected) = seen(&file) {
        assert_eq!(seen(&folder.path("out.pcap")).unwrap(), expected);
    }
}

#[test]
fn of_a_cut_file_the_whole_records_are_taken_and_the_cut_is_told() {
    let folder = Folder::new();
    let whole = LITTLE.classic(0xa1b2_3c4d, [2, 4], 1, &[], &[[10, 5, 60, 60], [11, 5, 60, 60]]);
    let good = folder.file("good.pcap", &whole);
    let packed = zstd::bulk::compress(&whole, 1).unwrap();
    let ng = [
        LITTLE.section(&[]),
        LITTLE.interface(1, 0, &[]),
        LITTLE.packet(1, 60, &[]),
        LITTLE.packet(2, 60, &[]),
    ];
    let ng = ng.concat();
    for (name, bytes, packets) in [
        ("cut.pcap", &whole[..whole.len() - 3], 1),
        ("head.pcap", &whole[..whole.len() - 70], 1),
        ("start.pcap", &whole[..10], 0),
        ("empty.pcap", &[], 0),
        ("cut.pcapng", &ng[..ng.len() - 5], 1),
        ("cut.pcap.zst", &packed[..packed.len() - 2], 0),
    ] {
        let cut = folder.file(name, bytes);
        let merged = folder.merge(&[cut.clone(), good.clone()], "out.pcap", false).unwrap();
        let partial = merged.findings.partial();
        assert_eq!((partial.len(), &partial[0].path), (1, &cut), "{name}");
        assert!(merged.totals.packets >= 2 + packets, "{name}: {}", merged.totals.packets);
        assert!(merged.findings.lines()[0].contains(name), "{:?}", merged.findings.lines());
    }
    let error = folder.merge(&[folder.path("empty.pcap")], "none.pcap", false).unwrap_err();
    assert!(error.to_string().contains("empty.pcap") && !folder.path("none.pcap").exists(), "{error}");
}

#[test]
fn damage_ends_a_merge_unless_it_is_to_keep_going() {
    let folder = Folder::new();
    let whole = LITTLE.classic(0xa1b2_3c4d, [2, 4], 1, &[], &[[10, 5, 60, 60], [11, 5, 60, 60]]);
    let good = folder.file("good.pcap", &whole);
    let mut bytes = whole.clone();
    bytes[24 + 76 + 8..][..4].copy_from_slice(&[0xff; 4]);
    let damaged = folder.file("damaged.pcap", &bytes);
    let text = folder.file("text.pcap", b"no packets here");
    let inputs = [damaged, text, folder.path("missing.pcap"), good];
    for input in &inputs[..3] {
        let error = folder.merge(&[input.clone(), inputs[3].clone()], "out.pcap", false).unwrap_err();
        assert!(error.to_string().contains(input.to_str().unwrap()), "{error}");
        assert!(!folder.path("out.pcap").exists());
    }
    let merged = folder.merge(&inputs, "out.pcap", true).unwrap();
    assert_eq!((merged.totals.packets, merged.findings.partial().len()), (3, 3));
    let lines = merged.findings.lines().join("\n");
    for part in ["text.pcap: skipped", "missing.pcap: skipped", "damaged.pcap: only its first 1 packets"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
}

#[test]
fn a_pcapng_output_keeps_secrets_names_and_packet_options_and_the_rest_is_named() {
    let folder = Folder::new();
    let secrets = b"CLIENT_RANDOM 00 11\n";
    for layout in [LITTLE, BIG] {
        let comment =
            [layout.option(1, b"caf\xc3\xa9"), layout.option(2, &layout.words(&[0x0102_0304]))].concat();
        let names = [layout.halves(&[1, 7]), vec![10, 0, 0, 1, b'h', b'i', 0, 0], vec![0; 4]].concat();
        let bytes = [
            layout.section(&layout.option(4, b"other program")),
            layout.interface(1, 0, &layout.option(11, b"\0tcp")),
            layout.secrets(secrets),
            layout.packet(1, 60, &comment),
            layout.secrets(b"second"),
            layout.block(4, &names),
            layout.packet(2, 60, &[]),
            layout.block(5, &layout.words(&[0, 0, 7])),
            layout.block(9, b"__REALTIME_TIMESTAMP=1\n"),
            layout.block(0x4000_0bad, &layout.words(&[7])),
            layout.block(0x7777, &[1, 2, 3, 4]),
        ]
        .concat();
        let file = folder.file("in.pcapng", &bytes);
        let merged = folder.merge(std::slice::from_ref(&file), "out.pcapng", false).unwrap();
        let count = |oddity| merged.findings.count(oddity);
        let kept = [Oddity::Secrets, Oddity::Names, Oddity::PacketComments, Oddity::PacketOptions].map(count);
        assert_eq!(kept, [0; 4]);
        let named = [Oddity::Statistics, Oddity::Journal, Oddity::Custom, Oddity::OtherBlocks];
        assert_eq!(named.map(count), [1; 4]);
        assert_eq!((count(Oddity::SectionOptions), count(Oddity::InterfaceOptions)), (1, 1));
        let out = std::fs::read(folder.path("out.pcapng")).unwrap();
        for kept in [LITTLE.secrets(secrets), LITTLE.secrets(b"second")] {
            assert!(out.windows(kept.len()).any(|bytes| bytes == kept));
        }
        let path = folder.path("out.pcapng");
        let fields = ["-nr", path.to_str().unwrap(), "-T", "fields", "-e", "frame.comment"];
        if let Some(text) = output("tshark", &fields) {
            assert_eq!(text, "café\n\n");
            let all = ["-r", path.to_str().unwrap(), "-X", "read_format:MIME Files Format", "-V"];
            let blocks = output("tshark", &all).unwrap();
            assert!(blocks.contains("Decryption Secrets") && blocks.contains("Name Resolution"), "{blocks}");
        }

        let merged = folder.merge(&[file], "out.pcap", false).unwrap();
        assert_eq!(merged.findings.count(Oddity::Secrets), 2);
        assert_eq!(merged.findings.count(Oddity::PacketComments), 1);
        let lines = merged.findings.lines().join("\n");
        assert!(lines.contains("2 blocks of secrets (TLS keys) not kept"), "{lines}");
        assert!(lines.contains("--format pcapng"), "{lines}");
    }
}

#[test]
fn times_that_cannot_be_are_taken_as_the_nearest_and_told() {
    let folder = Folder::new();
    let before_1970 = LITTLE.option(14, &(-100_i64).to_le_bytes());
    let in_seconds = LITTLE.option(9, &[0]);
    for (options, time, ns) in [(before_1970, 5, 0), (in_seconds, 1 << 40, u64::MAX)] {
        let parts = [LITTLE.section(&[]), LITTLE.interface(1, 0, &options), LITTLE.packet(time, 60, &[])];
        let file = folder.file("in.pcapng", &parts.concat());
        let merged = folder.merge(std::slice::from_ref(&file), "out.pcapng", false).unwrap();
        let Merged { totals, findings } = merged;
        assert_eq!((totals.packets, totals.first_ns, findings.count(Oddity::FarTime)), (1, ns, 1));
        assert!(findings.lines().join("\n").contains("1 packet time is before 1970 or after 2554"));
        // An exact reader takes what this program writes, and it writes no such time.
        assert!(crate::pcap::Reader::open(&file).is_err());
    }
}

#[test]
fn sections_of_both_byte_orders_and_packets_without_times_are_merged_as_tshark_reads_them() {
    let folder = Folder::new();
    let simple = |layout: Layout, wire: u32, len: usize| {
        layout.block(3, &[&layout.words(&[wire])[..], &DATA[..len]].concat())
    };
    let bytes = [
        LITTLE.section(&[]),
        LITTLE.interface(1, 50, &LITTLE.option(14, &100_u64.to_le_bytes())),
        simple(LITTLE, 60, 50),
        simple(LITTLE, 20, 20),
        LITTLE.packet(5, 60, &[]),
        BIG.section(&[]),
        BIG.interface(1, 0, &BIG.option(9, &[9])),
        BIG.packet(7_000_000_000, 1500, &[]),
        BIG.interface(1, 0, &[]),
    ]
    .concat();
    let file = folder.file("in.pcapng", &bytes);
    let merged = folder.merge(std::slice::from_ref(&file), "out.pcap", false).unwrap();
    assert_eq!((merged.totals.packets, merged.findings.count(Oddity::NoTime)), (4, 2));
    assert!(merged.findings.lines().join("\n").contains("2 packets have no time"), "{:?}", merged.findings);
    let Some(expected) = seen(&file) else { return };
    let found = seen(&folder.path("out.pcap")).unwrap();
    let timed = |lines: &[String]| lines.iter().map(|l| l.replace("0.000000000\t", "\t")).collect::<Vec<_>>();
    assert_eq!(timed(&found), timed(&expected));
}
