# SPDX-License-Identifier: Apache-2.0
"""Two nodes on which pods, policies, certificates and connections come and go, and what their agents hold meanwhile: for the soak.
Whatever goes wrong while something comes or goes is an AssertionError or OSError of that step."""
import contextlib
import os
import random
import socket
import threading
import time

from . import traffic
from .bed import Bed
from .load import Load
from .mesh import workload
from .net import Pod, batch, inside, read_all, reset, sh, sysctl
from .rows import check, equal, until

PORT, DENIED, RESETS = 8090, 8091, 8092
RATE, STREAMS, BYTES = 20, 4, 200_000  # short connections a second; long ones, and bytes a second on each
FIRST, LAST = 20, 249  # last parts of the churned pods' addresses; one comes again when its namespace has gone for long
PODS_AT_ONCE = 3
SETTLE = 60       # seconds until what was let go is gone
MIB = 1 << 20
ENV = {"SECRET_TTL": "40s", "POOL_UNUSED_RELEASE_TIMEOUT": "2s", "RUST_LOG": "info,access=off"}


class Churn(Bed):
    def __init__(self):
        super().__init__(("culvert", "culvert"), env=ENV)
        self.lock, self.stopping, self.tasks = threading.Lock(), threading.Event(), []
        self.count = {"pods": 0, "policies": 0, "certificates": 0, "resets": 0}
        self.serials = set()

    # --- what comes and goes ---

    def save(self):
        self.mesh.save()

    def _add_pod(self, node, index):
        pod = Pod(self.net, node, f"t{index}", index, True)
        sh("ip", "netns", "add", pod.ns)
        with inside(pod.ns):
            sysctl("net/ipv6/conf/default/accept_dad", 0)
        batch(node.ns, *self.net._to_pod(pod))
        batch(pod.ns, "link set lo up", f"addr add {pod.ip4}/32 dev eth0", f"addr add {pod.ip6}/128 dev eth0 nodad", "link set eth0 up",
              f"route add default via 10.71.{node.index}.1 dev eth0 onlink", "route add default via fe80::1 dev eth0")
        with self.lock:
            self.mesh.workloads.append(workload(pod))
            self.save()
        return pod

    def _remove_pod(self, pod):
        with self.lock:
            self.mesh.workloads = [w for w in self.mesh.workloads if w["name"] != pod.name]
            self.save()
        sh("ip", "netns", "del", pod.ns)

    def pods(self):
        """Some come, are enrolled, talk to pods that stay and to one of themselves, and go, the last with a connection open."""
        nodes = self.net.nodes
        at = self.count["pods"]
        pods = [self._add_pod(nodes[i % 2], FIRST + (at + i) % (LAST - FIRST + 1)) for i in range(PODS_AT_ONCE)]
        try:
            for pod in pods:
                pod.node.agent.enrol(pod)
            with Load(pods[0], "echo", PORT), contextlib.ExitStack() as stack:
                for pod, to in zip(pods, (self.b1, self.a1, pods[0])):
                    c = stack.enter_context(until(lambda p=pod, t=to: p.connect(t.ip(at % 2 == 1), PORT), f"{pod.name} to reach {to.name}"))
                    c.sendall(b"hello")
                    equal(c.recv(5), b"hello", f"{pod.name}'s echo")
                pods[-1].node.agent.unenrol(pods[-1])
        finally:
            for pod in pods:
                if pod in pod.node.agent.enrolled:
                    pod.node.agent.unenrol(pod)
                self._remove_pod(pod)
        self.count["pods"] += len(pods)

    def policies(self):
        """A DENY comes and closes what it is about; it goes, and the next connection lives."""
        with self.a1.connect(self.b1.ip4, DENIED) as c:
            s, _ = self.denied.accept()
            with s:
                with self.lock:
                    self.mesh.policy("soak", "Deny", [[[{"destinationPorts": [DENIED]}]]], ["b1"])
                    self.save()
                try:
                    check(not c.recv(1), "bytes from nowhere")
                except ConnectionError:
                    pass
                finally:
                    with self.lock:
                        self.mesh.clear_policies()
                        self.save()
        until(self._talks, "a connection that the policy refused before")
        self.count["policies"] += 1

    def _talks(self):
        with self.a1.connect(self.b1.ip4, DENIED) as c:
            c.sendall(b"x")
            c.settimeout(0.2)
            try:
                if not c.recv(1):  # refused
                    return False
            except TimeoutError:
                pass
            s, _ = self.denied.accept()
            with s:
                return s.recv(1) == b"x"

    def certificates(self):
        """They are renewed by themselves: counts new ones."""
        for agent in self.agents:
            for c in agent.config_dump()["certificates"]:
                for one in c["certChain"][:1]:
                    if one["serialNumber"] not in self.serials:
                        self.serials.add(one["serialNumber"])
                        self.count["certificates"] += 1
        self.stopping.wait(1)

    def resets(self):
        """Connections that end in every way but the good one, and data that nobody reads."""
        for _ in range(10):
            c = self.a1.connect(self.b1.ip4, RESETS)
            s, _ = self.resetting.accept()
            with c, s:
                c.sendall(bytes(random.randrange(1, 100_000)))
                how = random.randrange(4)
                if how == 0:
                    reset(c)
                elif how == 1:
                    reset(s)
                elif how == 2:
                    c.shutdown(socket.SHUT_WR)
                    read_all(s)
            self.count["resets"] += 1
        self.stopping.wait(0.2)

    # --- all of it ---

    def start(self):
        self.stopping.clear()
        self.load = contextlib.ExitStack()
        self.denied, self.resetting = (self.load.enter_context(self.b1.listen(p)) for p in (DENIED, RESETS))
        self.load.enter_context(Load(self.b1, "echo", PORT))
        self.load.enter_context(Load(self.a1, "echo", PORT))
        self.calls = self.load.enter_context(Load(self.a2, "calls", self.b1.ip4, PORT, RATE))
        self.streams = self.load.enter_context(Load(self.a1, "streams", self.b1.ip4, PORT, STREAMS, BYTES))
        self.tasks = [traffic.Task(self._loop, step) for step in (self.pods, self.policies, self.certificates, self.resets)]

    def _loop(self, step):
        while not self.stopping.is_set():
            step()

    def broken(self):
        """The first step that failed."""
        return next((t.error for t in self.tasks if t.error), None)

    def stop(self):
        """Ends the churn; what load came to."""
        self.stopping.set()
        try:
            for t in self.tasks:
                t.result(120)
            calls, streams = self.calls.result(), self.streams.result()
        finally:
            self.load.close()
        check(not calls["failed"], lambda: f"{len(calls['failed'])} of {calls['count']} short connections failed: {calls['failed'][:3]}")
        check(not streams["broken"], lambda: f"long connections: {streams['broken'][:3]}")
        return calls, streams

    # --- what is held ---

    def held(self):
        """{what: number}: of all agents' processes, and what the kernel has for them."""
        out = {}
        for agent in self.agents:
            for program in "keeper", "tunnel":
                for pid in agent.processes(program):
                    key = f"{agent.node.name} {program}: "
                    links = [link for link in map(lambda p: read_link(f"/proc/{pid}/fd/{p}"), os.listdir(f"/proc/{pid}/fd")) if link]
                    out[key + "processes"] = out.get(key + "processes", 0) + 1
                    out[key + "descriptors"] = out.get(key + "descriptors", 0) + len(links)
                    out[key + "namespaces"] = out.get(key + "namespaces", 0) + sum(x.startswith("net:[") for x in links)
                    out[key + "threads"] = out.get(key + "threads", 0) + len(os.listdir(f"/proc/{pid}/task"))
                    out[key + "resident MiB"] = out.get(key + "resident MiB", 0) + resident(pid) / MIB
                    if program == "keeper":
                        out[key + "BPF descriptors"] = sum("bpf" in x for x in links)
            pins = [f for _, _, files in os.walk(agent.bpf_dir) for f in files]
            out[f"{agent.node.name}: BPF maps pinned"] = sum(f.startswith("map") for f in pins)
            out[f"{agent.node.name}: BPF links and programs pinned"] = sum(not f.startswith("map") for f in pins)
            out[f"{agent.node.name}: pods kept"] = len(os.listdir(f"{agent.run_dir}/pods")) if os.path.isdir(f"{agent.run_dir}/pods") else 0
        out["network namespaces"] = sum(n.startswith(f"{self.net.name}-") for n in os.listdir("/run/netns"))
        return out

    def settled(self, before=None):
        """What is held when nothing changes any more, or when all is as `before`; at the latest after SETTLE seconds."""
        end, last, since = time.monotonic() + SETTLE, None, time.monotonic()
        while time.monotonic() < end:
            now = self.held()
            counts = {k: v for k, v in now.items() if not k.endswith("MiB")}
            if counts != last:
                last, since = counts, time.monotonic()
            same = before is None or all(before[k] == v for k, v in counts.items())
            if same and time.monotonic() - since > 3:
                break
            time.sleep(0.5)
        return now


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) << 10 for x in f if x.startswith("VmRSS:"))
