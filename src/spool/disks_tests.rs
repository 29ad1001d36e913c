//! Several directories, of which one fails, or is full, or is left by a dead process.

use super::*;

const DIRS: usize = 2;

/// Makes every call on files of directory 1 fail.
fn fail_second(rig: &Rig, errno: i32) {
    let second = rig.spool.disks()[1].dir().to_owned();
    rig.files.fail(move |_, path| path.starts_with(&second).then(|| error(errno)));
}

#[test]
fn the_streams_of_a_capture_are_dealt_over_the_directories_and_found_there_again() {
    each_mode(|write| {
        let mut rig = Rig::of(write, 1 << 30, DIRS);
        let mut told = rig.register(1, 4);
        for sequence in 0..3 {
            (0..4).for_each(|queue| rig.send(1, queue, sequence, 50, Closes::Segment));
            rig.settle();
            rig.now += FSYNC;
        }
        (0..4).for_each(|queue| rig.end(1, queue));
        rig.until_ended(&mut told, 4);
        let places: Vec<_> = rig.spool.places(&told.dir).map(|(_, place)| place).collect();
        for segment in told.segments() {
            let (queue, _) = place(segment.path.file_name().unwrap().to_str().unwrap()).unwrap();
            assert_eq!(segment.path.parent().unwrap(), places[queue % DIRS], "{write:?}");
        }
        assert_eq!(places.iter().map(|place| names(place).len()).collect::<Vec<_>>(), [6, 6]);
        rig.assert_accounted();
        let halves = rig.spool.disks().iter().map(|disk| disk.bytes_below(&places[disk.index()]));
        assert_eq!(halves.sum::<u64>(), rig.spool.bytes_below(&told.dir));

        // A mapped segment of this life is charged by its mapping; recovery is of what a dead process left.
        if rig.spool.recycles() {
            return;
        }
        let recovery = rig.spool.recover(&told.dir, 262_144, &[]).unwrap();
        assert_eq!(recovery.streams.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(recovery.streams.values().all(|stream| stream.len() == 3) && recovery.unread.is_empty());
        for segment in told.segments().take(6) {
            rig.spool.free(&segment.path).unwrap();
        }
        rig.assert_accounted();
        assert!(rig.spool.remove_capture_dir(&told.dir).unwrap());
        rig.assert_accounted();
        assert!(places.iter().all(|place| !place.exists()) && rig.spool.held_bytes() == 0);
    });
}

#[test]
fn a_capture_of_one_queue_lies_in_the_first_directory_alone_and_so_does_what_is_to_stay_together() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let mut told = rig.register(1, 1);
    // Queue 1 is of the second writer.
    rig.send(1, 1, 0, 50, Closes::Segment);
    rig.end(1, 1);
    rig.until_ended(&mut told, 1);
    assert_eq!(names(&told.dir), ["q001-00000000.pcap"]);
    assert_eq!(rig.spool.places(&told.dir).filter(|(_, place)| place.exists()).count(), 1);
    rig.assert_accounted();
}

#[test]
fn a_disk_that_fails_ends_what_was_written_there_and_nothing_else() {
    for errno in [EIO, ENOSPC] {
        each_mode(|write| {
            let mut rig = Rig::of(write, 1 << 30, DIRS);
            let (mut told, mut other) = (rig.register(1, 3), rig.register(2, 1));
            (0..3).for_each(|queue| rig.send(1, queue, 0, 50, Closes::Segment));
            rig.settle();
            fail_second(&rig, errno);
            for sequence in 1..4 {
                (0..3).for_each(|queue| rig.send(1, queue, sequence, 50, Closes::Segment));
                rig.send(2, 0, sequence - 1, 50, Closes::Segment);
                for _ in 0..150 {
                    rig.settle();
                    rig.now += TICK;
                }
            }
            told.listen();
            // The merge does not wait for the queue, although it goes on.
            assert_eq!((&told.over[..], told.failed), (&[1][..], 0), "{write:?} {errno}");
            (0..3).for_each(|queue| rig.end(1, queue));
            rig.end(2, 0);
            rig.until_ended(&mut told, 3);
            rig.until_ended(&mut other, 1);
            for queue in [0, 2] {
                assert_eq!(told.stream(queue), [(0, 50), (1, 50), (2, 50), (3, 50)], "{write:?} {errno}");
            }
            assert_eq!(told.stream(1), [(0, 50)]);
            let lost = Lost { packets: 150, frame_bytes: 15_000 };
            told.ended.sort_by_key(|(queue, ..)| *queue);
            assert_eq!(told.ended, [(0, Lost::default(), 0), (1, lost, 0), (2, Lost::default(), 0)]);
            let [(1, failure)] = &told.streams_failed[..] else { panic!("{:?}", told.streams_failed) };
            assert_eq!(matches!(failure, Failure::Full(_)), errno == ENOSPC, "{failure:?}");
            assert!(failure.message().contains("q001-00000001.pcap"), "{failure:?}");
            assert_eq!(other.stream(0), [(0, 50), (1, 50), (2, 50)]);
            assert_eq!((other.failed, other.streams_failed.len()), (0, 0));
            assert_eq!(rig.spool.disks().iter().map(|disk| disk.failures()).collect::<Vec<_>>(), [0, 1]);
            rig.files.heal();
            rig.settle();
            rig.assert_accounted();
        });
    }
}

#[test]
fn a_capture_whose_last_disk_fails_ends() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let mut told = rig.register(1, 2);
    fail_second(&rig, EIO);
    rig.send(1, 1, 0, 50, Closes::Segment);
    for _ in 0..150 {
        rig.settle();
        rig.now += TICK;
    }
    told.listen();
    assert_eq!((told.failed, told.streams_failed.len()), (0, 1));
    rig.files.fail(|_, _| Some(error(EIO)));
    rig.send(1, 0, 0, 50, Closes::Segment);
    for _ in 0..150 {
        rig.settle();
        rig.now += TICK;
    }
    told.listen();
    assert_eq!((told.failed, told.streams_failed.len()), (1, 1));
}

#[test]
fn a_directory_in_which_nothing_can_be_made_costs_its_streams_from_the_beginning() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    std::fs::remove_dir_all(rig.spool.disks()[1].dir()).unwrap();
    let mut told = rig.register(1, 2);
    (0..2).for_each(|queue| rig.send(1, queue, 0, 50, Closes::Segment));
    (0..2).for_each(|queue| rig.end(1, queue));
    rig.until_ended(&mut told, 2);
    assert_eq!((told.stream(0), told.stream(1)), (vec![(0, 50)], vec![]));
    let [(1, Failure::Io(message))] = &told.streams_failed[..] else { panic!("{:?}", told.streams_failed) };
    assert!(message.starts_with("cannot make the capture's directory capture1: "), "{message}");
}

#[test]
fn each_directory_has_the_quota_for_itself_and_one_that_is_full_leaves_the_others_theirs() {
    each_mode(|write| {
        let mut rig = Rig::of(write, 4 << 20, DIRS);
        let mut told = rig.register(1, 2);
        for sequence in 0..3 {
            rig.send(1, 1, sequence, 50, Closes::Segment);
            rig.settle();
        }
        let (first, second) = (&rig.spool.disks()[0], &rig.spool.disks()[1]);
        assert!(second.quota().used() > 0 && first.quota().used() == 0, "{write:?}");
        let charge = {
            let mut charge = second.account().charge(&second.dir().join("capture1/q009-00000000.pcap"));
            assert!(charge.grow(second.quota().bytes_max() - second.quota().used()));
            charge
        };
        assert_eq!((rig.spool.fullest().index(), rig.spool.bytes_max()), (1, 8 << 20));
        for sequence in 3..5 {
            (0..2).for_each(|queue| rig.send(1, queue, sequence, 50, Closes::Segment));
            for _ in 0..200 {
                rig.settle();
                rig.now += TICK;
            }
        }
        (0..2).for_each(|queue| rig.end(1, queue));
        rig.until_ended(&mut told, 2);
        assert_eq!(told.stream(0), [(3, 50), (4, 50)], "{write:?}");
        let [(1, Failure::Full(message))] = &told.streams_failed[..] else {
            panic!("{:?}", told.streams_failed)
        };
        assert!(
            message.starts_with("a disk of this host's spool is full: 4194304 of 4194304 bytes"),
            "{message}"
        );
        drop(charge);
        rig.assert_accounted();
    });
}

#[test]
fn what_tenants_have_is_told_by_directory() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let home = rig.spool.config().dir.clone();
    for (serial, tenant, queues) in [(1, "a", 2), (2, "b", 1)] {
        rig.spool.assign(&home.join(format!("capture{serial}")), tenant);
        let mut told = rig.register(serial, queues);
        for queue in 0..u16::try_from(queues).unwrap() {
            rig.send(serial, queue, 0, 50, Closes::Segment);
            rig.end(serial, queue);
        }
        rig.until_ended(&mut told, queues);
    }
    let (holdings, bytes) = (rig.spool.holdings(), rig.spool.home().quota().used() / 2);
    assert_eq!(holdings["a"], Holding { total: 2 * bytes, most: bytes, on_fullest: bytes });
    assert_eq!(holdings["b"], Holding::all(bytes));
}

#[test]
fn a_dead_process_leaves_its_streams_in_every_directory_and_one_that_cannot_be_read_costs_its_own() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let mut told = rig.register(1, 2);
    (0..2).for_each(|queue| rig.send(1, queue, 0, 50, Closes::Segment));
    (0..2).for_each(|queue| rig.send(1, queue, 1, 7, Closes::Nothing));
    rig.settle();
    rig.now += FSYNC;
    rig.settle();
    told.listen();
    let dir = told.dir.clone();
    let survey_of = |place: &Path| survey(place, 0).unwrap().streams.into_keys().collect::<Vec<_>>();
    let places: Vec<_> = rig.spool.places(&dir).map(|(_, place)| place).collect();
    assert_eq!(places.iter().map(|place| survey_of(place)).collect::<Vec<_>>(), [[0], [1]]);
    let found = rig.spool.recover(&dir, 262_144, &[]).unwrap();
    let packets = |stream: &[Segment]| stream.iter().map(|segment| segment.packets).collect::<Vec<_>>();
    assert_eq!(found.streams.values().map(|stream| packets(stream)).collect::<Vec<_>>(), [[50, 7], [50, 7]]);
    // It answers neither yes nor no.
    std::fs::remove_dir_all(&places[1]).unwrap();
    std::os::unix::fs::symlink(&places[1], &places[1]).unwrap();
    let found = rig.spool.recover(&dir, 262_144, &[]).unwrap();
    assert_eq!((found.streams.len(), found.unread.len()), (1, 1));
    assert_eq!(found.unread[0].0, places[1]);
}

/// Another directory stands where one of the spool's was, as below the mount point of a disk that was unmounted.
fn unmount(rig: &Rig, disk: usize) -> PathBuf {
    let dir = rig.spool.disks()[disk].dir().to_owned();
    let away = dir.with_extension("away");
    std::fs::rename(&dir, &away).unwrap();
    std::fs::create_dir(&dir).unwrap();
    away
}

#[test]
fn nothing_is_written_below_the_mount_point_of_a_directory_that_was_unmounted() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let away = unmount(&rig, 1);
    let second = rig.spool.disks()[1].clone();
    assert!(second.probe().unwrap_err().to_string().contains("was unmounted"));
    let mut told = rig.register(1, 2);
    (0..2).for_each(|queue| rig.send(1, queue, 0, 50, Closes::Segment));
    for _ in 0..150 {
        rig.settle();
        rig.now += TICK;
    }
    told.listen();
    assert_eq!((told.failed, told.streams_failed.len()), (0, 1));
    assert!(names(second.dir()).is_empty(), "{:?}", names(second.dir()));
    assert_eq!(told.stream(0), [(0, 50)]);
    // Its disk is back.
    std::fs::remove_dir(second.dir()).unwrap();
    std::fs::rename(away, second.dir()).unwrap();
    second.probe().unwrap();
    let away = unmount(&rig, 0);
    let capture = rig.spool.home().dir().join("another");
    assert!(make_home(&rig, &capture).unwrap_err().to_string().contains("was unmounted"));
    assert!(!capture.exists());
    std::fs::remove_dir(rig.spool.home().dir()).unwrap();
    std::fs::rename(away, rig.spool.home().dir()).unwrap();
}

#[test]
fn who_asks_whether_a_directory_takes_a_write_while_another_one_does_gets_the_answer() {
    let rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| rig.spool.home().probe().unwrap()));
        }
    });
}

fn make_home(rig: &Rig, dir: &Path) -> std::io::Result<()> {
    let (events, _nobody_listens) = tokio::sync::mpsc::unbounded_channel();
    let (merge, stop) = (Arc::new(Feed::new(1)), Box::new(|_: &Failure| {}));
    rig.spool.register(SpoolCapture::new(9, dir.to_owned(), 1, merge, events, stop))
}

#[test]
fn it_is_known_to_which_directory_each_queue_is_written() {
    let mut rig = Rig::of(WriteMode::Auto, 1 << 30, DIRS);
    let ids: Vec<_> =
        rig.spool.disks().iter().map(|disk| crate::spool::name_spool(disk.dir()).unwrap()).collect();
    let mut told = rig.register(1, 4);
    for queue in [0, 1, 3] {
        rig.send(1, queue, 0, 50, Closes::Segment);
    }
    rig.settle();
    let dirs = rig.spool.dirs_of_queues(1);
    assert_eq!(dirs.keys().copied().collect::<Vec<_>>(), [0, 1, 3], "queue 2 has no packet");
    assert!(dirs.iter().all(|(queue, id)| *id == ids[usize::from(*queue) % DIRS]), "{dirs:?} {ids:?}");
    assert!(rig.spool.without_dir(&dirs).is_empty());
    let of_before =
        dirs.into_iter().map(|(queue, id)| (queue, if queue == 3 { "gone".to_owned() } else { id }));
    assert_eq!(rig.spool.without_dir(&of_before.collect()), [3]);
    (0..4).for_each(|queue| rig.end(1, queue));
    rig.until_ended(&mut told, 4);
}
