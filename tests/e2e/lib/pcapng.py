# SPDX-License-Identifier: Apache-2.0
"""Reads pcapng as far as taps need it, and is strict: block lengths, padding, checksums."""
import collections
import ipaddress
import struct

from .rows import check, equal

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
LINK_RAW, COMMENT = 101, 1
Packet = collections.namedtuple("Packet", "time src dst sport dport seq ack flags data comment")
FIN, SYN, RST, ACK = 1, 2, 4, 16


def blocks(raw):
    while raw:
        kind, total = struct.unpack_from("<II", raw)
        check(total % 4 == 0 and 12 <= total <= len(raw), f"block of {total} bytes, {len(raw)} are left")
        equal(struct.unpack_from("<I", raw, total - 4)[0], total, "the length at a block's end")
        yield kind, raw[8:total - 4]
        raw = raw[total:]


def options(raw):
    out = {}
    while raw:
        code, n = struct.unpack_from("<HH", raw)
        if code == 0:
            equal(raw[4:], b"", "bytes behind the last option")
            return out
        out[code] = raw[4:4 + n].decode()
        raw = raw[4 + (n + 3) // 4 * 4:]
    raise AssertionError("options without an end")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(f">{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return s


def packet(raw, time, comment):
    if raw[0] >> 4 == 4:
        equal((raw[0], struct.unpack_from(">H", raw, 2)[0], raw[9]), (0x45, len(raw), 6), "the IPv4 header")
        equal(checksum(raw[:20]), 0xFFFF, "the IPv4 checksum")
        src, dst, tcp = raw[12:16], raw[16:20], raw[20:]
    else:
        equal((raw[0], struct.unpack_from(">H", raw, 4)[0], raw[6]), (0x60, len(raw) - 40, 6), "the IPv6 header")
        src, dst, tcp = raw[8:24], raw[24:40], raw[40:]
    equal(checksum(src + dst + struct.pack(">II", len(tcp), 6) + tcp), 0xFFFF, "the TCP checksum")
    sport, dport, seq, ack, offset, flags = struct.unpack_from(">HHIIBB", tcp)
    return Packet(time, str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst)), sport, dport, seq, ack, flags,
                  tcp[offset >> 4 << 2:], comment)


def whole(path):
    """Whether the file's last block is there to its end, and one packet at least."""
    with open(path, "rb") as f:
        raw, n = f.read(), 0
    while len(raw) >= 12:
        total = struct.unpack_from("<I", raw, 4)[0]
        raw, n = (raw[total:], n + 1) if total <= len(raw) else (raw, n)
        if raw and struct.unpack_from("<I", raw + bytes(8), 4)[0] > len(raw):
            return False
    return not raw and n > 2


def read(path):
    """(name of the interface, packets)"""
    with open(path, "rb") as f:
        all_blocks = list(blocks(f.read()))
    equal([k for k, _ in all_blocks[:2]], [SECTION, INTERFACE], "the first blocks")
    equal(struct.unpack_from("<IHH", all_blocks[0][1]), (0x1A2B3C4D, 1, 0), "order and version")
    equal(struct.unpack_from("<H", all_blocks[1][1])[0], LINK_RAW, "the link type")
    out = []
    for kind, body in all_blocks[2:]:
        equal(kind, PACKET, "block")
        interface, high, low, captured, original = struct.unpack_from("<5I", body)
        equal((interface, captured), (0, original), "interface and length")
        out.append(packet(body[20:20 + captured], high << 32 | low, options(body[20 + (captured + 3) // 4 * 4:])[COMMENT]))
    return options(all_blocks[1][1][8:])[2], out


def streams(packets):
    """{(client, server): (to the server, to the client)}, put together by sequence number; the client sent the SYN."""
    out = {}
    for p in packets:
        if p.flags & (SYN | ACK) == SYN:
            out[(p.src, p.sport), (p.dst, p.dport)] = {True: [p.seq + 1, b""], False: [None, b""]}
            continue
        a, b = (p.src, p.sport), (p.dst, p.dport)
        by_client = (a, b) in out
        way = out[(a, b) if by_client else (b, a)][by_client]
        if p.flags & SYN:
            way[0] = p.seq + 1
        elif p.data:
            equal(p.seq, way[0], "sequence number")
            way[0] = p.seq + len(p.data)
            way[1] += p.data
    return {k: (v[True][1], v[False][1]) for k, v in out.items()}
