# SPDX-License-Identifier: Apache-2.0
"""Nodes and pods of a test, a demo or a benchmark: network namespaces of our own, routed veths, IPv4 and IPv6.

      PREFIX-PID-SERIAL-n1                       PREFIX-PID-SERIAL-n2
      lo 10.71.1.1 fd71:1::1                     lo 10.71.2.1 fd71:2::1
        |        |                                 |        |
       a1       a2                                b1       b2      a1 = 10.71.1.2 fd71:1::2, a2 = .3, ...
             \\___ wan 10.71.0.1 fd71::1 ___ 10.71.0.2 fd71::2 ___/

Names hold the process id, so several may run at once, and sweep() knows what a process that died left behind."""
import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import scale

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_serial = itertools.count()
PATIENCE = scale.deadline(15)  # seconds that a socket waits


def sh(*argv, ok=True, **kw):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60, **kw)
    if ok and r.returncode:
        raise AssertionError(f"{' '.join(argv)}: {r.returncode}: {(r.stderr or r.stdout).strip()}")
    return r.stdout


def batch(ns, *lines):
    """ip commands in a namespace, in one run: starting programs is what a slow guest spends its time on. Those of which ip
    cannot see that they mean IPv6 begin with "-6 ", and come in a second run."""
    for flag, some in (([], [x for x in lines if not x.startswith("-6 ")]),
                       (["-6"], [x[3:] for x in lines if x.startswith("-6 ")])):
        if some:
            sh("ip", "-n", ns, *flag, "-batch", "-", input="\n".join(some) + "\n")


class Unwound:
    """What rows stand on. `_begin()` starts it, and puts on self.stack what ends it: in reverse, at the end or when the start
    fails half-way."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.stack = stack
            self._begin()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self.stack.close()


@contextlib.contextmanager
def inside(ns):
    """This thread is in namespace `ns` meanwhile."""
    with open("/proc/thread-self/ns/net", "rb") as back, open(f"/run/netns/{ns}", "rb") as there:
        if _libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {ns}")
        try:
            yield
        finally:
            if _libc.setns(back.fileno(), _CLONE_NEWNET):
                os._exit(3)  # nothing that runs after this would be where it thinks it is


def sysctl(path, value):
    with open(f"/proc/sys/{path}", "w") as f:
        f.write(str(value))


def family(ip):
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


class Host:
    """A namespace, with sockets and programs in it."""

    def __init__(self, ns):
        self.ns = ns

    def socket(self, fam=socket.AF_INET, kind=socket.SOCK_STREAM):
        with inside(self.ns):
            s = socket.socket(fam, kind)
        s.settimeout(PATIENCE)
        return s

    def connect(self, ip, port, timeout=PATIENCE, rcvbuf=0, source_port=0):
        s = self.socket(family(ip))
        s.settimeout(timeout)
        if rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source_port:
            s.bind(("", source_port))
        try:
            s.connect((ip, port))
        except OSError:
            s.close()
            raise
        return s

    def listen(self, port, ip="::", backlog=4096, rcvbuf=0):
        s = self.socket(family(ip))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if family(ip) == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind((ip, port))
        s.listen(backlog)
        return s

    def get(self, port, path, timeout=PATIENCE):
        """HTTP from this host's loopback: (status, body)."""
        with self.connect("127.0.0.1", port, timeout=timeout) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            raw = b""
            while data := s.recv(65536):
                raw += data
        head, _, body = raw.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body

    def run(self, *argv, ok=True, **kw):
        return sh("ip", "netns", "exec", self.ns, *argv, ok=ok, **kw)

    def popen(self, argv, **kw):
        return subprocess.Popen(["ip", "netns", "exec", self.ns, *argv], **kw)


class Pod(Host):
    def __init__(self, net, node, name, index, mesh):
        super().__init__(f"{net.name}-{name}")
        self.node, self.name, self.mesh = node, name, mesh
        self.namespace, self.sa = "default", f"sa-{name}"
        self.uid = f"{os.getpid():08x}-{net.serial:04x}-4000-8000-{node.index:04x}{index:08x}"
        self.ip4, self.ip6 = f"10.71.{node.index}.{index}", f"fd71:{node.index}::{index}"
        self.spiffe = f"spiffe://cluster.local/ns/{self.namespace}/sa/{self.sa}"

    def ip(self, v6=False):
        return self.ip6 if v6 else self.ip4


class Node(Host):
    def __init__(self, net, index):
        super().__init__(f"{net.name}-n{index}")
        self.index, self.name, self.pods = index, f"node-{index}", []
        self.wan4, self.wan6 = f"10.71.0.{index}", f"fd71::{index}"


class Network:
    """Context manager: makes the namespaces, removes them whatever happened. `pods` are (node, name, last part of the
    address, in the mesh); `net.pods[name]` is the pod."""

    PODS = ((1, "a1", 2, True), (1, "a2", 3, True), (2, "b1", 2, True), (2, "b2", 3, True))

    def __init__(self, prefix, pods=PODS):
        self.serial = next(_serial)
        self.name = f"{prefix}-{os.getpid()}-{self.serial}"
        self.nodes = [Node(self, i) for i in (1, 2)]
        self.pods = {}
        for node, name, index, mesh in pods:
            self.pods[name] = Pod(self, self.nodes[node - 1], name, index, mesh)
            self.nodes[node - 1].pods.append(self.pods[name])

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _make(self):
        one, two = self.nodes
        hosts = (*self.nodes, *self.pods.values())
        sh("ip", "-batch", "-", input="".join(f"netns add {h.ns}\n" for h in hosts))
        for host in hosts:
            with inside(host.ns):
                sysctl("net/ipv6/conf/default/accept_dad", 0)  # else IPv6 is not forwarded for 1-2 s
                if host in self.nodes:
                    sysctl("net/ipv4/ip_forward", 1)
                    sysctl("net/ipv6/conf/all/forwarding", 1)
        for node, peer, wan in ((one, two, [f"link add wan type veth peer name wan netns {two.ns}"]), (two, one, [])):
            batch(node.ns, "link set lo up", f"addr add 10.71.{node.index}.1/32 dev lo",
                  f"addr add fd71:{node.index}::1/128 dev lo", *wan, f"addr add {node.wan4}/30 dev wan",
                  f"addr add {node.wan6}/64 dev wan nodad", "link set wan up",
                  f"route add 10.71.{peer.index}.0/24 via {peer.wan4}", f"route add fd71:{peer.index}::/64 via {peer.wan6}",
                  *(line for pod in node.pods for line in self._to_pod(pod)))
        for pod in self.pods.values():
            batch(pod.ns, "link set lo up", f"addr add {pod.ip4}/32 dev eth0", f"addr add {pod.ip6}/128 dev eth0 nodad",
                  "link set eth0 up", f"route add default via 10.71.{pod.node.index}.1 dev eth0 onlink",
                  "route add default via fe80::1 dev eth0")

    @staticmethod
    def _to_pod(pod):
        """The node's end."""
        veth = f"v-{pod.name}"
        return (f"link add {veth} type veth peer name eth0 netns {pod.ns}", f"link set {veth} up",
                f"route add {pod.ip4}/32 dev {veth}", f"addr add fe80::1/64 dev {veth} nodad",
                f"route add {pod.ip6}/128 dev {veth}")

    def __exit__(self, *exc):
        sh("ip", "-force", "-batch", "-", ok=False,
           input="".join(f"netns del {h.ns}\n" for h in (*self.pods.values(), *self.nodes)))


@contextlib.contextmanager
def folder(prefix):
    """A folder in /tmp that goes away, with what was mounted in it."""
    path = tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir="/tmp")
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        remove_folder(path)


def remove_folder(path):
    with open("/proc/self/mounts") as f:
        for mount in [line.split()[1] for line in f]:
            if mount.startswith(path + "/"):
                sh("umount", "-l", mount, ok=False)
    shutil.rmtree(path, True)


@contextlib.contextmanager
def unwinding():
    """SIGTERM and SIGHUP unwind like Ctrl-C, and a second one does not disturb the cleaning up."""

    def stop(number, frame):
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    old = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def sweep(prefix):
    """Removes what processes that are gone left: their namespaces, the programs in these, their folders."""
    def left(names):
        return [x for x in names if (m := re.match(re.escape(prefix) + r"-(\d+)-", x)) and not is_alive(m[1])]

    for ns in left(os.listdir("/run/netns") if os.path.isdir("/run/netns") else ()):
        for pid in sh("ip", "netns", "pids", ns, ok=False).split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        sh("ip", "netns", "del", ns, ok=False)
    for name in left(os.listdir("/tmp")):
        remove_folder(f"/tmp/{name}")


def stop(process, deadline=5):
    """Ends a child: asks, then insists."""
    if process and process.poll() is None:
        process.terminate()
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(fn, what, deadline=10.0):
    """Waits until fn() is true and returns it."""
    end = time.monotonic() + scale.deadline(deadline)
    while not (value := fn()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline:g} s for {what}")
        time.sleep(0.01)
    return value
