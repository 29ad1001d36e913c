"""Drives the packet captures API with Cloudflare's official Python SDK and asserts the types that it decodes.

usage: pcaps.py BASE_URL ACCOUNT EMAIL KEY BUCKET COLO

BASE_URL ends in /client/v4. The host must be in COLO and write to BUCKET; the account must have no capture and no bucket yet.
Prints `READ key` when it needs the content of an object, and reads it from its input as a line; prints `DONE` at the end. Exits
with a traceback when something is not as it must be.
"""

import sys
import time
from datetime import datetime, timezone

import cloudflare
from cloudflare import Cloudflare
from cloudflare.types.magic_transit import PCAP
from cloudflare.types.magic_transit.pcaps import Ownership
from cloudflare.types.magic_transit.pcap_get_response import MagicVisibilityPCAPsPCAPsResponseFull as GotFull
from cloudflare.types.magic_transit.pcap_create_response import MagicVisibilityPCAPsPCAPsResponseFull as CreatedFull
from cloudflare.types.magic_transit.pcap_list_response import MagicVisibilityPCAPsPCAPsResponseFull as ListedFull

END_SECONDS_MAX = 120
"""From the stop of a capture to its objects in the bucket."""


def refused(status_class, call):
    """The error that `call` must raise, at the first try: none of them may be retried."""
    try:
        call()
    except status_class as error:
        assert error.response.request.headers["x-stainless-retry-count"] == "0", f"retried: {error}"
        assert error.errors and error.errors[0].code >= 1000 and error.errors[0].message, error.errors
        return error
    raise AssertionError(f"no {status_class.__name__}")


def ended(pcaps, account, pcap_id):
    """The capture once it has ended."""
    deadline = time.monotonic() + END_SECONDS_MAX
    while True:
        pcap = pcaps.get(pcap_id, account_id=account)
        if pcap.status in ("success", "failed"):
            return pcap
        assert pcap.status in ("pending", "running", "conversion_pending", "conversion_running"), pcap.status
        assert time.monotonic() < deadline, f"{pcap_id} is still {pcap.status}"
        time.sleep(0.1)


def create_simple(pcaps, account):
    simple = pcaps.create(
        account_id=account,
        system="magic-transit",
        type="simple",
        time_limit=60.0,
        packet_limit=100.0,
        filter_v1={"destination_port": 53.0, "protocol": 17},
    )
    assert type(simple) is PCAP, type(simple)
    assert len(simple.id) == 32 and simple.type == "simple" and simple.system == "magic-transit", simple
    assert simple.time_limit == 60 and simple.offset_time is None, simple
    assert (simple.filter_v1.destination_port, simple.filter_v1.protocol) == (53, 17), simple
    assert set(simple.model_extra) == {"packets_remaining"}, simple.model_extra
    return simple


def create_full(pcaps, account, destination, colo):
    full = pcaps.create(
        account_id=account,
        system="magic-transit",
        type="full",
        time_limit=300,
        packet_limit=1_000_000.0,
        byte_limit=100_000_000.0,
        colo_name=colo,
        destination_conf=destination,
        # Few of the frames that the host replays as fast as it can, so that there is little to upload.
        filter_v1={"protocol": 17, "destination_port": 53},
        # Ours, and not echoed.
        extra_body={"format": "pcapng", "compression": "zstd"},
    )
    assert type(full) is CreatedFull, type(full)
    assert len(full.id) == 32 and full.type == "full" and full.status in ("pending", "running"), full
    assert (full.colo_name, full.destination_conf) == (colo, destination), full
    assert (full.time_limit, full.byte_limit) == (300, 100_000_000), full
    assert full.error_message is None and full.stop_requested is None, full
    # A member that OpenAPI does not have would make the Go SDK decode this as a simple capture.
    assert not full.model_extra, full.model_extra
    return full


def prove(pcaps, account, destination, directory):
    """All of ownership: create, list, validate, and what proves nothing."""
    ownership = pcaps.ownership
    assert ownership.get(account_id=account).result == []
    full = {"account_id": account, "system": "magic-transit", "type": "full", "time_limit": 1, "colo_name": "ORD"}
    error = refused(cloudflare.BadRequestError, lambda: pcaps.create(**full, destination_conf=destination))
    assert error.errors[0].code == 1019, error.errors
    added = ownership.create(account_id=account, destination_conf=destination)
    assert type(added) is Ownership and added.status == "pending" and added.validated == "", added
    assert added.filename == f"ownership-challenge-{added.id}.txt" and added.destination_conf == destination, added
    assert not added.model_extra, added.model_extra
    print(f"READ {directory}/{added.filename}", flush=True)
    content = sys.stdin.readline()
    error = refused(cloudflare.BadRequestError, lambda: ownership.validate(
        account_id=account, destination_conf=destination, ownership_challenge=added.filename))
    assert error.errors[0].code == 1017, error.errors
    proven = ownership.validate(account_id=account, destination_conf=destination, ownership_challenge=content)
    assert type(proven) is Ownership and proven.status == "success" and proven.validated.endswith("Z"), proven
    assert (proven.id, proven.filename, proven.submitted) == (added.id, added.filename, added.submitted), proven
    listed = ownership.get(account_id=account).result
    assert [type(one) for one in listed] == [Ownership] and listed[0] == proven, listed
    return proven


def check_download(pcaps, account, simple, full):
    answer = pcaps.download.get(simple.id, account_id=account)
    content = answer.read()
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap", answer.headers
    assert len(content) > 24 + 100 * 16 and content[:4] in (b"\x4d\x3c\xb2\xa1", b"\xd4\xc3\xb2\xa1"), content[:24]
    part = pcaps.download.get(simple.id, account_id=account, extra_headers={"Range": "bytes=24-39"})
    assert (part.status_code, part.read()) == (206, content[24:40]), part
    refused(cloudflare.BadRequestError, lambda: pcaps.download.get(full.id, account_id=account))
    refused(cloudflare.NotFoundError, lambda: pcaps.download.get("0" * 32, account_id=account))


def check_refusals(client, account, destination, colo):
    pcaps = client.magic_transit.pcaps
    common = {"account_id": account, "system": "magic-transit"}
    full = {**common, "type": "full", "colo_name": colo, "destination_conf": destination}
    refused(cloudflare.ConflictError, lambda: pcaps.create(**full, time_limit=300))
    soon = refused(cloudflare.RateLimitError, lambda: pcaps.create(**common, type="simple", time_limit=1, packet_limit=1))
    assert 0 < int(soon.response.headers["retry-after"]) <= 60, soon.response.headers
    bad = refused(cloudflare.BadRequestError, lambda: pcaps.create(**common, type="simple", time_limit=301, packet_limit=0))
    assert [error.source.pointer for error in bad.errors] == ["/time_limit", "/packet_limit"], bad.errors
    unknown = refused(cloudflare.BadRequestError, lambda: pcaps.create(
        **common, type="simple", time_limit=1, packet_limit=1, extra_body={"packets": 1}))
    assert unknown.errors[0].source.pointer == "/packets", unknown.errors
    refused(cloudflare.NotFoundError, lambda: pcaps.get("0" * 32, account_id=account))
    refused(cloudflare.NotFoundError, lambda: pcaps.stop("0" * 32, account_id=account))
    refused(cloudflare.AuthenticationError, lambda: pcaps.list(account_id="f" * 32))
    wrong = client.with_options(api_key="wrong").magic_transit.pcaps
    error = refused(cloudflare.AuthenticationError, lambda: wrong.list(account_id=account))
    assert error.errors[0].code == 10000, error.errors


def main(base_url, account, email, key, bucket, colo):
    client = Cloudflare(base_url=base_url, api_email=email, api_key=key, _strict_response_validation=True)
    pcaps = client.magic_transit.pcaps
    destination = f"s3://{bucket}/python?region=us-east-1"
    proven = prove(pcaps, account, destination, "python")
    begun = datetime.now(timezone.utc)

    simple = create_simple(pcaps, account)
    full = create_full(pcaps, account, destination, colo)
    assert isinstance(full.submitted, str) and full.submitted.endswith("Z"), full.submitted
    assert simple.submitted < full.submitted, (simple.submitted, full.submitted)

    listed = pcaps.list(account_id=account).result
    assert [pcap.id for pcap in listed[:2]] == [full.id, simple.id], [pcap.id for pcap in listed]
    assert (type(listed[0]), type(listed[1])) == (ListedFull, PCAP), listed[:2]
    assert type(pcaps.get(simple.id, account_id=account)) is PCAP
    assert type(pcaps.get(full.id, account_id=account)) is GotFull

    check_refusals(client, account, destination, colo)

    while not pcaps.get(full.id, account_id=account).packets_captured:
        time.sleep(0.1)
    assert pcaps.stop(full.id, account_id=account) is None
    assert pcaps.stop(full.id, account_id=account) is None, "a second stop is none"
    full = ended(pcaps, account, full.id)
    assert type(full) is GotFull and type(full.packets_captured) is int, full
    assert type(full.stop_requested) is datetime and full.stop_requested.tzinfo is not None, full
    assert full.status == "success" and full.error_message is None and full.packets_captured > 0, full
    assert not full.model_extra, full.model_extra
    simple = ended(pcaps, account, simple.id)
    assert type(simple) is PCAP and simple.status == "success", simple
    assert pcaps.stop(simple.id, account_id=account) is None, "a stop of an ended capture is none"
    check_download(pcaps, account, simple, full)

    assert pcaps.ownership.delete(proven.id, account_id=account) is None
    refused(cloudflare.NotFoundError, lambda: pcaps.ownership.delete(proven.id, account_id=account))
    assert pcaps.ownership.get(account_id=account).result == []
    seconds = (datetime.now(timezone.utc) - begun).total_seconds()
    print(f"{full.id} {full.status} packets_captured={full.packets_captured} seconds={seconds:.1f}")
    print("DONE")


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
