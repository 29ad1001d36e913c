//! The config held against the host: everything that would keep `trawl serve` from working, and what to do about it.
//! Owns the findings and their order; the parts look at one subject each.
//!
//! Invariant: nothing is changed on the host, apart from a probe file that has no name and a socket that is closed at once.

mod descriptors;
mod fleet;
mod interfaces;
mod memory;
mod network;
mod ports;
mod storage;

pub use descriptors::files_needed;
pub use memory::{blocks, dpdk_bytes, memory_rows};

use super::level::chosen;
use super::plan::Plan;
use super::problem::covered;
use super::topology::{Topology, node_of_port};
use super::{PortPlan, Problem};
use crate::block::try_io_uring;
use crate::interface::active_features;
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `trawl serve` would not start, or would break a promise.
    Error,
    /// It works, but not as somebody may expect.
    Warning,
    /// Good to know.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        })
    }
}

/// One thing that somebody should know or change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The config key that it concerns.
    pub subject: String,
    /// What is so.
    pub text: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    fn new(severity: Severity, subject: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity, subject: subject.to_owned(), text: text.into(), advice: advice.into() }
    }

    fn error(subject: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Error, subject, text, advice)
    }

    fn warning(subject: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Warning, subject, text, advice)
    }

    fn notice(subject: &str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Notice, subject, text, advice)
    }
}

impl From<&Problem> for Finding {
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::Unreadable { path, source } => {
                let text = format!("cannot read {}: {source}", path.display());
                Self::error("config", text, "name the config file with --config")
            }
            Problem::Syntax { text } => {
                Self::error("config", format!("not TOML: {}", text.trim_end()), "correct the line")
            }
            Problem::Version { found, known } => Self::error(
                "version",
                format!("is {found}, and this trawl reads {known}"),
                "run the trawl that the file is for, or write the file again by this one's example (docs/UPGRADING.md)",
            ),
            Problem::Key { key, value, text } => Self::error(key, format!("is {value}"), text),
            Problem::Range { key, value, min, max, why } => {
                Self::error(key, format!("is {value}"), format!("use {min} to {max}: {why}"))
            }
            Problem::Value { key, value, advice } => Self::error(key, format!("is {value}"), advice),
            Problem::Missing { key, advice } => Self::error(key, "is missing", advice),
        }
    }
}

/// The findings for people: a line for each, and below it what to do.
#[must_use]
pub fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, subject, text: so, advice } in findings {
        let _infallible = writeln!(text, "{severity}: {subject}: {so}\n    {advice}");
    }
    text
}

/// Where the kernel's view of the host is read: below `root`, which is `/` except in tests.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    io_uring: fn() -> io::Result<()>,
    /// Features of an interface that are on.
    features: fn(&str) -> io::Result<Vec<String>>,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn real() -> Self {
        Self { io_uring: try_io_uring, features: active_features, ..Self::below("/") }
    }

    /// A host whose `proc`, `sys` and `etc` lie below `root`, and that has io_uring; its interfaces have no features.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), io_uring: || Ok(()), features: |_| Ok(Vec::new()) }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(self.path(path))
    }

    /// Whether there is certainly nothing of that name.
    fn lacks(&self, path: &str) -> bool {
        self.path(path).try_exists().is_ok_and(|is_there| !is_there)
    }

    fn read_number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    /// Names in a directory; none if there is no such directory.
    fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// What DPDK itself says of one port: what it cannot do of what was asked for, or why it cannot be used.
pub type PortAnswer = Result<Vec<String>, String>;

/// Starts EAL with its arguments and asks for the ports, in the config's order; an error says why EAL did not start.
/// Injected, because everything else here works without DPDK.
pub type ProbePorts<'a> = &'a dyn Fn(&[String], &[PortPlan]) -> Result<Vec<PortAnswer>, String>;

/// Checks the config file at `path` and this host, worst findings first.
#[must_use]
pub fn check(path: &Path, host: &Host, probe: Option<ProbePorts<'_>>) -> Vec<Finding> {
    let (plan, problems) = Plan::draft(path);
    let mut findings: Vec<Finding> = problems.iter().map(Finding::from).collect();
    if let Some(plan) = plan {
        let mut on_host = check_host(&plan, host, probe);
        if plan.captures() {
            storage::claims(&plan, &mut on_host);
        }
        on_host.extend(readable(path, &plan));
        // Where the config is wrong the plan holds a stand-in, whose fit to the host says nothing.
        findings.extend(on_host.into_iter().filter(|finding| !covered(Some(&finding.subject), &problems)));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// A config that everybody can read, with hashes of credentials that a weak secret would not withstand.
fn readable(path: &Path, plan: &Plan) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let is_open = mode & 0o007 != 0 && !plan.accounts.is_empty();
    let shown = path.display();
    let text =
        format!("{shown} has mode {mode:04o}: everybody can read the hashes of the accounts' credentials");
    is_open.then(|| {
        Finding::warning("config", text, format!("chmod 640 {shown}, with the group of trawl's user"))
    })
}

/// Checks a valid plan against the host.
#[must_use]
pub fn check_host(plan: &Plan, host: &Host, probe: Option<ProbePorts<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if plan.captures() {
        memory::check(plan, host, &mut findings);
        cores(plan, host, &mut findings);
        ports::check(plan, host, &mut findings);
        storage::check_spool(plan, host, &mut findings);
    }
    storage::check(plan, &mut findings);
    descriptors::check(plan, host, &mut findings);
    network::check(plan, &mut findings);
    fleet::check(plan, &mut findings);
    if let Err(error) = chosen(&plan.log) {
        findings.push(Finding::error("log", error.to_string(), "correct or unset the variable"));
    }
    if plan.captures() {
        shares(plan, &mut findings);
    }
    if plan.accounts.is_empty() {
        let advice = "add an [[account]] with a credential, or nobody can ask for a capture";
        findings.push(Finding::warning("account", "there is none", advice));
    }
    // EAL is only started on a host that looks sound: it aborts or hangs on much of what is found above.
    if let Some(probe) = probe
        && plan.captures()
        && !findings.iter().any(|finding| finding.severity == Severity::Error)
    {
        ports::check_probed(plan, probe, &mut findings);
    }
    findings
}

/// What each account may have of the spool.
fn shares(plan: &Plan, findings: &mut Vec<Finding>) {
    let accounts = plan.accounts.len();
    if accounts > 1 {
        let text = format!(
            "each of {accounts} accounts may have {} bytes of the spool ({} %), and {} captures that wait for their upload",
            plan.account_bytes_max(),
            plan.shares.account_percent,
            plan.shares.waiting_per_account
        );
        let advice = "what is beyond an equal part of the spool can be taken from an account for the others";
        findings.push(Finding::notice("spool.account_percent", text, advice));
    }
}

/// Cores that this process may not run on, and workers that would get no queue.
fn cores(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let status = host.read("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim);
    if let Some(allowed) = allowed {
        let lists = [
            ("cores.workers", &plan.cores.workers),
            ("cores.writers", &plan.cores.writers),
            ("cores.delivery", &plan.cores.delivery),
        ];
        // Of the writers unless it was given.
        let is_given = plan.cores.delivery != plan.cores.writers;
        for (key, list) in lists.into_iter().take(if is_given { 3 } else { 2 }) {
            for core in list.iter().filter(|core| !in_list(allowed, **core)) {
                let text = format!("core {core} does not exist or is not allowed to this process");
                findings.push(Finding::error(key, text, format!("choose from {allowed}")));
            }
        }
    }
    let queues: usize = plan.ports.iter().map(|port| usize::from(port.queues)).sum();
    let (workers, used) = (plan.cores.workers.len(), plan.dealt().cores.len());
    if workers > used {
        let text =
            format!("{workers} workers for {queues} queues: {} would have nothing to poll", workers - used);
        findings.push(Finding::warning("cores.workers", text, "raise port.queues or remove cores"));
    }
    remote(plan, host, findings);
}

/// Ports that are polled from another NUMA node than their own: each frame comes over the link between the processors.
fn remote(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let (dealt, topology) = (plan.dealt(), Topology::read(&host.root));
    let mut queues = dealt.workers.iter();
    for (at, port) in plan.ports.iter().enumerate() {
        let of_port: Vec<_> = queues.by_ref().take(port.queues.into()).map(|of| dealt.cores[*of]).collect();
        let Some(node) = node_of_port(port, &host.root) else { continue };
        let mut far: Vec<_> = of_port
            .into_iter()
            .filter(|core| topology.of_core(*core).is_some_and(|other| other != node))
            .collect();
        far.sort_unstable();
        far.dedup();
        if far.is_empty() {
            continue;
        }
        let near =
            topology.nodes.iter().find(|(number, _)| *number == node).map(|(_, cores)| cores.as_slice());
        let near = near.unwrap_or_default();
        let workers: Vec<_> = plan.cores.workers.iter().filter(|core| near.contains(core)).collect();
        let text =
            format!("{} is on NUMA node {node} and is polled by cores {far:?} of other nodes", port.name());
        let advice = match workers.is_empty() {
            true => {
                format!("add cores of node {node} to cores.workers: {near:?}; and name them in port.workers")
            }
            false => format!("set port.workers = {workers:?}"),
        };
        findings.push(Finding::warning(&format!("port[{at}].workers"), text, advice));
    }
}

/// Whether a kernel CPU list such as `0-3,8` holds `core`.
fn in_list(list: &str, core: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.trim().parse::<usize>(), last.trim().parse::<usize>()), (Ok(first), Ok(last)) if (first..=last).contains(&core))
    })
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
