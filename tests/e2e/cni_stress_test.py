#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that containerd and runc make ten at a time, while keeper and tunnel are killed at random: each starts
captured or fails, nothing of any is left, and the text that each sends from its first instruction on is never seen on
the wire.

    n1 (containerd, keeper, tunnel, bridge 10.71.1.129/25) --- n2 (agent), pod b1 10.71.2.2:9999, where each says its name

A packet socket on all devices of n1 reads every frame from before the first sandbox on. E2E_SANDBOXES (20) of them;
E2E_SEED repeats a sequence of kills. Needs packages that `make deps` does not install; but the first rows, on what the
kills have shown, do not."""
import collections
import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, cni, containerd
from lib.bed import Bed
from lib.cni import OUTSIDE
from lib.mesh import workload
from lib.net import inside, scale, sh
from lib.rows import Table, check, equal, until
from lib.traffic import Task

T = Table(__file__)
COUNT, AT_ONCE = scale.count(int(os.environ.get("E2E_SANDBOXES") or 20), 10), 10
MOST = COUNT + 200
SEED = int(os.environ.get("E2E_SEED") or random.randrange(1 << 32))
PORT, WORD = 9999, "canary-of-"
FIRST = (f"while :; do echo {WORD}$(/bin/busybox hostname) | /bin/busybox nc -w 3 10.71.2.2 {PORT}; "
         "/bin/busybox sleep 0.3; done")
PAUSE, AWAY = (0.2, 1.0), (0.0, 0.4)  # seconds from kill to kill, and until the program is started again
TRIES, BETWEEN = 60, 0.5              # of a sandbox that fails, as a kubelet's

ETH_P_ALL, SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 3, 263, 6, 33


class Sniffer:
    """Every frame on the devices of a node: whose text was in one, who sent a SYN to the port."""

    def __init__(self, node):
        with inside(node.ns):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.texts, self.dials, self.frames, self.stopping = set(), set(), 0, False
        self.task = Task(self.read)

    def read(self):
        buf = memoryview(bytearray(1 << 16))
        while select.select([self.socket], [], [], 0.2)[0] or not self.stopping:
            if select.select([self.socket], [], [], 0)[0]:
                self.look(bytes(buf[:self.socket.recv_into(buf)]))

    def look(self, packet):
        self.frames += 1
        self.texts |= {m.decode() for m in re.findall(WORD.encode() + rb"([a-z0-9-]+)", packet)}
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            return
        tcp = packet[(packet[0] & 15) * 4:]
        if len(tcp) >= 14 and struct.unpack_from(">H", tcp, 2)[0] == PORT and tcp[13] & 0x12 == 2:
            self.dials.add(socket.inet_ntoa(packet[12:16]))

    def close(self):
        self.stopping = True
        self.task.join(10)
        self.socket.close()

    def lost(self):
        """Since the last time."""
        return struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]


class Ear:
    """Pod b1's server: who has said its name."""

    def __init__(self, pod):
        self.listener, self.heard, self.stopping = pod.listen(PORT), collections.Counter(), False
        self.task = Task(self.serve)

    def serve(self):
        while not self.stopping:
            if not select.select([self.listener], [], [], 0.2)[0]:
                continue
            s, _ = self.listener.accept()
            with s, contextlib.suppress(OSError):
                s.settimeout(5)
                self.heard.update(re.findall(WORD + "([a-z0-9-]+)", s.makefile().readline()))

    def close(self):
        self.stopping = True
        self.task.join(10)
        self.listener.close()


class Sandbox:
    """A workload of the mesh file: its name is known before its address."""

    namespace, sa, mesh = "default", "default", True

    def __init__(self, i, node):
        self.name, self.node, self.ip4, self.ip6 = f"box-{i}", node, f"10.98.{i >> 8}.{i & 255}", f"fd98::{i:x}"


class Killer:
    """Ends one of the two every now and then, and starts it again."""

    def __init__(self, place):
        self.place, self.random, self.stopping = place, random.Random(SEED), threading.Event()
        self.count = collections.Counter()
        self.task = Task(self.run)

    def run(self):
        first = self.random.sample(("keeper", "tunnel"), 2)
        while not self.stopping.wait(self.random.uniform(*PAUSE)):
            name = first.pop() if first else self.random.choice(("keeper", "tunnel"))
            agent, argv = self.place.programs()[name]
            agent.process.kill()
            agent.process.wait()
            self.count[name] += 1
            self.stopping.wait(self.random.uniform(*AWAY))
            agent.spawn(argv)

    def stop(self):
        self.stopping.set()
        self.task.result()


class StressPlace(Bed):
    def __init__(self):
        super().__init__(("split", "culvert"), pods=("b1",), prepare=self.name_sandboxes)

    def name_sandboxes(self, bed):
        self.mesh.workloads += [workload(Sandbox(i, self.net.nodes[0])) for i in range(MOST)]

    def _serve(self, agent):
        if isinstance(agent, agents.Split):
            agent.keeper.env |= {"CULVERT_CNI_PODS": "all", "EXCLUDE_NAMESPACES": OUTSIDE}
        super()._serve(agent)

    def _start(self):
        containerd.need()
        super()._start()
        self.node, self.agent, self.keeper = self.net.nodes[0], self.agents[0], self.agents[0].keeper
        self.ear, self.sniffer = Ear(self.b1), Sniffer(self.node)
        self.stack.callback(self.sniffer.close)
        self.stack.callback(self.ear.close)
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.71.1.128/25"}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{self.folder}/ipam"}}
        ours = {"type": "culvert-cni", "cni_socket": f"{self.keeper.run_dir}/cni.sock"}
        work = f"{self.folder}/containerd"
        os.mkdir(work)
        self.runtime = containerd.Containerd(self.node, work, [bridge, ours],
                                             ["/usr/lib/cni", f"{agents.BUILD}/libexec/culvert"], FIRST)
        self.note_namespaces(work)
        self.stack.callback(self.runtime.close)
        self.stack.callback(self.remove_left)
        self.runtime.start()
        self.at_rest = self.settled()

    def explain(self):
        super().explain()
        if lines := int(os.environ.get("E2E_LOGS") or 0):
            print("--- keeper\n" + "\n".join(self.keeper.log().splitlines()[-lines:]), file=sys.stderr)

    def note_namespaces(self, work):
        """Every ADD, also one that fails, leaves its namespace's path and inode in a file; and the kernel does not wait for
        minutes there for peers of sockets that nobody has open any more."""
        self.seen = f"{work}/namespaces"
        os.unlink(f"{work}/bin/bridge")
        with open(f"{work}/bin/bridge", "w") as f:
            f.write('#!/bin/sh\nif [ "$CNI_COMMAND" = ADD ]; then\n'
                    f'echo "$CNI_NETNS $(stat -Lc %i "$CNI_NETNS")" >>{self.seen}\n'
                    'nsenter --net="$CNI_NETNS" sh -c "echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries"\nfi\n'
                    'exec /usr/lib/cni/bridge\n')
        os.chmod(f.name, 0o755)

    def remove_left(self):
        """Of sandboxes of a row that failed."""
        def processes():
            out = set()
            for root, folders, _ in os.walk("/sys/fs/cgroup"):
                if self.runtime.cgroup[1:] in folders:
                    for at, _, _ in os.walk(f"{root}{self.runtime.cgroup}"):
                        with open(f"{at}/cgroup.procs") as f:
                            out |= set(map(int, f.read().split()))
            return out

        for pid in processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not processes(), "the sandboxes' processes to end")
        for path in self.namespaces():
            if os.path.exists(path):
                sh("ip", "netns", "del", os.path.basename(path), ok=False)

    def namespaces(self):
        """{path: inode}"""
        if not os.path.exists(self.seen):
            return {}
        with open(self.seen) as f:
            return dict(line.split() for line in f)

    def programs(self):
        return {"keeper": (self.keeper, [agents.CULVERTD, "node"]), "tunnel": (self.agent, self.agent.argv)}

    def pods(self):
        return self.keeper.status("pods")["pods"]

    # --- what is held, and what must go ---

    def held(self):
        """What the two programs have open, by kind, and what is on the node; as lines of text."""
        out, talks = [], sh("ip", "netns", "exec", self.node.ns, "ss", "-Htnp", "state", "established")
        for name, (agent, _) in self.programs().items():
            base, links = f"/proc/{agent.process.pid}/fd", []
            for fd in os.listdir(base):
                with contextlib.suppress(FileNotFoundError):
                    links.append(os.readlink(f"{base}/{fd}"))
            for kind in "net:", "bpf-map", "bpf-prog", "bpf_link", "socket:":
                n = sum(kind in x for x in links)
                if kind == "socket:":  # the certificates' connection comes and goes
                    n -= talks.count(f"pid={agent.process.pid},")
                out.append(f"{name}: {n} {kind}")
        for what in ("rule",), ("-6", "rule"), ("route", "show", "table", "all"):
            out += [x for x in sh("ip", "-n", self.node.ns, *what).splitlines() if "cni0" not in x]
        return set(out)

    def as_before(self):
        now = self.held()
        equal((now - self.at_rest, self.at_rest - now), (set(), set()), "what is more, what is less")
        return True

    def settled(self):
        """The same, when it has stopped to change."""
        last = []

        def same():
            last.append(self.held())
            return len(last) > 10 and last[-1] == last[-10] and last[-1]

        return until(same, "the programs to be at rest", 20, 0.1)

    def nothing_left(self):
        # A keeper that was away at DEL finds out by itself.
        until(lambda: equal(self.pods(), [], "pods") or True, "the pods to go", 30)
        equal(os.listdir(f"{self.keeper.run_dir}/pods"), [], "records")
        # Without a keeper at DEL nobody reset the pod's connections: the namespace is there until they have timed out.
        until(lambda: equal(os.listdir(f"{self.keeper.bpf_dir}/v1"), [], "pins") or True, "the pins to go", 150)
        links = [x for x in sh("ip", "-n", self.node.ns, "-o", "link").splitlines() if "master cni0" in x]
        equal(links, [], "veths")
        seen = self.namespaces()
        equal([p for p in seen if os.path.exists(p)], [], "namespaces")
        until(lambda: not [x for x in json.loads(sh("bpftool", "-j", "link"))
                           if str(x.get("netns_ino")) in seen.values()], "BPF links to go", 60)
        equal([f for f in os.listdir(f"{self.folder}/ipam/net") if f.startswith("10.")], [], "addresses")
        until(self.as_before, "programs and node to be as before", 30)

    # --- sandboxes ---

    def up(self, i, namespace="default"):
        """(the sandbox, how often it failed before): as a kubelet makes it."""
        uid = f"{os.getpid():08x}-0000-4000-a000-{i:012x}"
        for attempt in range(TRIES):
            try:
                return self.runtime.run_sandbox(namespace, f"box-{i}", uid, attempt), attempt
            except containerd.CallFailed:
                time.sleep(BETWEEN)
        raise AssertionError(f"box-{i} has not started after {TRIES} attempts")

    def down(self, sandbox):
        self.runtime.stop_sandbox(sandbox)
        self.runtime.remove_sandbox(sandbox)

    def live(self, i):
        """A sandbox from its beginning to its end; how often it failed."""
        sandbox, failed = self.up(i)
        try:
            until(lambda: self.ear.heard[f"box-{i}"], f"box-{i} to be heard", 40)
        finally:
            self.down(sandbox)
        return failed

    def lives(self, enough):
        """All of them, and more until it is enough; how often each failed."""
        numbers, out, lock = iter(range(MOST)), {}, threading.Lock()

        def work():
            while len(out) + AT_ONCE <= COUNT or not enough():
                with lock:
                    i = next(numbers)
                out[i] = self.live(i)

        tasks = [Task(work) for _ in range(AT_ONCE)]
        for t in tasks:
            t.result(1800)
        return out


@T.row("a-sandbox-that-goes-unnoticed-is-found", lambda: cni.CniPlace("bpf"))
def unnoticed(place):
    """The plugin says DEL once, perhaps to a keeper that ends or begins."""
    place.willing()
    with contextlib.closing(cni.Bare(place.pod.ns, 1)) as bare:
        equal(cni.run("ADD", cni.Sandbox(bare, "c1"), place.conf())[0], 0, "ADD")
        equal(cni.run("ADD", cni.Sandbox(place.pod, "c2"), place.conf())[0], 0, "ADD of another")
    until(lambda: set(place.pods()) == {"a1"}, "the pod to be un-enrolled", 30)
    until(lambda: len(os.listdir(f"{place.bpf}/v1")) == 1, "its pins to go")
    check(place.steered(), "the other pod is not steered any more")


@T.row("a-namespace-that-dies-slowly-leaves-no-pins", lambda: cni.CniPlace("bpf"))
def slowly(place):
    """As it does while the kernel waits for the last acknowledgement of a connection that nobody has open any more."""
    place.willing()
    with contextlib.closing(cni.Bare(place.pod.ns, 2)) as bare:
        equal(cni.run("ADD", cni.Sandbox(bare, "c1"), place.conf())[0], 0, "ADD")
        place.kill()
        place.tunnels.pop().close()
        held = open(f"/run/netns/{bare.ns}", "rb")
    with held:
        place.env["CULVERT_LOG"] = "debug"
        place.start()
        until(lambda: place.log().count("are not dead yet") > 1, "the keeper to look twice")
        equal(len(os.listdir(f"{place.bpf}/v1")), 1, "pins while the namespace lives")
    equal(os.listdir(f"{place.run}/pods"), [], "records")
    until(lambda: not os.listdir(f"{place.bpf}/v1"), "the pins to go", 30)


@T.row("the-sniffer-sees-a-sandbox-outside-the-mesh", StressPlace)
def control(place):
    """Or the row below would say nothing."""
    sandbox, _ = place.up(MOST, OUTSIDE)
    until(lambda: f"box-{MOST}" in place.sniffer.texts and place.sniffer.dials, "the text on the wire", 20)
    place.down(sandbox)
    place.nothing_left()


@T.row("each-sandbox-is-captured-or-fails-while-keeper-and-tunnel-are-killed", StressPlace)
def storm(place):
    place.sniffer.texts.clear()
    place.sniffer.dials.clear()
    place.sniffer.lost()
    at, killer = time.monotonic(), Killer(place)
    try:
        failed = place.lives(lambda: len(killer.count) == 2)
    finally:
        killer.stop()
    took = time.monotonic() - at
    until(lambda: place.keeper.status()["tunnel"]["connected"], "keeper and tunnel to be back", 30)
    place.nothing_left()
    print(f"# {len(failed)} sandboxes in {took:.0f} s, seed {SEED}: killed {dict(killer.count)}, "
          f"{sum(failed.values())} failed ADDs of {sum(1 for f in failed.values() if f)} sandboxes, "
          f"{place.sniffer.frames} frames", flush=True)
    equal(place.sniffer.lost(), 0, "frames that the sniffer lost")
    equal((place.sniffer.texts, place.sniffer.dials), (set(), set()), "plaintext, connections past the mesh")


if __name__ == "__main__":
    T.main()
