"""Load test in the fashion of RFC 2544, section 26.1.

A separate sender offers frames at rates that a binary search chooses, and the highest rate without a lost frame is found for each
frame size. Then more than that is offered, and the ledger must balance to the packet: what the sender says it offered is what is in
the files plus every counted drop. Exits with 1 if a ledger does not balance, and with 3, after it has said where each process and
thread stood, if something hangs.

  benches/run loadtest [options]
      dpdk-testpmd (txonly, net_vhost) against trawl on net_virtio_user, both on this host. testpmd has no rate for
      net_vhost, so pace.c, loaded into it by EAL's -d, holds each burst back until its time has come.
  benches/run loadtest --pktgen [options]
      The same with Pktgen-DPDK, where `pktgen` is installed; it paces itself, and sends no mix of sizes.
  benches/run loadtest --port PCI --generator COMMAND [options]
      A real port of this host, bound to vfio-pci (scripts/setup-host.sh), and a generator on the other end of its cable.
      `COMMAND SIZE RATE SECONDS` must send frames of SIZE bytes (with FCS; imix is 7:4:1 of 64, 594, 1518) at RATE a second
      (0: as fast as it can) for that long, and print how many it sent. Nothing else may come in on that port.

A trial is one capture of everything, attached before the first frame is sent and stopped after the last one was received, so its
ledger covers what was sent to the packet. The folder holds spool and bucket, so its disk is a part of what is measured. With fewer
than four cores the sender, the writers and the merge share one: the sender's own limit is then lower, and the table says `≥` where
it was the limit. Needs root and hugepages.
"""

import json
import time

from . import Failed
from .machine import TARGET, dpdk, file_system, folder, free_gib, note, stolen
from .results import keep, table
from .sender import FCS_BYTES, SETTLE_SECONDS, TRIAL_SECONDS, External, Load, Pktgen, Testpmd

OPTIONS = {
    "seconds": (5.0, "of each trial"),
    "sizes": ("64 512 imix 1518 9018", "of frames, with FCS"),
    "loss": (0.0, "share that may be lost in a trial that passes; RFC 2544 wants 0"),
    # Where a hypervisor takes the core for milliseconds, this decides at which rate the first is lost.
    "ring": (1024, "frames that wait in the port while its worker is away"),
    "dir": (str(TARGET / "loadtest"), "where spool and bucket are"),
    "port": ("", "a real port"),
    "generator": ("", "command on the other end of its cable"),
    "pktgen": (False, "Pktgen-DPDK instead of testpmd"),
    "results": ("", "file (JSON lines, one for each size) that is appended to, so that the table can be measured size by size"),
    "no-table": (False, "no table yet: for all sizes but the last"),
}
IMIX_MEAN = (7 * 60 + 4 * 590 + 1514) / 12
# A search stops when it has narrowed the rate down to this share, or after so many trials.
RESOLUTION, TRIALS_MAX = 0.02, 12


def frame_bytes(size):
    """Bytes of a frame without FCS; the mean for a mix."""
    return IMIX_MEAN if size == "imix" else int(size) - FCS_BYTES


class Trial:
    """What became of one offer."""

    def __init__(self, sent, refused, took, progress):
        self.ledger = progress["ledger"]
        self.sent, self.refused = sent, refused
        self.offered = sent + refused
        self.pps = self.offered / took
        self.lost = refused + self.ledger["offered"] - self.ledger["rx"] + sum(self.ledger["dropped"].values())
        # The sum that this test is about; the ledger's own equations were checked with each reading.
        counted = self.ledger["captured"] + self.ledger["unmatched"] + self.lost
        self.balances = self.ledger["offered"] == sent and counted == self.offered


class Test:
    def __init__(self, options, load, watchdog, generator, server):
        self.options, self.load, self.watchdog, self.generator, self.server = options, load, watchdog, generator, server

    def trial(self, size, rate):
        server, seconds = self.server, self.options.seconds
        self.watchdog.expect(seconds + TRIAL_SECONDS, f"a trial of {size} at {rate:.0f} frames a second")
        capture = server.create()
        server.running(capture)
        sent, refused, took = self.generator.send(size, rate, seconds)
        last, quiet = -1, time.monotonic()
        while time.monotonic() - quiet < SETTLE_SECONDS:
            received = server.progress(capture)["ledger"]["rx"]
            if received != last:
                last, quiet = received, time.monotonic()
            time.sleep(0.05)
        server.stop(capture)
        progress = server.ended(capture)
        if progress["stop_reason"] != "stop_requested" or progress["status"] != "success":
            raise Failed(f"the trial's capture ended by itself: {progress}; give it more room (--dir) or fewer --seconds")
        manifest = server.verify(capture)
        if manifest["ledger"] != progress["ledger"]:
            raise Failed(f"manifest and API differ: {manifest['ledger']} {progress['ledger']}")
        server.remove_objects()
        trial = Trial(sent, refused, took, progress)
        aim = f"{rate / 1e6:8.3f}" if rate else "     all"
        note(f"{size:>5} {aim} Mpps wanted, {trial.pps / 1e6:8.3f} offered, {trial.lost} of {trial.offered} lost"
              f"{'' if trial.balances else '  DOES NOT BALANCE: ' + str(trial.ledger)}")
        return trial

    def search(self, size):
        """The highest rate without loss that was found, and all trials."""
        tolerated = self.options.loss
        top = self.trial(size, 0)
        trials, best = [top], None
        if top.lost <= tolerated * top.offered:
            return top, trials
        low, high = 0.0, top.pps
        while len(trials) < TRIALS_MAX and high - low > RESOLUTION * high:
            rate = (low + high) / 2
            trial = self.trial(size, rate)
            trials.append(trial)
            if trial.lost <= tolerated * trial.offered:
                low, best = rate, max(best or trial, trial, key=lambda t: t.pps)
            else:
                high = rate
        return best, trials

    def row(self, size):
        steal, began = stolen(self.load.worker), time.monotonic()
        best, trials = self.search(size)
        above = self.trial(size, 0)
        trials.append(above)
        ledger = above.ledger
        counted = {"captured": ledger["captured"], "ring full": above.refused, **ledger["port"], **ledger["dropped"],
                   "unmatched": ledger["unmatched"]}
        return {"frames": size, "frame_bytes": frame_bytes(size), "pps": best.pps if best else 0.0,
                "source_is_limit": best is trials[0], "trials": len(trials), "seconds_each": self.options.seconds,
                "ring": self.options.ring, "loss": self.options.loss, "above_pps": above.pps, "above_offered": above.offered,
                "above_counted": counted, "balances": all(trial.balances for trial in trials),
                "stolen": stolen(self.load.worker) - steal, "took": time.monotonic() - began}

    def run(self, results):
        """Appends a row for each size to the results; gives whether every ledger balances."""
        balances = True
        for size in self.options.sizes.split():
            row = self.row(size)
            balances = balances and row["balances"]
            with open(results, "a", encoding="ascii") as out:
                print(json.dumps(row), file=out)
        return balances


def rows(path):
    with open(path, encoding="ascii") as lines:
        for row in map(json.loads, lines):
            terms = " + ".join(f"{count} {cause}" for cause, count in row["above_counted"].items() if count or cause == "captured")
            yield (row["frames"], row["ring"], f"{'≥ ' if row['source_is_limit'] else ''}{row['pps'] / 1e6:.3f}",
                   f"{row['pps'] * row['frame_bytes'] * 8 / 1e9:.2f}", f"{row['trials']} of {row['seconds_each']:g} s",
                   f"{row['above_pps'] / 1e6:.3f}", f"{row['above_offered']} = {terms}",
                   "to the packet" if row["balances"] else "**NO**", f"{row['stolen']:.2f} of {row['took']:.0f} s")


def check(options):
    """Refuses what cannot be measured before anything is built."""
    for size in options.sizes.split():
        if size != "imix" and not (size.isdigit() and 64 <= int(size) <= 9018):
            raise Failed(f"--sizes: {size} is neither imix nor 64 to 9018")
    if options.port and not options.generator:
        raise Failed("--port needs --generator COMMAND: something on the other end of the cable that sends what it is told and says how "
                     f"many frames it sent; --help says how it is called. Bind the port first: scripts/setup-host.sh --port {options.port}")
    if options.generator and not options.port:
        raise Failed("--generator sends to a real port: name it with --port")
    if options.pktgen:
        options.sizes = options.sizes.replace("imix", "")


def run(options):
    check(options)
    kind = External if options.generator else Pktgen if options.pktgen else Testpmd
    with folder(options.dir) as work:
        results, load = options.results or work / "results.jsonl", Load(options, work)
        if options.port:
            load.sender_cores, load.memory = "another host", "--no-pci --in-memory -m 256" if options.port.startswith("net_") else "--in-memory"
        # A trial stands in the spool and in the bucket.
        spool = free_gib(work) * 2 // 5
        if spool < 2:
            raise Failed(f"{options.dir} has less than 5 GiB free: --dir names another place")
        with load.running(kind, "256MiB", {"bytes_max": f"{spool}GiB"}, options.port) as started:
            test = Test(options, load, *started)
            balances = test.run(results)
        if not options.no_table:
            found = table("frames | ring | no drop, Mpps | Gbit/s | trials | then offered, Mpps | offered = counted | balance of all trials "
                          "| kept from the worker's core", rows(results))
            keep("loadtest", "the no-drop rate of a capture of everything, and the ledger beyond it", f"""\
RFC 2544's search, tolerated loss {options.loss:g}; sizes with FCS, Gbit/s of frame bytes without it. Sender: {test.generator.name},
on {load.sender_cores}; {load.where()}; spool and bucket on
{file_system(work)[1]}. A hypervisor that keeps the worker's core for longer than the ring lasts costs frames at any rate.""",
                 found, options.command, dpdk(load.memory))
    if not balances:
        raise Failed("the ledger does not balance: this is a bug of ours")
