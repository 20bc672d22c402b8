# SPDX-License-Identifier: Apache-2.0
"""Packets made by hand, what passes a veth, and a TCP client that consists of hand-made packets."""
import collections
import contextlib
import fcntl
import os
import select
import socket
import struct
import time

from topology import family, inside

SYN, RST, ACK = 2, 4, 16
TCP, DSTOPTS, FRAGMENT = 6, 60, 44
PACKET_OUTGOING = 4
NOBODY = "nobody"


def packed(ip):
    return socket.inet_pton(family(ip), ip)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff


def tcp(src, dst, sport, dport, flags, seq, ack=0, data=b""):
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xffffffff, ack & 0xffffffff, 5 << 4, flags, 65535, 0, 0)
    pseudo = packed(src) + packed(dst) + struct.pack("!II", len(head + data), TCP)  # both families sum up alike
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


def ip4(src, dst, payload, options=b"", ident=0x1234, offset=0, more=False):
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), ident,
                       offset // 8 | (0x2000 if more else 0), 64, TCP, 0) + packed(src) + packed(dst) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(src, dst, payload, first=TCP):
    return struct.pack("!IHBB", 6 << 28, len(payload), first, 64) + packed(src) + packed(dst) + payload


def ip6_with_options(src, dst, payload, count):
    """`count` destination option headers before TCP."""
    for i in range(count):
        payload = bytes((TCP if i == 0 else DSTOPTS, 0, 1, 4, 0, 0, 0, 0)) + payload
    return [ip6(src, dst, payload, DSTOPTS if count else TCP)]


def fragments(src, dst, segment, sizes):
    """The segment cut into pieces of these sizes, the rest last."""
    out, at, ident = [], 0, int.from_bytes(os.urandom(2), "big")
    for size in (*sizes, len(segment)):
        piece = segment[at:at + size]
        more = at + len(piece) < len(segment)
        if ":" in src:
            head = struct.pack("!BBHI", TCP, 0, at | more, ident)
            out.append(ip6(src, dst, head + piece, FRAGMENT))
        else:
            out.append(ip4(src, dst, piece, ident=ident, offset=at, more=more))
        at += len(piece)
    return out


Segment = collections.namedtuple("Segment", "src dst sport dport flags seq ack data raw")


def parse(frame):
    """The TCP segment of an Ethernet frame, None for anything else. Extension headers are walked."""
    kind, packet = struct.unpack_from("!H", frame, 12)[0], frame[14:]
    if kind == 0x0800 and packet[9] == TCP and not struct.unpack_from("!H", packet, 6)[0] & 0x1fff:
        end = struct.unpack_from("!H", packet, 2)[0]
        src, dst, segment = packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4:end]
    elif kind == 0x86dd:
        proto, at, end = packet[6], 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        while proto in (0, 43, 60, 44) and at + 8 <= end:
            proto, at = packet[at], at + (8 if proto == 44 else (packet[at + 1] + 1) * 8)
        if proto != TCP:
            return None
        src, dst, segment = packet[8:24], packet[24:40], packet[at:end]
    else:
        return None
    if len(segment) < 20:
        return None
    sport, dport, seq, ack, off, flags = struct.unpack_from("!HHIIBB", segment)
    kind = socket.AF_INET if len(src) == 4 else socket.AF_INET6
    return Segment(socket.inet_ntop(kind, src), socket.inet_ntop(kind, dst), sport, dport, flags, seq, ack,
                   segment[(off >> 4) * 4:], frame)


class Wire:
    """The node's end of the pod's veth: every frame that the pod sends, and a way to send frames to it."""

    def __init__(self, node, pod, device):
        self.node, self.pod, self.device = node, pod, device

    def __enter__(self):
        with inside(self.node.ns):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        self.socket.bind((self.device, 3))
        self.mac = self.socket.getsockname()[4]
        with inside(self.pod.ns):
            self.pod_mac = hardware_address("eth0")
        self.frames = []
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def take(self):
        """Adds what has arrived; returns the new frames of the pod."""
        new = []
        while select.select([self.socket], [], [], 0)[0]:
            frame, info = self.socket.recvfrom(1 << 17)
            if info[2] != PACKET_OUTGOING:
                new.append(frame)
        self.frames += new
        return new

    def wait(self, wanted, deadline=5.0):
        """Waits for a frame of the pod for which wanted(frame) is true and returns that; None at the deadline."""
        end = time.monotonic() + deadline
        while (left := end - time.monotonic()) > 0:
            select.select([self.socket], [], [], left)
            for frame in self.take():
                if value := wanted(frame):
                    return value
        return None

    def fence(self, to):
        """Everything that the pod sent before has been seen."""
        token = b"fence-" + os.urandom(8).hex().encode()
        with contextlib.closing(self.pod.socket(family(to), socket.SOCK_DGRAM)) as s:
            s.sendto(token, (to, 9))
        if not self.wait(lambda frame: token in frame):
            raise AssertionError("the pod's datagram did not come by")

    def send(self, packet):
        self.socket.send(self.pod_mac + self.mac + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet)

    def segments(self, start=0):
        """TCP segments that the pod has sent, from frame `start` on."""
        return [s for s in map(parse, self.frames[start:]) if s]


class Knock:
    """A client at an address that is nobody's, whose packets go through wrap(src, dst, segment) -> [packets]."""

    def __init__(self, wire, src, dst, dport, wrap, sport=None):
        self.wire, self.src, self.dst, self.dport, self.wrap = wire, src, dst, dport, wrap
        self.sport = sport or 40000 + int.from_bytes(os.urandom(2), "big") % 20000
        self.seq, self.seen = int.from_bytes(os.urandom(4), "big"), set()

    def send(self, flags, seq, ack=0, data=b"", wrap=None):
        segment = tcp(self.src, self.dst, self.sport, self.dport, flags, seq, ack, data)
        for packet in (wrap or self.wrap)(self.src, self.dst, segment):
            self.wire.send(packet)

    def answer(self, frame, flags=0):
        s = parse(frame)
        mine = s and (s.src, s.sport, s.dst, s.dport) == (self.dst, self.dport, self.src, self.sport)
        return s if mine and s.flags & flags == flags else None

    def syn(self, deadline=5.0):
        """Sends the SYN and returns the answer to it: a segment, or None at the deadline."""
        self.send(SYN, self.seq)
        return self.wire.wait(lambda f: self.answer(f), deadline)

    def data(self, deadline=5.0):
        """The next data that is not sent again; empty at the deadline."""
        def new(frame):
            s = self.answer(frame)
            if not s or not s.data or s.seq in self.seen:
                return None
            self.seen.add(s.seq)
            return s.data

        return self.wire.wait(new, deadline) or b""

    def who(self, deadline=5.0):
        """Shakes hands and returns the first line of whoever answers; NOBODY when no SYN-ACK comes."""
        synack = self.syn(deadline)
        if not synack or synack.flags & RST:
            return NOBODY
        self.send(ACK, self.seq + 1, synack.seq + 1)
        line = self.data(deadline)
        self.send(RST, self.seq + 1, wrap=plain)
        return line.decode().strip() or "somebody who does not speak"


def plain(src, dst, segment):
    return [(ip6 if ":" in src else ip4)(src, dst, segment)]


def hardware_address(device):
    """Of a device in the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return fcntl.ioctl(s.fileno(), 0x8927, struct.pack("256s", device.encode()))[18:24]  # SIOCGIFHWADDR
