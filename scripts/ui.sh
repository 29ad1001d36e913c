#!/usr/bin/env bash
# Builds the dashboard: ui/ to ui/dist, which is committed, so that `cargo build` needs no Node. Checks types, runs its unit
# tests and holds the result to its budget. Continuous integration runs it and then wants no difference in ui/dist.
# --check: builds twice and fails if the two differ, or differ from what is committed.
# --browser: builds nothing; runs ui/e2e in Chromium against the debug build of trawl, with real packets and a real S3 server.
# --pictures DIR: leaves pictures of each page in each state there, and the one of the README in docs/dashboard.png.
# --budget: measures what the dashboard costs a browser, against the release build of trawl.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

check='' browser='' pictures='' budget=''
while [ $# -gt 0 ]; do
    case $1 in
    --check) check=yes ;;
    --browser) browser=yes ;;
    --pictures) shift && pictures=$(realpath -m "${1:?a folder}") ;;
    --budget) budget=yes ;;
    *) die "usage: $0 [--check | --browser | --pictures DIR | --budget]" ;;
    esac
    shift
done
have node || die "the dashboard is built by Node 20 or newer: apt-get install nodejs npm"
cd "$ROOT/ui"

sums() { (cd dist && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

build() {
    npx --no-install vite build --logLevel warn
    node build/finish.mjs
}

if [ -n "$browser$pictures$budget" ]; then
    chromium=${TRAWL_CHROMIUM:-/usr/bin/chromium}
    [ -x "$chromium" ] || die "the browser tests need Chromium: apt-get install chromium"
    [ -d node_modules ] || npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    export TRAWL_CHROMIUM=$chromium PATH=$PATH:$TARGET_DIR/test-venv/bin
    if [ -n "$budget" ]; then
        say "what the dashboard costs a browser"
        TRAWL_BIN=${TRAWL_BIN:-$TARGET_DIR/release/trawl} exec node e2e/budget.mjs
    fi
    export TRAWL_BIN=${TRAWL_BIN:-$TARGET_DIR/debug/trawl}
    if [ -n "$pictures" ]; then
        say "pictures of each page in each state"
        TRAWL_UI_PICTURES=$pictures node --test --test-timeout=1200000 e2e/states.test.mjs
        exec cp "$pictures/dashboard.png" "$ROOT/docs/dashboard.png"
    fi
    say "the dashboard in Chromium"
    exec node --test --test-concurrency=1 --test-timeout=1200000 e2e/*.test.mjs
fi
say "installing what ui/package-lock.json names"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
say "types"
npx --no-install tsc --noEmit
say "unit tests"
node --import ./test/typescript.mjs --test test/*.test.ts
say "building"
build
if [ -n "$check" ]; then
    first=$(sums)
    build
    [ "$first" = "$(sums)" ] || die "two builds of ui/dist differ"
    if [ -n "$(git status --porcelain -- dist)" ]; then
        git --no-pager status --short -- dist
        die "ui/dist is not what ui/ builds to: run scripts/ui.sh and commit ui/dist"
    fi
fi
note "ui/dist is built"
