//! A scenario's process below `failnth`, and what it did. Owns building and running the injector and reading its trace; not
//! which call is to fail.

use crate::facts::{Facts, ORDER, Order};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A call that is to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `CALL CLASS`, as `failnth` names it.
    pub kind: String,
    /// Which of its kind, from 1.
    pub nth: u64,
    pub mode: Mode,
    pub errno: Errno,
}

/// How long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// This call.
    Once,
    /// This call and all later ones of its kind.
    Kind,
    /// This call and all later ones that can fail so.
    All,
    /// The process is killed before this call.
    Kill,
    /// This call transfers half of what was asked.
    Short,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Kind => "kind",
            Self::All => "all",
            Self::Kill => "kill",
            Self::Short => "short",
        }
    }

    /// Whether it is over after one call.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Once | Self::Short)
    }
}

/// An error number with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32, pub &'static str);

/// A counted call.
#[derive(Clone, Debug)]
pub struct Call {
    pub kind: String,
    pub thread: String,
    /// What was done to it; empty if it passed.
    pub done: String,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signal(i32),
    Hang,
}

/// What a process did.
#[derive(Debug)]
pub struct Run {
    pub calls: Vec<Call>,
    pub end: End,
    /// Where its threads waited, if it hung.
    pub waits: Vec<String>,
    /// What it wrote to stderr.
    pub log: String,
    pub facts: Option<Facts>,
}

impl Run {
    /// The call that the fault met.
    pub fn hit(&self) -> Option<&Call> {
        self.calls.iter().find(|call| !call.done.is_empty())
    }
}

/// Where a run's files lie: `home/state` is what counts, everything else beside it.
#[derive(Clone, Debug)]
pub struct Place(pub PathBuf);

impl Place {
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

/// Starts this test again as `scenario`'s process, and waits for its end.
pub fn run(place: &Place, scenario: &str, patience_ms: u64, fault: Option<&Fault>) -> Run {
    let home = &place.0;
    let (trace, log, facts) = (home.join("trace"), home.join("log"), home.join("facts"));
    let _first = std::fs::remove_file(&facts);
    std::fs::create_dir_all(place.state()).unwrap();
    let lasts = fault.is_some_and(|fault| !fault.mode.is_transient());
    let order =
        Order { scenario: scenario.to_owned(), dir: place.state(), facts: facts.clone(), patience_ms, lasts };
    let mut command = Command::new(injector());
    command.arg("--dir").arg(place.state()).arg("--trace").arg(&trace);
    // Everything that a scenario waits for is bounded by its patience a few times over, and its shutdown.
    command.args(["--seconds", &(patience_ms * 4 / 1000 + 70).to_string()]);
    if let Some(fault) = fault {
        command.args(["--fault", &fault.kind, "--nth", &fault.nth.to_string(), "--mode", fault.mode.name()]);
        command.args(["--errno", &fault.errno.0.to_string()]);
        if fault.mode == Mode::All {
            command.args(["--possible", &crate::errnos::while_it_lasts(fault.errno)]);
        }
    }
    let this_test = std::thread::current().name().unwrap().to_owned();
    command.arg("--").arg(std::env::current_exe().unwrap()).args([
        "--exact",
        crate::CHILD_TEST,
        "--nocapture",
        "--test-threads=1",
    ]);
    command.current_dir(place.state());
    command.env(ORDER, serde_json::to_string(&order).unwrap()).env_remove("RUST_BACKTRACE");
    command.stdout(File::create(home.join("out")).unwrap()).stderr(File::create(&log).unwrap());
    let status = command.status().unwrap();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{this_test}: the injector failed: {status}: {text}");
    read(&trace, text, Facts::read(&facts))
}

fn read(trace: &Path, log: String, facts: Option<Facts>) -> Run {
    let trace = std::fs::read_to_string(trace).unwrap();
    let mut run = Run { calls: Vec::new(), end: End::Hang, waits: Vec::new(), log, facts };
    for line in trace.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            [_, kind, _, thread, done] => run.calls.push(Call {
                kind: kind.to_owned(),
                thread: thread.to_owned(),
                done: done.to_owned(),
            }),
            ["waits", ..] => run.waits.push(fields[1..].join(" ")),
            _ => {
                run.end = match line.split_once(' ') {
                    Some(("exited", code)) => End::Exited(code.parse().unwrap()),
                    Some(("signal", number)) => End::Signal(number.parse().unwrap()),
                    _ => End::Hang,
                }
            }
        }
    }
    run
}

/// The injector, built once for each process.
fn injector() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failnth-{}", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweep/failnth.c");
        let mut build = Command::new("cc");
        build.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source);
        assert!(build.status().expect("a C compiler is needed: cc").success(), "failnth.c is not built");
        program
    })
}
