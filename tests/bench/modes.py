# SPDX-License-Identifier: Apache-2.0
"""The ways from pod to pod that are compared, each on nodes and pods of its own:

  direct            nothing in between
  culvert-bpf       keeper and tunnel, BPF steering
  culvert-iptables  the same over istio-cni's rules
  culvert-dropin    the tunnel alone, over istio-cni's rules, fed like ztunnel
  ztunnel           the binary that $ZTUNNEL names, over istio-cni's rules, fed by our ZDS and CA
  envoy             $ENVOY as HBONE proxy beside client and server; the client dials it, nothing is captured"""
import json
import os
import select
import subprocess

from lib import agents, dns, peers, pki
from lib.mesh import Mesh
from topology import Network, Unwound, stop, wait_for

KINDS = {"culvert-bpf": "culvert", "culvert-iptables": "culvert-iptables", "culvert-dropin": "dropin",
         "ztunnel": "ztunnel"}
NAMES = ("direct", *KINDS, "envoy")
PORT, PORTS = 8000, 10  # bench.h
READY = 10  # seconds
LIMITS = {"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}


class Bed(Unwound):
    """Context manager: a network, servers in its pods, agents with the pods enrolled."""

    servers = ("a1", "a2", "b1")

    def __init__(self, mode, folder, ca, pods=Network.PODS, prepare=None):
        self.mode, self.folder, self.ca, self.prepare = mode, folder, ca, prepare
        self.net = Network("bench", pods)
        self.agents = []

    def _begin(self):
        os.makedirs(self.folder)
        self.stack.enter_context(self.net)
        for name in self.servers:
            if name in self.net.pods:
                self._serve(self.net.pods[name])
        if self.mode in KINDS:
            self._start_agents()

    def _serve(self, pod):
        """The application, on the last processor; gen runs on the first: where they meet is not left to chance."""
        s = pod.popen([f"{agents.BUILD}/tests/bench/server"], stdout=subprocess.PIPE, text=True, start_new_session=True,
                      preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}))
        self.stack.callback(stop, s)
        if s.stdout.readline() != "ready\n":
            raise RuntimeError(f"the server in {pod.name} ended")

    def _start_agents(self):
        mesh = Mesh(p for p in self.net.pods.values() if p.mesh)
        mesh.service("bench", ["10.72.0.8", "fd72::8"], {PORT: PORT}, [x for x in ("b1",) if x in self.net.pods])
        if "b1" in self.net.pods:
            self._resolver(self.net.pods["b1"])
        if self.prepare:
            self.prepare(mesh)
        mesh.save(f"{self.folder}/mesh.yaml")
        for node in self.net.nodes:
            if not node.pods and node.index > 1:
                continue
            agent = agents.make(KINDS[self.mode], node, self.folder, self.ca)
            self.agents.append(agent)
            self.stack.callback(agent.close)
            agent.env.pop("LOG_FORMAT")  # as shipped: text, one line a connection
            agent.start()
            for pod in node.pods:
                if pod.mesh:
                    agent.enrol(pod)

    def _resolver(self, pod):
        """What the mesh does not know is known there, to whoever asks the node's resolver as well."""
        resolver = dns.Resolver(pod, (pod.ip4, pod.ip6))
        self.stack.callback(resolver.close)
        resolver.add("outside.test", "192.0.2.1", "2001:db8::1")
        for node in self.net.nodes:
            self.stack.enter_context(dns.resolv_conf(node, pod.ip4))

    def target(self, path):
        """(pod of the client, address, first port), or None: this mode has no such path."""
        if path == "dns" and self.mode == "direct":
            return None
        a1, a2, b1 = (self.net.pods[x] for x in ("a1", "a2", "b1"))
        if path == "capture" and self.mode == "direct":
            return a1, "127.0.0.1", PORT
        return a1, (a2 if path == "same" else b1).ip(os.environ.get("BENCH_IPV6") == "1"), PORT

    def tunnels(self):
        """The processes that carry traffic, one a node."""
        return [a.tunnel_pid() for a in self.agents]

    def pids(self):
        """All processes of the proxies."""
        out = []
        for a in self.agents:
            out += a.processes() if hasattr(a, "processes") else [a.process.pid]
        return out

    def check(self):
        """Raises when a proxy has ended."""
        for a in self.agents:
            if not a.alive():
                raise RuntimeError(f"{a.node.name}: the agent ended with {a.process.returncode}: {a.log()[-300:]}")

    def popen(self, kind, path, **options):
        """gen on its way, or None."""
        where = self.target(path)
        if not where:
            return None
        pod, address, port = where
        argv = [f"{agents.BUILD}/tests/bench/gen", kind, address, f"port={port}",
                *(f"{k}={v:g}" for k, v in options.items())]
        return pod.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         start_new_session=True,
                         preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))

    def warm(self):
        """Until exchanges work on each path: certificates are there, connections are pooled."""
        for path in ("cross", "same"):
            def works():
                p = self.popen("rr", path, seconds=0.05, warm=0)
                return p is None or (p.communicate(timeout=30) and p.returncode == 0)

            wait_for(works, f"{self.mode} to carry traffic ({path})", READY)


class EnvoyConfig(peers.Envoy):
    """Takes the configuration that the end-to-end tests' Envoy makes, and starts nothing."""

    def start(self, listener, clusters, port):
        self.made = listener, clusters


class EnvoyBed(Bed):
    """Envoy beside pod a1 with a listener for each port, and beside b1 as HBONE server, both with as many threads as
    ztunnel takes. One target, so nothing on the same node."""

    def _begin(self):
        super()._begin()
        self.proxies = []
        self._run(self.net.pods["b1"], self._server(), 15008)
        self._run(self.net.pods["a1"], self._client(), PORT + 1000)

    def cert(self, spiffe):
        return self.ca.leaf(f"URI:{spiffe}")

    def _server(self):
        envoy = EnvoyConfig(self, self.net.pods["b1"])
        envoy.server()
        by_authority = {"use_http_header": True, "http_header_name": ":authority"}
        return [envoy.made[0]], [{"name": "app", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
                                  "connect_timeout": "5s", "original_dst_lb_config": by_authority,
                                  "circuit_breakers": {"thresholds": [LIMITS]}}]

    def _client(self):
        envoy, listeners = EnvoyConfig(self, self.net.pods["a1"]), []
        for port in range(PORT, PORT + PORTS):
            envoy.client(self.net.pods["b1"], port)
            listener, clusters = envoy.made
            listeners.append({**listener, "name": f"out{port}", "address": peers.address("127.0.0.1", port + 1000)})
        return listeners, [{**c, "circuit_breakers": {"thresholds": [LIMITS]}} for c in clusters]

    def _run(self, pod, config, port):
        path = f"{self.folder}/envoy-{pod.name}"
        with open(path + ".json", "w") as f:
            json.dump({"static_resources": dict(zip(("listeners", "clusters"), config))}, f)
        with open(path + ".log", "wb") as log:
            p = pod.popen([peers.envoy(), "-c", path + ".json", "--concurrency", "2", "--disable-hot-restart", "-l",
                           "warning"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        self.stack.callback(stop, p)
        self.proxies.append(p)
        wait_for(lambda: p.poll() is not None or pod.run("ss", "-Hltn", f"sport = :{port}"), "Envoy to listen", READY)
        self.check()

    def target(self, path):
        return (self.net.pods["a1"], "127.0.0.1", PORT + 1000) if path == "cross" else None

    def tunnels(self):
        return [p.pid for p in reversed(self.proxies)]

    def pids(self):
        return self.tunnels()

    def check(self):
        for p in self.proxies:
            if p.poll() is not None:
                raise RuntimeError(f"Envoy ended with {p.returncode}")


def make(mode, folder, ca, **kw):
    return (EnvoyBed if mode == "envoy" else Bed)(mode, folder, ca, **kw)


def new_ca(folder):
    os.makedirs(folder)
    return pki.Ca(folder)


def available():
    """{mode: why it cannot run, or ""}"""
    built = os.access(agents.CULVERTD, os.X_OK)
    out = {"direct": ""}
    for mode in KINDS:
        out[mode] = "" if built else "culvertd is not built"
    for mode, var in (("ztunnel", "ZTUNNEL"), ("envoy", "ENVOY")):
        path = os.environ.get(var)
        out[mode] = f"no {var}= given" if not path else "" if os.access(path, os.X_OK) else f"{path} cannot be run"
    return out


def read_line(process, deadline=60):
    """A line of its output, or an error with what it said."""
    if not select.select([process.stdout], [], [], deadline)[0]:
        raise TimeoutError(f"gen said nothing for {deadline} s")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(process.stderr.read().strip() or f"gen ended with {process.wait()}")
    return line
