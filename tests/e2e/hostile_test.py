#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A peer with a valid certificate and bad intentions, and strangers without one: bounded memory, deadlines, GOAWAY on
floods, rate-limited log lines; meanwhile another client is served."""
import contextlib
import os
import resource
import socket
import ssl
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.attack import attacker, certificate, ended, flood, frame, watched
from lib.bed import fixture, kinds, not_ztunnel
from lib.net import scale
from lib.rows import Table, check, equal, until
from lib.tls_client import HALF_HELLO, HELLO, Bytes, trusting

T = Table(__file__)
HANDSHAKE_MAX = 90       # seconds until a peer that says nothing is gone
PLACES = 600             # more handshakes than all workers have places for, of one source
ALERT = 7                # bytes of its record
PIECE = 0.02             # seconds between the pieces of one message
LOG_LINES = 100          # a second, of all kinds of refusal


def one_deny(bed):
    bed.mesh.policy("no-9001", "Deny", [[[{"destinationPorts": [9001]}]]], ["b1"])


KIND = kinds()[0]
BED = fixture(KIND, KIND, prepare=one_deny)


@T.row(f"{KIND}/one-byte-data-frames", BED)
def tiny(bed):
    not_ztunnel(bed, "holds 214 bytes for each byte")
    with watched(bed), bed.b1.listen(8080, rcvbuf=1 << 16) as listener, attacker(bed) as h:
        stream = h.connect(f"{bed.b1.ip4}:8080")
        s, _ = listener.accept()
        with s:
            equal(h.status(stream), "200", "status")
            flood(h, frame(h2.DATA, 0, stream, b"x") * 5000, 6)


@T.row(f"{KIND}/empty-data-frames", BED)
def empty(bed):
    not_ztunnel(bed, "holds 280 bytes for each empty frame")
    with watched(bed), bed.b1.listen(8080, rcvbuf=1 << 16) as listener, attacker(bed) as h:
        stream = h.connect(f"{bed.b1.ip4}:8080")
        s, _ = listener.accept()
        with s:
            equal(h.status(stream), "200", "status")
            h.fill(stream)
            flood(h, frame(h2.DATA, 0, stream) * 5000, 6)


@T.row(f"{KIND}/stalled-uploads", BED)
def uploads(bed):
    """Ten connections of four streams, each as much as its windows take, to an application that reads nothing."""
    not_ztunnel(bed, "holds 16 MiB a connection")
    with watched(bed), contextlib.ExitStack() as stack:
        listener = stack.enter_context(bed.b1.listen(8080, rcvbuf=1 << 16))
        fills = []
        for _ in range(10):
            h = stack.enter_context(attacker(bed))
            streams = []
            for _ in range(4):
                streams.append(h.connect(f"{bed.b1.ip4}:8080"))
                stack.enter_context(listener.accept()[0])
                equal(h.status(streams[-1]), "200", "status")
            fills.append(traffic.Task(h.fill, *streams))
        for t in fills:
            check(t.result() > 0, "nothing was taken")


FLOODS = [
    ("settings", lambda h: frame(h2.SETTINGS, 0, 0)),
    ("ping", lambda h: frame(h2.PING, 0, 0, bytes(8))),
    ("priority", lambda h: frame(2, 0, 1, bytes(5))),
    ("window-update", lambda h: frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    ("unknown-frame", lambda h: frame(0xBB, 0, 0, b"")),
]


def control_flood(bed, block):
    not_ztunnel(bed, "answers floods of control frames for ever")
    with watched(bed), attacker(bed) as h:
        flood(h, block(h) * 5000)
        check(ended(h), "neither GOAWAY nor the connection's end")


for name, block in FLOODS:
    T.row(f"{KIND}/flood-{name}", BED, block)(control_flood)


@T.row(f"{KIND}/rapid-reset", BED)
def rapid_reset(bed):
    with watched(bed), bed.b1.listen(8080), attacker(bed) as h:
        block = b""
        fields = h2.header_block([(":method", "CONNECT"), (":authority", f"{bed.b1.ip4}:8080")])
        for stream in range(1, 20001, 2):
            block += frame(h2.HEADERS, h2.END_HEADERS, stream, fields) + frame(h2.RST_STREAM, 0, stream, bytes(4))
        flood(h, block, 0.1)
        check(ended(h), "neither GOAWAY nor the connection's end")


@T.row(f"{KIND}/continuation-flood", BED)
def continuation(bed):
    with watched(bed), attacker(bed) as h:
        h.wire.send(h2.HEADERS, 0, 1, h2.header_block([(":method", "CONNECT")]))
        flood(h, frame(9, 0, 1, h2.header_block([("x-a", "b" * 1000)])) * 1000)
        check(ended(h), "neither GOAWAY nor the connection's end")


@T.row(f"{KIND}/header-list-too-large", BED)
def large_headers(bed):
    with watched(bed), attacker(bed) as h:
        fields = [(":method", "CONNECT"), (":authority", f"{bed.b1.ip4}:8080")]
        block = h2.header_block(fields + [(f"x-{i}", "v" * 1000) for i in range(80)])
        parts = [block[i:i + 16384] for i in range(0, len(block), 16384)]
        h.wire.send(h2.HEADERS, 0, 1, parts[0])
        for i, part in enumerate(parts[1:], 2):
            h.wire.send(9, h2.END_HEADERS if i == len(parts) else 0, 1, part)
        try:
            got = h.status(1)
        except (OSError, ssl.SSLError):
            return
        check(got in ("431", "400") or got.startswith("RST"), f"status {got}")


def connect(bed, stack):
    return stack.enter_context(bed.u1.connect(bed.b1.ip4, 15008))


@T.row(f"{KIND}/strangers-are-ended", BED)
def strangers(bed):
    """Connections that stop somewhere before the first request: at once, in the middle of a ClientHello, behind TLS."""
    not_ztunnel(bed, "waits for ever")
    with watched(bed), contextlib.ExitStack() as stack:
        begin = time.monotonic()
        socks = [say(bed, connect(bed, stack), stack)
                 for say, count in ((silent, scale.count(500, 50)), (half_hello, scale.count(500, 50)), (tls_only, scale.count(50, 10)))
                 for _ in range(count)]
        for s in socks:
            s.settimeout(max(0.1, HANDSHAKE_MAX - (time.monotonic() - begin)))
            try:
                while s.recv(4096):
                    pass
            except TimeoutError:
                raise AssertionError(f"still open after {HANDSHAKE_MAX} s") from None
            except (OSError, ssl.SSLError):
                pass


def silent(bed, s, stack):
    return s


def half_hello(bed, s, stack):
    s.sendall(HALF_HELLO)
    return s


def whole_hello(bed, s, stack):
    s.sendall(HELLO)
    return s


def tls_only(bed, s, stack):
    return stack.enter_context(trusting(*certificate(bed)).wrap_socket(s))


def crowd(bed, say):
    """More handshakes that get stuck than an agent has room for; others are served beside them, and memory is bounded."""
    not_ztunnel(bed, "has no bound")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stuck = scale.count(3000, 600)
    with watched(bed), contextlib.ExitStack() as stack:
        for _ in range(stuck):
            say(bed, connect(bed, stack), stack)
        for _ in range(3):
            begin = time.monotonic()
            with attacker(bed) as h:
                equal(h.status(h.connect(f"{bed.b1.ip4}:7777")), "503", "status")
            took = time.monotonic() - begin
            check(took < 5, f"a handshake beside {stuck} that are stuck took {took:.1f} s")


for name, say in (("half-hellos", half_hello), ("hellos-and-no-more", whole_hello)):
    T.row(f"{KIND}/{name}-keep-nobody-out", BED, say)(crowd)


def says_nothing(s, to):
    s.settimeout(PIECE)
    with contextlib.suppress(TimeoutError):
        raise AssertionError(f"{s.recv(100)} as an answer {to}")


@T.row(f"{KIND}/who-hangs-up-while-its-handshake-waits-is-gone", BED)
def impatient(bed):
    not_ztunnel(bed, "lets nobody wait")
    agent = bed.b1.node.agent
    since = len(agent.log())
    with contextlib.ExitStack() as stack:
        for _ in range(PLACES):
            whole_hello(bed, connect(bed, stack), stack)

        def is_told():  # lines are limited, and those who are stuck have some
            with bed.u1.connect(bed.b1.ip4, 15008) as s:
                whole_hello(bed, s, stack)
            return "the client hung up while its handshake waited" in agent.log()[since:]

        until(is_told, "a line about it", 10)


@T.row(f"{KIND}/a-client-hello-in-pieces", BED)
def pieces(bed):
    """However it is cut, the answer comes when it is whole, and what follows is answered at once."""
    for cuts in (1,), (4,), (5,), (6,), (1, 5), (1, 5, 6), (-1,), range(40, len(HELLO), 40):
        client = Bytes(*certificate(bed))
        first = client.hello()
        with bed.u1.connect(bed.b1.ip4, 15008) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends = [c % len(first) for c in cuts]
            for a, b in zip((0, *ends), (*ends, len(first))):
                if a:
                    says_nothing(s, f"to the first {a} bytes")
                s.sendall(first[a:b])
            s.settimeout(5)
            client.until(s, client.tls.do_handshake)
            client.tls.write(h2.PREFACE + frame(h2.SETTINGS, 0, 0))
            equal(client.until(s, lambda: client.tls.read(9))[3], h2.SETTINGS, f"the first frame after cuts at {ends}")


@T.row(f"{KIND}/half-a-client-hello-and-its-end", BED)
def gone(bed):
    not_ztunnel(bed, "is not asked")
    for n in 0, 1, 4, 5, 6, len(HELLO) - 1:
        with bed.u1.connect(bed.b1.ip4, 15008) as s:
            s.sendall(HELLO[:n])
            says_nothing(s, f"to the first {n} bytes")
            s.shutdown(socket.SHUT_WR)
            s.settimeout(5)
            with contextlib.suppress(ConnectionError):
                check(len(s.recv(100)) in (0, ALERT) and not s.recv(1), f"more than an alert after {n} bytes")


@T.row(f"{KIND}/refusals-are-rate-limited-in-the-log", BED)
def refusals(bed):
    not_ztunnel(bed, "writes a line for each")
    agent = bed.b1.node.agent
    since, count, begin = len(agent.log()), 3000, time.monotonic()
    with watched(bed), bed.b1.listen(9001), attacker(bed) as h:
        for i in range(count):
            equal(h.status(h.connect(f"{bed.b1.ip4}:{9001 if i % 2 else 15001}")), ("503", "401")[i % 2], "status")
    lines = agent.log()[since:].count("\n")
    allowed = max(count / 4, LOG_LINES * (time.monotonic() - begin + 2))  # the second where refusals are slow: seconds that were begun
    check(lines < allowed, f"{lines} lines for {count} refusals")


@T.row(f"{KIND}/garbage-instead-of-http2", BED)
def garbage(bed):
    """Random bytes after the preface, many times: the process lives."""
    with watched(bed):
        for _ in range(50):
            with attacker(bed) as h, contextlib.suppress(OSError, ssl.SSLError):
                h.tls.sendall(os.urandom(2000))
                h.tls.settimeout(0.1)
                h.event()


@T.row(f"{KIND}/garbage-instead-of-tls", BED)
def garbage_tls(bed):
    with watched(bed):
        for first in b"\x16\x03\x01", b"\x16\x03\x03\xff\xff", b"\x80\x2e\x01", b"":
            for _ in range(20):
                with bed.u1.connect(bed.b1.ip4, 15008) as s, contextlib.suppress(OSError):
                    s.sendall(first + os.urandom(500))
                    s.settimeout(1)
                    s.recv(100)


if __name__ == "__main__":
    T.main()
