"""A `trawl serve` that a bench starts, asks and ends.

Every reading of a capture is held to the ledger's equations.
"""

import contextlib
import hashlib
import json
import pathlib
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request

from . import Failed
from .machine import everywhere, free_ports

START_SECONDS = 60
POLL_SECONDS = 0.05


def check(ledger):
    """Raises unless the counts add up (docs/GUARANTEES.md)."""
    balanced = (ledger["offered"] == ledger["rx"] + sum(ledger["port"].values())
                and ledger["rx"] == ledger["unmatched"] + ledger["matched"]
                and ledger["matched"] == ledger["captured"] + sum(ledger["dropped"].values()))
    if not balanced:
        raise Failed(f"the ledger does not add up: {ledger}")
    return ledger


def config_text(sections):
    """TOML of {section: {key: value}}; a section whose name begins with [ is an array's."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[[{section[1:]}]]" if section.startswith("[") else f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def replay(host, frames, blocks, spool, **more):
    """Sections of a server that takes the frames of a pcap file over and over, with a bench's one worker and one writer."""
    return {
        "dpdk": {"eal": ["--no-pci", "--in-memory", *host.memory.split()]},
        "[port": {"device": f"net_pcap0,rx_pcap={frames},infinite_rx=1"},
        "cores": {"workers": [host.poll], "writers": [host.main]},
        "blocks": {"bytes_max": blocks},
        "spool": spool,
        **more,
    }


@contextlib.contextmanager
def served(*start, **more):
    """An Appliance that is ended as an operator does, or killed after a failure."""
    trawl = Appliance(*start, **more)
    try:
        yield trawl
        trawl.finish()
    finally:
        trawl.kill()


class Appliance:
    """A running server in `work`, with one port, and accounts of which the first one asks unless another is named."""

    def __init__(self, binary, work, sections, accounts=("load",)):
        self.binary, self.work = binary, pathlib.Path(work)
        self.tokens = {name: secrets.token_hex(16) for name in accounts}
        self.token = self.tokens[accounts[0]]
        self.bucket, self.spool = self.work / "bucket", self.work / "spool"
        listen, observe = free_ports(2)
        for folder in (self.bucket, self.spool):
            folder.mkdir(mode=0o700)
        whole = {
            "host": {"id": "load", "colo": "load"},
            "upload": {"allow_file": True},
            "store": {"path": f"{self.work}/trawl.db"},
            "api": {"listen": f"127.0.0.1:{listen}"},
            "observe": {"listen": f"127.0.0.1:{observe}"},
            "spool": {"dir": str(self.spool)},
        }
        for section, keys in sections.items():
            whole[section] = {**whole.get(section, {}), **keys}
        config = self.work / "trawl.toml"
        text = config_text(whole)
        for name, token in self.tokens.items():
            token_sha256 = hashlib.sha256(token.encode()).hexdigest()
            text += config_text({"[account": {"id": name}, "[account.credential": {"token_sha256": token_sha256}})
        config.write_text(text)
        self.listen = f"127.0.0.1:{listen}"
        self.url = f"http://{self.listen}/client/v4/accounts/{accounts[0]}/pcaps"
        self.observe = f"http://127.0.0.1:{observe}"
        self.log = self.work / "trawl.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary, "serve", "--config", config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=everywhere)
        try:
            self.wait_for(self.answers, START_SECONDS, "trawl does not answer")
        except BaseException:
            self.kill()
            raise

    def wait_for(self, done, seconds, words):
        deadline = time.monotonic() + seconds
        while not (result := done()):
            if self.process.poll() is not None:
                raise Failed(f"trawl ended with {self.process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"{words} within {seconds} s: {self.last_words()}")
            time.sleep(POLL_SECONDS)
        return result

    def last_words(self):
        return self.log.read_text(errors="replace")[-3000:]

    def answers(self):
        try:
            self.ask("GET", "")
            return True
        except OSError:
            return False

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path or '/'} is refused: {error.read().decode()}") from error
        return json.loads(text)["result"] if text else None

    def create(self, destination=None, **more):
        body = {"system": "magic-transit", "type": "full", "time_limit": 86400, "colo_name": "load", "filter_v1": {},
                "destination_conf": destination or f"file://{self.bucket}", **more}
        return self.ask("POST", "", body)["id"]

    def progress(self, capture):
        progress = self.ask("GET", f"/{capture}/progress")
        check(progress["ledger"])
        return progress

    def running(self, capture):
        self.wait_for(lambda: self.progress(capture)["status"] == "running", 20, f"{capture} does not start")

    def pace(self, capture, seconds):
        """What a running capture does in a second: rx, captured, and the share of what was offered that it did not capture."""
        def reading():
            before = time.monotonic()
            progress = self.progress(capture)
            if progress["status"] != "running":
                raise Failed(f"the capture ended: {progress}")
            return (before + time.monotonic()) / 2, progress["ledger"]
        (t1, a), _, (t2, b) = reading(), time.sleep(seconds), reading()
        grown = {name: b[name] - a[name] for name in ("offered", "rx", "captured")}
        return {"rx": grown["rx"] / (t2 - t1), "captured": grown["captured"] / (t2 - t1),
                "lost": 1 - grown["captured"] / grown["offered"]}

    def received(self):
        """Frames that all workers received since the start, as /metrics says."""
        with urllib.request.urlopen(f"{self.observe}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("trawl_queue_rx_packets_total{"))

    def stop(self, capture):
        self.ask("PUT", f"/{capture}/stop")

    def ended(self, capture, seconds=600):
        def over():
            progress = self.progress(capture)
            return progress if progress["status"] in ("success", "failed") else None
        return self.wait_for(over, seconds, f"{capture} does not end")

    def verify(self, capture, bucket=None):
        """Holds the objects of a capture to their manifest."""
        manifest = (bucket or self.bucket) / f"pcap_{capture}.json"
        done = subprocess.run([self.binary, "verify", manifest], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"trawl verify {manifest}: {done.stdout}{done.stderr}")
        return json.loads(manifest.read_text())

    def remove_objects(self):
        for path in self.bucket.iterdir():
            path.unlink()

    def finish(self):
        """Ends it as an operator does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process.wait() != 0:
            raise Failed(f"trawl ended with {self.process.returncode}: {self.last_words()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
