"""Drives one fleet through two of its API nodes in turn with Cloudflare's official Python SDK, as a client behind a load balancer does.

usage: two_nodes.py BASE_URL BASE_URL ACCOUNT TOKEN DESTINATION

Each BASE_URL ends in /client/v4. The account must have no capture that runs. Prints `DONE` at the end; exits with a traceback when
something is not as it must be.
"""

import sys
import time

import cloudflare
from cloudflare import Cloudflare

one_url, other_url, account, token, destination = sys.argv[1:]
one, other = (Cloudflare(base_url=url, api_token=token).magic_transit.pcaps for url in (one_url, other_url))


def ended(pcap_id):
    """The capture once it has ended, by both nodes in turn."""
    deadline = time.monotonic() + 60
    while True:
        for pcaps in (one, other):
            pcap = pcaps.get(pcap_id, account_id=account)
            if pcap.status in ("success", "failed"):
                return pcap
        assert time.monotonic() < deadline, f"{pcap_id} is still {pcap.status}"
        time.sleep(0.1)


simple = one.create(account_id=account, system="magic-transit", type="simple", time_limit=2, packet_limit=100)
listed = other.list(account_id=account).result
assert listed[0].id == simple.id, listed
assert ended(simple.id).status == "success"
for pcaps in (one, other):
    file = pcaps.download.get(simple.id, account_id=account).read()
    assert file[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") and len(file) > 24 + 100 * 16, len(file)

full = other.create(
    account_id=account,
    system="magic-transit",
    type="full",
    time_limit=60,
    colo_name="ORD",
    destination_conf=destination,
)
try:
    one.create(
        account_id=account, system="magic-transit", type="full", time_limit=60, colo_name="ORD", destination_conf=destination
    )
    raise AssertionError("a second full capture of the account")
except cloudflare.ConflictError as error:
    assert full.id in str(error), error
deadline = time.monotonic() + 30
while one.get(full.id, account_id=account).status != "running":
    assert time.monotonic() < deadline
    time.sleep(0.1)
one.stop(full.id, account_id=account)
stopped = ended(full.id)
assert stopped.status == "success" and stopped.stop_requested is not None, stopped
print("DONE")
