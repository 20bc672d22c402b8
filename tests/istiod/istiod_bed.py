# SPDX-License-Identifier: Apache-2.0
"""A test bed (tests/e2e/lib/bed.py) whose agents know nothing but the real istiod.

              istiod  10.71.0.1:15012
      node-1 ___________|___________ node-2      each node's token is the name of its ztunnel pod
      a1 a2  u1 (no mesh)            b1 b2"""
import os
import sys

from lib import traffic
from lib.bed import VIP4, VIP6, Bed, pair
from lib.rows import equal
from real_istiod import Istiod


class IstiodBed(Bed):
    """`thousands` of workloads more are outside the mesh."""

    def __init__(self, *kinds, thousands=0, **kw):
        super().__init__(kinds, prepare=self.begin_istiod, **kw)
        self.thousands = thousands

    def begin_istiod(self, bed):
        self.istiod = Istiod(self.net.nodes[0], self.net.nodes[0].wan4, self.folder, self.ca)
        self.objects = self.istiod.objects
        self.objects.cluster(self.net.nodes)
        for pod in self.pod.values():
            self.objects.mesh_pod(pod, **({"serves": "web"} if pod.name in ("b1", "b2") else {}))
        self.objects.service("web", [VIP4, VIP6], {80: 8080}, {"serves": "web"})
        for i in range(self.thousands):
            self.objects.put("ServiceEntry", f"many-{i}", "default", "networking.istio.io/v1", spec={
                "hosts": [f"many-{i}.example.com"], "addresses": [f"10.200.0.{i}"], "resolution": "STATIC",
                "location": "MESH_INTERNAL", "ports": [{"number": 80, "name": "tcp", "protocol": "TCP"}],
                "endpoints": [{"address": f"10.{100 + i}.{j // 250}.{j % 250 + 1}"} for j in range(1000)]})
        self.stack.enter_context(self.istiod)

    def _serve(self, agent):
        self.istiod.feed(agent)
        super()._serve(agent)

    def explain(self):
        super().explain()
        if os.environ.get("E2E_LOGS"):
            lines = self.istiod.log().splitlines()[-int(os.environ["E2E_LOGS"]):]
            print("\n".join(["--- istiod", *lines]), file=sys.stderr)

    def apply(self):
        equal(self.istiod.apply().split()[0], "applied", "istiod")


def part(agent, what, **want):
    """Objects of a part of /config_dump that have these values."""
    return [x for x in agent.config_dump()[what] if all(x.get(k) == v for k, v in want.items())]


def exchange(client, server):
    with pair(client, server) as (c, s):
        traffic.echo(c, s)
