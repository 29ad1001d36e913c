"""Fleets of many hosts in simulated time: messages, writes of the store, times, what is short of a limit.

The profile is that of the tests: it changes how long the simulation takes and none of its figures."""

import os
import re

from . import Failed
from .machine import output, say
from .results import keep

OPTIONS = {
    "hosts": ("10,100,1000", "sizes of fleets; 10000 takes hours"),
}
DESCRIPTION = """\
The core of `src/fleet`, one seed each; network (1 message of 1000 lost, up to 120 ms one way) and store (0.4 ms a durable write) are simulated.
Rates are log-normal, median 300 packets/s a host. A host is lost for good between 2 s and 32 s after the beginning, so where the limit was
closed before, its loss changes nothing."""
TEST = "fleet::sim::report::a_large_fleet_attaches_captures_and_ends_in_time"


def run(options):
    say("building and simulating: ten minutes for 1000 hosts")
    os.environ["TRAWL_FLEET_REPORT"] = options.hosts
    printed = output("cargo", "test", "--locked", "--no-default-features", "--lib", "--", TEST, "--exact", "--nocapture")
    if not re.search(r"test result: ok. 1 passed", printed):
        raise Failed("the simulation did not run")
    lines = [line for line in printed.splitlines() if line.startswith("|") or " hosts, " in line or not line.strip()]
    keep("fleet", "A fleet in simulated time", DESCRIPTION,
         "\n".join(lines) + "\n", options.command)
