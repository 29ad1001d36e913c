//! Reading the file: the shipped one, any one, and wrong ones.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SHIPPED: &str = include_str!("../../config/trawl.toml");

/// A file in which every key is present.
fn full() -> File {
    let credential = Credential {
        email: Some(String::new()),
        key_sha256: Some(String::new()),
        token_sha256: Some(String::new()),
        role: String::new(),
    };
    let mut file = File {
        port: vec![Port::default()],
        account: vec![Account { credential: vec![credential], ..Account::default() }],
        operator: vec![Operator::default()],
        ..File::default()
    };
    file.host.id = Some(String::new());
    let nats = FleetNats {
        nkey_file: Some(PathBuf::new()),
        ca_file: Some(PathBuf::new()),
        cert_file: Some(PathBuf::new()),
        key_file: Some(PathBuf::new()),
        ..FleetNats::default()
    };
    file.fleet = Some(Fleet { nats: Some(nats), signing_key_file: Some(PathBuf::new()), ..Fleet::default() });
    file.spool.dir = Some(PathBuf::new());
    file.spool.account_percent = Some(1);
    file.upload.memory_bytes_max = Some(ByteSize(1));
    file.upload.objects_in_flight = Some(1);
    file.capture.packet_limit_max = Some(1);
    file.capture.byte_limit_max = Some(ByteSize(1));
    file.api.connections_per_peer_max = Some(1);
    file.api.connections_per_account_max = Some(1);
    file.api.requests_per_second_max = Some(1);
    file.ui.origin = Some(String::new());
    file.api.tls_cert = Some(PathBuf::new());
    file.api.tls_key = Some(PathBuf::new());
    file.upload.proxy = Some(String::new());
    file.upload.ca_file = Some(PathBuf::new());
    file.upload.s3 = S3 {
        endpoint: Some(String::new()),
        path_style: Some(true),
        kms_key_id: Some(String::new()),
        storage_class: Some(String::new()),
        ..S3::default()
    };
    file.upload.r2.endpoint = Some(String::new());
    file.observe.listen = Some(String::new());
    file.store.key_file = Some(PathBuf::new());
    file.upload.gcs.endpoint = Some(String::new());
    file.upload.gcs.credentials_file = Some(PathBuf::new());
    file.upload.gcs.storage_class = Some(String::new());
    file.audit.dir = Some(PathBuf::new());
    file.manifest.timestamp_url = Some(String::new());
    file.manifest.timestamp_ca_file = Some(PathBuf::new());
    file.manifest.signing_key_file = Some(PathBuf::from("x"));
    file
}

fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| keys(value, &format!("{path}.{key}"), found))
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().for_each(|item| keys(item, path, found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn what_is_no_toml_or_of_a_wrong_type_is_said_without_what_was_written() {
    for (text, said) in [
        ("version = 1\n[[account]]\nid = \"a\"\ntoken = \"hush-4711\n", "line 4, column"),
        ("token_sha256 = hush-4711\n", "line 1, column"),
        ("[[operator]]\ntoken = \"hush-4711\"\n", "operator[0].token"),
        ("[[operator]]\ntoken_sha256 = 4711\n", "operator[0].token_sha256"),
        ("[[operator]]\ntoken_sha256 = [\"hush-4711\"]\n", "operator[0].token_sha256"),
        ("[[account]]\nid = \"a\"\n[[account.credential]]\nemail = 4711\n", "account[0].credential[0].email"),
        ("[[account]]\nid = \"a\"\n[[account.credential]]\nrole = 4711\n", "account[0].credential[0].role"),
        ("account = \"hush-4711\"\n", "account"),
        ("operator = 4711\n", "operator"),
    ] {
        let (_, problems) = read(text);
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let all = all.join("\n");
        assert!(all.contains(said) && !all.contains("hush") && !all.contains("4711"), "{text}: {all}");
    }
}

#[test]
fn the_shipped_file_names_every_key_and_no_other() {
    let uncommented: String = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (_, problems) = read(&uncommented);
    assert!(problems.is_empty(), "{problems:?}");
    let (mut shipped, mut declared) = (BTreeSet::new(), BTreeSet::new());
    keys(&Value::Table(uncommented.parse().unwrap()), "", &mut shipped);
    keys(&Value::try_from(full()).unwrap(), "", &mut declared);
    assert_eq!(shipped, declared);
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let (file, problems) = read(SHIPPED);
    assert!(problems.is_empty(), "{problems:?}");
    let port = Port { device: "0000:03:00.0".to_owned(), ..Port::default() };
    let account = Account { id: "023e105f4ecef8ad9ca31a8372d0c353".to_owned(), ..Account::default() };
    let credentials = file.account[0].credential.clone();
    assert_eq!(credentials.len(), 2);
    let defaults = File {
        port: vec![port],
        account: vec![Account { credential: credentials, ..account }],
        ..File::default()
    };
    assert_eq!(file, defaults);
}

#[test]
fn every_illegal_key_is_reported_with_path_and_value_and_the_legal_ones_are_kept() {
    let (file, problems) = read(
        r#"
        [host]
        id = 7
        colo = "ord02"
        [spool]
        bytes_max = "2 gigs"
        segment_byte = "8MiB"
        [ports]
        device = "x"
        queues = 3
        [[port]]
        device = "net_null0"
        queues = -1
        [[port]]
        device = "net_null1"
        mbufs = 9000
        [upload.s3]
        path_style = "yes"
        [[account]]
        token = "hunter2"
        "#,
    );
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n"));
    assert_eq!((file.host.colo.as_str(), file.port[1].mbufs), ("ord02", 9000));
}

#[test]
fn a_file_that_is_not_toml_is_one_problem_with_its_place() {
    let (_, problems) = read("[host]\nid = \n");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("line 2"), "{}", problems[0]);
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

prop_compose! {
    fn port()(device in text(), queues in 0..1u64 << 40, mbufs in 0..1u64 << 40, frame in 0..1u64 << 40) -> Port {
        Port { device, queues, mbufs, frame_bytes_max: frame, ..Port::default() }
    }
}

prop_compose! {
    fn account()(id in text(), prefixes in prop::collection::vec(text(), 0..3), email in prop::option::of(text()),
                 token in prop::option::of(text()), role in text()) -> Account {
        let credential = Credential { email, token_sha256: token, role, ..Credential::default() };
        Account { id, prefixes, credential: vec![credential] }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(
        id in prop::option::of(text()),
        eal in prop::collection::vec(text(), 0..4),
        port in prop::collection::vec(port(), 0..3),
        workers in prop::collection::vec(0..1u64 << 40, 0..4),
        bytes_max in 0..u64::MAX,
        limit in prop::option::of(0..1u64 << 60),
        account in prop::collection::vec(account(), 0..3),
    ) {
        let mut file = File { port, account, ..File::default() };
        file.host.id = id;
        file.dpdk.eal = eal;
        file.cores.workers = workers;
        file.spool.bytes_max = ByteSize(bytes_max);
        file.capture.packet_limit_max = limit;
        file.capture.byte_limit_max = limit.map(ByteSize);
        let (read, problems) = read(&toml::to_string(&file).unwrap());
        prop_assert!(problems.is_empty(), "{:?}", problems);
        prop_assert_eq!(read, file);
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(\\[[a-z.]{1,8}\\]\n|\\[\\[(port|account)\\]\\]\n|[a-z_]{1,12} = (1|-1|true|\"x\"|\\[\\]|\\{\\}|\\[\\{\\}\\])\n){0,8}") {
        let _ = read(&text);
    }
}

#[test]
fn a_file_without_a_version_is_of_the_first_and_one_of_another_is_refused_with_nothing_else_said() {
    for text in ["", "version = 1\n[host]\ncolo = \"ord02\"\n"] {
        let (file, problems) = read(text);
        assert!(problems.is_empty() && file.version == 1, "{problems:?}");
    }
    for other in ["0", "2", "-1"] {
        let (_, problems) = read(&format!("version = {other}\nnew_key = 7\n[host]\ncolo = 7\n"));
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let said = problem.to_string();
        assert!(said.starts_with(&format!("version = {other}: this trawl reads version 1")), "{said}");
    }
    let (_, problems) = read("version = \"1\"\n");
    assert!(problems[0].to_string().starts_with("version = \"1\": invalid type"), "{problems:?}");
}

/// Of every version that was released: none may need another config than it had.
#[test]
fn the_config_of_every_released_version_is_read() {
    let released = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/released");
    let mut seen = 0;
    let entries = std::fs::read_dir(released).unwrap().map(|entry| entry.unwrap().path());
    for version in entries.filter(|path| path.is_dir()) {
        let text = std::fs::read_to_string(version.join("trawl.toml")).unwrap();
        let plan = super::super::Plan::parse(&text);
        assert!(plan.is_ok(), "{:?}", plan.err());
        seen += 1;
    }
    assert!(seen > 0);
}
