#!/usr/bin/env bash
# Builds the package twice, from copies of the last commit in different folders, in another time zone, language and umask, and holds the
# two against each other, byte for byte: the program, the package and that with the symbols.
#
#   scripts/test-reproducible.sh                two release builds, some twenty minutes
#   scripts/test-reproducible.sh --quick        the program alone, built without optimisation and without DPDK: paths in it are found in
#                                               a few minutes
#
# What differs is shown by diffoscope, if it is installed. The folders stay in target/reproducible where they differ.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

quick=''
case ${1:-} in
'') ;;
--quick) quick=yes ;;
*) die "usage: $0 [--quick]" ;;
esac
BASE=$TARGET_DIR/reproducible
rm -rf "$BASE" && mkdir -p "$BASE"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# `build NAME FOLDER`: one of the two builds, of what was committed; its result is in $BASE/NAME.
build() {
    local name=$1 tree=$BASE/$2
    mkdir -p "$tree" "$BASE/$name"
    git archive HEAD | tar -x -C "$tree"
    say "building in $tree"
    (
        cd "$tree"
        unset CARGO_TARGET_DIR
        if [ -n "$quick" ]; then
            # shellcheck source=scripts/reproducible.sh
            . scripts/reproducible.sh
            cargo build --quiet --locked --no-default-features --features dashboard
            strip --strip-unneeded -o "$BASE/$name/trawl.stripped" target/debug/trawl
            cp target/debug/trawl "$BASE/$name/"
        else
            # The tools do not go into the package.
            mkdir -p target && ln -s "$TARGET_DIR/package-tools" target/package-tools
            package=$(scripts/package.sh | tail -n 1)
            cp target/release/trawl "$(dirname "$package")"/*.deb "$BASE/$name/"
        fi
    )
    rm -rf "$tree"
}

mkdir -p "$TARGET_DIR/package-tools"
(TZ=UTC LC_ALL=C umask 022 && build one a)
(export TZ=Asia/Kathmandu LC_ALL=C.UTF-8 && umask 027 && build two another/and/longer/place)

differs=''
for file in "$BASE"/one/*; do
    name=$(basename "$file")
    if cmp "$file" "$BASE/two/$name"; then
        note "the same: $name, $(sha256sum "$file" | cut -c1-64)"
    else
        differs=yes
        if have diffoscope; then diffoscope --max-report-size 200000 "$file" "$BASE/two/$name" | head -n 200 || true; fi
    fi
done
[ -z "$differs" ] || die "two builds of one commit differ; both are in $BASE"
rm -rf "$BASE"
say "two builds in different places gave the same bytes"
