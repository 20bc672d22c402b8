# SPDX-License-Identifier: Apache-2.0
"""A steered pod: tests/topology.py's network with pod a1 (steered) and b1 (the remote side, outside the mesh), servers
on both, and steer_driver with its agent.

    remote b1 --- node 2 --wan-- node 1 --- eth0 pod a1: app on APP, agent on 15001, 15006, 15008, 15053"""
import contextlib
import os
import select
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e", "lib"))
import topology
from rows import Skip
from servers import Servers, hear
from topology import batch, family, inside, sysctl  # noqa: F401, for those who import this

APP, ECHO = 8080, 7
MODES = ("bpf", "iptables")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
PREFIX = "steer"


def driver_path():
    return os.path.join(ROOT, os.environ.get("B", "build"), "tests", "net", "steer_driver")


class Driver:
    """steer_driver: a line asks, a line answers; "ok" begins a good answer."""

    DEADLINE = 15

    def __init__(self, pins, mode, cgroup=None):
        enter = (lambda: write_file(f"{cgroup}/cgroup.procs", 0)) if cgroup else None
        self.process = subprocess.Popen([driver_path()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        preexec_fn=enter)
        self.rest = b""
        self.ask("open", pins, mode)

    def ask(self, *words):
        self.tell(*words)
        return self.answer(*words)

    def tell(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, *words):
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], self.DEADLINE)[0]:
                raise TimeoutError(f"steer_driver does not answer {words}")
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise ConnectionError(f"steer_driver is gone after {words}: status {self.process.wait(5)}")
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        answer = line.decode()
        if not answer.startswith("ok"):
            raise AssertionError(f"steer_driver: {' '.join(str(w) for w in words)}: {answer}")
        return answer.removeprefix("ok").strip()

    def counters(self, uid):
        return {k: int(v) for k, _, v in (w.partition("=") for w in self.ask("counters", uid).split())}

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()
        topology.stop(self.process)
        self.process.stdout.close()


def write_file(path, value):
    with open(path, "w") as f:
        f.write(str(value))


class Bed(topology.Unwound):
    """Context manager. `config` are words for the driver: dns, bypass, iface=NAME."""

    def __init__(self, mode, config=("dns",)):
        self.mode, self.config = mode, config
        self.driver, self.steered = None, False

    def _begin(self):
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        if not os.access(driver_path(), os.X_OK):
            raise AssertionError(f"{driver_path()} is not built: make check-net does it")
        topology.sweep(PREFIX)
        self.rooms()
        self.net = self.stack.enter_context(topology.Network(PREFIX, ((1, "a1", 2, True), (2, "b1", 2, False))))
        self.pod, self.remote = self.net.pods["a1"], self.net.pods["b1"]
        self.node, self.far = self.net.nodes
        self.servers = self.stack.enter_context(Servers())
        self.stack.callback(self.stop)
        self.prepare()
        self.start()
        self.steer(*self.config)

    def rooms(self):
        """What outlives the driver."""
        self.pins = self.stack.enter_context(bpf_folder())

    def prepare(self):
        """Servers and devices, before the pod is steered."""
        for host, word in ((self.pod, "app"), (self.remote, "remote")):
            self.servers.tcp(host, APP, word)
            for ip in (host.ip4, host.ip6):
                self.servers.udp(host, ECHO, word, ip)

    def start(self, cgroup=None):
        self.driver = Driver(self.pins, self.mode, cgroup)

    def stop(self):
        if self.driver:
            with contextlib.suppress(AssertionError, OSError):  # the row says what was wrong
                if self.steered:
                    self.unsteer()
            self.driver.close()
        self.driver = None

    def kill_agent(self):
        self.driver.kill()
        self.driver = None

    def steer(self, *config):
        self.driver.ask("attach", self.pod.uid, f"/run/netns/{self.pod.ns}", *config)
        self.steered = True

    def configure(self, *config):
        self.driver.ask("configure", self.pod.uid, *config)

    def unsteer(self, drain_ms=0):
        self.driver.ask("detach", self.pod.uid, drain_ms)
        self.steered = False

    @contextlib.contextmanager
    def configured(self, *config):
        self.configure(*config)
        try:
            yield
        finally:
            self.configure(*self.config)

    def counters(self):
        return self.driver.counters(self.pod.uid)

    def drops(self):
        """Packets that our programs dropped so far."""
        return sum(n for name, n in self.counters().items() if name.startswith("drop"))

    def ask(self, host, ip, port, timeout=5, **kw):
        """Who answers a TCP connection."""
        with contextlib.closing(host.connect(ip, port, timeout, **kw)) as s:
            return hear(s)


@contextlib.contextmanager
def extra(net, name):
    """One more namespace of the network."""
    host = topology.Host(f"{net.name}-{name}")
    topology.sh("ip", "netns", "add", host.ns)
    try:
        yield host
    finally:
        topology.sh("ip", "netns", "del", host.ns, ok=False)


@contextlib.contextmanager
def agent_cgroup():
    """A cgroup2 folder for the agent: the pods' processes are outside."""
    with topology.folder(PREFIX) as path:
        mount = f"{path}/cgroup"
        os.mkdir(mount)
        r = subprocess.run(["mount", "-t", "cgroup2", "none", mount], capture_output=True, text=True)
        if r.returncode:
            raise Skip(f"cannot mount cgroup2: {r.stderr.strip()}")
        mine = f"{mount}/{os.path.basename(path)}"
        os.mkdir(mine)
        try:
            yield mine
        finally:
            topology.wait_for(lambda: not read_file(f"{mine}/cgroup.procs"), "an empty cgroup")
            os.rmdir(mine)


def read_file(path):
    with open(path) as f:
        return f.read()


@contextlib.contextmanager
def bpf_folder():
    """A folder with a bpffs of its own."""
    with topology.folder(PREFIX) as path:
        pins = f"{path}/bpf"
        os.mkdir(pins)
        yield pins
