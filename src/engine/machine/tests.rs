//! The effects of each edge, one after the other.

use super::capture::Phase;
use super::*;
use crate::deliver::{Found, Words, journal::CaptureRecord};
use crate::job::{
    BucketTerms, ColoStyle, Destination, Kind, Ledger, ObjectInfo, ObjectRange, OffsetTime, StopReason,
};
use crate::matcher::FilterV1;
use crate::pcap::Container;
use crate::worker::SlotTotals;

mod clock;
mod fair;
mod promises;
mod room;

const STREAMS: usize = 2;

struct Bench {
    machine: Machine,
    mono: Duration,
    last: u64,
}

pub(super) fn now(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall: Timestamp::from_second(1_795_500_000).unwrap() }
}

pub(super) fn config() -> Config {
    Config {
        host: "h".to_owned(),
        colo: "c".to_owned(),
        site: None,
        slots: 4,
        admits: 3,
        accounts: 1,
        full_per_account: 1,
        simple_interval: Duration::from_secs(60),
        simple_one_in: None,
        object_format: ObjectFormat::default(),
        object_bytes_max: 1 << 20,
        queues: STREAMS,
        streams: STREAMS,
        spool_bytes_max: 1000,
        account: AccountBounds::of(1000, 100, 1),
        look_back_interval: Duration::ZERO,
        high_water_percent: 80,
        has_history: false,
    }
}

fn request(account: &str, kind: Kind) -> Request {
    Request {
        account: AccountId(account.to_owned()),
        kind,
        filter: FilterV1::default(),
        time_limit: 60.0,
        packet_limit: None,
        byte_limit: None,
        colo: None,
        colo_style: ColoStyle::ColoName,
        destination: (kind == Kind::Full).then(|| Destination::File { dir: "/b".into() }),
        offset_time: None,
        format: None,
        compression: None,
    }
}

/// An effect in a few words.
fn word(effect: &Effect) -> String {
    match effect {
        Effect::Created { answer: Ok(_), .. } => "accepted".to_owned(),
        Effect::Created { answer: Err(refusal), .. } => {
            format!("refused {}", format!("{refusal:?}").split(['(', ' ']).next().unwrap_or_default())
        }
        Effect::Promised { reply, answer: Ok(()) } => format!("kept {reply}"),
        Effect::Promised { reply, answer: Err(refusal) } => {
            format!("{reply} refused {}", format!("{refusal:?}").split(['(', ' ']).next().unwrap_or_default())
        }
        Effect::TryDestination { .. } => "try destination".to_owned(),
        Effect::RecordNew { .. } => "record new".to_owned(),
        Effect::Record { job, .. } => format!("record {:?}", job.status),
        Effect::RecordObjects { first, .. } => format!("record objects from {first}"),
        Effect::Place { .. } => "place".to_owned(),
        Effect::Deliver { .. } => "deliver".to_owned(),
        Effect::DeliverLeft { .. } => "deliver left".to_owned(),
        Effect::Attach { slot, .. } => format!("attach {slot}"),
        Effect::EndBudget { ended, .. } => format!("end budget {ended:?}"),
        Effect::Detach { slot, .. } => format!("detach {slot}"),
        Effect::Raise { .. } | Effect::Lower { .. } | Effect::Resample { .. } => "steer".to_owned(),
        Effect::RefuseWrites { .. } => "refuse writes".to_owned(),
        Effect::Note { .. } => "note".to_owned(),
        Effect::SettleCounts { .. } => "settle counts".to_owned(),
        Effect::Publish { .. } => "publish".to_owned(),
        Effect::Seek { .. } => "seek".to_owned(),
        Effect::Remove { .. } => "remove".to_owned(),
        Effect::Forget { .. } => "forget".to_owned(),
        Effect::Discard { .. } => "discard".to_owned(),
        Effect::GiveUp { serial, .. } => format!("give up {serial}"),
        Effect::DropKept { id, .. } => format!("drop kept {}", id.as_str().trim_start_matches('0')),
        Effect::Drop { .. } => "drop".to_owned(),
        Effect::Weigh => "weigh".to_owned(),
        Effect::StopRetrying => "stop retrying".to_owned(),
        Effect::PlaceRecording { serial } => format!("place recording {serial}"),
        Effect::AttachRecording { serial } => format!("attach recording {serial}"),
        Effect::DetachRecording => "detach recording".to_owned(),
        Effect::ForgetRecording { .. } => "forget recording".to_owned(),
        Effect::LookBack { complete_below, .. } => format!("look back, complete below {complete_below}"),
        Effect::Finish { replies } => format!("finish {}", replies.len()),
    }
}

impl Bench {
    fn new(config: Config) -> Self {
        Self { machine: Machine::new(config), mono: Duration::ZERO, last: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<String> {
        let (mut out, wall) = (Vec::new(), Timestamp::from_second(1_795_500_000).unwrap());
        self.machine.step(Now { mono: self.mono, wall }, input, &mut out);
        out.iter().map(word).collect()
    }

    fn create(&mut self, request: Request) -> Vec<String> {
        self.last += 1;
        let id = CaptureId::parse(&format!("{:032x}", self.last)).unwrap();
        self.step(Input::Create { reply: self.last, id, request: Box::new(request), lags: true })
    }

    fn recorded(&mut self, serial: Serial) -> Vec<String> {
        let version = self.machine.capture(serial).map_or(u64::MAX, |capture| capture.version);
        self.step(Input::Recorded { serial, version })
    }

    /// The capture's job says all of this.
    #[track_caller]
    fn assert_says(&self, serial: Serial, parts: &[&str]) {
        let message = self.job(serial).error_message.clone().unwrap();
        parts.iter().for_each(|part| assert!(message.contains(part), "no {part:?}: {message}"));
    }

    fn tick(&mut self) -> Vec<String> {
        self.step(Input::Tick { held: 0, of_accounts: Vec::new() })
    }

    /// A capture that runs.
    fn running(&mut self, account: &str) -> Serial {
        self.create(request(account, Kind::Full));
        let serial = self.machine.last_serial;
        self.step(Input::Opened { serial, tried: Ok(BucketTerms::default()) });
        self.recorded(serial);
        self.step(Input::Placed { serial, made: Ok(()) });
        self.step(Input::Attached { serial });
        serial
    }

    /// A capture that takes nothing more, with ten packets, and whose streams have ended.
    fn drained(&mut self, account: &str) -> Serial {
        let serial = self.running(account);
        self.step(Input::Stop { serial, reply: None });
        self.step(detached(serial, 10));
        for _ in 0..STREAMS {
            self.step(stream_ended(serial, 0, 0));
        }
        self.step(Input::Noted { serial });
        serial
    }

    fn job(&self, serial: Serial) -> &Job {
        &self.machine.capture(serial).unwrap().job
    }

    fn delivered(&mut self, serial: Serial, outcome: Outcome) -> Vec<String> {
        self.step(Input::Delivery { serial, report: Report::Delivered(outcome) })
    }
}

fn detached(serial: Serial, packets: u64) -> Input {
    let totals = SlotTotals {
        serial,
        rx: packets,
        matched: packets,
        captured: packets,
        captured_bytes: packets * 100,
        ..SlotTotals::default()
    };
    Input::Detached { serial, counted: Counted { totals, ports: PortDrops::default() } }
}

fn stream_ended(serial: Serial, lost: u64, unpublished: u64) -> Input {
    Input::StreamEnded {
        serial,
        lost: Lost { packets: lost, frame_bytes: lost * 100 },
        unpublished,
        failure: None,
    }
}

#[test]
fn a_capture_goes_all_its_way() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]);
    assert_eq!(bench.step(Input::Opened { serial: 1, tried: Ok(BucketTerms::default()) }), ["record new"]);
    assert_eq!(bench.recorded(1), ["place"]);
    assert_eq!(bench.step(Input::Placed { serial: 1, made: Ok(()) }), ["deliver", "attach 0", "accepted"]);
    assert_eq!(bench.step(Input::Attached { serial: 1 }), ["record Running"]);
    assert_eq!(
        bench.step(Input::Stop { serial: 1, reply: None }),
        ["end budget Revoked", "detach 0", "record Running"]
    );
    assert_eq!(bench.step(detached(1, 10)), ["record ConversionPending"]);
    assert!(bench.step(stream_ended(1, 2, 0)).is_empty());
    assert_eq!(bench.step(stream_ended(1, 1, 0)), ["note", "record ConversionRunning"]);
    assert!(bench.step(Input::Noted { serial: 1 }).is_empty());
    assert_eq!(bench.delivered(1, Outcome::Done), ["publish"]);
    assert_eq!(bench.step(Input::Closed { serial: 1, outcome: Outcome::Done }), ["record Success"]);
    assert_eq!(bench.recorded(1), ["remove"]);
    let ledger = bench.job(1).ledger;
    assert_eq!((ledger.captured, ledger.dropped.spool), (7, 3));
    assert_eq!(bench.step(Input::Removed { serial: 1, result: Ok(()), kept: 0 }), ["drop"]);
    assert_eq!(bench.machine.captures().count(), 0);
}

#[test]
fn nothing_is_removed_before_the_outcome_is_durable() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    bench.delivered(serial, Outcome::Done);
    bench.step(Input::Closed { serial, outcome: Outcome::Done });
    let older = bench.machine.capture(serial).unwrap().version - 1;
    assert!(bench.step(Input::Recorded { serial, version: older }).is_empty());
    bench.mono += Duration::from_secs(86_400);
    assert!(bench.tick().is_empty(), "however long the store is full");
    bench.step(Input::RecordTrouble { serial, error: "no space".to_owned() });
    let capture = bench.machine.capture(serial).unwrap();
    let view = capture.view(capture.job.ledger);
    assert_eq!(view.status, Status::ConversionRunning, "an outcome is shown once it is durable");
    assert!(view.error_message.unwrap().contains("cannot be recorded"));
    assert_eq!(bench.recorded(serial), ["remove"]);
}

#[test]
fn a_delivery_that_fails_for_good_ends_its_capture_at_once_and_keeps_its_packets() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    let effects = bench.delivered(serial, Outcome::Failed(Words::alike("the segment is damaged")));
    assert_eq!(effects, ["end budget Revoked", "detach 0", "record Running"]);
    assert_eq!(bench.job(serial).stop_reason, Some(StopReason::DeliveryFailed));
    let capture = bench.machine.capture(serial).unwrap();
    assert_eq!(
        capture.progress(Ledger::default(), bench.mono, ObjectRange::ALL).warnings,
        ["the segment is damaged"]
    );
    bench.step(detached(serial, 10));
    bench.step(stream_ended(serial, 0, 0));
    bench.step(stream_ended(serial, 0, 0));
    assert_eq!(bench.step(Input::Noted { serial }), ["record Failed"]);
    bench.assert_says(serial, &["the segment is damaged", "are kept"]);
    assert_eq!(bench.recorded(serial), ["forget"]);
}

#[test]
fn a_capture_whose_directory_was_removed_ends_and_does_not_say_that_its_packets_are_kept() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    let lost = Report::Lost { packets: 4, frame_bytes: 400 };
    bench.step(Input::Delivery { serial, report: lost });
    let effects = bench.delivered(serial, Outcome::Gone(Words::alike("it is not there")));
    assert_eq!(effects, ["end budget Revoked", "detach 0", "record Running"]);
    bench.step(detached(serial, 10));
    bench.step(stream_ended(serial, 6, 1));
    bench.step(stream_ended(serial, 0, 0));
    assert_eq!(bench.step(Input::Noted { serial }), ["record Failed"]);
    let job = bench.job(serial);
    assert_eq!(job.error_message.as_deref(), Some("it is not there"));
    assert_eq!((job.stop_reason, job.ledger.captured), (Some(StopReason::DeliveryFailed), 0));
    job.ledger.check().unwrap();
    assert_eq!(bench.recorded(serial), ["forget"]);
}

#[test]
fn a_directory_with_an_unpublished_segment_is_kept_and_the_job_says_so() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    bench.step(Input::Stop { serial, reply: None });
    bench.step(detached(serial, 10));
    bench.step(stream_ended(serial, 4, 1));
    bench.step(stream_ended(serial, 0, 0));
    bench.step(Input::Noted { serial });
    bench.delivered(serial, Outcome::Done);
    bench.step(Input::Closed { serial, outcome: Outcome::Done });
    bench.assert_says(serial, &["1 segments could not be published", "trawl recover"]);
    assert_eq!(bench.recorded(serial), ["forget"]);
}

#[test]
fn a_create_is_refused_at_each_step_and_leaves_nothing() {
    let mut bench = Bench::new(config());
    bench.create(request("a", Kind::Simple));
    let refusal = Refusal::Destination("no".to_owned());
    assert_eq!(bench.step(Input::Opened { serial: 1, tried: Err(refusal) }), ["refused Destination", "drop"]);
    bench.create(request("a", Kind::Simple));
    bench.step(Input::Opened { serial: 2, tried: Ok(BucketTerms::default()) });
    let full = Input::Unrecordable { serial: 2, error: "no space".to_owned() };
    assert_eq!(bench.step(full), ["refused Store", "drop"]);
    bench.create(request("a", Kind::Simple));
    bench.step(Input::Opened { serial: 3, tried: Ok(BucketTerms::default()) });
    bench.recorded(3);
    let made = Err("read-only".to_owned());
    assert_eq!(bench.step(Input::Placed { serial: 3, made }), ["refused Store", "record Failed"]);
    assert_eq!(bench.recorded(3), ["remove"]);
    // None of them counts against the interval, nor has a slot.
    assert_eq!(bench.create(request("a", Kind::Simple)), ["try destination"]);
    assert_eq!(bench.create(request("a", Kind::Simple)), ["refused SimpleTooSoon"]);
    bench.mono += Duration::from_secs(61);
    assert_eq!(bench.create(request("a", Kind::Simple)), ["try destination"]);
}

#[test]
fn slots_blocks_and_accounts_have_their_limits() {
    let mut bench = Bench::new(config());
    let first = bench.running("a");
    assert_eq!(bench.create(request("a", Kind::Full)), ["refused FullCaptureActive"]);
    bench.running("b");
    bench.running("c");
    assert_eq!(bench.create(request("d", Kind::Full)), ["refused NoBlocks"]);
    bench.step(Input::Stop { serial: first, reply: None });
    assert_eq!(bench.create(request("d", Kind::Full)), ["refused NoBlocks"], "workers may still have it");
    bench.step(detached(first, 0));
    assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]);
    let mut bench = Bench::new(Config { slots: 1, ..config() });
    bench.running("a");
    assert_eq!(bench.create(request("b", Kind::Full)), ["refused NoSlot"]);
}

#[test]
fn the_monotonic_clock_ends_a_capture_and_the_reason_that_came_first_stays() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    bench.mono += Duration::from_millis(59_999);
    assert!(!bench.tick().contains(&"end budget Time".to_owned()));
    bench.mono += Duration::from_millis(1);
    assert!(bench.tick().contains(&"end budget Time".to_owned()));
    bench.step(Input::BudgetEnded { serial, ended: Ended::Packets });
    assert_eq!(bench.job(serial).stop_reason, Some(StopReason::PacketLimit));
    bench.step(Input::SpoolFailed { serial, failure: Failure::Io("EIO".to_owned()) });
    assert_eq!(bench.job(serial).stop_reason, Some(StopReason::PacketLimit));
}

#[test]
fn a_budget_that_the_spool_took_away_waits_for_the_spools_reason() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    assert!(bench.step(Input::BudgetEnded { serial, ended: Ended::Revoked }).is_empty());
    bench.step(Input::SpoolFailed { serial, failure: Failure::Io("EIO".to_owned()) });
    assert_eq!(bench.job(serial).stop_reason, Some(StopReason::IoError));
    let serial = bench.running("b");
    bench.mono += Duration::from_secs(61);
    bench.step(Input::BudgetEnded { serial, ended: Ended::Revoked });
    assert_eq!(bench.job(serial).stop_reason, Some(StopReason::TimeLimit), "but not without end");
}

#[test]
fn counts_are_noted_one_write_at_a_time_and_none_while_it_closes() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    bench.mono += Duration::from_secs(1);
    assert_eq!(bench.tick(), ["note"]);
    bench.mono += Duration::from_secs(5);
    assert!(bench.tick().is_empty(), "the disk stands still");
    bench.step(Input::Stop { serial, reply: None });
    bench.step(detached(serial, 10));
    bench.step(stream_ended(serial, 0, 0));
    // The final counts are wanted too, after the write that is under way.
    assert_eq!(bench.step(stream_ended(serial, 0, 0)), ["record ConversionRunning"]);
    assert!(
        bench.delivered(serial, Outcome::Done).is_empty(),
        "it does not close while a write is under way"
    );
    assert_eq!(bench.step(Input::Noted { serial }), ["note"]);
    assert_eq!(bench.step(Input::Noted { serial }), ["publish"]);
    bench.mono += Duration::from_secs(5);
    assert!(bench.tick().is_empty(), "no write follows");
}

#[test]
fn a_full_spool_ends_the_largest_capture() {
    let mut bench = Bench::new(config());
    let (first, second) = (bench.running("a"), bench.running("b"));
    assert_eq!(bench.step(Input::Tick { held: 960, of_accounts: Vec::new() }), ["weigh"]);
    let captured = vec![(first, 700), (second, 260)];
    let effects = bench.step(Input::Weighed { captured });
    assert_eq!(effects, ["refuse writes", "end budget Revoked", "detach 0", "record Running"]);
    assert_eq!(bench.job(first).stop_reason, Some(StopReason::SpoolFull));
}

#[test]
fn a_shutdown_delivers_what_it_can_and_leaves_the_rest() {
    let mut bench = Bench::new(config());
    let (done, left) = (bench.drained("a"), bench.drained("b"));
    let running = bench.running("c");
    let effects = bench.step(Input::Shutdown { reply: Some(99) });
    assert_eq!(effects, ["stop retrying", "end budget Revoked", "detach 0", "record Running"]);
    assert_eq!(bench.create(request("d", Kind::Full)), ["refused ShuttingDown"]);
    bench.delivered(done, Outcome::Done);
    bench.step(Input::Closed { serial: done, outcome: Outcome::Done });
    bench.recorded(done);
    bench.step(Input::Removed { serial: done, result: Ok(()), kept: 0 });
    assert_eq!(bench.delivered(left, Outcome::Left), ["record ConversionRunning"]);
    assert_eq!(bench.recorded(left), ["forget"]);
    bench.step(Input::Removed { serial: left, result: Ok(()), kept: 0 });
    bench.step(detached(running, 0));
    bench.delivered(running, Outcome::Left);
    bench.step(stream_ended(running, 0, 0));
    bench.step(stream_ended(running, 0, 0));
    assert_eq!(bench.step(Input::Noted { serial: running }), ["record ConversionRunning"]);
    // The store takes nothing, and the process must end all the same.
    bench.mono += RECORD_TIME_MAX;
    assert_eq!(bench.tick(), ["forget"]);
    let effects = bench.step(Input::Removed { serial: running, result: Ok(()), kept: 0 });
    assert_eq!(effects, ["drop", "finish 1"]);
}

#[test]
fn a_shutdown_without_anybody_who_waits_ends_too() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.step(Input::Shutdown { reply: None }), ["stop retrying", "finish 0"]);
    assert!(bench.step(Input::Shutdown { reply: None }).is_empty(), "once");
}

fn left(machine: &mut Machine, remains: Remains) -> Input {
    let serial = machine.serial_for_inherited();
    let id = CaptureId::parse(&format!("{:032x}", 77)).unwrap();
    let job = Job::accepted_as(id, Timestamp::UNIX_EPOCH, request("a", Kind::Full), None);
    Input::Inherited(Box::new(Inherited { serial, job, remains }))
}

#[test]
fn an_unfinished_job_without_a_spool_publishes_nothing_and_says_where_to_look() {
    let mut bench = Bench::new(config());
    let inherited = left(&mut bench.machine, Remains::Nothing);
    assert_eq!(bench.step(inherited), ["seek"]);
    assert_eq!(bench.step(Input::Sought { serial: 1, found: Sought::Nothing(None) }), ["record Failed"]);
    let job = bench.job(1);
    assert_eq!(job.stop_reason, Some(StopReason::Interrupted));
    let message = job.error_message.clone().unwrap();
    assert!(
        message.contains("/b") && message.contains("pcap_00") && !message.contains("No packets"),
        "{message}"
    );
    assert_eq!(bench.recorded(1), ["forget"]);
}

#[test]
fn an_unfinished_job_whose_manifest_is_in_the_bucket_was_delivered() {
    let mut bench = Bench::new(config());
    let inherited = left(&mut bench.machine, Remains::Nothing);
    bench.step(inherited);
    let mut manifest = crate::deliver::empty_manifest(&bench.job(1).id.clone());
    manifest.ledger = Ledger { offered: 5, rx: 5, matched: 5, captured: 5, ..Ledger::default() };
    manifest.objects = vec![ObjectInfo { packets: 5, ..ObjectInfo::default() }];
    let found = Sought::Manifest(Box::new(manifest.clone()));
    assert_eq!(bench.step(Input::Sought { serial: 1, found }), ["record Success"]);
    assert_eq!((bench.job(1).ledger, &bench.job(1).objects), (manifest.ledger, &manifest.objects));
}

#[test]
fn a_clock_that_is_set_while_a_capture_runs_stands_in_its_progress_and_its_manifest() {
    let mut bench = Bench::new(config());
    let (first, second) = (bench.running("a"), bench.running("b"));
    let step = |moved_ns| Input::ClockStepped(ClockSteps { count: 1, moved_ns });
    bench.step(step(-300));
    bench.step(Input::Stop { serial: second, reply: None });
    bench.step(step(50));
    bench.step(detached(second, 10));
    bench.step(step(7000));
    let third = bench.running("c");
    for (serial, steps) in [(first, Some((3, 6750))), (second, Some((2, -250))), (third, None)] {
        let capture = bench.machine.capture(serial).unwrap();
        let steps = steps.map(|(count, moved_ns)| ClockSteps { count, moved_ns });
        let progress = capture.progress(Ledger::default(), bench.mono, ObjectRange::ALL);
        assert_eq!((progress.clock_steps, capture.manifest("h", "c").clock_steps), (steps, steps));
        // What a crash leaves says so too.
        assert_eq!(capture.flat_job(Ledger::default()).clock_steps, steps);
    }
    let mut manifest = crate::deliver::empty_manifest(&bench.job(first).id.clone());
    let old = String::from_utf8(manifest.to_json().unwrap()).unwrap();
    assert!(!old.contains("clock_steps"), "older programs' manifests are as they were");
    assert_eq!(Manifest::parse(old.as_bytes()).unwrap().clock_steps, None);
    manifest.clock_steps = Some(ClockSteps { count: 1, moved_ns: -1 });
    assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
}

fn bare(queues: usize) -> Remains {
    Remains::Directory { record: None, settled: None, queues }
}

#[test]
fn a_capture_whose_record_is_lost_goes_on_in_its_format_and_with_all_its_queues() {
    let object_format = ObjectFormat { container: Container::PcapNg, ..ObjectFormat::default() };
    let mut bench = Bench::new(Config { object_format, ..config() });
    let inherited = left(&mut bench.machine, bare(STREAMS + 3));
    bench.step(inherited);
    let capture = bench.machine.capture(1).unwrap();
    assert_eq!((capture.format, capture.queues), (object_format, STREAMS + 3));
}

#[test]
fn a_segment_that_was_given_up_and_is_delivered_after_a_crash_is_counted_once() {
    for is_final in [true, false] {
        let mut bench = Bench::new(config());
        let serial = bench.running("a");
        bench.step(Input::Stop { serial, reply: None });
        bench.step(detached(serial, 10));
        bench.step(stream_ended(serial, 4, 1));
        bench.step(stream_ended(serial, 0, 0));
        let capture = bench.machine.capture(serial).unwrap();
        let ledger = capture.ledger(Counted::default);
        assert_eq!((ledger.captured, ledger.dropped.spool), (6, 4));
        let record = CaptureRecord {
            job: capture.flat_job(ledger),
            queues: STREAMS,
            snaplen: capture.snaplen(),
            object_bytes_max: 1,
            format: capture.format,
            origin: crate::pcap::Origin::default(),
            dirs: Default::default(),
            started: None,
            ended: None,
            known_until: Timestamp::UNIX_EPOCH,
            is_final,
        };
        let remains = Remains::Directory { record: Some(Box::new(record)), settled: None, queues: STREAMS };
        let mut bench = Bench::new(config());
        let inherited = left(&mut bench.machine, remains);
        bench.step(inherited);
        let found = Found { objects: Vec::new(), packets: 10, frame_bytes: 1000 };
        bench.step(Input::Delivery { serial: 1, report: Report::Recovered(found) });
        let ledger = bench.job(1).ledger;
        assert_eq!((ledger.captured, ledger.matched, ledger.dropped.total()), (10, 10, 0), "{is_final}");
        ledger.check().unwrap();
    }
}

#[test]
fn a_capture_that_was_interrupted_before_its_first_packet_says_so() {
    let mut bench = Bench::new(config());
    let inherited = left(&mut bench.machine, bare(STREAMS));
    assert_eq!(bench.step(inherited), ["record ConversionRunning", "deliver left"]);
    let report = Report::Recovered(Found::default());
    assert_eq!(bench.step(Input::Delivery { serial: 1, report }), ["record ConversionRunning"]);
    assert_eq!(bench.delivered(1, Outcome::Done), ["publish"]);
    assert_eq!(bench.step(Input::Closed { serial: 1, outcome: Outcome::Done }), ["record Failed"]);
    bench.assert_says(1, &["ended while this capture was running"]);
    assert_eq!(bench.job(1).stop_reason, Some(StopReason::Interrupted));
}

fn looking_back(account: &str) -> Request {
    let at = Timestamp::UNIX_EPOCH;
    Request { offset_time: Some(OffsetTime { sent: at.to_string(), at }), ..request(account, Kind::Simple) }
}

#[test]
fn a_look_back_waits_for_the_recording_that_closes_the_one_before() {
    let mut bench = Bench::new(Config { has_history: true, ..config() });
    assert_eq!(bench.tick(), ["place recording 1"]);
    assert_eq!(bench.step(Input::RecordingPlaced { serial: 1, made: Ok(()) }), ["attach recording 1"]);
    assert_eq!(bench.create(looking_back("a")), ["place recording 2", "record new"]);
    assert_eq!(bench.step(Input::Recorded { serial: 3, version: 1 }), ["accepted"]);
    let effects = bench.step(Input::RecordingPlaced { serial: 2, made: Ok(()) });
    assert_eq!(effects, ["attach recording 2", "look back, complete below 2"]);
    // The recording is replaced while it reads, and the other one cannot begin.
    assert_eq!(bench.create(looking_back("b")), ["place recording 4", "record new"]);
    bench.step(Input::Recorded { serial: 5, version: 1 });
    let effects = bench.step(Input::RecordingPlaced { serial: 4, made: Err("no room".to_owned()) });
    assert_eq!(effects, ["look back, complete below 0"]);
    for serial in [3, 5] {
        let effects = bench.step(Input::LookedBack { serial, result: Err("late".to_owned()) });
        assert_eq!(effects, ["record Failed"]);
        assert_eq!(bench.step(Input::Recorded { serial, version: 2 }), ["drop"]);
    }
    assert_eq!(
        bench.step(Input::Shutdown { reply: Some(9) }),
        ["detach recording", "stop retrying", "finish 1"]
    );
}

#[test]
fn a_recording_that_failed_is_tried_again_after_a_minute() {
    let mut bench = Bench::new(Config { has_history: true, ..config() });
    bench.tick();
    bench.step(Input::RecordingPlaced { serial: 1, made: Err("no room".to_owned()) });
    bench.mono += Duration::from_secs(59);
    assert!(bench.tick().is_empty());
    bench.mono += Duration::from_secs(1);
    assert_eq!(bench.tick(), ["place recording 2"]);
    bench.step(Input::RecordingPlaced { serial: 2, made: Ok(()) });
    bench.step(Input::RecordingFailed { serial: 2 });
    bench.step(Input::RecordingFailed { serial: 1 });
    bench.mono += Duration::from_secs(60);
    assert_eq!(bench.tick(), ["place recording 3"]);
}

#[test]
fn answers_that_come_too_late_change_nothing() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    assert_eq!(bench.machine.capture(serial).unwrap().phase, Phase::Draining);
    for late in [
        Input::Opened { serial, tried: Ok(BucketTerms::default()) },
        Input::Placed { serial, made: Ok(()) },
        Input::Attached { serial },
        detached(serial, 99),
        Input::BudgetEnded { serial, ended: Ended::Time },
        Input::Unrecordable { serial, error: String::new() },
        Input::Closed { serial, outcome: Outcome::Done },
        Input::Removed { serial, result: Ok(()), kept: 0 },
        Input::Sought { serial, found: Sought::Nothing(None) },
        Input::Opened { serial: 999, tried: Ok(BucketTerms::default()) },
    ] {
        let said = format!("{late:?}");
        assert!(bench.step(late).is_empty(), "{said}");
    }
    assert_eq!(bench.job(serial).ledger.captured, 10);
}

#[test]
fn a_refused_simple_capture_does_not_forgive_the_one_that_was_asked_for_after_it() {
    let mut bench = Bench::new(config());
    bench.create(request("a", Kind::Simple));
    bench.mono += Duration::from_secs(61);
    bench.create(request("a", Kind::Simple));
    bench.step(Input::Opened { serial: 1, tried: Err(Refusal::Destination("no".to_owned())) });
    assert_eq!(bench.create(request("a", Kind::Simple)), ["refused SimpleTooSoon"]);
}

#[test]
fn what_cannot_be_read_again_is_booked_as_lost_before_and_after_the_counts_are_final() {
    for is_settled in [false, true] {
        let mut bench = Bench::new(config());
        let serial = if is_settled { bench.drained("a") } else { bench.running("a") };
        let report = Report::Lost { packets: 3, frame_bytes: 300 };
        bench.step(Input::Delivery { serial, report });
        if !is_settled {
            bench.step(Input::Stop { serial, reply: None });
            bench.step(detached(serial, 10));
            bench.step(stream_ended(serial, 0, 0));
            bench.step(stream_ended(serial, 0, 0));
            bench.step(Input::Noted { serial });
        }
        let ledger = bench.job(serial).ledger;
        ledger.check().unwrap();
        assert_eq!((ledger.captured, ledger.captured_bytes, ledger.dropped.io), (7, 700, 3));
        bench.delivered(serial, Outcome::Done);
        bench.step(Input::Closed { serial, outcome: Outcome::Done });
        bench.assert_says(
            serial,
            &["3 packets could not be read from the disk", "are kept", "`trawl recover`"],
        );
    }
}

#[test]
fn captures_that_wait_are_counted_for_each_account_until_they_are_delivered() {
    let mut bench = Bench::new(room::shared());
    let first = bench.drained("b");
    for _ in 0..2 {
        bench.drained("b");
    }
    assert_eq!(bench.create(request("b", Kind::Full)), ["refused TooManyWaiting"]);
    assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]);
    bench.delivered(first, Outcome::Done);
    assert_eq!(
        bench.create(request("b", Kind::Simple)),
        ["refused TooManyWaiting"],
        "its manifest is not there"
    );
    bench.step(Input::Closed { serial: first, outcome: Outcome::Done });
    assert_eq!(bench.create(request("b", Kind::Simple)), ["try destination"]);
}

#[test]
fn its_owner_drops_a_capture_that_waits_in_any_phase_and_none_that_takes_packets() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    assert!(bench.step(Input::GiveUp { serial, reply: None }).is_empty());
    bench.step(Input::Stop { serial, reply: None });
    let effects = bench.step(Input::GiveUp { serial, reply: None });
    assert_eq!(effects, [format!("give up {serial}"), "record Running".to_owned()]);
    assert!(bench.step(Input::GiveUp { serial, reply: None }).is_empty(), "once");
    bench.delivered(serial, Outcome::Failed(Words::alike("its owner dropped it")));
    bench.step(detached(serial, 10));
    bench.step(stream_ended(serial, 0, 0));
    bench.step(stream_ended(serial, 0, 0));
    assert_eq!(bench.step(Input::Noted { serial }), ["record Failed"]);
    assert_eq!(bench.recorded(serial), ["discard"]);
    let serial = bench.drained("a");
    bench.delivered(serial, Outcome::Done);
    let effects = bench.step(Input::GiveUp { serial, reply: None });
    assert_eq!(effects, [format!("give up {serial}"), "record ConversionRunning".to_owned()]);
    let outcome = Outcome::Failed(Words::alike("its owner dropped it"));
    assert_eq!(bench.step(Input::Closed { serial, outcome }), ["record Failed"]);
    assert_eq!(bench.recorded(serial), ["discard"]);
}

#[test]
fn what_a_failed_capture_leaves_is_known_and_its_owner_can_drop_it() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    bench.delivered(serial, Outcome::Failed(Words::alike("403")));
    assert_eq!(bench.recorded(serial), ["forget"]);
    let (account, id) = (AccountId("a".to_owned()), bench.job(serial).id.clone());
    bench.step(Input::Removed { serial, result: Ok(()), kept: 300 });
    assert_eq!(bench.machine.kept(&account, &id), Some(300));
    let other = Input::DropKept { account: AccountId("b".to_owned()), id: id.clone(), reply: None };
    assert!(bench.step(other).is_empty(), "another account's");
    let dropped = bench.step(Input::DropKept { account: account.clone(), id: id.clone(), reply: None });
    assert_eq!(dropped, [format!("drop kept {}", id.as_str().trim_start_matches('0'))]);
    bench.step(Input::KeptDropped { id: id.clone(), result: Ok(()) });
    assert_eq!(bench.machine.kept(&account, &id), None);
}

#[test]
fn look_backs_of_an_account_have_a_rate_and_those_of_others_have_theirs() {
    let interval = Duration::from_secs(8);
    let mut bench = Bench::new(Config { has_history: true, look_back_interval: interval, ..config() });
    let at = Timestamp::UNIX_EPOCH;
    let look = |account: &str| Request {
        offset_time: Some(OffsetTime { sent: at.to_string(), at }),
        ..request(account, Kind::Simple)
    };
    let ask = |bench: &mut Bench, account: &str| {
        let effects = bench.create(look(account));
        let serial = bench.machine.last_serial;
        // It ends at once, so that only its rate is held against the next one.
        if effects.iter().any(|effect| effect == "record new") {
            bench.step(Input::Unrecordable { serial, error: String::new() });
        }
        effects.last().unwrap().clone()
    };
    let refused = "refused LookBackTooSoon";
    let asked: Vec<_> = (0..10).map(|_| ask(&mut bench, "b")).collect();
    assert_eq!(asked.iter().filter(|effect| *effect == refused).count(), 2, "{asked:?}");
    assert_ne!(ask(&mut bench, "a"), refused);
    bench.mono += interval;
    assert_ne!(ask(&mut bench, "b"), refused);
    assert_eq!(ask(&mut bench, "b"), refused);
}
