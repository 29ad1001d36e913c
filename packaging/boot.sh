#!/usr/bin/env bash
# Process 1 of new namespaces, made by scripts/test-package.sh: mounts what a system has and becomes its systemd, which runs
# boot-test.sh and powers off. BASE: a Debian; WORK: files of this run; OUT: where the results go.
set -euo pipefail

mkdir "$WORK/tmp"
mount -t tmpfs tmpfs "$WORK/tmp"
mkdir "$WORK/tmp/up" "$WORK/tmp/work" "$WORK/tmp/root"
root=$WORK/tmp/root
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$WORK/tmp/up,workdir=$WORK/tmp/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero random urandom full tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/pkg" "$root/out" "$root/disks/spool" "$root/disks/out" "$root/old"
mount --bind "$WORK/pkg" "$root/pkg"
mount --bind "$OUT" "$root/out"
# File systems of their own, so that one can be frozen: to trawl that is a disk which does not answer.
for disk in spool out; do mount -o loop "$WORK/$disk.img" "$root/disks/$disk"; done
: >"$root/etc/machine-id"
# Nothing of the hardware is this system's.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service systemd-sysctl.service \
    systemd-logind.service dev-hugepages.mount getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cat >"$root/etc/systemd/system/boot-test.service" <<'U'
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/bash /pkg/boot-test.sh
StandardOutput=file:/out/log
StandardError=inherit
ExecStopPost=/bin/sh -c 'journalctl -b --no-pager -o short-precise -u trawl.service >/out/journal 2>&1; systemctl --no-block start poweroff.target'
U
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf /etc/systemd/system/boot-test.service "$root/etc/systemd/system/multi-user.target.wants/boot-test.service"
cd "$root"
pivot_root . old
umount -l /old 2>/dev/null || true
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target \
    --log-target=journal --log-level=info --show-status=0
