"""`trawl merge` by one thread and by more, `mergecap` and `cat` on the same files, turn by turn: seconds, and the most memory."""

import statistics
import struct
from collections import defaultdict

from . import Failed
from .machine import file_system, folder, measured, note, packages, said, say, trawl
from .results import keep, table

OPTIONS = {
    "runs": (5, "turns of each"),
    "dir": ("/dev/shm", "where inputs and outputs are made"),
    "mib": (256, "size of each of the 8 large files; the others come to as much"),
    "threads": (2, "threads of the second turn of trawl"),
}
FRAME = bytes(300)


def make_files(work, count, size):
    """Frames of 300 bytes, their times interleaved over the files."""
    paths = []
    for file in range(count):
        paths.append(work / f"in{file:02}.pcap")
        with paths[-1].open("wb") as out:
            out.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
            for number in range(size // (16 + len(FRAME))):
                seconds, ns = divmod(number * 1000 + file * 37, 1_000_000_000)
                out.write(struct.pack("<IIII", 1_700_000_000 + seconds, ns, len(FRAME), len(FRAME)) + FRAME)
    return paths


def turns(options, inputs, binary, work):
    """By program and format: (seconds, KiB) of each run."""
    found = defaultdict(list)
    for run in range(options.runs):
        note(f"{len(inputs)} files, run {run + 1}")
        for ours, theirs in (("pcap", "nsecpcap"), ("pcapng", "pcapng")):
            out = work / f"out.{ours}"
            merge = [binary, "merge", "-o", out, "--threads"]
            commands = {
                "one": [*merge, "1", *inputs],
                "more": [*merge, str(options.threads), *inputs],
                "mergecap": ["mergecap", "-F", theirs, "-w", out, *inputs],
                "cat": ["sh", "-c", 'out=$0; cat "$@" > "$out"', out, *inputs],
            }
            for program, command in commands.items():
                if ours == "pcap" or program in ("one", "mergecap"):
                    found[program, ours].append(measured(*command))
                    out.unlink()
    return found


def rows(what, found):
    """Ratios within a turn, and of those the median: what else the machine does changes from turn to turn."""
    for form in ("pcap", "pcapng"):
        by = {program: found[program, form] for program in ("one", "more", "mergecap", "cat")}

        def seconds(program):
            return f"{statistics.median(s for s, _ in by[program]):.2f}" if by[program] else ""

        def ratio(program, than):
            return f"{statistics.median(s / t for (s, _), (t, _) in zip(by[program], by[than])):.2f}" if by[program] and by[than] else ""

        def mib(program):
            return f"{statistics.median(kib for _, kib in by[program]) / 1024:.0f}" if by[program] else ""

        yield (what, form, *map(seconds, by), ratio("one", "more"), ratio("mergecap", "one"), ratio("mergecap", "more"), ratio("cat", "more"),
               mib("one"), mib("more"), mib("mergecap"))


def run(options):
    packages("wireshark-common")
    binary, found = trawl(), []
    if not said("mergecap", "--version"):
        raise Failed("mergecap does not run")
    with folder(options.dir) as work:
        where = file_system(work)[0]
        for count, mib in ((2, options.mib * 4), (8, options.mib), (64, options.mib // 8)):
            what = f"{count} files of {mib} MiB"
            say(f"making {what}")
            inputs = make_files(work, count, mib << 20)
            found += rows(what, turns(options, inputs, binary, work))
            for path in inputs:
                path.unlink()
    keep("merge", "trawl merge against mergecap", f"Medians of {options.runs} runs, turn by turn, on {where}; frames of 300 bytes.",
         table(f"inputs | output | trawl, 1 thread, s | {options.threads} threads, s | mergecap s | cat s | 1 / {options.threads} threads | mergecap / 1 thread | "
               f"mergecap / {options.threads} threads | cat / {options.threads} threads | 1 thread, peak MiB | {options.threads} threads | mergecap", found),
         options.command, said("mergecap", "--version").splitlines()[0].rstrip("."))
