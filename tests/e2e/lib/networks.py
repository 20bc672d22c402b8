# SPDX-License-Identifier: Apache-2.0
"""A bed of two networks: what a1 sends to a service of the other one goes to a gateway, b2, and within that tunnel in another one to the
service's pod, b1. Each node has a mesh file of its own, as the control planes of two networks would have it. b2's agent ends the outer
tunnel, and its application hands the bytes to b1's port 15008 by way of u1, which is not in the mesh; or somebody else serves b2."""
import contextlib
import socket
import struct
import threading

from .bed import Bed
from .mesh import Mesh, workload
from .net import PATIENCE
from .rows import until

BEYOND, UNNAMED, ALIEN, WRONG = (("10.72.1.1", "fd72::1:1"), ("10.72.1.2", "fd72::1:2"), ("10.72.1.3", "fd72::1:3"),
                                 ("10.72.1.4", "fd72::1:4"))
MAPPED = ("10.72.1.5", "fd72::1:5")
RELAY, HOP = 9090, 7000
PORTS = {80: 8080, 81: 7777}  # nobody listens at the second one


def joined(a, b):
    """Bytes from a to b; an end as an end, a failure as a reset."""
    try:
        while data := a.recv(1 << 16):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.shutdown(socket.SHUT_RDWR)


class Relay:
    """`host` accepts on a port and dials `to` for each connection."""

    def __init__(self, host, port, to):
        self.host, self.to, self.accepted, self.socks = host, to, 0, []
        self.listener = host.listen(port)
        self.listener.settimeout(None)
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
                out = self.host.connect(*self.to)
            except OSError:
                return
            self.accepted += 1
            for x in (s, out):
                x.settimeout(None)
            self.socks += [s, out]
            for pair_ in ((s, out), (out, s)):
                self.threads.append(threading.Thread(target=joined, args=pair_, daemon=True))
                self.threads[-1].start()

    def cut(self):
        """Resets what it carries."""
        for s in self.socks:
            with contextlib.suppress(OSError):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        for s in [self.listener, *self.socks]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        for t in self.threads:
            t.join(PATIENCE)
        for s in [self.listener, *self.socks]:
            s.close()


class TwoNetworks(Bed):
    """Services of the other network: `beyond`; `mapped`, whose gateway is known as a service; those that nobody may answer for; and
    `wrong`, whose gateway is u1."""

    def __init__(self, kinds=("culvert", "culvert"), pods=("a1", "a2", "b1", "b2")):
        super().__init__(kinds, prepare=lambda bed: bed.two_meshes(), pods=pods)

    def _start(self):
        super()._start()
        if "b2" not in self.enrol:
            return
        self.hop = Relay(self.u1, HOP, (self.b1.ip4, 15008))
        self.stack.callback(self.hop.close)
        self.gateway = Relay(self.b2, RELAY, (self.u1.ip4, HOP))
        self.stack.callback(self.gateway.close)

    def two_meshes(self):
        """The first node sees b1 on the network `far` alone; the second is that network."""
        here, there = self.mesh, Mesh(p for p in self.pod.values() if p.mesh)
        b1 = here.workload("b1")
        b1.update(network="far", networkGateway={"destination": f"/{self.b2.ip4}", "hboneMtlsPort": 15008})
        here.service("gw", ["10.72.1.9"], {15009: 15008}, ["b2"])
        here.workloads.append({**b1, "name": "mapped", "uid": "Kubernetes//Pod/default/mapped", "workloadIps": [], "services": {},
                               "networkGateway": {"destination": "default/gw.default.svc.cluster.local", "hboneMtlsPort": 15009}})
        for name, vips, pod, sans in (("beyond", BEYOND, "b1", [self.b1.spiffe]), ("mapped", MAPPED, "mapped", [self.b1.spiffe]),
                                      ("unnamed", UNNAMED, "b1", []), ("alien", ALIEN, "b1", ["spiffe://cluster.local/ns/default/sa/another"])):
            here.service(name, vips, PORTS, [pod], subjectAltNames=sans)
            there.service(name, vips, PORTS, ["b1"])
            there.workload("b2")["services"][f"default/{name}.default.svc.cluster.local"] = dict.fromkeys(PORTS, RELAY)
        here.workloads.append({**workload(self.u1), "name": "badgw", "uid": "Kubernetes//Pod/default/badgw", "protocol": "HBONE"})
        here.workloads.append({**b1, "name": "worse", "uid": "Kubernetes//Pod/default/worse", "workloadIps": [], "services": {},
                               "networkGateway": {"destination": f"/{self.u1.ip4}", "hboneMtlsPort": 15008}})
        here.service("wrong", WRONG, {80: 8080}, ["worse"], subjectAltNames=[self.b1.spiffe])
        there.workloads.append(workload(self.u1))  # whom the inner tunnels seem to come from
        for w in there.workloads:
            w["network"] = "far"
        for v in there.services:
            v["vips"] = [f"far{x}" for x in v["vips"]]
        there.save(f"{self.folder}/there.yaml")

    def _serve(self, agent):
        if agent.node is self.net.nodes[1]:
            agent.env |= {"LOCAL_XDS_PATH": f"{self.folder}/there.yaml", "NETWORK": "far"}
        super()._serve(agent)

    def log_of(self, node, **want):
        """The access line that has all of these."""
        found = []

        def look():
            found[:] = [x for x in self.net.nodes[node].agent.lines() if all(x.get(k) == v for k, v in want.items())]
            return found

        until(look, lambda: f"a line with {want}; the last are {self.net.nodes[node].agent.lines()[-3:]}")
        return found[-1]
