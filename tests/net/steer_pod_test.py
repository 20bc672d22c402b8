#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What steering follows while a pod lives: its devices and addresses, its configuration, who the agent is and who the kubelet;
and the counters that say so. Rows without "tcx" or "clsact" in the name use what the kernel has."""
import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, Driver, agent_cgroup, batch, driver_path, inside, read_file, sysctl, write_file
from packets import ip4, ip6, tcp
from rows import Skip, Table, check, equal, until
from servers import AGENT_MARK, dial_marked, echoes, hear
from steer_bed import SteerBed
from topology import sh, unwinding, wait_for

table = Table(__file__)
HOOKS = ("tcx", "clsact")
SYN, ACK = 0x02, 0x10


def row(name, hooks=("auto",), bed=SteerBed, **options):
    def add(fn):
        for hook in hooks:
            table.row(f"{hook} {name}" if len(hooks) > 1 else name, functools.partial(bed, hook, **options))(fn)
        return fn

    return add


def counted(bed, name, by=1):
    """A context manager: counter `name` grows by `by` at least."""
    @contextlib.contextmanager
    def watch():
        before = bed.counters()[name]
        yield
        grown = bed.counters()[name] - before
        check(grown >= by, f"{name} grew by {grown}")
    return watch()


def second_device(bed, device="eth1", up=True):
    batch(bed.pod.ns, f"link add {device} type veth peer name v2-a1 netns {bed.node.ns}")
    batch(bed.node.ns, "addr add 10.71.8.1/24 dev v2-a1", "addr add fd71:8::1/64 dev v2-a1 nodad", "link set v2-a1 up")
    batch(bed.pod.ns, f"addr add 10.71.8.2/24 dev {device}", f"addr add fd71:8::2/64 dev {device} nodad",
          f"link set {device} up")


def devices(bed):
    return {x.split(":")[0]: x.split(":")[2:] for x in bed.status()["devices"].split(",") if x}


# --- devices ------------------------------------------------------------------------------------------------------------

@row("late-device", HOOKS)
def _(bed):
    bed.servers.tcp(bed.node, APP, "node")
    second_device(bed)
    until(lambda: devices(bed).get("eth1") == ["late", "attached"], "eth1 to be attached")
    for v6 in (False, True):
        near, own = ("fd71:8::1", "fd71:8::2") if v6 else ("10.71.8.1", "10.71.8.2")
        until(lambda: own in bed.status()["addrs"], "the address to be known")
        equal(bed.ask(bed.pod, near, APP).who, "agent=15001", "who answers")
        said = bed.ask(bed.node, own, APP)
        equal((said.who, said.local), ("agent=15006", (own, APP)), "who answers")
    bed.unsteer()
    check("clsact" not in sh("tc", "-n", bed.pod.ns, "qdisc"), "clsact is still there")


@row("late-device-outlives-the-keeper", HOOKS)
def _(bed):
    second_device(bed)
    until(lambda: "eth1" in devices(bed), "eth1 to be attached")
    bed.next_keeper()
    bed.steer()
    equal(bed.status()["adopted"], "1", "adopted")
    check("eth1" in devices(bed), "eth1 is forgotten")


@row("device-that-came-while-no-keeper-was-there", HOOKS)
def _(bed):
    bed.servers.tcp(bed.node, APP, "node")
    bed.kill_agent()
    second_device(bed)
    bed.start()
    bed.steer()
    equal(bed.ask(bed.pod, "10.71.8.1", APP).who, "agent=15001", "who answers")


@row("recreated-eth0", HOOKS)
def _(bed):
    for _ in range(3):
        batch(bed.pod.ns, "link del eth0")
        until(lambda: not devices(bed), "eth0 to be forgotten")
        batch(bed.pod.ns, f"link add eth0 type veth peer name v-a1 netns {bed.node.ns}", f"addr add {bed.pod.ip4}/32 dev eth0",
              "link set eth0 up")
        batch(bed.node.ns, "link set v-a1 up", f"route add {bed.pod.ip4}/32 dev v-a1")
        batch(bed.pod.ns, "route add default via 10.71.1.1 dev eth0 onlink")
        until(lambda: devices(bed).get("eth0") == ["late", "attached"], "eth0 to be attached")
        bed.works()
    pins = [x for x in os.listdir(bed.folder()) if "gress" in x]
    equal(len(pins), 2, f"pins of devices {pins}")


@row("recreated-eth0-while-no-keeper-was-there", HOOKS)
def _(bed):
    bed.kill_agent()
    batch(bed.pod.ns, "link del eth0")
    batch(bed.pod.ns, f"link add eth0 index 2 type veth peer name v-a1 netns {bed.node.ns}",
          f"addr add {bed.pod.ip4}/32 dev eth0", "link set eth0 up")
    batch(bed.node.ns, "link set v-a1 up", f"route add {bed.pod.ip4}/32 dev v-a1")
    batch(bed.pod.ns, "route add default via 10.71.1.1 dev eth0 onlink")
    bed.start()
    bed.steer()
    bed.works()
    equal(len([x for x in os.listdir(bed.folder()) if "gress" in x]), 2, "pins of devices")


@row("renamed-virtual-interface")
def _(bed):
    """The annotation names a device that comes, goes and comes with another index."""
    with inside(bed.pod.ns):
        sysctl("net/ipv4/ip_forward", 1)
    bed.configure("iface=vif0")
    for _ in range(2):
        second_device(bed, "vif0")
        until(lambda: "10.71.8.2" in bed.status()["addrs"], "vif0 to be known")
        said = bed.ask(bed.node, "10.71.8.2", APP)
        equal((said.who, said.local), ("agent=15001", ("10.71.8.2", APP)), "who answers")
        batch(bed.pod.ns, "link del vif0")
        until(lambda: "vif0" not in devices(bed), "vif0 to be forgotten")


class Tun:
    """A device without Ethernet header in the pod; we are its wire."""

    def __init__(self, bed):
        with inside(bed.pod.ns):
            try:
                self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            except OSError as e:
                raise Skip(f"no tun devices here: {e}") from e
            fcntl.ioctl(self.fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        batch(bed.pod.ns, "addr add 10.71.7.2/24 dev tun0", "addr add fd71:7::2/64 dev tun0 nodad", "link set tun0 up")
        until(lambda: devices(bed).get("tun0") == ["late", "l3", "attached"], "tun0 to be attached")
        until(lambda: "fd71:7::2" in bed.status()["addrs"] and "10.71.7.2" in bed.status()["addrs"], "its addresses")

    def packets(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                yield os.read(self.fd, 1 << 16)


@row("device-without-ethernet-header", HOOKS)
def _(bed):
    tun = Tun(bed)
    try:
        for v6, build in ((False, ip4), (True, ip6)):
            far, own = ("fd71:7::9", "fd71:7::2") if v6 else ("10.71.7.9", "10.71.7.2")
            with contextlib.closing(bed.pod.connect(far, 80, 5)) as s:
                said = hear(s)
                equal((said.who, said.local, said.peer[0]), ("agent=15001", (far, 80), own), "who answers")
                check(echoes(s, os.urandom(1 << 18)), "bytes changed")
            sent = [p for p in tun.packets() if p[9 - 3 * v6] == socket.IPPROTO_TCP]
            equal(sent, [], "TCP on the wire")
            with counted(bed, "in_captured"):
                os.write(tun.fd, build(far, own, tcp(far, own, 40000, APP, SYN, 1)))
                until(lambda: any(p[9 - 3 * v6] == socket.IPPROTO_TCP for p in tun.packets()), "an answer")
    finally:
        os.close(tun.fd)


@row("more-devices-than-we-take", attached=False)
def _(bed):
    """Refused whole: a device that is not steered would be a way out."""
    for i in range(33):
        batch(bed.pod.ns, f"link add d{i} type veth peer name e{i} netns {bed.node.ns}")
    why = bed.attach_error()
    check("more than 32 devices" in why, why)
    equal(os.listdir(f"{bed.pins}/v1"), [], "pins")
    bed.direct()


# --- addresses ------------------------------------------------------------------------------------------------------------

@row("address-added-later")
def _(bed):
    for v6, ip in ((False, "10.71.1.77"), (True, "fd71:1::77")):
        bits = 128 if v6 else 32
        batch(bed.node.ns, f"route add {ip}/{bits} dev v-a1")
        batch(bed.pod.ns, f"addr add {ip}/{bits} dev eth0" + (" nodad" if v6 else ""))
        until(lambda: ip in bed.status()["addrs"], "the address to be known")
        said = bed.ask(bed.remote, ip, APP)
        equal((said.who, said.local), ("agent=15006", (ip, APP)), "who answers the remote side")
        equal(bed.ask(bed.pod, ip, APP).who, "app", "who answers the pod itself")
        batch(bed.pod.ns, f"addr del {ip}/{bits} dev eth0")
        until(lambda: ip not in bed.status()["addrs"], "the address to be forgotten")


@row("same-address-on-two-devices")
def _(bed):
    batch(bed.pod.ns, f"addr add {bed.pod.ip4}/32 dev lo")
    batch(bed.pod.ns, f"addr del {bed.pod.ip4}/32 dev lo")
    second_device(bed)
    until(lambda: "10.71.8.2" in bed.status()["addrs"], "the next change to be seen")
    check(bed.pod.ip4 in bed.status()["addrs"], "the address is forgotten")
    bed.works()


@row("more-addresses-than-we-take")
def _(bed):
    """Traffic to the last one is dropped and counted; it never reaches the app round the agent."""
    batch(bed.pod.ns, *(f"addr add 10.71.6.{i}/32 dev eth0" for i in range(1, 71)))
    batch(bed.node.ns, "route add 10.71.6.0/24 dev v-a1")
    until(lambda: len(bed.status()["addrs"].split(",")) == 64, "the list to be full")
    known = bed.status()["addrs"].split(",")
    lost = next(x for x in (f"10.71.6.{i}" for i in range(1, 71)) if x not in known)
    with counted(bed, "drop_in_unknown"), contextlib.suppress(TimeoutError):
        bed.ask(bed.node, lost, APP, timeout=0.5)
        raise AssertionError("connected")


# --- configuration ---------------------------------------------------------------------------------------------------------

@row("excluded-destinations")
def _(bed):
    for v6 in (False, True):
        ip = bed.remote.ip(v6)
        prefix = f"{ip}/{64 if v6 else 24}"
        bed.configure(f"out={prefix}")
        with counted(bed, "out_excluded"):
            equal(bed.ask(bed.pod, ip, APP).who, "remote", "who answers")
        equal(bed.ask(bed.pod, bed.net.nodes[1].wan6 if v6 else bed.net.nodes[1].wan4, APP).who, "agent=15001",
              "who answers elsewhere")
        bed.configure()
        equal(bed.ask(bed.pod, ip, APP).who, "agent=15001", "who answers afterwards")


@row("all-sixteen-exclusions-change-live")
def _(bed):
    bed.configure(*(f"out=10.99.{i}.0/24" for i in range(16)))
    bed.configure(*(f"out=10.98.{i}.0/24" for i in range(15)), f"out={bed.remote.ip4}/32")
    equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "remote", "who answers")


@row("excluded-ports")
def _(bed):
    bed.servers.tcp(bed.pod, 8081, "app")
    bed.servers.tcp(bed.remote, 8081, "remote")
    bed.configure("out-port=9999", "out-port=8081", "in-port=9998", "in-port=8081")
    with counted(bed, "out_excluded"), counted(bed, "in_excluded"):
        equal(bed.ask(bed.pod, bed.remote.ip4, 8081).who, "remote", "who answers the pod")
        equal(bed.ask(bed.remote, bed.pod.ip4, 8081).who, "app", "who answers the remote side")
    bed.works()


@row("inbound-bypass-changes-live")
def _(bed):
    bed.configure("bypass")
    with counted(bed, "in_bypass"):
        equal(bed.ask(bed.remote, bed.pod.ip4, APP).who, "app", "who answers")
    equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "agent=15001", "who answers the pod")
    bed.configure()
    bed.works()


@row("configuration-outlives-the-keeper")
def _(bed):
    bed.configure("bypass")
    bed.kill_agent()
    equal(bed.ask(bed.remote, bed.pod.ip4, APP).who, "app", "who answers")
    bed.start()
    bed.steer()
    bed.works()


@row("without-listeners-attempts-wait", HOOKS)
def _(bed):
    """No refusal, no way round: the SYN is dropped and tried again until the next agent is there."""
    bed.driver.ask("close", bed.pod.uid)
    waiting = []
    with contextlib.ExitStack() as stack:
        for host, ip, port in ((bed.pod, bed.remote.ip4, APP), (bed.pod, bed.remote.ip6, APP),
                               (bed.remote, bed.pod.ip4, APP), (bed.remote, bed.pod.ip6, APP),
                               (bed.remote, bed.pod.ip4, 15008), (bed.remote, bed.pod.ip6, 15008)):
            s = stack.enter_context(contextlib.closing(host.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)))
            s.setblocking(False)
            equal(s.connect_ex((ip, port)), errno.EINPROGRESS, "connect")
            waiting.append(s)
        drops = {"drop_out_no_listener": 1, "drop_lookup_no_listener": 1, "drop_in_no_listener": 2, "drop_in_no_hbone": 2}
        until(lambda: all(bed.counters()[x] >= n for x, n in drops.items()), "the drops")
        bed.driver.ask("reopen", bed.pod.uid)
        for s in waiting:
            s.settimeout(10)
            check(hear(s).who.startswith("agent="), "who answers")


# --- the agent's cgroup ------------------------------------------------------------------------------------------------------

class CgroupBed(SteerBed):
    def rooms(self):
        super().rooms()
        self.cgroup = self.stack.enter_context(agent_cgroup())

    def start(self, cgroup=None):
        super().start(self.cgroup)


@contextlib.contextmanager
def sitting_in(bed, cgroup):
    """This process is in `cgroup` meanwhile; its new sockets belong there."""
    back = next(x for x in read_file("/proc/self/cgroup").splitlines() if x.startswith("0::"))[3:]
    write_file(f"{cgroup}/cgroup.procs", os.getpid())
    try:
        yield
    finally:
        write_file(f"{os.path.dirname(bed.cgroup)}{back}/cgroup.procs", os.getpid())


@row("mark-counts-in-the-agents-cgroup-only", HOOKS, bed=CgroupBed)
def _(bed):
    equal(bed.driver.ask("facts").split()[0], "mark_only=0", "fact")
    bed.works()
    for v6 in (False, True):
        ip = bed.remote.ip(v6)
        with counted(bed, "out_false_mark"), contextlib.closing(dial_marked(bed.pod, ip, APP)) as s:
            equal(hear(s).who, "agent=15001", "who answers a mark from elsewhere")
        with sitting_in(bed, bed.cgroup), contextlib.closing(dial_marked(bed.pod, ip, APP)) as s:
            equal(hear(s).who, "remote", "who answers the agent")
            check(echoes(s, os.urandom(1 << 18)), "bytes changed")


@row("tunnels-of-other-cgroups-are-added", bed=CgroupBed)
def _(bed):
    other = f"{bed.cgroup}-tunnel"
    os.mkdir(other)
    try:
        tunnel = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: write_file(f"{other}/cgroup.procs", 0))
        try:
            with sitting_in(bed, other), contextlib.closing(dial_marked(bed.pod, bed.remote.ip4, APP)) as s:
                equal(hear(s).who, "agent=15001", "who answers before")
            bed.driver.ask("agent", tunnel.pid)
            with sitting_in(bed, other), contextlib.closing(dial_marked(bed.pod, bed.remote.ip4, APP)) as s:
                equal(hear(s).who, "remote", "who answers")
            # The keeper that comes next knows it from the pinned map, as long as the process lives.
            bed.next_keeper()
            bed.steer()
            with sitting_in(bed, other), contextlib.closing(dial_marked(bed.pod, bed.remote.ip4, APP)) as s:
                equal(hear(s).who, "remote", "who answers with the next keeper")
        finally:
            tunnel.kill()
            tunnel.wait()
        bed.next_keeper()
        bed.steer()
        with sitting_in(bed, other), contextlib.closing(dial_marked(bed.pod, bed.remote.ip4, APP)) as s:
            equal(hear(s).who, "agent=15001", "who answers when the tunnel has ended")
    finally:
        wait_for(lambda: not read_file(f"{other}/cgroup.procs"), "an empty cgroup")
        os.rmdir(other)


@row("agent-that-does-not-exist", bed=CgroupBed)
def _(bed):
    why = bed.refuses("agent", 2 ** 22 - 1)
    check("No such process" in why, why)
    equal(bed.driver.ask("facts").split()[0], "mark_only=0", "fact")


def root_cgroup(fn):
    """Rows about an agent in the root cgroup need a place where processes are."""
    @functools.wraps(fn)
    def run(*args):
        with agent_cgroup() as somewhere:
            root = os.path.dirname(somewhere)
            back = next(x for x in read_file("/proc/self/cgroup").splitlines() if x.startswith("0::"))[3:]
            write_file(f"{root}/cgroup.procs", os.getpid())
            try:
                fn(*args)
            finally:
                write_file(f"{root}{back}/cgroup.procs", os.getpid())

    return run


@row("mark-alone-counts-where-the-agent-is-in-the-root", attached=False)
@root_cgroup
def _(bed):
    bed.driver.close()
    errors = open(f"{os.path.dirname(bed.pins)}/errors", "w+")
    bed.stack.callback(errors.close)
    process = subprocess.Popen
    try:
        subprocess.Popen = functools.partial(process, stderr=errors)
        bed.driver = Driver(bed.pins, "bpf")
    finally:
        subprocess.Popen = process
    bed.steer()
    bed.works()
    equal(bed.driver.ask("facts").split()[0], "mark_only=1", "fact")
    with contextlib.closing(dial_marked(bed.pod, bed.remote.ip4, APP)) as s:
        equal(hear(s).who, "remote", "who answers")
    errors.seek(0)
    lines = [x for x in errors if "mark alone" in x]
    check(len(lines) == 1 and "root cgroup" in lines[0] and "CAP_NET_RAW" in lines[0], f"warnings: {lines}")


# --- the kubelet ----------------------------------------------------------------------------------------------------------------

class KubeletBed(CgroupBed):
    """The bed plays the kubelet, in a cgroup beside the agent's; a child of it plays a container."""

    def rooms(self):
        super().rooms()
        self.kubelet = f"{self.cgroup}-kubelet"
        os.mkdir(self.kubelet)
        os.mkdir(f"{self.kubelet}/child")
        self.stack.callback(lambda: [os.rmdir(x) for x in (f"{self.kubelet}/child", self.kubelet)])

    def start(self, cgroup=None):
        self.driver = Driver(self.pins, f"{self.mode} hook={self.hook} kubelet={self.kubelet}", self.cgroup)

    def prepare(self):
        super().prepare()
        self.servers.tcp(self.pod, 8081, "app")


@row("kubelet-is-exempt", HOOKS, bed=KubeletBed)
def _(bed):
    facts = bed.driver.ask("facts")
    check("kubelet=1" in facts and bed.kubelet in facts, facts)
    for v6 in (False, True):
        ip = bed.pod.ip(v6)
        with sitting_in(bed, bed.kubelet), counted(bed, "in_kubelet"), contextlib.closing(bed.node.connect(ip, APP)) as s:
            equal(hear(s).who, "app", "who answers the kubelet")
            check(echoes(s, os.urandom(1 << 16)), "bytes changed")
        equal(bed.ask(bed.node, ip, APP).who, "agent=15006", "who answers another process of the node")
        with sitting_in(bed, f"{bed.kubelet}/child"):
            equal(bed.ask(bed.node, ip, APP).who, "agent=15006", "who answers a child of the kubelet's cgroup")
        with sitting_in(bed, bed.kubelet):
            port = bed.ask(bed.node, ip, 15008)
            equal(port.who, "agent=15008", "who answers on 15008")


@row("kubelet-with-syn-cookies", bed=KubeletBed)
def _(bed):
    with inside(bed.pod.ns):
        sysctl("net/ipv4/tcp_syncookies", 2)
    with sitting_in(bed, bed.kubelet):
        equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "app", "who answers the kubelet")
    bed.works()


class FoundKubeletBed(KubeletBed):
    """A process called kubelet runs in that cgroup, and the keeper looks for it."""

    def start(self, cgroup=None):
        program = f"{os.path.dirname(self.pins)}/kubelet"
        if not os.path.exists(program):
            shutil.copy(shutil.which("sleep"), program)
        process = subprocess.Popen([program, "300"],
                                   preexec_fn=lambda: write_file(f"{self.kubelet}/cgroup.procs", 0))
        self.stack.callback(lambda: (process.kill(), process.wait()))
        self.process = process
        self.driver = Driver(self.pins, f"{self.mode} kubelet=find", self.cgroup)


@row("kubelet-is-found-and-followed", bed=FoundKubeletBed)
def _(bed):
    """A restarted service has a new cgroup of the same name: looked for every 10 s."""
    if os.path.basename(bed.kubelet) not in (facts := bed.driver.ask("facts")):
        raise Skip(f"another kubelet, or it cannot be told apart here: {facts}")
    with sitting_in(bed, bed.kubelet):
        equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "app", "who answers the kubelet")
    bed.process.kill()
    bed.process.wait()
    for path in (f"{bed.kubelet}/child", bed.kubelet):
        wait_for(lambda: not read_file(f"{path}/cgroup.procs"), "an empty cgroup")
        os.rmdir(path)
    os.makedirs(f"{bed.kubelet}/child")
    process = subprocess.Popen([f"{os.path.dirname(bed.pins)}/kubelet", "300"],
                               preexec_fn=lambda: write_file(f"{bed.kubelet}/cgroup.procs", 0))
    try:
        with sitting_in(bed, bed.kubelet):
            until(lambda: bed.ask(bed.node, bed.pod.ip4, APP).who == "app", "the new cgroup to be exempt", 15)
    finally:
        process.kill()
        process.wait()


class NamedKubeletBed(KubeletBed):
    """A user's process calls itself kubelet, in a cgroup of its own; and root's beside it."""

    def start(self, cgroup=None):
        self.called(f"{self.kubelet}/child", user=65534, group=65534, extra_groups=[])
        if self.beside:
            self.called(self.kubelet)
        self.driver = Driver(self.pins, f"{self.mode} kubelet=find", self.cgroup)

    def __init__(self, *args, beside, **kw):
        self.beside = beside
        super().__init__(*args, **kw)

    def called(self, cgroup, **who):
        process = subprocess.Popen(["sh", "-c", "printf kubelet >/proc/$$/comm; echo named; read end"], stdin=-1, stdout=-1,
                                   **who)
        self.stack.callback(lambda: process.communicate(b"\n"))
        process.stdout.readline()
        write_file(f"{cgroup}/cgroup.procs", process.pid)


@row("a-user-who-calls-a-program-kubelet-is-not-the-kubelet", bed=NamedKubeletBed, beside=False)
def _(bed):
    if "kubelet=0" in (facts := bed.driver.ask("facts")) and "no kubelet in /proc" not in facts:
        raise Skip(f"another kubelet, or it cannot be told apart here: {facts}")
    check("kubelet=0" in facts, facts)
    with sitting_in(bed, f"{bed.kubelet}/child"):
        equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "agent=15006", "who answers him")


@row("nor-makes-it-doubtful-who-is", bed=NamedKubeletBed, beside=True)
def _(bed):
    facts = bed.driver.ask("facts")
    if "kubelet=0" in facts and "several" not in facts:
        raise Skip(f"it cannot be told apart here: {facts}")
    check("kubelet=1" in facts and facts.rstrip().endswith(os.path.basename(bed.kubelet)), facts)


@row("kubelet-outlives-the-keeper", bed=KubeletBed)
def _(bed):
    bed.kill_agent()
    with sitting_in(bed, bed.kubelet):
        equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "app", "who answers the kubelet")
    bed.start()
    bed.steer()
    with sitting_in(bed, bed.kubelet):
        equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "app", "who answers the kubelet")


@row("node-address-to-probe-ports-is-not-exempt-beside-a-kubelet", bed=KubeletBed)
def _(bed):
    bed.configure("node=10.71.1.1", "probe=8080")
    equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "agent=15006", "who answers the node")


@row("node-address-to-probe-ports-while-there-is-no-kubelet", bed=KubeletBed)
def _(bed):
    """Looked for every 10 s; the pod was configured before, and is not again."""
    bed.configure("node=10.71.1.1", "probe=8080")

    def who():
        return bed.ask(bed.node, bed.pod.ip4, APP).who

    equal(who(), "agent=15006", "who answers the node beside a kubelet")
    for path in (f"{bed.kubelet}/child", bed.kubelet):
        os.rmdir(path)
    try:
        until(lambda: who() == "app", "the node's address to stand for the kubelet", 15)
        equal(bed.ask(bed.node, bed.pod.ip4, 8081).who, "agent=15006", "who answers on another port")
    finally:
        os.makedirs(f"{bed.kubelet}/child")
    until(lambda: who() == "agent=15006", "the kubelet to be told apart again", 15)


class NoKubeletBed(CgroupBed):
    """Told to look for the kubelet, in its place is the root of cgroups."""

    def start(self, cgroup=None):
        root = os.path.dirname(self.cgroup)
        self.driver = Driver(self.pins, f"{self.mode} kubelet={root}", self.cgroup)


@row("kubelet-in-the-root-is-refused", bed=NoKubeletBed)
def _(bed):
    facts = bed.driver.ask("facts")
    check("kubelet=0" in facts and "root cgroup" in facts, facts)
    equal(bed.ask(bed.node, bed.pod.ip4, APP).who, "agent=15006", "who answers the node")


@row("node-address-to-probe-ports-where-the-kubelet-is-not-told-apart", bed=NoKubeletBed)
def _(bed):
    bed.servers.tcp(bed.pod, 8081, "app")
    for v6 in (False, True):
        node = f"fd71:1::{1}" if v6 else "10.71.1.1"
        bed.configure(f"node={node}", "probe=9999", "probe=8080")

        def dial(port, source):
            s = bed.node.socket(socket.AF_INET6 if v6 else socket.AF_INET)
            with contextlib.closing(s):
                s.bind((source, 0))
                s.connect((bed.pod.ip(v6), port))
                return hear(s).who

        with counted(bed, "in_probe_addr"):
            equal(dial(APP, node), "app", "who answers a probe")
        equal(dial(8081, node), "agent=15006", "who answers on another port")
        equal(dial(APP, bed.node.wan6 if v6 else bed.node.wan4), "agent=15006", "who answers another address")


# --- handshakes with cookies, counters ------------------------------------------------------------------------------------------

@row("syn-cookies-forced", HOOKS)
def _(bed):
    with inside(bed.pod.ns):
        sysctl("net/ipv4/tcp_syncookies", 2)
    with counted(bed, "in_cookie", 2):
        bed.works((False, True))


@row("counters-of-decisions")
def _(bed):
    bed.servers.udp(bed.remote, 53, "remote", bed.remote.ip4)
    batch(bed.node.ns, "addr add 169.254.7.127/32 dev lo")
    bed.servers.tcp(bed.node, APP, "node")
    with counted(bed, "out_captured"):
        bed.ask(bed.pod, bed.remote.ip4, APP)
    with counted(bed, "in_captured"):
        bed.ask(bed.remote, bed.pod.ip4, APP)
    with counted(bed, "out_exempt"):
        equal(bed.ask(bed.pod, "169.254.7.127", APP).who, "node", "who answers")
    with counted(bed, "out_dns"), contextlib.closing(bed.pod.socket(kind=socket.SOCK_DGRAM)) as s:
        s.connect((bed.remote.ip4, 53))
        s.send(b"?")
        check(s.recv(200).startswith(b"agent=15053"), "who answers")
    with counted(bed, "out_joined"):
        source = (bed.remote.ip4, 10250)
        with contextlib.closing(dial_marked(bed.pod, bed.pod.ip4, APP, source)) as s:
            equal(hear(s).who, "app", "who answers")
    bed.configure("bypass")
    with counted(bed, "out_direct"):
        bed.ask(bed.remote, bed.pod.ip4, APP)
    total = sum(n for name, n in bed.counters().items() if name.startswith("drop"))
    equal(total, 0, "drops")


@row("counters-have-names-and-kinds")
def _(bed):
    names = list(bed.counters())
    check(len(names) == len(set(names)) and len(names) > 25, f"names: {names}")
    check(all(re.fullmatch(r"(out|in|drop)_[a-z_]+", x) for x in names), f"names: {names}")


if __name__ == "__main__":
    with unwinding():
        table.main()
