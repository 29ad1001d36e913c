#!/usr/bin/env python3
"""A VLAN interface in user space, for kernels without 802.1Q: a TAP device whose frames travel tagged on another interface.

Usage: vlan-tap.py INTERFACE TAP VLAN. Runs until it is killed. For recording test data, not for speed.
"""

import fcntl
import os
import select
import socket
import struct
import sys

# From <linux/if_tun.h>, <linux/if_ether.h> and <linux/if_packet.h>.
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING, TP_STATUS_VLAN_VALID = 263, 8, 4, 1 << 4
ADDRESSES_BYTES = 12
AUXDATA = struct.Struct("=IIIHHHH")


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def open_wire(interface):
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, ETH_P_ALL))
    return wire


def receive(wire):
    """One frame without its tag, and the tag's VLAN or None: the kernel takes the tag off and hands it over beside."""
    frame, ancillary, _flags, address = wire.recvmsg(65536, socket.CMSG_SPACE(AUXDATA.size))
    if address[2] == PACKET_OUTGOING:
        return frame, None
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _length, _snap, _mac, _net, tci, _tpid = AUXDATA.unpack(data[: AUXDATA.size])
            if status & TP_STATUS_VLAN_VALID:
                return frame, tci & 0x0FFF
    return frame, None


def main():
    interface, tap_name, vlan = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tap, wire = open_tap(tap_name), open_wire(interface)
    tag = struct.pack("!HH", ETH_P_8021Q, vlan)
    while True:
        for ready in select.select([tap, wire], [], [])[0]:
            if ready is wire:
                frame, tagged = receive(wire)
                if tagged == vlan:
                    os.write(tap, frame)
            else:
                frame = os.read(tap, 65536)
                wire.send(frame[:ADDRESSES_BYTES] + tag + frame[ADDRESSES_BYTES:])


if __name__ == "__main__":
    main()
