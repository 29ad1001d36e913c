#!/usr/bin/env bash
# Installs what is missing and runs every test. With --sweep nothing but all of tests/sweep, which takes hours; with --sweep 3/20
# every 20th of its faults, beginning with the third, so that 20 runs make the whole. With --miri nothing but miri. With --package
# nothing but the Debian package, in a booted systemd, which takes a release build and minutes. Goes on after a
# failure, ends with where the time went, what failed and what was skipped and why, and exits non-zero if anything failed. With
# TRAWL_REQUIRE_ALL=1 a skip is a failure, but for what .config/may-lack names. Continuous integration (.ci/run) does that and
# nothing else.
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT" || exit 1

failed=() skipped=() times=()
# `skip NAME REASON`: a failure where all is required, unless this machine may lack it.
skip() {
    if [ -n "${TRAWL_REQUIRE_ALL:-}" ] && ! grep -q "^$1:" .config/may-lack; then
        failed+=("$1, which TRAWL_REQUIRE_ALL requires: $2")
        warn "$1 cannot be skipped: $2"
        return
    fi
    skipped+=("$1: $2")
    note "SKIPPED $1: $2"
}

# `step WORDS COMMAND...`: runs it, remembers a failure, goes on.
step() {
    local words=$1 began=$SECONDS took
    shift
    say "$words"
    if "$@"; then
        took=$((SECONDS - began))
        note "$words: ok, $took s"
    else
        took=$((SECONDS - began))
        failed+=("$words")
        warn "$words: FAILED after $took s"
    fi
    times+=("$(printf '%5d s  %s' "$took" "$words")")
}

# Tests that lack something print `SKIPPED: reason` and pass (tests/common/skip.rs); nextest hides what passing tests print, so
# all of it goes into a log, and the screen gets progress, failures and reasons.
nextest() {
    local log=$LOGS/$1.log status
    shift
    cargo nextest run --locked --no-fail-fast --success-output immediate --color never "$@" 2>&1 | tee "$log" |
        grep --line-buffered -E '^ +(Compiling trawl|Finished|Starting|SLOW|FAIL|TIMEOUT|SIGN|ABORT|TRY|FLAKY|Summary)|SKIPPED|^error|^warning: unused'
    status=${PIPESTATUS[0]}
    local reason
    while IFS= read -r reason; do
        skipped+=("tests: $reason")
    done < <(sed -n 's/^ *SKIPPED:* *//p' "$log" | sort -u)
    if [ "$status" != 0 ]; then
        # Without the hundreds that passed.
        awk '/^ +(FAIL|TIMEOUT|SIG|ABORT)/ { show = 1 } /^ +PASS/ { show = 0 } show || /^error/' "$log" | tail -n 400
    fi
    return "$status"
}

formatting() { cargo fmt --all --check; }
lints() { cargo clippy --locked --all-targets "$@" -- -D warnings; }
scripts_lint() {
    shellcheck -x scripts/*.sh packaging/*.sh tests/data/*.sh tests/data/released/*.sh benches/scale/* .ci/run && shellcheck packaging/debian/* && PYTHONPYCACHEPREFIX=$LOGS/pycache python3 -m compileall -q benches tests/data &&
        benches/run --help >"$LOGS/benches.log"
}
doc_tests() { cargo test --locked --doc --quiet; }

# Bans, licences and sources are decided by the lock file; advisories need a database from the network.
supply_chain() {
    cargo deny --offline check bans licenses sources 2>"$LOGS/deny.log" && return
    grep -E '^(error|warning\[)' "$LOGS/deny.log" | sort | uniq -c | head -n 20
    # Without a filled registry cache the offline run cannot read manifests; the online one fetches them.
    cargo deny check bans licenses sources
}

# A bounded number of inputs for each target, two targets at a time. Unoptimised, because the build takes longer than the inputs.
fuzz() (
    failures=0
    mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)
    export CARGO_TARGET_DIR=$TARGET_DIR/fuzz LOGS
    cargo fuzz build --dev --sanitizer none >"$LOGS/fuzz-build.log" 2>&1 || { tail -n 30 "$LOGS/fuzz-build.log" && exit 1; }
    # Targets that write files do it in memory.
    [ ! -w /dev/shm ] || export TMPDIR=/dev/shm
    # shellcheck disable=SC2016  # the inner shell's
    printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} sh -c 'cargo fuzz run --dev --sanitizer none "$1" -- \
        -runs="${FUZZ_RUNS:-200000}" -max_total_time=60 >"$LOGS/fuzz-$1.log" 2>&1 || touch "$LOGS/fuzz-$1.failed"' sh {}
    for target in "${targets[@]}"; do
        note "$target: $(grep '^Done' "$LOGS/fuzz-$target.log" || echo 'not done')"
        if [ -e "$LOGS/fuzz-$target.failed" ]; then
            tail -n 30 "$LOGS/fuzz-$target.log"
            failures=1
        fi
    done
    exit "$failures"
)

# A package of its own: the flag must reach the checked code and loom alone.
loom() {
    (cd loom && CARGO_TARGET_DIR=$TARGET_DIR/loom RUSTFLAGS='--cfg loom' cargo test --release --quiet)
}

# Stable has no miri; without the proptests, which take hours there.
miri() {
    cargo +nightly miri --version >/dev/null 2>&1 ||
        rustup --quiet toolchain install nightly --profile minimal --component miri,rust-src --no-self-update || return 1
    cargo +nightly miri test --locked --no-default-features --lib -- --skip proptest block:: pcap::buffer
}

# The slowest tests of all logs, and what each test binary took in all.
slowest() {
    local lines
    lines=$(sed -nE 's/^ +(PASS|FAIL|TIMEOUT) \[ *>? *([0-9.]+)s\] (\([^)]*\) )?(.*)/\2 \4/p' "$LOGS"/tests*.log)
    sort -rn <<<"$lines" | head -n 20 | awk '{ $1 = sprintf("%7.1f s ", $1); print "  " $0 }'
    echo "  each binary's tests in all, as if one ran after the other:"
    awk '{ sum[$2] += $1 } END { for (one in sum) printf "%9.1f s  %s\n", sum[one], one }' <<<"$lines" | sort -rn
}

LOGS=$TARGET_DIR/test-logs
rm -rf "$LOGS" && mkdir -p "$LOGS"
step "installing what is missing" scripts/install-deps.sh test
[ "${#failed[@]}" = 0 ] || die "without these packages no test can be built"

# Where the tests find the S3 server and a Python with Cloudflare's SDK.
export PATH=$PATH:$TARGET_DIR/test-venv/bin
export TRAWL_TEST_PYTHON=$TARGET_DIR/test-venv/bin/python
export TRAWL_TEST_NODE_MODULES=$TARGET_DIR/test-node

# `whole_sweep SHARE`: every call of every scenario fails, or a share of them. The tables go where measurements go.
whole_sweep() {
    local share=$1 tables=$LOGS/sweep report words=sweep log=$LOGS/sweep.log
    [ "$share" = all ] || words=sweep-${share/\//-of-}
    report=benches/results/$(date +%F)-$words.md
    rm -rf "$tables" && mkdir -p "$tables"
    TRAWL_SWEEP=$share TRAWL_SWEEP_REPORT=$tables cargo nextest run --locked --no-default-features --no-fail-fast \
        --success-output immediate --color never --profile sweep --test sweep 2>&1 | tee "$log" |
        grep --line-buffered -E '^ *(PASS|FAIL|SLOW|TIMEOUT|Summary|[a-z_]+: [0-9]+ kinds)|runs broke a promise|^error'
    local status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || tail -n 400 "$log"
    {
        echo "# Every call that can fail fails"
        echo
        echo "Made by \`scripts/test.sh --sweep $share\` of commit $(git rev-parse --short HEAD). A row is a kind of system call,"
        echo "what it fails with, how long, how many of its calls were made to fail so, and what came of it. \`once\`: one call;"
        echo "\`kind\`: it and all later ones of its kind; \`all\`: all calls that can fail so; \`kill\`: the process is killed before it;"
        echo "\`short\`: it transfers half. BROKEN: a promise did not hold."
        cat "$tables"/*.md
    } >"$report"
    note "the tables are in $report"
    return "$status"
}

if [ "${1:-}" = --sweep ]; then
    step "sweep" whole_sweep "${2:-all}"
    exit "${#failed[@]}"
fi

if [ "${1:-}" = --miri ]; then
    step "miri" miri
    exit "${#failed[@]}"
fi

if [ "${1:-}" = --package ]; then
    step "the package in a booted systemd" scripts/test-package.sh
    exit "${#failed[@]}"
fi

if is_root; then
    ensure_hugepages 512 || skip "hugepages" "fewer than 512 of 2 MiB can be had; DPDK's tests run with --no-huge"
else
    skip "root" "hugepages, network namespaces, veth, TAP, virtio and disks need it; sudo scripts/test.sh runs their tests too"
fi

step "formatting" formatting
step "shell and Python scripts" scripts_lint
step "lints" lints
step "lints without DPDK" lints --no-default-features
step "tests" nextest tests
step "documentation tests" doc_tests
step "the dashboard: types, unit tests, and that ui/dist is what ui/ builds to" scripts/ui.sh --check
if have chromium; then
    step "the dashboard in a browser" scripts/ui.sh --browser
else
    skip "the dashboard in a browser" "it needs Chromium: apt-get install chromium"
fi
# What differs without DPDK and without pages are these rooms and the command line. All else is the same code to the last line,
# and its tests take minutes: they ran above. Unoptimised, because the build takes longer than the tests.
step "tests without DPDK" nextest tests-without-dpdk --no-default-features --lib --test cli \
    --config 'profile.dev.package.trawl.opt-level=0' \
    -E 'binary(cli) + test(/^(api|cli|config|dashboard|host|observe)::/)'

if have cargo-deny || install_tool cargo-deny@0.20.2; then
    step "licences, sources, bans" supply_chain
else
    skip "licences, sources, bans" "cargo-deny is not installed and cannot be: cargo install --locked cargo-deny@0.20.2"
fi
skip "advisories" "their database comes from the network: cargo deny check advisories"

if have cargo-fuzz || install_tool cargo-fuzz@0.13.2; then
    step "fuzz targets" fuzz
else
    skip "fuzz targets" "cargo-fuzz is not installed and cannot be: cargo install --locked cargo-fuzz@0.13.2"
fi
step "loom: every interleaving of the lock-free code" loom
skip "the package" "it takes a release build and minutes: scripts/test.sh --package"
skip "miri" "it takes long and needs a nightly toolchain: scripts/test.sh --miri"

say "where the time went"
printf '%s\n' "${times[@]}" | sort -rn
say "the slowest tests"
slowest
say "summary, after $((SECONDS / 60)) min $((SECONDS % 60)) s"
for one in "${skipped[@]}"; do echo "  skipped: $one"; done
for one in "${failed[@]}"; do echo "  ${RED}failed:${PLAIN} $one"; done
[ "${#failed[@]}" = 0 ] || die "${#failed[@]} of the steps failed; logs are in $LOGS"
echo "  all tests passed"
