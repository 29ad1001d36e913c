#!/usr/bin/env bash
# Prints what is in a package (SBOM, CycloneDX 1.5, JSON): every crate that is built into the program, as cargo-cyclonedx finds them, and
# the Debian packages that it depends on.
#
#   scripts/sbom.sh PACKAGE.deb
#
# The same tree gives the same bytes: the time is that of the last commit, and there is no serial number.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

CYCLONEDX=0.5.9
TOOLS=$TARGET_DIR/package-tools
package=${1:?usage: "$0" PACKAGE.deb}

[ "$("$TOOLS/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" = "cargo-cyclonedx-cyclonedx $CYCLONEDX" ] || {
    say "installing cargo-cyclonedx $CYCLONEDX (some minutes, once)" >&2
    cargo install --quiet --locked --force --root "$TOOLS" --target-dir "$TOOLS/build" "cargo-cyclonedx@$CYCLONEDX"
    rm -rf "$TOOLS/build"
}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

# It writes beside Cargo.toml, under this name.
name=.sbom-of-trawl
trap 'rm -f "$ROOT/$name.json"' EXIT
"$TOOLS/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu \
    --override-filename "$name" >&2
depends=$(dpkg-deb -f "$package" Depends)
python3 - "$name.json" "$depends" <<'PYTHON'
"""Adds the packages that are named, and takes out what differs from run to run and from place to place."""
import json
import os
import re
import sys
from datetime import datetime, timezone

bom = json.load(open(sys.argv[1]))
bom.pop("serialNumber", None)
at = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
bom["metadata"]["timestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
here = re.escape(os.getcwd())
text = json.dumps(bom)
text = re.sub(r"(path\+)?file://" + here, "file:///trawl", text)
bom = json.loads(text)
for depend in sys.argv[2].split(","):
    found = re.fullmatch(r"\s*([a-z0-9][a-z0-9+.-]*)\s*(?:\((.*)\))?\s*(?:\|.*)?", depend)
    if not found:
        sys.exit(f"what is {depend!r}?")
    name, version = found.groups()
    package = {"type": "library", "bom-ref": f"deb:{name}", "name": name, "scope": "required", "purl": f"pkg:deb/debian/{name}"}
    if version:
        package["properties"] = [{"name": "trawl:debian-version", "value": version.strip()}]
    bom["components"].append(package)
bom["components"].sort(key=lambda one: one["bom-ref"])
json.dump(bom, sys.stdout, indent=1, sort_keys=True)
print()
PYTHON
