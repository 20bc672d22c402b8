#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The HBONE pool: how many tunnels connections between two pods take, two to a tunnel at most, and when tunnels end. A peer that
leaves is a row of servers_test.py."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import fixture, kinds, not_ztunnel, pair
from lib.net import scale
from lib.rows import Table, equal, until

T = Table(__file__)
KINDS = [k for k in kinds() if k != "culvert-iptables"]  # steering has no part in it
IDLE = scale.deadline(1)  # seconds without a stream, then a tunnel ends
# "+" opens a connection, "-N" ends the Nth, "=N" tunnels there are now, ".N" there are in the end.
ROWS = [
    ("one-after-the-other-share-a-tunnel", "+ -1 + -2 + -3 =1 .0"),
    ("two-at-a-time-share-a-tunnel", "+ + =1"),
    ("the-third-has-another-one", "+ + + =2"),
    ("four-have-two", "+ + + + =2"),
    ("five-have-three", "+ + + + + =3"),
    ("who-is-alone-keeps-the-tunnel-however-long", "+ + -1 =1 .1"),
    ("a-tunnel-without-streams-ends-and-its-sibling-stays", "+ + + -3 .1"),
    ("all-end", "+ + + -1 -2 -3 .0"),
]
REUSED = ("a-place-that-was-freed-is-taken-again", "+ + -1 + =1")


def tunnels(bed):
    return len(bed.b1.run("ss", "-Htn", "state", "established", "sport", "=", ":15008", "dst", bed.a1.ip4).splitlines())


def play(bed, steps):
    until(lambda: not tunnels(bed), "no tunnels from before", 10 * IDLE)
    with bed.b1.listen(8080) as listener, contextlib.ExitStack() as all_ends:
        ends = []
        for what in steps.split():
            if what == "+":
                ends.append((one := contextlib.ExitStack(), *one.enter_context(pair(bed.a1, bed.b1, listener=listener))))
                all_ends.callback(one.close)
                traffic.echo(*ends[-1][1:])
            elif what[0] == "-":
                since = len(bed.agents[0].log())
                ends[int(what[1:]) - 1][0].close()
                ends[int(what[1:]) - 1] = None
                until(lambda: bed.agents[0].access(since, direction="outbound"), "the line of its end")
            elif what[0] == "=":
                equal(tunnels(bed), int(what[1:]), "tunnels")
            else:
                until(lambda: tunnels(bed) == int(what[1:]), f"{what[1:]} tunnels", 10 * IDLE)
                with contextlib.suppress(AssertionError):
                    until(lambda: tunnels(bed) != int(what[1:]), "another number", 2 * IDLE)
                equal(tunnels(bed), int(what[1:]), "tunnels that stay")
        for end in filter(None, ends):
            traffic.echo(*end[1:])


for kind in KINDS:
    BED = fixture(kind, kind, pods=("a1", "b1"), env={"ZTUNNEL_WORKER_THREADS": "1", "POOL_MAX_STREAMS_PER_CONNECTION": "2",
                                                      "POOL_UNUSED_RELEASE_TIMEOUT": f"{IDLE}s"})
    for name, steps in ROWS:
        T.row(f"{kind}/{name}", BED, steps)(play)

    @T.row(f"{kind}/{REUSED[0]}", BED, REUSED[1])
    def reused(bed, steps):
        not_ztunnel(bed, "never uses a tunnel again that was full once")
        play(bed, steps)


if __name__ == "__main__":
    T.main()
