//! `merge`, `filter test` and `verify` as processes: standard input and output, signals, full disks, readers that leave, names
//! that are no text, many inputs and few descriptors.

use super::trawl;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use trawl::pcap::{Reader, Writer};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Of a capture without packets.
const MANIFEST: &str = r#"{"version":1,"id":"0123456789abcdef0123456789abcdef","host":"cap1","colo":"ord02",
"kind":"full","filter_v1":{},"limits":{"time_limit":1,"packet_limit":null,"byte_limit":null},
"submitted":"2026-11-24T06:00:00Z","started":null,"ended":null,"stop_reason":null,"complete":true,"snaplen":262144,
"objects":[],"queues":1,"ledger":{"offered":0,"port":{"imissed":0,"rx_nombuf":0,"ierrors":0},"rx":0,"unmatched":0,
"matched":0,"captured":0,"captured_bytes":0,
"dropped":{"no_block":0,"limit":0,"sampled":0,"spool":0,"io":0,"interrupted":0}}}"#;

fn sample(path: &Path, packets: u64) -> PathBuf {
    let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
    for n in 0..packets {
        writer.write(1_000_000_000 + n, 60, &[n as u8; 60]).unwrap();
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
    path.to_owned()
}

fn packets(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap().map(|_| ())).count()
}

/// The binary with what the caller's environment does not change.
fn command(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn os(arguments: &[&str]) -> Vec<std::ffi::OsString> {
    arguments.iter().map(Into::into).collect()
}

fn run(arguments: &[&str]) -> Output {
    let arguments = os(arguments);
    let arguments: Vec<_> = arguments.iter().map(|argument| &**argument).collect();
    command(&arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a line of `bash` with `$TRAWL` and `$DIR`; exit code, standard output and standard error.
fn shell(dir: &Path, line: &str) -> (i32, String, String) {
    let output = Command::new("bash")
        .args(["-c", line])
        .env("TRAWL", env!("CARGO_BIN_EXE_trawl"))
        .env("DIR", dir)
        .current_dir(dir)
        .output()
        .unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn packets_do_not_vanish_in_an_output_that_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("a.pcap"), 10);
    for line in [
        "$TRAWL merge a.pcap >&-",
        "$TRAWL filter test a.pcap -o - >&-",
        "TRAWL_TOKEN=t $TRAWL capture download 0123456789abcdef0123456789abcdef -o - --account a >&-",
    ] {
        let (code, _, error) = shell(dir.path(), line);
        assert!(code != 0 && error.contains("standard output is closed"), "{line}: {code} {error}");
    }
    assert_eq!(shell(dir.path(), "$TRAWL merge a.pcap >/dev/null").0, 0);
}

#[test]
fn a_dash_is_standard_input_and_output_of_merge_and_filter_test() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("a.pcap"), 10);
    for line in [
        "$TRAWL merge -o out.pcap - <a.pcap",
        "cat a.pcap | $TRAWL merge - >out.pcap",
        "cat a.pcap | $TRAWL filter test - -o - >out.pcap",
        "cat a.pcap | $TRAWL filter test - -w out.pcap",
        "$TRAWL merge -o - --compression zstd a.pcap | $TRAWL filter test - -o out.pcap",
    ] {
        let (code, out, error) = shell(dir.path(), line);
        assert_eq!(code, 0, "{line}: {out}{error}");
        assert_eq!(packets(&fs::read(dir.path().join("out.pcap")).unwrap()), 10, "{line}");
        fs::remove_file(dir.path().join("out.pcap")).unwrap();
    }
}

#[test]
fn standard_input_is_named_once_and_a_config_without_an_end_is_refused() {
    let merge = trawl(&["merge", "-", "-", "-o", "-"]).output().unwrap();
    let said = String::from_utf8_lossy(&merge.stderr).into_owned();
    assert!(!merge.status.success() && said.contains("standard input 2 times"), "{said}");
    let check = trawl(&["check", "--config", "/dev/zero"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success() && said.contains("more than 16777216 bytes"), "{said}");
}

#[test]
fn a_name_of_standard_output_is_written_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("a.pcap"), 10);
    std::os::unix::fs::symlink("/dev/stdout", dir.path().join("link")).unwrap();
    for name in ["/dev/stdout", "link", "/dev/fd/1", "/proc/self/fd/1"] {
        let (code, _, error) = shell(dir.path(), &format!("$TRAWL merge -o {name} a.pcap >out.pcap"));
        assert_eq!(code, 0, "{name}: {error}");
        assert_eq!(packets(&fs::read(dir.path().join("out.pcap")).unwrap()), 10, "{name}");
        assert!(error.starts_with("10 packets"), "{error}");
        let line = format!("$TRAWL filter test a.pcap -o {name} | cat >out.pcap");
        assert_eq!(shell(dir.path(), &line).0, 0);
        assert_eq!(packets(&fs::read(dir.path().join("out.pcap")).unwrap()), 10, "{name}");
        assert!(dir.path().join("link").is_symlink());
        assert!(!Path::new("/dev/stdout").is_file() || Path::new("/dev/stdout").is_symlink());
    }
    // A link to a file stays one, and the file is what is written.
    std::os::unix::fs::symlink("real.pcap", dir.path().join("second")).unwrap();
    assert_eq!(shell(dir.path(), "$TRAWL merge -o second a.pcap").0, 0);
    assert!(dir.path().join("second").is_symlink() && dir.path().join("real.pcap").is_file());
}

#[test]
fn an_input_whose_name_is_no_text_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join(OsStr::from_bytes(b"Ger\xe4t.pcap"));
    let out = dir.path().join(OsStr::from_bytes(b"out\xff.pcap"));
    sample(&name, 3);
    for arguments in [
        [OsStr::new("merge"), name.as_os_str(), OsStr::new("-o"), out.as_os_str()],
        [OsStr::new("filter"), OsStr::new("test"), name.as_os_str(), OsStr::new("--json")],
        [OsStr::new("merge"), OsStr::new("-o"), out.as_os_str(), name.as_os_str()],
    ] {
        let output = command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(packets(&fs::read(out).unwrap()), 3);
    // Not UTF-8 for `verify` and `recover` neither: they get as far as reading.
    for reads in ["verify", "recover"] {
        let output = command(&[OsStr::new(reads), name.as_os_str()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{reads}: {}", text(&output.stderr));
    }
}

#[test]
fn a_directory_that_is_no_spool_is_not_recovered_from_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["recover", dir.path().to_str().unwrap(), "--dry-run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is no spool"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no lock is made there");
}

#[test]
fn an_output_whose_name_promises_what_is_not_offered_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = sample(&dir.path().join("a.pcap"), 3);
    for name in ["x.pcap.gz", "x.PCAP.XZ", "x.lz4", "x.json"] {
        let out = dir.path().join(name);
        let (file, out_text) = (file.to_str().unwrap(), out.to_str().unwrap());
        for arguments in [&["merge", "-o", out_text, file][..], &["filter", "test", file, "-o", out_text]] {
            let output = run(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert!(text(&output.stderr).contains("is not offered"), "{}", text(&output.stderr));
            assert!(!out.exists());
        }
    }
}

#[test]
fn a_reader_that_leaves_ends_every_command_quietly_and_a_full_disk_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    sample(&dir.path().join("a.pcap"), 100_000);
    fs::write(dir.path().join(format!("pcap_{ID}.json")), MANIFEST).unwrap();
    let verify = format!("verify pcap_{ID}.json");
    assert_eq!(shell(dir.path(), &format!("$TRAWL {verify}")).0, 0);
    let commands = [
        &verify,
        "merge a.pcap",
        "merge -o /dev/stdout a.pcap",
        "filter test a.pcap",
        "filter test a.pcap -o -",
        "filter test --json a.pcap",
        "completions bash",
        "--help",
        "merge --help",
        "--version",
        "man pages",
        "manifest-key key",
        "fleet key nats.nk",
        "fleet nats-config nowhere.toml",
        "fleet init --config nowhere.toml",
        "check --config nowhere.toml",
        "verify nowhere.json",
        "recover nowhere",
        "chek",
    ];
    for command in commands {
        let (_, _, error) = shell(dir.path(), &format!("set -o pipefail; $TRAWL {command} | true"));
        assert!(!error.contains("panicked"), "{command}: {error}");
        let (code, ..) =
            shell(dir.path(), &format!("$TRAWL {command} 2>&1 | sleep 0; exit ${{PIPESTATUS[0]}}"));
        assert!([0, 1, 2].contains(&code), "{command}: {code}");
        let (code, _, error) = shell(dir.path(), &format!("$TRAWL {command} >/dev/full"));
        assert!([1, 2].contains(&code), "{command}: {code} {error}");
        assert!(!error.contains("panicked") && !error.is_empty(), "{command}: {error}");
        let (code, ..) = shell(dir.path(), &format!("$TRAWL {command} >/dev/full 2>/dev/full"));
        assert!([1, 2].contains(&code), "{command}: {code}");
        let (code, ..) = shell(dir.path(), &format!("$TRAWL {command} >&- 2>&-"));
        assert!([0, 1, 2].contains(&code), "{command}: {code}");
    }
    let (code, ..) = shell(dir.path(), "$TRAWL merge a.pcap 2>/dev/full >out.pcap");
    assert_eq!(code, 1, "what was merged could not be told");
}

#[test]
fn exit_code_3_says_that_the_output_lacks_something_of_the_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let whole = sample(&dir.path().join("a.pcap"), 3);
    let bytes = fs::read(&whole).unwrap();
    fs::write(dir.path().join("cut.pcap"), &bytes[..bytes.len() - 1]).unwrap();
    fs::write(dir.path().join("text"), "no packets").unwrap();
    let (code, out, error) = shell(dir.path(), "$TRAWL merge -o out.pcap a.pcap cut.pcap");
    assert_eq!(code, 3, "{out}{error}");
    assert!(
        error.contains("cut.pcap: the file is cut off: 2 whole records") && out.contains("5 packets"),
        "{error}"
    );
    let (code, out, _) = shell(dir.path(), "$TRAWL filter test cut.pcap");
    assert_eq!((code, out.as_str()), (3, "2 of 2 packets match\n"));
    assert_eq!(shell(dir.path(), "$TRAWL merge -o none.pcap a.pcap text").0, 1);
    assert!(!dir.path().join("none.pcap").exists());
    let (code, _, error) = shell(dir.path(), "$TRAWL merge --keep-going -o some.pcap a.pcap text missing");
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("text: skipped") && error.contains("missing: skipped"), "{error}");
    assert_eq!(packets(&fs::read(dir.path().join("some.pcap")).unwrap()), 3);
}

#[test]
fn more_inputs_than_descriptors_are_merged_also_where_there_are_few() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..400 {
        sample(&dir.path().join(format!("in{n}.pcap")), 2);
    }
    for limit in [256, 32] {
        let line = format!("ulimit -n {limit}; $TRAWL merge -o out.pcap in*.pcap");
        let (code, _, error) = shell(dir.path(), &line);
        assert_eq!(code, 0, "{limit}: {error}");
        assert_eq!(packets(&fs::read(dir.path().join("out.pcap")).unwrap()), 800);
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names in a directory that begin with a dot.
fn hidden(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().as_bytes()[0] == b'.').collect()
}

#[test]
fn a_signal_leaves_no_half_file() {
    use rustix::process::{Pid, Signal, kill_process};
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(sample(&dir.path().join("a.pcap"), 10)).unwrap();
    for arguments in [&["merge", "-o", "out.pcap", "-"][..], &["filter", "test", "-", "-w", "out.pcap"]] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let arguments = os(arguments);
            let arguments: Vec<_> = arguments.iter().map(|argument| &**argument).collect();
            let mut child: Child = command(&arguments)
                .current_dir(dir.path())
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&bytes).unwrap();
            until("the unfinished file", || !hidden(dir.path()).is_empty());
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            assert!(error.contains("interrupted"), "{error}");
            assert_eq!((hidden(dir.path()), dir.path().join("out.pcap").exists()), (vec![], false));
        }
    }
}

#[test]
fn an_output_that_is_an_input_is_refused_by_either_command() {
    let dir = tempfile::tempdir().unwrap();
    let file = sample(&dir.path().join("a.pcap"), 3);
    let before = fs::read(&file).unwrap();
    for line in [
        "$TRAWL merge a.pcap -o a.pcap",
        "$TRAWL filter test a.pcap -o a.pcap",
        "$TRAWL merge a.pcap >>a.pcap",
    ] {
        let (code, _, error) = shell(dir.path(), line);
        assert!(code == 1 && error.contains("is also an input"), "{line}: {error}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }
    assert_eq!(trawl(&["merge", "--help"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn an_interrupted_download_keeps_what_came_and_says_where() {
    use rustix::process::{Pid, Signal, kill_process};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for sent in [100, 0] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(&[OsStr::new("capture"), OsStr::new("download"), OsStr::new(ID)])
            .args(["-o", "out.pcap", "--account", "a", "--url", &url])
            .env("TRAWL_TOKEN", "t")
            .env_remove("TRAWL_EMAIL")
            .current_dir(dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").unwrap();
        connection.write_all(&[7; 100][..sent]).unwrap();
        let held =
            |dir: &Path| hidden(dir).first().and_then(|part| part.metadata().ok()).map(|part| part.len());
        until("the part", || held(dir.path()) == Some(sent as u64));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert!(error.contains("interrupted"), "{error}");
        assert_eq!(error.contains("the same command goes on"), sent > 0, "{error}");
        assert_eq!(hidden(dir.path()).len(), usize::from(sent > 0));
        assert!(!dir.path().join("out.pcap").exists());
    }
}

#[test]
fn a_downloads_name_promises_a_plain_pcap_and_nothing_else() {
    for name in ["x.pcap.gz", "x.pcap.zst", "x.PCAPNG"] {
        let arguments =
            ["capture", "download", "0", "-o", name, "--account", "a", "--url", "http://127.0.0.1:1"];
        let arguments = os(&arguments);
        let arguments: Vec<_> = arguments.iter().map(|argument| &**argument).collect();
        let output = command(&arguments).env("TRAWL_TOKEN", "t").env_remove("TRAWL_EMAIL").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
    }
}
