#!/usr/bin/env bash
# Builds the dashboard: ui/ to ui/dist, which is committed, so that `cargo build` needs no Node. Checks types, runs its unit
# tests and holds the result to its budget. Continuous integration runs it and then wants no difference in ui/dist.
# --check: builds twice and fails if the two differ, or differ from what is committed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

check=''
for argument in "$@"; do
    case $argument in
    --check) check=yes ;;
    *) die "usage: $0 [--check]" ;;
    esac
done
have node || die "the dashboard is built by Node 20 or newer: apt-get install nodejs npm"
cd "$ROOT/ui"

sums() { (cd dist && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

build() {
    npx --no-install vite build --logLevel warn
    node build/finish.mjs
}

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
