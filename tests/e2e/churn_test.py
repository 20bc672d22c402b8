#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What istiod and its CA do all day, much faster: the stream is killed again and again while the mesh changes a hundred times a
second, and certificates are renewed while they are used. Connections notice nothing.

E2E_STREAM_KILLS sets how often the stream is killed (8), E2E_TTL the seconds that a certificate lasts (14); `make check-long`
has 50 and 60."""
import contextlib
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from certs_test import serial
from lib import traffic
from lib.bed import Bed, kinds, not_ztunnel, pair
from lib.mesh import Exact
from lib.net import scale
from lib.rows import Table, check, equal, until
from lifecycle_test import Calls, Stream
from xds_test import changed, everywhere, exchange, is_mesh, istiod

T = Table(__file__)
KINDS = [k for k in kinds() if k != "culvert-iptables"]
KILLS = int(os.environ.get("E2E_STREAM_KILLS") or scale.count(8, 4))
TTL = int(os.environ.get("E2E_TTL") or scale.deadline(14))
ROTATIONS = 3
QUICK = 8     # streams that are killed as soon as they are there, so that agents wait longer and longer; then
STEADY = 5.2  # seconds that a stream lasts, after which they do not
RATE = scale.count(100, 20)  # changes a second
TOGETHER = 4  # of them in one push
EXTRA = 50    # workloads that change


class Churn:
    """Changes one thing after the other in the mesh, and sends them. `changes` counts."""

    def __init__(self, bed, push):
        self.bed, self.push, self.changes, self.stopping = bed, push, 0, threading.Event()
        self.random, self.spare = random.Random(7), []
        for i in range(EXTRA):
            bed.mesh.workloads.append({**bed.mesh.workload("b2"), "uid": f"Kubernetes//Pod/churn/c-{i}", "name": f"c-{i}",
                                       "namespace": "churn", "workloadIps": [f"10.99.0.{i}"], "node": f"n-{i % 9}",
                                       "services": {}})
        push()
        self.began = time.monotonic()
        self.task = traffic.Task(self._run)

    def _run(self):
        while not self.stopping.is_set():
            for _ in range(TOGETHER):
                self._change()
            self.push()
            self.changes += TOGETHER
            self.stopping.wait(max(0, self.began + self.changes / RATE - time.monotonic()))

    def _change(self):
        mesh, what = self.bed.mesh, self.random.random()
        some = [w for w in mesh.workloads if w["namespace"] == "churn"]
        one = self.random.choice(some)
        if what < 0.1 and len(some) > EXTRA // 2:
            mesh.workloads.remove(one)
            self.spare.append(one)
        elif what < 0.2 and self.spare:
            mesh.workloads.append(self.spare.pop())
        elif what < 0.3:
            one["services"] = {} if one["services"] else dict(self.bed.mesh.workload("b2")["services"])
            one["status"] = "Unhealthy"  # nobody is sent there
        elif what < 0.4:
            mesh.policies = [] if mesh.policies else [
                {"name": "nobody", "namespace": "default", "scope": "Namespace", "action": "Deny", "dryRun": False,
                 "rules": [[[{"principals": [Exact("cluster.local/ns/x/sa/x")]}]]]}]
        else:
            one["canonicalRevision"] = f"r{self.random.random()}"

    def stop(self):
        self.stopping.set()
        self.task.result()
        return self.changes / (time.monotonic() - self.began)


def kill(bed):
    """All streams; both agents have new ones."""
    before = bed.istiod.state()["streams"]
    bed.istiod.say("cut")
    until(lambda: (s := bed.istiod.state()) and s["streams"] >= before + 2 and s["open"] == 2, "new streams", 40)


def killed(bed):
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(pair(*p)) for p in ((bed.a1, bed.b1, 8080), (bed.a2, bed.b2, 8080, True),
                                                         (bed.b1, bed.a2, 8080), (bed.a1, bed.a2, 8083))]
        bed.istiod.say("track 1")
        push = stack.enter_context(changed(bed))
        streams = [Stream(c, s) for c, s in pairs]
        churn = Churn(bed, push)
        for i in range(KILLS):
            kill(bed)
            exchange(bed, bed.a2, bed.b1, port=8081)
            if i >= QUICK:
                churn.stopping.wait(STEADY)
            check(not churn.task.error, f"the churn ended: {churn.task.error!r}")
        rate = churn.stop()
        everywhere(bed, lambda d: is_mesh(bed.mesh, d), "the mesh as the server has it")
        for s in streams:
            s.moves()
            s.stop()
        state = bed.istiod.state()
        equal((state["again"], state["again_first"]), (0, ""), "resources that were sent again though they were acknowledged")
        check(rate > RATE / 2, f"only {rate:.0f} changes a second")
        print(f"     {KILLS} streams killed, {rate:.0f} changes a second, {state['streams']} streams", flush=True)


def rotating(bed):
    """A held connection on a tunnel of the first certificates, and new ones, each over a tunnel of its own."""
    not_ztunnel(bed, "asks all the time: half of a lifetime that began a minute ago is over")
    with pair(bed.a2, bed.b2) as (c, s):
        stream, calls, seen = Stream(c, s), Calls(bed), [set(), set(), set(), set()]
        end = time.monotonic() + TTL * (ROTATIONS + 1)
        while min(map(len, seen)) <= ROTATIONS and time.monotonic() < end:
            for pod, mine in zip((bed.a1, bed.a2, bed.b1, bed.b2), seen):
                mine.add(serial(pod))
            time.sleep(0.3)
        calls.more()
        stream.moves()
        stream.stop()
        calls.stop()
        equal(calls.failed, [], "connections that failed")
        check(min(map(len, seen)) > ROTATIONS, f"certificates of each pod: {[len(x) for x in seen]}")
        print(f"     {ROTATIONS} certificates of {TTL} s each, {calls.done} new tunnels, {stream.count} exchanges on the old one",
              flush=True)


def short_lived(bed):
    bed.env = {**bed.env, "SECRET_TTL": f"{TTL}s", "POOL_UNUSED_RELEASE_TIMEOUT": "1ms"}
    istiod(bed)


for kind in KINDS:
    T.row(f"{kind}/stream-is-killed-again-and-again-under-churn", lambda kind=kind: Bed((kind, kind), prepare=istiod))(killed)
    T.row(f"{kind}/certificates-are-renewed-under-load", lambda kind=kind: Bed((kind, kind), prepare=short_lived))(rotating)


if __name__ == "__main__":
    T.main()
