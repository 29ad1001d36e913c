//! EAL's arguments: as given, and what is added where they leave something open. Owns the reading of the host's free
//! hugepages; starts nothing.
//!
//! Which devices EAL takes is [`crate::drivers::added`]'s.
//!
//! Invariant: an argument that was given is handed on unchanged, and ours only decide what it left open; but
//! `--in-memory` becomes what is left of it where there are no hugepages.

use std::{fmt, fs, path::Path};

/// Fewer free hugepages than this do not hold the buffers of one queue, so they count as none.
const HUGE_BYTES_MIN: u64 = 64 << 20;

/// EAL's own default without hugepages is 64 MiB, about four queues. Untouched memory costs nothing, so this may be
/// generous.
const ORDINARY_MIB: u32 = 512;

/// With one of these the operator wants hugepages, and EAL's error if there are none.
const DECIDE_FOR_HUGEPAGES: &[&str] =
    &["--huge-dir", "--huge-unlink", "--socket-mem", "--socket-limit", "--numa-mem", "--numa-limit"];

/// With one of these the operator has decided about the files that processes share.
const DECIDE_ABOUT_FILES: &[&str] =
    &["--no-shconf", "--huge-dir", "--huge-unlink", "--file-prefix", "--proc-type", "--legacy-mem"];

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// What memory EAL works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Hugepages, because the arguments ask for them or enough are free.
    Huge {
        /// Bytes that were free when EAL was started.
        free_bytes: u64,
    },
    /// Ordinary pages: the device must be a software one, or behind an IOMMU.
    Ordinary {
        /// Whether we chose it, because the host had too few free hugepages.
        chosen_by_us: bool,
    },
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Huge { free_bytes } => write!(out, "hugepages, {} MiB free at start", free_bytes >> 20),
            Self::Ordinary { chosen_by_us: false } => write!(out, "ordinary pages, as asked by --no-huge"),
            Self::Ordinary { chosen_by_us: true } => write!(
                out,
                "ordinary pages, because the host has too few free hugepages; receiving is slower (reserve some: \
                 `sysctl vm.nr_hugepages=512`)"
            ),
        }
    }
}

/// The host as far as the arguments depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    /// Free hugepages of all sizes.
    pub huge_free_bytes: u64,
    /// A CPU that the calling thread may run on.
    pub cpu: usize,
}

/// Arguments for `rte_eal_init` without the program's name.
pub(super) fn complete(given: &[String], host: Host) -> (Vec<String>, Memory) {
    let has = |names: &[&str]| given.iter().any(|argument| names.iter().any(|name| is(argument, name)));
    let memory = if has(&["--no-huge"]) {
        Memory::Ordinary { chosen_by_us: false }
    } else if host.huge_free_bytes >= HUGE_BYTES_MIN || has(DECIDE_FOR_HUGEPAGES) {
        Memory::Huge { free_bytes: host.huge_free_bytes }
    } else {
        Memory::Ordinary { chosen_by_us: true }
    };
    // Nothing is left behind in hugetlbfs or the runtime directory by a crash, and two processes do not meet there. There
    // are no secondary processes that would need it. EAL refuses --in-memory with ordinary pages, which are private
    // anyway; the rest of what it means is --no-shconf.
    let ordinary = matches!(memory, Memory::Ordinary { .. });
    let private = if ordinary { "--no-shconf" } else { "--in-memory" };
    let mut arguments: Vec<String> = given
        .iter()
        .map(|argument| if argument == "--in-memory" { private } else { argument }.to_owned())
        .collect();
    let mut add = |argument: &str| arguments.push(argument.to_owned());
    if !has(&["--in-memory"]) && !has(DECIDE_ABOUT_FILES) {
        add(private);
    }
    // One lcore: our workers are our own threads, and EAL would start one per CPU that does nothing.
    if !has(&["-c", "-l", "-s", "-S", "--lcores", "--coremask", "--corelist", "--service-corelist"]) {
        add(&format!("--lcores=0@{}", host.cpu));
    }
    // Its socket lets any process of this user read and call into us; our own counters do not come from there.
    if !has(&["--telemetry", "--no-telemetry"]) {
        add("--no-telemetry");
    }
    if memory == (Memory::Ordinary { chosen_by_us: true }) {
        add("--no-huge");
    }
    if ordinary && !has(&["-m", "--memory-size"]) {
        add("-m");
        add(&ORDINARY_MIB.to_string());
    }
    (arguments, memory)
}

/// Whether an argument is the option of that name, with or without a value attached.
fn is(argument: &str, name: &str) -> bool {
    match argument.strip_prefix(name) {
        Some(rest) if name.starts_with("--") => rest.is_empty() || rest.starts_with('='),
        Some(_) => !argument.starts_with("--"),
        None => false,
    }
}

/// Free hugepages of all sizes in bytes; 0 where the kernel has none.
pub(super) fn huge_free_bytes() -> u64 {
    let Ok(sizes) = fs::read_dir(HUGEPAGES) else { return 0 };
    sizes.flatten().filter_map(|size| free_of_size_bytes(&size.path())).sum()
}

fn free_of_size_bytes(folder: &Path) -> Option<u64> {
    let size_kib: u64 =
        folder.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let pages = read("free_hugepages")?.saturating_sub(read("resv_hugepages").unwrap_or(0));
    Some(pages * (size_kib << 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[&str], huge_free_bytes: u64) -> (Vec<String>, Memory) {
        let given: Vec<String> = given.iter().map(|&argument| argument.to_owned()).collect();
        complete(&given, Host { huge_free_bytes, cpu: 3 })
    }

    #[test]
    fn no_arguments_give_one_lcore_private_memory_and_no_telemetry() {
        let (arguments, memory) = completed(&[], 1 << 30);
        assert_eq!(arguments, ["--in-memory", "--lcores=0@3", "--no-telemetry"]);
        assert_eq!(memory, Memory::Huge { free_bytes: 1 << 30 });
    }

    #[test]
    fn a_host_without_free_hugepages_gets_ordinary_ones_and_is_told() {
        let (arguments, memory) = completed(&["--no-pci"], 0);
        assert_eq!(arguments[0], "--no-pci");
        assert!(arguments.ends_with(&["--no-huge".into(), "-m".into(), "512".into()]));
        assert!(arguments.contains(&"--no-shconf".into()));
        assert_eq!(memory, Memory::Ordinary { chosen_by_us: true });
        assert!(memory.to_string().contains("vm.nr_hugepages"));
    }

    #[test]
    fn the_amount_of_memory_that_was_asked_for_is_kept() {
        for given in [&["-m", "1024"][..], &["-m1024"], &["--memory-size=1024"]] {
            let (arguments, _) = completed(given, 0);
            assert!(!arguments.contains(&"512".to_owned()), "{arguments:?}");
            assert!(arguments.contains(&"--no-huge".to_owned()));
        }
    }

    #[test]
    fn in_memory_is_not_combined_with_ordinary_pages() {
        for (given, huge_free_bytes) in [(&["--in-memory"][..], 0), (&["--no-huge", "--in-memory"], 1 << 30)]
        {
            let (arguments, _) = completed(given, huge_free_bytes);
            assert!(!arguments.contains(&"--in-memory".into()) && arguments.contains(&"--no-shconf".into()));
        }
        let (arguments, _) = completed(&["--in-memory"], 1 << 30);
        assert_eq!(arguments, ["--in-memory", "--lcores=0@3", "--no-telemetry"]);
    }

    #[test]
    fn arguments_that_decide_are_not_overruled() {
        let (arguments, memory) = completed(&["--huge-dir=/mnt", "-l", "0", "--telemetry"], 0);
        assert_eq!(arguments, ["--huge-dir=/mnt", "-l", "0", "--telemetry"]);
        assert_eq!(memory, Memory::Huge { free_bytes: 0 });
        let (arguments, memory) = completed(&["--no-huge", "-m", "64", "-c1", "--file-prefix", "x"], 1 << 30);
        assert_eq!(arguments, ["--no-huge", "-m", "64", "-c1", "--file-prefix", "x", "--no-telemetry"]);
        assert_eq!(memory, Memory::Ordinary { chosen_by_us: false });
    }

    #[test]
    fn a_long_option_is_not_taken_for_a_short_one() {
        assert!(!is("--log-level=8", "-l"));
        assert!(!is("--main-lcore", "-m"));
        assert!(is("-l0-3", "-l"));
        assert!(!is("--no-huge-pages", "--no-huge"));
    }
}
