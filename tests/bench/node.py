# SPDX-License-Identifier: Apache-2.0
"""What it costs to bring a pod into the mesh: the CNI plugin's ADD as a container runtime runs it, the keeper's part of it,
many at once, and a whole node. Two keepers have the same pods in turn, one steers by BPF, the other by istio-cni's rules,
so that a slow minute meets both. Their run directories are on a tmpfs, as /run is."""
import concurrent.futures
import contextlib
import json
import os
import socket
import statistics
import time

import measure
import modes
from figures import NODE_PODS
from lib import agents, cni
from lib.mesh import Mesh
from topology import Network, Unwound, inside, sh, wait_for

MODES = ("culvert-bpf", "culvert-iptables")
ADD_PATH, DEL_PATH, PORT_OUTBOUND = "/cmdadd", "/v1/cmddel", 15001  # cni_abi.h, ports.h
SINGLE, BURST = 20, 20
AT_ONCE = 10  # requests, while the node is filled
REST = 0.02   # seconds between single ADDs: they are not a burst


class Keeper:
    """A whole agent on a node of its own, which enrols what the CNI plugin asks for."""

    def __init__(self, mode, node, folder, ca):
        self.agent = agents.make(modes.KINDS[mode], node, folder, ca)
        self.agent.env |= {"CULVERT_CNI_PODS": "all"}
        self.agent.env.pop("LOG_FORMAT")  # as shipped
        self.socket = f"{self.agent.run_dir}/cni.sock"
        self.conf = {"cniVersion": "1.1.0", "name": "net", "type": "culvert-cni", "cni_socket": self.socket}

    def start(self):
        self.agent.start()

    def begin(self, command, pod):
        """The plugin on its way: (process id, what it prints). Its input is there already, as a runtime writes it."""
        s = cni.Sandbox(pod, f"c-{pod.name}")
        text = json.dumps(self.conf)[:-1] + f', "prevResult": {s.previous()}}}'
        env = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin", "CNI_CONTAINERID": s.container, "CNI_NETNS": s.netns,
               "CNI_IFNAME": "eth0", "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={s.namespace};K8S_POD_NAME={s.name};"
                                                 f"K8S_POD_INFRA_CONTAINER_ID={s.container};K8S_POD_UID={s.uid}"}
        given, said = os.memfd_create("in"), os.memfd_create("out")
        try:
            os.pwrite(given, text.encode(), 0)
            files = [(os.POSIX_SPAWN_DUP2, given, 0), *((os.POSIX_SPAWN_DUP2, said, n) for n in (1, 2))]
            return os.posix_spawn(cni.PLUGIN, [cni.PLUGIN], env, file_actions=files), said
        finally:
            os.close(given)

    def end(self, pid, said):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = os.pread(said, 4096, 0).decode(errors="replace")
        os.close(said)
        if status:
            raise RuntimeError(f"the plugin ended with {status}: {text.strip()}")

    def add(self, pod):
        """Seconds from the plugin's start to its end."""
        at = time.perf_counter()
        self.end(*self.begin("ADD", pod))
        return time.perf_counter() - at

    def burst(self, pods):
        """Seconds until the last of them has ended."""
        at = time.perf_counter()
        for begun in [self.begin("ADD", p) for p in pods]:
            self.end(*begun)
        return time.perf_counter() - at

    def ask(self, path, pod):
        """The keeper's part alone: seconds from the request at its socket to the answer."""
        body = json.dumps({"Netns": f"/run/netns/{pod.ns}", "PodName": pod.name, "PodNamespace": pod.namespace,
                           "PodUID": pod.uid, "ContainerID": f"c-{pod.name}", "IfName": "eth0", "Network": "net",
                           "IPs": None, "Decide": True}).encode()
        at = time.perf_counter()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
            s.settimeout(30)
            s.connect(self.socket)
            s.sendall(b"POST %s HTTP/1.0\r\nHost: unix\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
            answer = b""
            while chunk := s.recv(65536):
                answer += chunk
        took = time.perf_counter() - at
        if answer.split(b" ", 2)[1] != b"200":
            raise RuntimeError(f"{path} {pod.name}: {answer.decode(errors='replace').strip()[-300:]}")
        return took

    def all(self, path, pods):
        """Seconds for all of them, and the keeper's CPU with the programs that it ran."""
        at, used = time.perf_counter(), self.cpu()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda p: self.ask(path, p), pods))
        return time.perf_counter() - at, self.cpu() - used

    def remove(self, pods):
        """Until another may have them: a tunnel closes its descriptors of a listener when it comes to it."""
        self.all(DEL_PATH, pods)
        for pod in pods:
            wait_for(lambda: is_free(pod), f"the listeners of {pod.name} to go")

    def cpu(self):
        pid = self.agent.process.pid
        return measure.process_cpu(pid) + measure.children_cpu(pid)


def is_free(pod):
    with inside(pod.ns), contextlib.closing(socket.socket(socket.AF_INET6)) as s, contextlib.suppress(OSError):
        s.bind(("::", PORT_OUTBOUND))
        return True


class Place(Unwound):
    """Context manager: the pods, on the first node, and the keepers, each in a node's namespace."""

    def __init__(self, folder, ca):
        self.folder, self.ca = folder, ca
        self.net = Network("bench", tuple((1, f"p{i}", i, True) for i in range(2, NODE_PODS + 2)))
        self.keepers = {}

    def _begin(self):
        os.makedirs(self.folder)
        sh("mount", "-t", "tmpfs", "tmpfs", self.folder)
        self.stack.callback(sh, "umount", "-l", self.folder, ok=False)
        self.stack.enter_context(self.net)
        self.pods = list(self.net.pods.values())
        Mesh(()).save(f"{self.folder}/mesh.yaml")
        for mode, node in zip(MODES, self.net.nodes):
            keeper = Keeper(mode, node, self.folder, self.ca)
            self.stack.callback(keeper.agent.close)
            keeper.start()
            self.keepers[mode] = keeper

    def order(self, at):
        """Nobody is always the first."""
        return MODES[at % 2:] + MODES[:at % 2]

    def singles(self, at):
        """{mode: ([ADD], [keeper's part])}, in milliseconds, the modes one after the other on each pod."""
        out = {m: ([], []) for m in MODES}
        for i, pod in enumerate(self.pods[:SINGLE]):
            for mode in self.order(at + i):
                keeper = self.keepers[mode]
                for times, call in zip(out[mode], (keeper.add, lambda p: keeper.ask(ADD_PATH, p))):
                    time.sleep(REST)
                    times.append(call(pod) * 1e3)
                    keeper.remove([pod])
        return out

    def bursts(self, at):
        out = {}
        for mode in self.order(at):
            keeper, some = self.keepers[mode], self.pods[:BURST]
            out[mode] = keeper.burst(some) * 1e3
            keeper.remove(some)
        return out

    def whole(self, at):
        """{mode: (seconds, CPU seconds)}"""
        out = {}
        for mode in self.order(at):
            out[mode] = self.keepers[mode].all(ADD_PATH, self.pods)
            self.keepers[mode].remove(self.pods)
        return out


def measure_round(run, place, at):
    singles = place.singles(at)
    rules = statistics.median(singles["culvert-iptables"][1])
    bursts, whole = place.bursts(at), place.whole(at)
    for mode in MODES:
        add, part = map(statistics.median, singles[mode])
        seconds, cpu = whole[mode]
        run.add(mode, at, {"node.add": add, "node.keeper": part, "node.burst": bursts[mode], "node.all": seconds,
                           "node.cpu": cpu / NODE_PODS * 1e3})
    run.add("culvert-bpf", at, {"node.share": statistics.median(singles["culvert-bpf"][0]) / rules})


def measure_all(run, top, ca):
    run.progress.say("node", f"{NODE_PODS} pods")
    try:
        with Place(f"{top}/node", ca) as place:
            for keeper in place.keepers.values():  # files are read, spares are loaded
                keeper.add(place.pods[0])
                keeper.remove(place.pods[:1])
            for at in range(run.options.rounds):
                run.progress.say("node", f"round {at + 1}/{run.options.rounds}")
                measure_round(run, place, at)
    except Exception as e:
        run.fail(", ".join(MODES), "node", e)
