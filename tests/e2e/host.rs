//! What the process owes to the host it runs on: its limits, its signals, its log. Nothing here may end it or its captures.

use crate::frames::real_pcap;
use crate::http;
use crate::openmetrics;
use crate::skip::skip;
use crate::trawl::{Setup, Trawl, free_address};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trawl::job::{Progress, Status};

const SOON: Duration = Duration::from_secs(30);

fn finished(trawl: Trawl, id: &str) {
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    assert_eq!(trawl.ended(id).status, Status::Success);
    trawl.finish();
}

fn has_packets(progress: &Progress) -> bool {
    progress.status == Status::Running && progress.ledger.captured > 0
}

#[test]
fn signals_that_mean_nothing_here_are_logged_and_a_capture_goes_on() {
    let trawl = Setup::replay().start();
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, SOON, has_packets);
    let pid = Pid::from_raw(trawl.id().try_into().unwrap()).unwrap();
    let named = [
        ("SIGHUP", Signal::HUP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        ("SIGALRM", Signal::ALARM),
        ("SIGSTKFLT", Signal::STKFLT),
        ("SIGXCPU", Signal::XCPU),
        ("SIGXFSZ", Signal::XFSZ),
        ("SIGVTALRM", Signal::VTALARM),
        ("SIGPROF", Signal::PROF),
        ("SIGIO", Signal::IO),
    ];
    for (name, signal) in named {
        kill_process(pid, signal).unwrap();
        trawl.until(&id, SOON, |_| trawl.log().contains(name));
    }
    // It comes with every reader that goes away, so it is not worth a line.
    kill_process(pid, Signal::PIPE).unwrap();
    for number in [34, 64] {
        let sent =
            Command::new("kill").args([format!("-{number}"), trawl.id().to_string()]).status().unwrap();
        assert!(sent.success());
        trawl.until(&id, SOON, |_| trawl.log().contains(&format!("number={number}")));
    }
    let captured = trawl.progress(&id).ledger.captured;
    trawl.until(&id, SOON, |progress| has_packets(progress) && progress.ledger.captured > captured);
    assert!(trawl.log().contains("the config is read again"), "{}", trawl.log());
    finished(trawl, &id);
}

#[test]
fn signals_that_mean_nothing_do_not_end_a_start_either() {
    let mut trawl = Setup::replay().launch(|config, _| config);
    trawl.until_log("limits", SOON);
    let until = Instant::now() + SOON;
    while !trawl.log().contains(" ready ") {
        assert!(Instant::now() < until, "it does not start: {}", trawl.log());
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::ALARM] {
            trawl.signal(signal);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    trawl.await_answer();
    trawl.finish();
}

#[test]
fn sigquit_and_sigpwr_end_the_host_as_sigterm_does() {
    for signal in [Signal::QUIT, Signal::POWER] {
        let mut trawl = Setup::replay().start();
        let id = trawl.create(&trawl.request(json!({})));
        trawl.until(&id, SOON, has_packets);
        trawl.signal(signal);
        let status = trawl.wait(Duration::from_secs(60));
        assert!(status.success(), "{status}: {}", trawl.log());
        let manifests = std::fs::read_dir(trawl.bucket()).unwrap();
        assert!(manifests.flatten().any(|file| file.path().extension().is_some_and(|end| end == "json")));
    }
}

#[test]
fn the_soft_limit_on_open_files_is_raised_and_a_hard_one_that_is_too_low_is_refused() {
    let setup = Setup::replay();
    let trawl = setup.start_with_program("prlimit", &["--nofile=256:8192"]);
    let pid = Pid::from_raw(trawl.id().try_into().unwrap());
    let unchanged = rustix::process::getrlimit(Resource::Nofile);
    let limit = prlimit(pid, Resource::Nofile, Rlimit { current: Some(8192), maximum: Some(8192) }).unwrap();
    assert_eq!((limit.current, limit.maximum), (Some(8192), Some(8192)), "ours: {unchanged:?}");
    assert!(trawl.log().contains("open_files"), "{}", trawl.log());
    trawl.finish();

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    let config = folder.path().join("trawl.toml");
    std::fs::write(&config, Setup::replay().config(folder.path(), free_address())).unwrap();
    let run = |command: &str| {
        let mut limited = Command::new("prlimit");
        limited.args([
            "--nofile=64:256",
            "timeout",
            "-s",
            "KILL",
            "60",
            env!("CARGO_BIN_EXE_trawl"),
            command,
            "--config",
        ]);
        let output = limited.arg(&config).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    for command in ["check", "serve"] {
        let (code, text) = run(command);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("may have 256 files open") && text.contains("LimitNOFILE=4096"), "{text}");
    }
}

#[test]
fn a_host_without_io_uring_says_so_when_it_starts_and_captures_all_the_same() {
    let can_trace =
        Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !can_trace {
        return skip("strace", "it is not installed or may not trace here");
    }
    // A kernel or container that knows none of its calls, and a seccomp filter that lets a ring be made and nothing written with it.
    for (call, error, text) in [
        ("io_uring_setup", "ENOSYS", "Function not implemented"),
        ("io_uring_enter", "EPERM", "Operation not permitted"),
    ] {
        let observe = free_address();
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}"));
        // Traced by a process beside it, so that signals and exit code are its own.
        let arguments = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "--"];
        let mut setup = Setup::replay();
        setup.more = format!("[observe]\nlisten = \"{observe}\"\n");
        let trawl = setup.start_with_program("strace", &arguments);
        let id = trawl.create(&trawl.request(json!({"protocol": 17})));
        trawl.until(&id, SOON, has_packets);
        let log = trawl.log();
        assert!(log.contains("WARN") && log.contains(&format!("gets no io_uring ({text}")), "{log}");
        assert_eq!(log.matches("a writer has no io_uring").count(), 1, "once for its one writer: {log}");
        assert_eq!(metric(observe, "trawl_io_uring_up"), 0);
        let ready = http::get_text(observe, "/readyz").unwrap();
        assert!(ready.contains("writer0: no io_uring"), "{ready}");
        finished(trawl, &id);
    }
}

fn metric(observe: SocketAddr, name: &str) -> u64 {
    let text = http::get_text(observe, "/metrics").unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    openmetrics::parse(body).unwrap().sum(name, &[])
}

/// A shell that gives the process another standard error.
fn with_stderr(script: &str) -> (Trawl, SocketAddr) {
    let observe = free_address();
    let mut setup = Setup::replay();
    setup.more = format!("[observe]\nlisten = \"{observe}\"\n[log]\nlevel = \"debug\"\n");
    (setup.start_with_program("bash", &["-c", script, "bash"]), observe)
}

#[test]
fn a_log_that_cannot_be_written_is_counted_and_harms_neither_api_nor_captures() {
    // A reader that is gone; a full disk; a reader that stands still, behind a pipe of one page.
    let gone = r#"mkfifo "$TMPDIR/pipe-$$" && exec 3<>"$TMPDIR/pipe-$$" 4>"$TMPDIR/pipe-$$" && exec 3<&- && rm "$TMPDIR/pipe-$$" && exec "$@" 2>&4"#;
    let full = r#"exec "$@" 2>/dev/full"#;
    let closed = r#"exec "$@" 2>&-"#;
    let stuck =
        r#"mkfifo "$TMPDIR/pipe-$$" && exec 3<>"$TMPDIR/pipe-$$" && rm "$TMPDIR/pipe-$$" && exec "$@" 2>&3"#;
    for (what, script) in [("gone", gone), ("full", full), ("closed", closed), ("stuck", stuck)] {
        let (mut trawl, observe) = with_stderr(script);
        // A few of the packets: more would be delivered, and that is not what is tested.
        let id = trawl.create(&trawl.request(json!({"protocol": 1})));
        trawl.until(&id, SOON, has_packets);
        // Each request is two lines at this level: more than any pipe and the queue hold.
        let until = std::time::Instant::now() + SOON;
        while what != "closed" && metric(observe, "trawl_log_lines_dropped") == 0 {
            assert!(std::time::Instant::now() < until, "{what}: no line was dropped");
            for _ in 0..100 {
                trawl.progress(&id);
            }
        }
        assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204, "{what}");
        assert_eq!(trawl.ended(&id).status, Status::Success, "{what}");
        trawl.signal(Signal::TERM);
        assert!(trawl.wait(SOON).success(), "{what}");
    }
}

#[test]
fn the_reason_of_a_failed_start_is_the_last_line_and_a_full_disk_below_it_changes_no_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("trawl.toml");
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    let good = Setup::replay().config(folder.path(), free_address());
    let missing = good.replace(&real_pcap().display().to_string(), "/nowhere.pcap");
    std::fs::write(&config, missing).unwrap();
    let serve = |stderr: Stdio| {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_trawl"), "serve", "--config"]).arg(&config);
        command.stderr(stderr).output().unwrap()
    };
    let output = serve(Stdio::piped());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no file /nowhere.pcap"), "{text}");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(serve(full.into()).status.code(), Some(1));
}
