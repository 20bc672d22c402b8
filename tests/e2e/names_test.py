#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Endpoints that are known by host name only (external services): resolved as the node resolves them, one at a time for all who
wait, and nobody else waits."""
import contextlib
import os
import shutil
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import Bed
from lib.mesh import workload
from lib.net import PATIENCE
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
OUTSIDE, MESH, NOWHERE = ("10.72.2.1", "fd72::2:1"), ("10.72.2.2", "fd72::2:2"), ("10.72.2.3", "fd72::2:3")


class Named(Bed):
    """`ip netns exec` gives the agent the files of /etc/netns/NAME in place of those of /etc. Nobody serves names at 127.0.0.1
    unless `silent`: then queries are taken, and that is all."""

    silent = False

    def __init__(self):
        super().__init__(("culvert", "culvert"), prepare=Named.names, env={"RES_OPTIONS": "timeout:30"})

    def names(self):
        node = self.net.nodes[0]
        etc = f"/etc/netns/{node.ns}"
        os.makedirs(etc)
        self.stack.callback(shutil.rmtree, etc)
        with open(f"{etc}/hosts", "w") as f:
            for name, pod in (("outside.test", self.u1), ("mesh.test", self.b1)):
                f.write(f"{pod.ip4} {name}\n{pod.ip6} {name}\n")
        with open(f"{etc}/resolv.conf", "w") as f:
            f.write("nameserver 127.0.0.1\n")
        for name, vips, protocol, sa in (("outside", OUTSIDE, "TCP", "sa-none"), ("mesh", MESH, "HBONE", "sa-b1"),
                                         ("nowhere", NOWHERE, "TCP", "sa-none")):
            self.mesh.workloads.append({**workload(self.b1), "uid": f"Kubernetes//Pod/default/{name}", "name": name, "workloadIps": [],
                                        "hostname": f"{name}.test", "protocol": protocol, "serviceAccount": sa, "services": {}})
            self.mesh.service(name, vips, {80: 8080}, [name])
        if self.silent:
            server = self.stack.enter_context(node.socket(kind=socket.SOCK_DGRAM))
            server.bind(("127.0.0.1", 53))


class Silent(Named):
    silent = True


def row(name):
    return T.each({"": Named}, name, FAMILIES)


@contextlib.contextmanager
def through(bed, server, vips, v6):
    """a1's connection to a service whose endpoint is `server`: (its end, the server's, the peer's address)."""
    with server.listen(8080) as listener, bed.a1.connect(vips[v6], 80) as c:
        s, peer = listener.accept()
        with s:
            s.settimeout(PATIENCE)
            yield c, s, peer[0].removeprefix("::ffff:")


@row("plaintext-endpoint")
def outside(bed, v6):
    def counted():
        return bed.a1.node.agent.metric("istio_on_demand_dns_total", hostname="outside.test", source_workload="a1",
                                        source_principal=bed.a1.spiffe)

    before = counted()
    for _ in range(2):
        with through(bed, bed.u1, OUTSIDE, v6) as (c, s, peer):
            traffic.echo(c, s)
            equal(peer, bed.a1.ip(v6), "the family is the one that was dialled")
    equal(counted() - before, 2, "the metric, which counts each use")


@row("endpoint-in-the-mesh")
def mesh(bed, v6):
    with through(bed, bed.b1, MESH, v6) as (c, s, peer):
        traffic.echo(c, s)
        equal(peer, bed.a1.ip(v6), "the client as the server sees it")
    authority = f"[{bed.b1.ip6}]:8080" if v6 else f"{bed.b1.ip4}:8080"
    until(lambda: any(x.get("dst.hbone_addr") == authority and x.get("src.identity") == bed.a1.spiffe
                      for x in bed.b1.node.agent.lines()), f"a line about {authority}")


def cut(bed, v6, why):
    """A connection to `nowhere` ends with a reset and a line; seconds."""
    agent, begin = bed.a1.node.agent, time.monotonic()
    since = len(agent.lines())
    traffic.dial_is_cut(bed.a1, NOWHERE[v6], 80)
    until(lambda: any(x.get("error", "").startswith(f"cannot resolve nowhere.test: {why}") for x in agent.lines()[since:]),
          f"a line that says: {why}")
    return time.monotonic() - begin


@row("name-that-nobody-knows")
def nowhere(bed, v6):
    cut(bed, v6, "")


@T.row("resolver-that-is-silent", Silent)
def silent(bed):
    """Those who wait for it are told in time, the others go on."""
    waiting = [traffic.Task(cut, bed, v6, "no answer in time") for v6 in (False, True, False)]
    for vips, server in ((OUTSIDE, bed.u1), (MESH, bed.b1)):
        with through(bed, server, vips, False) as (c, s, _):
            traffic.echo(c, s)
    check(all(t.is_alive() for t in waiting), "nobody waits any more")
    for t in waiting:
        check(7 < t.result() < 14, f"told after {t.value:.1f} s")


if __name__ == "__main__":
    T.main()
