#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Servers of the mesh that do wrong, or nothing: whoever dialled through them gets an end in time, nobody waits for ever,
and what is served elsewhere goes on. Each server has an address of its own, so that all deadlines run side by side."""
import os
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.bed import fixture, kinds, not_ztunnel, pair
from lib.h2_server import Server, answers, resetting, take
from lib.rows import Table, check, equal

T = Table(__file__)
CLIENTS = 5
SLACK = 4  # seconds beyond a deadline
STREAMS, CROWD = 5, 60


def no_tls(server, s):
    s.recv(1)
    server.over.wait(100)


def no_settings(server, s):
    server.open_tls(s)
    server.over.wait(100)


def no_answer(server, s):
    wire = server.open_http2(s)
    while True:
        take(wire)


def not_tls(server, s):
    s.recv(1)
    s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hangs_up(server, s):
    server.open_http2(s).sock.close()


def garbage(server, s):
    wire = server.open_http2(s)
    take(wire)
    wire.sock.sendall(os.urandom(4000))
    server.over.wait(100)


# (row, what the server does, seconds until it is given up, another identity)
GIVEN_UP = [
    ("no-tls", no_tls, 10, None),
    ("no-settings", no_settings, 10, None),
    ("no-answer-to-connect", no_answer, 30, None),
    ("not-tls", not_tls, 0, None),
    ("hangs-up-after-the-handshake", hangs_up, 0, None),
    ("refuses-every-stream", resetting(h2.REFUSED_STREAM), 0, None),
    ("answers-503", answers([(":status", "503")]), 0, None),
    ("answers-301", answers([(":status", "301"), ("location", "https://elsewhere.test/")]), 0, None),
    ("answers-without-a-status", answers([("server", "x")]), 0, None),
    ("garbage-instead-of-an-answer", garbage, 0, None),
    ("another-workload's-certificate", answers([(":status", "200")]), 0,
     "spiffe://cluster.local/ns/default/sa/sa-other"),
    ("a-certificate-without-a-name", answers([(":status", "200")]), 0, "spiffe://other.test/ns/default/sa/sa-b1"),
]


def client(bed, server, deadline, out):
    begin = time.monotonic()
    try:
        with bed.a1.connect(server.ip, 8080, timeout=deadline + SLACK + 5) as c:
            c.sendall(b"hello")
            got = c.recv(100)
            out.append((time.monotonic() - begin, got))
    except ConnectionError:
        out.append((time.monotonic() - begin, b""))
    except TimeoutError:
        out.append((None, b""))


def outcomes(bed, pod, v6, behave, deadline, cert):
    out = []
    with Server(bed, pod, v6, behave, cert) as server:
        for t in [traffic.Task(client, bed, server, deadline, out) for _ in range(CLIENTS)]:
            t.result(deadline + SLACK + 20)
        return out, server.accepted


def judge(name, out, accepted, deadline):
    equal(len(out), CLIENTS, f"{name}: clients that were told")
    for took, got in out:
        check(took is not None and took < deadline + SLACK, f"{name}: took {took}")
        equal(got, b"", f"{name}: the client read")
    check(1 <= accepted <= 3 * CLIENTS, f"{name}: {accepted} connections for {CLIENTS} clients")


ADDRESSES = [("b1", False), ("b1", True), ("b2", False), ("b2", True)]


def row(kind, slow):
    @T.row(f"{kind}/{'slow' if slow else 'wrong'}-servers-are-given-up", BEDS[kind])
    def given_up(bed):
        """All waiters of a connection that fails are told; a second client's traffic goes on."""
        not_ztunnel(bed, "waits for ever")
        rows = [r for r in GIVEN_UP if (r[2] > 0) == slow]
        with pair(bed.a2, bed.u1) as (c, s):
            while rows:
                now, rows = rows[:len(ADDRESSES)], rows[len(ADDRESSES):]
                tasks = [traffic.Task(outcomes, bed, bed.pod[pod], v6, behave, deadline,
                                      bed.cert(spiffe or bed.pod[pod].spiffe))
                         for (_, behave, deadline, spiffe), (pod, v6) in zip(now, ADDRESSES)]
                for (name, _, deadline, _), t in zip(now, tasks):
                    judge(name, *t.result(deadline + 60), deadline)
            traffic.echo(c, s)


def then_well(kind):
    @T.row(f"{kind}/a-server-that-recovers-is-used", BEDS[kind])
    def recovers(bed):
        """After failures the next connection is made anew and carries bytes."""
        not_ztunnel(bed, "waits for ever")
        healthy = threading.Event()

        def behave(server, s):
            if not healthy.is_set():
                s.close()
                return
            wire = server.open_http2(s)
            while True:
                kind, flags, stream, payload = take(wire)
                if kind == h2.HEADERS:
                    wire.send(h2.HEADERS, h2.END_HEADERS, stream, h2.header_block([(":status", "200")]))
                elif kind == h2.DATA and payload:
                    wire.send(h2.DATA, 0, stream, payload.upper())

        with Server(bed, bed.b1, False, behave):
            traffic.dial_is_cut(bed.a1, bed.b1.ip4, 8080)
            healthy.set()
            with bed.a1.connect(bed.b1.ip4, 8080) as c:
                c.sendall(b"hello")
                equal(c.recv(100), b"HELLO", "the answer")


def leaving(kind):
    @T.row(f"{kind}/goaway-moves-new-streams-to-another-connection", BEDS[kind])
    def goaway(bed):
        served = []

        def behave(server, s):
            wire = server.open_http2(s)
            served.append(0)
            mine = len(served) - 1
            while True:
                kind, flags, stream, payload = take(wire)
                if kind == h2.HEADERS:
                    served[mine] += 1
                    wire.send(h2.HEADERS, h2.END_HEADERS, stream, h2.header_block([(":status", "200")]))
                elif kind == h2.DATA and payload:
                    if payload == b"leave":
                        wire.send(h2.GOAWAY, 0, 0, struct.pack(">II", stream, 0))
                    wire.send(h2.DATA, 0, stream, payload.upper())

        with Server(bed, bed.b1, True, behave), bed.a1.connect(bed.b1.ip6, 8080) as c:
            c.sendall(b"leave")
            equal(c.recv(100), b"LEAVE", "the answer")
            with bed.a1.connect(bed.b1.ip6, 8080) as c2:
                c2.sendall(b"new")
                equal(c2.recv(100), b"NEW", "the answer on the other connection")
                c.sendall(b"old")
                equal(c.recv(100), b"OLD", "the answer on the first one")
            equal(served, [1, 1], "streams on the two connections")


def crowded(kind):
    @T.row(f"{kind}/a-crowd-has-as-many-connections-as-the-server-wants", BEDS[kind])
    def crowd(bed):
        """It takes few streams on each, and says so when all have been sent to the first one."""
        not_ztunnel(bed, "repeats no request")

        def behave(server, s):
            wire = h2.Wire(server.open_tls(s))
            wire._take(len(h2.PREFACE))
            time.sleep(0.3)
            wire.send(h2.SETTINGS, 0, 0, struct.pack(">HI", 3, STREAMS))
            serving = set()
            while True:
                kind, flags, stream, payload = take(wire)
                if kind == h2.HEADERS and len(serving) == STREAMS:
                    wire.send(h2.RST_STREAM, 0, stream, struct.pack(">I", h2.REFUSED_STREAM))
                elif kind == h2.HEADERS:
                    serving.add(stream)
                    wire.send(h2.HEADERS, h2.END_HEADERS, stream, h2.header_block([(":status", "200")]))
                elif kind == h2.DATA and payload:
                    wire.send(h2.DATA, 0, stream, payload.upper())

        def served(server):
            with bed.a1.connect(server.ip, 8080) as c:
                c.sendall(b"hello")
                got = c.recv(100)
                all_served.wait(20)
                return got

        all_served = threading.Barrier(CROWD)
        with Server(bed, bed.b1, False, behave) as server:
            tasks = [traffic.Task(served, server) for _ in range(CROWD)]
            equal([t.result() for t in tasks], [b"HELLO"] * CROWD, "answers")


BEDS = {k: fixture(k, None, pods=("a1", "a2")) for k in kinds()}
for k in BEDS:
    row(k, False)
    row(k, True)
    then_well(k)
    leaving(k)
    crowded(k)


if __name__ == "__main__":
    T.main()
