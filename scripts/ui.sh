#!/usr/bin/env bash
# Builds the dashboard: ui/ to ui/dist, which is committed, so that `cargo build` needs no Node. Checks types, runs its unit
# tests and holds the result to its budget. Continuous integration runs it and then wants no difference in ui/dist.
# --check: builds twice and fails if the two differ, or differ from what is committed.
# --browser: builds nothing; runs ui/e2e in Chromium against the debug build of trawl, with real packets.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

check='' browser=''
for argument in "$@"; do
    case $argument in
    --check) check=yes ;;
    --browser) browser=yes ;;
    *) die "usage: $0 [--check] [--browser]" ;;
    esac
done
have node || die "the dashboard is built by Node 20 or newer: apt-get install nodejs npm"
cd "$ROOT/ui"

sums() { (cd dist && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

build() {
    npx --no-install vite build --logLevel warn
    node build/finish.mjs
}

if [ -n "$browser" ]; then
    chromium=${TRAWL_CHROMIUM:-/usr/bin/chromium}
    [ -x "$chromium" ] || die "the browser tests need Chromium: apt-get install chromium"
    [ -d node_modules ] || npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    say "the dashboard in Chromium"
    TRAWL_BIN=${TRAWL_BIN:-$TARGET_DIR/debug/trawl} TRAWL_CHROMIUM=$chromium exec node --test --test-concurrency=1 --test-timeout=400000 e2e/*.test.mjs
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
