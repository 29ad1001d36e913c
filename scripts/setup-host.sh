#!/usr/bin/env bash
# Prepares a host for capture, one subject an option; docs/OPERATIONS.md says how many and why. Prints every change as a command.
#
#   scripts/setup-host.sh [--dry-run] [--hugepages-2m N] [--hugepages-1g N] [--port PCI]... [--isolate CORES] [--grub]
#   scripts/setup-host.sh [--dry-run] --undo
#
#   --hugepages-2m N   reserves N pages of 2 MiB, now and (a file in /etc/sysctl.d) at every start
#   --hugepages-1g N   the same of 1 GiB, now as far as memory is not fragmented; for good only by kernel parameters, see --grub
#   --port PCI         gives the port to vfio-pci; refused if it carries an address, a route or is a part of a bridge or bond,
#                      unless --force. mlx4 and mlx5 are refused: they stay with their kernel driver. Not kept over a reboot.
#                      A port that must stay with the kernel needs none of this: device = "interface:eth0" in the config
#   --driver NAME      another driver than vfio-pci
#   --isolate CORES    such as 2-5,8: keeps interrupts off these cores now, and prints the kernel parameters that keep
#                      everything else off them
#   --grub             writes these kernel parameters into /etc/default/grub.d, where that exists, instead of printing them
#   --force            see --port; also without an IOMMU (vfio's unsafe mode)
#   --dry-run          prints what would be done and changes nothing; needs no rights
#   --undo             takes back what runs before have changed, the last change first
#
# What was there before each change is kept in /var/lib/trawl/setup-host.state until --undo has put it back.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Tests give a folder that looks like a host.
HOST=${TRAWL_SETUP_ROOT:-}
STATE=$HOST/var/lib/trawl/setup-host.state
PCI=$HOST/sys/bus/pci
HUGEPAGES=$HOST/sys/kernel/mm/hugepages
GRUB=$HOST/etc/default/grub.d

DRY='' FORCE='' UNDO='' USE_GRUB='' DRIVER=vfio-pci PAGES_2M='' PAGES_1G='' CORES='' PORTS=()
usage() { die "usage: see the head of $0"; }
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) DRY=yes && shift ;;
    --force) FORCE=yes && shift ;;
    --undo) UNDO=yes && shift ;;
    --grub) USE_GRUB=yes && shift ;;
    --hugepages-2m | --hugepages-1g | --port | --driver | --isolate)
        [ $# -ge 2 ] || usage
        case $1 in
        --hugepages-2m) PAGES_2M=$2 ;;
        --hugepages-1g) PAGES_1G=$2 ;;
        --port) PORTS+=("$2") ;;
        --driver) DRIVER=$2 ;;
        --isolate) CORES=$2 ;;
        esac
        shift 2
        ;;
    *) usage ;;
    esac
done
for pages in "$PAGES_2M" "$PAGES_1G"; do
    [[ -z $pages || $pages =~ ^[0-9]+$ ]] || die "$pages is no number of hugepages"
done
[[ -z $CORES || $CORES =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || die "--isolate: $CORES is no list such as 2-5,8"
[ -n "$UNDO$PAGES_2M$PAGES_1G$CORES${PORTS[*]}" ] || usage
[ -n "$DRY$HOST" ] || is_root || die "this needs root; --dry-run shows what would be done"

# What is there now, so that --undo can put it back: `remember KIND PATH [VALUE]`.
remember() {
    [ -z "$DRY" ] || return 0
    mkdir -p "$(dirname "$STATE")"
    local IFS=$'\t'
    printf '%s\n' "$*" >>"$STATE"
}

# `put VALUE PATH`: one write to the kernel, printed as the command that it is.
put() {
    printf 'echo %s > %s\n' "${1:-\"\"}" "${2#"$HOST"}"
    [ -z "$DRY" ] || return 0
    { printf '%s\n' "$1" >"$2"; } 2>/dev/null
}

# `set_value VALUE PATH`: a write whose old value can be put back.
set_value() {
    local old
    # A module that a real run would have loaded may be missing.
    old=$(cat "$2" 2>/dev/null) || [ -n "$DRY" ] || die "$2 cannot be read: this kernel lacks it"
    [ "$old" != "$1" ] || return 0
    remember value "$2" "$old"
    put "$1" "$2" || die "the kernel refuses $1 for $2"
}

# `write_file TEXT PATH`: a file of ours.
write_file() {
    printf "printf '%%s\\\\n' '%s' > %s\n" "$1" "${2#"$HOST"}"
    [ -z "$DRY" ] || return 0
    if [ -e "$2" ]; then remember value "$2" "$(cat "$2")"; else remember file "$2"; fi
    mkdir -p "$(dirname "$2")"
    printf '%s\n' "$1" >"$2"
}

reserve_hugepages() {
    local count=$1 kib=$2 path=$HUGEPAGES/hugepages-$2kB/nr_hugepages got
    [ -e "$path" ] || die "this kernel has no hugepages of $kib KiB"
    set_value "$count" "$path"
    [ -z "$DRY" ] || return 0
    got=$(cat "$path")
    [ "$got" -ge "$count" ] ||
        warn "the kernel found room for $got of $count hugepages of $kib KiB: memory is fragmented or too small; reserve them at boot"
}

# Network interfaces of a PCI device; those of virtio lie one folder deeper.
interfaces() {
    local path
    for path in "$PCI/devices/$1"/net/* "$PCI/devices/$1"/virtio*/net/*; do
        [ ! -e "$path" ] || basename "$path"
    done
}

# Why this interface is in use; nothing if it is not.
used_for() {
    local name=$1
    [ ! -e "$HOST/sys/class/net/$name/master" ] || echo "$name is a part of a bridge or bond"
    [ -z "$(ip -o route show default dev "$name" 2>/dev/null)" ] || echo "$name carries the default route"
    [ -z "$(ip -o addr show dev "$name" scope global 2>/dev/null)" ] || echo "$name has an address"
}

bind_port() {
    local port=$1 device old='' name why
    [[ $port =~ ^[0-9a-f]{2}: ]] && port=0000:$port
    device=$PCI/devices/$port
    [ -d "$device" ] || die "there is no PCI device $port: lspci -D"
    [ ! -e "$device/driver" ] || old=$(basename "$(readlink -f "$device/driver")")
    [ "$old" != "$DRIVER" ] || { note "$port has $DRIVER already" && return; }
    case $old in mlx4_core | mlx5_core) die "$port is driven by $old: DPDK uses it beside the kernel, which gets no frame while trawl runs; do not bind it" ;; esac
    for name in $(interfaces "$port"); do
        why=$(used_for "$name")
        [ -n "$FORCE" ] || [ -z "$why" ] || die "$port is in use: ${why//$'\n'/, }; device = \"interface:$name\" leaves it to the kernel, --force takes it all the same"
    done
    if [ "$DRIVER" = vfio-pci ] && [ -z "$(ls -A "$HOST/sys/kernel/iommu_groups" 2>/dev/null)" ]; then
        [ -n "$FORCE" ] || die "no IOMMU is on: boot with intel_iommu=on (AMD: amd_iommu=on) iommu=pt, or --force vfio's unsafe mode"
        load_driver
        set_value Y "$HOST/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    else
        load_driver
    fi
    remember port "$port" "$old"
    give_port "$port" "$DRIVER"
}

load_driver() {
    [ ! -d "$PCI/drivers/$DRIVER" ] || return 0
    echo "modprobe $DRIVER"
    [ -n "$DRY" ] || modprobe "$DRIVER" || die "modprobe $DRIVER failed: this kernel lacks it"
}

# `give_port PCI DRIVER`: to that driver; without one, to whichever takes it.
give_port() {
    local device=$PCI/devices/$1
    [ ! -e "$device/driver" ] || put "$1" "$device/driver/unbind" || warn "$1 does not leave its driver"
    put "$2" "$device/driver_override" || die "$1 takes no driver override"
    put "$1" "$PCI/drivers_probe" || warn "no driver took $1"
}

# The allowed cores but those, as a list.
other_cores() {
    python3 - "$1" <(cat "$HOST/sys/devices/system/cpu/online") <<'END'
import sys
def cores(text):
    parts = (part.split("-") for part in text.strip().split(","))
    return {core for part in parts for core in range(int(part[0]), int(part[-1]) + 1)}
print(*sorted(cores(open(sys.argv[2]).read()) - cores(sys.argv[1])), sep=",")
END
}

isolate() {
    local rest path old
    rest=$(other_cores "$1")
    [ -n "$rest" ] || die "--isolate $1 leaves no core for the rest of the system"
    for path in "$HOST"/proc/irq/*/smp_affinity_list; do
        old=$(cat "$path" 2>/dev/null) || continue
        # Interrupts of one core only, and those that a driver has spread itself, cannot be moved.
        put "$rest" "$path" && [ "$old" != "$rest" ] && remember value "$path" "$old"
    done
    PARAMETERS+=" isolcpus=$1 nohz_full=$1 rcu_nocbs=$1 irqaffinity=$rest"
}

undo() {
    [ -e "$STATE" ] || { say "nothing to undo: there is no ${STATE#"$HOST"}" && return; }
    local kind path value
    while IFS=$'\t' read -r kind path value; do
        case $kind in
        value) put "$value" "$path" || warn "$path does not take its old value $value" ;;
        file) echo "rm ${path#"$HOST"}" && { [ -n "$DRY" ] || rm -f "$path"; } ;;
        port)
            give_port "$path" ''
            [ -z "$value" ] || note "its driver was $value"
            ;;
        esac
    done < <(tac "$STATE")
    echo "rm ${STATE#"$HOST"}"
    [ -n "$DRY" ] || rm -f "$STATE"
}

if [ -n "$UNDO" ]; then
    undo
    exit
fi

PARAMETERS=''
if [ -n "$PAGES_2M" ]; then
    reserve_hugepages "$PAGES_2M" 2048
    write_file "vm.nr_hugepages = $PAGES_2M" "$HOST/etc/sysctl.d/60-trawl.conf"
fi
if [ -n "$PAGES_1G" ]; then
    reserve_hugepages "$PAGES_1G" 1048576
    PARAMETERS+=" hugepagesz=1G hugepages=$PAGES_1G"
fi
for port in "${PORTS[@]}"; do bind_port "$port"; done
[ -z "$CORES" ] || isolate "$CORES"
if [ -n "$PARAMETERS" ] && [ -n "$USE_GRUB" ]; then
    [ -d "$GRUB" ] || die "there is no ${GRUB#"$HOST"}: add these kernel parameters as your boot loader wants it:$PARAMETERS"
    write_file "GRUB_CMDLINE_LINUX_DEFAULT=\"\$GRUB_CMDLINE_LINUX_DEFAULT$PARAMETERS\"" "$GRUB/60-trawl.cfg"
    say "now: update-grub, and a reboot"
elif [ -n "$PARAMETERS" ]; then
    say "kernel parameters for good (--grub writes them), then a reboot:$PARAMETERS"
fi
if [ -n "$DRY" ]; then say "nothing was changed"; else say "done; $0 --undo takes it back"; fi
