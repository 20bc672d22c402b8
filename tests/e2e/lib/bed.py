# SPDX-License-Identifier: Apache-2.0
"""A test bed: the network of net.py, a CA, the mesh file, an agent on each node, all mesh pods enrolled.

Kinds of agents are those of agents.py. Those that begin with "local" have all pods on one node, where bytes go from socket to
socket: `local` is culvert, `local-dropin` dropin, and so on; `local-hbone` is `local` with CULVERT_LOCAL_HBONE."""
import contextlib
import os
import sys

from . import agents, pki, traffic
from .mesh import Mesh
from .net import PATIENCE, Network, OneNode, Unwound, folder
from .rows import Skip

VIP4, VIP6 = "10.72.0.1", "fd72::1"


LOCAL = {"local": "culvert", "local-iptables": "culvert-iptables", "local-dropin": "dropin", "local-hbone": "culvert"}


class Bed(Unwound):
    def __init__(self, kinds, env=None, pods=("a1", "a2", "b1", "b2"), prepare=None):
        self.kinds, self.env, self.enrol, self.prepare = kinds, dict(env or {}), pods, prepare
        self.local = kinds[0] in LOCAL
        if self.local:
            self.kinds = (LOCAL[kinds[0]], None)
            self.env |= {"CULVERT_LOCAL_HBONE": "true"} if kinds[0] == "local-hbone" else {}
        self.agents, self.certs = [], {}

    def _begin(self):
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        try:
            self._start()
        except Skip:
            raise
        except BaseException:
            self.explain()
            raise

    def _start(self):
        self.folder = self.stack.enter_context(folder("e2e"))
        self.net = self.stack.enter_context(OneNode() if self.local else Network())
        self.ca = pki.Ca(self.folder)
        self.pod = self.net.pods
        for name, pod in self.pod.items():
            setattr(self, name, pod)
        self.mesh = Mesh(p for p in self.pod.values() if p.mesh)
        self.host = self.mesh.service("web", [VIP4, VIP6], {80: 8080}, ["b1", "b2"])
        if self.prepare:
            self.prepare(self)
        self.mesh.save(f"{self.folder}/mesh.yaml")
        self.stack.callback(lambda: together(a.close for a in self.agents))
        for node, kind in zip(self.net.nodes, self.kinds):
            if kind is None:  # a node whose pods are served by hand
                continue
            node.agent = agents.make(kind, node, self.folder, self.ca)
            env = node.agent.env | self.env
            node.agent.env = {k: v for k, v in env.items() if v is not None}
            self.agents.append(node.agent)
        together(lambda a=a: self._serve(a) for a in self.agents)

    def _serve(self, agent):
        agent.start()
        for pod in agent.node.pods:
            if pod.name in self.enrol:
                agent.enrol(pod)

    def explain(self):
        """After a failed row: the ends of the logs, to stderr."""
        for agent in self.agents:
            if os.path.exists(agent.log_path) and os.environ.get("E2E_LOGS"):
                print(f"--- {agent.node.name}\n" + "\n".join(agent.log().splitlines()[-int(os.environ["E2E_LOGS"]):]),
                      file=sys.stderr)

    def cert(self, spiffe, **kw):
        key = (spiffe, *sorted(kw.items()))
        if key not in self.certs:  # three processes each
            self.certs[key] = self.ca.leaf(f"URI:{spiffe}", **kw)
        return self.certs[key]


def together(functions):
    """At the same time, in threads; all have ended when this returns or raises."""
    tasks = [traffic.Task(f) for f in functions]
    try:
        for t in tasks:
            t.result()
    finally:
        for t in tasks:
            t.join(60)


def fixture(*kinds, **kw):
    """A zero-argument context manager for rows.Table.row()."""

    def make():
        return Bed(kinds, **kw)

    return make


def kinds():
    """The agents that the core rows run on; E2E_KINDS="ztunnel" runs them on a peer instead."""
    some = os.environ.get("E2E_KINDS", "culvert culvert-iptables dropin").split()
    for kind in some:
        if kind not in agents.KINDS:
            sys.exit(f"E2E_KINDS: there is no kind of agent \"{kind}\"; there are: {' '.join(agents.KINDS)}")
    return some


def places(always=False):
    """The same, and pods of one node: where that is `always` worth its time, and with E2E_LOCAL=1."""
    if "E2E_KINDS" in os.environ or not (always or os.environ.get("E2E_LOCAL")):
        return kinds()
    return [*kinds(), "local"]


def two_nodes(bed, why):
    """For rows that are about what goes between nodes."""
    if bed.local:
        raise Skip(f"between pods of one node {why}")


@contextlib.contextmanager
def pair(client, server, port=8080, v6=False, to=None, listener=None, **kw):
    """An established connection through the mesh: (client's end, server's end)."""
    own = listener or server.listen(port)
    c = s = None
    try:
        c = client.connect(to or server.ip(v6), port, **kw)
        s, _ = own.accept()
        s.settimeout(PATIENCE)
        yield c, s
    finally:
        for x in (c, s, None if listener else own):
            if x:
                x.close()


def not_ztunnel(bed, why):
    """For rows that ask more than ztunnel does; E2E_DEFECTS=1 runs them there all the same, to see them fail."""
    if {"ztunnel", "split-ztunnel"} & set(bed.kinds) and not os.environ.get("E2E_DEFECTS"):
        raise Skip(f"ztunnel {why}")
