"""What each kind of work costs one worker, in turns of some milliseconds within one process: see benches/worker.rs.

History, filters that take none, one or all frames, 64 captures that share them, snap lengths and sampling. What is no option here is
one of the Rust bench's: [--rounds 40] [--milliseconds 25] [--works nothing,history,…].
"""

from .machine import ROOT, Host, done, dpdk, output, say
from .results import keep

OPTIONS = {"sizes": ("64", "of frames, with FCS")}
MORE = "arguments of the bench"


def run(options):
    host, found = Host(), ""
    done(ROOT / "scripts/install-deps.sh", "build", words="packages are missing")
    say("building (release)")
    cargo = ["cargo", "bench", "--locked", "--bench", "worker"]
    done(*cargo, "--no-run", words="it cannot be built")
    for size in options.sizes.split():
        say(f"{size} bytes")
        found += output(*cargo, "--", "--size", size, f"--eal={host.memory}", *options.more) + "\n"
    keep("worker", "What each kind of work costs a worker", f"""\
Frames that one worker receives of `net_pcap`, `infinite_rx=1`, 2000 frames, while it is given one work after the other for some
milliseconds each, round after round; medians, and of the ratios to the first work in the same round also the quartiles. Blocks are
thrown away by the writer. The worker polls on core {host.poll} alone, everything else has core {host.main}.""",
         found, options.command, dpdk(host.memory))
