"""What the scale bench needs of a machine that it has never seen: which cores do what, hugepages, disks, the rate of a plain copy.

It asks the kernel alone, because the bundle runs where nothing is installed.
"""

import contextlib
import ctypes
import mmap
import os
import pathlib
import time

from .machine import folder, free_gib, memory_kib

CPUS = pathlib.Path("/sys/devices/system/cpu")
NODES = pathlib.Path("/sys/devices/system/node")
HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
# Of this, the part that a copy reads; the other part is written. Larger than the caches of a core.
COPY_BYTES = 128 << 20
COPY_SECONDS = 0.5
SHM = "/dev/shm"
MNT_DETACH = 2


def text(path, otherwise=""):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return otherwise


def listed(words):
    """Numbers of a kernel's list such as 0-3,8."""
    found = []
    for word in filter(None, words.split(",")):
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def nodes():
    """By CPU, its NUMA node; all on node 0 where the kernel says nothing."""
    found = {}
    for path in NODES.glob("node[0-9]*"):
        found.update({cpu: int(path.name[4:]) for cpu in listed(text(path / "cpulist"))})
    return found


def physical_cores(allowed):
    """The CPUs that this process may use, as lists of hyper-thread siblings; a CPU of unknown topology is a core of its own."""
    node, cores = nodes(), {}
    for cpu in sorted(allowed, key=lambda cpu: (node.get(cpu, 0), cpu)):
        topology = CPUS / f"cpu{cpu}/topology"
        key = (text(topology / "physical_package_id"), text(topology / "core_id")) if topology.is_dir() else cpu
        cores.setdefault((node.get(cpu, 0), key), []).append(cpu)
    return cores


class Layout:
    """Cores of `count` workers and their writers. `siblings`: writers are the workers' hyper-threads, because cores are too few."""

    def __init__(self, count, allowed):
        by_node = {}
        for (node, _), cpus in physical_cores(allowed).items():
            by_node.setdefault(node, []).append(cpus)
        cores = [core for group in by_node.values() for core in group]
        self.workers, self.writers, self.siblings = [], [], False
        if count < len(cores):
            # A worker's writer is on the worker's node, as far as there is room. The first cores, which the kernel likes, are writers'.
            halves = [(group[(len(group) + 1) // 2:], group[:(len(group) + 1) // 2]) for group in by_node.values()]
            order = [core for polling, _ in halves for core in polling] + [core for _, writing in halves for core in writing]
            self.workers = [core[0] for core in order[:count]]
            rest = [core[0] for _, writing in halves for core in writing if core[0] not in self.workers]
            rest += [core[0] for polling, _ in halves for core in polling if core[0] not in self.workers]
            self.writers = rest[:count]
        elif count == len(cores) and all(len(core) > 1 for core in cores):
            self.workers, self.writers = [core[0] for core in cores], [core[1] for core in cores]
            self.siblings = True

    def fits(self):
        return bool(self.writers)

    def words(self):
        places = f"workers {self.workers}, writers {self.writers}"
        return f"{places}, which are the workers' hyper-threads" if self.siblings else places


@contextlib.contextmanager
def reserved_hugepages(count):
    """As many free hugepages of 2 MiB as wanted, if the kernel gives them; gives whether. They are given back."""
    before = int(text(HUGEPAGES, "0") or 0)
    try:
        yield huge_free() >= count or reserve(before, count)
    finally:
        if int(text(HUGEPAGES, "0") or 0) != before:
            with contextlib.suppress(OSError):
                HUGEPAGES.write_text(f"{before}\n", encoding="ascii")


def huge_free():
    # Absent where the kernel has none.
    found = [line.split()[1] for line in text("/proc/meminfo").splitlines() if line.startswith("HugePages_Free:")]
    return int(found[0]) if found and memory_kib("Hugepagesize") == 2048 and os.geteuid() == 0 else 0


def reserve(before, count):
    # Never more than a quarter of what is available.
    if os.geteuid() != 0 or (count << 11) * 4 > memory_kib("MemAvailable"):
        return False
    with contextlib.suppress(OSError):
        HUGEPAGES.write_text(f"{before + count}\n", encoding="ascii")
    return huge_free() >= count


def memory_free_gib():
    """What this machine has, or the cgroup that the process is in."""
    free = memory_kib("MemAvailable") << 10
    limit, used = (text(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    return min(free, int(limit) - int(used)) >> 30 if limit.isdigit() and used.isdigit() else free >> 30


@contextlib.contextmanager
def in_memory(gib):
    """A folder on a file system in memory, with so much room if there is, or less: /dev/shm, or one that root mounts. None: neither."""
    memory = memory_free_gib()
    if os.access(SHM, os.W_OK) and min(free_gib(SHM), memory) >= gib // 4:
        yield SHM
        return
    with folder() as point:
        size, libc = f"size={min(gib, memory // 2)}g,mode=0700".encode(), ctypes.CDLL(None, use_errno=True)
        if memory // 2 < gib // 4 or libc.mount(b"tmpfs", bytes(point), b"tmpfs", 0, size) != 0:
            yield None
            return
        try:
            yield str(point)
        finally:
            libc.umount2(bytes(point), MNT_DETACH)


def mounted(path):
    """Type and source of the file system that a path is on."""
    path, best = os.path.realpath(path), ("", "unknown", "unknown")
    for line in text("/proc/self/mounts").splitlines():
        source, point, kind = line.split()[:3]
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind, source)
    return best[1], best[2]


def copy_rate(cpus):
    """GB/s that processes on these CPUs copy at once, each between two areas of its own by libc's memmove; bytes copied, once."""
    ready, go, result = os.pipe(), os.pipe(), os.pipe()
    children = []
    for cpu in cpus:
        children.append(os.fork())
        if children[-1] == 0:
            with contextlib.suppress(BaseException):
                os.write(result[1], f"{copies(cpu, ready[1], go[0]):20.0f}".encode())
            os._exit(0)
    # Whatever ends a child ends the waiting.
    os.close(ready[1])
    os.close(result[1])
    for _ in cpus:
        os.read(ready[0], 1)
    os.write(go[1], b"g" * len(cpus))
    rates = [float(os.read(result[0], 20) or 0) for _ in cpus]
    for child in children:
        os.waitpid(child, 0)
    for end in (ready[0], *go, result[0]):
        os.close(end)
    return sum(rates) / 1e9


def copies(cpu, ready, go):
    os.sched_setaffinity(0, {cpu})
    area = mmap.mmap(-1, 2 * COPY_BYTES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    ctypes.memset(address, 1, 2 * COPY_BYTES)
    os.write(ready, b"r")
    os.read(go, 1)
    began, done = time.monotonic(), 0
    while time.monotonic() < began + COPY_SECONDS:
        ctypes.memmove(address + COPY_BYTES, address, COPY_BYTES)
        done += COPY_BYTES
    return done / (time.monotonic() - began)
