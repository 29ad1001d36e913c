# One line each; `just` alone lists them.
default:
    @just --list

# Build, release
build:
    cargo build --release --locked

# What a change must pass before anything slow
check:
    cargo fmt --all --check && cargo clippy --locked --all-targets -- -D warnings

# Unit tests without DPDK: seconds
quick:
    cargo nextest run --no-default-features --lib

# Everything, exactly as continuous integration runs it
ci:
    .ci/run

# The package for Debian 12; `just package --binary target/debug/trawl` without a release build
package *ARGS:
    scripts/package.sh {{ARGS}}

# See it work; `just demo --live` with real programs
demo *ARGS:
    scripts/demo.sh {{ARGS}}

# See a fleet work: three NATS servers, two API nodes, four hosts
demo-fleet *ARGS:
    scripts/demo-fleet.sh {{ARGS}}

# One bench, or their list; `just bench stages` compares with dpdk-testpmd
bench *ARGS:
    benches/run {{ARGS}}

# Look for the no-drop rate with a sender of its own, then offer more (root)
loadtest *ARGS:
    benches/run loadtest {{ARGS}}

# Captures that start and end for ten minutes: no loss, no growth (root)
soak *ARGS:
    benches/run soak {{ARGS}}

# Hold a config and this host to what a capture needs
doctor CONFIG="config/trawl.toml":
    cargo run --release --locked -- check --config {{CONFIG}}

# Record a new tests/data/real.pcap (root)
record:
    tests/data/record.sh
