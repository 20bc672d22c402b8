#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo with the real istiod (tests/istiod/) in place of a mesh file and of a CA of our own: it reads Kubernetes' and
Istio's objects and serves the agents over xDS.

  demo_istiod.py [culvert|culvert-iptables|dropin|ztunnel]    as root"""
import os
import sys

import demo
from lib.rows import until

sys.path.insert(0, os.path.join(os.path.dirname(demo.HERE), "istiod"))
from real_istiod import Istiod

OTHER = "cluster.local/ns/default/sa/other"


class IstiodDemo(demo.Demo):
    PARTS = tuple(x for part in demo.Demo.PARTS for x in ((part, "from_istiod", "change", "away") if part == "policy" else (part,)))

    def mesh(self):
        self.istiod = Istiod(self.node1, self.node1.wan4, self.top, self.ca)
        objects = self.istiod.objects
        objects.cluster(self.net.nodes)
        for pod in self.net.pods.values():
            objects.mesh_pod(pod)
        objects.service("web", [demo.VIP4, demo.VIP6], {80: demo.HTTP}, {"app": "web"})
        self.refuse_other()
        self.stack.enter_context(self.istiod)
        self.show(f"node-1: istiod at {self.istiod.address}, with {len(objects.objects)} Kubernetes and Istio objects:\n  "
                  + ", ".join(sorted({kind for kind, _, _ in objects.objects})))

    def refuse_other(self):
        self.istiod.objects.policy("not-other", "DENY", [{"from": [{"source": {"principals": [OTHER]}}]}], {"app": "web"})

    def feed(self, agent):
        self.istiod.feed(agent)

    def from_istiod(self):
        self.step("Where the agents have that from")
        for agent in self.agents:
            dump = agent.config_dump()
            known = {part: len(dump[part]) for part in ("workloads", "services", "policies")}
            own = [pod.spiffe for pod in agent.node.pods]
            states = {c["identity"]: c["state"] for c in dump["certificates"]}
            self.show(f"{agent.node.name}: {known}, {len(states)} certificates")
            self.claim(f"{agent.node.name} has pods, services and policies by xDS, and its pods' certificates from istiod's CA",
                       all(known.values()) and all(states.get(x) == "Available" for x in own))

    def change(self):
        self.step("The AuthorizationPolicy is deleted, and comes again")
        for text, change, served in (
                ("deleted: other is served", lambda: self.istiod.objects.remove("AuthorizationPolicy", "not-other", "default"), True),
                ("back: other is denied", self.refuse_other, False)):
            change()
            self.show(f"istiod: {self.istiod.apply()}")
            until(lambda: (self.curl(self.other, self.web.ip4, shown=False)[0] == 0) == served, text)
            self.claim(text, True)

    def away(self):
        self.step("istiod is killed: what is known goes on to be served")
        self.istiod.stop()
        self.claim("client is served", self.curl(self.client, self.web.ip4)[0] == 0)
        self.claim("other is denied", self.curl(self.other, self.web.ip4)[0] != 0)
        self.istiod.start()
        self.show("it is started again")


if __name__ == "__main__":
    demo.main(IstiodDemo)
