"""A pcap file of valid IPv4/UDP frames.

    benches/run frames --size 64|imix|1518|9018 [--count 2000] OUT.pcap

Sizes are given WITH the 4-byte frame check sequence, as network people quote them, and a capture never holds it: `64` is
60 bytes in the file. `imix` is 7:4:1 of 64, 594 and 1518. Addresses and ports vary so that flows spread over queues.
Deterministic: the same arguments give the same bytes.
"""

import struct

from . import Failed

OPTIONS = {"size": ("64", "frame size with FCS, 64 to 9018, or imix"), "count": (2000, "frames")}
MORE = "OUT.pcap"

FCS_BYTES, ETHERNET_BYTES, IPV4_BYTES, UDP_BYTES = 4, 14, 20, 8
IMIX = [64] * 7 + [594] * 4 + [1518]


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(number, wire_bytes):
    length = wire_bytes - FCS_BYTES
    ip_bytes = length - ETHERNET_BYTES
    # Benchmark addresses: 198.18.0.0/15 (RFC 2544). Odd multipliers walk through all values before repeating.
    source = struct.pack("!BBH", 198, 18, number * 40503 & 0xFFFF)
    destination = struct.pack("!BBH", 198, 19, number * 30011 & 0xFFFF)
    source_port, destination_port = 1024 + number * 7919 % 60000, 1024 + number * 104729 % 60000
    payload = bytes((number + i) & 0xFF for i in range(ip_bytes - IPV4_BYTES - UDP_BYTES))
    udp_bytes = UDP_BYTES + len(payload)
    udp = struct.pack("!HHHH", source_port, destination_port, udp_bytes, 0)
    pseudo = source + destination + struct.pack("!BBH", 0, 17, udp_bytes)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload) or 0xFFFF)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, ip_bytes, number & 0xFFFF, 0, 64, 17, 0) + source + destination
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return bytes.fromhex("020000000002020000000001") + struct.pack("!H", 0x0800) + ip + udp + payload


def write(path, size, count=2000):
    sizes = IMIX if size == "imix" else [int(size)] if size.isdigit() else [0]
    if not all(64 <= size <= 9018 for size in sizes):
        raise Failed(f"a frame's size is imix or between 64 and 9018, not {size}")
    with open(path, "wb") as out:
        # Classic pcap, microseconds: DPDK 22.11's net_pcap reads both, and nobody reads these time stamps.
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for number in range(count):
            # Large and small frames alternate instead of standing in blocks of one size.
            data = frame(number, sizes[number * 5 % len(sizes)])
            out.write(struct.pack("<IIII", 1_700_000_000, number % 1_000_000, len(data), len(data)) + data)
    return path


def run(options):
    if len(options.more) != 1:
        raise Failed("one file to write: benches/run frames --size 64 OUT.pcap")
    write(options.more[0], options.size, options.count)
