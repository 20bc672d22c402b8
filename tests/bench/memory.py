# SPDX-License-Identifier: Apache-2.0
"""Memory of the process that carries traffic: at rest, with many pods, for each idle connection, with a large mesh.
Each in processes that were started for it: one that has worked hard has free memory to give."""
import time

import measure
import modes
from figures import IDLE_CONNS, PODS, SERVICES, WORKLOADS
from lib.mesh import workload
from topology import stop

IDLE_STEP = IDLE_CONNS // 2  # the slope is taken between one and three steps
QUIET = 3                    # seconds
MIB, KIB = 1 << 20, 1 << 10


def idle(bed, pods):
    """With so many pods on its node and no traffic so far."""
    pid = bed.tunnels()[0]
    measure.settle(pid)
    return {f"idle{pods}.{kind}": n / MIB for kind, n in measure.memory(pid).items() if kind != "private"}


def two_pods(mode, folder, ca):
    with modes.make(mode, folder, ca) as bed:
        return idle(bed, 2)


def full_node(mode, folder, ca):
    """The first node full of pods, the second without any."""
    with modes.make(mode, folder, ca, pods=tuple((1, f"p{i}", i, True) for i in range(2, PODS + 2))) as bed:
        return idle(bed, PODS)


def connections(mode, folder, ca):
    """What one more idle connection keeps of its own (private pages), on either side, and what they cost in CPU."""
    with modes.make(mode, folder, ca) as bed:
        bed.warm()
        gen, held = bed.popen("idle", "cross", conns=IDLE_STEP), []
        try:
            for step in range(3):
                modes.read_line(gen)
                for pid in bed.tunnels():
                    measure.settle(pid, 5)
                held.append([measure.memory(pid)["private"] for pid in bed.tunnels()])
                if step < 2:
                    gen.stdin.write("\n")
                    gen.stdin.flush()
            window = measure.Window(bed.pids())
            time.sleep(QUIET)
            used = window.stop().proxies
        finally:
            stop(gen)
    each = [(last - first) / IDLE_CONNS / KIB for first, last in zip(held[0], held[2])]
    return {"conn.client": each[0], "conn.server": each[1], "conn.cpu": used / QUIET * 1000}


class Place:
    """Stands for pods of other nodes."""

    def __init__(self, i):
        self.namespace, self.name, self.sa, self.mesh = f"ns{i % 100}", f"w{i}", f"sa{i % 500}", True
        self.ip4, self.ip6 = f"10.{100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}", f"fd99::{i:x}"
        self.node = self
        self.uid = f"Kubernetes//Pod/{self.namespace}/{self.name}"


def large_mesh(mesh):
    mesh.workloads += [{**workload(Place(i)), "node": f"far-{i % 1000}"} for i in range(WORKLOADS)]
    for i in range(SERVICES):
        host = f"s{i}.ns{i % 100}.svc.cluster.local"
        mesh.services.append({"name": f"s{i}", "namespace": f"ns{i % 100}", "hostname": host,
                              "vips": [f"/10.200.{i >> 8}.{i & 255}"], "ports": {80: 8080}})
        for w in mesh.workloads[-WORKLOADS + i::SERVICES]:
            w["services"][f"ns{i % 100}/{host}"] = {80: 8080}


def state(mode, folder, ca):
    """An agent that starts with the large mesh in its file, and one with an empty one."""
    rss = []
    for prepare in (None, large_mesh):
        with modes.make(mode, f"{folder}-{len(rss)}", ca, pods=(), prepare=prepare) as bed:
            pid = bed.tunnels()[0]
            measure.settle(pid)
            cpu = measure.process_cpu(pid)
            rss.append(measure.memory(pid)["rss"])
    return {"state.cpu": cpu, "state.rss": rss[1] / MIB, "state.each": (rss[1] - rss[0]) / WORKLOADS}


def measure_all(run, mode, top, ca):
    parts = [("2 pods", two_pods), (f"{IDLE_CONNS:,} idle connections", connections)]
    if mode != "envoy":
        parts += [(f"{PODS} pods", full_node), (f"{WORKLOADS:,} workloads", state)]
    for what, fn in parts:
        run.progress.say("memory", f"{what}, {mode}")
        try:
            run.add(mode, 0, fn(mode, f"{top}/{mode}-{fn.__name__}", ca))
        except Exception as e:
            run.fail(mode, what, e)
