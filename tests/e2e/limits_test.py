#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Limits on what one source may take: each is reached, is counted, is told in the log, and leaves others alone. The floods themselves
are hostile_test.py's."""
import contextlib
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.attack import attacker, certificate, ended, flood, frame, watched
from lib.bed import Bed, fixture, kinds, not_ztunnel, pair
from lib.net import read_all, scale
from lib.rows import Table, check, equal, until

T = Table(__file__)
KIND = kinds()[0]
BED = fixture(KIND, KIND)
WINDOW = 256 << 10  # of a stream whose receiver has taken nothing
FILES = 1024  # descriptors: half of them are a source's requests
SILENT, WORKERS = 500, 2  # connections
TUNNELS, PEERS = 64, 80
FAULTS = 64           # that a worker forgives a source
WAITING = FILES // 4  # connections that wait for TLS, of all sources; then a worker's share is half of it


@contextlib.contextmanager
def counted(bed, limit, line=None):
    """Inside, the limit is reached, and said."""
    agent = bed.b1.node.agent
    before, since = agent.metric("culvert_limits_reached_total", limit=limit), len(agent.log())
    yield
    until(lambda: agent.metric("culvert_limits_reached_total", limit=limit) > before, f"{limit} to be counted")
    if line:
        until(lambda: line in agent.log()[since:], f"a line with {line!r}")


def calm(bed):
    """A source that has flooded begins no handshake for a second."""
    time.sleep(0 if bed.kinds[1] == "ztunnel" else 1.1)


def open_stream(bed, h, listener):
    stream = h.connect(f"{bed.b1.ip4}:8080")
    s, _ = listener.accept()
    equal(h.status(stream), "200", "status")
    return stream, s


def is_over(s):
    s.setblocking(False)
    try:
        return not s.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


@T.row(f"{KIND}/control-frames", BED)
def control(bed):
    not_ztunnel(bed, "answers floods of control frames for ever")
    with watched(bed), counted(bed, "control_frames", "too many control frames"), attacker(bed) as h:
        flood(h, frame(h2.PING, 0, 0, bytes(8)) * 5000)
        check(ended(h), "neither GOAWAY nor the connection's end")


@T.row(f"{KIND}/resets-that-we-are-made-to-send", BED)
def made_resets(bed):
    """Each request has a field that CONNECT must not have: the server resets it (CVE-2025-8671)."""
    not_ztunnel(bed, "has no such limit")
    calm(bed)
    with watched(bed), counted(bed, "resets", "too many resets"), attacker(bed) as h:
        fields = h2.header_block([(":method", "CONNECT"), (":authority", f"{bed.b1.ip4}:8080"), (":path", "/")])
        flood(h, b"".join(frame(h2.HEADERS, h2.END_HEADERS, stream, fields) for stream in range(1, 20001, 2)), 0.1)
        check(ended(h), "neither GOAWAY nor the connection's end")


@T.row(f"{KIND}/a-source-that-flooded-waits-and-others-do-not", BED)
def penalty(bed):
    not_ztunnel(bed, "has no such limit")

    def another():
        begin = time.monotonic()
        with h2.Client(bed.net.nodes[0], bed.b1.ip4, bed.ca, bed.cert(bed.a1.spiffe)) as other:
            equal(other.status(other.connect(f"{bed.b1.ip4}:7777")), "503", "status")
        return time.monotonic() - begin

    calm(bed)
    with watched(bed), counted(bed, "control_frames"):
        quiet = another()
        with attacker(bed) as h:
            flood(h, frame(h2.SETTINGS, 0, 0) * 5000)
            check(ended(h), "neither GOAWAY nor the connection's end")
        check(another() < max(scale.deadline(0.7), 4 * quiet), "another source had to wait")
        with attacker(bed) as h:  # on one of the workers
            equal(h.status(h.connect(f"{bed.b1.ip4}:7777")), "503", "status")


@T.row(f"{KIND}/a-source-that-breaks-the-protocol-waits", BED)
def broken(bed):
    """A few times cost it nothing; from then on its handshakes wait, as after a flood."""
    not_ztunnel(bed, "has no such limit")
    calm(bed)
    times = []
    with watched(bed), counted(bed, "protocol_errors", "Received bad client magic"):
        while sum(times) < 20 and max(times[-5:], default=0) < 0.5:
            begin = time.monotonic()
            with h2.Client(bed.u1, bed.b1.ip4, bed.ca, certificate(bed), preface=False) as h:
                h.tls.sendall(b"GET / HTTP/1.1\r\nHost: b1\r\n\r\n")
                check(ended(h), "neither GOAWAY nor the connection's end")
            times.append(time.monotonic() - begin)
    check(len(times) > FAULTS, f"had to wait after {len(times)} times")
    check(times[-1] >= 0.5, f"had not to wait after {len(times)} times")


@T.row(f"{KIND}/header-bytes", BED)
def headers(bed):
    not_ztunnel(bed, "refuses it by another status")
    with watched(bed), counted(bed, "header_bytes", "header fields beyond the limit"), attacker(bed) as h:
        block = h2.header_block([(":method", "CONNECT"), (":authority", f"{bed.b1.ip4}:8080")]
                                + [(f"x-{i}", "v" * 1000) for i in range(80)])
        parts = [block[i:i + 16384] for i in range(0, len(block), 16384)]
        for i, part in enumerate(parts):
            h.wire.send(9 if i else h2.HEADERS, h2.END_HEADERS if i == len(parts) - 1 else 0, 1, part)
        equal(h.status(1), "431", "status")


@T.row(f"{KIND}/header-bomb", BED)
def bomb(bed):
    """One field in the decoder's table, named by single bytes: 16 KiB that would be 60 MiB."""
    not_ztunnel(bed, "decodes it all")
    block = (h2.header_block([(":method", "CONNECT"), (":authority", f"{bed.b1.ip4}:8080")])
             + b"\x40\x01x" + h2.hpack_int(4000, 7) + b"v" * 4000 + bytes([0x80 | 62]) * 8000)
    with watched(bed), counted(bed, "header_block", "a header block without end"), attacker(bed) as h:
        h.wire.send(h2.HEADERS, h2.END_HEADERS, 1, block)
        check(ended(h), "neither GOAWAY nor the connection's end")


class Few(Bed):
    """One node's tunnel has few descriptors."""

    def __init__(self, node, files, **kw):
        self.few = node, files
        super().__init__(("dropin", "dropin"), **kw)

    def _serve(self, agent):
        node, files = self.few
        if agent.node.index == node:
            agent.argv = ["prlimit", f"--nofile={files}:{files}", *agent.argv]
        super()._serve(agent)


@T.row("dropin/connections-that-wait-for-tls", lambda: Few(2, FILES))
def waiting(bed):
    """For one more than there may be, the oldest goes; others, and its source as well, are served meanwhile."""
    with watched(bed), counted(bed, "handshakes_of_all_sources", "wait for TLS"), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(bed.u1.connect(bed.b1.ip4, 15008)) for _ in range(SILENT)]
        until(lambda: sum(map(is_over, socks)) >= SILENT - WAITING - WAITING // WORKERS, "the oldest of them to go", 5)
        with attacker(bed) as h:
            equal(h.status(h.connect(f"{bed.b1.ip4}:7777")), "503", "status")


@T.row("dropin/streams-of-a-source", lambda: Few(2, FILES))
def streams(bed):
    """Nobody takes so many descriptors that others go without."""
    with watched(bed), counted(bed, "streams_of_a_source", "too many requests of this source"), bed.b1.listen(8080), \
            contextlib.ExitStack() as stack:
        got = []
        for _ in range(10):
            h = stack.enter_context(attacker(bed))
            ids = [h.connect(f"{bed.b1.ip4}:8080") for _ in range(100)]
            left = set(ids)
            while left:
                kind, _, sid, fields = h.event()
                if kind == h2.HEADERS and sid in left:
                    left.discard(sid)
                    got.append(dict(fields)[":status"])
        check(set(got) == {"200", "503"} and got.count("200") >= FILES // 4, f"{got.count('200')} of {len(got)} were served")


def many_peers(bed):
    """Each of these services is another tunnel: one more identity may answer there."""
    for i in range(PEERS):
        bed.mesh.service(f"s{i}", [f"10.72.1.{i}"], {80: 8080}, ["b1"],
                         subjectAltNames=[f"spiffe://cluster.local/ns/default/sa/other-{i}"])


@T.row("dropin/tunnels-of-a-pod", lambda: Few(1, 4 * TUNNELS, env={"ZTUNNEL_WORKER_THREADS": "1"}, prepare=many_peers))
def tunnels(bed):
    """A pod has half of them. For one more its own go that have no streams, and no other pod's."""
    agent = bed.a1.node.agent

    def established(pod):
        return len(bed.b1.run("ss", "-Htn", "state", "established", "sport", "=", ":15008", "dst", pod.ip4).splitlines())

    with bed.b1.listen(8080) as listener, pair(bed.a2, bed.b1, listener=listener) as other:
        with pair(bed.a1, bed.b1, to="10.72.1.0", port=80, listener=listener) as first:
            for i in range(1, PEERS):
                with pair(bed.a1, bed.b1, to=f"10.72.1.{i}", port=80, listener=listener) as (c, s):
                    traffic.echo(c, s)
            until(lambda: established(bed.a1) <= TUNNELS // 2, "the others' end")
            traffic.echo(*first)
        traffic.echo(*other)
    check(agent.metric("culvert_limits_reached_total", limit="tunnels_of_a_pod") >= PEERS - TUNNELS // 2, "the limit is counted")


@T.row(f"{KIND}/downloads-that-nobody-reads", BED)
def unread(bed):
    """200 streams of an application that sends as much as it can; the client reads nothing from its socket."""
    with watched(bed), bed.b1.listen(8080) as listener, attacker(bed) as h, contextlib.ExitStack() as stack:
        socks = []
        for _ in range(scale.count(200, 20)):
            h.connect(f"{bed.b1.ip4}:8080")
            socks.append(stack.enter_context(listener.accept()[0]))
        for s in socks:
            s.setblocking(False)
        sent, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            for s in socks:
                with contextlib.suppress(BlockingIOError):
                    sent += s.send(bytes(65536))
        check(sent > 0, "nothing was taken")


@T.row(f"{KIND}/windows-that-stay-shut", BED)
def shut(bed):
    """Clients that take part in everything but give no window, on 200 streams: nothing is held for them."""
    with watched(bed), bed.b1.listen(8080) as listener, attacker(bed) as h, contextlib.ExitStack() as stack:
        h.wire.send(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        socks = [stack.enter_context(open_stream(bed, h, listener)[1]) for _ in range(scale.count(200, 20))]
        for s in socks:
            s.setblocking(False)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for s in socks:
                with contextlib.suppress(BlockingIOError):
                    s.send(bytes(65536))


@T.row(f"{KIND}/windows-begin-small-and-grow", BED)
def windows(bed):
    """A receiver that takes nothing pins a small window; one that takes what comes gets a large one."""
    not_ztunnel(bed, "begins with 4 MiB")
    with bed.b1.listen(8080, rcvbuf=1 << 16) as listener, attacker(bed) as h:
        stream, s = open_stream(bed, h, listener)
        with s:
            h.window[stream] = h.initial
            equal(h.initial, WINDOW, "the first window")
            reader = traffic.Task(read_all, s)
            sent = h.fill(stream, limit=8 << 20)
            h.tls.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    h.event(updates=True)
            check(h.window[stream] > WINDOW, f"the window is {h.window[stream]} after {sent} bytes that were taken")
            h.data(stream, b"", end=True)
            equal(len(reader.result()), sent, "bytes that came")


if __name__ == "__main__":
    T.main()
