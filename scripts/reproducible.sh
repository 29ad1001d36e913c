# What makes a build give the same bytes wherever it runs. Sourced, never run, from the root of a tree.
# shellcheck shell=bash
#
# The compilers write the paths of their sources into the program, for a debugger and for the words of a panic. They are told other
# ones: the tree is /usr/src/trawl, the crates are in /usr/src/cargo.

_tree=$(pwd -P)
_target=$(realpath -m "${CARGO_TARGET_DIR:-$_tree/target}")
_cargo=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
# The last one that fits holds.
_maps=("$_cargo=/usr/src/cargo" "$_tree=/usr/src/trawl" "$_target=/usr/src/trawl/target")
for _map in "${_maps[@]}"; do
    RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$_map"
    CFLAGS="${CFLAGS:-} -ffile-prefix-map=$_map"
done
export RUSTFLAGS CFLAGS
unset _tree _target _cargo _maps _map
