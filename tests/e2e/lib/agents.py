# SPDX-License-Identifier: Apache-2.0
"""What may serve a node in a test, all with the same methods:

  culvert           keeper and tunnel under one `culvertd`, BPF steering
  culvert-iptables  the same with istio-cni's rules
  split             the same as two processes that nobody supervises, as in two DaemonSets
  split-ztunnel     our keeper with the ztunnel that $ZTUNNEL names, over istio-cni's rules
  istio-cni         Istio's node agent, from the folder that $ISTIO_CNI names, with `culvertd tunnel`
  dropin            `culvertd tunnel` alone: istio-cni's rules, a ZDS server and a CA of ours, ztunnel's environment
  ztunnel           the binary that $ZTUNNEL names, in the same place"""
import functools
import json
import os
import re
import select
import signal
import subprocess

from . import rules
from .ca import CaServer
from .net import scale, sh
from .rows import Skip, check, until
from .zds import ZdsServer

BUILD = os.path.abspath(os.environ.get("B", "build"))
CULVERTD, CULVERTCTL = f"{BUILD}/bin/culvertd", f"{BUILD}/bin/culvertctl"
STOP_DEADLINE = 20
DRAIN = f"{scale.deadline(8)}s"


@functools.cache
def sanitized():
    """Whether the build has sanitizers: then memory says little."""
    try:
        with open(f"{BUILD}/libexec/culvert/culvert-tunnel", "rb") as f:
            return b"__asan_init" in f.read()
    except OSError:
        return False


def need_culvert():
    if not os.access(CULVERTD, os.X_OK):
        raise FileNotFoundError(f"{os.path.relpath(CULVERTD)} is not built")


class Agent:
    """One program in a node's namespace. `log` is its output so far."""

    def __init__(self, node, folder, env):
        self.node, self.folder, self.process, self.starts = node, folder, None, 0
        self.log_path = f"{folder}/{node.name}.log"
        self.env = {"PATH": os.environ["PATH"], "NODE_NAME": node.name, "XDS_ADDRESS": "",
                    "LOCAL_XDS_PATH": f"{folder}/mesh.yaml", "RUST_LOG": "info", "LOG_FORMAT": "json", **env}
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "CULVERT_KTLS", "CULVERT_KTLS_DISABLE"):
            if k in os.environ:
                self.env[k] = os.environ[k]

    def spawn(self, argv):
        self.starts += 1
        with open(self.log_path, "ab") as log:
            self.process = self.node.popen(argv, env=self.env, stdout=log, stderr=subprocess.STDOUT,
                                           stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def lines(self, since=0):
        """The JSON log lines as dictionaries."""
        out = []
        for line in self.log()[since:].splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                pass
        return out

    def access(self, since=0, **want):
        """Access log lines whose fields equal `want` (a_b stands for a.b)."""
        want = {k.replace("_", ".", 1) if k.startswith(("src_", "dst_")) else k: v for k, v in want.items()}
        return [x for x in self.lines(since) if x.get("scope") == "access"
                and all(x.get(k) == v for k, v in want.items())]

    def http(self, port, path, method="GET", headers=(), timeout=5):
        """(status, body) from a port on the node's loopback."""
        s = self.node.connect("127.0.0.1", port, timeout=timeout)
        with s:
            lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
            if method == "POST":
                lines.append("Content-Length: 0")
            s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            raw = bytearray()  # a dump of 60,000 workloads has 46 MB
            while chunk := s.recv(1 << 18):
                raw += chunk
        head, _, body = bytes(raw).partition(b"\r\n\r\n")
        self.last_head = head.decode("latin-1")
        if "transfer-encoding: chunked" in self.last_head.lower():
            body = unchunk(body)
        return int(head.split(b" ", 2)[1]), body

    def ready(self):
        return self.alive() and self.http(15021, "/healthz/ready")[0] == 200

    def wait_ready(self):
        def is_ready():
            if not self.alive():
                raise RuntimeError(f"{self.node.name}: ended with {self.process.returncode}: {self.log()[-400:]}")
            return self.http(15021, "/healthz/ready")[0] == 200

        until(is_ready, f"{self.node.name} to be ready", 20)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def metrics(self, name=""):
        """{(name, frozenset of label pairs): value}"""
        out = {}
        for line in self.http(15020, "/metrics")[1].decode().splitlines():
            m = re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line)
            if m and m[1].startswith(name):
                out[m[1], frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or ""))] = float(m[3])
        return out

    def metric(self, name, **labels):
        """Sum over the series that have these labels."""
        return sum(v for (n, have), v in self.metrics(name).items() if n == name and set(labels.items()) <= have)

    def config_dump(self):
        status, body = self.http(15000, "/config_dump")
        check(status == 200, f"/config_dump: {status}")
        return json.loads(body)

    def tunnel_pid(self):
        """The process that carries traffic."""
        return self.process.pid

    def fds(self):
        return len(os.listdir(f"/proc/{self.tunnel_pid()}/fd"))

    def signal(self, sig):
        self.process.send_signal(sig)

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process:
            log = self.log().splitlines()
            said = [i for i, x in enumerate(log) if "Sanitizer:" in x or "runtime error:" in x]
            check(not said, lambda: "\n".join([self.node.name, *log[said[0]:said[0] + 60]]))


def unchunk(body):
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        n = int(size, 16)
        out, body = out + rest[:n], rest[n + 2:]
        if not n:
            break
    return out


class Tunnel(Agent):
    """A tunnel alone, in ztunnel's place."""

    steering = "iptables"

    def __init__(self, node, folder, ca, argv, env=None):
        super().__init__(node, folder, env or {})
        self.argv = argv
        self.ca = CaServer(node, ca)
        self.zds = ZdsServer(f"{folder}/{node.name}-zds.sock")
        self.env |= {"INPOD_UDS": self.zds.path, "CA_ADDRESS": self.ca.address, "CA_ROOT_CA": self.ca.root,
                     "XDS_ROOT_CA": self.ca.root, "AUTH_TOKEN": "test", "CONNECTION_TERMINATION_DEADLINE": DRAIN,
                     "CULVERT_RUN_DIR": f"{folder}/{node.name}"}
        self.steered = set()

    def start(self):
        self.spawn(self.argv)
        self.wait_ready()

    def enrol(self, pod):
        if pod.ns not in self.steered:
            self.steered.add(pod.ns)
            rules.apply(pod)
        self.zds.add(pod)

    def unenrol(self, pod):
        self.zds.remove(pod)

    def close(self):
        try:
            self.stop()
        finally:
            self.zds.close()
            self.ca.close()


class Dedicated(Agent):
    """A tunnel for one workload, in that one's namespace, with a CA of its own that gives it its own certificate only. Steering is
    the bed's. `prefix`: what starts it, as whom."""

    def __init__(self, pod, folder, ca, argv, env=None, prefix=()):
        super().__init__(pod, folder, env or {})
        self.argv, self.ca = [*prefix, *argv], CaServer(pod, ca, pod.spiffe)
        self.env |= {"NODE_NAME": pod.node.name, "PROXY_MODE": "dedicated", "CA_ADDRESS": self.ca.address, "CA_ROOT_CA": self.ca.root,
                     "PROXY_WORKLOAD_INFO": f"{pod.namespace}/{pod.name}/{pod.sa}", "XDS_ROOT_CA": self.ca.root,
                     "AUTH_TOKEN": "test", "CONNECTION_TERMINATION_DEADLINE": DRAIN}

    def start(self):
        self.spawn(self.argv)
        self.wait_ready()

    def close(self):
        try:
            self.stop()
        finally:
            self.ca.close()


class Culvert(Agent):
    """culvertd: a keeper that supervises a tunnel; pods are enrolled with culvertctl."""

    culvertd = CULVERTD

    def __init__(self, node, folder, ca, steering="bpf", env=None):
        need_culvert()
        super().__init__(node, folder, env or {})
        self.steering, self.run_dir = steering, f"{folder}/{node.name}"
        self.bpf_dir = f"{folder}/{node.name}-bpf"
        for d in (self.run_dir, self.bpf_dir):
            os.makedirs(d, mode=0o755, exist_ok=True)
        # Mounted here, not by the keeper: `ip netns exec` gives each run a mount namespace of its own, and pins must
        # outlive the keeper.
        sh("mount", "-t", "bpf", "bpf", self.bpf_dir)
        self.env |= {"CULVERT_RUN_DIR": self.run_dir, "CULVERT_BPF_DIR": self.bpf_dir, "CULVERT_CA_CERT": ca.cert,
                     "CULVERT_CA_KEY": ca.key, "CONNECTION_TERMINATION_DEADLINE": DRAIN}
        if steering != "bpf":
            self.env["CULVERT_STEERING"] = steering
        self.enrolled = []

    def start(self):
        self.spawn([self.culvertd])
        until(lambda: self.process.poll() is not None or self.status(), "the keeper to answer", 20)
        self.wait_ready()

    def ctl(self, *argv, ok=True):
        """A status fails as well where something is wrong: it is read all the same."""
        return sh(CULVERTCTL, *argv, ok=ok and argv[0] != "status", env={**self.env})

    def status(self, what="status"):
        return json.loads(self.ctl(what, "--json"))

    def enrol(self, pod):
        self.ctl("enrol", f"/run/netns/{pod.ns}", f"{pod.namespace}/{pod.name}/{pod.sa}")
        self.enrolled.append(pod)

    def unenrol(self, pod):
        self.ctl("unenrol", f"/run/netns/{pod.ns}")
        self.enrolled.remove(pod)

    def processes(self, program=""):
        """Living processes of this run directory whose executable's name has `program`."""
        mark, out = f"CULVERT_RUN_DIR={self.run_dir}\0".encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    ours = mark in f.read()
                if ours and program in os.path.basename(os.readlink(f"/proc/{pid}/exe")):
                    out.append(int(pid))
            except OSError:
                pass  # gone meanwhile
        return out

    def kill_all(self):
        """Keeper and tunnel end by SIGKILL; returns when their sockets are closed, which takes longer than their names to go."""
        ends = [os.pidfd_open(pid) for pid in self.processes()]
        for end in ends:
            signal.pidfd_send_signal(end, signal.SIGKILL)
        for end in ends:
            check(select.select([end], [], [], STOP_DEADLINE)[0], "a process did not end")
            os.close(end)
        if self.process:
            self.process.wait()

    def tunnel_pid(self):
        return until(lambda: self.processes("tunnel"), "a tunnel")[0]

    def close(self):
        for pod in list(self.enrolled) if self.alive() else ():
            self.ctl("unenrol", f"/run/netns/{pod.ns}", ok=False)
        try:
            self.stop()
        finally:
            self.kill_all()
            sh("umount", "-l", self.bpf_dir, ok=False)


class Split(Tunnel):
    """`culvertd node`, and a tunnel in a process of its own. What the tunnel logs is the log."""

    def __init__(self, node, folder, ca, argv, env=None):
        super().__init__(node, folder, ca, argv, env)
        self.zds.close()
        self.keeper = Culvert(node, f"{folder}/{node.name}-keeper", ca)
        self.env |= {"INPOD_UDS": f"{self.keeper.run_dir}/zds.sock", "CULVERT_RUN_DIR": self.keeper.run_dir}
        if scale.VM:  # there the openssl command behind ours takes longer for a certificate than an agent waits
            self.env |= {"CA_ADDRESS": None, "CULVERT_CA_CERT": ca.cert, "CULVERT_CA_KEY": ca.key}
        self.steering = "bpf"

    def start(self):
        if not self.keeper.alive():
            self.keeper.spawn([CULVERTD, "node"])
            until(self.keeper.status, "the keeper to answer", 20)
        super().start()

    def enrol(self, pod):
        self.keeper.enrol(pod)

    def unenrol(self, pod):
        self.keeper.unenrol(pod)

    def close(self):
        try:
            self.keeper.close()
        finally:
            self.stop()
            self.ca.close()


def ztunnel_path():
    path = os.environ.get("ZTUNNEL")
    if not path:
        raise Skip("no ZTUNNEL= given")
    return path


KINDS = ("culvert", "culvert-iptables", "dropin", "split", "split-ztunnel", "ztunnel", "istio-cni")


def make(kind, node, folder, ca):
    if kind == "ztunnel":
        return Tunnel(node, folder, ca, [ztunnel_path()], {"IPV6_ENABLED": "true"})
    need_culvert()
    if kind == "istio-cni":
        from .istio_cni import NodeAgent  # which is built on this module
        return NodeAgent(node, folder, ca)
    if kind.startswith("split"):
        return Split(node, folder, ca, [ztunnel_path()] if kind == "split-ztunnel" else [CULVERTD, "tunnel"])
    if kind == "dropin":
        return Tunnel(node, folder, ca, [CULVERTD, "tunnel"])
    return Culvert(node, folder, ca, {"culvert": "bpf", "culvert-iptables": "iptables"}[kind])
