//! The `trawl` binary. Owns what must be set once for the process; the rest is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    // rustls is built without a provider of its own choice; this fails only if one is installed already.
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    trawl::cli::run()
}
