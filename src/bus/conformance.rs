//! What every [`Bus`] must keep, whatever it is made of, seen from two nodes. An implementation's tests run all of [`ALL`]; each
//! property has keys of its own, so they may share a bus.

use super::{Answer, Away, Bus, Entry, Message, Revision, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Two nodes of one fleet.
#[derive(Clone)]
pub struct Two(pub Arc<dyn Bus>, pub Arc<dyn Bus>);

type Holding = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Property = fn(Two) -> Holding;

macro_rules! properties {
    ($($name:ident),* $(,)?) => {
        /// Every property and its name.
        pub const ALL: &[(&str, Property)] = &[$((stringify!($name), |two| Box::pin($name(two)))),*];
    };
}

properties![
    a_key_that_was_never_written_has_no_record,
    a_write_follows_on_its_revision_alone,
    a_record_that_was_removed_has_the_revision_of_its_removal,
    of_all_writers_one_has_each_revision,
    a_list_has_what_is_below_its_prefix,
    a_watch_tells_what_was_there_and_each_keys_last,
    a_slow_watcher_is_told_each_keys_last,
    a_watch_tells_nothing_of_other_keys,
    a_message_is_heard_where_its_subject_is_listened_to,
    a_request_is_answered_or_says_that_nobody_is_there,
    a_file_is_kept_whole_and_once,
    what_is_no_name_is_refused,
];

/// Nothing takes longer on a bus that works.
const LONG: Duration = Duration::from_secs(20);

fn root() -> String {
    format!("t{}", uuid::Uuid::new_v4().simple())
}

/// Writes and says the revision.
async fn put(bus: &Arc<dyn Bus>, table: Table, key: &str, expected: Revision, value: &str) -> Revision {
    match bus.write(table, key, expected, value.as_bytes().to_vec()).await {
        Answer::Wrote(revision) => revision,
        answer => panic!("{key}: {answer:?}"),
    }
}

async fn next(entries: &mut mpsc::Receiver<Entry>) -> Entry {
    tokio::time::timeout(LONG, entries.recv()).await.expect("a watch is silent").expect("a watch ended")
}

/// Waits until a watch has told the last state of each key; that revisions rise on the way.
async fn told(
    entries: &mut mpsc::Receiver<Entry>,
    last: &BTreeMap<String, Revision>,
) -> BTreeMap<String, Entry> {
    let mut told: BTreeMap<String, Entry> = BTreeMap::new();
    while last.iter().any(|(key, revision)| told.get(key).is_none_or(|entry| entry.revision < *revision)) {
        let entry = next(entries).await;
        if let Some(before) = told.get(&entry.key) {
            assert!(before.revision < entry.revision, "{before:?} then {entry:?}");
        }
        told.insert(entry.key.clone(), entry);
    }
    told
}

async fn a_key_that_was_never_written_has_no_record(Two(bus, _): Two) {
    for table in Table::ALL {
        let answer = bus.read(table, &root()).await;
        assert_eq!(answer, Answer::Read(Revision::default(), None), "{table:?}");
    }
}

async fn a_write_follows_on_its_revision_alone(Two(bus, other): Two) {
    let key = root();
    let first = put(&bus, Table::Jobs, &key, Revision::default(), "1").await;
    assert!(first.incarnation > 0 && first.sequence > 0);
    assert_eq!(other.write(Table::Jobs, &key, Revision::default(), b"x".to_vec()).await, Answer::Stale);
    let second = put(&other, Table::Jobs, &key, first, "2").await;
    assert!(second > first);
    assert_eq!(bus.write(Table::Jobs, &key, first, b"x".to_vec()).await, Answer::Stale);
    assert_eq!(bus.remove(Table::Jobs, &key, first).await, Answer::Stale);
    let older = Revision { incarnation: second.incarnation - 1, ..second };
    assert_eq!(bus.write(Table::Jobs, &key, older, b"x".to_vec()).await, Answer::Stale);
    assert_eq!(bus.read(Table::Jobs, &key).await, Answer::Read(second, Some(b"2".to_vec())));
    // Another table has another record of this key.
    assert_eq!(bus.read(Table::Shares, &key).await, Answer::Read(Revision::default(), None));
    let empty = put(&bus, Table::Jobs, &key, second, "").await;
    assert_eq!(other.read(Table::Jobs, &key).await, Answer::Read(empty, Some(Vec::new())));
}

async fn a_record_that_was_removed_has_the_revision_of_its_removal(Two(bus, other): Two) {
    let key = root();
    let first = put(&bus, Table::Parts, &key, Revision::default(), "1").await;
    let Answer::Wrote(removed) = other.remove(Table::Parts, &key, first).await else { panic!("it stays") };
    assert_eq!(bus.read(Table::Parts, &key).await, Answer::Read(removed, None));
    assert_eq!(bus.write(Table::Parts, &key, Revision::default(), b"x".to_vec()).await, Answer::Stale);
    assert_eq!(bus.write(Table::Parts, &key, first, b"x".to_vec()).await, Answer::Stale);
    let again = put(&bus, Table::Parts, &key, removed, "2").await;
    assert!(first < removed && removed < again);
}

async fn of_all_writers_one_has_each_revision(Two(bus, other): Two) {
    let key = root();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (bus, key) = (Arc::clone(if number % 2 == 0 { &bus } else { &other }), key.clone());
        writers.spawn(async move {
            let mut wrote = Vec::new();
            while wrote.len() < 5 {
                let Answer::Read(revision, value) = bus.read(Table::Accounts, &key).await else { continue };
                let count: u32 = value.map_or(0, |value| String::from_utf8(value).unwrap().parse().unwrap());
                let next = (count + 1).to_string().into_bytes();
                if let Answer::Wrote(revision) = bus.write(Table::Accounts, &key, revision, next).await {
                    wrote.push(revision);
                }
            }
            wrote
        });
    }
    let mut all: Vec<Revision> = writers.join_all().await.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
    let last = all.last().copied().unwrap();
    assert_eq!(bus.read(Table::Accounts, &key).await, Answer::Read(last, Some(b"40".to_vec())));
}

async fn a_list_has_what_is_below_its_prefix(Two(bus, other): Two) {
    let root = root();
    let mut wrote = BTreeMap::new();
    for key in ["a", "a.1", "a.2.x", "ab.1", "b"] {
        let key = format!("{root}.{key}");
        wrote.insert(key.clone(), put(&bus, Table::Hosts, &key, Revision::default(), &key).await);
    }
    let keys = |entries: Vec<Entry>| {
        let mut keys: Vec<String> =
            entries.iter().map(|entry| entry.key[root.len() + 1..].to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    let below = |prefix: &str| format!("{root}.{prefix}");
    assert_eq!(keys(other.list(Table::Hosts, &below("a")).await.unwrap()), ["a", "a.1", "a.2.x"]);
    assert_eq!(keys(other.list(Table::Hosts, &below("a.")).await.unwrap()), ["a", "a.1", "a.2.x"]);
    assert_eq!(keys(other.list(Table::Hosts, &root).await.unwrap()).len(), 5);
    assert_eq!(other.list(Table::Hosts, &below("c")).await.unwrap(), []);
    let all = other.list(Table::Hosts, "").await.unwrap();
    for (key, revision) in &wrote {
        let entry = all.iter().find(|entry| entry.key == *key).unwrap();
        assert_eq!((entry.revision, entry.value.as_deref()), (*revision, Some(key.as_bytes())));
    }
    let key = below("a.1");
    assert!(matches!(bus.remove(Table::Hosts, &key, wrote[&key]).await, Answer::Wrote(_)));
    let left = other.list(Table::Hosts, &below("a")).await.unwrap();
    assert!(left.iter().all(|entry| (entry.key == key) == entry.value.is_none()));
}

async fn a_watch_tells_what_was_there_and_each_keys_last(Two(bus, other): Two) {
    let root = root();
    let mut last = BTreeMap::new();
    let key = |number: u32| format!("{root}.{number}");
    for number in 0..4 {
        last.insert(key(number), put(&bus, Table::Assignments, &key(number), Revision::default(), "1").await);
    }
    let mut entries = other.watch(Table::Assignments, &root);
    told(&mut entries, &last).await;
    for number in 0..6 {
        let revision = last.get(&key(number)).copied().unwrap_or_default();
        last.insert(key(number), put(&bus, Table::Assignments, &key(number), revision, "2").await);
    }
    let Answer::Wrote(removed) = bus.remove(Table::Assignments, &key(0), last[&key(0)]).await else {
        panic!("it stays")
    };
    last.insert(key(0), removed);
    let told = told(&mut entries, &last).await;
    assert_eq!(told[&key(0)].value, None);
    assert!((1..6).all(|number| told[&key(number)].value.as_deref() == Some(b"2")));
}

async fn a_slow_watcher_is_told_each_keys_last(Two(bus, other): Two) {
    let root = root();
    let mut entries = other.watch(Table::Claims, &root);
    let mut last: BTreeMap<String, Revision> = BTreeMap::new();
    for number in 0..300 {
        let key = format!("{root}.{}", number % 100);
        let revision = last.get(&key).copied().unwrap_or_default();
        let revision = put(&bus, Table::Claims, &key, revision, &number.to_string()).await;
        last.insert(key, revision);
    }
    told(&mut entries, &last).await;
}

async fn a_watch_tells_nothing_of_other_keys(Two(bus, other): Two) {
    let root = root();
    let mut entries = other.watch(Table::Shares, &format!("{root}.a"));
    for key in ["ab", "b.a", "a.1"] {
        put(&bus, Table::Shares, &format!("{root}.{key}"), Revision::default(), "1").await;
    }
    put(&bus, Table::Jobs, &format!("{root}.a.2"), Revision::default(), "1").await;
    assert_eq!(next(&mut entries).await.key, format!("{root}.a.1"));
    put(&bus, Table::Shares, &format!("{root}.a"), Revision::default(), "1").await;
    assert_eq!(next(&mut entries).await.key, format!("{root}.a"));
}

/// Says something until it is heard: a new listener is known to all servers a moment later.
async fn hear(bus: &Arc<dyn Bus>, subject: &str, messages: &mut mpsc::Receiver<Message>) -> Message {
    for _ in 0..100 {
        bus.publish(subject, b"hello".to_vec()).await.unwrap();
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(200), messages.recv()).await {
            return message.unwrap();
        }
    }
    panic!("{subject} is not heard");
}

async fn a_message_is_heard_where_its_subject_is_listened_to(Two(bus, other): Two) {
    let root = root();
    let mut all = other.subscribe(&format!("{root}.>"));
    let mut some = other.subscribe(&format!("{root}.*.b"));
    let message = hear(&bus, &format!("{root}.a.b"), &mut all).await;
    assert_eq!((message.subject.as_str(), &message.payload[..]), (&*format!("{root}.a.b"), &b"hello"[..]));
    assert!(message.answer.is_none());
    hear(&bus, &format!("{root}.a.b"), &mut some).await;
    hear(&bus, &format!("{root}.a.c"), &mut all).await;
    // All of `a.b` were sent before, on the same way.
    hear(&bus, &format!("{root}.z.b"), &mut some).await;
    while let Ok(message) = some.try_recv() {
        assert!(message.subject.ends_with(".b"), "{message:?}");
    }
}

async fn a_request_is_answered_or_says_that_nobody_is_there(Two(bus, other): Two) {
    let subject = root();
    assert_eq!(bus.request(&subject, Vec::new(), LONG).await, Err(Away::NoOne));
    let mut asked = other.subscribe(&subject);
    hear(&bus, &subject, &mut asked).await;
    let answers = tokio::spawn(async move {
        while let Some(Message { payload, answer, .. }) = asked.recv().await {
            match (&payload[..], answer) {
                (b"hello" | b"be silent", _) | (_, None) => {}
                (_, Some(answer)) => answer([&payload[..], b"!"].concat()),
            }
        }
    });
    assert_eq!(bus.request(&subject, b"a".to_vec(), LONG).await, Ok(b"a!".to_vec()));
    let within = Duration::from_millis(300);
    let silence = bus.request(&subject, b"be silent".to_vec(), within).await;
    assert!(matches!(silence, Err(Away::Timeout(_))), "{silence:?}");
    assert_eq!(bus.request(&subject, b"b".to_vec(), LONG).await, Ok(b"b!".to_vec()));
    answers.abort();
}

async fn a_file_is_kept_whole_and_once(Two(bus, other): Two) {
    let large: Vec<u8> = (0..3_000_000u32).map(|number| (number ^ (number >> 8)) as u8).collect();
    for bytes in [Vec::new(), b"small".to_vec(), large] {
        let name = format!("{}.pcap", root());
        assert_eq!(other.kept(&name).await, Ok(None));
        assert_eq!(bus.keep(&name, bytes.clone()).await, Ok(true));
        assert_eq!(other.keep(&name, bytes.clone()).await, Ok(true));
        assert_eq!(other.keep(&name, b"other".to_vec()).await, Ok(false));
        assert!(other.kept(&name).await.unwrap().as_ref() == Some(&bytes));
        other.discard(&name).await.unwrap();
        assert_eq!(bus.kept(&name).await, Ok(None));
        bus.discard(&name).await.unwrap();
        assert_eq!(bus.keep(&name, bytes.clone()).await, Ok(true));
        assert!(other.kept(&name).await.unwrap().as_ref() == Some(&bytes));
    }
}

async fn what_is_no_name_is_refused(Two(bus, _): Two) {
    for key in ["", "a b", "a..b", ".a", "a.", "*", "a.>", "ä", "a\r\nb"] {
        let wrote = bus.write(Table::Jobs, key, Revision::default(), Vec::new()).await;
        assert_eq!(wrote, Answer::Unavailable, "{key:?}");
        assert_eq!(bus.read(Table::Jobs, key).await, Answer::Unavailable, "{key:?}");
        assert!(bus.publish(key, Vec::new()).await.is_err(), "{key:?}");
        assert!(bus.keep(key, Vec::new()).await.is_err(), "{key:?}");
    }
}
