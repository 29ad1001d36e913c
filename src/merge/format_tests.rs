//! Objects and merged files in every format, read back by our reader, `tshark` and `capinfos`.

use super::*;
use crate::pcap::{ReadError, Unpacked};
use std::io::Read;

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    Unpacked::new(bytes).unwrap().read_to_end(&mut content).unwrap();
    content
}

fn inputs(dir: &Path, streams: &[Vec<Packet>]) -> Vec<Input> {
    let told = |(queue, packets): (usize, &Vec<Packet>)| {
        [Input::Segment(queue, segment(dir, queue, 0, packets)), Input::End(queue)]
    };
    streams.iter().enumerate().flat_map(told).collect()
}

/// What a program prints; none if it is not installed, and the test is skipped.
pub(super) fn output(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            crate::skip::skip(program, error);
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn objects_of_any_format_hold_the_same_packets_and_say_what_they_unpack_to(
        streams in streams(), bytes_max in 1000_u64..6000,
    ) {
        let dir = TempDir::new().unwrap();
        let inputs = inputs(dir.path(), &streams);
        let frame_bytes: u64 = streams.iter().flatten().map(|packet| packet.2.len() as u64).sum();
        for format in formats() {
            let shape = Shape { format, ..Shape::plain(262_144, bytes_max) };
            let objects = run_all(&inputs, &Start::fresh(streams.len()), &shape);
            let contents: Vec<_> = objects.iter().map(|(bytes, ..)| unpack(bytes)).collect();
            let merged: Vec<Packet> = contents.iter().flat_map(|content| read(content)).collect();
            prop_assert_eq!(merged, sorted(&streams));
            prop_assert_eq!(objects.iter().map(|(_, summary, _)| summary.frame_bytes).sum::<u64>(), frame_bytes);
            for ((bytes, summary, _), content) in objects.iter().zip(&contents) {
                prop_assert_eq!((summary.bytes, &summary.sha256), (bytes.len() as u64, &sha256(bytes)));
                prop_assert!(content.len() as u64 <= bytes_max || summary.packets <= 1);
                let said = summary.content.as_ref().map(|content| (content.bytes, content.sha256.clone()));
                let packed = format.compression == Compression::Zstd;
                prop_assert_eq!(said, packed.then(|| (content.len() as u64, sha256(content))));
            }
        }
    }

    #[test]
    fn merged_files_of_any_format_are_inputs_again(streams in streams()) {
        let dir = TempDir::new().unwrap();
        let whole = dir.path().join("whole.pcap");
        let inputs: Vec<PathBuf> = streams.iter().enumerate()
            .map(|(queue, packets)| segment(dir.path(), queue, 0, packets).path).collect();
        merge_files(&inputs, &whole).unwrap();
        for format in formats() {
            let out = dir.path().join(format!("out{}", format.extension()));
            let files = inputs.iter().cloned().map(MergeInput::File).collect();
            merge_inputs(files, &out, format, &mut |_| {}).unwrap();
            prop_assert_eq!(read(&unpack(&std::fs::read(&out).unwrap())), sorted(&streams));
            let again = dir.path().join("again.pcap");
            merge_files(&[out], &again).unwrap();
            prop_assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&whole).unwrap());
        }
    }
}

#[test]
fn wireshark_reads_frames_times_interfaces_comments_and_drops_of_a_pcapng_object() {
    let dir = TempDir::new().unwrap();
    let streams: Vec<Vec<Packet>> =
        (0..2).map(|queue| (0..5).map(|i| packet(SECOND + i, queue, i as usize)).collect()).collect();
    let origin = Origin {
        hardware: "CPU X".to_owned(),
        os: "Linux 6".to_owned(),
        application: "trawl 1".to_owned(),
        comments: vec!["capture 0123".to_owned(), "filter_v1 {}".to_owned()],
        interfaces: vec!["0000:03:00.0/q0".to_owned()],
    };
    let format = ObjectFormat { container: Container::PcapNg, ..ObjectFormat::default() };
    let shape = Shape { format, origin: origin.into(), ..Shape::plain(262_144, 1 << 20) };
    let objects = run_all(&inputs(dir.path(), &streams), &Start::fresh(2), &shape);
    let path = dir.path().join("object.pcapng");
    std::fs::write(&path, &objects[0].0).unwrap();
    let path = path.to_str().unwrap();
    let fields = ["-r", path, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.interface_name"];
    let Some(text) = output("tshark", &fields) else { return };
    let expected: Vec<String> = sorted(&streams)
        .iter()
        .map(|(ns, _, data)| {
            let name = if data[8..].contains(&1) { "queue1" } else { "0000:03:00.0/q0" };
            format!("{}.{:09}\t{name}", ns / SECOND, ns % SECOND)
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    let infos = output("capinfos", &[path]).unwrap();
    for said in [
        "CPU X",
        "Linux 6",
        "trawl 1",
        "capture 0123",
        "filter_v1 {}",
        "0000:03:00.0/q0",
        "= capture",
        "Number of packets:   10",
        "nanosecond",
    ] {
        assert!(infos.contains(said), "{said}: {infos}");
    }
    let blocks = output("tshark", &["-r", path, "-X", "read_format:MIME Files Format", "-V"]).unwrap();
    for said in [
        "Number of Received Packets = 1009",
        "Number of Dropped Packets = 7",
        "Number of Accepted Packets = 900",
        "Number of Packets Dropped by OS = 3",
        "Number of Packets Delivered to the User = 240",
        "Number of Packets Delivered to the User = 5",
    ] {
        assert!(blocks.lines().any(|line| line.trim() == format!("Option: {said}")), "{said}: {blocks}");
    }
}

#[test]
fn link_types_are_kept_apart_in_pcapng_and_refused_in_pcap() {
    let dir = TempDir::new().unwrap();
    let paths = [1, 101].map(|link_type| dir.path().join(format!("{link_type}.pcap")));
    for (path, link_type) in paths.iter().zip([1, 101]) {
        let mut writer = Writer::new(Vec::new(), 262_144, link_type).unwrap();
        writer.write(SECOND + u64::from(link_type), 20, &[0x45; 20]).unwrap();
        std::fs::write(path, writer.finish().unwrap()).unwrap();
    }
    let error = merge_files(&paths, &dir.path().join("out.pcap")).unwrap_err();
    assert!(error.to_string().contains("--format pcapng"), "{error}");
    let out = dir.path().join("out.pcapng");
    let format = ObjectFormat { container: Container::PcapNg, ..ObjectFormat::default() };
    let files = paths.map(MergeInput::File).into();
    assert_eq!(merge_inputs(files, &out, format, &mut |_| {}).unwrap().totals.packets, 2);
    let bytes = std::fs::read(&out).unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    reader.next_record().unwrap();
    assert!(matches!(reader.next_record(), Err(ReadError::LinkType { first: 1, found: 101, .. })));
    let again = dir.path().join("again.pcapng");
    merge_inputs(vec![MergeInput::File(out)], &again, format, &mut |_| {}).unwrap();
    let args = ["-r", again.to_str().unwrap(), "-T", "fields", "-e", "frame.encap_type"];
    if let Some(text) = output("tshark", &args) {
        assert_eq!(text.lines().collect::<Vec<_>>(), ["1", "7"], "Ethernet and raw IP");
    }
}

#[test]
fn a_last_pcapng_object_waits_for_its_counts_and_says_so_if_they_never_come() {
    let dir = TempDir::new().unwrap();
    let format = ObjectFormat { container: Container::PcapNg, ..ObjectFormat::default() };
    let shape = Shape { format, ..Shape::plain(262_144, 1 << 20) };
    let run = |last: Option<Input>| {
        let (told, taken) = crossbeam::channel::unbounded();
        let (made, mut outputs) = tokio::sync::mpsc::channel(64);
        let inputs = inputs(dir.path(), &[vec![packet(SECOND, 0, 0)]]);
        inputs.into_iter().chain(last).for_each(|input| told.send(input).unwrap());
        drop(told);
        let result = run_live(&Start::fresh(1), &shape, taken, made);
        let mut bytes = Vec::new();
        while let Some(output) = outputs.blocking_recv() {
            if let Output::Chunk(chunk) = output {
                bytes.extend(chunk);
            }
        }
        result.map(|_| String::from_utf8_lossy(&bytes).into_owned())
    };
    assert!(matches!(run(None), Err(MergeError::CountsMissing)));
    assert!(run(Some(Input::Counts(None))).unwrap().contains("the process that captured died"));
}
