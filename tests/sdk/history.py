"""A simple capture that looks back, through Cloudflare's official SDK: what the account may see of the last seconds.

Arguments: base URL, account, e-mail, key, and two that are not used. The account sees 192.0.2.128/25 alone.
"""

import ipaddress
import struct
import sys
import time
from datetime import datetime, timedelta, timezone

from cloudflare import Cloudflare
from cloudflare.types.magic_transit import PCAP

MINE = ipaddress.ip_network("192.0.2.128/25")
WINDOW_SECONDS = 2


def records(content):
    """Time in seconds, bytes kept and length on the wire of each record of a classic pcap file in nanoseconds."""
    assert content[:4] == b"\x4d\x3c\xb2\xa1", content[:24]
    at = 24
    while at < len(content):
        seconds, ns, kept, length = struct.unpack_from("<IIII", content, at)
        yield seconds + ns / 1e9, content[at + 16:at + 16 + kept], length
        at += 16 + kept
    assert at == len(content)


def addresses(frame):
    at = 12
    while frame[at:at + 2] == b"\x81\x00":
        at += 4
    assert frame[at:at + 2] == b"\x08\x00", frame
    return [ipaddress.ip_address(frame[at + offset:at + offset + 4]) for offset in (14, 18)]


def look_back(pcaps, account, **request):
    offset = datetime.now(timezone.utc) - timedelta(seconds=1)
    job = pcaps.create(
        account_id=account, system="magic-transit", type="simple", time_limit=WINDOW_SECONDS,
        offset_time=offset, **request)
    assert type(job) is PCAP and job.type == "simple", job
    deadline = time.monotonic() + 30
    while (job := pcaps.get(job.id, account_id=account)).status not in ("success", "failed"):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job, offset.timestamp()


def main():
    base, account, email, key = sys.argv[1:5]
    client = Cloudflare(
        base_url=base, api_email=email, api_key=key, max_retries=0, _strict_response_validation=True)
    pcaps = client.magic_transit.pcaps
    # The window is to lie within what was recorded.
    time.sleep(WINDOW_SECONDS + 2)
    job, end = look_back(pcaps, account, packet_limit=500)
    assert job.status == "success", job
    found = list(records(pcaps.download.get(job.id, account_id=account).read()))
    assert 0 < len(found) <= 500, len(found)
    times = [at for at, _, _ in found]
    assert times == sorted(times) and end - WINDOW_SECONDS - 0.001 <= times[0] and times[-1] <= end + 0.001, times
    for _, frame, length in found:
        assert len(frame) == min(length, 160), (len(frame), length)
        assert any(address in MINE for address in addresses(frame)), frame
    # Another's packets are not there, whatever is asked for.
    for theirs in ({"source_address": "192.0.2.1"}, {"destination_address": "192.0.2.0/25"}):
        job, _ = look_back(pcaps, account, packet_limit=500, filter_v1=theirs)
        assert job.status == "failed", job
    print("DONE", flush=True)


main()
