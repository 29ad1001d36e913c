//! Finds the system's DPDK, compiles `shim.c` against it and generates `dpdk::sys`. Owns what the build needs from
//! the host; without the feature `dpdk` it does nothing, so that such a build needs neither DPDK nor clang.
//!
//! Invariant: a host that lacks something gets one line that names what to install.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    if let Err(message) = dpdk::build() {
        println!("cargo::error={message}");
    }
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::{env, path::PathBuf, process::Command};

    /// The oldest DPDK that has every function we call as a stable one.
    const VERSION_MIN: &str = "22.11";
    const INSTALL: &str =
        "run `apt-get install libdpdk-dev libclang-dev` or build without ports by `--no-default-features`";

    /// What Rust calls directly: functions whose signature is the same in every release from `VERSION_MIN` on. All
    /// that is inline, a macro or changes between releases is behind `trawl_*` in `shim.c`.
    const FUNCTIONS: &[&str] = &[
        "trawl_.*",
        "rte_version",
        "rte_strerror",
        "rte_eal_init",
        "rte_eal_cleanup",
        "rte_thread_register",
        "rte_thread_unregister",
        "rte_get_tsc_hz",
        "rte_dev_probe",
        "rte_pktmbuf_pool_create",
        "rte_mempool_free",
        "rte_eth_dev_start",
        "rte_eth_dev_adjust_nb_rx_tx_desc",
        "rte_eth_dev_set_mtu",
        "rte_eth_promiscuous_enable",
        "rte_eth_allmulticast_enable",
        "rte_eth_stats_reset",
        "rte_eth_xstats_get",
        "rte_eth_xstats_get_names",
    ];

    pub fn build() -> Result<(), String> {
        for file in ["shim.c", "shim.h", "ring.c", "ring.h"] {
            println!("cargo::rerun-if-changed=src/dpdk/{file}");
        }
        pkg_config::Config::new()
            .atleast_version(VERSION_MIN)
            .probe("libdpdk")
            .map_err(|error| format!("DPDK {VERSION_MIN} or newer not found ({}): {INSTALL}", why(&error)))?;
        let flags = compiler_flags()?;
        compile_shim(&flags)?;
        generate_bindings(&flags)
    }

    fn why(error: &pkg_config::Error) -> String {
        match error {
            pkg_config::Error::Command { .. } => "`pkg-config` cannot be run".into(),
            pkg_config::Error::Failure { output, .. } | pkg_config::Error::ProbeFailure { output, .. } => {
                let said = String::from_utf8_lossy(&output.stderr);
                let line = said.lines().find(|line| line.contains("libdpdk")).unwrap_or("pkg-config refused");
                line.trim().to_owned()
            }
            other => other.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// DPDK's inline functions need its `-march` and `-include rte_config.h`, which the `pkg-config` crate drops.
    fn compiler_flags() -> Result<Vec<String>, String> {
        let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        let output = Command::new(program)
            .args(["--cflags", "libdpdk"])
            .output()
            .map_err(|error| format!("`pkg-config --cflags libdpdk` cannot be run ({error}): {INSTALL}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
    }

    fn compile_shim(flags: &[String]) -> Result<(), String> {
        let mut build = cc::Build::new();
        build
            .files(["src/dpdk/shim.c", "src/dpdk/ring.c"])
            .opt_level(3)
            .warnings(true)
            .flag("-Wno-unused-parameter");
        for flag in flags {
            build.flag(flag);
        }
        build.try_compile("trawl_shim").map_err(|error| format!("src/dpdk/*.c does not compile: {error}"))
    }

    fn generate_bindings(flags: &[String]) -> Result<(), String> {
        let mut builder = bindgen::Builder::default()
            .header("src/dpdk/ring.h")
            .clang_args(flags)
            .opaque_type("rte_mbuf")
            .opaque_type("rte_mempool")
            .layout_tests(false)
            .generate_comments(false)
            .derive_default(true)
            .allowlist_var("TRAWL_[A-Z]+|RTE_PKTMBUF_HEADROOM");
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        // bindgen panics, instead of failing, when there is no libclang to load.
        std::panic::set_hook(Box::new(|_| {}));
        let generated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()));
        let bindings = match generated {
            Ok(Ok(bindings)) => bindings,
            Ok(Err(error)) => return Err(format!("DPDK's headers cannot be read ({error}): {INSTALL}")),
            Err(_) => return Err(format!("libclang not found: {INSTALL}")),
        };
        let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets no OUT_DIR")?;
        bindings.write_to_file(out.join("dpdk.rs")).map_err(|error| format!("cannot write bindings: {error}"))
    }
}
