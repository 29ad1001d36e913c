#!/usr/bin/env bash
# Makes what is handed out of a release, in target/release-files: the package, its symbols, and the SHA-256 of each, signed.
#
#   scripts/release.sh [--key FILE]                builds the release, which takes minutes
#   scripts/release.sh --binary FILE [--key FILE]  with a binary that is there already, for tests
#   scripts/release.sh --sums DIR [--key FILE]     only the sums of what is in DIR
#
# FILE of --key: an Ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` makes it; without it nothing is signed. Who gets a release checks it with the public key, which must come another way:
#
#   openssl pkeyutl -verify -pubin -inkey trawl-release.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig && sha256sum -c SHA256SUMS
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

key='' sums='' package_arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --key) key=${2:?--key FILE} ;;
    --binary) package_arguments=(--binary "${2:?--binary FILE}") ;;
    --sums) sums=${2:?--sums DIR} ;;
    *) die "usage: $0 [--binary FILE | --sums DIR] [--key FILE]" ;;
    esac
    shift 2
done
[ -z "$key" ] || key=$(realpath -e "$key")
[ -z "$sums" ] || sums=$(realpath -e "$sums")

# The sums of all files of a folder, and their signature: both last, so that a folder with them is whole.
sums_of() {
    rm -f "$1/SHA256SUMS" "$1/SHA256SUMS.sig"
    (cd "$1" && LC_ALL=C && sha256sum -- * >.sums && mv .sums SHA256SUMS)
    if [ -n "$key" ]; then
        openssl pkeyutl -sign -inkey "$key" -rawin -in "$1/SHA256SUMS" -out "$1/SHA256SUMS.sig"
    else
        warn "SHA256SUMS is not signed: --key FILE signs it"
    fi
}

if [ -n "$sums" ]; then
    sums_of "$sums"
    exit
fi
cd "$ROOT"

OUT=$TARGET_DIR/release-files
rm -rf "$OUT" && mkdir -p "$OUT"
package=$(scripts/package.sh "${package_arguments[@]}" | tail -n 1)
cp "$(dirname "$package")"/*.deb "$OUT/"
sums_of "$OUT"
say "what is handed out is in $OUT" >&2
ls -l "$OUT" >&2
