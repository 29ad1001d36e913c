//! Where objects are foreseen to end against where they end. Owns these expectations.

use super::super::{Foreseen, foresee, run_object};
use super::*;
use crate::spool::Feed;
use std::collections::HashSet;

/// Streams of so many packets each, at uneven rates and with equal times in and between them.
fn uneven(counts: &[usize]) -> Vec<Vec<Packet>> {
    let stream = |(queue, count): (usize, &usize)| {
        let mut ns = 1_700_000_000 * SECOND;
        let one = |number: usize| {
            let step = [0, 1000, 0, 7000, 3000][(number * 7 + queue + number / 97) % 5];
            ns += step * (1 + queue as u64) * if number % 1000 < 300 { 40 } else { 1 };
            packet(ns, queue, number)
        };
        (0..*count).map(one).collect()
    };
    counts.iter().enumerate().map(stream).collect()
}

/// The streams in segments of so many packets, told in turn; streams that are not `open` have ended.
fn told(dir: &Path, streams: &[Vec<Packet>], packets: usize, open: &[usize]) -> (Feed, Vec<Input>) {
    let (feed, mut inputs) = (Feed::new(streams.len()), Vec::new());
    for (queue, stream) in streams.iter().enumerate() {
        let mut sequence = 0;
        for (number, part) in stream.chunks(packets).enumerate() {
            // A segment that is missing, and one that is empty.
            let before = match number % 5 {
                2 => Some(Input::Hole { queue, sequence }),
                3 => Some(Input::Segment(queue, segment(dir, queue, sequence, &[]))),
                _ => None,
            };
            sequence += u64::from(before.is_some());
            inputs.extend(before);
            inputs.push(Input::Segment(queue, segment(dir, queue, sequence, part)));
            sequence += 1;
        }
        if !open.contains(&queue) {
            inputs.push(Input::End(queue));
        }
    }
    inputs.iter().for_each(|input| feed.tell(input.clone()));
    (feed, inputs)
}

#[test]
fn an_object_ends_where_that_was_foreseen() {
    let dir = TempDir::new().unwrap();
    for (streams, packets) in
        [(uneven(&[30_000, 9_000, 0, 17_000]), 4_000), (uneven(&[50_000]), 7_000), (uneven(&[300, 200]), 40)]
    {
        let (feed, inputs) = told(dir.path(), &streams, packets, &[]);
        let bytes: u64 = streams.iter().flatten().map(|packet| 16 + packet.2.len() as u64).sum();
        for share in [3, 11, 50] {
            let shape = Shape::plain(262_144, bytes / share + 24);
            let mut start = Start::fresh(streams.len());
            let objects = run_all(&inputs, &start, &shape);
            assert!(objects.len() as u64 >= share);
            for (_, _, Consumed { cuts, is_last, .. }) in objects {
                let ahead = feed.ahead(&start.cuts, shape.object_bytes_needed());
                let foreseen = foresee(&start.cuts, ahead, &shape);
                let end = if is_last { Foreseen::Last } else { Foreseen::At(cuts.clone()) };
                assert_eq!(foreseen, Some(end), "{share} {start:?}");
                start = Start { object: start.object + 1, cuts };
            }
        }
    }
}

#[test]
fn an_object_alone_needs_no_more_of_a_stream_than_it_can_hold() {
    let dir = TempDir::new().unwrap();
    let streams = uneven(&[3_000, 900, 1_700]);
    let (feed, inputs) = told(dir.path(), &streams, 400, &[]);
    for format in formats() {
        let shape = Shape { format, ..Shape::plain(262_144, 30_000) };
        let mut start = Start::fresh(3);
        let all = run_all(&inputs, &start, &shape);
        for (object, summary, consumed) in &all[..all.len() - 1] {
            let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
            let inputs = feed.listen_from(&start.cuts, shape.object_bytes_needed());
            run_object(&start, &shape, (HashSet::new(), true), None, inputs, made).unwrap();
            let (mut bytes, mut ended) = (Vec::new(), None);
            while let Some(output) = outputs.blocking_recv() {
                match output {
                    Output::Begin(number) => assert_eq!(number, start.object),
                    Output::Whole(_) => {}
                    Output::Chunk(chunk) => bytes.extend(chunk),
                    Output::End(summary, consumed) => ended = Some((summary, consumed)),
                }
            }
            assert!(bytes == *object && ended == Some((summary.clone(), consumed.clone())));
            start = Start { object: start.object + 1, cuts: consumed.cuts.clone() };
        }
    }
}

#[test]
fn an_object_that_is_made_again_ends_where_it_did_although_packets_of_it_are_damaged_since() {
    let dir = TempDir::new().unwrap();
    let streams = uneven(&[3_000, 900, 1_700]);
    let (feed, inputs) = told(dir.path(), &streams, 400, &[]);
    let shape = Shape::plain(262_144, 30_000);
    let (first, second) = (Start::fresh(3), 1);
    let all = run_all(&inputs, &first, &shape);
    let (_, whole, Consumed { cuts, .. }) = &all[0];
    let paths = inputs.iter().filter_map(|input| match input {
        Input::Segment(0, segment) => Some(segment.path.clone()),
        _ => None,
    });
    // All of it but its header and its first record: the next object begins in the same segment.
    let path = paths.into_iter().next().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let record = 24 + 16 + u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    bytes[record..record + 16].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let object = |start: &Start, until: Option<Vec<Cut>>| {
        let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
        let inputs = feed.listen_from(&start.cuts, shape.object_bytes_needed());
        let damaged = HashSet::from([path.clone()]);
        run_object(start, &shape, (damaged, start.object > 0), until, inputs, made).unwrap();
        std::iter::from_fn(|| outputs.blocking_recv())
            .find_map(|output| match output {
                Output::End(summary, consumed) => Some((summary, consumed)),
                _ => None,
            })
            .unwrap()
    };
    let (free, elsewhere) = object(&first, None);
    assert!(
        elsewhere.cuts != *cuts && free.packets > 0,
        "without being told it takes packets of the next one"
    );
    let (short, consumed) = object(&first, Some(cuts.clone()));
    assert_eq!((&consumed.cuts, consumed.is_last, consumed.gaps.len()), (cuts, false, 1));
    assert!(short.packets < whole.packets && short.packets > 0, "{} of {}", short.packets, whole.packets);
    let next = Start { object: second, cuts: cuts.clone() };
    let (_, summary, end) = &all[1];
    let (again, _) = object(&next, Some(end.cuts.clone()));
    assert_eq!(again, *summary, "the next one is the same: it is not amid what is damaged");
}

#[test]
fn no_end_is_foreseen_while_an_older_packet_may_come() {
    let dir = TempDir::new().unwrap();
    let streams = uneven(&[3_000, 900, 1_700]);
    let (feed, _) = told(dir.path(), &streams, 400, &[1]);
    let (shape, start) = (Shape::plain(262_144, 300_000), Start::fresh(3));
    let foreseen =
        |feed: &Feed| foresee(&start.cuts, feed.ahead(&start.cuts, shape.object_bytes_needed()), &shape);
    // All of queue 1 is in the first object, and more of it may come.
    assert_eq!(foreseen(&feed), None);
    feed.tell(Input::Watermark(1, 1_800_000_000 * SECOND));
    assert!(matches!(foreseen(&feed), Some(Foreseen::At(_))), "{:?}", foreseen(&feed));
    let all = Shape::plain(262_144, 1 << 30);
    assert_eq!(foresee(&start.cuts, feed.ahead(&start.cuts, 1 << 30), &all), None);
    feed.tell(Input::End(1));
    assert_eq!(foresee(&start.cuts, feed.ahead(&start.cuts, 1 << 30), &all), Some(Foreseen::Last));
}

#[test]
fn what_cannot_be_read_or_is_not_in_order_is_no_panic() {
    let dir = TempDir::new().unwrap();
    let streams = uneven(&[30_000, 9_000]);
    let (feed, inputs) = told(dir.path(), &streams, 4_000, &[]);
    let shape = Shape::plain(262_144, 700_000);
    let start = Start::fresh(2);
    for (number, input) in inputs.iter().enumerate() {
        let Input::Segment(_, Segment { path, packets: 1.., .. }) = input else { continue };
        let bytes = std::fs::read(path).unwrap();
        let mut wrong = bytes.clone();
        match number % 3 {
            0 => wrong.truncate(bytes.len() / 2),
            1 => wrong[24..].fill(0xff),
            _ => wrong[24..].fill(0),
        }
        std::fs::write(path, wrong).unwrap();
        let _any = foresee(&start.cuts, feed.ahead(&start.cuts, 700_000), &shape);
        std::fs::remove_file(path).unwrap();
        let _any = foresee(&start.cuts, feed.ahead(&start.cuts, 700_000), &shape);
        std::fs::write(path, bytes).unwrap();
    }
    assert!(foresee(&start.cuts, feed.ahead(&start.cuts, 700_000), &shape).is_some());
}
