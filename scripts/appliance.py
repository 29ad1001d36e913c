"""A `trawl serve` that a script starts, asks and ends. Imported by the scripts beside it, never run.

Every reading of a capture is held to the ledger's equations. Python's standard library only.
"""

import hashlib
import json
import pathlib
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

START_SECONDS = 60
POLL_SECONDS = 0.05


class Failed(Exception):
    """Something that the script cannot go on after; its text says what."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


class Appliance:
    """A running server in `work`, with one port and one account."""

    def __init__(self, binary, work, sections):
        self.binary, self.work, self.token = binary, pathlib.Path(work), secrets.token_hex(16)
        self.bucket, self.spool, listen = self.work / "bucket", self.work / "spool", free_port()
        for folder in (self.bucket, self.spool):
            folder.mkdir(mode=0o700)
        whole = {
            "host": {"id": "load", "colo": "load"},
            "upload": {"allow_file": True},
            "store": {"path": f"{self.work}/trawl.db"},
            "api": {"listen": f"127.0.0.1:{listen}"},
            **sections,
            "[account": {"id": "load"},
            "[account.credential": {"token_sha256": hashlib.sha256(self.token.encode()).hexdigest()},
        }
        whole["spool"] = {"dir": str(self.spool), **whole.get("spool", {})}
        config = self.work / "trawl.toml"
        config.write_text(config_text(whole))
        self.url = f"http://127.0.0.1:{listen}/client/v4/accounts/load/pcaps"
        self.log = self.work / "trawl.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([binary, "serve", "--config", config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        self.wait_for(lambda: self.answers(), START_SECONDS, "trawl does not answer")

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
