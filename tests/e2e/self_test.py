#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tunnel as a pod of the mesh (POD_NAME, POD_NAMESPACE, SERVICE_ACCOUNT): its metrics are reached over HBONE, as a scraper that
is in the mesh reaches a pod's."""
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.bed import Bed, kinds, not_ztunnel, pair
from lib.mesh import Exact
from lib.net import read_all
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
SPIFFE = "spiffe://cluster.local/ns/istio-system/sa/ztunnel"


class Selves(Bed):
    def __init__(self, kind):
        super().__init__((kind, kind), prepare=Selves.tunnels)

    def tunnels(self):
        for node in self.net.nodes:
            self.mesh.workloads.append({**self.mesh.workload("a1"), "uid": f"Kubernetes//Pod/istio-system/ztunnel-{node.index}",
                                        "name": f"ztunnel-{node.index}", "namespace": "istio-system", "serviceAccount": "ztunnel",
                                        "workloadIps": [node.wan4, node.wan6], "node": node.name, "services": {},
                                        "workloadName": "ztunnel", "canonicalName": "ztunnel"})
        self.mesh.policies.append({"name": "not-b2", "namespace": "istio-system", "scope": "Namespace", "action": "Deny", "dryRun": False,
                                   "rules": [[[{"principals": [Exact(self.b2.spiffe.removeprefix("spiffe://"))]}]]]})

    def _serve(self, agent):
        agent.env |= {"POD_NAME": f"ztunnel-{agent.node.index}", "POD_NAMESPACE": "istio-system", "SERVICE_ACCOUNT": "ztunnel"}
        super()._serve(agent)


BEDS = {k: lambda k=k: Selves(k) for k in kinds()}


def each(name):
    return T.each(BEDS, name, FAMILIES)


def at(node, v6, port=15020):
    return (node.wan6 if v6 else node.wan4), port


def scrape(pod, to):
    with pod.connect(*to) as c:
        c.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_all(c)


@each("metrics-over-hbone")
def metrics(bed, v6):
    """Of another node's tunnel, and of one's own node's."""
    for node in reversed(bed.net.nodes):
        got = scrape(bed.a1, at(node, v6))
        check(got.startswith(b"HTTP/1.1 200 ") and b"istio_build" in got, lambda: f"{node.name}: {got[:200]!r}")
        target = f"[{node.wan6}]:15020" if v6 else f"{node.wan4}:15020"
        line = until(lambda: node.agent.access(direction="inbound", dst_hbone_addr=target, src_identity=bed.a1.spiffe),
                     f"a line of {node.name} about {target}")[-1]
        equal((line["dst.identity"], line["dst.workload"]), (SPIFFE, f"ztunnel-{node.index}"), "who was called")


@each("policy")
def policy(bed, v6):
    traffic.dial_is_cut(bed.b2, *at(bed.net.nodes[0], v6))


@each("statuses")
def statuses(bed, v6):
    """What listens on the loopback alone is not reached, nor is the agent's own port; another pod is not served."""
    node = bed.net.nodes[1]
    ip = node.wan6 if v6 else node.wan4
    with h2.Client(bed.u1, ip, bed.ca, bed.cert(bed.a1.spiffe)) as h:
        for host, port, want in ((ip, 15020, "200"), (ip, 15000, "503"), (ip, 15008, "503"), (bed.b1.ip(v6), 15020, "400")):
            authority = f"[{host}]:{port}" if v6 else f"{host}:{port}"
            equal(h.status(h.connect(authority)), want, authority)


@each("without-a-tunnel")
def plain(bed, v6):
    """Scrapers outside the mesh go where they went."""
    check(scrape(bed.u1, at(bed.net.nodes[0], v6)).startswith(b"HTTP/1.1 200 "), "no metrics")


@each("is-no-pod-of-the-node")
def no_pod(bed, v6):
    """Nobody counts it, and who reconciles pods leaves it alone."""
    not_ztunnel(bed, "does not list it")
    agent = bed.net.nodes[0].agent
    equal(agent.metric("workload_manager_active_proxy_count"), 2, "pods that are served")
    names = {x["info"]["name"] for x in agent.config_dump()["workloadState"].values()}
    equal(names, {"a1", "a2", "ztunnel-1"}, "/config_dump")
    with pair(bed.a1, bed.b1, v6=v6) as (c, s):
        traffic.echo(c, s)


if __name__ == "__main__":
    T.main()
