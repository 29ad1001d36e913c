//! One scenario's sweep: the run without a fault, then one run for each fault, several beside each other, and the table of what
//! became of them.

use crate::audit::{Case, Summary, Verdict};
use crate::injector::{Fault, Mode, Place, Run, run};
use crate::plan::Size;
use crate::scenario::SETTLE;
use crate::{disk, plan};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Hosts beside each other. They wait most of the time.
const BESIDE: usize = 6;
/// How long a capture's end is waited for where the fault is over after one call.
const PATIENCE_MS: u64 = 40_000;
/// And where it lasts, so that it may never end.
const PATIENCE_BRIEF_MS: u64 = 1_500;
/// How many complaints a failed test shows.
const SHOWN: usize = 60;

/// A fault and what came of it.
struct Row {
    fault: Fault,
    thread: String,
    verdict: Verdict,
}

/// Sweeps a scenario.
pub fn sweep(scenario: &str) {
    let written = std::env::var("TRAWL_SWEEP").ok();
    let size = Size::parse(written.as_deref()).unwrap_or_else(|mistake| panic!("{mistake}"));
    let home = home(scenario);
    let template = scenario.strip_prefix("recover").map(|rest| died(&home, rest));
    let (baseline, calls) = baseline(&home, scenario, template.as_deref());
    let mut faults = size.faults(&calls);
    if let Ok(only) = std::env::var("TRAWL_SWEEP_ONLY") {
        faults.retain(|fault| name(fault).contains(&only));
    }
    let began = Instant::now();
    let rows = rows(&home, scenario, template.as_deref(), &baseline, &faults);
    let report = report(scenario, &rows);
    println!(
        "{scenario}: {} kinds, {} of all {} faults in {:.0} s",
        plan::kinds(&calls).len(),
        rows.len(),
        plan::all(&calls).len(),
        began.elapsed().as_secs_f64()
    );
    println!("{report}");
    if let Some(folder) = std::env::var_os("TRAWL_SWEEP_REPORT") {
        std::fs::write(Path::new(&folder).join(format!("{scenario}.md")), &report).unwrap();
    }
    let broken: Vec<_> = rows.iter().filter(|row| !row.verdict.complaints.is_empty()).map(line).collect();
    let _for_a_look_if_it_failed = broken.is_empty().then(|| std::fs::remove_dir_all(&home));
    let shown = broken.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        broken.is_empty(),
        "{} of {} runs broke a promise (files in {}):\n{shown}",
        broken.len(),
        rows.len(),
        home.display()
    );
}

/// Where a scenario's files lie: in memory, where that takes direct writes, because the disk itself is not what is tested.
fn home(scenario: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = std::env::var_os("TRAWL_SWEEP_DIR").map(PathBuf::from).unwrap_or_else(|| {
        if takes_direct(memory) { memory.to_owned() } else { PathBuf::from(env!("CARGO_TARGET_TMPDIR")) }
    });
    let home = base.join(format!("trawl-sweep-{}-{scenario}", std::process::id()));
    let _none_yet = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).unwrap();
    home
}

fn takes_direct(dir: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let path = dir.join(format!("trawl-sweep-{}", std::process::id()));
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path);
    let _gone_either_way = std::fs::remove_file(&path);
    opened.is_ok()
}

/// A host's directory after its death in the middle of a capture.
fn died(home: &Path, write: &str) -> PathBuf {
    let place = Place(home.join("died"));
    std::fs::create_dir_all(&place.0).unwrap();
    let died = run(&place, &format!("die{write}"), PATIENCE_MS, None);
    assert_eq!(died.end, crate::injector::End::Signal(6), "{}", died.log);
    place.state()
}

/// The run without a fault: nothing may be wrong with it.
fn baseline(
    home: &Path,
    scenario: &str,
    template: Option<&Path>,
) -> (Vec<Summary>, Vec<crate::injector::Call>) {
    let place = Place(home.join("baseline"));
    let (verdict, run) = one(&place, scenario, template, None, None);
    assert!(verdict.complaints.is_empty(), "without a fault: {:#?}\n{}", verdict.complaints, run.log);
    assert!(!run.calls.is_empty() && !verdict.summaries.is_empty(), "{}", run.log);
    let state = place.state();
    let plain = |path: &&PathBuf| disk::is_object(path) && path.extension().is_some_and(|end| end == "pcap");
    for path in disk::files(&state).iter().filter(plain) {
        let here = disk::frames(&state.join(path)).unwrap().len() as u64;
        assert_eq!(disk::capinfos_packets(&state.join(path)), here, "{}", path.display());
    }
    (verdict.summaries, run.calls)
}

fn one(
    place: &Place,
    scenario: &str,
    template: Option<&Path>,
    fault: Option<&Fault>,
    baseline: Option<&[Summary]>,
) -> (Verdict, Run) {
    std::fs::create_dir_all(&place.0).unwrap();
    if let Some(template) = template {
        copy(template, &place.state());
    }
    let scene = if template.is_some() { SETTLE } else { scenario };
    let mapped = if scenario.contains("mapped") { "_mapped" } else { "" };
    let transient = fault.is_none_or(|fault| fault.mode.is_transient());
    let patience = if transient { PATIENCE_MS } else { PATIENCE_BRIEF_MS };
    let scene = if template.is_some() { format!("{SETTLE}{mapped}") } else { scene.to_owned() };
    let run_of = run(place, &scene, patience, fault);
    let mut unreadable = Vec::new();
    let state = place.state();
    let (durable, quota) = (disk::durable(&state, &mut unreadable), disk::quota_bytes(&state));
    std::fs::rename(place.0.join("log"), place.0.join("log.run")).unwrap();
    std::fs::rename(place.0.join("trace"), place.0.join("trace.run")).unwrap();
    let look_back = if scenario.contains("look_back") { "_look_back" } else { "" };
    let settled = run(place, &format!("{SETTLE}{mapped}{look_back}"), PATIENCE_MS, None);
    let case = Case { fault, run: &run_of, durable, quota, settled: &settled, state: &state, baseline };
    let mut verdict = case.judge();
    verdict.complaints.extend(unreadable);
    (verdict, run_of)
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn rows(
    home: &Path,
    scenario: &str,
    template: Option<&Path>,
    baseline: &[Summary],
    faults: &[Fault],
) -> Vec<Row> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(fault) = faults.get(at) else { return };
            let place = Place(home.join(format!("{at:05}")));
            let (verdict, run) = one(&place, scenario, template, Some(fault), Some(baseline));
            let thread = run.hit().map_or_else(|| "not reached".to_owned(), |call| call.thread.clone());
            if verdict.complaints.is_empty() {
                std::fs::remove_dir_all(&place.0).unwrap();
            } else {
                let row = line(&Row {
                    fault: fault.clone(),
                    thread: thread.clone(),
                    verdict: Verdict { complaints: verdict.complaints.clone(), ..Verdict::default() },
                });
                std::fs::write(place.0.join("why"), row).unwrap();
                // What is looked at is the log, the trace and which files there are.
                let _large = std::fs::remove_dir_all(place.state());
            }
            done.lock().unwrap().push((at, Row { fault: fault.clone(), thread, verdict }));
        }
    };
    let beside = std::env::var("TRAWL_SWEEP_BESIDE").ok().and_then(|n| n.parse().ok()).unwrap_or(BESIDE);
    std::thread::scope(|scope| {
        for n in 0..beside {
            std::thread::Builder::new().name(format!("sweep{n}")).spawn_scoped(scope, work).unwrap();
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, row)| row).collect()
}

fn name(fault: &Fault) -> String {
    let Fault { kind, nth, mode, errno } = fault;
    match mode {
        Mode::Kill | Mode::Short => format!("{kind} #{nth} {}", mode.name()),
        _ => format!("{kind} #{nth} {} {}", errno.1, mode.name()),
    }
}

fn line(row: &Row) -> String {
    format!("{} ({}): {}", name(&row.fault), row.thread, row.verdict.complaints.join("; "))
}

/// Operations, errors and outcomes.
fn report(scenario: &str, rows: &[Row]) -> String {
    let mut groups = std::collections::BTreeMap::<(String, &str, &str, String), (u64, bool)>::new();
    for row in rows {
        let broken = !row.verdict.complaints.is_empty();
        let errno = if matches!(row.fault.mode, Mode::Kill | Mode::Short) { "" } else { row.fault.errno.1 };
        let outcome =
            if row.thread == "not reached" { "not reached".to_owned() } else { row.verdict.outcome.clone() };
        let outcome = if broken { format!("BROKEN: {}", row.verdict.complaints.join("; ")) } else { outcome };
        let group =
            groups.entry((row.fault.kind.clone(), errno, row.fault.mode.name(), outcome)).or_default();
        *group = (group.0 + 1, broken);
    }
    let mut report = format!(
        "## {scenario}\n\n| operation | error | how long | runs | outcome |\n|---|---|---|---|---|\n"
    );
    for ((kind, errno, mode, outcome), (runs, _)) in groups {
        writeln!(report, "| `{kind}` | {errno} | {mode} | {runs} | {outcome} |").unwrap();
    }
    report
}
