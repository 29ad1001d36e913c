"""This machine as the benches need it: cores, memory of DPDK, packages, a release build, a folder to work in, and its facts."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from . import Failed

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The build folder as cargo sees it.
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def note(text):
    print(f"    {text}", file=sys.stderr, flush=True)


def said(*command):
    """What a command prints, or nothing if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def done(*command, words):
    """Runs a command that must succeed; what it prints goes to standard error, where nobody takes it for a result."""
    if subprocess.run(command, stdout=sys.stderr, cwd=ROOT, check=False).returncode != 0:
        raise Failed(words)


def output(*command):
    """What a command prints that must succeed."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if ran.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} ended with {ran.returncode}")
    return ran.stdout


def library(function, *arguments):
    """A function of scripts/lib.sh; gives whether it succeeded."""
    script = f'. "{ROOT}/scripts/lib.sh"; "$@"'
    return subprocess.run(["bash", "-c", script, "lib", function, *arguments], stdout=sys.stderr, check=False).returncode == 0


def packages(*names):
    if not library("need_apt", *names):
        raise Failed("packages are missing")


def hugepages(count):
    """Whether so many of 2 MiB are there for DPDK."""
    if library("ensure_hugepages", str(count)):
        return True
    note(f"no {count} free hugepages: figures are those of --no-huge and ordinary pages")
    return False


def trawl():
    """The binary to measure: $TRAWL, or a release build."""
    if binary := os.environ.get("TRAWL"):
        return binary
    done(ROOT / "scripts/install-deps.sh", "build", words="packages are missing")
    say("building (release)")
    done("cargo", "build", "--release", "--locked", "--bin", "trawl", words="it cannot be built")
    return str(TARGET / "release/trawl")


ALLOWED = os.sched_getaffinity(0)


def everywhere():
    """Before a command that chooses its cores by its config: a bench may have left cores itself, and a child inherits that."""
    os.sched_setaffinity(0, ALLOWED)


def cores():
    found = sorted(ALLOWED)
    if len(found) < 2:
        raise Failed("a bench needs two cores")
    return found


class Host:
    """A bench of one worker: `poll` is its core, which nothing else gets, and `main` is everybody else's."""

    def __init__(self, *needed):
        packages("util-linux", "python3", *needed)
        self.cores = cores()
        self.main, self.poll = self.cores[0], self.cores[-1]
        self.memory = "-m 256" if hugepages(512) else "-m 256 --no-huge"


@contextlib.contextmanager
def folder(where=None):
    """A new folder below `where`, gone at the end."""
    if where:
        pathlib.Path(where).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trawl-bench.", dir=where or None, ignore_cleanup_errors=True) as path:
        yield pathlib.Path(path)


def file_system(path):
    """Its type, and its device."""
    words = said("findmnt", "-no", "FSTYPE,SOURCE", "-T", str(path)).split()
    return (words[0], " ".join(words[:2])) if words else ("unknown", "unknown")


def free_gib(path):
    return shutil.disk_usage(path).free >> 30


def memory_kib(name):
    """A line of /proc/meminfo."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def stolen(core):
    """Seconds that the hypervisor has kept from a core since boot."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{core}":
            return int(words[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def hardware():
    models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")]
    return [f"{models[0] if models else 'unknown'}, {os.cpu_count()} cores", f"{memory_kib('MemTotal') / 2**20:.0f} GiB",
            f"Linux {os.uname().release}"]


def facts(*more):
    """One sentence for the end of a result."""
    return "; ".join([*hardware(), *more, " ".join(said("rustc", "--version").split()[:2]),
                      f"commit {said('git', 'rev-parse', '--short', 'HEAD') or 'unknown'}"])


def dpdk(memory):
    return f"DPDK {said('pkg-config', '--modversion', 'libdpdk')}, memory `{memory}`"


def measured(*command):
    """Seconds that a command took, which must succeed, and the most memory that it had, in KiB, as the kernel counted it."""
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds, child.returncode = time.monotonic() - began, status
    if status:
        raise Failed(f"failed after {seconds:.1f} s: {' '.join(map(str, command))}")
    return seconds, usage.ru_maxrss


def free_ports(count):
    """TCP ports of the loopback address that nothing listens on; all are held until all are found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
